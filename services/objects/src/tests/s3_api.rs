//! The S3 operations, as tables. (G2, G3)
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use super::*;

// G2: put, head, get, overwrite, delete.
#[tokio::test]
async fn an_object_is_what_was_put() {
    let world = World::new();
    let objects = world.open().await;
    let ada = filer();
    for (key, content) in [("a/empty", Vec::new()), ("a/small", b"hello".to_vec()), ("a/with space+%41&ü", pattern(3 * MIB + 17))] {
        let uri = format!("/files/{}", crate::sigv4::encoded_path(key));
        let stored =
            send(&objects, &ada, Method::PUT, &uri, &[("content-type", "text/plain"), ("x-amz-meta-colour", "blue")], content.clone())
                .await;
        assert_eq!(stored.status(), StatusCode::OK, "{key}");
        let etag = format!("\"{}\"", trust::Digest::of(&content).to_hex());
        assert_eq!(stored.headers()["etag"], etag.as_str());
        for method in [Method::HEAD, Method::GET] {
            let response = send(&objects, &ada, method.clone(), &uri, &[], "").await;
            assert_eq!(response.status(), StatusCode::OK, "{method} {key}");
            assert_eq!(response.headers()["etag"], etag.as_str());
            assert_eq!(response.headers()["content-type"], "text/plain");
            assert_eq!(response.headers()["x-amz-meta-colour"], "blue");
            assert_eq!(response.headers()["content-length"], content.len().to_string().as_str());
            assert!(response.headers().contains_key("last-modified"));
            let expected = if method == Method::GET { content.clone() } else { Vec::new() };
            assert_eq!(bytes(response).await, expected, "{method} {key}");
        }
        assert_eq!(put(&objects, &ada, &uri, "text/plain", "other").await.status(), StatusCode::OK);
        assert_eq!(bytes(get(&objects, &ada, &uri).await).await, "other");
        for _ in 0..2 {
            assert_eq!(send(&objects, &ada, Method::DELETE, &uri, &[], "").await.status(), StatusCode::NO_CONTENT);
        }
        assert_eq!(get(&objects, &ada, &uri).await.status(), StatusCode::NOT_FOUND);
    }
    assert_eq!((files_in(&world, "blobs"), files_in(&world, "incoming")), (0, 0), "nothing is left of what was deleted");
}

// G2: ranges, across MiB boundaries.
#[tokio::test]
async fn ranges_give_exactly_their_bytes() {
    let world = World::new();
    let objects = world.open().await;
    let content = pattern(2 * MIB + 100);
    let size = content.len();
    put(&objects, &filer(), "/files/a/b", "video/mp4", content.clone()).await;
    let cases = [
        ("bytes=0-0".to_owned(), Some(0..1)),
        ("bytes=0-".to_owned(), Some(0..size)),
        (format!("bytes={}-{}", MIB - 1, MIB), Some(MIB - 1..MIB + 1)),
        (format!("bytes={}-{}", MIB, 2 * MIB - 1), Some(MIB..2 * MIB)),
        ("bytes=-1".to_owned(), Some(size - 1..size)),
        ("bytes=-99999999".to_owned(), Some(0..size)),
        ("bytes=5-99999999".to_owned(), Some(5..size)),
        (format!("bytes={size}-"), None),
        ("bytes=-0".to_owned(), None),
    ];
    for (range, expect) in cases {
        let response = send(&objects, &filer(), Method::GET, "/files/a/b", &[("range", &range)], "").await;
        match expect {
            Some(span) => {
                assert_eq!(response.status(), StatusCode::PARTIAL_CONTENT, "{range}");
                assert_eq!(response.headers()["content-range"], format!("bytes {}-{}/{size}", span.start, span.end - 1).as_str());
                assert_eq!(bytes(response).await, content[span], "{range}");
            }
            None => assert_eq!(response.status(), StatusCode::RANGE_NOT_SATISFIABLE, "{range}"),
        }
    }
}

