//! Crashes, damage, and memory.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;

use futures::StreamExt;
use serde_json::json;

use super::*;

fn only_blob(world: &World) -> PathBuf {
    fs::read_dir(world.folder.path().join("blobs")).unwrap().next().unwrap().unwrap().path()
}

fn flip(path: &PathBuf, at: usize) {
    let mut content = fs::read(path).unwrap();
    content[at] ^= 1;
    let mut file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.write_all(&content).unwrap();
}

// Nothing acknowledged is lost; nothing else is left.
#[tokio::test]
async fn after_a_crash_exactly_the_acknowledged_is_there() {
    let world = World::new();
    let objects = world.open().await;
    put(&objects, &filer(), "/files/a/kept", "text/plain", "kept").await;
    // As a crash leaves them: half an upload, and a whole one whose row was never committed.
    fs::write(world.folder.path().join("incoming/0123"), "half").unwrap();
    fs::write(world.folder.path().join("blobs/4567"), "whole, but not acknowledged").unwrap();
    let objects = world.open().await;
    assert_eq!((files_in(&world, "incoming"), files_in(&world, "blobs")), (0, 1));
    assert_eq!(bytes(get(&objects, &filer(), "/files/a/kept").await).await, "kept");
    // A sender that goes away, and one whose connection fails, leave nothing.
    let broken = futures::stream::iter([Ok(http_body::Frame::data(Bytes::from_static(b"part"))), Err(contract::BoxError::from("gone"))]);
    let mut request = request(Method::PUT, "/files/a/broken", &[], "");
    request.headers_mut().insert("content-length", "10".parse().unwrap());
    *request.body_mut() = http_body_util::StreamBody::new(broken).boxed_unsync();
    assert_eq!(objects.call(filer(), request).await.status(), StatusCode::BAD_REQUEST);
    assert_eq!((files_in(&world, "incoming"), files_in(&world, "blobs")), (0, 1));
    assert_eq!(get(&objects, &filer(), "/files/a/broken").await.status(), StatusCode::NOT_FOUND);
}

// A changed byte on the disk is found by whoever reads it, and never leaves: whole and by range.
#[tokio::test]
async fn a_changed_byte_is_found_and_never_served() {
    let world = World::new();
    let objects = world.open().await;
    let content = pattern(3 * MIB + 10);
    put(&objects, &filer(), "/files/a/b", "video/mp4", content.clone()).await;
    flip(&only_blob(&world), 2 * MIB + 5);
    let mut whole = get(&objects, &filer(), "/files/a/b").await.into_body();
    let (mut seen, mut broken) = (Vec::new(), false);
    while let Some(frame) = whole.frame().await {
        match frame {
            Ok(data) => seen.extend_from_slice(&data.into_data().unwrap()),
            Err(_) => broken = true,
        }
    }
    assert!(broken && seen == content[..2 * MIB], "what came before is right, and nothing came after");
    assert_eq!(world.recorded("TamperingFound"), 1);
    for (range, expect) in
        [("bytes=2097152-2097153", 500), ("bytes=3145727-3145728", 500), ("bytes=0-1048575", 206), ("bytes=3145728-", 206)]
    {
        let response = send(&objects, &filer(), Method::GET, "/files/a/b", &[("range", range)], "").await;
        assert_eq!(response.status().as_u16(), expect, "{range}");
    }
    flip(&only_blob(&world), 2 * MIB + 5);
    assert_eq!(bytes(get(&objects, &filer(), "/files/a/b").await).await, content);
    let blob = only_blob(&world);
    fs::OpenOptions::new().write(true).open(&blob).unwrap().set_len(100).unwrap();
    assert_eq!(get(&objects, &filer(), "/files/a/b").await.status(), StatusCode::INTERNAL_SERVER_ERROR, "cut short");
    fs::remove_file(&blob).unwrap();
    assert_eq!(get(&objects, &filer(), "/files/a/b").await.status(), StatusCode::INTERNAL_SERVER_ERROR, "gone");
}

// An owner, verdict or digest that was edited on the disk is found.
#[tokio::test]
async fn an_edited_row_is_found() {
    for edit in [
        "UPDATE object SET owner = 'eve'",
        "UPDATE object SET verdict = 'clean'",
        "UPDATE object SET content_type = 'text/html'",
        "UPDATE object SET etag = 'x'",
        "UPDATE blob SET chunks = zeroblob(32)",
        "UPDATE object SET key = 'v2/original'",
        "DELETE FROM segment",
    ] {
        let world = World::new();
        let objects = world.open().await;
        upload(&objects, "v1/original", 100).await;
        tamper(&world, edit).await;
        let input = if edit.contains("v2") { "originals/v2/original" } else { "originals/v1/original" };
        let validator = caller(service("validator"), Some(world.job("l", "validator", input, "ada")));
        let response = get(&objects, &validator, &format!("/{input}")).await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR, "{edit}");
        assert_eq!(world.recorded("TamperingFound"), 1, "{edit}");
    }
}

fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

