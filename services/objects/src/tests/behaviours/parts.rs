//! Uploads in parts.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use super::{Somebody, cases, path};

cases! {
    test_multipart_upload_empty, test_multipart_upload_small, test_multipart_upload, test_multipart_upload_multiple_sizes,
    test_multipart_upload_size_too_small, test_multipart_upload_contents, test_multipart_upload_overwrite_existing_object,
    test_multipart_upload_resend_part, test_multipart_upload_missing_part, test_multipart_upload_incorrect_etag,
    test_abort_multipart_upload, test_abort_multipart_upload_not_found, test_list_multipart_upload, test_list_multipart_upload_owner,
    test_multipart_copy_small, test_multipart_copy_without_range, test_multipart_copy_invalid_range,
    test_multipart_copy_improper_range, test_multipart_copy_special_names, test_multipart_copy_multiple_sizes,
}

const MIB: usize = super::MIB;

async fn begun(s: &Somebody, key: &str) -> String {
    s.well("POST", &format!("{}?uploads", path(key)), &[("content-type", "text/bla"), ("x-amz-meta-foo", "bar")], "").await.one("UploadId")
}

async fn part(s: &Somebody, key: &str, id: &str, number: usize, content: Vec<u8>) -> String {
    s.well("PUT", &format!("{}?partNumber={number}&uploadId={id}", path(key)), &[], content).await.header("etag")
}

