//! ListObjects and ListObjectsV2.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use super::{Somebody, cases};

cases! {
    test_bucket_list_empty, test_bucket_list_many, test_bucket_listv2_many, test_basic_key_count, test_bucket_list_delimiter_basic,
    test_bucket_listv2_delimiter_basic, test_bucket_list_delimiter_prefix, test_bucket_listv2_delimiter_prefix,
    test_bucket_list_delimiter_prefix_ends_with_delimiter, test_bucket_list_delimiter_alt, test_bucket_list_delimiter_prefix_underscore,
    test_bucket_list_delimiter_percentage, test_bucket_list_delimiter_whitespace, test_bucket_list_delimiter_dot,
    test_bucket_list_delimiter_empty, test_bucket_list_delimiter_none, test_bucket_list_delimiter_not_exist,
    test_bucket_list_delimiter_not_skip_special, test_bucket_list_prefix_basic, test_bucket_list_prefix_alt,
    test_bucket_list_prefix_empty, test_bucket_list_prefix_none, test_bucket_list_prefix_not_exist,
    test_bucket_list_prefix_delimiter_basic, test_bucket_list_prefix_delimiter_prefix_not_exist,
    test_bucket_list_prefix_delimiter_delimiter_not_exist, test_bucket_list_maxkeys_one, test_bucket_listv2_maxkeys_one,
    test_bucket_list_maxkeys_zero, test_bucket_list_maxkeys_none, test_bucket_list_maxkeys_invalid,
    test_bucket_listv2_continuationtoken, test_bucket_listv2_continuationtoken_empty,
    test_bucket_listv2_both_continuationtoken_startafter, test_bucket_listv2_startafter_not_in_list,
    test_bucket_listv2_startafter_after_list, test_bucket_list_marker_none, test_bucket_list_marker_empty,
    test_bucket_list_marker_not_in_list, test_bucket_list_marker_after_list, test_bucket_list_return_data,
    test_bucket_list_objects_anonymous_fail, test_bucket_notexist, test_bucketv2_notexist,
}

const TREE: &[&str] = &["boo/bar", "boo/baz/xyzzy", "cquux/thud", "cquux/bla", "asdf", "foo"];

