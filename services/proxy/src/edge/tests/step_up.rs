//! Routes that take a second proof of just now. B13.

use contract::login::{ACCESS_TYP, ACR_PASSWORD, ACR_SECOND, AccessClaims};
use serde_json::Value;
use trust::Clock;

use super::world::{World, callback, query_of};

const MADE_HERE: (&str, &str) = ("origin", "https://localhost:8443");

fn signed(world: &World, claims: &AccessClaims) -> String {
    format!("Bearer {}", world.login.key.lock().unwrap().sign(ACCESS_TYP, &[], claims).unwrap())
}

/// From the address that a page leads to, through sign-in; the session's cookie and where the browser ends.
async fn signed_in(world: &World, address: &str) -> (String, String) {
    let begun = world.get(address, &[]).await;
    let (code, state) = world.login.code_for(begun.location());
    let done = world.get(&callback(&code, &state), &[("cookie", &begun.cookie("__Host-palisade-sign-in"))]).await;
    assert_eq!(done.status, 303, "{}", done.text);
    (done.cookie("__Host-palisade"), done.location().to_owned())
}

// B13, RFC 9470 section 3: a password counts for nothing, however fresh; a second factor for 300 s; the answer says what to ask for.
#[tokio::test]
async fn a_route_with_step_up_takes_a_second_factor_of_just_now() {
    let world = World::new().await;
    let now = world.clock.unix_s();
    for (acr, auth_time, good) in [
        (ACR_SECOND, now, true),
        (ACR_SECOND, now - 300, true),
        (ACR_SECOND, now - 301, false),
        (ACR_SECOND, now + 3600, false),
        (ACR_SECOND, 0, false),
        (ACR_PASSWORD, now, false),
        ("", now, false),
        ("urn:other", now, false),
    ] {
        let bearer = signed(&world, &AccessClaims { acr: acr.to_owned(), auth_time, ..world.login.claims() });
        let (before, shown) = (world.api.count(), [("authorization", bearer.as_str())]);
        let answer = world.send(super::world::request("DELETE", "/api/keys", &shown, "")).await;
        assert_eq!(answer.status, if good { 200 } else { 401 }, "{acr} {auth_time}");
        assert_eq!(world.api.count() - before, usize::from(good));
        if !good {
            let challenge = answer.header("www-authenticate");
            assert!(challenge.starts_with("Bearer error=\"insufficient_user_authentication\""), "{challenge}");
            assert!(challenge.contains(&format!("acr_values=\"{ACR_SECOND}\"")) && challenge.contains("max_age=\"300\""), "{challenge}");
        }
        assert_eq!(world.get("/api/videos", &shown).await.status, 200, "what does not ask for it is as it was");
    }
    assert_eq!(world.refusals(), vec!["step_up_missing"; 6]);
}

// B13: what the services behind are told is the same: a second factor of just now, or none.
#[tokio::test]
async fn only_a_second_factor_of_just_now_is_told_on() {
    let world = World::new().await;
    let told = async |acr: &str, age: u64| {
        let claims = AccessClaims { acr: acr.to_owned(), auth_time: world.clock.unix_s() - age, ..world.login.claims() };
        assert_eq!(world.get("/api/videos", &[("authorization", &signed(&world, &claims))]).await.status, 200);
        let token = world.api.last().headers["txn-token"].to_str().unwrap().to_owned();
        world.views.fresh().unwrap().verifier.verify(&token, &*world.clock).unwrap().step_up
    };
    assert!(told(ACR_SECOND, 0).await && told(ACR_SECOND, 300).await);
    assert!(!told(ACR_SECOND, 301).await && !told(ACR_PASSWORD, 0).await && !told("", 0).await);
}