async fn complete(s: &Somebody, key: &str, id: &str, tags: &[(usize, String)]) -> super::Said {
    let parts: String = tags.iter().map(|(n, tag)| format!("<Part><PartNumber>{n}</PartNumber><ETag>{tag}</ETag></Part>")).collect();
    s.ask("POST", &format!("{}?uploadId={id}", path(key)), &[], format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>")).await
}

/// Uploads `content` in parts of `size`.
async fn uploaded(s: &Somebody, key: &str, content: &[u8], size: usize) -> super::Said {
    let id = begun(s, key).await;
    let mut tags = Vec::new();
    for (n, piece) in content.chunks(size).enumerate() {
        tags.push((n + 1, part(s, key, &id, n + 1, piece.to_vec()).await));
    }
    complete(s, key, &id, &tags).await
}

async fn test_multipart_upload_empty(s: Somebody) {
    let id = begun(&s, "mymultipart").await;
    assert_eq!(complete(&s, "mymultipart", &id, &[]).await.status, 400);
}

async fn test_multipart_upload_small(s: Somebody) {
    assert_eq!(uploaded(&s, "mymultipart", b"x", 5 * MIB).await.status, 200);
    assert_eq!(s.get("mymultipart").await.header("content-length"), "1");
}

async fn test_multipart_upload(s: Somebody) {
    let content = super::pattern(12 * MIB);
    assert_eq!(uploaded(&s, "mymultipart", &content, 5 * MIB).await.status, 200);
    let there = s.get("mymultipart").await;
    assert!(there.body == content);
    assert_eq!((there.header("content-type").as_str(), there.header("x-amz-meta-foo").as_str()), ("text/bla", "bar"));
    for first in [5 * MIB - 7, 5 * MIB, 10 * MIB - 1] {
        let range = format!("bytes={first}-{}", first + 99);
        let said = s.ask("GET", &path("mymultipart"), &[("range", &range)], "").await;
        assert!(said.body == content[first..first + 100]);
    }
}

async fn test_multipart_upload_multiple_sizes(s: Somebody) {
    for size in [5 * MIB, 5 * MIB + 100 * 1024, 5 * MIB + 600 * 1024, 10 * MIB + 100 * 1024, 10 * MIB] {
        let content = super::pattern(size);
        assert_eq!(uploaded(&s, "mymultipart", &content, 5 * MIB).await.status, 200, "{size}");
        assert!(s.get("mymultipart").await.body == content, "{size}");
    }
}

async fn test_multipart_upload_size_too_small(s: Somebody) {
    uploaded(&s, "mymultipart", &super::pattern(100 * 1024), 10 * 1024).await.fails(400, "EntityTooSmall");
}

async fn test_multipart_upload_contents(s: Somebody) {
    let mut content = super::pattern(10 * MIB);
    content.extend_from_slice(b"the last part");
    uploaded(&s, "mymultipart", &content, 5 * MIB).await;
    assert!(s.get("mymultipart").await.body == content);
}

async fn test_multipart_upload_overwrite_existing_object(s: Somebody) {
    s.has(&["mymultipart"]).await;
    let content = super::pattern(5 * MIB + 3);
    assert_eq!(uploaded(&s, "mymultipart", &content, 5 * MIB).await.status, 200);
    assert!(s.get("mymultipart").await.body == content);
}

async fn test_multipart_upload_resend_part(s: Somebody) {
    let id = begun(&s, "mymultipart").await;
    part(&s, "mymultipart", &id, 1, vec![7; 5 * MIB]).await;
    let content = super::pattern(5 * MIB);
    let tag = part(&s, "mymultipart", &id, 1, content.clone()).await;
    assert_eq!(complete(&s, "mymultipart", &id, &[(1, tag)]).await.status, 200);
    assert!(s.get("mymultipart").await.body == content);
}

/// The published suite wants `InvalidPart`.
async fn test_multipart_upload_missing_part(s: Somebody) {
    let id = begun(&s, "mymultipart").await;
    let tag = part(&s, "mymultipart", &id, 1, vec![0; 1]).await;
    complete(&s, "mymultipart", &id, &[(9999, tag)]).await.fails(400, "InvalidPart");
}

async fn test_multipart_upload_incorrect_etag(s: Somebody) {
    let id = begun(&s, "mymultipart").await;
    part(&s, "mymultipart", &id, 1, vec![0; 1]).await;
    complete(&s, "mymultipart", &id, &[(1, "\"ffffffffffffffffffffffffffffffff\"".into())]).await.fails(400, "InvalidPart");
}

async fn test_abort_multipart_upload(s: Somebody) {
    let id = begun(&s, "mymultipart").await;
    part(&s, "mymultipart", &id, 1, vec![0; MIB]).await;
    assert_eq!(s.ask("DELETE", &format!("{}?uploadId={id}", path("mymultipart")), &[], "").await.status, 204);
    assert!(s.listed("").await.0.is_empty());
    s.ask("GET", &format!("{}?uploadId={id}", path("mymultipart")), &[], "").await.fails(404, "NoSuchUpload");
}

async fn test_abort_multipart_upload_not_found(s: Somebody) {
    s.ask("DELETE", &format!("{}?uploadId=56788", path("mymultipart")), &[], "").await.fails(404, "NoSuchUpload");
}

async fn test_list_multipart_upload(s: Somebody) {
    let mut begun_ids = vec![begun(&s, "mymultipart").await, begun(&s, "mymultipart").await, begun(&s, "mymultipart2").await];
    let said = s.well("GET", "/files?uploads", &[], "").await;
    assert_eq!(said.all("Key"), ["mymultipart", "mymultipart", "mymultipart2"]);
    let mut ids = said.all("UploadId");
    ids.sort();
    begun_ids.sort();
    assert_eq!(ids, begun_ids);
    // Page by page, and under a prefix.
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let said = s.well("GET", &format!("/files?uploads&max-uploads=1{after}"), &[], "").await;
        seen.extend(said.all("UploadId"));
        if said.one("IsTruncated") == "false" {
            break;
        }
        after = format!("&key-marker={}&upload-id-marker={}", said.one("NextKeyMarker"), said.one("NextUploadIdMarker"));
    }
    seen.sort();
    assert_eq!(seen, begun_ids);
    assert_eq!(s.well("GET", "/files?uploads&prefix=mymultipart2", &[], "").await.all("Key"), ["mymultipart2"]);
    assert_eq!(s.well("GET", "/files?uploads&key-marker=mymultipart", &[], "").await.all("Key"), ["mymultipart2"]);
}

