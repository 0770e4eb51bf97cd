//! Tokens that are bound to a client's key (B10; RFC 9449).

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use http::{Request, StatusCode, header};
use serde_json::{Value, json};
use trust::{Digest, SystemEntropy, clock::random_hex};

use super::house::{Answer, CLI_BACK, House, ISSUER, PASSWORD, VERIFIER, authorize, claims, edge_peer, form};

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

    fn thumbprint(&self) -> String {
        B64.encode(Digest::of(self.jwk.to_string().as_bytes()).as_bytes())
    }

    fn prove(&self, house: &House, method: &str, path: &str, token: Option<&str>, nonce: Option<&str>) -> String {
        let now_s = house.clock().unix_s();
        let mut said = json!({"jti": random_hex(&SystemEntropy, 8), "htm": method, "htu": format!("{ISSUER}{path}"), "iat": now_s});
        if let Some(token) = token {
            said["ath"] = B64.encode(Digest::of(token.as_bytes()).as_bytes()).into();
        }
        if let Some(nonce) = nonce {
            said["nonce"] = nonce.into();
        }
        let head = json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": self.jwk});
        let signed = format!("{}.{}", B64.encode(head.to_string()), B64.encode(said.to_string()));
        let signature = self.pair.sign(&aws_lc_rs::rand::SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", B64.encode(signature))
    }
}

async fn token(house: &House, params: &[(&str, &str)], proof: Option<&str>) -> Answer {
    let mut request = form("/token", &[params, &[("client_id", "palisade-cli")]].concat());
    if let Some(proof) = proof {
        request.headers_mut().insert("dpop", proof.parse().unwrap());
    }
    house.send(edge_peer(), request).await
}

async fn redeem(house: &House, code: &str, proof: Option<&str>) -> Answer {
    let params = [("grant_type", "authorization_code"), ("code", code), ("redirect_uri", CLI_BACK), ("code_verifier", VERIFIER)];
    token(house, &params, proof).await
}

async fn refresh(house: &House, refresh_token: &str, proof: Option<&str>) -> Answer {
    token(house, &[("grant_type", "refresh_token"), ("refresh_token", refresh_token)], proof).await
}

async fn userinfo(house: &House, scheme: &str, token: &str, proof: Option<&str>) -> Answer {
    let mut request = Request::builder().uri("/userinfo").header(header::AUTHORIZATION, format!("{scheme} {token}"));
    if let Some(proof) = proof {
        request = request.header("dpop", proof);
    }
    house.send(edge_peer(), request.body(contract::body::empty()).unwrap()).await
}

/// A house that has been there for long enough to need no nonces, and a code.
async fn house_and_code() -> (House, String) {
    let house = House::new().await;
    house.person("Ada").await;
    house.pass(10);
    let code = house.browser().code(false, "openid offline_access", "Ada").await;
    (house, code)
}

fn text(answer: &Answer, field: &str) -> String {
    answer.json()[field].as_str().unwrap().to_owned()
}

// B10: the token names the key, and so do all that come from it.
#[tokio::test]
async fn a_code_with_a_proof_gives_tokens_that_are_bound_to_its_key() {
    let (house, code) = house_and_code().await;
    let (key, other) = (Prover::new(), Prover::new());
    let post = |key: &Prover| key.prove(&house, "POST", "/token", None, None);
    let given = redeem(&house, &code, Some(&post(&key))).await;
    assert_eq!(given.status, StatusCode::OK, "{}", given.text);
    assert_eq!(text(&given, "token_type"), "DPoP");
    assert!(!given.headers["dpop-nonce"].is_empty());
    let access = text(&given, "access_token");
    assert_eq!(claims(&access)["cnf"], json!({"jkt": key.thumbprint()}));
    // The refresh token is of no use without the key, and is not used up by who has it not.
    let first = text(&given, "refresh_token");
    assert_eq!(refresh(&house, &first, None).await.error().1, "invalid_grant");
    assert_eq!(refresh(&house, &first, Some(&post(&other))).await.error().1, "invalid_grant");
    let renewed = refresh(&house, &first, Some(&post(&key))).await;
    assert_eq!(claims(&text(&renewed, "access_token"))["cnf"]["jkt"], key.thumbprint().as_str());
    assert!(house.events("CredentialReplayed").is_empty());
    // Nor is the access token.
    let get = |key: &Prover| key.prove(&house, "GET", "/userinfo", Some(&access), None);
    assert_eq!(userinfo(&house, "DPoP", &access, Some(&get(&key))).await.status, StatusCode::OK);
    let bearer = userinfo(&house, "Bearer", &access, None).await;
    assert_eq!((bearer.status, bearer.error().1.as_str()), (StatusCode::UNAUTHORIZED, "invalid_token"));
    for proof in [get(&other), post(&key), key.prove(&house, "GET", "/userinfo", None, None)] {
        let refused = userinfo(&house, "DPoP", &access, Some(&proof)).await;
        assert_eq!((refused.status, refused.error().1.as_str()), (StatusCode::UNAUTHORIZED, "invalid_dpop_proof"));
        assert!(refused.headers[header::WWW_AUTHENTICATE].to_str().unwrap().starts_with("DPoP error="));
    }
    let spent = get(&key);
    assert_eq!(userinfo(&house, "DPoP", &access, Some(&spent)).await.status, StatusCode::OK);
    assert_eq!(userinfo(&house, "DPoP", &access, Some(&spent)).await.status, StatusCode::UNAUTHORIZED);
}

