//! `[pep.NAME]`: what is offered, and each mistake with its place. (E21, M2)

use super::*;

const SYSTEM: &str = r#"
[system]
name = "shop"
trust_domain = "shop.example"
purposes = ["view"]

[data.page]
sensitivity = 1

[service.api]
run = ["./api"]
data = "page"
public = [{ path = "/a", methods = ["GET", "POST"], purpose = "view" }, { path = "/b", methods = ["GET"], purpose = "view" }]
internal = [{ path = "/in", methods = ["GET"], purpose = "view" }]

[service.worker]
run = ["./worker"]

[pep.envoy]
uid = 101
offers = ["service.api:GET /a", "service.api:GET /b"]
"#;

fn with(from: &str, to: &str) -> String {
    assert!(SYSTEM.contains(from), "{from}");
    SYSTEM.replacen(from, to, 1)
}

#[test]
fn an_enforcement_point_offers_what_it_names_or_all_that_a_service_has_in_public() {
    let manifest = Manifest::parse("x", SYSTEM).unwrap_or_else(|e| panic!("{e}"));
    let pep = &manifest.peps["envoy"];
    let offered = |m: &Manifest| m.offered(&m.peps["envoy"]).map(|(service, route)| route.id(service)).collect::<Vec<_>>();
    assert_eq!((pep.uid, offered(&manifest)), (Some(101), vec!["api:GET /a".to_owned(), "api:GET /b".to_owned()]));
    let all = with("[\"service.api:GET /a\", \"service.api:GET /b\"]", "[\"service.api\"]");
    let all = Manifest::parse("x", &all).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(offered(&all), ["api:GET /a", "api:GET /b", "api:POST /a"], "and nothing internal");
    assert_ne!(all.digest(), manifest.digest());
    let without = &SYSTEM[..SYSTEM.find("[pep").unwrap()];
    assert!(!canonical_json(&Manifest::parse("x", without).unwrap_or_else(|e| panic!("{e}"))).contains("peps"), "older digests stay");
}

#[test]
fn every_mistake_about_an_enforcement_point_is_named_with_its_place() {
    let line = |text: &str, of: &str| text[..text.find(of).unwrap()].matches('\n').count() + 1;
    let many = format!("offers = [{}]", vec!["\"service.api\""; 129].join(", "));
    let corpus = [
        (with("[pep.envoy]", "[pep.edge]"), "[pep.edge]", "name of one of Palisade's own", "another name"),
        (with("[pep.envoy]", "[pep.api]"), "[pep.api]", "name of a service", "another name"),
        (with("[pep.envoy]", "[pep.Envoy]"), "[pep.Envoy]", "no name", ""),
        (with("uid = 101", "uids = 101"), "uids = 101", "unknown key 'uids'", "'uid'"),
        (with("uid = 101", "uid = -1"), "uid = -1", "between", ""),
        (with("uid = 101", "owner = \"The web\""), "owner", "no name", ""),
        (with("service.api:GET /a", "service.apy:GET /a"), "apy", "no service 'apy'", "'api'"),
        (with("service.api:GET /a", "service.api:GET /in"), "GET /in", "no public route 'GET /in'", "GET /a"),
        (with("service.api:GET /a", "service.api:PUT /a"), "PUT /a", "no public route", ""),
        (with("service.api:GET /a", "service.worker"), "service.worker\"", "has no public routes", ""),
        (with("service.api:GET /a", "queue.api:publish"), "queue.api", "write 'service.NAME'", ""),
        (with("service.api:GET /a", "service.api:GET /a for view"), "for view", "'service.NAME:METHOD /path'", ""),
        (with("service.api:GET /a", "service.api:GET /b"), "service.api:GET /b\", \"", "offered twice", ""),
        (with("offers = [\"service.api:GET /a\", \"service.api:GET /b\"]", "offers = []"), "offers", "list 1 to 128", "service.api"),
        (with("offers = [\"service.api:GET /a\", \"service.api:GET /b\"]", &many), "offers", "list 1 to 128", ""),
    ];
    for (text, place, message, help) in corpus {
        let error = refused(&text);
        let found = error.problems.iter().find(|p| p.message.contains(message)).unwrap_or_else(|| panic!("{message}: {error}"));
        assert_eq!(found.line, line(&text, place), "{found}");
        assert!(found.help.as_deref().unwrap_or_default().contains(help), "{found}");
    }
}
