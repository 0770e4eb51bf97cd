//! A request across two guards: from the edge to `front`, out of `front`, into `back`.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use contract::control::Outbound;
use contract::{Body, body};
use http::{Request, Response};

use super::world::{World, get, mirror, raw, read};
use crate::mesh::Guard;

/// `front` behind its guard, with the listener that stands for `back` in its sandbox. Its service relays `/relay/X` to `/things/X` with
/// the token that it got, and remembers that token.
struct Pair {
    world: World,
    front: SocketAddr,
    out: SocketAddr,
    _guard: Arc<Guard>,
    remembered: Arc<Mutex<String>>,
}

async fn pair() -> Pair {
    let world = World::new();
    let (_back, address) = world.guard("back", &world.back_view(), mirror);
    let listener = crate::listen::loopback().unwrap();
    let out = listener.local_addr().unwrap();
    let remembered = Arc::new(Mutex::new(String::new()));
    let kept = Arc::clone(&remembered);
    let relay = move |request: Request<Body>| {
        let kept = Arc::clone(&kept);
        async move {
            let token = request.headers()["txn-token"].to_str().unwrap().to_owned();
            let traceparent = request.headers()["traceparent"].to_str().unwrap().to_owned();
            kept.lock().unwrap().clone_from(&token);
            let path = request.uri().path().replace("/relay/", "/things/");
            let text = format!(
                "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nTxn-Token: {token}\r\ntraceparent: {traceparent}\r\nAuthorization: AWS4-HMAC dummy\r\nCookie: a=b\r\nPalisade-User: mallory\r\n\r\n"
            );
            let answer = raw(out, &text).await;
            let (head, rest) = answer.split_once("\r\n\r\n").unwrap();
            let status = head.split(' ').nth(1).unwrap().parse::<u16>().unwrap();
            let mut response: Response<Body> =
                body::with_type(http::StatusCode::from_u16(status).unwrap(), "application/json", rest.to_owned());
            response.headers_mut().insert("connection", "x-secret".parse().unwrap());
            response.headers_mut().insert("x-secret", "hop".parse().unwrap());
            response
        }
    };
    let (guard, front) = world.guard("front", &world.front_view(address), relay);
    tokio::spawn(Arc::clone(&guard).outbound(9001, listener, world.stop.clone()));
    Pair { world, front, out, _guard: guard, remembered }
}

// D6, D7, J2: the token and the trace go along, the service's own claims do not.
#[tokio::test]
async fn authority_and_trace_travel_across_two_guards() {
    let pair = pair().await;
    let edge = pair.world.transport(&pair.world.edge, &pair.world.service("front"), pair.front);
    let token = pair.world.token("ann", "view");
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let response = edge.call(get("/relay/1", &[("txn-token", &token), ("traceparent", trace)])).await.unwrap();
    assert!(!response.headers().contains_key("x-secret"), "RFC 9110 section 7.6.1");
    let (status, seen) = read(response).await;
    assert_eq!(status, 200, "{seen}");
    let headers = seen["headers"].as_object().unwrap();
    assert_eq!((&headers["palisade-user"], &headers["txn-token"]), (&"ann".into(), &token.as_str().into()));
    assert!(headers["traceparent"].as_str().unwrap().contains("0af7651916cd43dd8448eb211c80319c"));
    assert!(!headers.contains_key("authorization") && !headers.contains_key("cookie"));
    // J3: each hop's span is the child of the one before.
    let spans = pair.world.sink.spans.lock().unwrap().clone();
    let span = |name: &str| spans.iter().find(|span| span.name.starts_with(name)).unwrap_or_else(|| panic!("{name}: {spans:?}")).clone();
    let (first, out, last) = (span("guard GET /relay"), span("guard.out to back"), span("guard GET /things"));
    assert_eq!((first.parent.as_str(), &out.parent, &last.parent), ("b7ad6b7169203331", &first.span, &out.span));
}

// D7: the same token a moment later, when the request that brought it has ended.
#[tokio::test]
async fn a_token_counts_only_while_the_request_that_brought_it_is_in_flight() {
    let pair = pair().await;
    let edge = pair.world.transport(&pair.world.edge, &pair.world.service("front"), pair.front);
    let token = pair.world.token("ann", "view");
    assert_eq!(read(edge.call(get("/relay/1", &[("txn-token", &token)])).await.unwrap()).await.0, 200);
    let remembered = pair.remembered.lock().unwrap().clone();
    assert_eq!(remembered, token);
    let ask = |token: &str| format!("GET /things/1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTxn-Token: {token}\r\n\r\n");
    let answer = raw(pair.out, &ask(&remembered)).await;
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("authority_not_in_flight"), "{answer}");
    let never = raw(pair.out, &ask(&pair.world.token("bob", "view"))).await;
    assert!(never.starts_with("HTTP/1.1 403") && never.contains("authority_not_in_flight"), "{never}");
    let none = raw(pair.out, "GET /things/1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(
        none.starts_with("HTTP/1.1 403") && none.contains("authority_missing"),
        "no authority goes along, and `back` wants one: {none}"
    );
}

