//! Presigned URLs: what they allow, and all that they do not. (G5, G6, G8)
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use serde_json::json;

use super::*;

const MP4: &[(&str, &str)] = &[("content-type", "video/mp4")];

async fn put_grant(objects: &Objects, key: &str, length: usize) -> String {
    let wish = json!({ "method": "PUT", "expires_s": 60, "content_length": length, "content_type": "video/mp4" });
    let grant = granted(objects, &api("upload"), &format!("/originals/{key}"), wish).await;
    assert_eq!((grant.method.as_str(), grant.headers.len()), ("PUT", 1));
    grant.url
}

async fn reason(response: Response<Body>) -> String {
    let status = response.status();
    let answer: serde_json::Value = serde_json::from_slice(&bytes(response).await).unwrap();
    format!("{} {}", status.as_u16(), answer["reason"].as_str().unwrap_or_default())
}

// G5: the example of the S3 API reference, "Authenticating Requests: Using Query Parameters (AWS Signature Version 4)".
#[test]
fn the_published_example_verifies_and_no_change_of_it_does() {
    let example = "/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request\
        &X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host\
        &X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404";
    let secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
    let headers = BTreeMap::from([("host".to_owned(), "examplebucket.s3.amazonaws.com".to_owned())]);
    let holds =
        |uri: &str, secret: &str, method: &str| crate::sigv4::Presented::parse(uri).is_some_and(|p| p.holds(secret, method, &headers));
    assert!(holds(example, secret, "GET"));
    assert!(!holds(example, secret, "PUT") && !holds(example, "other", "GET"));
    for (from, to) in [
        ("/test.txt", "/test2.txt"),
        ("86400", "86401"),
        ("us-east-1", "us-east-2"),
        ("d404", "d405"),
        ("000000Z", "000001Z"),
        ("=host", "=Host"),
    ] {
        assert!(!holds(&example.replace(from, to), secret, "GET"), "{from} to {to}");
    }
    for more in ["&x=y", "&X-Amz-Expires=86400", "&X-Amz-Security-Token=x"] {
        assert!(!holds(&format!("{example}{more}"), secret, "GET"), "{more}");
    }
}

// G5: method, key, every parameter, every header, host; then time.
#[tokio::test]
async fn a_changed_url_is_refused() {
    let world = World::new();
    let objects = world.open().await;
    let content = pattern(1000);
    let url = put_grant(&objects, "v1/original", 1000).await;
    assert!(url.starts_with(&format!("{ORIGIN}/originals/v1/original?X-Amz-Algorithm=AWS4-HMAC-SHA256&")));
    let invalid = "403 grant_invalid";
    for method in [Method::GET, Method::HEAD] {
        assert_eq!(redeem(&objects, method.clone(), &url, MP4, content.clone()).await.status(), StatusCode::FORBIDDEN, "{method}");
    }
    let changes: Vec<(&str, String)> = vec![
        ("key", url.replace("/v1/", "/v2/")),
        ("bucket", url.replace("/originals/", "/renditions/")),
        ("expiry", url.replace("Expires=60", "Expires=61")),
        ("date", url.replace("X-Amz-Date=20", "X-Amz-Date=21")),
        ("region", url.replace("%2Flocal%2F", "%2Fother%2F")),
        ("grant", url.replace("Credential=PG", "Credential=PF")),
        ("signed headers", url.replace("content-length%3Bcontent-type%3Bhost", "content-type%3Bhost")),
        ("more", format!("{url}&response-content-type=text%2Fhtml")),
        ("signature", format!("{}{}", &url[..url.len() - 1], if url.ends_with('0') { '1' } else { '0' })),
        ("no signature", url.split("&X-Amz-Signature").next().unwrap().to_owned()),
        ("no query", url.split('?').next().unwrap().to_owned()),
        ("case", url.replace("/v1/original", "/v1/Original")),
    ];
    for (what, changed) in changes {
        assert_ne!(changed, url, "{what}");
        assert_eq!(reason(redeem(&objects, Method::PUT, &changed, MP4, content.clone()).await).await, invalid, "{what}");
    }
    type Case = (&'static str, &'static [(&'static str, &'static str)], usize);
    let headers: &[Case] = &[
        ("type", &[("content-type", "text/html")], 1000),
        ("no type", &[], 1000),
        ("length", MP4, 999),
        ("host", &[("content-type", "video/mp4"), (contract::objects::PUBLIC_ORIGIN_HEADER, "https://evil.example")], 1000),
        ("two types", &[("content-type", "video/mp4"), ("content-type", "text/html")], 1000),
    ];
    for (what, headers, length) in headers {
        assert_eq!(reason(redeem(&objects, Method::PUT, &url, headers, pattern(*length)).await).await, invalid, "{what}");
    }
    // The edge routes one path and says that another was signed.
    let mut split = request(Method::PUT, "/presigned/originals/other/original", MP4, content.clone());
    let original = url.strip_prefix(ORIGIN).unwrap().parse().unwrap();
    split.headers_mut().insert(contract::objects::ORIGINAL_URI_HEADER, original);
    split.headers_mut().insert(contract::objects::PUBLIC_ORIGIN_HEADER, ORIGIN.parse().unwrap());
    assert_eq!(reason(objects.call(caller(domain().role("edge"), None), split).await).await, invalid);
    assert_eq!(files_in(&world, "blobs"), 0, "nothing of all this is stored");
    assert_eq!(redeem(&objects, Method::PUT, &url, MP4, content).await.status(), StatusCode::OK);
}

