//! Who may publish what, on whose authority.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use contract::Room;
use contract::queue::AUTHORITY_HEADER;
use http::StatusCode;
use trust::DenyReason;

use super::*;

// H2: every workload against every queue, both ways; only the declared pairs pass.
#[tokio::test]
async fn only_declared_workloads_publish_and_consume() {
    let world = World::new();
    let queue = world.open().await;
    for who in
        [role("objects"), role("edge"), role("evidence"), service("api"), service("validator"), service("transcoder"), service("web")]
    {
        for name in ["uploaded", "validated", "status"] {
            let trusted = ["objects", "validator", "transcoder", "api"].contains(&who.workload.name());
            let publishes = match name {
                "uploaded" => ["objects", "api"].contains(&who.workload.name()),
                "validated" => who.workload.name() == "validator",
                _ => ["validator", "transcoder"].contains(&who.workload.name()),
            };
            let id = format!("{who}-{name}");
            let status = queue.call(caller(who.clone(), Some(person())), publish_request(name, &event(&id, None))).await.status();
            assert_eq!(status, if publishes && trusted { StatusCode::ACCEPTED } else { StatusCode::FORBIDDEN }, "{who} publish {name}");
            let consumes =
                matches!((who.workload.name(), name), ("validator", "uploaded") | ("transcoder", "validated") | ("api", "status"));
            let status = queue.call(caller(who.clone(), None), post(&format!("/queues/{name}/lease"))).await.status();
            assert_eq!(status == StatusCode::FORBIDDEN, !consumes, "{who} consume {name}: {status}");
        }
    }
    let denied = world.recorded("CallDecided").into_iter().filter(|e| e["decision"]["deny"].is_object()).count();
    assert!(denied >= 7 * 3, "refusals are recorded: {denied}");
    let unknown = queue.call(caller(service("api"), Some(person())), publish_request("nowhere", &event("x", None))).await;
    assert_eq!(unknown.status(), StatusCode::NOT_FOUND);
}

// H3: nobody but `objects` may say on whose authority it speaks.
#[tokio::test]
async fn a_claimed_authority_is_refused_from_anybody_but_objects() {
    let world = World::new();
    let queue = world.open().await;
    for who in [service("api"), service("validator"), role("edge"), role("login")] {
        let mut request = publish_request("uploaded", &event("forged", Some("originals/v/original")));
        request.headers_mut().insert(AUTHORITY_HEADER, "e30=".parse().unwrap());
        let response = queue.call(caller(who.clone(), Some(person())), request).await;
        assert_eq!(response.status(), StatusCode::FORBIDDEN, "{who}");
    }
    assert_eq!(stats(&queue, "uploaded").await.waiting, 0);
    uploaded(&queue, "1", Some("originals/v/original")).await;
    let leased = lease(&queue, "uploaded", "validator").await.unwrap();
    assert_eq!(leased.publisher, role("objects"));
}

// H4, H5: a job names only what its own job named; a person's request names nothing.
#[tokio::test]
async fn a_service_hands_out_only_what_its_own_job_named() {
    let world = World::new();
    let queue = world.open().await;
    let person_names = queue
        .call(caller(service("api"), Some(person())), publish_request("uploaded", &event("p", Some("originals/other/original"))))
        .await;
    assert_eq!(parsed::<serde_json::Value>(person_names).await["reason"], "job_mismatch");
    uploaded(&queue, "1", Some("originals/v/original")).await;
    let leased = lease(&queue, "uploaded", "validator").await.unwrap();
    let job = with_job(&leased, "validator");
    for (subject, expect) in [
        (Some("originals/v/original"), StatusCode::ACCEPTED),
        (None, StatusCode::ACCEPTED),
        (Some("originals/w/original"), StatusCode::FORBIDDEN),
    ] {
        let request = publish_request("validated", &event(&format!("{subject:?}"), subject));
        assert_eq!(queue.call(caller(service("validator"), Some(job.clone())), request).await.status(), expect, "{subject:?}");
    }
    // Another's job, and an own job that has ended, are no authority.
    let stolen = queue.call(caller(service("transcoder"), Some(job.clone())), publish_request("status", &event("s", None))).await;
    assert_eq!(parsed::<serde_json::Value>(stolen).await["reason"], DenyReason::JobMismatch.code());
    assert_eq!(on_lease(&queue, &leased.lease, "ack", "validator").await, StatusCode::NO_CONTENT);
    let late = queue.call(caller(service("validator"), Some(job)), publish_request("status", &event("late", None))).await;
    assert_eq!(parsed::<serde_json::Value>(late).await["reason"], DenyReason::LeaseEnded.code());
}

// H6: a repeat has no effect, and cannot be used to put other words in.
#[tokio::test]
async fn a_repeated_message_is_taken_once() {
    let world = World::new();
    let queue = world.open().await;
    let first = uploaded(&queue, "1", Some("originals/v/original")).await;
    let again = uploaded(&queue, "1", Some("originals/v/original")).await;
    assert!(!first.duplicate && again.duplicate && first.job == again.job);
    let mut other = event("1", Some("originals/v/original"));
    other.data = b"other".to_vec();
    assert_eq!(upload(&queue, &other).await.status(), StatusCode::CONFLICT);
    let leased = lease(&queue, "uploaded", "validator").await.unwrap();
    assert_eq!(on_lease(&queue, &leased.lease, "ack", "validator").await, StatusCode::NO_CONTENT);
    assert!(uploaded(&queue, "1", Some("originals/v/original")).await.duplicate, "also once it is done, also after a restart");
    let queue = world.open().await;
    assert!(uploaded(&queue, "1", Some("originals/v/original")).await.duplicate);
    assert!(lease(&queue, "uploaded", "validator").await.is_none());
    // Another publisher's ids are its own: nobody can take a message's place in advance.
    let api = queue.call(caller(service("api"), Some(person())), publish_request("uploaded", &event("1", None))).await;
    assert!(!parsed::<Published>(api).await.duplicate);
}

