//! Tests of the service: what it tells whom, and in which order.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::sync::Mutex;

use axum::{
    body::Body,
    http::{Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};

use super::*;

const ID: &str = "0192f0c1-2b3a-7cde-8f01-23456789abcd";
const GOOD: &[u8] = include_bytes!("../../fixtures/good.mp4");

/// A store with one object, and a queue, that note every request.
#[derive(Clone, Default)]
struct Neighbour {
    object: Arc<Vec<u8>>,
    broken: bool,
    notes: Arc<Mutex<Vec<(String, HeaderMap, Value)>>>,
}

async fn answer(State(it): State<Neighbour>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    if method == Method::GET {
        let range = headers["range"].to_str().unwrap().trim_start_matches("bytes=").to_owned();
        let (from, to) = range.split_once('-').unwrap();
        let (from, to): (usize, usize) = (from.parse().unwrap(), to.parse().unwrap());
        if it.broken {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
        return (StatusCode::PARTIAL_CONTENT, [("etag", "\"v1\"")], Body::from(it.object[from..=to].to_vec())).into_response();
    }
    let value = serde_json::from_slice(&body).unwrap();
    it.notes.lock().unwrap().push((uri.to_string(), headers, value));
    StatusCode::ACCEPTED.into_response()
}

async fn deliver(neighbour: &Neighbour, kind: &str, data: Value) -> Outcome {
    let router = Router::new().fallback(answer).with_state(neighbour.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let client = Client::new();
    let validator = Arc::new(Validator {
        store: Store::new(client.clone(), url.clone()),
        queue: Queue::new(client.clone(), url, "/video-validator"),
        tracer: Tracer::new(client, None, NAME),
        benches: Semaphore::new(AT_ONCE),
    });
    let mut headers = HeaderMap::new();
    for (name, value) in [("ce-specversion", "1.0"), ("ce-id", "e1"), ("ce-type", kind), ("txn-token", "opaque")] {
        headers.insert(axum::http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    events(State(validator), headers, Bytes::from(data.to_string())).await
}

fn upload(size: usize) -> Value {
    json!({ "bucket": "originals", "key": format!("{ID}/original"), "size": size, "content_type": "video/mp4", "etag": "v1" })
}

#[tokio::test]
async fn a_clean_upload_gets_its_verdict_before_anyone_is_told() {
    let neighbour = Neighbour { object: Arc::new(GOOD.to_vec()), ..Neighbour::default() };
    assert!(matches!(deliver(&neighbour, "object.created", upload(GOOD.len())).await, Outcome::Done));
    let notes = neighbour.notes.lock().unwrap();
    let verdict = format!("/originals/{ID}/original?verdict");
    let order: Vec<&str> = notes.iter().map(|note| note.0.as_str()).collect();
    assert_eq!(order, ["/queues/status", verdict.as_str(), "/queues/status", "/queues/validated"]);
    assert_eq!(notes[0].1["ce-type"], "video.uploaded");
    assert_eq!(notes[1].2["verdict"], "clean");
    assert_eq!(notes[2].1["ce-type"], "video.validated");
    let (_, headers, data) = &notes[3];
    assert_eq!(headers["ce-subject"], format!("originals/{ID}/original"));
    assert_eq!(headers["ce-id"], format!("{ID}:v1:hand-on"));
    assert_eq!((&data["demuxer"], &data["width"], &data["height"]), (&json!("mov"), &json!(128), &json!(72)));
    assert!(notes.iter().all(|note| note.1["txn-token"] == "opaque"));
}

// I10
#[tokio::test]
async fn a_bad_upload_is_refused_with_its_reason_and_handed_to_nobody() {
    let object = crate::bad_media::playlist();
    let neighbour = Neighbour { object: Arc::new(object.clone()), ..Neighbour::default() };
    assert!(matches!(deliver(&neighbour, "object.created", upload(object.len())).await, Outcome::Done));
    let notes = neighbour.notes.lock().unwrap();
    assert_eq!(notes.len(), 3);
    assert_eq!(notes[1].2["verdict"], "rejected");
    assert_eq!(notes[2].1["ce-type"], "video.rejected");
    assert!(notes[2].2["reason"].as_str().unwrap().contains("HLS playlist"));
    assert!(notes.iter().all(|note| note.0 != "/queues/validated"));
}

#[tokio::test]
async fn a_store_that_fails_gives_no_verdict_but_another_try() {
    let neighbour = Neighbour { object: Arc::new(GOOD.to_vec()), broken: true, ..Neighbour::default() };
    assert!(matches!(deliver(&neighbour, "object.created", upload(GOOD.len())).await, Outcome::Later(_)));
    assert_eq!(neighbour.notes.lock().unwrap().len(), 1, "only that it arrived");
}

#[tokio::test]
async fn events_that_make_no_sense_are_refused_for_good() {
    let neighbour = Neighbour::default();
    let strange_key = json!({ "bucket": "originals", "key": "x/y", "size": 1, "content_type": "video/mp4", "etag": "v1" });
    for (kind, data) in [("other", upload(1)), ("object.created", json!({})), ("object.created", strange_key)] {
        assert!(matches!(deliver(&neighbour, kind, data).await, Outcome::Never(_)));
    }
}
