//! Crashes, damage, and memory.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;

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