// B10: without a proof nothing changes, and an unbound token is not taken for a bound one.
#[tokio::test]
async fn a_code_without_a_proof_gives_bearer_tokens() {
    let (house, code) = house_and_code().await;
    let given = redeem(&house, &code, None).await;
    assert_eq!(text(&given, "token_type"), "Bearer");
    let access = text(&given, "access_token");
    assert!(claims(&access).get("cnf").is_none());
    let key = Prover::new();
    let proof = key.prove(&house, "GET", "/userinfo", Some(&access), None);
    assert_eq!(userinfo(&house, "DPoP", &access, Some(&proof)).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(userinfo(&house, "Bearer", &access, None).await.status, StatusCode::OK);
    let bound = refresh(&house, &text(&given, "refresh_token"), Some(&key.prove(&house, "POST", "/token", None, None))).await;
    assert_eq!(text(&bound, "token_type"), "DPoP", "from the first proof on it is bound");
    assert_eq!(refresh(&house, &text(&bound, "refresh_token"), None).await.error().1, "invalid_grant");
}

// B10: a proof that is not one for this request gives nothing.
#[tokio::test]
async fn a_wrong_proof_at_the_token_endpoint_gives_nothing() {
    let (house, code) = house_and_code().await;
    let key = Prover::new();
    for proof in ["x.y.z".to_owned(), key.prove(&house, "GET", "/token", None, None), key.prove(&house, "POST", "/revoke", None, None), {
        let early = key.prove(&house, "POST", "/token", None, None);
        house.pass(61);
        early
    }] {
        let refused = redeem(&house, &code, Some(&proof)).await;
        assert_eq!(refused.error(), (StatusCode::BAD_REQUEST, "invalid_dpop_proof".to_owned()));
    }
    let code = house.browser().code(false, "openid offline_access", "Ada").await;
    let proof = key.prove(&house, "POST", "/token", None, None);
    let given = redeem(&house, &code, Some(&proof)).await;
    assert_eq!(given.status, StatusCode::OK);
    let again = refresh(&house, &text(&given, "refresh_token"), Some(&proof)).await;
    assert_eq!(again.error().1, "invalid_dpop_proof", "a proof counts once");
}

// B10: RFC 9449, section 10: a code that was asked for with a key's name is for who has the key.
#[tokio::test]
async fn a_code_can_be_bound_to_a_key_from_the_start() {
    let house = House::new().await;
    house.person("Ada").await;
    house.pass(10);
    let (key, other) = (Prover::new(), Prover::new());
    let thumbprint = key.thumbprint();
    let code = || async {
        let answer = house.browser().sign_in(&authorize(false, &[("dpop_jkt", &thumbprint)]), "Ada", PASSWORD).await;
        answer.param("code").unwrap()
    };
    for wrong in [None, Some(&other)] {
        let proof = wrong.map(|key| key.prove(&house, "POST", "/token", None, None));
        assert_eq!(redeem(&house, &code().await, proof.as_deref()).await.error().1, "invalid_grant");
    }
    let proof = key.prove(&house, "POST", "/token", None, None);
    assert_eq!(redeem(&house, &code().await, Some(&proof)).await.status, StatusCode::OK);
    let short = house.browser().get(&authorize(false, &[("dpop_jkt", "short")])).await;
    assert_eq!(short.param("error").as_deref(), Some("invalid_request"));
}

// B10: RFC 9449, section 8: a process that has just started asks for a nonce, and takes it.
#[tokio::test]
async fn after_a_restart_the_first_proof_needs_a_nonce() {
    let (mut house, code) = house_and_code().await;
    let key = Prover::new();
    house.restart().await;
    let asked = redeem(&house, &code, Some(&key.prove(&house, "POST", "/token", None, None))).await;
    assert_eq!(asked.error(), (StatusCode::BAD_REQUEST, "use_dpop_nonce".to_owned()));
    let nonce = asked.headers["dpop-nonce"].to_str().unwrap().to_owned();
    let given = redeem(&house, &code, Some(&key.prove(&house, "POST", "/token", None, Some(&nonce)))).await;
    assert_eq!(given.status, StatusCode::OK, "{}", given.text);
}
