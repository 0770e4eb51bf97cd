//! The three advisories of 2026 against a proxy framework of our kind, each as a test of what it was about.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{HIDDEN, for_tokens};
use crate::edge::tests::tls::connect;

async fn said(served: &super::Served, text: &str) -> String {
    let mut stream = connect(served, &served.root, &rustls::version::TLS13, b"http/1.1").await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // Some ends are abrupt by design.
    let _end = tokio::time::timeout(super::PATIENCE, stream.read_to_end(&mut answer)).await.expect("the connection ends");
    String::from_utf8_lossy(&answer).into_owned()
}

// A4, RUSTSEC-2026-0033: bytes after a request with `Upgrade` went to the backend unread, before it had agreed with a 101.
#[tokio::test]
async fn rustsec_2026_0033_bytes_behind_an_upgrade_are_a_request_of_their_own() {
    let served = for_tokens().await;
    let host = format!("Host: localhost:{}\r\n", served.address.port());
    let bearer = format!("Authorization: Bearer {}\r\n", served.world.login.token());
    for (protocol, length) in [("websocket", ""), ("h2c", ""), ("anything", ""), ("h2c", "Content-Length: 0\r\n"), ("TLS/1.0", "")] {
        let asking = format!("GET /api/videos HTTP/1.1\r\n{host}{bearer}{length}Connection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n");
        // The hidden one has no credential: whoever passes it on has not read it.
        let text = format!("{asking}GET {HIDDEN} HTTP/1.1\r\n{host}Connection: close\r\n\r\n");
        let answer = said(&served, &text).await;
        assert!(!answer.contains(" 101 "), "{protocol}: {answer}");
        let seen = served.world.api.seen.lock().unwrap();
        assert!(seen.iter().all(|s| s.uri != HIDDEN && s.bytes == 0), "{protocol}: {seen:?}");
        assert!(seen.iter().all(|s| !s.headers.contains_key("upgrade")), "{protocol}");
    }
    served.stop.cancel();
}

// A4, RUSTSEC-2026-0034: bodies of HTTP/1.0 that last until the connection ends, and `Transfer-Encoding` read by less than its last coding.
#[tokio::test]
async fn rustsec_2026_0034_a_request_of_http_1_0_has_the_body_that_its_length_says() {
    let served = for_tokens().await;
    let own = format!("Host: localhost:{}\r\nAuthorization: Bearer {}\r\n", served.address.port(), served.world.login.token());
    let hidden = format!("GET {HIDDEN} HTTP/1.0\r\n{own}\r\n");
    // No length: no body. What follows is not its body, and without keep-alive nothing follows at all.
    let answer = said(&served, &format!("POST /api/videos HTTP/1.0\r\n{own}\r\n{hidden}")).await;
    assert!(answer.starts_with("HTTP/1.0 200") || answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!((served.world.api.count(), served.world.api.last().bytes), (1, 0));
    for coding in ["chunked", "identity, chunked", "chunked, chunked", "gzip, chunked", "chunked, identity"] {
        for version in ["1.0", "1.1"] {
            if (coding, version) == ("chunked", "1.1") {
                continue;
            }
            let text = format!("POST /api/videos HTTP/{version}\r\n{own}Transfer-Encoding: {coding}\r\n\r\n0\r\n\r\n{hidden}");
            let answer = said(&served, &text).await;
            assert!(
                answer.is_empty() || answer.starts_with("HTTP/1.1 400") || answer.starts_with("HTTP/1.0 400"),
                "{version} {coding}: {answer}"
            );
        }
    }
    assert_eq!(served.world.api.count(), 1);
    served.stop.cancel();
}

// A4, RUSTSEC-2026-0035: answers kept under the path alone were given to other hosts and other people. The edge keeps no answer: each
// request makes its own, and says so to caches behind it wherever a person's authority was used.
#[tokio::test]
async fn rustsec_2026_0035_no_answer_is_given_to_another_request() {
    let served = for_tokens().await;
    let origin = format!("localhost:{}", served.address.port());
    let mut count = 0;
    served.world.api.answers(move || {
        count += 1;
        let mut answer = contract::body::with_type(http::StatusCode::OK, "text/plain", format!("answer {count}"));
        answer.headers_mut().insert("cache-control", "public, max-age=600".parse().unwrap());
        Ok(answer)
    });
    let token = served.world.login.token();
    let ask = |host: &str, bearer: &str| format!("GET /api/videos HTTP/1.1\r\nHost: {host}\r\n{bearer}Connection: close\r\n\r\n");
    let bearer = format!("Authorization: Bearer {token}\r\n");
    let first = said(&served, &ask(&origin, &bearer)).await;
    let second = said(&served, &ask(&origin, &bearer)).await;
    assert!(first.ends_with("answer 1") && second.ends_with("answer 2"), "{first}\n{second}");
    // Neither somebody else, nor another host, nor another spelling of the path gets what was made for the first.
    for other in [ask(&origin, ""), ask("evil.example", &bearer), ask(&origin, &bearer).replace("videos ", "%76ideos ")] {
        let answer = said(&served, &other).await;
        assert!(!answer.starts_with("HTTP/1.1 200") && !answer.contains("answer "), "{other}: {answer}");
    }
    assert_eq!(served.world.api.count(), 2);
    served.stop.cancel();
}
