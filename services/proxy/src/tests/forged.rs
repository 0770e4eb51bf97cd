//! A7 at the guards: transaction tokens, under the whole table of forgeries.

use contract::signing::AuthorityKey;
use contract::txn_token::TYP;
use serde_json::{Value, json};
use trust::Clock;

use super::forgery::Forger;
use super::world::{World, get, mirror, read};

fn claims(world: &World) -> Value {
    let now = world.clock.unix_s();
    let domain = &world.ca.domain;
    json!({"iss": domain.role("edge").to_string(), "aud": domain.to_string(), "iat": now, "exp": now + 300, "txn": "t-1", "sub": "ann", "purp": "view", "scope": ""})
}

// A7, D6
#[tokio::test]
async fn forged_transaction_tokens_are_refused_by_guards_each_for_its_own_reason() {
    let world = World::new();
    let forger = Forger::new(TYP);
    let mut view = world.back_view();
    let known =
        |owner, not_after_s| AuthorityKey { kid: forger.key.kid().to_owned(), owner, public: forger.key.public().clone(), not_after_s };
    view.authority_keys.push(known(world.ca.domain.role("edge"), world.clock.unix_s() + 3600));
    let (_guard, address) = world.guard("back", &view, mirror);
    let transport = world.transport(&world.identity("front"), &world.service("back"), address);
    let answer = async |token: &str| read(transport.call(get("/things/1", &[("txn-token", token)])).await.unwrap()).await;
    let (header, good) = (forger.header().to_string(), claims(&world));
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        forger.signed(&header, &claims.to_string())
    };
    let now = world.clock.unix_s();
    // This clock runs; the edges to the second are in `edge::tests::bearer`, by the same rules.
    for token in [forger.signed(&header, &good.to_string()), with("exp", json!(now + 120)), with("iat", json!(now + 5))] {
        assert_eq!(answer(&token).await.0, 200);
    }
    let mut cases = forger.forgeries(&good);
    for (what, token, reason) in [
        ("another domain", with("aud", json!("other.example")), "audience_mismatch"),
        ("another issuer", with("iss", json!(world.ca.domain.role("login").to_string())), "issuer_mismatch"),
        ("an issuer of another domain", with("iss", json!("spiffe://other.example/role/edge")), "issuer_mismatch"),
        ("its end is now", with("exp", json!(now)), "token_expired"),
        ("it was issued beyond any skew", with("iat", json!(now + 120)), "token_not_yet_valid"),
        (
            "a job, by the edge",
            with("job", json!({"id": "j", "lease": "l", "queue": "jobs", "consumer": "back", "inputs": [], "folder": null})),
            "token_",
        ),
        ("an issuer that is no id", with("iss", json!("edge")), "token_malformed"),
        ("an audience with a slash", with("aud", json!("video.example/")), "token_malformed"),
    ] {
        cases.push((what.to_owned(), token, reason));
    }
    assert!(cases.len() > 150, "{}", cases.len());
    for (what, token, reason) in cases {
        let (status, said) = answer(&token).await;
        let code = said["reason"].as_str().unwrap_or_default();
        assert!(status == 401 && code.starts_with(reason), "{what}: {status} {code}, not {reason}");
    }
}

// A7, C12: keys rotate: what an ended key signed after its end is refused, and so is everything once the view knows the key no more.
#[tokio::test]
async fn a_key_that_ended_signs_nothing_new() {
    let world = World::new();
    let forger = Forger::new(TYP);
    let now = world.clock.unix_s();
    let owner = world.ca.domain.role("edge");
    let verifier = |not_after_s: Option<u64>| {
        let key = |not_after_s| AuthorityKey {
            kid: forger.key.kid().to_owned(),
            owner: owner.clone(),
            public: forger.key.public().clone(),
            not_after_s,
        };
        contract::txn_token::Verifier::new(world.ca.domain.clone(), &not_after_s.map(key).into_iter().collect::<Vec<_>>())
    };
    let token = forger.signed(&forger.header().to_string(), &claims(&world).to_string());
    assert!(verifier(Some(now)).verify(&token, &*world.clock).is_ok());
    assert_eq!(verifier(Some(now - 1)).verify(&token, &*world.clock).unwrap_err().code(), "token_key_unknown");
    assert_eq!(verifier(None).verify(&token, &*world.clock).unwrap_err().code(), "token_key_unknown");
}
