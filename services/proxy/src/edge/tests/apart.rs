//! G12: what people have stored is at an origin of its own.

use super::world::{Answer, Settings, World, request};

const CONTENT: &str = "content.localhost:8443";
const MAIN: &str = "https://localhost:8443";
const SIGNED: &str = "/originals/7/original?X-Amz-Signature=s&X-Amz-Algorithm=a";

async fn world() -> World {
    World::with(Settings { content: Some("content.localhost"), ..Settings::default() }).await
}

async fn at_content(world: &World, method: &str, path: &str, more: &[(&str, &str)]) -> Answer {
    world.send(request(method, path, &[&[("host", CONTENT)], more].concat(), "")).await
}

#[tokio::test]
async fn presigned_urls_are_at_their_own_host_and_nothing_else_is() {
    let world = world().await;
    let answer = at_content(&world, "GET", SIGNED, &[]).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(world.objects.last().headers["palisade-public-origin"], "https://content.localhost:8443");
    assert_eq!(at_content(&world, "GET", "/originals/7/original", &[]).await.status, 401, "without a signature");
    for path in ["/", "/auth/login", "/auth/me", "/oidc/sign-in", "/console", "/api/videos", "/watch/7", "/originals", "/nobucket/7"] {
        let answer = at_content(&world, "GET", path, &[]).await;
        assert_eq!((answer.status, answer.location()), (404, ""), "{path}");
    }
    assert_eq!(at_content(&world, "DELETE", SIGNED, &[]).await.status, 405);
    // And nothing of it at the host of the pages.
    assert_eq!(world.get(SIGNED, &[]).await.status, 404);
    assert_eq!(world.get("/auth/login", &[]).await.status, 303, "people sign in where they did");
    assert_eq!(world.objects.count(), 1);
    // Without a host of its own it is where it was.
    let one = World::new().await;
    assert_eq!(one.get(SIGNED, &[]).await.status, 200);
}

#[tokio::test]
async fn no_cookie_counts_there_or_comes_from_there() {
    let world = world().await;
    let session = world.sign_in().await;
    let bearer = format!("Bearer {}", world.login.token());
    for credential in [("cookie", session.as_str()), ("authorization", bearer.as_str()), ("cookie", "__Host-palisade=none-of-ours")] {
        let answer = at_content(&world, "GET", SIGNED, &[credential]).await;
        assert_eq!(answer.status, 200, "{credential:?}: the URL counts, whatever comes with it");
        assert!(answer.set_cookies().is_empty(), "{:?}", answer.headers);
        let seen = world.objects.last();
        assert!(!seen.headers.contains_key("cookie") && !seen.headers.contains_key("authorization"));
        assert_eq!(at_content(&world, "GET", "/auth/me", &[credential]).await.status, 404);
    }
}

#[tokio::test]
async fn only_our_own_pages_may_read_it_or_send_there() {
    let world = world().await;
    let asks = |origin: &'static str, method: &'static str| [("origin", origin), ("access-control-request-method", method)];
    for method in ["GET", "HEAD", "PUT"] {
        let answer = at_content(&world, "OPTIONS", SIGNED, &asks(MAIN, method)).await;
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (204, MAIN), "{method}");
        assert_eq!(answer.header("access-control-allow-methods"), "GET, HEAD, PUT");
        assert_eq!(answer.header("access-control-allow-credentials"), "");
    }
    let strangers = ["https://evil.example", "null", "https://content.localhost:8443", "http://localhost:8443", "https://localhost"];
    for origin in strangers {
        assert_eq!(at_content(&world, "OPTIONS", SIGNED, &asks(origin, "PUT")).await.status, 405, "{origin}");
        let answer = at_content(&world, "GET", SIGNED, &[("origin", origin)]).await;
        assert_eq!((answer.header("access-control-allow-origin"), answer.header("vary")), ("", "origin"), "{origin}");
    }
    for (method, path) in [("DELETE", SIGNED), ("POST", SIGNED), ("GET", "/api/videos"), ("GET", "/originals")] {
        assert_ne!(at_content(&world, "OPTIONS", path, &asks(MAIN, method)).await.status, 204, "{method} {path}");
    }
    let answer = at_content(&world, "GET", SIGNED, &[("origin", MAIN)]).await;
    assert_eq!(answer.header("access-control-allow-origin"), MAIN);
    assert_eq!(answer.header("cross-origin-resource-policy"), "cross-origin", "our pages show it");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
}

#[tokio::test]
async fn pages_may_load_pictures_media_and_data_from_there_and_no_script() {
    let world = world().await;
    let session = world.sign_in().await;
    let page = world.get("/", &[("cookie", &session)]).await;
    let policies: Vec<&str> = page.headers.get_all("content-security-policy").iter().map(|v| v.to_str().unwrap()).collect();
    let ours = policies.iter().find(|policy| policy.contains("content.localhost")).expect("our own policy");
    for part in ["default-src 'self';", "connect-src 'self' https://content.localhost:8443;", "blob: https://content.localhost:8443;"] {
        assert!(ours.contains(part), "{part}: {ours}");
    }
    assert!(!ours.contains("script-src") && !ours.contains("frame-src"), "they stay with default-src: {ours}");
    assert_eq!(page.header("cross-origin-resource-policy"), "same-origin");
    let alone = World::new().await.get("/nowhere", &[]).await;
    assert!(!alone.header("content-security-policy").contains("content"), "{:?}", alone.headers);
}
