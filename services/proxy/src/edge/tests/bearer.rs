//! Access tokens: what is accepted, and the attacks that are not (A7; RFC 8725, RFC 9068 section 4).

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU32, Ordering};

use contract::login::ACCESS_TYP;
use contract::{Body, body};
use http::Request;
use serde_json::{Value, json};
use trust::Clock;

use super::world::{ORIGIN, World, signing_key};
use crate::tests::forgery::Forger;

async fn status_of(world: &World, token: &str) -> u16 {
    world.get("/api/videos", &[("authorization", &format!("Bearer {token}"))]).await.status
}

// A7: the whole table, each refused for its own reason, none passed on.
#[tokio::test]
async fn forged_and_foreign_tokens_are_refused_each_for_its_own_reason_and_never_passed_on() {
    let world = World::new().await;
    let forger = Forger::new(ACCESS_TYP);
    (*world.login.key.lock().unwrap(), *world.login.jwk.lock().unwrap()) = (forger.key.clone(), forger.jwk.clone());
    let good = serde_json::to_value(world.login.claims()).unwrap();
    let header = forger.header().to_string();
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        forger.signed(&header, &claims.to_string())
    };
    let now = world.clock.unix_s();
    for token in [forger.signed(&header, &good.to_string()), with("exp", json!(now + 1)), with("iat", json!(now + 5))] {
        assert_eq!(status_of(&world, &token).await, 200, "just below each edge it passes");
    }
    let mut cases = forger.forgeries(&good);
    for (what, token, reason) in [
        ("another audience", with("aud", json!("https://other.example")), "audience_mismatch"),
        ("the client as audience, as of an ID token", with("aud", json!("edge")), "audience_mismatch"),
        ("an audience with a slash more", with("aud", json!(format!("{ORIGIN}/"))), "audience_mismatch"),
        ("an audience in capitals", with("aud", json!(ORIGIN.to_uppercase())), "audience_mismatch"),
        ("another issuer", with("iss", json!(ORIGIN)), "issuer_mismatch"),
        ("an issuer with a slash more", with("iss", json!(format!("{ORIGIN}/oidc/"))), "issuer_mismatch"),
        ("an issuer that only begins alike", with("iss", json!(format!("{ORIGIN}/oidc.evil.example"))), "issuer_mismatch"),
        ("its end is now", with("exp", json!(now)), "token_expired"),
        ("its end was at the beginning", with("exp", json!(0)), "token_expired"),
        ("it was issued beyond any skew", with("iat", json!(now + 6)), "token_not_yet_valid"),
        ("of nobody", with("sub", json!("")), "token_malformed"),
        ("no token", String::new(), "token_malformed"),
    ] {
        cases.push((what.to_owned(), token, reason));
    }
    assert!(cases.len() > 150, "{}", cases.len());
    let before = world.api.count();
    for (what, token, reason) in cases {
        let answer = world.edge.serve_from(next_address(), bearing(&token)).await;
        let heard = (answer.status().as_u16(), world.refusals().last().cloned().unwrap_or_default());
        assert_eq!(heard, (401, reason.to_owned()), "{what}");
        assert_eq!(answer.headers()["www-authenticate"], "Bearer error=\"invalid_token\"", "{what}");
    }
    assert_eq!(world.api.count(), before);
    for scheme in ["Basic YTpi", "DPoP x.y.z", "Bearer", "bearer\tx"] {
        let answer = world.get("/api/videos", &[("authorization", scheme)]).await;
        assert_eq!((answer.status, answer.header("www-authenticate")), (401, "Bearer error=\"invalid_token\""), "{scheme}");
    }
    let two = world.get("/api/videos", &[("authorization", "Bearer a"), ("authorization", "Bearer b")]).await;
    assert_eq!(two.status, 400);
}

/// Another address for each, so that no rate is in the way.
fn next_address() -> IpAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0x0a00_0001);
    IpAddr::V4(Ipv4Addr::from_bits(NEXT.fetch_add(1, Ordering::SeqCst)))
}

fn bearing(token: &str) -> Request<Body> {
    Request::get("/api/videos")
        .header("host", "localhost:8443")
        .header("authorization", format!("Bearer {token}"))
        .body(body::empty())
        .unwrap()
}

// A7: a key that login has dropped is dropped here with the next fetch, which any token of the new key causes.
#[tokio::test]
async fn what_an_old_key_signed_ends_with_the_key() {
    let world = World::new().await;
    let old = world.login.token();
    assert_eq!(status_of(&world, &old).await, 200);
    let (key, jwk) = signing_key();
    (*world.login.key.lock().unwrap(), *world.login.jwk.lock().unwrap()) = (key, jwk);
    world.clock.forward_s(5);
    assert_eq!(status_of(&world, &old).await, 200, "nobody has asked for the new keys yet");
    assert_eq!(status_of(&world, &world.login.token()).await, 200);
    assert_eq!(status_of(&world, &old).await, 401);
    assert_eq!(world.refusals(), ["token_key_unknown"]);
}

#[tokio::test]
async fn a_token_ends_at_its_end() {
    let world = World::new().await;
    world.login.token_life_s.store(60, Ordering::SeqCst);
    let token = world.login.token();
    world.clock.forward_s(59);
    assert_eq!(status_of(&world, &token).await, 200);
    world.clock.forward_s(1);
    assert_eq!(status_of(&world, &token).await, 401);
    assert_eq!(world.refusals(), ["token_expired"]);
}

// A7: keys rotate; unknown names make no storm of fetches.
#[tokio::test]
async fn a_rotated_key_is_fetched_and_unknown_ones_are_fetched_seldom() {
    let world = World::new().await;
    assert_eq!(status_of(&world, &world.login.token()).await, 200);
    assert_eq!(world.login.key_fetches.load(Ordering::SeqCst), 1);
    let (key, jwk) = signing_key();
    (*world.login.key.lock().unwrap(), *world.login.jwk.lock().unwrap()) = (key, jwk);
    let rotated = world.login.token();
    assert_eq!(status_of(&world, &rotated).await, 401, "a moment ago the keys were others");
    world.clock.forward_s(5);
    assert_eq!(status_of(&world, &rotated).await, 200);
    let (stranger, _) = signing_key();
    for _ in 0..20 {
        assert_eq!(status_of(&world, &stranger.sign(ACCESS_TYP, &[], &world.login.claims()).unwrap()).await, 401);
    }
    assert_eq!(world.login.key_fetches.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn the_routes_scope_must_be_in_the_token() {
    let world = World::new().await;
    *world.login.scope.lock().unwrap() = "openid videosx admin2".to_owned();
    assert_eq!(status_of(&world, &world.login.token()).await, 403);
    assert_eq!(world.refusals(), ["scope_missing"]);
    assert_eq!(world.api.count(), 0);
}
