//! DeleteObjects.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use super::{Somebody, cases};

cases! {
    test_multi_object_delete, test_multi_objectv2_delete, test_multi_object_delete_key_limit, test_multi_objectv2_delete_key_limit,
    test_delete_objects_if_match, test_delete_objects_if_match_size, test_delete_objects_if_match_last_modified_time,
}

fn named(keys: &[String]) -> String {
    let objects: String = keys.iter().map(|key| format!("<Object><Key>{key}</Key></Object>")).collect();
    format!("<Delete>{objects}</Delete>")
}

async fn deletes_twice(s: Somebody, list: &str) {
    s.has(&["key0", "key1", "key2"]).await;
    assert_eq!(s.listed(list).await.0.len(), 3);
    let keys: Vec<String> = ["key0", "key1", "key2"].map(str::to_owned).to_vec();
    // What is not there is deleted already.
    for _ in 0..2 {
        let said = s.well("POST", "/files?delete", &[], named(&keys)).await;
        assert_eq!((said.all("Key"), said.all("Code").len()), (keys.clone(), 0), "{}", said.text());
        assert!(s.listed(list).await.0.is_empty());
    }
    s.has(&["key0"]).await;
    let quiet = named(&keys[..1]).replace("<Delete>", "<Delete><Quiet>true</Quiet>");
    assert!(s.well("POST", "/files?delete", &[], quiet).await.all("Key").is_empty());
    assert!(s.listed(list).await.0.is_empty());
}

async fn test_multi_object_delete(s: Somebody) {
    deletes_twice(s, "").await;
}

async fn test_multi_objectv2_delete(s: Somebody) {
    deletes_twice(s, "list-type=2").await;
}

async fn limit(s: Somebody) {
    s.has(&["key-0"]).await;
    let mut keys: Vec<String> = (0..1001).map(|n| format!("key-{n}")).collect();
    s.ask("POST", "/files?delete", &[], named(&keys)).await.fails(400, "MalformedXML");
    assert_eq!(s.get("key-0").await.status, 200, "one key too many: nothing is deleted");
    s.ask("POST", "/files?delete", &[], "<Delete></Delete>").await.fails(400, "MalformedXML");
    keys.pop();
    assert_eq!(s.well("POST", "/files?delete", &[], named(&keys)).await.all("Key").len(), 1000);
    assert_eq!(s.get("key-0").await.status, 404);
}

async fn test_multi_object_delete_key_limit(s: Somebody) {
    limit(s).await;
}

async fn test_multi_objectv2_delete_key_limit(s: Somebody) {
    limit(s).await;
}

/// Deletes `foo` under a condition that does not hold, under one that does, and again when nothing is there.
async fn conditions(s: &Somebody, tag: &str, wrong: &str, right: &str) {
    for (value, codes) in [(wrong, vec!["PreconditionFailed"]), (right, vec![]), (wrong, vec![])] {
        let body = format!("<Delete><Object><Key>foo</Key><{tag}>{value}</{tag}></Object></Delete>");
        assert_eq!(s.well("POST", "/files?delete", &[], body).await.all("Code"), codes, "{tag}: {value}");
    }
    assert_eq!(s.get("foo").await.status, 404);
}

async fn test_delete_objects_if_match(s: Somebody) {
    s.has(&["foo"]).await;
    let tag = s.get("foo").await.header("etag");
    conditions(&s, "ETag", "\"badetag\"", &tag).await;
}

async fn test_delete_objects_if_match_size(s: Somebody) {
    s.has(&["foo"]).await;
    conditions(&s, "Size", "9999", "3").await;
}

async fn test_delete_objects_if_match_last_modified_time(s: Somebody) {
    s.has(&["foo"]).await;
    let time = s.get("foo").await.header("last-modified");
    conditions(&s, "LastModifiedTime", "Thu, 01 Jan 2015 00:00:00 GMT", &time).await;
}