// A7, G5: no parameter can be left out, repeated, emptied or bent.
#[tokio::test]
async fn no_parameter_of_a_url_can_be_left_out_repeated_or_bent() {
    let world = World::new();
    let objects = world.open().await;
    let url = put_grant(&objects, "v1/original", 3).await;
    let (path, query) = url.split_once('?').unwrap();
    let pairs: Vec<&str> = query.split('&').collect();
    let mut forged: Vec<String> = Vec::new();
    for (n, pair) in pairs.iter().enumerate() {
        let (name, value) = pair.split_once('=').unwrap();
        let with = |text: String| {
            pairs.iter().enumerate().map(|(m, p)| if m == n { text.clone() } else { (*p).to_owned() }).collect::<Vec<_>>().join("&")
        };
        forged.extend([
            pairs.iter().enumerate().filter(|(m, _)| *m != n).map(|(_, p)| *p).collect::<Vec<_>>().join("&"),
            with(format!("{pair}&{pair}")),
            with(format!("{name}=")),
            with(name.to_owned()),
            with(format!("{}={value}", name.to_lowercase())),
            with(format!("{name}={value}%00")),
            with(format!("{name}={value}%20")),
            with(format!("{name}=+{value}")),
        ]);
    }
    let signature = query.rsplit_once("X-Amz-Signature=").unwrap().1;
    forged.extend([
        query.replace("AWS4-HMAC-SHA256", "none"),
        query.replace("AWS4-HMAC-SHA256", "AWS4-HMAC-SHA1"),
        query.replace("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256"),
        query.replace(signature, &"0".repeat(64)),
        query.replace(signature, &signature.to_uppercase()),
        query.replace(signature, &signature[..62]),
        query.replace(signature, ""),
        query.replace("Expires=60", "Expires=-60"),
        query.replace("Expires=60", "Expires=18446744073709551616"),
        query.replace("%2Faws4_request", "%2F..%2Faws4_request"),
        query.replace("%2Faws4_request", ""),
    ]);
    for query in forged {
        if query == pairs.join("&") {
            continue;
        }
        let said = reason(redeem(&objects, Method::PUT, &format!("{path}?{query}"), MP4, "abc").await).await;
        assert_eq!(said, "403 grant_invalid", "{query}");
    }
    assert_eq!(files_in(&world, "blobs"), 0, "nothing of all this is stored");
    assert_eq!(redeem(&objects, Method::PUT, &url, MP4, "abc").await.status(), StatusCode::OK);
}

// G5: expiry, to the second.
#[tokio::test]
async fn a_url_ends_when_it_says() {
    let world = World::new();
    let objects = world.open().await;
    let url = put_grant(&objects, "v1/original", 3).await;
    world.clock.advance(62_000);
    assert_eq!(reason(redeem(&objects, Method::PUT, &url, MP4, "abc").await).await, "403 grant_expired");
    let url = put_grant(&objects, "v1/original", 3).await;
    world.clock.advance(59_000);
    assert_eq!(redeem(&objects, Method::PUT, &url, MP4, "abc").await.status(), StatusCode::OK);
}

