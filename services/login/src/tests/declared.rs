//! Applications that the manifest declares, and tokens by reference (A8; RFC 6749, RFC 7009, RFC 7662).

use contract::opaque::{self, Kind};
use http::{StatusCode, header};
use serde_json::{Value, json};

use super::house::{Answer, House, PASSWORD, VERIFIER, authorize, claims, edge_peer, form};

const BACK: &str = "https://app.example/back?x=1";

async fn code(house: &House, client: &str, back: &str) -> String {
    let change = [("client_id", client), ("redirect_uri", back), ("scope", "openid offline_access videos")];
    let answer = house.browser().sign_in(&authorize(false, &change), "Ada", PASSWORD).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text);
    answer.param("code").unwrap()
}

async fn redeem(house: &House, client: &str, back: &str, code: &str) -> Answer {
    let params =
        [("grant_type", "authorization_code"), ("code", code), ("redirect_uri", back), ("code_verifier", VERIFIER), ("client_id", client)];
    house.client(false, "/token", &params).await
}

async fn introspected(house: &House, token: &str) -> Value {
    house.client(true, "/introspect", &[("token", token)]).await.json()
}

// A8: the token says nothing, stands for what a signed one would say, and for nothing once it is revoked.
#[tokio::test]
async fn an_opaque_token_stands_for_claims_until_it_is_revoked_or_ends() {
    let mut house = House::new().await;
    let user = house.person("Ada").await;
    let given = redeem(&house, "app", BACK, &code(&house, "app", BACK).await).await.json();
    let token = given["access_token"].as_str().unwrap().to_owned();
    assert_eq!((opaque::kind_of(&token), &given["token_type"]), (Some(Kind::Token), &json!("Bearer")));
    house.restart().await;
    let said = introspected(&house, &token).await;
    let heard = (&said["active"], &said["sub"], &said["client_id"], &said["scope"], &said["roles"]);
    assert_eq!(heard, (&json!(true), &json!(user), &json!("app"), &json!("offline_access openid videos"), &json!(["viewer"])));
    assert_eq!(house.userinfo(&token).await.json()["sub"], json!(user));
    // RFC 7009: by the token itself, by its own client alone.
    let revoke = |client: &'static str, token: String| {
        let house = &house;
        async move { house.client(false, "/revoke", &[("token", &token), ("client_id", client)]).await.status }
    };
    assert_eq!(revoke("palisade-cli", token.clone()).await, StatusCode::OK);
    assert_eq!(introspected(&house, &token).await["active"], true, "another client cannot");
    assert_eq!(revoke("app", token.clone()).await, StatusCode::OK);
    assert_eq!(introspected(&house, &token).await, json!({"active": false}));
    assert_eq!(house.userinfo(&token).await.status, StatusCode::UNAUTHORIZED);
    let params = [("grant_type", "refresh_token"), ("refresh_token", given["refresh_token"].as_str().unwrap()), ("client_id", "app")];
    assert_eq!(house.client(false, "/token", &params).await.error().1, "invalid_grant");
    // And each ends by itself.
    let given = redeem(&house, "app", BACK, &code(&house, "app", BACK).await).await.json();
    let token = given["access_token"].as_str().unwrap();
    house.pass(299);
    assert_eq!(introspected(&house, token).await["active"], true);
    house.pass(1);
    assert_eq!(introspected(&house, token).await, json!({"active": false}));
}