// H9 in part: a full queue and an oversized message are refused.
#[tokio::test]
async fn limits_are_kept() {
    let world = World::new();
    world.edit("uploaded", |p| p.depth_max = 2);
    let queue = world.open().await;
    uploaded(&queue, "1", None).await;
    uploaded(&queue, "2", None).await;
    let full = upload(&queue, &event("3", None)).await;
    assert_eq!(full.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(full.headers().contains_key("retry-after"));
    world.edit("uploaded", |p| p.depth_max = 100);
    let mut large = event("large", None);
    for (size, expect) in [(256 * 1024, StatusCode::ACCEPTED), (256 * 1024 + 1, StatusCode::PAYLOAD_TOO_LARGE)] {
        large.id = size.to_string();
        large.data = vec![7; size];
        assert_eq!(upload(&queue, &large).await.status(), expect, "{size}");
    }
    let mut bare = publish_request("uploaded", &event("x", None));
    bare.headers_mut().remove("ce-id");
    assert_eq!(queue.call(caller(role("objects"), None), bare).await.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn without_rules_everything_is_refused() {
    let world = World::new();
    let queue = world.open().await;
    *world.book.0.lock().unwrap() = Err(DenyReason::ViewStale);
    assert_eq!(upload(&queue, &event("1", None)).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    let response = queue.call(caller(service("validator"), None), post("/queues/uploaded/lease")).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
}

// Refusal coverage: rows for roles only, called by others.
#[tokio::test]
async fn rows_for_roles_refuse_everybody_else() {
    let world = World::new();
    let queue = world.open().await;
    uploaded(&queue, "1", Some("originals/v/original")).await;
    let leased = lease(&queue, "uploaded", "validator").await.unwrap();
    for (path, admitted) in [(format!("/leases/{}", leased.lease), "objects"), ("/queues".to_owned(), "evidence")] {
        for who in [service("validator"), service("objects"), role("edge"), role("evidence"), role("objects")] {
            let status = queue.call(caller(who.clone(), Some(person())), Request::get(&path).body(body::empty()).unwrap()).await.status();
            assert_eq!(status == StatusCode::OK, who == role(admitted), "{who} {path}");
        }
    }
    for verb in ["ack", "nack", "extend"] {
        assert_eq!(on_lease(&queue, &leased.lease, verb, "transcoder").await, StatusCode::NOT_FOUND, "another's lease: {verb}");
    }
    assert!(alive(&queue, &leased.lease).await);
}

// A16, D12, E12: under the real policy: what a policy in shadow would refuse is published and delivered, with both answers in the record;
// without the word it is refused.
#[tokio::test]
async fn a_policy_in_shadow_is_recorded_at_publishing_and_consuming_and_stops_neither() {
    const VIDEO: &str = include_str!("../../../../apps/video/palisade.toml");
    // The transcoder's own engine would refuse a flow that a policy in force kills altogether, so these leave a way.
    const FORBIDS: &str = r#"
        @id("no-hand-over") WORD forbid(principal == Workload::"validator", action == Action::"publish", resource == Queue::"validated")
          when { context has authority && context.authority.user == User::"ada" };
        @id("no-work") WORD forbid(principal == Workload::"transcoder", action == Action::"consume", resource == Queue::"validated")
          when { context has job && context.job.folder == "never" };"#;
    let manifest = manifest::Manifest::parse("palisade.toml", VIDEO).unwrap();
    for (word, passes) in [("@shadow", true), ("", false)] {
        let by_hand = BTreeMap::from([("extra.cedar".to_owned(), FORBIDS.replace("WORD", word))]);
        let bundle = policy::Bundle::build(&manifest, &by_hand).unwrap_or_else(|error| panic!("{error}"));
        let world = World::new();
        world.decide(Arc::new(policy::Engine::whole(&bundle, 1).unwrap()));
        let queue = world.open().await;
        uploaded(&queue, "1", Some("originals/v/original")).await;
        let leased = lease(&queue, "uploaded", "validator").await.unwrap();
        let job = Authority { purpose: "process".into(), scopes: BTreeSet::new(), ..with_job(&leased, "validator") };
        let request = publish_request("validated", &event("2", Some("originals/v/original")));
        let status = queue.call(caller(service("validator"), Some(job)), request).await.status();
        assert_eq!(status, if passes { StatusCode::ACCEPTED } else { StatusCode::FORBIDDEN }, "{word}");
        let published = world.recorded("CallDecided").pop().unwrap();
        let decision = published["decision"].as_object().unwrap().values().next().unwrap();
        let shadow = decision.get("shadow");
        assert_eq!(
            shadow.map(|shadow| (&shadow["allow"], &shadow["policies"][0])),
            passes.then_some((&false.into(), &"no-hand-over".into())),
            "{published}"
        );
        if passes {
            assert!(lease(&queue, "validated", "transcoder").await.is_some());
            let consumed = world.recorded("CallDecided").into_iter().rev().find(|e| e["action"] == "consume").unwrap();
            assert_eq!(consumed["decision"]["allow"]["shadow"]["allow"], true, "asked beside, and of one mind: {consumed}");
        } else {
            assert_eq!(stats(&queue, "validated").await.waiting, 0);
        }
    }
}