// A6 on the way out: only declared routes exist.
#[tokio::test]
async fn undeclared_routes_of_a_peer_do_not_exist_in_the_sandbox() {
    let pair = pair().await;
    for (line, status, reason) in [
        ("GET /other", "404", "route_unknown"),
        ("DELETE /things/1", "405", "method_unlisted"),
        ("GET /things/../admin", "400", "request_ambiguous"),
        ("GET /things/%2e%2e", "400", "request_ambiguous"),
    ] {
        let answer = raw(pair.out, &format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(reason), "{line}: {answer}");
    }
    let upgrade = "GET /things/1 HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    assert!(raw(pair.out, upgrade).await.starts_with("HTTP/1.1 400"), "an opening without a key");
    assert!(raw(pair.out, &upgrade.replace("websocket", "h2c")).await.starts_with("HTTP/1.1 501"), "nothing else is upgraded to");
}

// J7, H5: what a role offers to guards, other roles or operators cannot be had from inside a sandbox, though the guard could have it.
#[tokio::test]
async fn a_service_reaches_of_a_role_only_what_is_for_services() {
    let world = World::new();
    let mut view = world.front_view("127.0.0.1:9".parse().unwrap());
    let role =
        |port: u16, name: &str| Outbound { port, env: name.into(), peer: world.ca.domain.role(name), routes: Vec::new(), outside: None };
    view.service.as_mut().unwrap().outbound =
        vec![role(4318, "evidence"), role(9000, "objects"), role(9001, "queue"), role(9002, "control")];
    let (guard, _) = world.guard("front", &view, mirror);
    for (port, line, refusal) in [
        (4318, "POST /records", Some("route_unknown")),
        (4318, "GET /metrics", Some("route_unknown")),
        (4318, "GET /console", Some("route_unknown")),
        (4318, "POST /v1/traces", None),
        (9000, "GET /presigned/videos/1/original", Some("route_unknown")),
        (9000, "PUT /presigned/videos/1/original", Some("route_unknown")),
        (9000, "GET /videos/1/original", None),
        (9001, "GET /leases/1", Some("route_unknown")),
        (9001, "GET /queues", Some("route_unknown")),
        (9001, "POST /queues/done", None),
        (9002, "GET /view", Some("peer_undeclared")),
    ] {
        let listener = crate::listen::loopback().unwrap();
        let out = listener.local_addr().unwrap();
        tokio::spawn(Arc::clone(&guard).outbound(port, listener, world.stop.clone()));
        let answer = raw(out, &format!("{line} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")).await;
        match refusal {
            Some(reason) => assert!(answer.contains(reason), "{line}: {answer}"),
            // Let through, and ended only where this view names no address for the role.
            None => assert!(answer.contains("no flow to this peer is declared"), "{line}: {answer}"),
        }
    }
}

// E17 on the way out.
#[tokio::test]
async fn a_stale_view_stops_the_way_out_too() {
    let pair = pair().await;
    pair.world.clock.advance(301);
    let answer = raw(pair.out, "GET /things/1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("view_stale"), "{answer}");
}

// A4: framing that can be read in two ways is answered with 400, recorded, and nothing of it goes on.
#[tokio::test]
async fn smuggling_shapes_are_refused_on_the_wire() {
    let pair = pair().await;
    for shape in [
        "POST /things/1 HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /things/2 HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST /things/1 HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nabcd",
        "GET /things/1 HTTP/1.1\nHost: x\n\n",
        "GET /things/1 HTTP/1.1\r\nHost: x\r\n folded: y\r\n\r\n",
    ] {
        pair.world.sink.audit.lock().unwrap().clear();
        let answer = raw(pair.out, shape).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{shape:?}: {answer:?}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "one answer only: {answer:?}");
        assert!(pair.world.saw("ConnectionRefused", "request_ambiguous").await, "{shape:?}");
    }
}

// An answer that comes before the request's end reaches a sender that reads only after it has sent everything.
#[tokio::test]
async fn an_early_refusal_reaches_a_sender_of_a_large_body() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let pair = pair().await;
    let mut stream = tokio::net::TcpStream::connect(pair.out).await.unwrap();
    let size = 3 * 1024 * 1024;
    stream.write_all(format!("POST /other HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n").as_bytes()).await.unwrap();
    for _ in 0..size / 65536 {
        stream.write_all(&[0; 65536]).await.unwrap();
    }
    let mut status = [0; 12];
    stream.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 404");
}
