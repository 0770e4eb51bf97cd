//! A17: when a part that must agree is away, nothing passes. A13: nobody uses up what others need.

use std::num::NonZeroU32;
use std::sync::atomic::Ordering;

use super::world::{Settings, World, callback, request};
use crate::edge::Limits;

#[tokio::test]
async fn without_a_fresh_view_nothing_passes() {
    let none = World::with(Settings { with_view: false, ..Default::default() }).await;
    let world = World::new().await;
    let session = world.sign_in().await;
    world.clock.forward_s(299);
    assert_eq!(world.get("/api/videos", &[("cookie", &session)]).await.status, 200);
    world.clock.forward_s(2);
    for world in [&none, &world] {
        let before = world.api.count();
        let bearer = format!("Bearer {}", world.login.token());
        for path in ["/api/videos", "/", "/auth/login", "/oidc/sign-in", "/console", "/originals/7/a?X-Amz-Signature=s&X-Amz-Algorithm=a"] {
            let answer = world.get(path, &[("authorization", &bearer)]).await;
            assert_eq!((answer.status, answer.header("retry-after")), (503, "1"), "{path}");
        }
        assert_eq!(world.api.count(), before);
        assert!(world.refusals().iter().all(|reason| reason == "view_stale"));
    }
    world.push_view();
    assert_eq!(world.get("/api/videos", &[("cookie", &session)]).await.status, 200, "and it comes back by itself");
}

#[tokio::test]
async fn without_keys_no_bearer_is_accepted() {
    let world = World::new().await;
    let token = world.login.token();
    let bearer = format!("Bearer {token}");
    world.login.down.store(true, Ordering::SeqCst);
    assert_eq!(world.get("/api/videos", &[("authorization", &bearer)]).await.status, 503);
    world.login.down.store(false, Ordering::SeqCst);
    world.clock.forward_s(6);
    assert_eq!(world.get("/api/videos", &[("authorization", &bearer)]).await.status, 200);
    // Keys in hand serve until they are too old.
    world.login.down.store(true, Ordering::SeqCst);
    assert_eq!(world.get("/api/videos", &[("authorization", &bearer)]).await.status, 200);
    world.login.token_life_s.store(3000, Ordering::SeqCst);
    let lasting = format!("Bearer {}", world.login.token());
    world.clock.forward_s(301);
    world.push_view();
    assert_eq!(world.get("/api/videos", &[("authorization", &lasting)]).await.status, 503);
    assert_eq!(world.api.count(), 2);
}

#[tokio::test]
async fn without_login_a_session_serves_until_its_token_ends() {
    let world = World::new().await;
    let session = world.sign_in().await;
    world.login.down.store(true, Ordering::SeqCst);
    world.clock.forward_s(280);
    assert_eq!(world.get("/api/videos", &[("cookie", &session)]).await.status, 200);
    world.clock.forward_s(21);
    world.push_view();
    assert_eq!(world.get("/api/videos", &[("cookie", &session)]).await.status, 503);
    world.login.down.store(false, Ordering::SeqCst);
    assert_eq!(world.get("/api/videos", &[("cookie", &session)]).await.status, 200, "nobody had to sign in again");
    // A sign-in cannot be completed meanwhile.
    let begun = world.get("/auth/login", &[]).await;
    let (code, state) = world.login.code_for(begun.location());
    world.login.down.store(true, Ordering::SeqCst);
    let answer = world.get(&callback(&code, &state), &[("cookie", &begun.cookie("__Host-palisade-sign-in"))]).await;
    assert_eq!((answer.status, answer.set_cookies().len()), (503, 0));
}

#[tokio::test]
async fn without_the_session_store_nobody_is_let_in() {
    let world = World::new().await;
    let session = world.sign_in().await;
    world.edge.sessions.clone().close_for_test().await;
    for (path, cookie) in [("/api/videos", session.as_str()), ("/auth/me", &session), ("/watch", &session), ("/auth/login", "a=b")] {
        let answer = world.get(path, &[("cookie", cookie)]).await;
        assert_eq!(answer.status, 503, "{path}: {}", answer.text);
        assert!(!answer.text.contains("sessions"), "no detail: {}", answer.text);
    }
    assert_eq!(world.api.count(), 0);
}

