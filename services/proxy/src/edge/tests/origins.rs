//! A14: other origins: the headers that every answer has, forged requests, and pages of other origins that a route lets in.

use super::world::{ORIGIN, World};

const APP: &str = "https://app.example";

fn asking<'a>(origin: &'a str, method: &'a str) -> [(&'a str, &'a str); 3] {
    [("origin", origin), ("access-control-request-method", method), ("sec-fetch-site", "cross-site")]
}

// A14
#[tokio::test]
async fn a_preflight_is_answered_by_the_edge_for_origins_that_the_route_names() {
    let world = World::new().await;
    let preflight = async |path: &str, headers: &[(&str, &str)]| world.send(super::world::request("OPTIONS", path, headers, "")).await;
    let answer = preflight("/api/reports", &asking(APP, "POST")).await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (204, APP));
    assert_eq!(answer.header("access-control-allow-methods"), "GET, POST");
    assert!(answer.header("access-control-allow-headers").contains("authorization"));
    assert!(answer.header("vary").contains("origin"));
    assert!(answer.headers.get("access-control-allow-credentials").is_none(), "cookies never count there");
    for (path, headers) in [
        ("/api/reports", asking("https://evil.example", "GET")),
        ("/api/reports", asking("https://app.example.evil.example", "GET")),
        ("/api/reports", asking("https://app.example:444", "GET")),
        ("/api/reports", asking("http://app.example", "GET")),
        ("/api/reports", asking("null", "GET")),
        ("/api/reports", asking("*", "GET")),
        ("/api/reports", asking(APP, "DELETE")),
        ("/api/reports", asking(APP, "get")),
        ("/api/videos", asking(APP, "GET")),
        ("/oidc/token", asking(APP, "POST")),
        ("/nowhere", asking(APP, "GET")),
    ] {
        let answer = preflight(path, &headers).await;
        assert!(matches!(answer.status, 404 | 405), "{path} {headers:?}: {}", answer.status);
        assert!(answer.headers.keys().all(|name| !name.as_str().starts_with("access-control")), "{path} {headers:?}");
    }
    let twice =
        preflight("/api/reports", &[("origin", APP), ("origin", "https://evil.example"), ("access-control-request-method", "GET")]).await;
    assert_eq!(twice.status, 405);
    assert_eq!(world.api.count(), 0, "no preflight goes further");
    assert_eq!(world.refusals().len(), 12);
}

// A14
#[tokio::test]
async fn an_answer_is_readable_only_for_origins_that_the_route_names() {
    let world = World::new().await;
    world.api.answers(|| {
        let mut answer = contract::body::with_type(http::StatusCode::OK, "text/plain", "fine");
        // A service has no say in it.
        answer.headers_mut().insert("access-control-allow-origin", "*".parse().unwrap());
        answer.headers_mut().insert("access-control-allow-credentials", "true".parse().unwrap());
        Ok(answer)
    });
    let bearer = format!("Bearer {}", world.login.token());
    let get = async |path: &str, origin: &str| {
        // The route has a rate of its own.
        world.clock.forward_s(1);
        world.get(path, &[("authorization", &bearer), ("origin", origin), ("sec-fetch-site", "cross-site")]).await
    };
    let answer = get("/api/reports", APP).await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, APP));
    assert!(answer.header("vary").contains("origin") && answer.header("access-control-expose-headers").contains("retry-after"));
    assert!(answer.headers.get("access-control-allow-credentials").is_none());
    for (path, origin) in
        [("/api/reports", "https://evil.example"), ("/api/reports", "null"), ("/api/videos", APP), ("/api/reports", ORIGIN)]
    {
        let answer = get(path, origin).await;
        assert_eq!(answer.status, 200);
        assert!(answer.headers.keys().all(|name| !name.as_str().starts_with("access-control")), "{path} {origin}");
        assert_eq!(answer.header("vary").contains("origin"), path == "/api/reports", "caches are told where it matters");
    }
}

// A14: with a cookie, what changes something must come from a page of this origin, also where the route is open to another.
#[tokio::test]
async fn a_cookie_counts_for_no_other_origin() {
    let world = World::new().await;
    let cookie = world.sign_in().await;
    let post = async |headers: &[(&str, &str)]| {
        let headers = [&[("cookie", cookie.as_str())], headers].concat();
        // The route has a rate of its own.
        world.clock.forward_s(1);
        world.post("/api/reports", &headers, "x").await.status
    };
    assert_eq!(post(&[("sec-fetch-site", "same-origin"), ("origin", ORIGIN)]).await, 200);
    let before = world.api.count();
    for headers in [
        &[("sec-fetch-site", "cross-site"), ("origin", APP)][..],
        &[("sec-fetch-site", "same-site"), ("origin", "https://localhost:3000")],
        &[("sec-fetch-site", "none")],
        &[("origin", APP)],
        &[("origin", "null")],
        &[("origin", ORIGIN), ("origin", APP)],
        &[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")],
        &[],
    ] {
        assert_eq!(post(headers).await, 403, "{headers:?}");
    }
    assert_eq!(world.api.count(), before);
    assert_eq!(world.refusals(), ["cross_site"; 8]);
}

// A14: the checklist, on answers of every kind.
#[tokio::test]
async fn every_answer_has_the_headers_of_the_checklist() {
    let world = World::new().await;
    let bearer = format!("Bearer {}", world.login.token());
    for (what, answer) in [
        ("a service's answer", world.get("/api/videos", &[("authorization", &bearer)]).await),
        ("a refusal", world.get("/api/videos", &[]).await),
        ("a page of a refusal", world.get("/console", &[("accept", "text/html"), ("authorization", &bearer)]).await),
        ("an unknown path", world.get("/nowhere", &[]).await),
        ("an ambiguous path", world.get("/a//b", &[]).await),
        ("a redirect", world.get("/watch", &[("accept", "text/html")]).await),
        ("a page of login's", world.get("/oidc/sign-in", &[]).await),
        ("a preflight", world.send(super::world::request("OPTIONS", "/api/reports", &asking(APP, "GET"), "")).await),
    ] {
        for (name, value) in [
            ("strict-transport-security", "max-age=31536000"),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "same-origin"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
            ("content-security-policy", "frame-ancestors 'none'"),
            ("content-security-policy", "default-src"),
            ("permissions-policy", "camera=()"),
            ("cache-control", "no-store"),
        ] {
            assert!(answer.header(name).contains(value), "{what}: {name} is {:?}", answer.header(name));
        }
        assert!(answer.headers.get("server").is_none() && answer.headers.get("x-powered-by").is_none(), "{what}");
    }
}

// A14: no script reads them, no other site sends them, no plain connection carries them, no other host sets them.
#[tokio::test]
async fn cookies_are_hardened() {
    let world = World::new().await;
    let begun = world.get("/auth/login", &[]).await;
    let cookie = world.sign_in().await;
    let out = world.post("/auth/logout", &[("cookie", &cookie), ("sec-fetch-site", "same-origin")], "").await;
    let set = [begun.set_cookies(), out.set_cookies()].concat();
    assert!(set.len() >= 2, "{set:?}");
    for cookie in set {
        assert!(cookie.starts_with("__Host-"), "{cookie}");
        for attribute in ["; Path=/", "; Secure", "; HttpOnly", "; SameSite=Lax", "; Max-Age="] {
            assert!(cookie.contains(attribute), "{cookie}");
        }
        assert!(!cookie.to_ascii_lowercase().contains("domain="), "{cookie}");
    }
}
