//! API keys and introspection (A8, A12; RFC 7662).

use contract::login::{ApiKey, KeyMade};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::house::{Answer, House, ISSUER, ORIGIN};

async fn make(house: &House, user: &str, change: Value) -> Answer {
    let mut new = json!({"user": user, "name": "nightly report", "scopes": ["videos"], "life_s": 3600});
    for (name, value) in change.as_object().unwrap() {
        new[name] = value.clone();
    }
    house.operate(Method::POST, "/keys", new.to_string().into_bytes()).await
}

async fn made(house: &House, user: &str) -> KeyMade {
    let answer = make(house, user, json!({})).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    serde_json::from_str(&answer.text).unwrap()
}

/// What the edge is told about a credential.
async fn introspected(house: &House, token: &str) -> Value {
    let answer = house.client(true, "/introspect", &[("token", token), ("client_id", "edge")]).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    answer.json()
}

// A12: what a key stands for: its person, its scopes, its end; no role, and no recent proof of oneself.
#[tokio::test]
async fn a_key_stands_for_its_person_and_scopes_until_its_end() {
    let house = House::new().await;
    let user = house.person("Ada").await;
    let key = made(&house, &user).await;
    let said = introspected(&house, &key.key).await;
    let expected = json!({"active": true, "token_type": "Bearer", "iss": ISSUER, "aud": ORIGIN, "sub": user, "scope": "videos", "roles": [],
        "auth_time": 0, "sid": "", "client_id": format!("key:{}", key.id), "jti": key.id, "iat": 1_800_000_000, "exp": key.expires_s});
    assert_eq!(said, expected);
    house.pass(3599);
    assert_eq!(introspected(&house, &key.key).await["active"], true);
    house.pass(1);
    assert_eq!(introspected(&house, &key.key).await, json!({"active": false}));
}

// A12, P9: revoked means over, and so does a removed person.
#[tokio::test]
async fn a_revoked_key_and_a_removed_persons_key_stand_for_nothing() {
    let house = House::new().await;
    let user = house.person("Ada").await;
    let (a, b) = (made(&house, &user).await, made(&house, &user).await);
    let revoke = |id: String| {
        let house = &house;
        async move { house.operate(Method::DELETE, &format!("/keys/{id}"), vec![]).await.status }
    };
    assert_eq!(revoke(a.id.clone()).await, StatusCode::NO_CONTENT);
    assert_eq!(revoke(a.id.clone()).await, StatusCode::NOT_FOUND, "once");
    assert_eq!(introspected(&house, &a.key).await, json!({"active": false}));
    assert_eq!(introspected(&house, &b.key).await["active"], true);
    let listed = house.operate(Method::GET, "/keys", vec![]).await;
    assert!(!listed.text.contains(&a.key) && !listed.text.contains(&b.key), "shown once");
    let listed: Vec<ApiKey> = serde_json::from_str(&listed.text).unwrap();
    assert_eq!(listed.iter().map(|key| key.revoked_s.is_some()).filter(|revoked| *revoked).count(), 1);
    house.operate(Method::DELETE, &format!("/users/{user}"), vec![]).await;
    assert_eq!(introspected(&house, &b.key).await, json!({"active": false}));
}

// A12: bounds, each with what to do.
#[tokio::test]
async fn a_key_without_an_end_a_person_or_known_scopes_is_refused() {
    let house = House::new().await;
    let user = house.person("Ada").await;
    for (change, status, said) in [
        (json!({"life_s": 0}), 400, "366 days"),
        (json!({"life_s": 366 * 86_400 + 1}), 400, "366 days"),
        (json!({"life_s": 366 * 86_400}), 200, ""),
        (json!({"scopes": ["videos", "everything"]}), 400, "no route asks for the scope 'everything'; there are: videos"),
        (json!({"scopes": ["offline_access"]}), 400, "no route"),
        (json!({"scopes": []}), 200, ""),
        (json!({"name": ""}), 400, "say what will use it"),
        (json!({"user": "nobody"}), 404, "user list"),
        (json!({"roles": ["admin"]}), 400, ""),
    ] {
        let answer = make(&house, &user, change.clone()).await;
        assert!(answer.status == status && answer.text.contains(said), "{change}: {} {}", answer.status, answer.text);
    }
    for n in 2..64 {
        assert_eq!(make(&house, &user, json!({})).await.status, StatusCode::OK, "{n}");
    }
    assert_eq!(make(&house, &user, json!({})).await.status, StatusCode::CONFLICT);
}

// A12: nothing from which the key could be had again is on the disk or in the audit log.
#[tokio::test]
async fn a_key_cannot_be_recovered_from_the_disk() {
    let mut house = House::new().await;
    let user = house.person("Ada").await;
    let key = made(&house, &user).await.key;
    introspected(&house, &key).await;
    house.restart().await;
    assert_eq!(introspected(&house, &key).await["active"], true, "it is kept all the same");
    let random = &key["palk_".len()..][..64];
    let bytes = (0..32).map(|n| u8::from_str_radix(&random[2 * n..][..2], 16).unwrap()).collect::<Vec<_>>();
    let digest = trust::Digest::of(key.as_bytes());
    let mut files = 0;
    for file in std::fs::read_dir(house.folder()).unwrap() {
        let kept = std::fs::read(file.unwrap().path()).unwrap();
        let holds = |needle: &[u8]| kept.windows(needle.len()).any(|window| window == needle);
        let halves = [&random[..16], &random[48..]];
        assert!(!halves.iter().any(|half| holds(half.as_bytes())) && !holds(&bytes[..8]), "the key itself");
        assert!(!holds(digest.to_hex().as_bytes()) && !holds(digest.as_bytes()), "a digest that anybody could compare with");
        files += 1;
    }
    assert!(files >= 2, "the database and its log");
    assert!(!serde_json::to_string(&*house.sink.audit.lock().unwrap()).unwrap().contains(random));
}

// A8: RFC 7662, section 2.1: who asks must be who they say; and a signed token's family must live.
#[tokio::test]
async fn only_the_edge_itself_may_ask_and_a_dead_familys_token_is_not_active() {
    let house = House::new().await;
    house.person("Ada").await;
    let tokens = house.browser().tokens(false, "Ada").await;
    let access = tokens["access_token"].as_str().unwrap();
    for params in
        [vec![("token", access)], vec![("token", access), ("client_id", "palisade-cli")], vec![("token", access), ("client_id", "edge")]]
    {
        assert_eq!(house.client(false, "/introspect", &params).await.error(), (StatusCode::UNAUTHORIZED, "invalid_client".to_owned()));
    }
    let said = introspected(&house, access).await;
    assert_eq!((&said["active"], &said["client_id"]), (&json!(true), &json!("palisade-cli")));
    let refresh = tokens["refresh_token"].as_str().unwrap();
    house.client(false, "/revoke", &[("token", refresh), ("client_id", "palisade-cli")]).await;
    for none in [access, refresh, "", "x", "palk_", &format!("palk_{}", "0".repeat(72))] {
        if !none.is_empty() {
            assert_eq!(introspected(&house, none).await, json!({"active": false}), "{none}");
        }
    }
}
