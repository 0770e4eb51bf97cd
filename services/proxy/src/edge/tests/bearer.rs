//! Access tokens: what is accepted, and the attacks that are not (A7; RFC 8725, RFC 9068 section 4).

use std::sync::atomic::Ordering;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use contract::login::{ACCESS_TYP, AccessClaims};
use serde_json::{Value, json};

use super::world::{World, signing_key};

async fn status_of(world: &World, token: &str) -> u16 {
    world.get("/api/videos", &[("authorization", &format!("Bearer {token}"))]).await.status
}

/// The token with another header, under its old signature or the one that `sign` makes.
fn with_header(token: &str, header: &Value, sign: impl Fn(&str) -> Vec<u8>) -> String {
    let parts: Vec<&str> = token.split('.').collect();
    let message = format!("{}.{}", B64.encode(header.to_string()), parts[1]);
    let signature = B64.encode(sign(&message));
    format!("{message}.{signature}")
}

// A7
#[tokio::test]
async fn forged_and_foreign_tokens_are_refused_and_never_passed_on() {
    let world = World::new().await;
    let token = world.login.token();
    assert_eq!(status_of(&world, &token).await, 200);
    let kid = world.login.key.lock().unwrap().kid().to_owned();
    let jwk = world.login.jwk.lock().unwrap().clone();
    let old = B64.decode(token.split('.').nth(2).unwrap()).unwrap();
    let keep = |_: &str| old.clone();
    let hmac_with = |secret: Vec<u8>| {
        move |message: &str| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), message.as_bytes()).as_ref().to_vec()
    };
    let point = [vec![4], B64.decode(jwk["x"].as_str().unwrap()).unwrap(), B64.decode(jwk["y"].as_str().unwrap()).unwrap()].concat();
    let (stranger, stranger_jwk) = signing_key();
    let signed = |typ: &str, change: fn(&mut AccessClaims)| {
        let mut claims = world.login.claims();
        change(&mut claims);
        world.login.key.lock().unwrap().sign(typ, &[], &claims).unwrap()
    };
    let header = |extra: Value| {
        let mut header = json!({"alg": "ES256", "typ": ACCESS_TYP, "kid": kid});
        header.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        header
    };
    let cases = [
        ("alg none", with_header(&token, &header(json!({"alg": "none"})), |_| vec![])),
        ("alg None", with_header(&token, &header(json!({"alg": "nOnE"})), |_| vec![])),
        ("HS256 with the public point", with_header(&token, &header(json!({"alg": "HS256"})), hmac_with(point))),
        ("HS256 with the JWK's text", with_header(&token, &header(json!({"alg": "HS256"})), hmac_with(jwk.to_string().into_bytes()))),
        ("HS256 with an empty secret", with_header(&token, &header(json!({"alg": "HS256"})), hmac_with(vec![0]))),
        ("ES384", with_header(&token, &header(json!({"alg": "ES384"})), keep)),
        ("a null signature", with_header(&token, &header(json!({})), |_| vec![0; 64])),
        ("an empty signature", with_header(&token, &header(json!({})), |_| vec![])),
        ("crit", with_header(&token, &header(json!({"crit": ["exp"]})), keep)),
        ("b64", with_header(&token, &header(json!({"b64": false, "crit": ["b64"]})), keep)),
        ("jku", with_header(&token, &header(json!({"jku": "https://evil.example/jwks"})), keep)),
        ("jwk", with_header(&token, &header(json!({"jwk": stranger_jwk})), keep)),
        ("x5u", with_header(&token, &header(json!({"x5u": "https://evil.example/c"})), keep)),
        ("kid is a path", with_header(&token, &header(json!({"kid": "../../../../dev/null"})), keep)),
        ("kid is SQL", with_header(&token, &header(json!({"kid": "' OR 1=1 --"})), keep)),
        ("no kid", with_header(&token, &json!({"alg": "ES256", "typ": ACCESS_TYP}), keep)),
        ("a stranger's key", stranger.sign(ACCESS_TYP, &[], &world.login.claims()).unwrap()),
        ("a stranger's key in x5c", stranger.sign(ACCESS_TYP, &[vec![1, 2, 3]], &world.login.claims()).unwrap()),
        ("typ JWT (an ID token)", signed("JWT", |_| {})),
        ("typ txntoken", signed("txntoken+jwt", |_| {})),
        ("another audience", signed(ACCESS_TYP, |c| c.aud = "https://other.example".to_owned())),
        ("another issuer", signed(ACCESS_TYP, |c| c.iss = "https://localhost:8443".to_owned())),
        ("an issuer with a slash more", signed(ACCESS_TYP, |c| c.iss.push('/'))),
        ("expired", signed(ACCESS_TYP, |c| c.exp = c.iat)),
        ("from the future", signed(ACCESS_TYP, |c| c.iat += 60)),
        ("of nobody", signed(ACCESS_TYP, |c| c.sub.clear())),
        ("no token", String::new()),
        ("too long", "a".repeat(9000)),
        ("two parts", token.rsplit_once('.').unwrap().0.to_owned()),
        ("four parts", format!("{token}.x")),
    ];
    let before = world.api.count();
    for (name, forged) in cases {
        assert_eq!(status_of(&world, &forged).await, 401, "{name}");
    }
    // A changed claim under the old signature.
    let parts: Vec<&str> = token.split('.').collect();
    let mut claims: Value = serde_json::from_slice(&B64.decode(parts[1]).unwrap()).unwrap();
    claims["roles"] = json!(["admin"]);
    assert_eq!(status_of(&world, &format!("{}.{}.{}", parts[0], B64.encode(claims.to_string()), parts[2])).await, 401);
    assert_eq!(world.api.count(), before);
    let basic = world.get("/api/videos", &[("authorization", "Basic YTpi")]).await;
    assert_eq!((basic.status, basic.header("www-authenticate")), (401, "Bearer error=\"invalid_token\""));
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
