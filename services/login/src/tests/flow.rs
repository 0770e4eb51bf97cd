//! The flow, as an independent client would check it.

use contract::signing;
use http::StatusCode;
use published::decoding;
use serde_json::Value;

use super::house::{CLI_BACK, EDGE_BACK, House, ISSUER, ORIGIN, PASSWORD, VERIFIER, authorize, claims, pkce};

/// The verifying key of a published set, made from its coordinates alone.
mod published {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
    use contract::signing::PublicKey;
    use serde_json::Value;

    pub(super) fn decoding(set: &Value, kid: &str) -> PublicKey {
        let key = set["keys"].as_array().unwrap().iter().find(|k| k["kid"] == kid).expect("the key is published");
        assert_eq!((key["kty"].as_str(), key["crv"].as_str(), key["alg"].as_str()), (Some("EC"), Some("P-256"), Some("ES256")));
        assert!(key.get("d").is_none(), "no private part");
        let coordinate = |name: &str| B64.decode(key[name].as_str().unwrap()).unwrap();
        PublicKey::from_point(&[&[4], coordinate("x").as_slice(), coordinate("y").as_slice()].concat())
    }
}

fn verified(set: &Value, jws: &str, typ: &str) -> Value {
    let (kid, _) = signing::header_of(jws, typ).unwrap();
    signing::verify(jws, typ, &decoding(set, &kid.unwrap()).decoding().unwrap()).unwrap()
}

// B1: Discovery 1.0 section 3; RFC 9207 section 3.
#[tokio::test]
async fn discovery_says_what_is_there() {
    let house = House::new().await;
    let answer = house.browser().get("/.well-known/openid-configuration").await;
    let said = answer.json();
    for (field, expect) in [
        ("issuer", ISSUER.to_owned()),
        ("authorization_endpoint", format!("{ISSUER}/authorize")),
        ("token_endpoint", format!("{ISSUER}/token")),
        ("userinfo_endpoint", format!("{ISSUER}/userinfo")),
        ("jwks_uri", format!("{ISSUER}/jwks")),
        ("revocation_endpoint", format!("{ISSUER}/revoke")),
        ("end_session_endpoint", format!("{ISSUER}/end-session")),
    ] {
        assert_eq!(said[field], expect, "{field}");
    }
    for (field, expect) in [
        ("response_types_supported", serde_json::json!(["code"])),
        ("code_challenge_methods_supported", serde_json::json!(["S256"])),
        ("id_token_signing_alg_values_supported", serde_json::json!(["ES256"])),
        ("subject_types_supported", serde_json::json!(["public"])),
        ("authorization_response_iss_parameter_supported", serde_json::json!(true)),
        ("request_uri_parameter_supported", serde_json::json!(false)),
    ] {
        assert_eq!(said[field], expect, "{field}");
    }
    assert!(said["scopes_supported"].as_array().unwrap().contains(&"videos".into()));
}

// B1: the whole flow for both clients, each value checked as Core section 3.1.3.7 and RFC 9068 section 4 tell clients to.
#[tokio::test]
async fn code_flow_gives_tokens_that_a_client_can_check() {
    let house = House::new().await;
    let user = house.person("Ada").await;
    for (edge, client, back) in [(true, "edge", EDGE_BACK), (false, "palisade-cli", CLI_BACK)] {
        let answer = house.browser().sign_in(&authorize(edge, &[]), "ada", PASSWORD).await;
        assert!(answer.location().starts_with(&format!("{back}?")), "{}", answer.location());
        assert_eq!(answer.param("state").as_deref(), Some("st&te"));
        assert_eq!(answer.param("iss").as_deref(), Some(ISSUER), "RFC 9207");
        assert_eq!(answer.headers["cache-control"], "no-store");
        let tokens = house.exchange(edge, &answer.param("code").unwrap()).await;
        assert_eq!((tokens.status, &tokens.headers["cache-control"]), (StatusCode::OK, &"no-store".parse().unwrap()));
        let (tokens, set) = (tokens.json(), house.browser().get("/jwks").await.json());
        assert_eq!((tokens["token_type"].as_str(), tokens["expires_in"].as_u64()), (Some("Bearer"), Some(300)));
        assert_eq!(tokens["scope"], "offline_access openid profile videos");
        let id = verified(&set, tokens["id_token"].as_str().unwrap(), "JWT");
        let expect = [("iss", ISSUER), ("sub", &user), ("aud", client), ("nonce", "n0nce"), ("name", "Ada")];
        for (claim, value) in expect {
            assert_eq!(id[claim], value, "{claim}");
        }
        let access = verified(&set, tokens["access_token"].as_str().unwrap(), "at+jwt");
        for (claim, value) in [("iss", ISSUER), ("sub", &user), ("aud", ORIGIN), ("client_id", client)] {
            assert_eq!(access[claim], value, "{claim}");
        }
        assert_eq!(access["exp"].as_u64().unwrap() - access["iat"].as_u64().unwrap(), 300);
        assert_eq!((&access["sid"], &access["roles"]), (&id["sid"], &serde_json::json!(["viewer"])));
        assert!(id["auth_time"].as_u64().is_some() && id["at_hash"].as_str().is_some_and(|h| h.len() == 22));
        let info = house.userinfo(tokens["access_token"].as_str().unwrap()).await;
        assert_eq!((info.status, info.json()["sub"].as_str()), (StatusCode::OK, Some(user.as_str())));
    }
}

