//! gRPC and event streams through guards: HTTP/2 end to end, both directions of a stream, trailers, refusals, deadlines.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use contract::control::{Protocol, View};
use contract::{Body, BoxError, body};
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use http_body_util::channel::{Channel, Sender};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::sockets::{head, program};
use super::world::World;
use crate::passage::Passage;
use crate::serve::connection;

const METHOD: &str = "/things/call";

/// A program that speaks HTTP/2 by prior knowledge.
fn grpc_program<F>(world: &World, answer: impl Fn(Request<Body>) -> F + Clone + Send + Sync + 'static) -> SocketAddr
where
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let stop = world.stop.clone();
    program(move |stream| {
        let (answer, stop) = (answer.clone(), stop.clone());
        async move { connection::http2(stream, answer, &stop).await }
    })
}

fn grpc_view(mut view: View) -> View {
    view.service.as_mut().unwrap().protocol = Protocol::Grpc;
    view
}

/// A message with its five bytes before it.
fn message(text: &str) -> Bytes {
    let mut bytes = vec![0];
    bytes.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
    bytes.extend(text.bytes());
    bytes.into()
}

fn trailers(status: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), http::HeaderValue::from_static(status))])
}

/// Says back each message as it comes, then the caller's trailers, then its own; stays away for `slow`.
async fn echo(request: Request<Body>) -> Response<Body> {
    assert_eq!(request.version(), http::Version::HTTP_2);
    assert_eq!(request.headers()["te"], "trailers");
    assert!(request.headers().contains_key("palisade-user"));
    let slow = request.headers().get("x-slow").is_some();
    let (mut say, channel) = Channel::<Bytes, BoxError>::new(1);
    let mut frames = request.into_body();
    tokio::spawn(async move {
        let mut own = trailers("0");
        while let Some(Ok(frame)) = frames.frame().await {
            match frame.into_data() {
                Ok(data) => say.send_data(data).await.unwrap(),
                Err(frame) => own.extend(frame.into_trailers().unwrap()),
            }
        }
        if slow {
            std::future::pending::<()>().await;
        }
        say.send_trailers(own).await.unwrap();
    });
    let mut response = Response::new(Passage::new(channel).into_body());
    response.headers_mut().insert("content-type", "application/grpc+proto".parse().unwrap());
    response
}

fn call(token: &str, more: &[(&str, &str)]) -> (Sender<Bytes, BoxError>, Request<Body>) {
    let (say, channel) = Channel::new(4);
    let mut builder = Request::post(METHOD).header("content-type", "application/grpc").header("te", "trailers");
    for (name, value) in more {
        builder = builder.header(*name, *value);
    }
    if !token.is_empty() {
        builder = builder.header("txn-token", token);
    }
    (say, builder.body(Passage::new(channel).into_body()).unwrap())
}

/// The next frame's bytes.
async fn heard(answer: &mut Response<Body>) -> Bytes {
    answer.frame().await.unwrap().unwrap().into_data().unwrap()
}

/// The trailers that come next.
async fn ended(answer: &mut Response<Body>) -> HeaderMap {
    let frame: Frame<Bytes> = answer.frame().await.unwrap().unwrap();
    frame.into_trailers().unwrap_or_else(|frame| panic!("not trailers: {frame:?}"))
}

// D8: both directions of a stream flow while both are open; trailers pass both ways.
#[tokio::test]
async fn a_grpc_stream_flows_both_ways_and_its_trailers_pass() {
    let world = World::new();
    let holder = world.holder(&world.identity("back"), &grpc_view(world.back_view()));
    let (_guard, address) = world.guard_before(&holder, grpc_program(&world, echo));
    let transport = world.transport(&world.identity("front"), &world.service("back"), address);
    let (mut say, request) = call(&world.token("ann", "view"), &[]);
    let mut answer = transport.call(request).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["content-type"].to_str().unwrap()), (200, "application/grpc+proto"));
    for number in 0..100 {
        let one = message(&format!("message {number}"));
        say.send_data(one.clone()).await.unwrap();
        assert_eq!(heard(&mut answer).await, one, "the answer to each comes before the next is said");
    }
    say.send_trailers(HeaderMap::from_iter([("x-sent".parse().unwrap(), "all".parse().unwrap())])).await.unwrap();
    drop(say);
    let last = ended(&mut answer).await;
    assert_eq!((last["grpc-status"].to_str().unwrap(), last["x-sent"].to_str().unwrap()), ("0", "all"));
    assert!(answer.frame().await.is_none());
}

// D8: from a service's own client, HTTP/2 by prior knowledge on loopback, through two guards.
#[tokio::test]
async fn a_service_calls_grpc_through_two_guards() {
    let world = World::new();
    let holder = world.holder(&world.identity("back"), &grpc_view(world.back_view()));
    let (_back, address) = world.guard_before(&holder, grpc_program(&world, echo));
    let listener = crate::listen::loopback().unwrap();
    let out = listener.local_addr().unwrap();
    let relay = move |request: Request<Body>| async move {
        let token = request.headers()["txn-token"].to_str().unwrap().to_owned();
        let stream = tokio::net::TcpStream::connect(out).await.unwrap();
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let (mut say, request) = call(&token, &[]);
        let (mut head, rest) = request.into_parts();
        head.uri = format!("http://back{METHOD}").parse().unwrap();
        let mut answer = sender.send_request(Request::from_parts(head, rest)).await.unwrap().map(|body| Passage::new(body).into_body());
        say.send_data(message("one")).await.unwrap();
        let back = heard(&mut answer).await;
        drop(say);
        let last = ended(&mut answer).await;
        body::json(http::StatusCode::OK, &serde_json::json!({ "back": back.as_ref(), "status": last["grpc-status"].to_str().unwrap() }))
    };
    let (front, address) = world.guard("front", &world.front_view(address), relay);
    tokio::spawn(Arc::clone(&front).outbound(9001, listener, world.stop.clone()));
    let edge = world.transport(&world.edge, &world.service("front"), address);
    let token = world.token("ann", "view");
    let (status, said) = super::world::read(edge.call(super::world::get("/relay/x", &[("txn-token", &token)])).await.unwrap()).await;
    assert_eq!((status, &said["status"]), (200, &serde_json::json!("0")), "{said}");
    assert_eq!(said["back"], serde_json::json!(message("one").as_ref()));
}

