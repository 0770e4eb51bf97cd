//! Signing in and out, cookies, and requests that other sites start.

use std::sync::atomic::Ordering;

use serde_json::Value;

use super::world::{World, callback, query_of};
use crate::edge::sign_in::is_local;

#[tokio::test]
async fn a_person_signs_in_is_known_and_signs_out() {
    let world = World::new().await;
    let session = world.sign_in().await;
    let me = world.get("/auth/me", &[("cookie", &session)]).await;
    let said: Value = serde_json::from_str(&me.text).unwrap();
    assert_eq!((me.status, said["user"].as_str(), said["name"].as_str()), (200, Some("u-anna"), Some("Anna")));
    assert_eq!(world.get("/api/videos", &[("cookie", &session)]).await.status, 200);
    let out = world.post("/auth/logout", &[("cookie", &session), ("origin", "https://localhost:8443")], "").await;
    assert_eq!(out.status, 303);
    let query = query_of(out.location());
    assert!(out.location().starts_with("/oidc/end-session?"), "{}", out.location());
    assert_eq!(query["post_logout_redirect_uri"], "https://localhost:8443/");
    assert!(out.cookie("__Host-palisade").ends_with('='));
    assert!(world.login.refresh.lock().unwrap().is_none(), "the refresh token was revoked");
    let after = world.get("/api/videos", &[("cookie", &session)]).await;
    assert_eq!((after.status, world.refusals()), (401, vec!["session_ended".to_owned()]));
}

// A14: cookie hardening.
#[tokio::test]
async fn cookies_are_bound_to_this_host_and_hidden_from_scripts() {
    let world = World::new().await;
    let begun = world.get("/auth/login", &[]).await;
    let (code, state) = world.login.code_for(begun.location());
    let done = world.get(&callback(&code, &state), &[("cookie", &begun.cookie("__Host-palisade-sign-in"))]).await;
    let set = [begun.set_cookies(), done.set_cookies()].concat();
    assert_eq!(set.len(), 3, "{set:?}");
    for cookie in set {
        for attribute in ["__Host-", "; Path=/", "; Secure", "; HttpOnly", "; SameSite=Lax", "; Max-Age="] {
            assert!(cookie.contains(attribute), "{attribute} in {cookie}");
        }
        assert!(!cookie.to_ascii_lowercase().contains("domain"));
    }
    // The database holds the digest, never the id, and no token in the clear.
    let session = done.cookie("__Host-palisade");
    let refresh = world.login.refresh.lock().unwrap().clone().unwrap();
    for file in std::fs::read_dir(world.folder.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains(session.split_once('=').unwrap().1) && !text.contains(&refresh) && !text.contains("eyJ"));
    }
}

// No session fixation: whatever id the browser had, sign-in makes a new one and the old one is dead.
#[tokio::test]
async fn each_sign_in_begins_a_new_session_and_ends_the_old() {
    let world = World::new().await;
    let first = world.sign_in().await;
    let begun = world.get("/auth/login", &[("cookie", &first)]).await;
    let (code, state) = world.login.code_for(begun.location());
    let both = format!("{first}; {}", begun.cookie("__Host-palisade-sign-in"));
    let second = world.get(&callback(&code, &state), &[("cookie", &both)]).await.cookie("__Host-palisade");
    assert_ne!(first, second);
    assert_eq!(world.get("/auth/me", &[("cookie", &first)]).await.status, 401);
    assert_eq!(world.get("/auth/me", &[("cookie", &second)]).await.status, 200);
    let planted = "__Host-palisade=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    assert_eq!(world.get("/auth/me", &[("cookie", planted)]).await.status, 401);
}

