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
        ("localhost", 421),
        ("localhost:1", 421),
        ("evil.example", 421),
        ("localhost.evil.example:8443", 421),
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

// A3: a host with routes of its own serves these and nothing else; tokens are the same ones, sessions are not there.
#[tokio::test]
async fn a_host_with_routes_of_its_own_serves_these_and_nothing_else() {
    let world = World::new().await;
    let bearer = format!("Bearer {}", world.login.token());
    let at = |host: &'static str| ("host", host);
    let there = at("partner.localhost:8443");
    let answer = world.get("/api/videos", &[there, ("authorization", &bearer)]).await;
    assert_eq!((answer.status, world.partner.count(), world.api.count()), (200, 1, 0), "{}", answer.text);
    assert_eq!(world.partner.last().headers["host"], "partner.localhost:8443");
    let upper = world.get("/api/videos", &[at("PARTNER.localhost:8443"), ("authorization", &bearer)]).await;
    assert_eq!((upper.status, world.partner.count()), (200, 2));
    // The same path at the main host is another service's.
    assert_eq!(world.get("/api/videos", &[("authorization", &bearer)]).await.status, 200);
    assert_eq!((world.partner.count(), world.api.count()), (2, 1));
    // Neither the other services' routes, nor our own pages, nor objects.
    for path in
        ["/api/videos/7", "/watch", "/auth/login", "/auth/me", "/oidc/.well-known/openid-configuration", "/console", "/originals/7/o"]
    {
        let answer = world.get(path, &[there, ("authorization", &bearer)]).await;
        assert_eq!((answer.status, answer.location().is_empty()), (404, true), "{path}: {}", answer.headers.len());
    }
    let session = world.sign_in().await;
    assert_eq!(world.get("/api/videos", &[("cookie", &session)]).await.status, 200, "at the main host");
    assert_eq!(world.get("/api/videos", &[there, ("cookie", &session)]).await.status, 401, "a session is of the host that it began at");
    assert_eq!(world.get("/api/videos", &[there]).await.status, 401);
    assert_eq!(world.partner.count(), 2);
    assert_eq!(world.refusals().iter().filter(|reason| *reason == "route_unknown").count(), 7);
    // Its CORS is its own too.
    let asks = [there, ("origin", "https://app.example"), ("access-control-request-method", "GET")];
    let preflight = world.send(request("OPTIONS", "/api/videos", &asks, "")).await;
    assert_eq!((preflight.status, preflight.header("access-control-allow-origin")), (204, "https://app.example"));
    let asks = [("origin", "https://app.example"), ("access-control-request-method", "GET")];
    assert_eq!(world.send(request("OPTIONS", "/api/videos", &asks, "")).await.status, 405);
}

// A3: of equally literal routes that whose field the request has, exactly; a field that is repeated could be read in two ways.
#[tokio::test]
async fn a_field_chooses_among_equally_literal_routes() {
    let world = World::new().await;
    let bearer = format!("Bearer {}", world.login.token());
    let bearer = ("authorization", bearer.as_str());
    let mut expected = (0, 0);
    for (fields, path, to_next) in [
        (vec![], "/api/videos", false),
        (vec![("x-release", "next")], "/api/videos", true),
        (vec![("X-Release", "next")], "/api/videos", true),
        (vec![("x-release", "Next")], "/api/videos", false),
        (vec![("x-release", "next, next")], "/api/videos", false),
        (vec![("x-release", "")], "/api/videos", false),
        // What the other service does not have is this one's, with the field too.
        (vec![("x-release", "next")], "/api/videos/7", false),
    ] {
        let answer = world.get(path, &[&fields[..], &[bearer]].concat()).await;
        assert_eq!(answer.status, 200, "{fields:?}: {}", answer.text);
        if to_next {
            expected.1 += 1
        } else {
            expected.0 += 1
        }
        assert_eq!((world.api.count(), world.next.count()), expected, "{fields:?} {path}");
    }
    let twice = world.get("/api/videos", &[("x-release", "next"), ("x-release", "next"), bearer]).await;
    assert_eq!(twice.status, 400);
    // At a host of its own the field is none of anybody's.
    let there = world.get("/api/videos", &[("host", "partner.localhost:8443"), ("x-release", "next"), bearer]).await;
    assert_eq!((there.status, world.partner.count()), (200, 1));
    let posted = world.post("/api/videos", &[("x-release", "next"), bearer], "x").await;
    assert_eq!((posted.status, world.next.count()), (200, expected.1), "the other has no POST");
}
