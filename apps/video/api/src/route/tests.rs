//! Tests of the whole service against a store that grants everything and remembers it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::sync::Mutex;

use axum::{
    body::Body,
    http::{Method, Request, Uri},
    response::{IntoResponse, Response},
};
use tower::ServiceExt;

use super::*;

#[derive(Clone, Default)]
struct Neighbour(Arc<Mutex<Vec<String>>>);

async fn answer(Shared(it): Shared<Neighbour>, method: Method, uri: Uri) -> Response {
    it.0.lock().unwrap().push(format!("{method} {uri}"));
    let path = uri.path();
    match (method, uri.query()) {
        (Method::POST, Some("presign")) => {
            Json(json!({ "url": format!("https://host{path}?sig"), "method": "PUT", "headers": { "content-type": "video/mp4" } }))
                .into_response()
        }
        (Method::POST, Some("presign-parts")) => Json(
            json!({ "complete": false, "part_bytes": 8, "stored": [], "parts": [{ "number": 1, "bytes": 7, "url": "https://host/x" }] }),
        )
        .into_response(),
        _ => StatusCode::NO_CONTENT.into_response(),
    }
}

struct Scene {
    router: Router,
    neighbour: Neighbour,
    folder: tempfile::TempDir,
}

async fn scene() -> Scene {
    let neighbour = Neighbour::default();
    let store = Router::new().fallback(answer).with_state(neighbour.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, store).await });
    let folder = tempfile::tempdir().unwrap();
    let catalogue = Catalogue::open(folder.path()).await.unwrap();
    let router = router(Arc::new(Api { catalogue, store: Store::new(Client::new(), url) }));
    Scene { router, neighbour, folder }
}

