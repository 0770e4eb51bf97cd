//! Tests of the whole service with the real FFmpeg, against a store and a queue in memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::{collections::BTreeMap, path::Path, sync::Mutex as Lock};

use axum::{
    http::{Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};

use super::*;

const ID: &str = "0192f0c1-2b3a-7cde-8f01-23456789abcd";
const MP4: &[u8] = include_bytes!("../../../validator/fixtures/good.mp4");
const WEBM: &[u8] = include_bytes!("../../../validator/fixtures/good.webm");

#[derive(Clone, Default)]
struct Neighbour {
    objects: Arc<Lock<BTreeMap<String, Bytes>>>,
    events: Arc<Lock<Vec<(String, String, Value)>>>,
    full: bool,
}

async fn answer(State(it): State<Neighbour>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let path = uri.path().to_owned();
    if path == "/queues/status" {
        let header = |name: &str| headers[name].to_str().unwrap().to_owned();
        let event = (header("ce-type"), header("ce-id"), serde_json::from_slice(&body).unwrap());
        it.events.lock().unwrap().push(event);
        return StatusCode::ACCEPTED.into_response();
    }
    if method == Method::PUT && it.full {
        return StatusCode::INSUFFICIENT_STORAGE.into_response();
    }
    if method == Method::PUT {
        it.objects.lock().unwrap().insert(path, body);
        return StatusCode::OK.into_response();
    }
    match it.objects.lock().unwrap().get(&path) {
        Some(object) => object.clone().into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

struct Scene {
    neighbour: Neighbour,
    transcoder: Arc<Transcoder>,
    folder: tempfile::TempDir,
}

async fn scene(neighbour: Neighbour, program: &Path) -> Scene {
    let router = Router::new().fallback(answer).layer(axum::extract::DefaultBodyLimit::disable());
    let router = router.with_state(neighbour.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let folder = tempfile::tempdir().unwrap();
    let client = Client::new();
    let workshop = Workshop {
        store: Store::new(client.clone(), url.clone()),
        tracer: Tracer::new(client.clone(), None, NAME),
        ffmpeg: Ffmpeg { program: program.to_owned(), wall: Duration::from_secs(60) },
        parent: folder.path().to_owned(),
    };
    let queue = Queue::new(client, url, "/video-transcoder");
    Scene { neighbour, transcoder: Arc::new(Transcoder { workshop, queue, bench: Mutex::new(()) }), folder }
}

impl Scene {
    fn store(&self, object: &'static [u8]) {
        let key = format!("/originals/{ID}/original");
        self.neighbour.objects.lock().unwrap().insert(key, Bytes::from_static(object));
    }

    async fn deliver(&self, size: usize, demuxer: &str) -> Outcome {
        let mut headers = HeaderMap::new();
        headers.insert("ce-specversion", "1.0".parse().unwrap());
        headers.insert("ce-id", "e1".parse().unwrap());
        headers.insert("ce-type", "video.validated".parse().unwrap());
        let data = json!({
            "video_id": ID, "bucket": "originals", "key": format!("{ID}/original"), "size": size, "etag": "v1",
            "media_type": "video/mp4", "demuxer": demuxer, "width": 128, "height": 72, "duration_s": 2.0,
        });
        events(State(Arc::clone(&self.transcoder)), headers, Bytes::from(data.to_string())).await
    }

    fn events_of(&self, kind: &str) -> Vec<Value> {
        let events = self.neighbour.events.lock().unwrap();
        events.iter().filter(|event| event.0 == kind).map(|event| event.2.clone()).collect()
    }

    fn nothing_is_left(&self) -> bool {
        std::fs::read_dir(self.folder.path()).unwrap().next().is_none()
    }
}

// N1
#[tokio::test]
async fn an_mp4_and_a_webm_become_renditions_and_a_poster() {
    for (object, demuxer) in [(MP4, "mov"), (WEBM, "matroska")] {
        let scene = scene(Neighbour::default(), Path::new("/usr/bin/ffmpeg")).await;
        scene.store(object);
        for _twice in 0..2 {
            let outcome = scene.deliver(object.len(), demuxer).await;
            assert!(matches!(outcome, Outcome::Done), "{outcome:?}");
        }
        let ready = scene.events_of("video.ready");
        assert_eq!(ready.len(), 2);
        let rendition = &ready[0]["renditions"][0];
        assert_eq!((&rendition["name"], &rendition["width"], &rendition["height"]), (&json!("72p"), &json!(128), &json!(72)));
        assert!((1.7..2.3).contains(&rendition["duration_s"].as_f64().unwrap()), "{rendition}");
        assert_eq!(ready[0]["poster"], format!("{ID}/poster.jpg"));
        let objects = scene.neighbour.objects.lock().unwrap();
        let made = &objects[&format!("/renditions/{ID}/small.mp4")];
        assert_eq!(rendition["bytes"], made.len());
        assert!(objects[&format!("/renditions/{ID}/poster.jpg")].starts_with(&[0xff, 0xd8, 0xff]));
        assert!(!scene.events_of("video.progress").is_empty());
        let ids: Vec<String> =
            scene.neighbour.events.lock().unwrap().iter().filter(|event| event.0 == "video.ready").map(|event| event.1.clone()).collect();
        assert_eq!(ids[0], ids[1], "the same effect has the same id");
        assert!(scene.nothing_is_left());
    }
}

// I10: a playlist in a video's place opens nothing, since the demuxer is named.
#[tokio::test]
async fn what_ffmpeg_cannot_read_fails_for_good_and_the_person_is_told() {
    let playlist: &[u8] = b"#EXTM3U\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n";
    let scene = scene(Neighbour::default(), Path::new("/usr/bin/ffmpeg")).await;
    scene.store(playlist);
    assert!(matches!(scene.deliver(playlist.len(), "mov").await, Outcome::Never(_)));
    let failed = scene.events_of("video.failed");
    assert!(failed[0]["reason"].as_str().unwrap().contains("could not be transcoded"), "{failed:?}");
    assert!(scene.nothing_is_left());
}

#[tokio::test]
async fn trouble_with_neighbours_means_another_try() {
    let full = scene(Neighbour { full: true, ..Neighbour::default() }, Path::new("/usr/bin/ffmpeg")).await;
    full.store(MP4);
    assert!(matches!(full.deliver(MP4.len(), "mov").await, Outcome::Later(_)));
    assert!(full.events_of("video.failed").is_empty() && full.nothing_is_left());
    let other_size = scene(Neighbour::default(), Path::new("/usr/bin/ffmpeg")).await;
    other_size.store(MP4);
    assert!(matches!(other_size.deliver(MP4.len() + 1, "mov").await, Outcome::Later(_)));
    let missing = scene(Neighbour::default(), Path::new("/none")).await;
    missing.store(MP4);
    assert!(matches!(missing.deliver(MP4.len(), "mov").await, Outcome::Later(_)));
}

#[tokio::test]
async fn an_original_that_is_gone_is_not_waited_for() {
    let scene = scene(Neighbour::default(), Path::new("/usr/bin/ffmpeg")).await;
    assert!(matches!(scene.deliver(5, "mov").await, Outcome::Never(_)));
}

// I8
#[tokio::test]
async fn a_delivery_that_is_dropped_leaves_nothing_behind() {
    use std::os::unix::fs::PermissionsExt;
    let tools = tempfile::tempdir().unwrap();
    let endless = tools.path().join("ffmpeg");
    std::fs::write(&endless, "#!/bin/sh\nexec sleep 60\n").unwrap();
    std::fs::set_permissions(&endless, std::fs::Permissions::from_mode(0o755)).unwrap();
    let scene = scene(Neighbour::default(), &endless).await;
    scene.store(MP4);
    let dropped = tokio::time::timeout(Duration::from_millis(500), scene.deliver(MP4.len(), "mov")).await;
    assert!(dropped.is_err(), "it was under way");
    assert!(!scene.events_of("video.progress").is_empty(), "and said so");
    assert!(scene.nothing_is_left());
}

#[tokio::test]
async fn what_an_earlier_life_left_is_swept() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("job-old")).unwrap();
    std::fs::write(folder.path().join("job-old/in"), "x").unwrap();
    std::fs::write(folder.path().join("kept"), "x").unwrap();
    sweep(folder.path()).unwrap();
    assert!(!folder.path().join("job-old").exists() && folder.path().join("kept").exists());
}