#[tokio::test]
async fn conditions_hold_or_the_request_fails() {
    let world = World::new();
    let objects = world.open().await;
    let ada = filer();
    let stored = put(&objects, &ada, "/files/a/b", "text/plain", "one").await;
    let etag = stored.headers()["etag"].to_str().unwrap().to_owned();
    for (method, header, value, expect) in [
        (Method::GET, "if-match", etag.as_str(), 200),
        (Method::GET, "if-match", "\"other\"", 412),
        (Method::GET, "if-none-match", etag.as_str(), 304),
        (Method::GET, "if-none-match", "\"other\"", 200),
        (Method::HEAD, "if-match", "\"other\"", 412),
        (Method::PUT, "if-none-match", "*", 412),
        (Method::PUT, "if-match", "\"other\"", 412),
        (Method::PUT, "if-match", etag.as_str(), 200),
    ] {
        let response =
            send(&objects, &ada, method.clone(), "/files/a/b", &[(header, value)], if method == Method::PUT { "two" } else { "" }).await;
        assert_eq!(response.status().as_u16(), expect, "{method} {header}: {value}");
    }
    assert_eq!(send(&objects, &ada, Method::PUT, "/files/a/new", &[("if-none-match", "*")], "x").await.status(), StatusCode::OK);
}

fn keys(xml: &str, tag: &str) -> Vec<String> {
    xml.split(&format!("<{tag}>")).skip(1).map(|rest| rest.split('<').next().unwrap().to_owned()).collect()
}

// G2: ListObjectsV2: prefix, delimiter, pages, and nobody else's objects.
#[tokio::test]
async fn a_list_shows_the_persons_own_objects_page_by_page() {
    let world = World::new();
    let objects = world.open().await;
    let (ada, eve) = (filer(), caller(service("filer"), Some(person("eve", "manage"))));
    for key in ["a/1", "a/2", "a/b/3", "a/b/4", "c", "d/5"] {
        put(&objects, &ada, &format!("/files/{key}"), "text/plain", "x").await;
    }
    put(&objects, &eve, "/files/a/eve", "text/plain", "x").await;
    for (query, expect, folders) in [
        ("", vec!["a/1", "a/2", "a/b/3", "a/b/4", "c", "d/5"], vec![]),
        ("&prefix=a%2F", vec!["a/1", "a/2", "a/b/3", "a/b/4"], vec![]),
        ("&delimiter=%2F", vec!["c"], vec!["a/", "d/"]),
        ("&prefix=a%2F&delimiter=%2F", vec!["a/1", "a/2"], vec!["a/b/"]),
        ("&start-after=a%2Fb%2F3", vec!["a/b/4", "c", "d/5"], vec![]),
        ("&max-keys=0", vec![], vec![]),
    ] {
        let xml = text(get(&objects, &ada, &format!("/files?list-type=2{query}")).await).await;
        assert_eq!(keys(&xml, "Key"), expect, "{query}: {xml}");
        let common = xml.split("<CommonPrefixes>").skip(1).map(|rest| keys(rest, "Prefix")[0].clone()).collect::<Vec<_>>();
        assert_eq!(common, folders, "{query}");
    }
    for delimiter in ["", "&delimiter=%2F"] {
        let (mut seen, mut token) = (Vec::new(), String::new());
        loop {
            let xml = text(get(&objects, &ada, &format!("/files?list-type=2&max-keys=1{delimiter}{token}")).await).await;
            seen.extend(keys(&xml, "Key"));
            seen.extend(xml.split("<CommonPrefixes>").skip(1).map(|rest| keys(rest, "Prefix")[0].clone()));
            let Some(next) = keys(&xml, "NextContinuationToken").pop() else { break };
            token = format!("&continuation-token={next}");
        }
        let expect = if delimiter.is_empty() { vec!["a/1", "a/2", "a/b/3", "a/b/4", "c", "d/5"] } else { vec!["a/", "c", "d/"] };
        assert_eq!(seen, expect);
    }
    // With a slash, too: the AWS SDK for JavaScript asks so (G1).
    for uri in ["/files?list-type=2", "/files/?list-type=2"] {
        assert_eq!(keys(&text(get(&objects, &eve, uri).await).await, "Key"), ["a/eve"], "{uri}");
    }
}

