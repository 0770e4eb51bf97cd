//! Conditions of reads, writes, deletions and copies.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use super::{Somebody, cases, path};

cases! {
    test_get_object_ifmatch_good, test_get_object_ifmatch_failed, test_get_object_ifnonematch_good, test_get_object_ifnonematch_failed,
    test_get_object_ifmodifiedsince_good, test_get_object_ifmodifiedsince_failed, test_get_object_ifunmodifiedsince_good,
    test_get_object_ifunmodifiedsince_failed, test_put_object_ifmatch_good, test_put_object_ifmatch_failed,
    test_put_object_ifmatch_overwrite_existed_good, test_put_object_ifmatch_nonexisted_failed, test_put_object_ifnonmatch_good,
    test_put_object_ifnonmatch_failed, test_put_object_ifnonmatch_nonexisted_good,
    test_put_object_ifnonmatch_overwrite_existed_failed, test_copy_object_ifmatch_good, test_copy_object_ifmatch_failed,
    test_copy_object_ifnonematch_good, test_copy_object_ifnonematch_failed, test_delete_object_if_match,
}

// The store's clock stands at 2027-01-15.
const BEFORE: &str = "Sat, 29 Oct 1994 19:43:31 GMT";
const AFTER: &str = "Tue, 01 Jan 2030 00:00:00 GMT";

/// Reads `foo` under a condition; `TAG` stands for its entity tag.
async fn read(s: &Somebody, header: &str, value: &str) -> super::Said {
    let tag = s.well("PUT", &path("foo"), &[], "bar").await.header("etag");
    let value = value.replace("TAG", &tag);
    s.ask("GET", &path("foo"), &[(header, &value)], "").await
}

async fn test_get_object_ifmatch_good(s: Somebody) {
    assert_eq!(read(&s, "if-match", "TAG").await.text(), "bar");
}

async fn test_get_object_ifmatch_failed(s: Somebody) {
    read(&s, "if-match", "\"ABCORZ\"").await.fails(412, "PreconditionFailed");
}

async fn test_get_object_ifnonematch_good(s: Somebody) {
    assert_eq!(read(&s, "if-none-match", "TAG").await.status, 304);
}

async fn test_get_object_ifnonematch_failed(s: Somebody) {
    assert_eq!(read(&s, "if-none-match", "ABCORZ").await.text(), "bar");
}

async fn test_get_object_ifmodifiedsince_good(s: Somebody) {
    assert_eq!(read(&s, "if-modified-since", BEFORE).await.text(), "bar");
}

async fn test_get_object_ifmodifiedsince_failed(s: Somebody) {
    assert_eq!(read(&s, "if-modified-since", AFTER).await.status, 304);
    let its_own = s.well("HEAD", &path("foo"), &[], "").await.header("last-modified");
    assert_eq!(s.ask("GET", &path("foo"), &[("if-modified-since", &its_own)], "").await.status, 304);
}

async fn test_get_object_ifunmodifiedsince_good(s: Somebody) {
    read(&s, "if-unmodified-since", BEFORE).await.fails(412, "PreconditionFailed");
}

async fn test_get_object_ifunmodifiedsince_failed(s: Somebody) {
    assert_eq!(read(&s, "if-unmodified-since", AFTER).await.text(), "bar");
    let its_own = s.well("HEAD", &path("foo"), &[], "").await.header("last-modified");
    assert_eq!(s.ask("GET", &path("foo"), &[("if-unmodified-since", &its_own)], "").await.status, 200);
}

/// Writes `zar` over `bar`, if there is a `bar`; gives the status and what is there then.
async fn write(s: &Somebody, there: bool, header: &str, value: &str) -> (u16, String) {
    let tag = if there { s.well("PUT", &path("foo"), &[], "bar").await.header("etag") } else { String::new() };
    let said = s.ask("PUT", &path("foo"), &[(header, &value.replace("TAG", &tag))], "zar").await;
    let now = s.get("foo").await;
    (said.status, if now.status == 200 { now.text() } else { String::new() })
}

async fn test_put_object_ifmatch_good(s: Somebody) {
    assert_eq!(write(&s, true, "if-match", "TAG").await, (200, "zar".into()));
}

async fn test_put_object_ifmatch_failed(s: Somebody) {
    assert_eq!(write(&s, true, "if-match", "\"ABCORZ\"").await, (412, "bar".into()));
}

async fn test_put_object_ifmatch_overwrite_existed_good(s: Somebody) {
    assert_eq!(write(&s, true, "if-match", "*").await, (200, "zar".into()));
}

async fn test_put_object_ifmatch_nonexisted_failed(s: Somebody) {
    assert_eq!(write(&s, false, "if-match", "*").await, (412, String::new()));
}

async fn test_put_object_ifnonmatch_good(s: Somebody) {
    assert_eq!(write(&s, true, "if-none-match", "\"ABCORZ\"").await, (200, "zar".into()));
}

async fn test_put_object_ifnonmatch_failed(s: Somebody) {
    assert_eq!(write(&s, true, "if-none-match", "TAG").await, (412, "bar".into()));
}

async fn test_put_object_ifnonmatch_nonexisted_good(s: Somebody) {
    assert_eq!(write(&s, false, "if-none-match", "*").await, (200, "zar".into()));
}

async fn test_put_object_ifnonmatch_overwrite_existed_failed(s: Somebody) {
    assert_eq!(write(&s, true, "if-none-match", "*").await, (412, "bar".into()));
}

/// Copies `foo` under a condition of the source.
async fn copy(s: &Somebody, header: &str, value: &str) -> super::Said {
    let tag = s.well("PUT", &path("foo"), &[], "bar").await.header("etag");
    s.ask("PUT", &path("bar"), &[("x-amz-copy-source", "files/foo"), (header, &value.replace("TAG", &tag))], "").await
}

async fn test_copy_object_ifmatch_good(s: Somebody) {
    assert_eq!(copy(&s, "x-amz-copy-source-if-match", "TAG").await.status, 200);
    assert_eq!(s.get("bar").await.text(), "bar");
}

async fn test_copy_object_ifmatch_failed(s: Somebody) {
    copy(&s, "x-amz-copy-source-if-match", "ABCORZ").await.fails(412, "PreconditionFailed");
}

async fn test_copy_object_ifnonematch_good(s: Somebody) {
    copy(&s, "x-amz-copy-source-if-none-match", "TAG").await.fails(412, "PreconditionFailed");
}

async fn test_copy_object_ifnonematch_failed(s: Somebody) {
    assert_eq!(copy(&s, "x-amz-copy-source-if-none-match", "ABCORZ").await.status, 200);
    // And of what is there at the target.
    let over = [("x-amz-copy-source", "files/foo"), ("if-none-match", "*")];
    s.ask("PUT", &path("bar"), &over, "").await.fails(412, "PreconditionFailed");
}

async fn test_delete_object_if_match(s: Somebody) {
    let tag = s.well("PUT", &path("foo"), &[], "bar").await.header("etag");
    s.ask("DELETE", &path("foo"), &[("if-match", "\"badetag\"")], "").await.fails(412, "PreconditionFailed");
    assert_eq!(s.get("foo").await.text(), "bar");
    s.well("DELETE", &path("foo"), &[("if-match", &tag)], "").await;
    assert_eq!(s.get("foo").await.status, 404);
}