async fn shows(s: &Somebody, query: &str, keys: &[&str], prefixes: &[&str]) {
    for version in ["list-type=2&", ""] {
        let (found, folders, said) = s.listed(&format!("{version}{query}")).await;
        assert_eq!((found.as_slice(), folders.as_slice()), (owned(keys).as_slice(), owned(prefixes).as_slice()), "{}", said.text());
        assert_eq!(said.one("IsTruncated"), "false");
    }
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

async fn test_bucket_list_empty(s: Somebody) {
    shows(&s, "", &[], &[]).await;
}

/// Pages of two by marker, as `list_objects` clients go on: by the last key that they saw.
async fn test_bucket_list_many(s: Somebody) {
    s.has(&["foo", "bar", "baz"]).await;
    let (keys, _, said) = s.listed("max-keys=2").await;
    assert_eq!((keys, said.one("IsTruncated")), (owned(&["bar", "baz"]), "true".into()));
    let (keys, _, said) = s.listed("max-keys=2&marker=baz").await;
    assert_eq!((keys, said.one("IsTruncated"), said.one("Marker")), (owned(&["foo"]), "false".into(), "baz".into()));
}

async fn test_bucket_listv2_many(s: Somebody) {
    s.has(&["foo", "bar", "baz"]).await;
    let (keys, _, said) = s.listed("list-type=2&max-keys=2").await;
    assert_eq!((keys, said.one("IsTruncated")), (owned(&["bar", "baz"]), "true".into()));
    let (keys, _, said) = s.listed("list-type=2&max-keys=2&start-after=baz").await;
    assert_eq!((keys, said.one("IsTruncated")), (owned(&["foo"]), "false".into()));
}

async fn test_basic_key_count(s: Somebody) {
    s.has(&["0", "1", "2", "3", "4"]).await;
    assert_eq!(s.listed("list-type=2").await.2.one("KeyCount"), "5");
}

async fn test_bucket_list_delimiter_basic(s: Somebody) {
    s.has(&["foo/bar", "foo/bar/xyzzy", "quux/thud", "asdf"]).await;
    let (keys, prefixes, said) = s.listed("delimiter=%2F").await;
    assert_eq!((keys, prefixes), (owned(&["asdf"]), owned(&["foo/", "quux/"])));
    assert_eq!(said.one("Delimiter"), "/");
}

async fn test_bucket_listv2_delimiter_basic(s: Somebody) {
    s.has(&["foo/bar", "foo/bar/xyzzy", "quux/thud", "asdf"]).await;
    let (keys, prefixes, said) = s.listed("list-type=2&delimiter=%2F").await;
    assert_eq!((keys, prefixes), (owned(&["asdf"]), owned(&["foo/", "quux/"])));
    assert_eq!((said.one("Delimiter"), said.one("KeyCount")), ("/".into(), "3".into()));
}

/// Walks a list page by page, by token or by marker, and holds each page to what it must be.
async fn walks(s: &Somebody, by_token: bool, fixed: &str, pages: &[(&[&str], &[&str])]) {
    let mut after = String::new();
    for (number, (keys, prefixes)) in pages.iter().enumerate() {
        let version = if by_token { "list-type=2&" } else { "" };
        let (found, folders, said) = s.listed(&format!("{version}{fixed}{after}")).await;
        assert_eq!((found, folders), (owned(keys), owned(prefixes)), "page {number}: {}", said.text());
        let last = number + 1 == pages.len();
        assert_eq!(said.one("IsTruncated"), if last { "false" } else { "true" });
        let (name, next) = if by_token { ("continuation-token", "NextContinuationToken") } else { ("marker", "NextMarker") };
        assert_eq!(said.all(next).is_empty(), last);
        after = format!("&{name}={}", said.one(next).replace('/', "%2F"));
    }
}

const PAGES: &[(&[&str], &[&str])] = &[(&["asdf"], &[]), (&[], &["boo/"]), (&[], &["cquux/"])];

async fn test_bucket_list_delimiter_prefix(s: Somebody) {
    s.has(&["asdf", "boo/bar", "boo/baz/xyzzy", "cquux/thud", "cquux/bla"]).await;
    walks(&s, false, "delimiter=%2F&max-keys=1", PAGES).await;
    walks(&s, false, "delimiter=%2F&max-keys=2", &[(&["asdf"], &["boo/"]), (&[], &["cquux/"])]).await;
    walks(&s, false, "delimiter=%2F&prefix=boo%2F&max-keys=1", &[(&["boo/bar"], &[]), (&[], &["boo/baz/"])]).await;
}

async fn test_bucket_listv2_delimiter_prefix(s: Somebody) {
    s.has(&["asdf", "boo/bar", "boo/baz/xyzzy", "cquux/thud", "cquux/bla"]).await;
    walks(&s, true, "delimiter=%2F&max-keys=1", PAGES).await;
    walks(&s, true, "delimiter=%2F&max-keys=2", &[(&["asdf"], &["boo/"]), (&[], &["cquux/"])]).await;
    walks(&s, true, "delimiter=%2F&prefix=boo%2F&max-keys=1", &[(&["boo/bar"], &[]), (&[], &["boo/baz/"])]).await;
}

async fn test_bucket_list_delimiter_prefix_ends_with_delimiter(s: Somebody) {
    s.has(&["asdf.", "other"]).await;
    shows(&s, "prefix=asdf.&delimiter=.", &["asdf."], &[]).await;
}

async fn test_bucket_list_delimiter_alt(s: Somebody) {
    s.has(&["bar", "baz", "cab", "foo"]).await;
    shows(&s, "delimiter=a", &["foo"], &["ba", "ca"]).await;
}

async fn test_bucket_list_delimiter_prefix_underscore(s: Somebody) {
    s.has(&["_obj1_", "_under1/bar", "_under1/baz/xyzzy", "_under2/thud", "_under2/bla"]).await;
    walks(&s, false, "delimiter=%2F&max-keys=1", &[(&["_obj1_"], &[]), (&[], &["_under1/"]), (&[], &["_under2/"])]).await;
    walks(&s, true, "delimiter=%2F&prefix=_under1%2F&max-keys=1", &[(&["_under1/bar"], &[]), (&[], &["_under1/baz/"])]).await;
}

async fn test_bucket_list_delimiter_percentage(s: Somebody) {
    s.has(&["b%ar", "b%az", "c%ab", "foo"]).await;
    shows(&s, "delimiter=%25", &["foo"], &["b%", "c%"]).await;
}

async fn test_bucket_list_delimiter_whitespace(s: Somebody) {
    s.has(&["b ar", "b az", "c ab", "foo"]).await;
    shows(&s, "delimiter=%20", &["foo"], &["b ", "c "]).await;
}

async fn test_bucket_list_delimiter_dot(s: Somebody) {
    s.has(&["b.ar", "b.az", "c.ab", "foo"]).await;
    shows(&s, "delimiter=.", &["foo"], &["b.", "c."]).await;
}

async fn test_bucket_list_delimiter_empty(s: Somebody) {
    s.has(&["bar", "baz", "cab", "foo"]).await;
    shows(&s, "delimiter=", &["bar", "baz", "cab", "foo"], &[]).await;
}

async fn test_bucket_list_delimiter_none(s: Somebody) {
    s.has(&["bar", "baz", "cab", "foo"]).await;
    shows(&s, "", &["bar", "baz", "cab", "foo"], &[]).await;
}

async fn test_bucket_list_delimiter_not_exist(s: Somebody) {
    s.has(&["bar", "baz", "cab", "foo"]).await;
    shows(&s, "delimiter=%2F", &["bar", "baz", "cab", "foo"], &[]).await;
}

async fn test_bucket_list_delimiter_not_skip_special(s: Somebody) {
    let folder: Vec<String> = (1000..1030).map(|n| format!("0/{n}")).collect();
    s.has(&folder.iter().map(String::as_str).collect::<Vec<_>>()).await;
    s.has(&["1999", "1999#", "1999+", "2000"]).await;
    shows(&s, "delimiter=%2F", &["1999", "1999#", "1999+", "2000"], &["0/"]).await;
}

async fn test_bucket_list_prefix_basic(s: Somebody) {
    s.has(&["foo/bar", "foo/baz", "quux"]).await;
    shows(&s, "prefix=foo%2F", &["foo/bar", "foo/baz"], &[]).await;
}

async fn test_bucket_list_prefix_alt(s: Somebody) {
    s.has(&["bar", "baz", "foo"]).await;
    shows(&s, "prefix=ba", &["bar", "baz"], &[]).await;
}

async fn test_bucket_list_prefix_empty(s: Somebody) {
    s.has(&["foo/bar", "quux"]).await;
    shows(&s, "prefix=", &["foo/bar", "quux"], &[]).await;
}

async fn test_bucket_list_prefix_none(s: Somebody) {
    s.has(&["foo/bar", "quux"]).await;
    shows(&s, "", &["foo/bar", "quux"], &[]).await;
}

async fn test_bucket_list_prefix_not_exist(s: Somebody) {
    s.has(&["foo/bar", "quux"]).await;
    shows(&s, "prefix=d", &[], &[]).await;
}

async fn test_bucket_list_prefix_delimiter_basic(s: Somebody) {
    s.has(&["foo/bar", "foo/baz/xyzzy", "quux/thud", "asdf"]).await;
    shows(&s, "prefix=foo%2F&delimiter=%2F", &["foo/bar"], &["foo/baz/"]).await;
}

async fn test_bucket_list_prefix_delimiter_prefix_not_exist(s: Somebody) {
    s.has(&["b/a/r", "b/a/c", "b/a/g", "g"]).await;
    shows(&s, "delimiter=d&prefix=%2F", &[], &[]).await;
}

async fn test_bucket_list_prefix_delimiter_delimiter_not_exist(s: Somebody) {
    s.has(&["b/a/c", "b/a/g", "b/a/r", "g"]).await;
    shows(&s, "delimiter=z&prefix=b", &["b/a/c", "b/a/g", "b/a/r"], &[]).await;
}

async fn test_bucket_list_maxkeys_one(s: Somebody) {
    s.has(&["bar", "baz", "foo"]).await;
    walks(&s, false, "max-keys=1", &[(&["bar"], &[]), (&["baz"], &[]), (&["foo"], &[])]).await;
}

async fn test_bucket_listv2_maxkeys_one(s: Somebody) {
    s.has(&["bar", "baz", "foo"]).await;
    walks(&s, true, "max-keys=1", &[(&["bar"], &[]), (&["baz"], &[]), (&["foo"], &[])]).await;
}

async fn test_bucket_list_maxkeys_zero(s: Somebody) {
    s.has(TREE).await;
    shows(&s, "max-keys=0", &[], &[]).await;
}

async fn test_bucket_list_maxkeys_none(s: Somebody) {
    s.has(&["bar", "baz", "foo"]).await;
    shows(&s, "", &["bar", "baz", "foo"], &[]).await;
    assert_eq!(s.listed("").await.2.one("MaxKeys"), "1000");
}

async fn test_bucket_list_maxkeys_invalid(s: Somebody) {
    for query in ["max-keys=blah", "list-type=2&max-keys=blah", "max-keys=-1"] {
        assert_eq!(s.ask("GET", &format!("/files?{query}"), &[], "").await.status, 400, "{query}");
    }
}

async fn test_bucket_listv2_continuationtoken(s: Somebody) {
    s.has(&["bar", "baz", "foo", "quxx"]).await;
    let token = s.listed("list-type=2&max-keys=1").await.2.one("NextContinuationToken");
    let (keys, _, said) = s.listed(&format!("list-type=2&continuation-token={token}")).await;
    assert_eq!((keys, said.one("ContinuationToken")), (owned(&["baz", "foo", "quxx"]), token));
}

async fn test_bucket_listv2_continuationtoken_empty(s: Somebody) {
    s.has(&["bar", "baz"]).await;
    assert_eq!(s.listed("list-type=2&continuation-token=").await.0, owned(&["bar", "baz"]));
}

async fn test_bucket_listv2_both_continuationtoken_startafter(s: Somebody) {
    s.has(&["bar", "baz", "foo", "quxx"]).await;
    let token = s.listed("list-type=2&start-after=bar&max-keys=1").await.2.one("NextContinuationToken");
    let (keys, _, said) = s.listed(&format!("list-type=2&start-after=bar&continuation-token={token}")).await;
    assert_eq!((keys, said.one("StartAfter")), (owned(&["foo", "quxx"]), "bar".into()));
}

async fn test_bucket_listv2_startafter_not_in_list(s: Somebody) {
    s.has(&["bar", "baz", "foo"]).await;
    assert_eq!(s.listed("list-type=2&start-after=blah").await.0, owned(&["foo"]));
}

async fn test_bucket_listv2_startafter_after_list(s: Somebody) {
    s.has(&["bar", "baz", "foo"]).await;
    assert!(s.listed("list-type=2&start-after=zzz").await.0.is_empty());
}

async fn test_bucket_list_marker_none(s: Somebody) {
    s.has(&["bar"]).await;
    assert_eq!(s.listed("").await.2.one("Marker"), "");
}

async fn test_bucket_list_marker_empty(s: Somebody) {
    s.has(&["bar", "baz"]).await;
    assert_eq!(s.listed("marker=").await.0, owned(&["bar", "baz"]));
}

async fn test_bucket_list_marker_not_in_list(s: Somebody) {
    s.has(&["bar", "baz", "foo"]).await;
    let (keys, _, said) = s.listed("marker=blah").await;
    assert_eq!((keys, said.one("Marker")), (owned(&["foo"]), "blah".into()));
}

async fn test_bucket_list_marker_after_list(s: Somebody) {
    s.has(&["bar", "baz", "foo"]).await;
    assert!(s.listed("marker=zzz").await.0.is_empty());
}

/// What a list says of an object is what HEAD says of it.
async fn test_bucket_list_return_data(s: Somebody) {
    s.has(&["bar", "foobar"]).await;
    for query in ["", "list-type=2"] {
        let said = s.listed(query).await.2;
        for (place, key) in ["bar", "foobar"].iter().enumerate() {
            let head = s.well("HEAD", &super::path(key), &[], "").await;
            assert_eq!(said.all("ETag")[place].replace("&quot;", "\""), head.header("etag"));
            assert_eq!(said.all("Size")[place], head.header("content-length"));
            assert!(said.all("LastModified")[place].starts_with("20"));
        }
    }
}

async fn test_bucket_list_objects_anonymous_fail(s: Somebody) {
    let nobody = super::caller(super::service("filer"), None);
    for query in ["", "?list-type=2"] {
        let said = super::get(&s.objects, &nobody, &format!("/files{query}")).await;
        assert_eq!(said.status(), 403);
    }
}

async fn test_bucket_notexist(s: Somebody) {
    s.ask("GET", "/nowhere", &[], "").await.fails(404, "NoSuchBucket");
}

async fn test_bucketv2_notexist(s: Somebody) {
    s.ask("GET", "/nowhere?list-type=2", &[], "").await.fails(404, "NoSuchBucket");
}