// B2, B3 at the client: state, nonce, issuer, browser and code are all checked, and the verifier is sent.
#[tokio::test]
async fn answers_that_this_browser_did_not_ask_for_are_refused() {
    let world = World::new().await;
    let begin = async || {
        let begun = world.get("/auth/login?return=/watch", &[]).await;
        let (code, state) = world.login.code_for(begun.location());
        (begun.cookie("__Host-palisade-sign-in"), code, state)
    };
    let (other_browser, ..) = begin().await;
    let (browser, code, state) = begin().await;
    let good = callback(&code, &state);
    let refused = async |name: &str, target: &str, cookie: &str| {
        let answer = world.get(target, &[("cookie", cookie)]).await;
        assert_eq!(answer.status, 401, "{name}: {}", answer.text);
        assert!(answer.set_cookies().iter().all(|c| !c.starts_with("__Host-palisade=")), "{name}");
    };
    refused("another browser", &good, &other_browser).await;
    refused("no browser", &good, "a=b").await;
    refused("another state", &callback(&code, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"), &browser).await;
    refused("a malformed state", &callback(&code, "x"), &browser).await;
    refused("two states", &format!("{good}&state={state}"), &browser).await;
    // Each of these uses its sign-in up, as it should.
    let (browser, code, state) = begin().await;
    refused("another issuer", &callback(&code, &state).replace("%2Foidc", "%2Fother"), &browser).await;
    let (browser, _, state) = begin().await;
    refused("a code that login does not know", &callback("stolen", &state), &browser).await;
    let (browser, code, state) = begin().await;
    world.login.codes.lock().unwrap().get_mut(&code).unwrap().1 = "another nonce".to_owned();
    refused("another nonce", &callback(&code, &state), &browser).await;
    let (browser, code, state) = begin().await;
    world.login.codes.lock().unwrap().get_mut(&code).unwrap().0 = "another challenge".to_owned();
    refused("another PKCE challenge", &callback(&code, &state), &browser).await;
    assert_eq!(world.login.forms.lock().unwrap().last().unwrap()["code_verifier"].len(), 43);
    // And the good one works once.
    let (browser, code, state) = begin().await;
    assert_eq!(world.get(&callback(&code, &state), &[("cookie", &browser)]).await.status, 303);
    refused("a replay", &callback(&code, &state), &browser).await;
    let (browser, code, state) = begin().await;
    world.clock.forward_s(0);
    world.login.codes.lock().unwrap().insert(code.clone(), (String::new(), String::new()));
    world.clock.forward_s(299);
    world.push_view();
    world.clock.forward_s(299);
    world.push_view();
    world.clock.forward_s(10);
    refused("too late", &callback(&code, &state), &browser).await;
}

// No open redirect.
#[tokio::test]
async fn only_local_paths_are_returned_to() {
    for good in ["/", "/watch/7?x=1&y=%2F", "/a-b_c.~"] {
        assert!(is_local(good), "{good}");
    }
    for bad in [
        "",
        "//evil.example",
        "/\\evil.example",
        "\\/evil.example",
        "https://evil.example/",
        "evil",
        "/\t/evil.example",
        "/a\r\nset-cookie: x",
        "/ a",
        "/é",
        "/auth/login?return=/",
        "javascript:alert(1)",
        "/a\\b",
    ] {
        assert!(!is_local(bad), "{bad:?}");
    }
    let world = World::new().await;
    let begun = world.get("/auth/login?return=https%3A%2F%2Fevil.example%2F", &[]).await;
    let (code, state) = world.login.code_for(begun.location());
    let done = world.get(&callback(&code, &state), &[("cookie", &begun.cookie("__Host-palisade-sign-in"))]).await;
    assert_eq!(done.location(), "/");
}

#[tokio::test]
async fn pages_send_people_to_sign_in_and_interfaces_answer_401() {
    let world = World::new().await;
    let page = world.get("/watch/7?t=1", &[]).await;
    assert_eq!((page.status, page.location()), (303, "/auth/login?return=%2Fwatch%2F7%3Ft%3D1"));
    let console = world.get("/console", &[]).await;
    assert_eq!((console.status, console.location()), (303, "/auth/login?return=%2Fconsole"));
    let interface = world.get("/api/videos", &[("accept", "text/html")]).await;
    assert_eq!((interface.status, interface.header("www-authenticate")), (401, "Bearer"));
    assert_eq!(interface.text, r#"{"error":"refused","reason":"credential_missing"}"#);
    assert_eq!(world.refusals(), ["credential_missing"; 3]);
    assert_eq!(world.api.count(), 0);
}

// A14: CSRF.
#[tokio::test]
async fn other_sites_cannot_change_anything_with_a_persons_cookie() {
    let world = World::new().await;
    let session = world.sign_in().await;
    let cookie = ("cookie", session.as_str());
    for (name, headers, status) in [
        ("our page", vec![("sec-fetch-site", "same-origin")], 200),
        ("our page, older browser", vec![("origin", "https://localhost:8443")], 200),
        ("another site", vec![("sec-fetch-site", "cross-site")], 403),
        ("another site that says our origin too", vec![("sec-fetch-site", "cross-site"), ("origin", "https://localhost:8443")], 403),
        ("a sibling", vec![("sec-fetch-site", "same-site")], 403),
        ("two answers", vec![("sec-fetch-site", "same-origin"), ("sec-fetch-site", "same-origin")], 403),
        ("another origin", vec![("origin", "https://evil.example")], 403),
        ("our host, another port", vec![("origin", "https://localhost")], 403),
        ("our host without TLS", vec![("origin", "http://localhost:8443")], 403),
        ("an opaque origin", vec![("origin", "null")], 403),
        ("nothing said", vec![], 403),
    ] {
        let headers: Vec<_> = headers.into_iter().chain([cookie]).collect();
        let answer = world.post("/api/videos", &headers, "{}").await;
        assert_eq!(answer.status, status, "{name}: {}", answer.text);
    }
    assert_eq!(world.api.count(), 2);
    // A program with a token is no browser: nothing is added by itself.
    let bearer = format!("Bearer {}", world.login.token());
    assert_eq!(world.post("/api/videos", &[("authorization", &bearer)], "{}").await.status, 200);
    // Nor can another site sign somebody out, or in as somebody else.
    assert_eq!(world.get("/auth/logout", &[cookie, ("sec-fetch-site", "cross-site")]).await.status, 403);
    assert_eq!(world.get("/auth/logout", &[cookie]).await.status, 403);
    assert_eq!(world.post("/oidc/sign-in", &[("sec-fetch-site", "cross-site")], "name=eve").await.status, 403);
    assert!(world.login.passed_on.lock().unwrap().is_empty());
    assert_eq!(world.get("/auth/me", &[cookie]).await.status, 200);
}

// B6 at the client: one renewal however many requests wait for it.
#[tokio::test]
async fn a_token_near_its_end_is_renewed_once_for_all_waiting_requests() {
    let world = World::new().await;
    let session = world.sign_in().await;
    world.clock.forward_s(280);
    let request = async || world.get("/api/videos", &[("cookie", &session)]).await;
    let (a, b, c, d) = tokio::join!(request(), request(), request(), request());
    assert_eq!([a.status, b.status, c.status, d.status], [200; 4]);
    assert_eq!(world.login.refreshes.load(Ordering::SeqCst), 1);
    world.clock.forward_s(280);
    world.push_view();
    assert_eq!(request().await.status, 200, "the rotated token was kept");
    assert_eq!(world.login.refreshes.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_renewal_goes_on_when_the_browser_has_gone() {
    let world = World::new().await;
    let session = world.sign_in().await;
    world.clock.forward_s(280);
    let gone = tokio::time::timeout(std::time::Duration::from_millis(5), world.get("/api/videos", &[("cookie", &session)])).await;
    assert!(gone.is_err(), "the request was broken off in the middle of the renewal");
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    assert_eq!(world.get("/api/videos", &[("cookie", &session)]).await.status, 200);
    assert_eq!(world.login.refreshes.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_session_ends_when_login_refuses_it_or_nobody_uses_it() {
    let world = World::new().await;
    let revoked = world.sign_in().await;
    *world.login.refresh.lock().unwrap() = None;
    world.clock.forward_s(280);
    let answer = world.get("/api/videos", &[("cookie", &revoked)]).await;
    assert_eq!(answer.status, 401);
    assert!(answer.cookie("__Host-palisade").ends_with('='));
    let idle = world.sign_in().await;
    world.clock.forward_s(1800);
    world.push_view();
    assert_eq!(world.get("/auth/me", &[("cookie", &idle)]).await.status, 401);
    assert_eq!(world.refusals(), ["session_ended"; 2]);
}
