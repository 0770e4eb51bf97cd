//! Uploads in parts from browsers: what each URL allows, and that they go on after anything. (G3, G5, G6, G8, N2)
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use contract::objects::PresignedParts;
use serde_json::json;

use super::*;
use crate::parts::{PART_BYTES, PARTS_AT_ONCE};

const PART: usize = 8 * MIB;

async fn asked(objects: &Objects, who: &Caller, key: &str, length: usize) -> Response<Body> {
    let wish = json!({ "expires_s": 60, "content_length": length, "content_type": "video/mp4" }).to_string();
    send(objects, who, Method::POST, &format!("/originals/{key}?presign-parts"), &[("content-type", "application/json")], wish).await
}

async fn planned(objects: &Objects, key: &str, length: usize) -> PresignedParts {
    let response = asked(objects, &api("upload"), key, length).await;
    assert_eq!(response.status(), StatusCode::OK);
    serde_json::from_slice(&bytes(response).await).unwrap()
}

fn piece(content: &[u8], number: u32) -> Vec<u8> {
    content.chunks(PART).nth(usize::try_from(number).unwrap() - 1).unwrap().to_vec()
}

async fn part(objects: &Objects, url: &str, content: impl Into<Bytes>) -> StatusCode {
    redeem(objects, Method::PUT, url, &[], content).await.status()
}

fn numbers(plan: &PresignedParts) -> (Vec<u32>, Vec<u32>) {
    (plan.stored.iter().map(|p| p.number).collect(), plan.parts.iter().map(|p| p.number).collect())
}

