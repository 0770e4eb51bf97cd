//! Quarantine, verdicts, and authority that ends with its lease. (G11, H5)
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::sync::atomic::AtomicBool;

use serde_json::json;

use super::*;

async fn rule(objects: &Objects, who: &Caller, uri: &str, verdict: &str) -> StatusCode {
    let said = json!({ "verdict": verdict, "reason": "looked at", "media_type": "video/mp4" });
    send(objects, who, Method::POST, &format!("{uri}?verdict"), &[], said.to_string()).await.status()
}

fn worker(world: &World, lease: &str, name: &str, input: &str) -> Caller {
    caller(service(name), Some(world.job(lease, name, input, "ada")))
}

// G11: until the verdict only the validator's job reads; afterwards the declared readers, or nobody.
#[tokio::test]
async fn an_upload_waits_for_its_verdict() {
    for (verdict, after) in [("clean", StatusCode::OK), ("rejected", StatusCode::FORBIDDEN)] {
        let world = World::new();
        let objects = world.open().await;
        let content = upload(&objects, "v1/original", 5000).await;
        let (validator, transcoder) =
            (worker(&world, "l1", "validator", "originals/v1/original"), worker(&world, "l2", "transcoder", "originals/v1/original"));
        let uri = "/originals/v1/original";
        assert_eq!(get(&objects, &transcoder, uri).await.status(), StatusCode::FORBIDDEN);
        assert_eq!(rule(&objects, &validator, uri, verdict).await, StatusCode::CONFLICT, "a verdict without looking");
        assert_eq!(bytes(get(&objects, &validator, uri).await).await, content);
        for (who, what) in [
            (worker(&world, "l3", "validator", "originals/v2/original"), "another job"),
            (worker(&world, "l4", "transcoder", "originals/v1/original"), "another service"),
            (caller(service("validator"), Some(person("ada", "process"))), "no job"),
            (caller(service("validator"), None), "nobody's authority"),
            (caller(service("validator"), Some(world.job("l5", "validator", "originals/v1/original", "eve"))), "another person's job"),
        ] {
            assert_eq!(rule(&objects, &who, uri, "clean").await, StatusCode::FORBIDDEN, "{what}");
        }
        assert_eq!(rule(&objects, &validator, uri, verdict).await, StatusCode::NO_CONTENT);
        assert_eq!(rule(&objects, &validator, uri, verdict).await, StatusCode::NO_CONTENT, "a redelivered job says it again");
        let other = if verdict == "clean" { "rejected" } else { "clean" };
        assert_eq!(rule(&objects, &validator, uri, other).await, StatusCode::CONFLICT, "a verdict is for good");
        assert_eq!(get(&objects, &transcoder, uri).await.status(), after);
        let objects = world.open().await;
        assert_eq!(get(&objects, &transcoder, uri).await.status(), after, "also after a restart");
        assert_eq!(
            world.sink.audit.lock().unwrap().iter().filter(|r| r.fields.get("act").is_some_and(|a| a == "objects.verdict")).count(),
            1
        );
    }
}

// G11: bytes put in the place of those that were looked at get nothing of their verdict.
#[tokio::test]
async fn a_verdict_is_about_the_bytes_that_were_read() {
    let world = World::new();
    let objects = world.open().await;
    upload(&objects, "v1/original", 5000).await;
    let (uri, validator) = ("/originals/v1/original", worker(&world, "l1", "validator", "originals/v1/original"));
    assert_eq!(get(&objects, &validator, uri).await.status(), StatusCode::OK);
    let wish = json!({ "method": "PUT", "expires_s": 60, "content_length": 3, "content_type": "video/mp4" });
    let again = send(&objects, &api("upload"), Method::POST, &format!("{uri}?presign"), &[], wish.to_string()).await;
    assert_eq!(again.status(), StatusCode::CONFLICT, "originals are written once");
    assert_eq!(send(&objects, &api("manage"), Method::DELETE, uri, &[], "").await.status(), StatusCode::NO_CONTENT);
    upload(&objects, "v1/original", 6000).await;
    assert_eq!(rule(&objects, &validator, uri, "clean").await, StatusCode::CONFLICT);
    // Having read both, it knows neither.
    assert_eq!(get(&objects, &validator, uri).await.status(), StatusCode::OK);
    assert_eq!(rule(&objects, &validator, uri, "clean").await, StatusCode::CONFLICT);
    let next = worker(&world, "l2", "validator", "originals/v1/original");
    assert_eq!(get(&objects, &next, uri).await.status(), StatusCode::OK);
    assert_eq!(rule(&objects, &next, uri, "clean").await, StatusCode::NO_CONTENT);
}