// Memory does not grow with the object. (Each test is its own process under nextest; the bound holds in any case.)
#[tokio::test]
async fn a_large_object_passes_through_little_memory() {
    let world = World::new();
    let objects = world.open().await;
    let piece = Bytes::from(pattern(64 * 1024));
    let pieces = 256 * MIB / piece.len();
    let before = peak_kib();
    let stream = futures::stream::iter((0..pieces).map(move |_| Ok::<_, contract::BoxError>(http_body::Frame::data(piece.clone()))));
    let mut request = request(Method::PUT, "/files/a/large", &[], "");
    request.headers_mut().insert("content-length", (256 * MIB).into());
    *request.body_mut() = http_body_util::StreamBody::new(stream).boxed_unsync();
    assert_eq!(objects.call(filer(), request).await.status(), StatusCode::OK);
    let mut body = get(&objects, &filer(), "/files/a/large").await.into_body();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        length += frame.unwrap().into_data().unwrap().len();
    }
    assert_eq!(length, 256 * MIB);
    let grown = peak_kib() - before;
    assert!(grown < 48 * 1024, "256 MiB in and out took {grown} KiB more");
}

// A13: uploads stop before the disk is full, by whatever way they come, and nothing of one that was cut is kept. What is there stays.
#[tokio::test]
async fn uploads_stop_before_the_disk_is_full_and_go_on_once_there_is_room() {
    let world = World::new();
    let objects = world.open().await;
    put(&objects, &filer(), "/files/a/before", "text/plain", "before").await;
    let plain = json!({ "method": "PUT", "expires_s": 60, "content_length": 10, "content_type": "video/mp4" });
    let granted = granted(&objects, &api("upload"), "/originals/v1/original", plain.clone()).await;
    let floor = objects.shelf.blobs.floor.clone();
    floor.store(u64::MAX, Ordering::SeqCst);
    let full = put(&objects, &filer(), "/files/a/more", "text/plain", "more").await;
    assert_eq!(full.status(), StatusCode::INSUFFICIENT_STORAGE);
    let said = text(full).await;
    assert!(said.contains("InsufficientStorage") && said.contains("try again later"), "{said}");
    // A URL that was given before there was none left, and one that is asked for now, in one piece and in parts.
    let used = redeem(&objects, Method::PUT, &granted.url, &[("content-type", "video/mp4")], "0123456789").await;
    assert_eq!(used.status(), StatusCode::INSUFFICIENT_STORAGE);
    for (how, wish) in
        [("presign", plain), ("presign-parts", json!({ "expires_s": 60, "content_length": 10, "content_type": "video/mp4" }))]
    {
        let uri = format!("/originals/v2/original?{how}");
        let asked = send(&objects, &api("upload"), Method::POST, &uri, &[("content-type", "application/json")], wish.to_string()).await;
        assert_eq!(asked.status(), StatusCode::INSUFFICIENT_STORAGE, "{how}");
    }
    assert_eq!(bytes(get(&objects, &filer(), "/files/a/before").await).await, "before");
    // It gets full while one comes.
    floor.store(0, Ordering::SeqCst);
    let fills = floor.clone();
    let pieces = futures::stream::iter(0..4).map(move |n| {
        if n == 2 {
            fills.store(u64::MAX, Ordering::SeqCst);
        }
        Ok::<_, contract::BoxError>(http_body::Frame::data(Bytes::from(vec![0; MIB])))
    });
    let mut request = request(Method::PUT, "/files/a/growing", &[], "");
    request.headers_mut().insert("content-length", (4 * MIB).to_string().parse().unwrap());
    *request.body_mut() = http_body_util::StreamBody::new(pieces).boxed_unsync();
    assert_eq!(objects.call(filer(), request).await.status(), StatusCode::INSUFFICIENT_STORAGE);
    assert_eq!((files_in(&world, "incoming"), files_in(&world, "blobs")), (0, 1));
    floor.store(0, Ordering::SeqCst);
    assert_eq!(put(&objects, &filer(), "/files/a/more", "text/plain", "more").await.status(), StatusCode::OK);
    // The URL was not used up.
    let used = redeem(&objects, Method::PUT, &granted.url, &[("content-type", "video/mp4")], "0123456789").await;
    assert_eq!(used.status(), StatusCode::OK);
}

// The floor leaves the room that it says: it is asked of the disk that the store is on.
#[tokio::test]
async fn the_floor_is_what_the_disk_has_free() {
    let world = World::new();
    let objects = world.open().await;
    let blobs = &objects.shelf.blobs;
    let disk = rustix::fs::statvfs(world.folder.path()).unwrap();
    let free = disk.f_bavail * disk.f_frsize;
    // Others use this disk meanwhile, hence halves.
    blobs.floor.store(free / 2, Ordering::SeqCst);
    assert!(blobs.room_for(0).is_ok() && blobs.room_for(free).is_err());
    blobs.floor.store(free.saturating_mul(2), Ordering::SeqCst);
    assert!(blobs.room_for(0).is_err());
}
