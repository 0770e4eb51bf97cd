//! Buckets, objects, metadata, ranges.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use super::{Somebody, cases, path};

cases! {
    test_bucket_head, test_bucket_head_notexist, test_bucket_get_location, test_object_head_zero_bytes,
    test_object_write_read_update_read_delete, test_object_write_to_nonexist_bucket, test_object_read_not_exist,
    test_object_set_get_metadata_none_to_good, test_object_set_get_metadata_none_to_empty,
    test_object_set_get_metadata_overwrite_to_empty, test_object_metadata_replaced_on_put, test_object_write_file,
    test_bucket_create_special_key_names, test_bucket_list_special_prefix, test_object_anon_put,
    test_ranged_request_response_code, test_ranged_big_request_response_code, test_ranged_request_skip_leading_bytes_response_code,
    test_ranged_request_return_trailing_bytes_response_code, test_ranged_request_invalid_range, test_ranged_request_empty_object,
}

async fn test_bucket_head(s: Somebody) {
    assert_eq!(s.ask("HEAD", "/files", &[], "").await.status, 200);
    assert_eq!(s.ask("HEAD", "/files/", &[], "").await.status, 200);
}

async fn test_bucket_head_notexist(s: Somebody) {
    assert_eq!(s.ask("HEAD", "/nowhere", &[], "").await.status, 404);
}

async fn test_bucket_get_location(s: Somebody) {
    let said = s.well("GET", "/files?location", &[], "").await;
    assert!(said.text().contains(">local</LocationConstraint>"), "{}", said.text());
}

async fn test_object_head_zero_bytes(s: Somebody) {
    s.well("PUT", &path("foo"), &[], "").await;
    assert_eq!(s.well("HEAD", &path("foo"), &[], "").await.header("content-length"), "0");
}

async fn test_object_write_read_update_read_delete(s: Somebody) {
    for content in ["bar", "soup"] {
        s.well("PUT", &path("foo"), &[], content).await;
        assert_eq!(s.get("foo").await.text(), content);
    }
    s.well("DELETE", &path("foo"), &[], "").await;
    s.get("foo").await.fails(404, "NoSuchKey");
}

async fn test_object_write_to_nonexist_bucket(s: Somebody) {
    s.ask("PUT", "/nowhere/foo", &[], "foo").await.fails(404, "NoSuchBucket");
}

async fn test_object_read_not_exist(s: Somebody) {
    s.get("bar").await.fails(404, "NoSuchKey");
}

async fn described(s: &Somebody, value: Option<&str>) -> String {
    let headers: Vec<(&str, &str)> = value.map(|value| ("x-amz-meta-meta1", value)).into_iter().collect();
    s.well("PUT", &path("foo"), &headers, "bar").await;
    s.get("foo").await.header("x-amz-meta-meta1")
}

async fn test_object_set_get_metadata_none_to_good(s: Somebody) {
    assert_eq!(described(&s, Some("mymeta")).await, "mymeta");
}

async fn test_object_set_get_metadata_none_to_empty(s: Somebody) {
    assert_eq!(described(&s, Some("")).await, "");
}

async fn test_object_set_get_metadata_overwrite_to_empty(s: Somebody) {
    assert_eq!(described(&s, Some("oldmeta")).await, "oldmeta");
    assert_eq!(described(&s, Some("")).await, "");
}

async fn test_object_metadata_replaced_on_put(s: Somebody) {
    assert_eq!(described(&s, Some("bar")).await, "bar");
    assert_eq!(described(&s, None).await, "");
}

async fn test_object_write_file(s: Somebody) {
    s.well("PUT", &path("foo"), &[], "bar").await;
    assert_eq!(s.get("foo").await.text(), "bar");
}

const SPECIAL: &[&str] = &[" ", "\"", "$", "%", "&", "'", "<", ">", "_", "_ ", "_ _", "__"];

async fn test_bucket_create_special_key_names(s: Somebody) {
    s.has(SPECIAL).await;
    for key in SPECIAL {
        assert_eq!(s.get(key).await.text(), *key);
    }
    let listed = s.listed("list-type=2").await.0;
    let plain =
        |key: &String| key.replace("&quot;", "\"").replace("&apos;", "'").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    assert_eq!(listed.iter().map(plain).collect::<Vec<_>>(), SPECIAL);
}

async fn test_bucket_list_special_prefix(s: Somebody) {
    s.has(&["_bla/1", "_bla/2", "_bla/3", "_bla/4", "abcd"]).await;
    assert_eq!(s.listed("").await.0.len(), 5);
    assert_eq!(s.listed("prefix=_bla%2F").await.0.len(), 4);
}

async fn test_object_anon_put(s: Somebody) {
    s.has(&["foo"]).await;
    let nobody = super::caller(super::service("filer"), None);
    assert_eq!(super::put(&s.objects, &nobody, "/files/foo", "text/plain", "other").await.status(), 403);
    assert_eq!(s.get("foo").await.text(), "foo");
}

async fn ranged(s: &Somebody, content: &str, range: &str) -> super::Said {
    s.well("PUT", &path("testobj"), &[], content.to_owned()).await;
    s.ask("GET", &path("testobj"), &[("range", range)], "").await
}

async fn gives(s: Somebody, range: &str, wanted: &str, told: &str) {
    let said = ranged(&s, "testcontent", range).await;
    assert_eq!((said.status, said.text().as_str(), said.header("content-range").as_str()), (206, wanted, told));
}

async fn test_ranged_request_response_code(s: Somebody) {
    gives(s, "bytes=4-7", "cont", "bytes 4-7/11").await;
}

async fn test_ranged_big_request_response_code(s: Somebody) {
    let content = super::pattern(8 * super::MIB);
    s.well("PUT", &path("testobj"), &[], content.clone()).await;
    let said = s.ask("GET", &path("testobj"), &[("range", "bytes=3145728-5242880")], "").await;
    assert_eq!((said.status, said.header("content-range").as_str()), (206, "bytes 3145728-5242880/8388608"));
    assert!(said.body == content[3_145_728..=5_242_880]);
}

async fn test_ranged_request_skip_leading_bytes_response_code(s: Somebody) {
    gives(s, "bytes=4-", "content", "bytes 4-10/11").await;
}

async fn test_ranged_request_return_trailing_bytes_response_code(s: Somebody) {
    gives(s, "bytes=-7", "content", "bytes 4-10/11").await;
}

async fn test_ranged_request_invalid_range(s: Somebody) {
    ranged(&s, "testcontent", "bytes=40-50").await.fails(416, "InvalidRange");
}

async fn test_ranged_request_empty_object(s: Somebody) {
    ranged(&s, "", "bytes=40-50").await.fails(416, "InvalidRange");
}