// G11: many readers race one validator; none reads early.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_reader_is_ever_early() {
    let world = World::new();
    let objects = world.open().await;
    for round in 0..5 {
        let input = format!("originals/r{round}/original");
        let ruled = Arc::new(AtomicBool::new(false));
        let readers: Vec<_> = (0..4)
            .map(|n| {
                let (objects, ruled) = (objects.clone(), ruled.clone());
                let (who, uri) = (worker(&world, &format!("r{round}-{n}"), "transcoder", &input), format!("/{input}"));
                tokio::spawn(async move {
                    let mut refused = 0;
                    loop {
                        let status = get(&objects, &who, &uri).await.status();
                        if status.is_success() {
                            assert!(ruled.load(Ordering::SeqCst), "read before the verdict was asked for");
                            return refused;
                        }
                        refused += 1;
                        assert!(refused < 100_000, "never readable: {status}");
                        tokio::task::yield_now().await;
                    }
                })
            })
            .collect();
        upload(&objects, &format!("r{round}/original"), 2 * MIB).await;
        let validator = worker(&world, &format!("v{round}"), "validator", &input);
        bytes(get(&objects, &validator, &format!("/{input}")).await).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        ruled.store(true, Ordering::SeqCst);
        assert_eq!(rule(&objects, &validator, &format!("/{input}"), "clean").await, StatusCode::NO_CONTENT);
        for reader in readers {
            assert!(reader.await.unwrap() > 0);
        }
    }
}

// H5: with the lease ends every use of the authority, before, while and after; a queue that cannot be asked is a no.
#[tokio::test]
async fn a_jobs_authority_ends_with_its_lease() {
    let world = World::new();
    let objects = world.open().await;
    upload(&objects, "v1/original", 20 * MIB).await;
    let (uri, validator) = ("/originals/v1/original", worker(&world, "l1", "validator", "originals/v1/original"));
    let mut reading = get(&objects, &validator, uri).await.into_body();
    let first = reading.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first.len(), MIB);
    world.queue.down.store(true, Ordering::SeqCst);
    assert_eq!(get(&objects, &validator, uri).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    world.queue.down.store(false, Ordering::SeqCst);
    world.end_lease("l1");
    for method in [Method::GET, Method::HEAD] {
        assert_eq!(send(&objects, &validator, method, uri, &[], "").await.status(), StatusCode::FORBIDDEN);
    }
    assert_eq!(rule(&objects, &validator, uri, "clean").await, StatusCode::FORBIDDEN);
    let (mut more, mut broken) = (0, false);
    while let Some(frame) = reading.frame().await {
        match frame {
            Ok(data) => more += data.into_data().unwrap().len(),
            Err(_) => broken = true,
        }
    }
    assert!(broken && more <= 8 * MIB, "the read went on for {more} bytes");
    let stolen = caller(service("transcoder"), Some(world.job("l9", "validator", "originals/v1/original", "ada")));
    assert_eq!(get(&objects, &stolen, uri).await.status(), StatusCode::FORBIDDEN);
}

// H5: a write whose lease ends while its bytes come is not committed.
#[tokio::test]
async fn a_write_is_not_committed_after_its_lease() {
    let world = World::new();
    let objects = world.open().await;
    let transcoder = worker(&world, "l1", "transcoder", "originals/v1/original");
    for (uri, expect) in [
        ("/renditions/v1/720p.mp4", StatusCode::OK),
        ("/renditions/v2/720p.mp4", StatusCode::FORBIDDEN),
        ("/renditions/720p.mp4", StatusCode::FORBIDDEN),
        ("/originals/v1/other", StatusCode::FORBIDDEN),
    ] {
        assert_eq!(put(&objects, &transcoder, uri, "video/mp4", "x").await.status(), expect, "{uri}");
    }
    let (pieces, source) = tokio::sync::mpsc::channel::<Bytes>(1);
    let stream = futures::stream::unfold(source, |mut source| async move {
        source.recv().await.map(|bytes| (Ok::<_, contract::BoxError>(http_body::Frame::data(bytes)), source))
    });
    let mut request = request(Method::PUT, "/renditions/v1/1080p.mp4", &[("content-type", "video/mp4")], "");
    request.headers_mut().insert("content-length", "10".parse().unwrap());
    *request.body_mut() = http_body_util::StreamBody::new(stream).boxed_unsync();
    let (writer, room) = (transcoder.clone(), objects.clone());
    let answer = tokio::spawn(async move { room.call(writer, request).await.status() });
    // The channel holds one piece: once the second is in, the first was taken, so the write is under way.
    pieces.send(Bytes::from_static(b"01")).await.unwrap();
    pieces.send(Bytes::from_static(b"234")).await.unwrap();
    world.end_lease("l1");
    pieces.send(Bytes::from_static(b"56789")).await.unwrap();
    drop(pieces);
    assert_eq!(answer.await.unwrap(), StatusCode::FORBIDDEN);
    assert_eq!((files_in(&world, "blobs"), files_in(&world, "incoming")), (1, 0));
    let viewer = api("view");
    let wish = json!({ "method": "GET", "expires_s": 60 });
    let absent = send(&objects, &viewer, Method::POST, "/renditions/v1/1080p.mp4?presign", &[], wish.to_string()).await;
    assert_eq!(absent.status(), StatusCode::NOT_FOUND);
    assert_eq!(granted(&objects, &viewer, "/renditions/v1/720p.mp4", wish).await.method, "GET");
}
