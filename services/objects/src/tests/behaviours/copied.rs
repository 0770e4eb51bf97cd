//! CopyObject.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use super::{Somebody, cases, path};

cases! {
    test_object_copy_zero_size, test_object_copy_16m, test_object_copy_same_bucket, test_object_copy_verify_contenttype,
    test_object_copy_to_itself, test_object_copy_to_itself_with_metadata, test_object_copy_diff_bucket,
    test_object_copy_not_owned_bucket, test_object_copy_not_owned_object_bucket, test_object_copy_retaining_metadata,
    test_object_copy_replacing_metadata, test_object_copy_bucket_not_found, test_object_copy_key_not_found,
}

async fn copy(s: &Somebody, from: &str, to: &str, more: &[(&str, &str)]) -> super::Said {
    let headers = [&[("x-amz-copy-source", from)], more].concat();
    s.ask("PUT", to, &headers, "").await
}

async fn test_object_copy_zero_size(s: Somebody) {
    s.well("PUT", &path("foo123bar"), &[], "").await;
    assert_eq!(copy(&s, "files/foo123bar", &path("bar321foo"), &[]).await.status, 200);
    assert_eq!(s.get("bar321foo").await.header("content-length"), "0");
}

async fn test_object_copy_16m(s: Somebody) {
    let content = super::pattern(16 * super::MIB);
    s.well("PUT", &path("foo123bar"), &[], content.clone()).await;
    assert_eq!(copy(&s, "files/foo123bar", &path("bar321foo"), &[]).await.status, 200);
    assert!(s.get("bar321foo").await.body == content);
}

async fn test_object_copy_same_bucket(s: Somebody) {
    s.has(&["foo123bar"]).await;
    let said = copy(&s, "/files/foo123bar", &path("bar321foo"), &[]).await;
    assert_eq!(said.status, 200);
    let there = s.get("bar321foo").await;
    assert_eq!((there.text().as_str(), there.header("etag")), ("foo123bar", said.one("ETag").replace("&quot;", "\"")));
    assert!(said.one("LastModified").starts_with("20"));
}

async fn test_object_copy_verify_contenttype(s: Somebody) {
    s.well("PUT", &path("foo123bar"), &[("content-type", "text/bla")], "foo").await;
    copy(&s, "files/foo123bar", &path("bar321foo"), &[]).await;
    let there = s.get("bar321foo").await;
    assert_eq!((there.text().as_str(), there.header("content-type").as_str()), ("foo", "text/bla"));
}

async fn test_object_copy_to_itself(s: Somebody) {
    s.has(&["foo123bar"]).await;
    copy(&s, "files/foo123bar", &path("foo123bar"), &[]).await.fails(400, "InvalidRequest");
}

async fn test_object_copy_to_itself_with_metadata(s: Somebody) {
    s.has(&["foo123bar"]).await;
    let more = [("x-amz-metadata-directive", "REPLACE"), ("x-amz-meta-foo", "bar")];
    assert_eq!(copy(&s, "files/foo123bar", &path("foo123bar"), &more).await.status, 200);
    let there = s.get("foo123bar").await;
    assert_eq!((there.text().as_str(), there.header("x-amz-meta-foo").as_str()), ("foo123bar", "bar"));
}

async fn test_object_copy_diff_bucket(s: Somebody) {
    s.well("PUT", &path("foo123bar"), &[("content-type", "video/mp4")], "foo").await;
    assert_eq!(copy(&s, "files/foo123bar", "/albums/bar321foo", &[]).await.status, 200);
    assert_eq!(s.ask("GET", "/albums/bar321foo", &[], "").await.text(), "foo");
}

async fn test_object_copy_not_owned_bucket(s: Somebody) {
    s.has(&["foo123bar"]).await;
    copy(&s, "files/foo123bar", "/renditions/bar321foo", &[]).await.fails(403, "AccessDenied");
}

async fn test_object_copy_not_owned_object_bucket(s: Somebody) {
    s.has(&["foo123bar"]).await;
    let eve = super::caller(super::service("filer"), Some(super::person("eve", "manage")));
    let headers = [("x-amz-copy-source", "files/foo123bar")];
    let said = super::send(&s.objects, &eve, http::Method::PUT, "/files/bar321foo", &headers, "").await;
    assert_eq!(said.status(), 403);
    assert_eq!(s.get("bar321foo").await.status, 404);
}

async fn test_object_copy_retaining_metadata(s: Somebody) {
    for content in [Vec::new(), super::pattern(super::MIB)] {
        let first = [("content-type", "audio/ogg"), ("x-amz-meta-key1", "value1"), ("x-amz-meta-key2", "value2")];
        s.well("PUT", &path("foo123bar"), &first, content.clone()).await;
        // What the request says of itself is not the copy's without REPLACE.
        copy(&s, "files/foo123bar", &path("bar321foo"), &[("content-type", "text/plain"), ("x-amz-meta-key1", "other")]).await;
        let there = s.get("bar321foo").await;
        let told = ["content-type", "x-amz-meta-key1", "x-amz-meta-key2"].map(|name| there.header(name));
        assert_eq!(told, ["audio/ogg", "value1", "value2"]);
        assert!(there.body == content);
    }
}

async fn test_object_copy_replacing_metadata(s: Somebody) {
    s.well("PUT", &path("foo123bar"), &[("content-type", "audio/ogg"), ("x-amz-meta-key1", "value1")], "foo").await;
    let more = [("x-amz-metadata-directive", "REPLACE"), ("content-type", "audio/mpeg"), ("x-amz-meta-key3", "value3")];
    assert_eq!(copy(&s, "files/foo123bar", &path("bar321foo"), &more).await.status, 200);
    let there = s.get("bar321foo").await;
    let told = ["content-type", "x-amz-meta-key1", "x-amz-meta-key3"].map(|name| there.header(name));
    assert_eq!(told, ["audio/mpeg", "", "value3"]);
}

async fn test_object_copy_bucket_not_found(s: Somebody) {
    copy(&s, "nowhere/foo123bar", &path("bar321foo"), &[]).await.fails(404, "NoSuchBucket");
}

async fn test_object_copy_key_not_found(s: Somebody) {
    copy(&s, "files/foo123bar", &path("bar321foo"), &[]).await.fails(404, "NoSuchKey");
}