// N2: broken, forgotten, restarted; what is there is not asked for again, and the whole is what was sent.
#[tokio::test]
async fn an_upload_goes_on_where_it_stopped() {
    let world = World::new();
    let objects = world.open().await;
    let content = pattern(2 * PART + 1234);
    let plan = planned(&objects, "v1/original", content.len()).await;
    assert_eq!((plan.complete, plan.part_bytes, numbers(&plan)), (false, PART_BYTES, (vec![], vec![1, 2, 3])));
    assert_eq!(plan.parts.iter().map(|p| p.bytes).collect::<Vec<_>>(), [PART_BYTES, PART_BYTES, 1234]);
    assert_eq!(part(&objects, &plan.parts[1].url, piece(&content, 2)).await, StatusCode::OK);
    // The connection breaks within the first part: nothing of it is kept.
    let broken = futures::stream::iter([
        Ok(http_body::Frame::data(Bytes::from(content[..MIB].to_vec()))),
        Err(contract::BoxError::from("the connection broke")),
    ]);
    let original = plan.parts[0].url.strip_prefix(ORIGIN).unwrap();
    let mut cut = request(
        Method::PUT,
        &format!("/presigned{original}"),
        &[(contract::objects::ORIGINAL_URI_HEADER, original), (contract::objects::PUBLIC_ORIGIN_HEADER, ORIGIN)],
        "",
    );
    cut.headers_mut().insert("content-length", PART.to_string().parse().unwrap());
    *cut.body_mut() = http_body_util::StreamBody::new(broken).boxed_unsync();
    assert_eq!(objects.call(caller(domain().role("edge"), None), cut).await.status(), StatusCode::BAD_REQUEST);
    assert_eq!((files_in(&world, "blobs"), files_in(&world, "incoming")), (1, 0));
    drop(objects);
    // Another process, another page: only the person and the file are the same.
    let objects = world.open().await;
    let plan = planned(&objects, "v1/original", content.len()).await;
    assert_eq!(numbers(&plan), (vec![2], vec![1, 3]));
    assert_eq!(plan.stored[0].sha256, trust::Digest::of(&piece(&content, 2)).to_hex());
    for wanted in &plan.parts {
        assert_eq!(part(&objects, &wanted.url, piece(&content, wanted.number)).await, StatusCode::OK);
    }
    let plan = planned(&objects, "v1/original", content.len()).await;
    assert!(plan.complete && plan.parts.is_empty());
    let validator = caller(service("validator"), Some(world.job("l", "validator", "originals/v1/original", "ada")));
    let whole = get(&objects, &validator, "/originals/v1/original").await;
    assert_eq!((whole.status(), whole.headers()["content-type"].to_str().unwrap()), (StatusCode::OK, "video/mp4"));
    assert!(bytes(whole).await == content);
    // G10, G11: told of once, and quarantined like any upload.
    let told = tokio::spawn(crate::Messenger::new(objects.clone()).run());
    for _ in 0..500 {
        if !world.queue.published.lock().unwrap().is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    told.abort();
    let published = world.queue.published.lock().unwrap();
    assert_eq!((published.len(), published[0].0.subject.as_deref()), (1, Some("originals/v1/original")));
    assert_eq!(published[0].1.user, "ada");
}

// G5, G8: a part's URL is good for one PUT of that part of that upload by that many bytes, and for nothing else.
#[tokio::test]
async fn a_parts_url_is_bound_to_method_key_upload_number_size_and_time() {
    let world = World::new();
    let objects = world.open().await;
    let content = pattern(PART + 5);
    let plan = planned(&objects, "v1/original", content.len()).await;
    let other = planned(&objects, "v2/original", content.len()).await;
    let (first, last) = (plan.parts[0].url.clone(), plan.parts[1].url.clone());
    let id = |url: &str| url.split("uploadId=").nth(1).unwrap().split('&').next().unwrap().to_owned();
    assert_ne!(id(&first), id(&other.parts[0].url));
    let changes = [
        last.replace("partNumber=2", "partNumber=1"),
        last.replace("partNumber=2", "partNumber=3"),
        last.replace("partNumber=2", "partNumber=02"),
        last.replace("partNumber=2&", ""),
        last.replace(&id(&last), &id(&other.parts[1].url)),
        last.replace("/v1/", "/v2/"),
        last.replace("Expires=60", "Expires=600"),
        format!("{last}&partNumber=2"),
        format!("{last}&x=y"),
    ];
    for url in &changes {
        assert_eq!(part(&objects, url, piece(&content, 2)).await, StatusCode::FORBIDDEN, "{url}");
    }
    for method in [Method::GET, Method::HEAD, Method::POST, Method::DELETE] {
        let status = redeem(&objects, method.clone(), &last, &[], piece(&content, 2)).await.status();
        assert!(matches!(status.as_u16(), 403..=405), "{method}: {status}");
    }
    for size in [4, 6] {
        assert_eq!(part(&objects, &last, pattern(size)).await, StatusCode::FORBIDDEN, "{size} bytes announced");
    }
    // More or fewer bytes than announced.
    for (sent, expect) in [(4, 400), (6, 413)] {
        let status = redeem(&objects, Method::PUT, &last, &[("content-length", "5")], pattern(sent)).await.status();
        // The helper sets the true length first; two lengths are none.
        assert!(status == StatusCode::FORBIDDEN || status.as_u16() == expect, "{sent}: {status}");
    }
    // Who is granted one object cannot be granted parts of another's by their ids: others' uploads do not exist.
    let eve = caller(service("api"), Some(person("eve", "upload")));
    let hers: PresignedParts = serde_json::from_slice(&bytes(asked(&objects, &eve, "v1/original", content.len()).await).await).unwrap();
    assert_ne!(id(&hers.parts[0].url), id(&first));
    assert_eq!(part(&objects, &last, piece(&content, 2)).await, StatusCode::OK);
    assert_eq!(part(&objects, &last, piece(&content, 2)).await, StatusCode::FORBIDDEN, "once");
    let again: PresignedParts = serde_json::from_slice(&bytes(asked(&objects, &eve, "v1/original", content.len()).await).await).unwrap();
    assert!(again.stored.is_empty(), "another person cannot go on with it");
    world.clock.advance(60_000);
    let plan = planned(&objects, "v1/original", content.len()).await;
    world.clock.advance(60_000);
    assert_eq!(part(&objects, &plan.parts[0].url, piece(&content, 1)).await, StatusCode::OK, "in its last second");
    assert_eq!(part(&objects, &first, piece(&content, 1)).await, StatusCode::FORBIDDEN, "ended");
}

// G6: all parts together are what was granted; one byte more is granted to nobody.
#[tokio::test]
async fn parts_are_bounded_by_what_the_bucket_takes() {
    let world = World::new();
    world.edit("originals", |b| b.object_bytes_max = u64::try_from(PART).unwrap() + 1);
    let objects = world.open().await;
    for (length, expect) in [(0, 400), (PART + 1, 200), (PART + 2, 413)] {
        assert_eq!(asked(&objects, &api("upload"), &format!("v{length}/original"), length).await.status().as_u16(), expect, "{length}");
    }
    let wish = |media_type: &str| json!({ "expires_s": 60, "content_length": 5, "content_type": media_type }).to_string();
    let typed = [("content-type", "application/json")];
    let other = send(&objects, &api("upload"), Method::POST, "/originals/v/original?presign-parts", &typed, wish("text/html")).await;
    assert_eq!(other.status(), StatusCode::BAD_REQUEST);
    for who in [api("view"), caller(service("api"), None), filer(), caller(service("web"), Some(person("ada", "upload")))] {
        assert_eq!(asked(&objects, &who, "v/original", 5).await.status(), StatusCode::FORBIDDEN);
    }
    // A policy that changes ends URLs that are out already.
    let plan = planned(&objects, "v7/original", 5).await;
    world.edit("originals", |b| b.types = vec!["video/webm".into()]);
    assert_eq!(part(&objects, &plan.parts[0].url, "12345").await, StatusCode::BAD_REQUEST);
    assert_eq!(files_in(&world, "blobs"), 0);
}

// What has no end is ended: after a day, by deletion, by another size; and nobody fills the disk with beginnings.
#[tokio::test]
async fn unfinished_uploads_are_removed_and_few() {
    let world = World::new();
    let objects = world.open().await;
    let content = pattern(PART + 5);
    let first = planned(&objects, "v1/original", content.len()).await;
    part(&objects, &first.parts[0].url, piece(&content, 1)).await;
    assert_eq!(files_in(&world, "blobs"), 1);
    // Deleted by its person, who then has nothing there, nor URLs that work.
    assert_eq!(send(&objects, &api("manage"), Method::DELETE, "/originals/v1/original", &[], "").await.status(), StatusCode::NO_CONTENT);
    assert_eq!(files_in(&world, "blobs"), 0);
    assert_eq!(part(&objects, &first.parts[1].url, piece(&content, 2)).await, StatusCode::NOT_FOUND);
    // Begun anew with another size.
    let second = planned(&objects, "v1/original", content.len()).await;
    part(&objects, &second.parts[0].url, piece(&content, 1)).await;
    assert!(planned(&objects, "v1/original", content.len() + 1).await.stored.is_empty());
    assert_eq!(files_in(&world, "blobs"), 0);
    let third = planned(&objects, "v2/original", content.len()).await;
    part(&objects, &third.parts[0].url, piece(&content, 1)).await;
    for n in 2..20 {
        assert_eq!(asked(&objects, &api("upload"), &format!("many{n}/original"), 5).await.status(), StatusCode::OK, "{n}");
    }
    assert_eq!(asked(&objects, &api("upload"), "many20/original", 5).await.status(), StatusCode::TOO_MANY_REQUESTS);
    let eve = caller(service("api"), Some(person("eve", "upload")));
    assert_eq!(asked(&objects, &eve, "hers/original", 5).await.status(), StatusCode::OK, "one person's beginnings are not another's");
    world.clock.advance(24 * 3_600_000 - 1000);
    crate::Messenger::new(objects.clone()).tidy().await.unwrap();
    assert_eq!(files_in(&world, "blobs"), 1, "just below a day");
    world.clock.advance(2000);
    crate::Messenger::new(objects.clone()).tidy().await.unwrap();
    assert_eq!(files_in(&world, "blobs"), 0);
}

// Long ones get their URLs a few at a time.
#[tokio::test]
async fn urls_are_given_for_the_next_parts() {
    let world = World::new();
    world.edit("originals", |b| b.object_bytes_max = 2 << 30);
    let objects = world.open().await;
    let plan = planned(&objects, "v1/original", 2 << 30).await;
    assert_eq!((plan.parts.len(), plan.parts[0].number), (PARTS_AT_ONCE, 1));
    assert!(plan.removed_at.starts_with("2027-01-16T"), "a day later: {}", plan.removed_at);
}

// A service fills no upload that was granted to a browser, and does not see it in its lists.
#[tokio::test]
async fn granted_uploads_are_the_browsers_alone() {
    let world = World::new();
    let objects = world.open().await;
    let plan = planned(&objects, "v1/original", 5).await;
    let id = plan.parts[0].url.split("uploadId=").nth(1).unwrap().split('&').next().unwrap();
    for (method, query) in [(Method::PUT, "partNumber=1&"), (Method::GET, ""), (Method::POST, ""), (Method::DELETE, "")] {
        let xml = "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>\"x\"</ETag></Part></CompleteMultipartUpload>";
        let content = if method == Method::POST { xml } else { "" };
        let said =
            send(&objects, &api("upload"), method.clone(), &format!("/originals/v1/original?{query}uploadId={id}"), &[], content).await;
        assert_eq!(said.status(), StatusCode::NOT_FOUND, "{method}");
    }
}