// G6: cut at the limit, the exact size, the type; nothing is stored.
#[tokio::test]
async fn an_upload_that_is_not_as_granted_leaves_nothing() {
    let world = World::new();
    let objects = world.open().await;
    for (sent, expect) in [(1001, StatusCode::PAYLOAD_TOO_LARGE), (999, StatusCode::BAD_REQUEST), (0, StatusCode::BAD_REQUEST)] {
        let url = put_grant(&objects, &format!("v{sent}/original"), 1000).await;
        // The header says what was granted, the body something else.
        let mut lying = request(Method::PUT, "/", MP4, pattern(sent));
        lying.headers_mut().insert("content-length", "1000".parse().unwrap());
        let original = url.strip_prefix(ORIGIN).unwrap().to_owned();
        *lying.uri_mut() = format!("/presigned{original}").parse().unwrap();
        lying.headers_mut().insert(contract::objects::ORIGINAL_URI_HEADER, original.parse().unwrap());
        lying.headers_mut().insert(contract::objects::PUBLIC_ORIGIN_HEADER, ORIGIN.parse().unwrap());
        assert_eq!(objects.call(caller(domain().role("edge"), None), lying).await.status(), expect, "{sent}");
        assert_eq!((files_in(&world, "blobs"), files_in(&world, "incoming")), (0, 0));
        // What failed used nothing up.
        assert_eq!(redeem(&objects, Method::PUT, &url, MP4, pattern(1000)).await.status(), StatusCode::OK);
        tamper(&world, "DELETE FROM object; DELETE FROM blob; DELETE FROM outbox").await;
        std::fs::remove_dir_all(world.folder.path().join("blobs")).unwrap();
        std::fs::create_dir(world.folder.path().join("blobs")).unwrap();
    }
    for (wish, expect) in [
        (json!({ "method": "PUT", "expires_s": 60, "content_length": 33 * MIB, "content_type": "video/mp4" }), 413),
        (json!({ "method": "PUT", "expires_s": 60, "content_length": 1, "content_type": "text/html" }), 400),
        (json!({ "method": "PUT", "expires_s": 60, "content_type": "video/mp4" }), 400),
        (json!({ "method": "PUT", "expires_s": 3601, "content_length": 1, "content_type": "video/mp4" }), 400),
        (json!({ "method": "PUT", "expires_s": 0, "content_length": 1, "content_type": "video/mp4" }), 400),
        (json!({ "method": "DELETE", "expires_s": 60 }), 400),
        (json!({ "method": "PUT", "expires_s": 60, "content_length": 1, "content_type": "video/mp4", "more": 1 }), 400),
    ] {
        let response = send(&objects, &api("upload"), Method::POST, "/originals/v/original?presign", &[], wish.to_string()).await;
        assert_eq!(response.status().as_u16(), expect, "{wish}");
    }
}

// G8: once means once; nothing is overwritten by a replay.
#[tokio::test]
async fn a_used_url_is_worth_nothing() {
    let world = World::new();
    let objects = world.open().await;
    let url = put_grant(&objects, "v1/original", 3).await;
    let (first, second) = tokio::join!(redeem(&objects, Method::PUT, &url, MP4, "one"), redeem(&objects, Method::PUT, &url, MP4, "two"));
    let successes = [first.status(), second.status()].iter().filter(|s| s.is_success()).count();
    assert_eq!(successes, 1, "{} {}", first.status(), second.status());
    assert_eq!(reason(redeem(&objects, Method::PUT, &url, MP4, "six").await).await, "403 grant_invalid");
    assert_eq!(files_in(&world, "blobs"), 1);
    let objects = world.open().await;
    assert_eq!(reason(redeem(&objects, Method::PUT, &url, MP4, "six").await).await, "403 grant_invalid", "also after a restart");
}