// J7, A17: what cannot be recorded does not happen.
#[tokio::test]
async fn without_an_audit_log_nothing_passes() {
    let world = World::new().await;
    let session = world.sign_in().await;
    let begun = world.get("/auth/login", &[]).await;
    let (code, state) = world.login.code_for(begun.location());
    world.sink.broken.store(true, Ordering::SeqCst);
    let browser = begun.cookie("__Host-palisade-sign-in");
    for (path, cookie) in
        [("/api/videos", session.as_str()), ("/oidc/sign-in", ""), ("/auth/nothing", ""), (&callback(&code, &state), &browser)]
    {
        let answer = world.get(path, &[("cookie", cookie)]).await;
        assert_eq!((answer.status, answer.set_cookies().len()), (503, 0), "{path}: {}", answer.text);
    }
    assert_eq!(world.api.count(), 0);
    assert!(world.login.passed_on.lock().unwrap().is_empty());
}

// J7: completeness: one decision recorded for each request.
#[tokio::test]
async fn every_request_leaves_one_decision_and_one_span() {
    let world = World::new().await;
    let bearer = format!("Bearer {}", world.login.token());
    let before = world.audited();
    let paths = ["/api/videos", "/auth/nothing", "/api//x", "/watch", "/console", "/oidc/jwks", "/originals/7/a"];
    for path in paths {
        world.get(path, &[("authorization", &bearer)]).await;
    }
    assert_eq!(world.audited() - before, paths.len());
    assert_eq!(world.sink.kept.spans.lock().unwrap().len(), paths.len());
    let kept = world.sink.kept.audit.lock().unwrap();
    for record in kept.iter() {
        assert_eq!(
            (record.event.as_str(), record.fields["point"].as_str(), record.fields["principal"].as_str()),
            ("CallDecided", Some("edge"), Some("internet"))
        );
        assert!(!record.trace.is_empty());
    }
}

// A13
#[tokio::test]
async fn one_address_and_one_person_have_a_rate() {
    let n = |n: u32| NonZeroU32::new(n).unwrap();
    let limits = Limits { person_rate: n(1), person_burst: n(3), address_rate: n(1), address_burst: n(6), ..Limits::standard() };
    let world = World::with(Settings { limits, ..Default::default() }).await;
    let bearer = format!("Bearer {}", world.login.token());
    let mut statuses = Vec::new();
    for _ in 0..7 {
        let answer = world.get("/api/videos", &[("authorization", &bearer)]).await;
        assert_eq!(answer.header("retry-after").is_empty(), answer.status == 200);
        statuses.push(answer.status);
    }
    assert_eq!(statuses, [200, 200, 200, 429, 429, 429, 429]);
    let elsewhere = world.edge.serve_from("192.0.2.7".parse().unwrap(), request("GET", "/auth/login", &[], "")).await;
    assert_eq!(elsewhere.status(), 303, "another address is served");
    world.clock.forward_s(2);
    assert_eq!(world.get("/api/videos", &[("authorization", &bearer)]).await.status, 200);
}

// A13: whoever is not signed in cannot keep the session store busy.
#[tokio::test]
async fn one_address_begins_only_so_many_sign_ins() {
    let n = |n: u32| NonZeroU32::new(n).unwrap();
    let limits = Limits { sign_in_rate: n(1), sign_in_burst: n(2), ..Limits::standard() };
    let world = World::with(Settings { limits, ..Default::default() }).await;
    let begin = async || world.get("/auth/login", &[]).await.status;
    assert_eq!([begin().await, begin().await, begin().await], [303, 303, 429]);
    assert_eq!(world.get("/oidc/sign-in", &[]).await.status, 200);
    world.clock.forward_s(1);
    assert_eq!(begin().await, 303);
}

// A13
#[tokio::test]
async fn requests_under_way_are_counted_until_their_last_byte() {
    let limits = Limits { person_in_flight_max: 2, ..Limits::standard() };
    let world = World::with(Settings { limits, ..Default::default() }).await;
    let bearer = format!("Bearer {}", world.login.token());
    let one = || world.edge.serve_from("127.0.0.1".parse().unwrap(), request("GET", "/api/videos", &[("authorization", &bearer)], ""));
    let (first, second, third) = (one().await, one().await, one().await);
    assert_eq!([first.status(), second.status(), third.status()].map(|s| s.as_u16()), [200, 200, 503]);
    drop(first);
    assert_eq!(one().await.status(), 200);
    drop(second);
}