// G2, G15: who is not permitted learns nothing; what is not declared does not exist; what is not offered is refused.
#[tokio::test]
async fn others_are_refused() {
    let world = World::new();
    let objects = world.open().await;
    put(&objects, &filer(), "/files/a/b", "text/plain", "secret").await;
    let strangers = [
        caller(service("filer"), None),
        caller(service("filer"), Some(person("eve", "manage"))),
        caller(service("filer"), Some(person("ada", "view"))),
        caller(service("api"), Some(person("ada", "manage"))),
        caller(service("transcoder"), Some(person("ada", "process"))),
        caller(domain().role("edge"), Some(person("ada", "manage"))),
        caller(domain().role("queue"), None),
        Caller { peer: Peer::Supervisor, authority: None, trace: TraceContext::root(0, &SystemEntropy) },
    ];
    for who in &strangers {
        for method in [Method::GET, Method::HEAD, Method::PUT, Method::DELETE] {
            let status = send(&objects, who, method.clone(), "/files/a/b", &[], "").await.status();
            assert_eq!(status, StatusCode::FORBIDDEN, "{method} {:?}", who.peer);
        }
    }
    assert_eq!(bytes(get(&objects, &filer(), "/files/a/b").await).await, "secret");
    assert_eq!(get(&objects, &filer(), "/nowhere/a/b").await.status(), StatusCode::NOT_FOUND);
    for (method, uri) in [
        (Method::GET, "/files/a/b?acl"),
        (Method::PUT, "/files/a/b?tagging"),
        (Method::GET, "/files?versions"),
        (Method::GET, "/files?policy"),
    ] {
        let status = send(&objects, &filer(), method.clone(), uri, &[], "").await.status();
        assert!(status.is_client_error() || status.is_server_error(), "{method} {uri}: {status}");
    }
    for uri in ["/files/a//b", "/files/a/../b", "/files/a%2F..%2Fb", "/files/a/.", "/files/a%00b", "/files/a%5Cb"] {
        assert_eq!(get(&objects, &filer(), uri).await.status(), StatusCode::BAD_REQUEST, "{uri}");
    }
    *world.book.0.lock().unwrap() = Err(DenyReason::ViewStale);
    assert_eq!(get(&objects, &filer(), "/files/a/b").await.status(), StatusCode::SERVICE_UNAVAILABLE);
}

