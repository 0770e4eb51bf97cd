//! What SDKs send: `aws-chunked` bodies, checksums, dummy signatures. (G1 in part)
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use futures::TryStreamExt;

use super::*;
use crate::chunked::{Trailers, decoded};

async fn decode(framed: &[u8], step: usize) -> Result<(Vec<u8>, BTreeMap<String, String>), String> {
    let pieces: Vec<Result<Bytes, contract::BoxError>> = framed.chunks(step).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
    let trailers = Trailers::default();
    let data: Vec<Bytes> =
        decoded(futures::stream::iter(pieces), trailers.clone()).try_collect().await.map_err(|error| error.to_string())?;
    Ok((data.concat(), trailers.all()))
}

#[tokio::test]
async fn framing_comes_off_wherever_it_is_cut() {
    let framed = b"5;chunk-signature=00\r\nhello\r\n6\r\n world\r\n0;chunk-signature=11\r\nx-amz-checksum-crc32: DUoRhQ==\r\n\r\n";
    for step in 1..framed.len() {
        let (data, trailers) = decode(framed, step).await.unwrap();
        assert_eq!((data.as_slice(), trailers["x-amz-checksum-crc32"].as_str()), (&b"hello world"[..], "DUoRhQ=="), "{step}");
    }
    assert_eq!(decode(b"0\r\n", 3).await.unwrap().0, b"");
    for bad in [
        &b"5\r\nhell\r\n0\r\n\r\n"[..],
        b"5\r\nhello!\r\n0\r\n\r\n",
        b"5\r\nhello",
        b"z\r\n",
        b"+5\r\nhello\r\n0\r\n\r\n",
        b"0\r\n\r\nmore",
        b"",
        b"0\r\na\r\n\r\n",
    ] {
        assert!(decode(bad, 4).await.is_err(), "{}", String::from_utf8_lossy(bad));
    }
}

// A signed, chunked upload with a trailing checksum, as current SDKs send it; then the same with a wrong one.
#[tokio::test]
async fn an_sdks_upload_is_stored_without_its_framing() {
    let world = World::new();
    let objects = world.open().await;
    for (sum, expect) in [("DUoRhQ==", StatusCode::OK), ("AAAAAA==", StatusCode::BAD_REQUEST)] {
        let framed = format!("b\r\nhello world\r\n0\r\nx-amz-checksum-crc32:{sum}\r\n\r\n");
        let headers = [
            ("authorization", "AWS4-HMAC-SHA256 Credential=palisade/20260101/local/s3/aws4_request, SignedHeaders=host, Signature=00"),
            ("x-amz-date", "20260101T000000Z"),
            ("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"),
            ("x-amz-decoded-content-length", "11"),
            ("x-amz-trailer", "x-amz-checksum-crc32"),
            ("content-encoding", "aws-chunked"),
        ];
        assert_eq!(
            send(&objects, &filer(), Method::PUT, &format!("/files/a/{}", expect.as_u16()), &headers, framed).await.status(),
            expect,
            "{sum}"
        );
    }
    assert_eq!(bytes(get(&objects, &filer(), "/files/a/200").await).await, "hello world");
    assert_eq!(get(&objects, &filer(), "/files/a/400").await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn announced_digests_hold_or_nothing_is_stored() {
    let world = World::new();
    let objects = world.open().await;
    let good = [
        ("content-md5", "XrY7u+Ae7tCTyyK7j1rNww=="),
        ("x-amz-checksum-crc32", "DUoRhQ=="),
        ("x-amz-checksum-sha1", "Kq5sNclPz7QV2+lfQIuc6R7oRu0="),
        ("x-amz-checksum-sha256", "uU0nuZNNPgilLlLX2n2r+sSE7+N6U4DukIj3rOLvzek="),
        ("x-amz-content-sha256", "b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9"),
    ];
    for (name, value) in good {
        assert_eq!(
            send(&objects, &filer(), Method::PUT, "/files/a/b", &[(name, value)], "hello world").await.status(),
            StatusCode::OK,
            "{name}"
        );
        let other = send(&objects, &filer(), Method::PUT, "/files/a/c", &[(name, value)], "hello World").await;
        assert_eq!(other.status(), StatusCode::BAD_REQUEST, "{name}");
    }
    assert_eq!(get(&objects, &filer(), "/files/a/c").await.status(), StatusCode::NOT_FOUND);
    assert_eq!(files_in(&world, "blobs"), 1);
}
