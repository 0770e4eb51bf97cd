//! Enforcement points of somebody else's making: what their decision points are told, and what becomes of them. (E21)

use super::*;

const ENVOY: &str = "\n[pep.envoy]\nowner = \"web\"\nuid = 101\noffers = [\"service.api:GET /api/videos\", \"service.web\"]\n";

fn with_envoy(text: String) -> String {
    text + ENVOY
}

impl House {
    fn with_peps(&self) -> Control {
        self.try_open(self.manifest(with_envoy), 300).unwrap()
    }
}

#[tokio::test]
async fn a_decision_point_is_told_what_its_enforcement_point_offers_and_nothing_else() {
    let house = House::new();
    let control = house.followed(house.with_peps()).await;
    let (pdp, pep) = (domain().pdp("envoy"), domain().pep("envoy"));
    let view = house.view(&control, &pdp).await;
    let told = view.pep.clone().unwrap();
    assert_eq!((told.spiffe_id, told.uid), (pep.clone(), Some(101)));
    assert_eq!(
        told.services,
        [(service("api"), vec!["127.0.0.1:4001".to_owned()]), (service("web"), vec!["127.0.0.1:4000".to_owned()])].into()
    );
    let offered = view.edge.clone().unwrap();
    let by_service = |name: &str| offered.routes.iter().filter(|r| r.service == service(name)).count();
    let web = house.view(&control, &role("edge")).await.edge.unwrap().routes.iter().filter(|r| r.service == service("web")).count();
    assert_eq!((by_service("api"), by_service("web"), offered.buckets.len()), (1, web, 0));
    assert_eq!(names(view.peers.into_keys()), names(["control", "evidence", "identity", "login"].map(role)));
    assert!(view.callers.is_empty(), "nobody connects to it over the mesh");
    let slice: policy::PolicySlice = serde_json::from_value(view.policy).unwrap();
    let asked: BTreeSet<&str> = slice.cells.iter().map(|cell| cell.caller.as_str()).collect();
    assert_eq!(asked, ["envoy", "internet", "web"].into(), "who comes in by it, itself, and who calls those routes besides");
    assert!(policy::Engine::load(&slice, view.epoch).is_ok());
    for (name, declared) in [("api", true), ("web", true), ("validator", false)] {
        let callers = house.view(&control, &service(name)).await.callers;
        assert_eq!((callers.contains(&pep), callers.contains(&pdp)), (declared, false), "{name}: the proxy, and not what decides for it");
    }
    for id in [&pep, &domain().pdp("other")] {
        let (status, _) = send(&control, Peer::Workload(id.clone()), Method::GET, "/view", &Value::Null).await;
        assert_eq!(status.as_u16(), DenyReason::PeerUndeclared.status(), "{id} has no view");
    }
    let (_, value) = send(&control, Peer::Workload(role("evidence")), Method::GET, "/system", &Value::Null).await;
    let system: System = serde_json::from_value(value).unwrap();
    assert!(system.nodes.iter().any(|node| node.id == "pep/envoy" && node.owner == "web"));
    assert!(system.flows.iter().any(|flow| flow.from == "pep/envoy" && flow.to == "service/api"));
}

// C12, M5
#[tokio::test]
async fn an_enforcement_point_can_be_revoked_and_goes_with_the_manifest_and_comes_with_up_alone() {
    let house = House::new();
    let control = house.followed(house.with_peps()).await;
    let (pdp, pep) = (domain().pdp("envoy"), domain().pep("envoy"));
    let revoke = |id: &SpiffeId| serde_json::json!({ "spiffe_id": id });
    let (status, _) = send(&control, operator(), Method::POST, "/revoke", &revoke(&pep)).await;
    assert_eq!(status, StatusCode::OK);
    assert!(house.view(&control, &service("api")).await.revoked.iter().any(|one| one.spiffe_id == pep));
    let (status, _) = send(&control, operator(), Method::POST, "/revoke", &revoke(&domain().pep("other"))).await;
    assert_eq!(status, StatusCode::NOT_FOUND);

    let house = House::new();
    let control = house.followed(house.with_peps()).await;
    let (status, value) = send(&control, operator(), Method::POST, "/apply", &house.manifest(|t| t)).await;
    assert_eq!(status, StatusCode::OK, "{value}");
    let view = house.view(&control, &service("api")).await;
    let revoked: BTreeSet<SpiffeId> = view.revoked.into_iter().map(|one| one.spiffe_id).collect();
    assert_eq!(revoked, [pdp, pep.clone()].into());
    assert!(!view.callers.contains(&pep));
    let more = |text: String| with_envoy(text) + "[pep.second]\noffers = [\"service.web\"]\n";
    let (status, value) = send(&control, operator(), Method::POST, "/apply", &house.manifest(more)).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(value["error"].as_str().unwrap().contains("the enforcement point second is new"), "{value}");
}