// B1: scopes that are not known are left out, and without offline_access there is no refresh token.
#[tokio::test]
async fn only_known_scopes_are_granted() {
    let house = House::new().await;
    house.person("Ada").await;
    let code = house.browser().code(true, "openid videos root", "Ada").await;
    let tokens = house.exchange(true, &code).await.json();
    assert_eq!(tokens["scope"], "openid videos");
    assert!(tokens.get("refresh_token").is_none());
    assert!(claims(tokens["id_token"].as_str().unwrap()).get("name").is_none(), "no profile, no name");
}

// B2: RFC 7636 with S256, or nothing.
#[tokio::test]
async fn pkce_is_mandatory_and_s256_only() {
    let house = House::new().await;
    house.person("Ada").await;
    for (case, changes) in [
        ("none", &[("code_challenge", ""), ("code_challenge_method", "")][..]),
        ("no method, which means plain", &[("code_challenge_method", "")]),
        ("plain", &[("code_challenge_method", "plain")]),
        ("lower case", &[("code_challenge_method", "s256")]),
        ("short", &[("code_challenge", "abc")]),
        ("not base64url", &[("code_challenge", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw+cM")]),
    ] {
        let answer = house.browser().get(&authorize(true, changes)).await;
        assert_eq!(answer.param("error").as_deref(), Some("invalid_request"), "{case}");
        assert_eq!(
            (answer.param("state").as_deref(), answer.param("iss").as_deref(), answer.param("code")),
            (Some("st&te"), Some(ISSUER), None)
        );
    }
    for (case, verifier) in
        [("wrong", pkce().0.as_str()), ("the challenge itself", super::house::CHALLENGE), ("short", "abc"), ("missing", "")]
    {
        let browser = house.browser();
        let code = browser.code(true, "openid", "Ada").await;
        let mut params = vec![("grant_type", "authorization_code"), ("code", code.as_str()), ("redirect_uri", EDGE_BACK)];
        params.push(("code_verifier", verifier));
        let (status, error) = house.client(true, "/token", &params).await.error();
        assert_eq!(status, StatusCode::BAD_REQUEST, "{case}");
        assert_eq!(error, if verifier.is_empty() { "invalid_request" } else { "invalid_grant" }, "{case}");
        if !verifier.is_empty() {
            assert_eq!(house.exchange(true, &code).await.error().1, "invalid_grant", "{case}: no second guess");
        }
    }
    let (verifier, challenge) = pkce();
    let answer = house.browser().sign_in(&authorize(true, &[("code_challenge", &challenge)]), "Ada", PASSWORD).await;
    let code = answer.param("code").unwrap();
    let params = [("grant_type", "authorization_code"), ("code", &code), ("redirect_uri", EDGE_BACK), ("code_verifier", &verifier)];
    assert_eq!(house.client(true, "/token", &params).await.status, StatusCode::OK);
}

// B3 in part: a code goes to no other place, and a wrong place is told to the person, never redirected to.
#[tokio::test]
async fn redirects_go_exactly_where_they_may() {
    let house = House::new().await;
    for (edge, uri, good) in [
        (true, EDGE_BACK, true),
        (true, "https://localhost:8443/auth/callback/", false),
        (true, "https://localhost:8443/auth/callback?x=1", false),
        (true, "https://localhost:8443.evil.example/auth/callback", false),
        (true, "https://evil.example/auth/callback", false),
        (true, "http://localhost:8443/auth/callback", false),
        (true, CLI_BACK, false),
        (false, "http://127.0.0.1:1/callback", true),
        (false, "http://[::1]:65535/callback", true),
        (false, "http://127.0.0.1:65536/callback", false),
        (false, "http://127.0.0.1:080/callback", false),
        (false, "http://127.0.0.1:0/callback", false),
        (false, "http://127.0.0.1/callback", false),
        (false, "http://127.0.0.1:80@evil.example/callback", false),
        (false, "http://127.0.0.1:80/callback#x", false),
        (false, "http://localhost:80/callback", false),
        (false, "https://127.0.0.1:80/callback", false),
        (false, EDGE_BACK, false),
        (false, "", false),
    ] {
        let answer = house.browser().get(&authorize(edge, &[("redirect_uri", uri)])).await;
        assert_eq!(answer.status == StatusCode::SEE_OTHER, good, "{uri}");
        assert!(good || answer.status == StatusCode::BAD_REQUEST && !answer.headers.contains_key("location"), "{uri}");
    }
    for client in ["", "stranger", "EDGE"] {
        let answer = house.browser().get(&authorize(true, &[("client_id", client)])).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{client}");
    }
    let twice = format!("{}&client_id=edge", authorize(true, &[]));
    assert_eq!(house.browser().get(&twice).await.status, StatusCode::BAD_REQUEST, "a parameter twice");
}

// B1: Core section 3.1.2.6 and RFC 6749 section 4.1.2.1.
#[tokio::test]
async fn errors_that_are_the_clients_go_back_to_it() {
    let house = House::new().await;
    for (name, value, error) in [
        ("response_type", "token", "unsupported_response_type"),
        ("response_type", "code id_token", "unsupported_response_type"),
        ("response_type", "", "invalid_request"),
        ("response_mode", "fragment", "invalid_request"),
        ("scope", "videos", "invalid_scope"),
        ("scope", "", "invalid_scope"),
        ("request", "eyJ", "request_not_supported"),
        ("request_uri", "https://evil.example/", "request_uri_not_supported"),
        ("prompt", "none", "login_required"),
        ("prompt", "none login", "invalid_request"),
        ("max_age", "-1", "invalid_request"),
    ] {
        let answer = house.browser().get(&authorize(true, &[(name, value)])).await;
        assert_eq!(answer.param("error").as_deref(), Some(error), "{name}={value}");
        assert_eq!(answer.param("iss").as_deref(), Some(ISSUER), "RFC 9207, section 2: errors too");
    }
}

// B1: one sign-in for both clients; prompt and max_age ask again.
#[tokio::test]
async fn session_answers_without_a_page_until_asked_again() {
    let house = House::new().await;
    house.person("Ada").await;
    let browser = house.browser();
    browser.code(true, "openid", "Ada").await;
    for (case, changes, silent) in [
        ("again", &[][..], true),
        ("prompt=none", &[("prompt", "none")], true),
        ("max_age in time", &[("max_age", "60")], true),
        ("prompt=login", &[("prompt", "login")], false),
        ("prompt=select_account", &[("prompt", "select_account")], false),
    ] {
        let answer = browser.get(&authorize(false, changes)).await;
        assert_eq!(answer.location().starts_with(CLI_BACK) && answer.param("code").is_some(), silent, "{case}");
    }
    house.pass(61);
    assert!(browser.get(&authorize(true, &[("max_age", "60")])).await.location().contains("/sign-in?"), "too long ago");
    let answer = browser.sign_in(&authorize(true, &[("max_age", "60")]), "Ada", PASSWORD).await;
    let id = house.exchange(true, &answer.param("code").unwrap()).await.json();
    assert_eq!(claims(id["id_token"].as_str().unwrap())["auth_time"], 1_800_000_061_u64, "proved anew");
    house.pass(12 * 3600);
    assert!(browser.get(&authorize(true, &[])).await.location().contains("/sign-in?"), "a session ends");
}

// B20 rests on it: successors are published before they sign, and predecessors stay until their tokens have ended.
#[tokio::test]
async fn keys_overlap_when_they_rotate() {
    let mut house = House::new().await;
    house.person("Ada").await;
    let kids = async |house: &House| {
        let set = house.browser().get("/jwks").await.json();
        set["keys"].as_array().unwrap().iter().map(|k| k["kid"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let signer = async |house: &House| {
        let tokens = house.browser().tokens(true, "Ada").await;
        signing::header_of(tokens["id_token"].as_str().unwrap(), "JWT").unwrap().0.unwrap()
    };
    let (first, day) = (kids(&house).await, 24 * 3600);
    assert_eq!((first.len(), signer(&house).await), (1, first[0].clone()));
    house.pass(29 * day);
    let both = kids(&house).await;
    assert_eq!((both.len(), &both[0], signer(&house).await), (2, &first[0], first[0].clone()), "announced, not used");
    house.restart().await;
    house.pass(day);
    assert_eq!((kids(&house).await, signer(&house).await), (both.clone(), both[1].clone()), "used, the old one still published");
    house.pass(day);
    assert_eq!(kids(&house).await, [both[1].clone()]);
}

// A verifier that was sent is not a verifier that was kept: the constants of RFC 7636 appendix B fit each other.
#[test]
fn test_vectors_of_rfc_7636_fit() {
    use base64::Engine;
    let digest = trust::Digest::of(VERIFIER.as_bytes());
    assert_eq!(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(digest.as_bytes()), super::house::CHALLENGE);
}
