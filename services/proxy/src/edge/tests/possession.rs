//! Tokens that are bound to a key (A9; RFC 9449).

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use contract::login::Confirmation;
use serde_json::{Value, json};
use trust::{Clock, Digest, SystemEntropy, clock::random_hex};

use super::world::{Answer, ORIGIN, World};

/// A client with a key.
struct Prover {
    pair: EcdsaKeyPair,
    jwk: Value,
}

impl Prover {
    fn new() -> Self {
        let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &aws_lc_rs::rand::SystemRandom::new()).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.as_ref()).unwrap();
        let point = pair.public_key().as_ref().to_vec();
        let jwk = json!({"crv": "P-256", "kty": "EC", "x": B64.encode(&point[1..33]), "y": B64.encode(&point[33..65])});
        Self { pair, jwk }
    }

    fn confirmation(&self) -> Confirmation {
        Confirmation { jkt: Some(B64.encode(Digest::of(self.jwk.to_string().as_bytes()).as_bytes())), x5t_s256: None }
    }

    /// A proof for `GET /api/videos` with that token; `changes` replace claims.
    fn prove(&self, world: &World, token: &str, changes: &[(&str, Value)]) -> String {
        let ath = B64.encode(Digest::of(token.as_bytes()).as_bytes());
        let jti = random_hex(&SystemEntropy, 8);
        let mut said = json!({"jti": jti, "htm": "GET", "htu": format!("{ORIGIN}/api/videos"), "iat": world.clock.unix_s(), "ath": ath});
        for (name, value) in changes {
            said[*name] = value.clone();
        }
        let head = json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": self.jwk});
        let signed = format!("{}.{}", B64.encode(head.to_string()), B64.encode(said.to_string()));
        let signature = self.pair.sign(&aws_lc_rs::rand::SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", B64.encode(signature))
    }
}

/// A world that has been there for long enough to need no nonces, a key, and a token that is bound to it.
async fn world() -> (World, Prover, String) {
    let world = World::new().await;
    let prover = Prover::new();
    *world.login.bound_to.lock().unwrap() = Some(prover.confirmation());
    world.clock.forward_s(6);
    let token = world.login.token();
    (world, prover, token)
}

async fn get(world: &World, scheme: &str, token: &str, proof: Option<&str>) -> Answer {
    let authorization = format!("{scheme} {token}");
    let mut headers = vec![("authorization", authorization.as_str())];
    headers.extend(proof.map(|proof| ("dpop", proof)));
    world.get("/api/videos?page=2", &headers).await
}

// A9, A11: with a proof for each request it passes, also from the cache; the proof goes no further than the token.
#[tokio::test]
async fn a_bound_token_passes_with_a_new_proof_for_each_request() {
    let (world, prover, token) = world().await;
    for _ in 0..3 {
        assert_eq!(get(&world, "DPoP", &token, Some(&prover.prove(&world, &token, &[]))).await.status, 200);
    }
    let seen = world.api.last().headers;
    assert!(!seen.contains_key("dpop") && !seen.contains_key("authorization"));
    assert_eq!(world.login.key_fetches.load(std::sync::atomic::Ordering::SeqCst), 1);
}

