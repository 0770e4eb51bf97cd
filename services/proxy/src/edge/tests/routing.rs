//! Where requests go, and what cannot be read in one way only.

use super::world::{World, request};

// A3: overlapping templates: the most literal wins.
#[tokio::test]
async fn the_most_literal_route_wins() {
    let world = World::new().await;
    let bearer = format!("Bearer {}", world.login.token());
    for (path, template) in [
        ("/", "GET /"),
        ("/api/videos", "GET /api/videos"),
        ("/api/videos/7", "GET /api/videos/{id}"),
        ("/watch/7", "GET /watch/{id}"),
        ("/watch/7/8", "GET /watch/{*page}"),
    ] {
        let answer = world.get(path, &[("authorization", &bearer)]).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        assert_eq!(world.api.last().uri, path);
        let kept = world.sink.kept.audit.lock().unwrap();
        assert_eq!(kept.last().unwrap().fields["resource"], format!("api:{template}"), "{path}");
    }
}

// A6: unknown is 404, another method 405 with Allow; neither reaches anybody.
#[tokio::test]
async fn what_is_not_listed_is_never_passed_on() {
    let world = World::new().await;
    let bearer = format!("Bearer {}", world.login.token());
    for (method, path, status, allow) in [
        ("GET", "/nowhere/at/all", 404, ""),
        ("GET", "/api", 404, ""),
        ("POST", "/watch/7", 405, "GET"),
        ("PUT", "/api/videos", 405, "GET, POST"),
        ("OPTIONS", "/api/videos", 405, "GET, POST"),
        ("GET", "/auth/other", 404, ""),
        ("PUT", "/auth/login", 405, "GET"),
        ("GET", "/auth", 404, ""),
        ("GET", "/oidc/users", 404, ""),
        ("POST", "/oidc/users", 404, ""),
        ("GET", "/oidc", 404, ""),
        ("DELETE", "/oidc/token", 405, "POST"),
        ("POST", "/console", 405, "GET"),
        ("GET", "/originals", 404, ""),
        ("GET", "/originals/", 404, ""),
        ("DELETE", "/originals/7/original?X-Amz-Signature=s&X-Amz-Algorithm=a", 405, "GET, HEAD, PUT"),
    ] {
        let answer = world.send(request(method, path, &[("authorization", &bearer)], "")).await;
        assert_eq!((answer.status, answer.header("allow")), (status, allow), "{method} {path}: {}", answer.text);
    }
    assert_eq!(world.api.count() + world.objects.count() + world.evidence.count(), 0);
    assert!(world.login.passed_on.lock().unwrap().is_empty());
    assert_eq!(world.refusals().len(), 16, "each was recorded");
}

// A4: a path or head that two parsers could read in two ways is refused before it is routed.
#[tokio::test]
async fn ambiguous_requests_are_refused() {
    let world = World::new().await;
    let bearer = format!("Bearer {}", world.login.token());
    for path in [
        "/api//videos",
        "/api/%2e%2e/videos",
        "/api/./videos",
        "/api/videos/..%2f7",
        "/api/videos/a%5cb",
        "/api/videos/a%00",
        "/api/videos/%zz",
        "/api/videos/a%2fb",
    ] {
        let answer = world.get(path, &[("authorization", &bearer)]).await;
        assert_eq!(answer.status, 400, "{path}: {}", answer.text);
    }
    let session = world.sign_in().await;
    for headers in [
        vec![("authorization", "Bearer a"), ("authorization", "Bearer b")],
        vec![("authorization", bearer.as_str()), ("cookie", session.as_str())],
        vec![("cookie", "__Host-palisade=a; __Host-palisade=b")],
        vec![("host", "localhost:8443"), ("host", "localhost:8443")],
        vec![("host", "user@localhost:8443")],
        vec![("content-length", "1"), ("transfer-encoding", "chunked")],
    ] {
        let answer = world.get("/api/videos", &headers).await;
        assert_eq!(answer.status, 400, "{headers:?}: {}", answer.text);
    }
    assert_eq!(world.api.count(), 0);
}

// A3: only our own hosts.
#[tokio::test]
async fn foreign_hosts_are_not_served() {
    let world = World::new().await;
    let bearer = format!("Bearer {}", world.login.token());
    for (host, status) in [
        ("localhost:8443", 200),
        ("LOCALHOST:8443", 200),
        ("localhost", 404),
        ("localhost:1", 404),
        ("evil.example", 404),
        ("localhost.evil.example:8443", 404),
    ] {
        let answer = world.get("/api/videos", &[("host", host), ("authorization", &bearer)]).await;
        assert_eq!(answer.status, status, "{host}");
    }
    assert_eq!(world.api.last().headers["host"], "localhost:8443");
}

// Tokens and sessions are for one origin; pages at our other hosts lead there, and nothing else is served at them.
#[tokio::test]
async fn other_hosts_of_ours_lead_to_the_main_one() {
    let world = World::new().await;
    let there = [("host", "127.0.0.1:8443")];
    let page = world.get("/watch/7?t=1", &there).await;
    assert_eq!((page.status, page.location()), (303, "https://localhost:8443/watch/7?t=1"));
    let begun = world.get("/auth/login?return=%2F", &there).await;
    assert_eq!((begun.location(), begun.set_cookies().len()), ("https://localhost:8443/auth/login?return=%2F", 0));
    let bearer = format!("Bearer {}", world.login.token());
    assert_eq!(world.get("/api/videos", &[there[0], ("authorization", &bearer)]).await.status, 404);
    assert_eq!(world.api.count(), 0);
}