/// A person's list has their own.
async fn test_list_multipart_upload_owner(s: Somebody) {
    let id = begun(&s, "mymultipart").await;
    let eve = super::caller(super::service("filer"), Some(super::person("eve", "manage")));
    let hers = super::text(super::get(&s.objects, &eve, "/files?uploads").await).await;
    assert!(!hers.contains(&id) && hers.contains("ListMultipartUploadsResult"), "{hers}");
    assert!(s.well("GET", "/files?uploads", &[], "").await.text().contains(&id));
}

async fn copied(s: &Somebody, from: &str, range: Option<&str>) -> super::Said {
    let id = begun(s, "mymultipart").await;
    let mut headers = vec![("x-amz-copy-source", from)];
    headers.extend(range.map(|range| ("x-amz-copy-source-range", range)));
    let said = s.ask("PUT", &format!("{}?partNumber=1&uploadId={id}", path("mymultipart")), &headers, "").await;
    if said.status == 200 {
        let tag = said.one("ETag").replace("&quot;", "\"");
        assert_eq!(complete(s, "mymultipart", &id, &[(1, tag)]).await.status, 200);
    }
    said
}

async fn test_multipart_copy_small(s: Somebody) {
    s.has(&["foo"]).await;
    assert_eq!(copied(&s, "files/foo", Some("bytes=0-0")).await.status, 200);
    assert_eq!(s.get("mymultipart").await.text(), "f");
}

async fn test_multipart_copy_without_range(s: Somebody) {
    s.has(&["source"]).await;
    assert_eq!(copied(&s, "files/source", None).await.status, 200);
    assert_eq!(s.get("mymultipart").await.text(), "source");
}

async fn test_multipart_copy_invalid_range(s: Somebody) {
    s.has(&["source"]).await;
    copied(&s, "files/source", Some("bytes=0-21")).await.fails(416, "InvalidRange");
}

async fn test_multipart_copy_improper_range(s: Somebody) {
    s.has(&["source"]).await;
    for range in ["0-2", "bytes=0", "bytes=hello-world", "bytes=0-bar", "bytes=hello-", "bytes=0-2,3-5", "bytes=2-1", "bytes=-2"] {
        copied(&s, "files/source", Some(range)).await.fails(400, "InvalidArgument");
    }
}

async fn test_multipart_copy_special_names(s: Somebody) {
    for key in [" ", "_", "__", "?versionId"] {
        s.has(&[key]).await;
        let from = format!("files/{}", crate::sigv4::encoded_path(key));
        assert_eq!(copied(&s, &from, None).await.status, 200, "{key}");
        assert_eq!(s.get("mymultipart").await.text(), key);
    }
}

async fn test_multipart_copy_multiple_sizes(s: Somebody) {
    let content = super::pattern(12 * MIB);
    s.well("PUT", &path("foo"), &[], content.clone()).await;
    for size in [5 * MIB, 5 * MIB + 100 * 1024, 10 * MIB + 600 * 1024] {
        let id = begun(&s, "copied").await;
        let mut tags = Vec::new();
        for (n, first) in (0..size).step_by(5 * MIB).enumerate() {
            let range = format!("bytes={first}-{}", (first + 5 * MIB).min(size) - 1);
            let headers = [("x-amz-copy-source", "files/foo"), ("x-amz-copy-source-range", range.as_str())];
            let said = s.well("PUT", &format!("{}?partNumber={}&uploadId={id}", path("copied"), n + 1), &headers, "").await;
            tags.push((n + 1, said.one("ETag").replace("&quot;", "\"")));
        }
        assert_eq!(complete(&s, "copied", &id, &tags).await.status, 200, "{size}");
        assert!(s.get("copied").await.body == content[..size], "{size}");
    }
}