impl Scene {
    async fn send(&self, request: Request<Body>) -> (StatusCode, Value) {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    async fn ask(&self, method: &str, path: &str, user: &str) -> (StatusCode, Value) {
        let request = Request::builder().method(method).uri(path).header("palisade-user", user);
        self.send(request.body(Body::empty()).unwrap()).await
    }

    async fn announce(&self, user: &str, wish: Value) -> (StatusCode, Value) {
        let request = Request::post("/api/videos").header("palisade-user", user);
        self.send(request.body(Body::from(wish.to_string())).unwrap()).await
    }

    async fn add(&self, user: &str) -> String {
        let (status, body) = self.announce(user, json!({ "name": "film.mp4", "size": 7, "type": "video/mp4" })).await;
        assert_eq!(status, StatusCode::CREATED, "{body}");
        body["id"].as_str().unwrap().to_owned()
    }

    /// An event of the work on the video that it speaks of.
    async fn event(&self, user: Option<&str>, event: (&str, &str), data: Value) -> StatusCode {
        let subject = format!("originals/{}/original", data["video_id"].as_str().unwrap_or("none"));
        self.event_of(user, event, &subject, data).await
    }

    async fn event_of(&self, user: Option<&str>, (id, kind): (&str, &str), subject: &str, data: Value) -> StatusCode {
        let mut request = Request::post("/events").header("ce-specversion", "1.0").header("ce-id", id).header("ce-type", kind);
        request = request.header("ce-subject", subject);
        if let Some(user) = user {
            request = request.header("palisade-user", user);
        }
        self.send(request.body(Body::from(data.to_string())).unwrap()).await.0
    }

    async fn ready(&self, user: &str, id: &str) {
        let renditions =
            json!([{ "name": "720p", "key": format!("{id}/720p.mp4"), "width": 1280, "height": 720, "duration_s": 10.0, "bytes": 5 }]);
        let data = json!({ "video_id": id, "renditions": renditions, "poster": format!("{id}/poster.jpg"), "duration_s": 10.0 });
        assert_eq!(self.event(Some(user), (&format!("{id}:ready"), "video.ready"), data).await, StatusCode::NO_CONTENT);
    }
}

#[tokio::test]
async fn an_announced_video_gets_a_grant_of_its_own_size_and_is_listed() {
    let scene = scene().await;
    let (status, body) = scene.announce("ada", json!({ "name": " film.mp4 ", "size": 7, "type": "video/mp4" })).await;
    assert_eq!(status, StatusCode::CREATED);
    let id = body["id"].as_str().unwrap();
    assert_eq!(body["upload"]["url"], format!("https://host/originals/{id}/original?sig"));
    assert_eq!((&body["upload"]["method"], &body["upload"]["headers"]["content-type"]), (&json!("PUT"), &json!("video/mp4")));
    let (_, list) = scene.ask("GET", "/api/videos", "ada").await;
    let video = &list["videos"][0];
    assert_eq!((&video["id"], &video["name"], &video["state"]), (&json!(id), &json!("film.mp4"), &json!("awaiting_upload")));
    assert!(video.get("owner").is_none() && list["next_before"].is_null());
    assert!(OffsetDateTime::parse(video["created_at"].as_str().unwrap(), &Rfc3339).is_ok());
}

// N2, N3
#[tokio::test]
async fn an_upload_goes_on_for_its_own_person_and_until_it_is_there() {
    let scene = scene().await;
    let id = scene.add("ada").await;
    let path = format!("/api/videos/{id}/upload");
    let (status, plan) = scene.ask("POST", &path, "ada").await;
    assert_eq!((status, &plan["parts"][0]["number"], &plan["complete"]), (StatusCode::OK, &json!(1), &json!(false)));
    assert_eq!(scene.ask("POST", &path, "eve").await.0, StatusCode::NOT_FOUND);
    assert_eq!(scene.ask("POST", "/api/videos/none/upload", "ada").await.0, StatusCode::NOT_FOUND);
    let asked = |scene: &Scene| scene.neighbour.0.lock().unwrap().iter().filter(|line| line.contains("presign-parts")).count();
    assert_eq!(asked(&scene), 1, "nothing was asked for another person");
    scene.event(Some("ada"), ("e1", "video.uploaded"), json!({ "video_id": id })).await;
    assert_eq!(scene.ask("POST", &path, "ada").await.1["complete"], true);
    assert_eq!(asked(&scene), 1);
}

#[tokio::test]
async fn wishes_that_cannot_be_granted_are_refused_with_a_hint() {
    let scene = scene().await;
    for (wish, word) in [
        (json!({ "name": "", "size": 7, "type": "video/mp4" }), "no name"),
        (json!({ "name": "x".repeat(201), "size": 7, "type": "video/mp4" }), "too long"),
        (json!({ "name": "a\nb", "size": 7, "type": "video/mp4" }), "unprintable"),
        (json!({ "name": "f", "size": 0, "type": "video/mp4" }), "empty"),
        (json!({ "name": "f", "size": (2u64 << 30) + 1, "type": "video/mp4" }), "too large"),
        (json!({ "name": "f", "size": 7, "type": "video/quicktime" }), "not taken"),
        (json!({ "name": "f", "size": -1, "type": "video/mp4" }), "understood"),
        (json!("junk"), "understood"),
    ] {
        let (status, body) = scene.announce("ada", wish).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(body["error"].as_str().unwrap().contains(word) && !body["hint"].as_str().unwrap().is_empty(), "{body}");
    }
    let largest = json!({ "name": "x".repeat(200), "size": 2u64 << 30, "type": "video/webm" });
    assert_eq!(scene.announce("ada", largest).await.0, StatusCode::CREATED);
    assert!(scene.neighbour.0.lock().unwrap().len() == 1, "nothing was asked of the store for the others");
}

// N3
#[tokio::test]
async fn another_persons_videos_are_as_if_they_were_not_there() {
    let scene = scene().await;
    let id = scene.add("ada").await;
    scene.ready("ada", &id).await;
    scene.neighbour.0.lock().unwrap().clear();
    for (method, path) in
        [("GET", format!("/api/videos/{id}")), ("GET", format!("/api/videos/{id}/watch")), ("DELETE", format!("/api/videos/{id}"))]
    {
        assert_eq!(scene.ask(method, &path, "bob").await.0, StatusCode::NOT_FOUND, "{method} {path}");
    }
    assert_eq!(scene.ask("GET", "/api/videos", "bob").await.1["videos"], json!([]));
    assert!(scene.neighbour.0.lock().unwrap().is_empty(), "the store was not asked");
    assert_eq!(scene.ask("GET", &format!("/api/videos/{id}"), "ada").await.0, StatusCode::OK);
    let anonymous = Request::get("/api/videos").body(Body::empty()).unwrap();
    assert_eq!(scene.send(anonymous).await.0, StatusCode::UNAUTHORIZED);
}

// N3
#[tokio::test]
async fn an_event_of_another_persons_work_changes_nothing() {
    let scene = scene().await;
    let id = scene.add("ada").await;
    let data = json!({ "video_id": id, "reason": "mine now" });
    assert_eq!(scene.event(Some("bob"), ("e1", "video.failed"), data.clone()).await, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(scene.ask("GET", &format!("/api/videos/{id}"), "ada").await.1["state"], "awaiting_upload");
    assert_eq!(scene.event(None, ("e1", "video.failed"), data).await, StatusCode::NO_CONTENT);
    assert_eq!(scene.ask("GET", &format!("/api/videos/{id}"), "ada").await.1["state"], "failed");
}

// N3, H4: who holds the job of one video tells nothing about another of the same person.
#[tokio::test]
async fn an_event_of_the_work_on_another_video_changes_nothing() {
    let scene = scene().await;
    let (own, other) = (scene.add("ada").await, scene.add("ada").await);
    let failed = json!({ "video_id": other, "reason": "no" });
    for subject in [
        format!("originals/{own}/original"),
        format!("renditions/{other}/original"),
        format!("originals/{other}/else"),
        format!("originals/{other}"),
        String::from("x"),
    ] {
        let status = scene.event_of(Some("ada"), ("e1", "video.failed"), &subject, failed.clone()).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{subject}");
    }
    assert_eq!(scene.ask("GET", &format!("/api/videos/{other}"), "ada").await.1["state"], "awaiting_upload");
    assert_eq!(scene.event(Some("ada"), ("e1", "video.failed"), failed).await, StatusCode::NO_CONTENT);
    assert_eq!(scene.ask("GET", &format!("/api/videos/{other}"), "ada").await.1["state"], "failed");
}

// H1: what the queue gives up does not stay "transcoding" for ever; what is ready stays ready.
#[tokio::test]
async fn a_dead_letter_makes_a_video_failed_with_a_reason() {
    let scene = scene().await;
    let (stuck, ready) = (scene.add("ada").await, scene.add("ada").await);
    scene.event(Some("ada"), ("e1", "video.progress"), json!({ "video_id": stuck, "percent": 5 })).await;
    scene.ready("ada", &ready).await;
    let told = json!({ "queue": "validated", "kind": "video.validated", "id": "x", "reason": "3 deliveries failed" });
    for (event, id) in [("d1", &stuck), ("d2", &ready)] {
        let subject = format!("originals/{id}/original");
        assert_eq!(scene.event_of(Some("ada"), (event, "queue.dead_letter"), &subject, told.clone()).await, StatusCode::NO_CONTENT);
    }
    let (_, video) = scene.ask("GET", &format!("/api/videos/{stuck}"), "ada").await;
    assert_eq!(video["state"], "failed");
    assert!(video["reason"].as_str().unwrap().contains("given up"), "{video}");
    assert_eq!(scene.ask("GET", &format!("/api/videos/{ready}"), "ada").await.1["state"], "ready");
}

// What is still being made while its video is deleted is deleted when it is done, and nothing of another video.
#[tokio::test]
async fn a_deleted_video_leaves_no_renditions_behind() {
    let scene = scene().await;
    let id = scene.add("ada").await;
    scene.event(Some("ada"), ("e1", "video.progress"), json!({ "video_id": id, "percent": 5 })).await;
    assert_eq!(scene.ask("DELETE", &format!("/api/videos/{id}"), "ada").await.0, StatusCode::NO_CONTENT);
    scene.neighbour.0.lock().unwrap().clear();
    let made = |key: String| json!({ "name": "180p", "key": key, "width": 320, "height": 180, "duration_s": 1.0, "bytes": 5 });
    let renditions = [made(format!("{id}/180p.mp4")), made(String::from("elsewhere/180p.mp4"))];
    let data = json!({ "video_id": id, "renditions": renditions, "poster": format!("{id}/poster.jpg"), "duration_s": 1.0 });
    assert_eq!(scene.event(Some("ada"), ("e2", "video.ready"), data).await, StatusCode::NO_CONTENT);
    let deleted = scene.neighbour.0.lock().unwrap().clone();
    let expected = ["180p.mp4", "360p.mp4", "720p.mp4", "poster.jpg", "small.mp4"].map(|name| format!("DELETE /renditions/{id}/{name}"));
    assert_eq!(deleted, expected);
}

// H1
#[tokio::test]
async fn events_are_applied_once_and_forward_only_in_any_order() {
    let scene = scene().await;
    let id = scene.add("ada").await;
    let path = format!("/api/videos/{id}");
    let progress = |percent: u8| json!({ "video_id": id, "percent": percent });
    for (event, kind, data, state, done) in [
        ("e1", "video.uploaded", json!({ "video_id": id }), "uploaded", 0),
        ("e2", "video.progress", progress(40), "transcoding", 40),
        ("e3", "video.validated", json!({ "video_id": id, "duration_s": 10.0 }), "transcoding", 40),
        ("e4", "video.progress", progress(20), "transcoding", 40),
        ("e5", "video.progress", progress(60), "transcoding", 60),
        ("e5", "video.progress", progress(90), "transcoding", 60),
        ("e6", "video.progress", progress(255), "transcoding", 99),
        ("e7", "video.failed", json!({ "video_id": id, "reason": "broken" }), "failed", 99),
        ("e8", "video.progress", progress(50), "failed", 99),
    ] {
        assert_eq!(scene.event(Some("ada"), (event, kind), data).await, StatusCode::NO_CONTENT);
        let (_, video) = scene.ask("GET", &path, "ada").await;
        assert_eq!((&video["state"], &video["progress"]), (&json!(state), &json!(done)), "{event}");
    }
    scene.ready("ada", &id).await;
    assert_eq!(scene.event(Some("ada"), ("e9", "video.progress"), progress(10)).await, StatusCode::NO_CONTENT);
    let rejected = json!({ "video_id": id, "reason": "late" });
    assert_eq!(scene.event(Some("ada"), ("e10", "video.rejected"), rejected).await, StatusCode::NO_CONTENT);
    let (_, video) = scene.ask("GET", &path, "ada").await;
    assert_eq!((&video["state"], &video["progress"], &video["reason"]), (&json!("ready"), &json!(100), &Value::Null));
    // What was answered is on the disk.
    let again = Catalogue::open(scene.folder.path()).await.unwrap();
    assert_eq!(again.find("ada", Uuid::parse_str(&id).unwrap()).await.unwrap().unwrap().state, State::Ready);
}

#[tokio::test]
async fn events_that_make_no_sense_are_refused_for_good_and_news_of_the_deleted_is_dropped() {
    let scene = scene().await;
    let id = scene.add("ada").await;
    for (kind, data) in [
        ("video.other", json!({ "video_id": id })),
        ("video.ready", json!({ "video_id": id })),
        ("video.progress", json!({ "percent": 5 })),
        ("video.progress", json!({ "video_id": "x", "percent": 5 })),
    ] {
        assert_eq!(scene.event(Some("ada"), ("e", kind), data).await, StatusCode::UNPROCESSABLE_ENTITY, "{kind}");
    }
    let gone = json!({ "video_id": Uuid::now_v7(), "percent": 5 });
    assert_eq!(scene.event(Some("ada"), ("e", "video.progress"), gone).await, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn grants_to_watch_are_made_on_demand_and_only_for_what_is_ready() {
    let scene = scene().await;
    let id = scene.add("ada").await;
    let path = format!("/api/videos/{id}/watch");
    assert_eq!(scene.ask("GET", &path, "ada").await.0, StatusCode::CONFLICT);
    scene.ready("ada", &id).await;
    let (status, watch) = scene.ask("GET", &path, "ada").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(watch["renditions"][0]["url"], format!("https://host/renditions/{id}/720p.mp4?sig"));
    assert_eq!(watch["poster_url"], format!("https://host/renditions/{id}/poster.jpg?sig"));
}

#[tokio::test]
async fn deleting_takes_the_objects_and_the_row() {
    let scene = scene().await;
    let (ready, unfinished) = (scene.add("ada").await, scene.add("ada").await);
    scene.ready("ada", &ready).await;
    for id in [&ready, &unfinished] {
        assert_eq!(scene.ask("DELETE", &format!("/api/videos/{id}"), "ada").await.0, StatusCode::NO_CONTENT);
        assert_eq!(scene.ask("GET", &format!("/api/videos/{id}"), "ada").await.0, StatusCode::NOT_FOUND);
    }
    let deleted: Vec<String> = scene.neighbour.0.lock().unwrap().iter().filter(|line| line.starts_with("DELETE")).cloned().collect();
    let expected = [
        format!("DELETE /originals/{ready}/original"),
        format!("DELETE /renditions/{ready}/720p.mp4"),
        format!("DELETE /renditions/{ready}/poster.jpg"),
        format!("DELETE /originals/{unfinished}/original"),
    ];
    assert_eq!(deleted, expected);
}

#[tokio::test]
async fn a_list_comes_in_pages_newest_first() {
    let scene = scene().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.insert(0, scene.add("ada").await);
    }
    let mut seen = Vec::new();
    let mut path = String::from("/api/videos?limit=2");
    loop {
        let (_, page) = scene.ask("GET", &path, "ada").await;
        seen.extend(page["videos"].as_array().unwrap().iter().map(|video| video["id"].as_str().unwrap().to_owned()));
        let Some(next) = page["next_before"].as_str() else { break };
        path = format!("/api/videos?limit=2&before={next}");
    }
    assert_eq!(seen, ids);
    assert_eq!(scene.ask("GET", "/api/videos?before=x", "ada").await.0, StatusCode::BAD_REQUEST);
}