// D8: a refusal of ours is what a gRPC caller understands: Trailers-Only with HTTP 200; for others it is what it was.
#[tokio::test]
async fn refusals_to_grpc_callers_have_a_grpc_status() {
    let world = World::new();
    let holder = world.holder(&world.identity("back"), &grpc_view(world.back_view()));
    let untouched = program(|_stream| async { panic!("the service was asked") });
    let (_guard, address) = world.guard_before(&holder, untouched);
    let transport = world.transport(&world.identity("front"), &world.service("back"), address);
    let token = world.token("ann", "view");
    let stranger = world.token("ann", "process");
    for (path, token, status, reason) in [
        (METHOD, "", "7", "authority_missing"),
        (METHOD, "x.y.z", "16", "token_malformed"),
        (METHOD, stranger.as_str(), "7", "policy_denied"),
        ("/pkg.Other/Call", token.as_str(), "12", "route_unknown"),
        ("/things/%2e%2e", token.as_str(), "3", "request_ambiguous"),
    ] {
        let (_say, mut request) = call(token, &[]);
        *request.uri_mut() = path.parse().unwrap();
        let answer = transport.call(request).await.unwrap();
        let fields = answer.headers().clone();
        assert_eq!(answer.status(), 200, "{path}");
        assert_eq!(fields["content-type"], "application/grpc");
        assert_eq!((fields["grpc-status"].to_str().unwrap(), fields["grpc-message"].to_str().unwrap()), (status, reason), "{path}");
        assert!(body::collect(answer.into_body(), 100).await.unwrap().is_empty());
        assert!(world.saw("CallDecided", reason).await);
    }
}

// D8, D9: the service is away (UNAVAILABLE), or later than the caller said it would wait (DEADLINE_EXCEEDED), before and after the head.
#[tokio::test]
async fn a_grpc_deadline_and_a_missing_service_are_told_as_such() {
    let world = World::new();
    let view = grpc_view(world.back_view());
    let token = world.token("ann", "view");
    let silent = grpc_program(&world, |_request| std::future::pending());
    let nobody = crate::listen::loopback().unwrap().local_addr().unwrap();
    for (service, wait, status) in [(nobody, "30S", "14"), (silent, "300m", "4")] {
        let (_guard, address) = world.guard_before(&world.holder(&world.identity("back"), &view), service);
        let transport = world.transport(&world.identity("front"), &world.service("back"), address);
        let (_say, request) = call(&token, &[("grpc-timeout", wait)]);
        let answer = transport.call(request).await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.headers()["grpc-status"].to_str().unwrap()), (200, status));
    }
    let (_guard, address) = world.guard_before(&world.holder(&world.identity("back"), &view), grpc_program(&world, echo));
    let transport = world.transport(&world.identity("front"), &world.service("back"), address);
    let (mut say, request) = call(&token, &[("grpc-timeout", "2S"), ("x-slow", "1")]);
    let mut answer = transport.call(request).await.unwrap();
    say.send_data(message("one")).await.unwrap();
    assert_eq!(heard(&mut answer).await, message("one"));
    drop(say);
    assert_eq!(ended(&mut answer).await["grpc-status"], "4");
}

// A18: each event comes when it is made, and a stream outlives what an answer may take; it ends when its flow is withdrawn.
#[tokio::test]
async fn events_pass_at_once_outlive_an_answers_time_and_end_with_their_flow() {
    let world = World::new();
    let mut view = world.back_view();
    view.service.as_mut().unwrap().limits.wall_s = 1;
    let service = program(|mut stream| async move {
        use tokio::io::AsyncWriteExt;
        let asked = head(&mut stream).await;
        let media_type = if asked.contains("/things/plain") { "text/plain" } else { "text/event-stream; charset=utf-8" };
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\nTransfer-Encoding: chunked\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.unwrap();
        for number in 0.. {
            if stream.write_all(format!("9\r\ndata: {}\n\n\r\n", number % 10).as_bytes()).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    });
    let holder = world.holder(&world.identity("back"), &view);
    let (_guard, address) = world.guard_before(&holder, service);
    let transport = world.transport(&world.identity("front"), &world.service("back"), address);
    let token = world.token("ann", "view");
    let ask = |path| transport.call(super::world::get(path, &[("txn-token", &token)]));
    // Its time is one second, and then it is broken off.
    let plain = body::collect(ask("/things/plain").await.unwrap().into_body(), 10_000).await;
    assert!(plain.is_err(), "{plain:?}");
    let mut events = ask("/things/events").await.unwrap().into_body();
    for number in 0..8 {
        // Two and a half seconds; one at a time, as they are made.
        assert_eq!(events.frame().await.unwrap().unwrap().into_data().unwrap(), format!("data: {number}\n\n"));
    }
    view.epoch += 1;
    view.callers.remove(&world.service("front"));
    holder.accept(&world.sign(&view)).unwrap();
    let rest = tokio::time::timeout(Duration::from_secs(20), body::collect(events, 10_000)).await.expect("it ends");
    rest.unwrap();
}
