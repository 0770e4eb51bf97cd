//! L15: what every workload's view says of a contained service, and that it is undone, kept and asked for rightly.

use super::*;

async fn ask(control: &Control, path: &str, question: Value) -> (StatusCode, Value) {
    send(control, operator(), Method::POST, path, &question).await
}

async fn contain(control: &Control) -> Value {
    let (status, answer) = ask(control, "/contain", serde_json::json!({ "service": "transcoder", "reason": "a drill" })).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    answer
}

// L15: nobody takes it for a caller, nobody has an address of it, no message goes to it, and what it was issued is refused; its guard is
// told, and still reaches those who keep its records.
#[tokio::test]
async fn a_contained_service_is_in_nobodys_view() {
    let house = House::new();
    let control = house.open().await;
    let before = house.view(&control, &role("queue")).await;
    let answer = contain(&control).await;
    assert_eq!((&answer["epoch"], &answer["replicas"]), (&Value::from(2), &Value::from(1)));
    let transcoder = service("transcoder");

    let queue = house.view(&control, &role("queue")).await;
    assert!(before.callers.contains(&transcoder) && !queue.callers.contains(&transcoder));
    assert_eq!((before.peers[&transcoder].len(), queue.peers[&transcoder].len()), (1, 0));
    assert_eq!((before.queues["validated"].consumer.as_ref(), queue.queues["validated"].consumer.as_ref()), (Some(&transcoder), None));
    assert!(queue.queues["uploaded"].consumer.is_some(), "others' messages go on");
    let since_s = house.clock.unix_ms() / 1000;
    let revoked = |view: &View| view.revoked.iter().any(|one| one.spiffe_id == transcoder && one.before_s == since_s);
    assert!(revoked(&queue));
    let objects = house.view(&control, &role("objects")).await;
    assert!(revoked(&objects) && !objects.callers.contains(&transcoder) && objects.callers.contains(&service("validator")));
    assert!(revoked(&house.view(&control, &service("api")).await));

    let own = house.view(&control, &transcoder).await;
    assert!(own.contained && own.callers.is_empty());
    assert_eq!(names(own.peers.into_keys()), ["control", "evidence", "identity"].map(str::to_owned).into());
    let evidence = house.view(&control, &role("evidence")).await;
    assert!(!evidence.contained && evidence.callers.contains(&transcoder) && !revoked(&evidence), "its records must still come");
    for other in ["web", "api", "validator"] {
        let view = house.view(&control, &service(other)).await;
        assert!(!view.contained && view.service.is_some(), "{other}");
    }
    assert_eq!(house.audited("control.contain"), 1);
}

// L15: release gives everybody back what they had, and ends what the service was issued meanwhile.
#[tokio::test]
async fn release_undoes_it_but_for_what_was_issued_before() {
    let house = House::new();
    let control = house.open().await;
    let ids = [role("queue"), role("objects"), service("transcoder"), service("api")];
    let mut before = Vec::new();
    for id in &ids {
        before.push(house.view(&control, id).await);
    }
    contain(&control).await;
    let (status, answer) = ask(&control, "/release", serde_json::json!({ "service": "transcoder" })).await;
    assert_eq!((status, &answer["epoch"]), (StatusCode::OK, &Value::from(3)), "{answer}");
    assert_eq!(answer["contained"], serde_json::json!([]));
    for (id, before) in ids.iter().zip(before) {
        let after = house.view(&control, id).await;
        assert_eq!((after.contained, &after.callers, &after.peers, &after.queues), (false, &before.callers, &before.peers, &before.queues));
        assert!(after.revoked.iter().any(|one| one.spiffe_id == service("transcoder")), "{id}");
    }
    let (status, _) = ask(&control, "/release", serde_json::json!({ "service": "transcoder" })).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "twice");
}

// L15: it outlives a restart of `control`, a new manifest, and a start with another one; a service that is gone is forgotten.
#[tokio::test]
async fn a_contained_service_stays_so_until_it_is_released() {
    let house = House::new();
    let control = house.open().await;
    contain(&control).await;
    assert_eq!(contain(&control).await["epoch"], 2, "asked twice is done once");
    drop(control);
    let control = house.open().await;
    assert!(house.view(&control, &service("transcoder")).await.contained, "after a restart");
    let changed = |text: String| text.replace("owner = \"media\"", "owner = \"others\"");
    let (status, value) = send(&control, operator(), Method::POST, "/apply", &house.manifest(changed)).await;
    assert_eq!(status, StatusCode::OK, "{value}");
    assert!(house.view(&control, &service("transcoder")).await.contained, "under a new manifest");
    drop(control);
    let another = |text: String| text.replace("owner = \"web\"", "owner = \"page\"");
    let control = house.followed(house.try_open(house.manifest(another), 300).unwrap()).await;
    assert!(house.view(&control, &service("transcoder")).await.contained, "started with another manifest");
    let (_, status) = send(&control, operator(), Method::GET, "/status", &Value::Null).await;
    assert_eq!(status["contained"], serde_json::json!(["transcoder"]));
}

// L15: a service that is not there, a reason that could forge a line of a log, somebody who may not.
#[tokio::test]
async fn what_cannot_be_contained_is_said_and_nothing_is_done() {
    let house = House::new();
    let control = house.open().await;
    let (status, value) = ask(&control, "/contain", serde_json::json!({ "service": "transcode" })).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(value["error"].as_str().unwrap().contains("api, transcoder, validator, web"), "{value}");
    for reason in ["x".repeat(513), "one\ntwo".to_owned()] {
        let (status, _) = ask(&control, "/contain", serde_json::json!({ "service": "transcoder", "reason": reason })).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
    }
    let workload = Peer::Workload(service("api"));
    let (status, _) = send(&control, workload, Method::POST, "/contain", &serde_json::json!({ "service": "transcoder" })).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert_eq!(control.epoch(), 1);
    let most = serde_json::json!({ "service": "transcoder", "reason": "x".repeat(512) });
    assert_eq!(ask(&control, "/contain", most).await.0, StatusCode::OK);
}