// B3: exactly the declared addresses; on the loopback any port.
#[tokio::test]
async fn a_declared_application_gets_codes_at_its_own_addresses_only() {
    let house = House::new().await;
    house.person("Ada").await;
    let sent = |client: &'static str, back: &'static str| {
        let house = &house;
        async move { house.browser().get(&authorize(false, &[("client_id", client), ("redirect_uri", back)])).await.status }
    };
    for (client, back, status) in [
        ("app", BACK, StatusCode::SEE_OTHER),
        ("app", "https://app.example/back", StatusCode::BAD_REQUEST),
        ("app", "https://app.example/back?x=1&y=2", StatusCode::BAD_REQUEST),
        ("app", "https://app.example.evil/back?x=1", StatusCode::BAD_REQUEST),
        ("app", "http://127.0.0.1:4000/cb", StatusCode::BAD_REQUEST),
        ("native", "http://127.0.0.1:4000/cb", StatusCode::SEE_OTHER),
        ("native", "http://127.0.0.1:65536/cb", StatusCode::BAD_REQUEST),
        ("native", "http://127.0.0.1:4000/cb/x", StatusCode::BAD_REQUEST),
        ("native", "http://127.0.0.1/cb", StatusCode::BAD_REQUEST),
        ("native", "http://[::1]:4000/cb", StatusCode::BAD_REQUEST),
        ("undeclared", BACK, StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(sent(client, back).await, status, "{client} {back}");
    }
    let browser = house.browser();
    let to = browser.get(&authorize(false, &[("client_id", "app"), ("redirect_uri", BACK)])).await.location();
    let policy = browser.get(&to).await.headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
    assert!(policy.contains("form-action 'self' https://app.example;"), "{policy}");
}

// B10: RFC 9449, section 5.2: an application that must prove a key gets nothing without.
#[tokio::test]
async fn an_application_that_must_prove_a_key_gets_no_token_without() {
    let house = House::new().await;
    house.person("Ada").await;
    let back = "http://127.0.0.1:4000/cb";
    let refused = redeem(&house, "native", back, &code(&house, "native", back).await).await;
    assert_eq!(refused.error(), (StatusCode::BAD_REQUEST, "invalid_dpop_proof".to_owned()));
}

// A10, B4: RFC 8705: an application that shows itself by a certificate gets tokens that are bound to it, and without it nothing.
#[tokio::test]
async fn an_application_with_a_certificate_gets_tokens_that_are_bound_to_it() {
    let house = House::new().await;
    house.person("Ada").await;
    let back = "https://app.example/batch";
    let thumbprint = "A".repeat(43);
    let token = |fields: Vec<(&'static str, String)>, shown: Option<&'static str>| {
        let (house, thumbprint) = (&house, thumbprint.clone());
        async move {
            let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let mut request = form("/token", &fields);
            if let Some(names) = shown {
                request.headers_mut().insert("palisade-client-certificate", thumbprint.parse().unwrap());
                request.headers_mut().insert("palisade-client-names", names.parse().unwrap());
            }
            house.send(edge_peer(), request).await
        }
    };
    let redeem = |code: String| {
        let fields = [("grant_type", "authorization_code"), ("redirect_uri", back), ("code_verifier", VERIFIER), ("client_id", "batch")];
        let mut fields: Vec<(&'static str, String)> = fields.map(|(name, value)| (name, value.to_owned())).to_vec();
        fields.push(("code", code));
        fields
    };
    let code = code(&house, "batch", back).await;
    for shown in [None, Some("other.partner.example"), Some("batch.partner.example.evil")] {
        let refused = token(redeem(code.clone()), shown).await;
        assert_eq!(refused.error(), (StatusCode::UNAUTHORIZED, "invalid_client".to_owned()), "{shown:?}");
    }
    let given = token(redeem(code), Some("x.example,batch.partner.example")).await;
    assert_eq!(given.status, StatusCode::OK, "{}", given.text);
    let access = given.json()["access_token"].as_str().unwrap().to_owned();
    assert_eq!(claims(&access)["cnf"], json!({"x5t#S256": thumbprint}));
    assert_eq!(given.json()["token_type"], "Bearer");
    assert_eq!(house.userinfo(&access).await.status, StatusCode::UNAUTHORIZED, "without the certificate");
    let refresh = given.json()["refresh_token"].as_str().unwrap().to_owned();
    let again = || vec![("grant_type", "refresh_token".to_owned()), ("refresh_token", refresh.clone()), ("client_id", "batch".to_owned())];
    assert_eq!(token(again(), None).await.error().1, "invalid_client");
    assert_eq!(token(again(), Some("batch.partner.example")).await.status, StatusCode::OK);
}
