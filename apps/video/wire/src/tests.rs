//! Tests of what goes over the wire, against a neighbour that remembers what it was sent.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::sync::{Arc, Mutex};

use axum::{Router, body::Bytes, extract::State, http::StatusCode, response::IntoResponse, routing::any};
use http::{HeaderMap, HeaderValue, Method, Uri};
use serde_json::{Value, json};

use crate::{
    client::Client,
    context::Context,
    event::{Delivery, Event, Outcome},
    queue::Queue,
    span::Tracer,
    store::{Granted, Store},
};

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[derive(Clone)]
struct Seen {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

#[derive(Clone, Default)]
struct Neighbour(Arc<Mutex<Vec<Seen>>>);

async fn answer(State(neighbour): State<Neighbour>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> axum::response::Response {
    neighbour.0.lock().unwrap().push(Seen { method, uri: uri.clone(), headers: headers.clone(), body });
    if uri.path().ends_with("/missing") {
        return (StatusCode::NOT_FOUND, "no such key").into_response();
    }
    if uri.query() == Some("presign") {
        return axum::Json(json!({ "url": "https://host/x", "method": "PUT", "headers": { "content-type": "video/mp4" } })).into_response();
    }
    if headers.contains_key("range") {
        return (StatusCode::PARTIAL_CONTENT, [("etag", "\"v1\"")], "cdef").into_response();
    }
    "".into_response()
}

async fn neighbour() -> (Neighbour, String) {
    let state = Neighbour::default();
    let router = Router::new().fallback(any(answer)).with_state(state.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (state, url)
}

fn incoming() -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("txn-token", "opaque"),
        ("traceparent", TRACEPARENT),
        ("cookie", "session=1"),
        ("palisade-user", "ada"),
        ("ce-specversion", "1.0"),
        ("ce-id", "e1"),
        ("ce-type", "object.created"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
}

// B6
#[tokio::test]
async fn a_call_carries_the_requests_token_and_trace_and_nothing_else_of_it() {
    let (seen, url) = neighbour().await;
    let context = Context::from_headers(&incoming());
    Store::new(Client::new(), url).delete(&context, ("originals", "a b/original")).await.unwrap();
    let seen = seen.0.lock().unwrap()[0].clone();
    assert_eq!(seen.method, Method::DELETE);
    assert_eq!(seen.uri.path(), "/originals/a%20b/original");
    assert_eq!(seen.headers["txn-token"], "opaque");
    assert_eq!(seen.headers["traceparent"], TRACEPARENT);
    assert!(!seen.headers.contains_key("cookie"));
    assert!(!seen.headers.contains_key("palisade-user"));
}

#[tokio::test]
async fn an_upload_grant_is_bound_to_size_and_type() {
    let (seen, url) = neighbour().await;
    let granted = Granted::Put { content_length: 7, content_type: "video/mp4" };
    let grant = Store::new(Client::new(), url).presign(&Context::default(), ("originals", "k"), granted, 900).await.unwrap();
    assert_eq!((grant.method.as_str(), grant.headers["content-type"].as_str()), ("PUT", "video/mp4"));
    let sent: Value = serde_json::from_slice(&seen.0.lock().unwrap()[0].body).unwrap();
    assert_eq!(sent, json!({ "method": "PUT", "expires_s": 900, "content_length": 7, "content_type": "video/mp4" }));
}

#[tokio::test]
async fn a_range_of_another_version_or_length_is_a_fault() {
    let (_, url) = neighbour().await;
    let store = Store::new(Client::new(), url);
    let context = Context::default();
    let object = ("originals", "k");
    assert_eq!(&store.range(&context, object, Some("v1"), (2, 4)).await.unwrap()[..], b"cdef");
    assert!(store.range(&context, object, Some("v2"), (2, 4)).await.is_err());
    assert!(store.range(&context, object, Some("v1"), (2, 9)).await.is_err());
    assert!(store.range(&context, object, Some("v1"), (2, 3)).await.is_err(), "more than asked for");
}

#[tokio::test]
async fn deleting_what_is_not_there_succeeds_and_opening_it_says_gone() {
    let (_, url) = neighbour().await;
    let store = Store::new(Client::new(), url);
    store.delete(&Context::default(), ("originals", "missing")).await.unwrap();
    let fault = store.open(&Context::default(), ("originals", "missing")).await.err().unwrap();
    assert!(fault.is_gone(), "{fault}");
}

#[tokio::test]
async fn a_published_event_is_a_binary_cloudevent() {
    let (seen, url) = neighbour().await;
    let queue = Queue::new(Client::new(), url, "/video-validator");
    let event = Event { id: "1:clean".into(), kind: "video.validated", subject: "originals/1/original".into(), data: json!({ "n": 1 }) };
    queue.publish(&Context::default(), "validated", &event).await.unwrap();
    let seen = seen.0.lock().unwrap()[0].clone();
    assert_eq!(seen.uri.path(), "/queues/validated");
    for (name, value) in [
        ("ce-id", "1:clean"),
        ("ce-type", "video.validated"),
        ("ce-source", "/video-validator"),
        ("ce-subject", "originals/1/original"),
        ("ce-specversion", "1.0"),
        ("content-type", "application/json"),
    ] {
        assert_eq!(seen.headers[name], value);
    }
    assert_eq!(&seen.body[..], br#"{"n":1}"#);
}

#[test]
fn an_event_without_its_attributes_is_refused_for_good() {
    for name in ["ce-id", "ce-type", "ce-specversion"] {
        let mut headers = incoming();
        headers.remove(name);
        assert!(matches!(Delivery::parse(&headers, b"{}"), Err(Outcome::Never(reason)) if reason.contains(name)));
    }
    assert!(matches!(Delivery::parse(&incoming(), b"not json"), Err(Outcome::Never(_))));
    assert_eq!(Delivery::parse(&incoming(), b"{}").unwrap().context.user.as_deref(), Some("ada"));
}

// J1
#[tokio::test]
async fn a_span_belongs_to_the_trace_that_arrived_and_an_absent_collector_does_no_harm() {
    let (seen, url) = neighbour().await;
    let context = Context::from_headers(&incoming());
    let silent = Tracer::new(Client::new(), None, "video-test");
    silent.end(silent.begin(&context, "step"), None);
    let tracer = Tracer::new(Client::new(), Some(url), "video-test");
    let mut span = tracer.begin(&context, "ffmpeg");
    span.note("video.id", "1");
    tracer.end(span, Some("broken"));
    for _ in 0..100 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        if !seen.0.lock().unwrap().is_empty() {
            break;
        }
    }
    let seen = seen.0.lock().unwrap()[0].clone();
    assert_eq!(seen.uri.path(), "/v1/traces");
    let sent: Value = serde_json::from_slice(&seen.body).unwrap();
    let span = &sent["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
    assert_eq!(span["traceId"], "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(span["parentSpanId"], "b7ad6b7169203331");
    assert_eq!(span["status"], json!({ "code": 2, "message": "broken" }));
    assert_eq!(span["spanId"].as_str().unwrap().len(), 16);
}

#[test]
fn a_malformed_traceparent_names_no_trace() {
    for bad in ["", "00-xyz-b7ad6b7169203331-01", "00-0af7651916cd43dd8448eb211c80319c", "junk"] {
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", HeaderValue::from_static(bad));
        assert!(Context::from_headers(&headers).trace().is_none(), "{bad}");
    }
}
