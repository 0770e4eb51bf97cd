//! Other identity providers' access tokens: what of them counts here (A7; RFC 9068, RFC 8725).

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use contract::control::IssuerProfile;
use contract::signing::SigningKey;
use serde_json::{Value, json};
use trust::Clock;

use super::world::{World, signing_key};

const URL: &str = "https://id.corp.example/";

/// A world that trusts a provider, and the provider's key.
async fn world() -> (World, SigningKey) {
    let mut world = World::new().await;
    let (key, mut jwk) = signing_key();
    jwk["alg"] = "ES256".into();
    let profile = IssuerProfile {
        name: "corp".into(),
        url: URL.into(),
        audience: "video".into(),
        scopes: BTreeSet::from(["videos".to_owned()]),
        keys: vec![jwk],
    };
    world.view.edge.as_mut().unwrap().issuers.push(profile);
    world.view.epoch += 1;
    world.push_view();
    (world, key)
}

fn claims(world: &World) -> Value {
    let now = world.clock.unix_s();
    json!({"iss": URL, "sub": "ann", "aud": "video", "exp": now + 60, "iat": now, "scope": "videos admin"})
}

async fn get(world: &World, path: &str, token: &str) -> (u16, String) {
    let answer = world.get(path, &[("authorization", &format!("Bearer {token}"))]).await;
    (answer.status, answer.text)
}

// A7, A11: a person of theirs comes in under their name, with the scopes that the manifest lets through and no role.
#[tokio::test]
async fn a_providers_token_brings_its_person_and_the_declared_scopes() {
    let (world, key) = world().await;
    let mut claims = claims(&world);
    claims["roles"] = json!(["admin"]);
    let token = key.sign("at+jwt", &[], &claims).unwrap();
    assert_eq!(get(&world, "/api/videos", &token).await.0, 200);
    let passed = world.api.last().headers["txn-token"].to_str().unwrap().to_owned();
    let view = world.views.fresh().unwrap();
    let authority = view.verifier.verify(&passed, &*world.clock).unwrap();
    assert_eq!(
        (authority.user.as_str(), authority.scopes, authority.roles),
        ("corp|ann", BTreeSet::from(["videos".to_owned()]), BTreeSet::new())
    );
    assert_eq!(get(&world, "/console", &token).await.0, 403);
    claims["scope"] = "other".into();
    let (status, text) = get(&world, "/api/videos", &key.sign("at+jwt", &[], &claims).unwrap()).await;
    assert_eq!((status, text.contains("scope_missing")), (403, true));
}

// A7: the attacks on the format, and the claims that do not fit.
#[tokio::test]
async fn tokens_that_are_not_quite_the_providers_are_refused() {
    let (world, key) = world().await;
    let good = claims(&world);
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        key.sign("at+jwt", &[], &claims).unwrap()
    };
    let token = key.sign("at+jwt", &[], &good).unwrap();
    let parts: Vec<&str> = token.split('.').collect();
    let header = |value: Value| format!("{}.{}.{}", B64.encode(value.to_string()), parts[1], parts[2]);
    let kid = key.kid();
    let now = world.clock.unix_s();
    let (stranger, _) = signing_key();
    let cases = [
        ("another key", stranger.sign("at+jwt", &[], &good).unwrap()),
        ("another issuer", with("iss", "https://evil.example/".into())),
        ("another audience", with("aud", json!(["mail"]))),
        ("ended", with("exp", now.into())),
        ("not yet", with("nbf", (now + 3600).into())),
        ("from the future", with("iat", (now + 3600).into())),
        ("nobody", with("sub", "".into())),
        ("a long name", with("sub", "x".repeat(256).into())),
        ("control characters", with("sub", "a\nb".into())),
        ("an ID token", key.sign("id+jwt", &[], &good).unwrap()),
        ("a transaction token", key.sign("txntoken+jwt", &[], &good).unwrap()),
        ("alg none", header(json!({"alg": "none", "typ": "at+jwt", "kid": kid}))),
        ("HS256", header(json!({"alg": "HS256", "typ": "at+jwt", "kid": kid}))),
        ("another alg", header(json!({"alg": "ES384", "typ": "at+jwt", "kid": kid}))),
        ("jku", header(json!({"alg": "ES256", "typ": "at+jwt", "kid": kid, "jku": "https://evil.example/jwks"}))),
        ("jwk", header(json!({"alg": "ES256", "typ": "at+jwt", "kid": kid, "jwk": {}}))),
        ("crit", header(json!({"alg": "ES256", "typ": "at+jwt", "kid": kid, "crit": ["exp"]}))),
        ("b64", header(json!({"alg": "ES256", "typ": "at+jwt", "kid": kid, "b64": false}))),
        ("no kid", header(json!({"alg": "ES256", "typ": "at+jwt"}))),
        ("kid of a path", header(json!({"alg": "ES256", "typ": "at+jwt", "kid": "../../dev/null"}))),
    ];
    assert_eq!(get(&world, "/api/videos", &token).await.0, 200);
    for (what, token) in cases {
        assert_eq!(get(&world, "/api/videos", &token).await.0, 401, "{what}");
    }
}

// A7, E16: a provider that the manifest no longer names is forgotten with the view, also for tokens that were good a moment ago.
#[tokio::test]
async fn a_forgotten_providers_tokens_end_with_the_view() {
    let (mut world, key) = world().await;
    let token = key.sign("JWT", &[], &claims(&world)).unwrap();
    assert_eq!(get(&world, "/api/videos", &token).await.0, 200);
    world.view.edge.as_mut().unwrap().issuers.clear();
    world.view.epoch += 1;
    world.push_view();
    assert_eq!(get(&world, "/api/videos", &token).await.0, 401);
}
