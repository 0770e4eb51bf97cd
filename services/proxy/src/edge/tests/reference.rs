//! API keys and opaque tokens at the edge (A8, A12).

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use contract::login::AccessClaims;
use contract::opaque::{self, Kind};
use trust::{Clock, SystemEntropy};

use super::world::{Settings, World};
use crate::edge::Limits;

/// A key of u-anna's with these scopes, for a month.
fn key(world: &World, scope: &str) -> String {
    let key = opaque::random(Kind::Key, &SystemEntropy).expose().clone();
    let now = world.clock.unix_s();
    let claims = AccessClaims {
        client_id: "key:1".into(),
        scope: scope.into(),
        roles: BTreeSet::new(),
        auth_time: 0,
        acr: String::new(),
        sid: String::new(),
        exp: now + 30 * 86_400,
        ..world.login.claims()
    };
    world.login.references.lock().unwrap().insert(key.clone(), claims);
    key
}

async fn get(world: &World, path: &str, key: &str) -> u16 {
    world.get(path, &[("authorization", &format!("Bearer {key}"))]).await.status
}

// A12, A11: it enters with its scopes and nothing more, and goes no further than the edge.
#[tokio::test]
async fn a_key_enters_with_its_scopes_and_nothing_more() {
    let world = World::new().await;
    let key = key(&world, "videos");
    assert_eq!(get(&world, "/api/videos", &key).await, 200);
    let seen = world.api.last().headers;
    assert!(!seen.contains_key("authorization"));
    let view = world.views.fresh().unwrap();
    let authority = view.verifier.verify(seen["txn-token"].to_str().unwrap(), &*world.clock).unwrap();
    assert_eq!((authority.user.as_str(), authority.step_up, authority.roles.len()), ("u-anna", false, 0));
    let delete = world.send(super::world::request("DELETE", "/api/videos/1", &[("authorization", &format!("Bearer {key}"))], "")).await;
    assert_eq!(delete.status, 403, "another scope");
    assert_eq!(get(&world, "/console", &key).await, 403, "a role");
}

// A8, A12: revoked, it is refused within a second, whatever was decided a moment ago; `login` is asked twice a second at most.
#[tokio::test]
async fn a_revoked_reference_is_refused_within_a_second() {
    let world = World::new().await;
    let key = key(&world, "videos");
    let asked = || world.login.introspections.load(Ordering::SeqCst);
    for _ in 0..10 {
        assert_eq!(get(&world, "/api/videos", &key).await, 200);
    }
    let crowd = (0..10).map(|_| get(&world, "/api/videos", &key));
    assert!(futures::future::join_all(crowd).await.iter().all(|status| *status == 200));
    assert_eq!(asked(), 1);
    world.login.references.lock().unwrap().clear();
    world.clock.forward_s(1);
    assert_eq!(get(&world, "/api/videos", &key).await, 401);
    assert_eq!(world.refusals(), ["token_inactive"]);
    for _ in 0..10 {
        assert_eq!(get(&world, "/api/videos", &key).await, 401);
    }
    assert_eq!(asked(), 2, "a refusal is remembered for as long");
}

// A12: one that cannot be any is refused without asking; a crowd that asks at once asks once.
#[tokio::test]
async fn a_mistyped_key_is_refused_without_a_question() {
    let world = World::new().await;
    let key = key(&world, "videos");
    let crowd = (0..10).map(|_| get(&world, "/api/videos", &key));
    assert!(futures::future::join_all(crowd).await.iter().all(|status| *status == 200));
    assert_eq!(world.login.introspections.load(Ordering::SeqCst), 1);
    for wrong in [key.to_uppercase(), format!("{key}0"), key.replace("palk_", "palt_"), "palk_".to_owned()] {
        assert_eq!(get(&world, "/api/videos", &wrong).await, 401, "{wrong}");
    }
    assert_eq!(world.login.introspections.load(Ordering::SeqCst), 1);
    assert!(world.refusals().iter().all(|reason| reason == "token_malformed"));
}

// A17: without `login` nobody can say what it stands for; and its end is looked at on every use.
#[tokio::test]
async fn without_login_a_reference_stands_for_nothing() {
    let world = World::new().await;
    let key = key(&world, "videos");
    assert_eq!(get(&world, "/api/videos", &key).await, 200);
    world.login.down.store(true, Ordering::SeqCst);
    world.clock.forward_s(1);
    assert_eq!(get(&world, "/api/videos", &key).await, 503);
    assert_eq!(world.refusals(), ["dependency_down"]);
    world.login.down.store(false, Ordering::SeqCst);
    assert_eq!(get(&world, "/api/videos", &key).await, 200, "that answer was not kept");
    let ended = AccessClaims { exp: world.clock.unix_s(), ..world.login.claims() };
    let elsewhere = AccessClaims { aud: "https://other.example".into(), ..world.login.claims() };
    for (claims, reason) in [(ended, "token_expired"), (elsewhere, "audience_mismatch")] {
        let other = opaque::random(Kind::Token, &SystemEntropy).expose().clone();
        world.login.references.lock().unwrap().insert(other.clone(), claims);
        assert_eq!(get(&world, "/api/videos", &other).await, 401);
        assert_eq!(world.refusals().last().unwrap(), reason);
    }
}

// A12, A13: two keys of one person have that person's rate together; another person's key has its own.
#[tokio::test]
async fn keys_count_against_their_persons_rate() {
    let world = World::with(Settings { limits: Limits::standard(), ..Settings::default() }).await;
    let (one, two) = (key(&world, ""), key(&world, ""));
    // The route takes one a second and three at once, for each person.
    let mut statuses = Vec::new();
    for key in [&one, &two, &one, &two] {
        statuses.push(get(&world, "/api/reports", key).await);
    }
    assert_eq!(statuses, [200, 200, 200, 429]);
    *world.login.user.lock().unwrap() = "u-bert".to_owned();
    let other = key(&world, "");
    assert_eq!(get(&world, "/api/reports", &other).await, 200);
}

// A12: a key may come in a field of its own; nothing else may, nothing may come beside it, and the field goes no further.
#[tokio::test]
async fn a_key_may_come_as_x_api_key_and_alone() {
    let world = World::new().await;
    let (key, session) = (key(&world, "videos"), world.sign_in().await);
    let bearer = format!("Bearer {key}");
    let token = world.login.token();
    assert_eq!(world.get("/api/videos", &[("x-api-key", &key)]).await.status, 200);
    let seen = world.api.last().headers;
    assert!(!seen.contains_key("x-api-key") && !seen.contains_key("authorization"));
    for (headers, status) in [
        (&[("x-api-key", key.as_str()), ("x-api-key", key.as_str())][..], 400),
        (&[("x-api-key", key.as_str()), ("authorization", bearer.as_str())], 400),
        (&[("x-api-key", key.as_str()), ("cookie", session.as_str())], 400),
        (&[("x-api-key", token.as_str())], 401),
        (&[("x-api-key", "")], 401),
        (&[("x-api-key", &key.replace("palk_", "palt_"))], 401),
        (&[("x-api-key", &key[..key.len() - 1])], 401),
    ] {
        assert_eq!(world.get("/api/videos", headers).await.status, status, "{headers:?}");
    }
    assert_eq!(world.api.count(), 1);
}