// A9: the table. Each is refused for its own reason, with a challenge that says which scheme and which error.
#[tokio::test]
async fn a_proof_that_is_not_of_this_request_token_key_and_time_is_refused() {
    let (world, prover, token) = world().await;
    let (other, now) = (Prover::new(), world.clock.unix_s());
    let spent = prover.prove(&world, &token, &[]);
    assert_eq!(get(&world, "DPoP", &token, Some(&spent)).await.status, 200, "and so the token is known from now on");
    let with = |name: &'static str, value: Value| prover.prove(&world, &token, &[(name, value)]);
    *world.login.bound_to.lock().unwrap() = None;
    let unbound = world.login.token();
    let before = world.api.count();
    let proof_error = "DPoP error=\"invalid_dpop_proof\", algs=\"ES256 EdDSA\"";
    let token_error = "DPoP error=\"invalid_token\", algs=\"ES256 EdDSA\"";
    for (what, scheme, token, proof, reason, challenge) in [
        ("replayed", "DPoP", &token, Some(spent), "proof_replayed", proof_error),
        ("another method", "DPoP", &token, Some(with("htm", "POST".into())), "proof_method_mismatch", proof_error),
        ("another address", "DPoP", &token, Some(with("htu", format!("{ORIGIN}/api/video").into())), "proof_target_mismatch", proof_error),
        ("another host", "DPoP", &token, Some(with("htu", "https://evil.example/api/videos".into())), "proof_target_mismatch", proof_error),
        ("another token", "DPoP", &token, Some(prover.prove(&world, &unbound, &[])), "proof_token_mismatch", proof_error),
        ("another key", "DPoP", &token, Some(other.prove(&world, &token, &[])), "proof_key_mismatch", proof_error),
        ("too old", "DPoP", &token, Some(with("iat", (now - 61).into())), "proof_stale", proof_error),
        ("too early", "DPoP", &token, Some(with("iat", (now + 6).into())), "proof_stale", proof_error),
        ("no proof at all", "DPoP", &token, Some("x".into()), "proof_malformed", proof_error),
        ("none", "DPoP", &token, None, "proof_missing", token_error),
        ("as if anybody could bear it", "Bearer", &token, None, "proof_missing", token_error),
        ("the same beside a proof", "Bearer", &token, Some(prover.prove(&world, &token, &[])), "proof_missing", token_error),
        ("unbound", "DPoP", &unbound, Some(prover.prove(&world, &unbound, &[])), "token_unbound", token_error),
    ] {
        let answer = get(&world, scheme, token, proof.as_deref()).await;
        let heard = (answer.status, world.refusals().last().cloned().unwrap_or_default());
        assert_eq!(heard, (401, reason.to_owned()), "{what}");
        assert_eq!(answer.header("www-authenticate"), challenge, "{what}");
    }
    assert_eq!(world.api.count(), before);
    assert_eq!(get(&world, "Bearer", &unbound, None).await.status, 200);
    let proof = prover.prove(&world, &token, &[]);
    let two = world.get("/api/videos", &[("authorization", &format!("DPoP {token}")), ("dpop", &proof), ("dpop", &proof)]).await;
    assert_eq!(two.status, 400);
}

// A9: RFC 9449, section 9.
#[tokio::test]
async fn an_edge_that_has_just_started_asks_for_a_nonce_and_takes_it() {
    let world = World::new().await;
    let prover = Prover::new();
    *world.login.bound_to.lock().unwrap() = Some(prover.confirmation());
    let token = world.login.token();
    let asked = get(&world, "DPoP", &token, Some(&prover.prove(&world, &token, &[]))).await;
    assert_eq!((asked.status, asked.header("www-authenticate")), (401, "DPoP error=\"use_dpop_nonce\", algs=\"ES256 EdDSA\""));
    let nonce = asked.header("dpop-nonce").to_owned();
    assert_eq!(get(&world, "DPoP", &token, Some(&prover.prove(&world, &token, &[("nonce", nonce.into())]))).await.status, 200);
}

// A9: a token that is bound in a way that nobody here knows is none at all.
#[tokio::test]
async fn a_token_bound_to_something_unknown_is_refused() {
    let (world, _, _) = world().await;
    let mut claims = serde_json::to_value(world.login.claims()).unwrap();
    claims["cnf"] = json!({"kid": "elsewhere"});
    let token = world.login.key.lock().unwrap().sign(contract::login::ACCESS_TYP, &[], &claims).unwrap();
    assert_eq!(get(&world, "Bearer", &token, None).await.status, 401);
    assert_eq!(world.refusals(), ["token_malformed"]);
}