// G8: a policy that changes ends what was handed out; a grant that was widened on the disk signs nothing.
#[tokio::test]
async fn a_grant_is_worth_what_policy_and_key_say_now() {
    let world = World::new();
    let objects = world.open().await;
    put(&objects, &filer(), "/files/a/b", "video/mp4", "abc").await;
    let grant = granted(&objects, &filer(), "/files/a/b", json!({ "method": "GET", "expires_s": 60 })).await;
    assert_eq!(bytes(redeem(&objects, Method::GET, &grant.url, &[], "").await).await, "abc");
    assert_eq!(redeem(&objects, Method::GET, &grant.url, &[], "").await.status(), StatusCode::OK, "a read may be repeated, as players do");
    for edit in [
        "UPDATE grant_issued SET expires_s = expires_s + 3600",
        "UPDATE grant_issued SET expires_s = expires_s - 3600, authority = replace(authority, 'ada', 'eve')",
        "UPDATE grant_issued SET authority = replace(authority, 'eve', 'ada'), key = 'a/c'",
    ] {
        tamper(&world, edit).await;
        assert_eq!(reason(redeem(&objects, Method::GET, &grant.url, &[], "").await).await, "403 grant_invalid", "{edit}");
    }
    let grant = granted(&objects, &filer(), "/files/a/b", json!({ "method": "GET", "expires_s": 60 })).await;
    let kept = world.book.0.lock().unwrap().clone();
    *world.book.0.lock().unwrap() = Err(DenyReason::ViewStale);
    assert_eq!(redeem(&objects, Method::GET, &grant.url, &[], "").await.status(), StatusCode::SERVICE_UNAVAILABLE);
    *world.book.0.lock().unwrap() = kept;
    send(&objects, &filer(), Method::DELETE, "/files/a/b", &[], "").await;
    assert_eq!(redeem(&objects, Method::GET, &grant.url, &[], "").await.status(), StatusCode::NOT_FOUND);
}

// G12 in part: whatever the bytes are, they run nowhere. Ranges for players.
#[tokio::test]
async fn what_is_served_to_browsers_cannot_act() {
    let world = World::new();
    let objects = world.open().await;
    for (media_type, inline) in
        [("video/mp4", true), ("image/jpeg", true), ("text/html", false), ("image/svg+xml", false), ("application/pdf", false)]
    {
        put(&objects, &filer(), "/files/a/b", media_type, "<script>alert(1)</script>").await;
        let grant = granted(&objects, &filer(), "/files/a/b", json!({ "method": "GET", "expires_s": 60 })).await;
        let response = redeem(&objects, Method::GET, &grant.url, &[("range", "bytes=1-6")], "").await;
        assert_eq!(response.status(), StatusCode::PARTIAL_CONTENT);
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(header("content-disposition"), if inline { "inline" } else { "attachment" }, "{media_type}");
        assert_eq!(header("content-type"), if inline { media_type } else { "application/octet-stream" });
        assert_eq!((header("x-content-type-options").as_str(), header("cache-control").as_str()), ("nosniff", "private"));
        assert!(header("content-security-policy").contains("sandbox"));
        assert_eq!(header("content-range"), "bytes 1-6/25");
        assert_eq!(bytes(response).await, "script");
    }
}

// Refusal coverage: the rows of the edge, called by others.
#[tokio::test]
async fn only_the_edge_redeems() {
    let world = World::new();
    let objects = world.open().await;
    put(&objects, &filer(), "/files/a/b", "video/mp4", "abc").await;
    let grant = granted(&objects, &filer(), "/files/a/b", json!({ "method": "GET", "expires_s": 60 })).await;
    let original = grant.url.strip_prefix(ORIGIN).unwrap();
    for who in [service("filer"), service("edge"), domain().role("login"), domain().role("queue")] {
        let mut request = request(Method::GET, &format!("/presigned{original}"), &[], "");
        request.headers_mut().insert(contract::objects::ORIGINAL_URI_HEADER, original.parse().unwrap());
        request.headers_mut().insert(contract::objects::PUBLIC_ORIGIN_HEADER, ORIGIN.parse().unwrap());
        assert_eq!(
            objects.call(caller(who.clone(), Some(person("ada", "manage"))), request).await.status(),
            StatusCode::FORBIDDEN,
            "{who}"
        );
    }
    // Who may not read may not hand out either.
    let eve = caller(service("filer"), Some(person("eve", "manage")));
    let response =
        send(&objects, &eve, Method::POST, "/files/a/b?presign", &[], json!({ "method": "GET", "expires_s": 60 }).to_string()).await;
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
}