// B13: a page leads to the step-up that it asks for and back; what was proved ends after 300 s, whatever was answered a moment ago.
#[tokio::test]
async fn a_page_leads_to_the_proof_that_it_takes() {
    let world = World::new().await;
    world.login.token_life_s.store(3600, std::sync::atomic::Ordering::SeqCst);
    let session = world.sign_in().await;
    let led = world.get("/settings?tab=2", &[("cookie", &session)]).await;
    assert_eq!(led.status, 303);
    let query = query_of(led.location());
    assert_eq!((query["return"].as_str(), query["acr_values"].as_str(), query["max_age"].as_str()), ("/settings?tab=2", ACR_SECOND, "300"));
    let asked = query_of(world.get(led.location(), &[]).await.location());
    assert_eq!((asked["acr_values"].as_str(), asked["max_age"].as_str()), (ACR_SECOND, "300"), "login is asked for it");

    ACR_SECOND.clone_into(&mut world.login.acr.lock().unwrap());
    let (session, ended) = signed_in(&world, led.location()).await;
    assert_eq!(ended, "/settings?tab=2");
    let cookie = ("cookie", session.as_str());
    assert_eq!(world.get("/settings", &[cookie]).await.status, 200);
    assert_eq!(world.post("/settings", &[cookie, MADE_HERE], "").await.status, 200);
    let me: Value = serde_json::from_str(&world.get("/auth/me", &[cookie]).await.text).unwrap();
    assert_eq!(me["acr"], ACR_SECOND);
    world.clock.forward_s(150);
    world.push_view();
    world.clock.forward_s(150);
    assert_eq!(world.get("/settings", &[cookie]).await.status, 200, "300 s");
    world.clock.forward_s(1);
    let before = world.api.count();
    assert_eq!(world.get("/settings", &[cookie]).await.status, 303, "301 s, a second after it was let in");
    let form = world.post("/settings", &[cookie, MADE_HERE, ("accept", "text/html")], "").await;
    assert!(form.status == 401 && form.text.contains("second factor"), "a form is not sent along: {}", form.text);
    assert_eq!(world.api.count(), before);
}

// B13: only what login understands is asked of it; nobody can have a page sign in silently, or with less.
#[tokio::test]
async fn a_page_may_ask_for_more_and_for_nothing_else() {
    let world = World::new().await;
    let asked =
        query_of(world.get("/auth/login?acr_values=urn%3Aevil&max_age=-1&prompt=none&scope=root&client_id=x", &[]).await.location());
    assert!(["acr_values", "max_age", "prompt"].iter().all(|name| !asked.contains_key(*name)), "{asked:?}");
    assert!(asked["client_id"] == "edge" && !asked["scope"].contains("root"));
    let asked = query_of(world.get("/auth/login?prompt=login&max_age=60", &[]).await.location());
    assert_eq!((asked["prompt"].as_str(), asked["max_age"].as_str()), ("login", "60"));
}

// B13: who has no second factor is led to where they get one, once, and stays signed in as they were.
#[tokio::test]
async fn who_has_no_second_factor_is_led_to_where_they_get_one() {
    let world = World::new().await;
    let session = world.sign_in().await;
    let begun = world.get("/auth/login?acr_values=urn%3Apalisade%3Aacr%3Asecond-factor", &[("cookie", &session)]).await;
    let (_, state) = world.login.code_for(begun.location());
    let back = |state: &str| {
        let query = [("error", "unmet_authentication_requirements"), ("state", state), ("iss", "https://localhost:8443/oidc")];
        format!("/auth/callback?{}", url::form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish())
    };
    let both = format!("{session}; {}", begun.cookie("__Host-palisade-sign-in"));
    let answer = world.get(&back(&state), &[("cookie", &both)]).await;
    assert_eq!((answer.status, answer.location()), (303, "/oidc/factor"));
    assert_eq!(world.get("/auth/me", &[("cookie", &session)]).await.status, 200);
    assert_eq!(world.get(&back(&state), &[("cookie", &both)]).await.status, 401, "an answer counts once");
}
