//! WebSockets at the public socket: over HTTP/1.1 and HTTP/2, from our own pages and from others'.

use std::time::Duration;

use contract::body;
use http::{Method, Request};
use hyper::ext::Protocol;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::tls::{Served, connect, served_behind};
use super::world::{ORIGIN, Settings};
use crate::tests::sockets::{field, frame, head, say};

const TLS: &rustls::SupportedProtocolVersion = &rustls::version::TLS13;
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// The edge at its usual origin, whatever port it listens at.
async fn public() -> Served {
    served_behind(Settings::default()).await
}

/// Opens over HTTP/1.1 with these headers; the answer's head, and the connection.
async fn open(served: &Served, path: &str, headers: &[(&str, &str)]) -> (String, TlsStream<TcpStream>) {
    let mut stream = connect(served, &served.root, TLS, b"http/1.1").await.unwrap();
    let mut asked = format!("GET {path} HTTP/1.1\r\nHost: localhost:8443\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n");
    for (name, value) in headers {
        asked.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{asked}\r\n").as_bytes()).await.unwrap();
    let answer = head(&mut stream).await;
    (answer, stream)
}

fn status(head: &str) -> u16 {
    head.split(' ').nth(1).unwrap().parse().unwrap()
}

// A18: opened over HTTP/1.1, said back, closed; the service gets our token and none of the person's.
#[tokio::test]
async fn a_websocket_over_http1_reaches_the_service_and_comes_back() {
    let served = public().await;
    let cookie = served.world.sign_in().await;
    let headers = [
        ("Cookie", cookie.as_str()),
        ("Origin", ORIGIN),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", KEY),
        ("Sec-WebSocket-Protocol", "chat"),
        ("Palisade-User", "mallory"),
    ];
    let (answer, mut stream) = open(&served, "/live?room=1", &headers).await;
    assert_eq!(status(&answer), 101, "{answer}");
    assert_eq!(field(&answer, "sec-websocket-accept"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    for message in [&b"hello"[..], &[7; 70_000], b""] {
        say(&mut stream, 2, message).await;
        assert_eq!(frame(&mut stream).await.unwrap(), (2, message.to_vec()));
    }
    let seen = served.world.api.last();
    assert_eq!((seen.uri.as_str(), seen.headers["sec-websocket-protocol"].to_str().unwrap()), ("/live?room=1", "chat"));
    assert!(seen.headers.contains_key("txn-token"));
    for absent in ["cookie", "authorization", "palisade-user", "sec-websocket-key", "upgrade", "connection"] {
        assert!(!seen.headers.contains_key(absent), "{absent}");
    }
    say(&mut stream, 8, &1000_u16.to_be_bytes()).await;
    assert_eq!(frame(&mut stream).await.unwrap().0, 8);
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    let _ended = stream.read_to_end(&mut rest).await;
    assert!(rest.is_empty());
    served.world.saw_tunnel_end("closed").await;
    served.stop.cancel();
}

// A18, RFC 8441: the same over one stream of HTTP/2, beside ordinary requests.
#[tokio::test]
async fn a_websocket_over_http2_reaches_the_service_and_comes_back() {
    let served = public().await;
    let cookie = served.world.sign_in().await;
    let stream = connect(&served, &served.root, TLS, b"h2").await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let uri = |path: &str| format!("{ORIGIN}{path}");
    let me = Request::get(uri("/auth/me")).header("cookie", &cookie).body(body::empty()).unwrap();
    assert_eq!(sender.send_request(me).await.unwrap().status(), 200);
    let opening = |path: &str, from: &str| {
        let builder = Request::builder().method(Method::CONNECT).uri(uri(path)).extension(Protocol::from_static("websocket"));
        let builder = builder.header("cookie", &cookie).header("origin", from).header("sec-websocket-version", "13");
        builder.body(body::empty()).unwrap()
    };
    let refused = sender.send_request(opening("/live", "https://evil.example")).await.unwrap();
    assert_eq!(refused.status(), 403);
    let mut answer = sender.send_request(opening("/live", ORIGIN)).await.unwrap();
    assert_eq!(answer.status(), 200);
    let mut stream = TokioIo::new(hyper::upgrade::on(&mut answer).await.unwrap());
    for message in [&b"hello"[..], &[7; 300_000], b""] {
        say(&mut stream, 1, message).await;
        assert_eq!(frame(&mut stream).await.unwrap(), (1, message.to_vec()));
    }
    let me = Request::get(uri("/auth/me")).header("cookie", &cookie).body(body::empty()).unwrap();
    assert_eq!(sender.send_request(me).await.unwrap().status(), 200, "others are served beside it");
    // A CONNECT that is no WebSocket is none of ours.
    let other = Request::builder().method(Method::CONNECT).uri("localhost:22").body(body::empty()).unwrap();
    assert_eq!(sender.send_request(other).await.unwrap().status(), 400);
    stream.shutdown().await.unwrap();
    served.world.saw_tunnel_end("closed").await;
    served.stop.cancel();
}

// A14: a browser sends the cookie whatever page opens the socket, so the page's origin must be ours; programs with a token have none.
#[tokio::test]
async fn a_page_of_another_origin_opens_no_websocket() {
    let served = public().await;
    let cookie = served.world.sign_in().await;
    let token = format!("Bearer {}", served.world.login.token());
    let (with_cookie, with_token) = (("Cookie", cookie.as_str()), ("Authorization", token.as_str()));
    let cases: [(&[(&str, &str)], u16); 11] = [
        (&[with_cookie, ("Origin", ORIGIN)], 101),
        (&[with_cookie, ("Origin", ORIGIN), ("Sec-Fetch-Site", "same-origin")], 101),
        (&[with_cookie], 403),
        (&[with_cookie, ("Sec-Fetch-Site", "none")], 403),
        (&[with_cookie, ("Origin", "https://evil.example")], 403),
        (&[with_cookie, ("Origin", "null")], 403),
        (&[with_cookie, ("Origin", ORIGIN), ("Origin", "https://evil.example")], 403),
        (&[with_cookie, ("Origin", "https://evil.example"), ("Sec-Fetch-Site", "same-origin")], 403),
        (&[with_cookie, ("Origin", ORIGIN), ("Sec-Fetch-Site", "cross-site")], 403),
        (&[with_token], 101),
        (&[with_token, ("Origin", "https://evil.example")], 403),
    ];
    for (headers, expected) in cases {
        let headers: Vec<_> = headers.iter().copied().chain([("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Key", KEY)]).collect();
        let before = served.world.api.count();
        let (answer, _stream) = open(&served, "/live", &headers).await;
        assert_eq!(status(&answer), expected, "{headers:?}\n{answer}");
        assert_eq!(served.world.api.count() - before, usize::from(expected == 101));
    }
    served.stop.cancel();
}

// A6, A18: where none is declared none opens, and what only looks like an opening is refused.
#[tokio::test]
async fn an_undeclared_or_malformed_opening_is_refused() {
    let served = public().await;
    let cookie = served.world.sign_in().await;
    let usual = [("Cookie", cookie.as_str()), ("Origin", ORIGIN)];
    let (version, key) = (("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Key", KEY));
    let cases = [
        ("/api/videos", vec![version, key], 403, "upgrade_unlisted"),
        ("/auth/me", vec![version, key], 403, "upgrade_unlisted"),
        ("/nowhere", vec![version, key], 404, "route_unknown"),
        ("/live", vec![version], 400, "request_ambiguous"),
        ("/live", vec![version, ("Sec-WebSocket-Key", "dGhlIHNhbXBsZQ==")], 400, "request_ambiguous"),
        ("/live", vec![version, key, key], 400, "request_ambiguous"),
        ("/live", vec![("Sec-WebSocket-Version", "8"), key], 400, "request_ambiguous"),
        ("/live", vec![version, key, ("Content-Length", "0")], 400, "request_ambiguous"),
    ];
    for (path, headers, expected, reason) in cases {
        let headers: Vec<_> = usual.into_iter().chain(headers).collect();
        let (answer, _stream) = open(&served, path, &headers).await;
        assert_eq!(status(&answer), expected, "{path} {headers:?}");
        assert_eq!(served.world.refusals().last().map(String::as_str), Some(reason), "{path} {headers:?}");
    }
    assert_eq!(served.world.api.count(), 0);
    served.stop.cancel();
}

// B19 in part, A18: an open WebSocket ends soon after its session does, with a Close that says so; and cleanly with a drain.
#[tokio::test]
async fn a_websocket_ends_with_its_session_and_with_a_drain() {
    let served = public().await;
    for (closes, why) in [(1008_u16, "session_ended"), (1001, "drained")] {
        let cookie = served.world.sign_in().await;
        let headers = [("Cookie", cookie.as_str()), ("Origin", ORIGIN), ("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Key", KEY)];
        let (answer, mut stream) = open(&served, "/live", &headers).await;
        assert_eq!(status(&answer), 101);
        say(&mut stream, 1, b"hello").await;
        assert_eq!(frame(&mut stream).await.unwrap().1, b"hello");
        if why == "drained" {
            served.stop.cancel();
        } else {
            let done = served.world.post("/auth/logout", &[("cookie", &cookie), ("origin", ORIGIN)], "").await;
            assert!(done.status < 400, "{}", done.text);
        }
        let closed = tokio::time::timeout(Duration::from_secs(20), frame(&mut stream)).await.expect("it ends").unwrap();
        assert_eq!(closed, (8, closes.to_be_bytes().to_vec()));
        served.world.saw_tunnel_end(why).await;
    }
}

// A13: floods of frames against the public socket end their connection; everybody else is served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_against_the_edge_end_their_connection_and_no_other() {
    let served = public().await;
    for (name, part) in crate::tests::floods::floods() {
        let stream = connect(&served, &served.root, TLS, b"h2").await.unwrap();
        let poured = crate::tests::floods::pour(stream, part, 200_000).await;
        assert!(poured < 200_000, "{name} went on and on");
        let (answer, _stream) = plain(&served, "GET /auth/login", "").await;
        assert!([303, 429].contains(&status(&answer)), "others are served after {name}: {answer}");
    }
    served.stop.cancel();
}

/// One request over HTTP/1.1 with these lines; the first head that comes back, and the connection.
async fn plain(served: &Served, line: &str, more: &str) -> (String, TlsStream<TcpStream>) {
    let mut stream = connect(served, &served.root, TLS, b"http/1.1").await.unwrap();
    stream.write_all(format!("{line} HTTP/1.1\r\nHost: localhost:8443\r\n{more}\r\n").as_bytes()).await.unwrap();
    let answer = head(&mut stream).await;
    (answer, stream)
}

// A13, RFC 9110 section 10.1.1: who waits for 100 (Continue) hears it once the request is admitted, and never before a refusal.
#[tokio::test]
async fn a_hundred_continue_comes_after_admission_and_not_before_a_refusal() {
    let served = public().await;
    let cookie = served.world.sign_in().await;
    let waits = "Expect: 100-continue\r\nContent-Length: 5\r\nSec-Fetch-Site: same-origin\r\n";
    let (answer, _stream) = plain(&served, "POST /api/videos", waits).await;
    assert_eq!(status(&answer), 401);
    let with_cookie = format!("{waits}Cookie: {cookie}\r\n");
    let (answer, mut stream) = plain(&served, "POST /api/videos", &with_cookie).await;
    assert_eq!(status(&answer), 100, "{answer}");
    stream.write_all(b"hello").await.unwrap();
    assert_eq!(status(&head(&mut stream).await), 200);
    assert_eq!(served.world.api.last().bytes, 5);
    assert!(!served.world.api.last().headers.contains_key("expect"));
    let (answer, _stream) = plain(&served, "POST /api/videos", &with_cookie.replace("Length: 5", "Length: 5000")).await;
    assert_eq!(status(&answer), 413);
    served.stop.cancel();
}

// D8 at the edge: a refusal is told to a gRPC caller in gRPC's words; events end with the session that they were opened in.
#[tokio::test]
async fn grpc_callers_and_event_streams_at_the_edge() {
    let served = public().await;
    let token = format!("Bearer {}", served.world.login.token());
    for (headers, grpc_status) in [
        (vec![("content-type", "application/grpc")], "16"),
        (vec![("content-type", "application/grpc+proto"), ("authorization", token.as_str())], "12"),
    ] {
        let answer = served.world.get(if grpc_status == "12" { "/pkg.Other/Call" } else { "/api/videos" }, &headers).await;
        assert_eq!((answer.status, answer.header("grpc-status"), answer.header("content-type")), (200, grpc_status, "application/grpc"));
        assert_eq!((answer.text.as_str(), answer.header("strict-transport-security")), ("", "max-age=31536000"));
    }
    served.world.api.answers(|| {
        let (mut say, channel) = http_body_util::channel::Channel::<bytes::Bytes, contract::BoxError>::new(1);
        tokio::spawn(async move {
            say.send_data("data: 1\n\n".into()).await.unwrap();
            // There is never a second one.
            let _open = say;
            std::future::pending::<()>().await;
        });
        let mut answer = http::Response::new(crate::passage::Passage::new(channel).into_body());
        answer.headers_mut().insert("content-type", "text/event-stream".parse().unwrap());
        Ok(answer)
    });
    let cookie = served.world.sign_in().await;
    let (answer, mut stream) = plain(&served, "GET /api/videos", &format!("Cookie: {cookie}\r\n")).await;
    assert_eq!((status(&answer), field(&answer, "content-type").as_str()), (200, "text/event-stream"));
    let mut first = [0; 14];
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"9\r\ndata: 1\n\n\r\n");
    let done = served.world.post("/auth/logout", &[("cookie", &cookie), ("origin", ORIGIN)], "").await;
    assert!(done.status < 400, "{}", done.text);
    let mut rest = [0; 5];
    tokio::time::timeout(Duration::from_secs(20), stream.read_exact(&mut rest)).await.expect("it ends").unwrap();
    assert_eq!(&rest, b"0\r\n\r\n");
    served.stop.cancel();
}