// G3: parts, in order, verified, and gone when aborted.
#[tokio::test]
async fn an_upload_in_parts_becomes_one_object() {
    let world = World::new();
    let objects = world.open().await;
    let ada = filer();
    let begun = text(send(&objects, &ada, Method::POST, "/files/big/one?uploads", &[("content-type", "video/mp4")], "").await).await;
    let id = keys(&begun, "UploadId").remove(0);
    let content = pattern(64 * MIB + 5);
    let mut listed = String::new();
    for (n, part) in content.chunks(16 * MIB).enumerate() {
        let uri = format!("/files/big/one?partNumber={}&uploadId={id}", n + 1);
        // Each part twice: the second takes the first one's place.
        for attempt in [&b"first attempt"[..], part] {
            let stored = send(&objects, &ada, Method::PUT, &uri, &[], attempt.to_vec()).await;
            assert_eq!(stored.status(), StatusCode::OK);
            if attempt.len() == part.len() {
                let etag = stored.headers()["etag"].to_str().unwrap().to_owned();
                listed.push_str(&format!("<Part><PartNumber>{}</PartNumber><ETag>{etag}</ETag></Part>", n + 1));
            }
        }
    }
    let parts = text(get(&objects, &ada, &format!("/files/big/one?uploadId={id}")).await).await;
    assert_eq!(keys(&parts, "PartNumber"), ["1", "2", "3", "4", "5"]);
    let eve = caller(service("filer"), Some(person("eve", "manage")));
    assert_eq!(get(&objects, &eve, &format!("/files/big/one?uploadId={id}")).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(get(&objects, &ada, "/files/big/one").await.status(), StatusCode::NOT_FOUND, "nothing is visible before the end");
    let wrong = listed.replacen("<ETag>\"", "<ETag>\"0", 1);
    for (list, expect) in [(wrong, StatusCode::BAD_REQUEST), (String::new(), StatusCode::BAD_REQUEST), (listed, StatusCode::OK)] {
        let xml = format!("<CompleteMultipartUpload>{list}</CompleteMultipartUpload>");
        let done = send(&objects, &ada, Method::POST, &format!("/files/big/one?uploadId={id}"), &[], xml).await;
        assert_eq!(done.status(), expect, "{}", text(done).await);
    }
    let whole = get(&objects, &ada, "/files/big/one").await;
    assert!(whole.headers()["etag"].to_str().unwrap().ends_with("-5\""));
    assert!(bytes(whole).await == content, "the parts one after the other");
    let across = format!("bytes={}-{}", 16 * MIB - 3, 16 * MIB + 3);
    let response = send(&objects, &ada, Method::GET, "/files/big/one", &[("range", &across)], "").await;
    assert_eq!(bytes(response).await, content[16 * MIB - 3..16 * MIB + 4]);
    assert_eq!(files_in(&world, "blobs"), 5);

    let begun = text(send(&objects, &ada, Method::POST, "/files/big/two?uploads", &[], "").await).await;
    let id = keys(&begun, "UploadId").remove(0);
    let mut listed = String::new();
    for n in 1..=2 {
        let stored = send(&objects, &ada, Method::PUT, &format!("/files/big/two?partNumber={n}&uploadId={id}"), &[], "small").await;
        listed.push_str(&format!("<Part><PartNumber>{n}</PartNumber><ETag>{}</ETag></Part>", stored.headers()["etag"].to_str().unwrap()));
    }
    let xml = format!("<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>");
    let small = send(&objects, &ada, Method::POST, &format!("/files/big/two?uploadId={id}"), &[], xml).await;
    assert!(text(small).await.contains("EntityTooSmall"));
    assert_eq!(files_in(&world, "blobs"), 7);
    assert_eq!(
        send(&objects, &ada, Method::DELETE, &format!("/files/big/two?uploadId={id}"), &[], "").await.status(),
        StatusCode::NO_CONTENT
    );
    assert_eq!(files_in(&world, "blobs"), 5);
    let late = send(&objects, &ada, Method::PUT, &format!("/files/big/two?partNumber=1&uploadId={id}"), &[], "late").await;
    assert_eq!(late.status(), StatusCode::NOT_FOUND);
}

// G6 for parts: the sum is limited too.
#[tokio::test]
async fn parts_together_are_not_larger_than_an_object_may_be() {
    let world = World::new();
    world.edit("files", |b| b.object_bytes_max = 10);
    let objects = world.open().await;
    let begun = text(send(&objects, &filer(), Method::POST, "/files/big/one?uploads", &[], "").await).await;
    let id = keys(&begun, "UploadId").remove(0);
    for (n, content, expect) in [(1, "123456", 200), (2, "12345", 413), (2, "1234", 200), (1, "1234567", 413), (3, "1", 413)] {
        let uri = format!("/files/big/one?partNumber={n}&uploadId={id}");
        assert_eq!(send(&objects, &filer(), Method::PUT, &uri, &[], content).await.status().as_u16(), expect, "{n} {content}");
    }
    assert_eq!(files_in(&world, "blobs"), 2);
}
