//! Heads, paths and headers as tables: what passes and what does not.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::serve::screen::{Framing, Opened, Screen, head};
use crate::view::{Matched, Table};
use crate::{canonical, headers};

fn framing(text: &str) -> Result<Framing, &'static str> {
    head(text.as_bytes())
}

// A4: RFC 9112 sections 2.2, 3, 5 and 6, and the published shapes of request smuggling.
#[test]
fn heads_that_can_be_read_in_two_ways_are_refused() {
    for bad in [
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1, 1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0x1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length:\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent_Length: 1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length : 1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \"chunked\"\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer_Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\u{b}chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n\tfolded: c\r\n\r\n",
        "GET / HTTP/1.1\r\n Host: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nA\0: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nA: b\rc\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\n: empty\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1 \r\nHost: x\r\n\r\n",
        "GET\t/ HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.2\r\nHost: x\r\n\r\n",
        "GET / http/1.1\r\nHost: x\r\n\r\n",
        "GET /\r\nHost: x\r\n\r\n",
        "get / HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /\u{e9} HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /a#b HTTP/1.1\r\nHost: x\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\n",
        "\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
    ] {
        assert!(framing(bad).is_err(), "{bad:?}");
    }
    assert_eq!(framing("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), Ok(Framing::Length(0)));
    assert_eq!(framing("PUT /a HTTP/1.1\r\nHost: x\r\ncontent-length: 12\r\n\r\n"), Ok(Framing::Length(12)));
    assert_eq!(framing("PUT /a HTTP/1.1\r\nHost: x\r\ntransfer-encoding: Chunked\r\nA:\tb c\t\r\n\r\n"), Ok(Framing::Chunked));
}

async fn through(text: &[u8], piece: usize) -> (Vec<u8>, Vec<&'static str>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (mut near, far) = tokio::io::duplex(1 << 20);
    let why = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let heard = why.clone();
    let mut screen = Screen::new(far, move |reason| heard.lock().unwrap().push(reason), Opened::default());
    for part in text.chunks(piece) {
        near.write_all(part).await.unwrap();
    }
    drop(near);
    let mut out = Vec::new();
    // A body that breaks the rules ends with an error; what had passed by then is still compared.
    let _ended = screen.read_to_end(&mut out).await;
    let why = why.lock().unwrap().clone();
    (out, why)
}

// A13: a head, a chunk's size and trailers: each passes at its limit, and one byte more is refused.
#[tokio::test]
async fn heads_chunk_sizes_and_trailers_have_a_length() {
    const HEAD: &str = "PUT /a HTTP/1.1\r\nHost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    let head = |bytes: usize| {
        let (start, end) = ("GET /a HTTP/1.1\r\nHost: x\r\nx-long: ", "\r\n\r\n");
        format!("{start}{}{end}", "a".repeat(bytes - start.len() - end.len()))
    };
    let chunk = |digits: usize| format!("{HEAD}{}1\r\nz\r\n0\r\n\r\n", "0".repeat(digits - 1));
    let trailers = |bytes: usize| format!("{HEAD}0\r\nx-long: {}\r\n\r\n", "a".repeat(bytes - "x-long: \r\n\r\n".len()));
    let most = crate::limits::HTTP1_BUFFER_BYTES;
    for (passes, refused, why) in [
        (head(most), head(most + 1), "the head is too long"),
        (chunk(16), chunk(17), "a chunk's size is malformed"),
        (trailers(8 * 1024), trailers(8 * 1024 + 1), "the trailers are too long"),
    ] {
        let (out, said) = through(passes.as_bytes(), 1000).await;
        assert!(said.is_empty() && out == passes.as_bytes(), "{why}: {said:?}, {} of {}", out.len(), passes.len());
        assert_eq!(through(refused.as_bytes(), 1000).await.1, [why]);
    }
}

// A4: the screen changes nothing of what it lets through, however it arrives.
#[tokio::test]
async fn good_messages_pass_unchanged_in_any_pieces() {
    let text = b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n00a\r\n0123456789\r\n0\r\nT: v\r\n\r\nPUT /b HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\n\r\n\r\n\r\nabcGET /c HTTP/1.1\r\nHost: x\r\n\r\n";
    for piece in [1, 2, 3, 7, 64, text.len()] {
        let (out, why) = through(text, piece).await;
        assert_eq!((out.as_slice(), why.as_slice()), (text.as_slice(), &[][..]), "pieces of {piece}");
    }
}

// A4
#[tokio::test]
async fn chunks_that_can_be_read_in_two_ways_are_refused() {
    let start = "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    for bad in [
        "5;ext=1\r\nhello\r\n",
        "5\nhello\r\n",
        "0x5\r\nhello\r\n",
        "+5\r\nhello\r\n",
        " 5\r\nhello\r\n",
        "5\r\nhelloXX",
        "5\r\nhello\n",
        "fffffffffffffffff\r\n",
        "\r\n",
        "0\r\nbad trailer\r\n\r\n",
    ] {
        let (out, why) = through(format!("{start}{bad}0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes(), 16).await;
        assert_eq!(why.len(), 1, "{bad:?}");
        assert!(!String::from_utf8_lossy(&out).contains("smuggled"), "{bad:?}");
    }
}

// A4
#[test]
fn paths_that_can_be_read_in_two_ways_are_refused() {
    for good in [
        "/",
        "/a",
        "/a/",
        "/a/b.c",
        "/a/..b",
        "/a/b%20c",
        "/a/%F0%9F%8E%AC",
        "/a/b%3Bv=1",
        "/a/b:c@d",
        "/a/%2Fb%2Fc".trim_end_matches("%2Fb%2Fc"),
        "/o/a%2Fb",
    ] {
        assert_eq!(canonical::path(good), Ok(good));
    }
    for bad in [
        "",
        "a",
        "//",
        "//a",
        "/a//b",
        "/.",
        "/..",
        "/a/./b",
        "/a/../b",
        "/a/%2e",
        "/a/%2e%2E/b",
        "/a/.%2e",
        "/a/%2e%2e%2fb",
        "/a/b%2f..",
        "/a%2f%2fb",
        "/%2fa",
        "/a\\b",
        "/a/%5c..",
        "/a/%00",
        "/a/%0d%0a",
        "/a/%7f",
        "/a/%",
        "/a/%2",
        "/a/%zz",
        "/a/%ff",
        "/a b",
        "/a/\u{e9}",
        "/a/..;/b",
        "/a/.;x",
        "/a?b",
        "/a#b",
        "/a/%c0%ae%c0%ae",
        "/a/{x}",
        "/a/\"b",
        "/a/b;v=1",
        "/%61/b",
        "/a/%7euser",
        "/a/%2D",
    ] {
        assert!(canonical::path(bad).is_err(), "{bad:?}");
    }
}

// A3, A4
#[test]
fn an_encoded_slash_fits_only_a_rest() {
    let table = Table::parse(&["GET /a/{x}".to_owned(), "GET /r/{*rest}".to_owned(), "GET /a/b".to_owned()]).unwrap();
    assert!(matches!(table.find("GET", "/a/b"), Ok(Matched::Row(row)) if row.path == "/a/b"));
    assert!(matches!(table.find("GET", "/a/c"), Ok(Matched::Row(row)) if row.path == "/a/{x}"));
    assert!(table.find("GET", "/a/c%2Fd").is_err());
    assert!(table.find("GET", "/a/c%3Bd").is_err());
    assert!(matches!(table.find("GET", "/r/c%3Bd"), Ok(Matched::Row(_))));
    assert!(matches!(table.find("GET", "/r/c%2Fd/e"), Ok(Matched::Row(_))));
    assert_eq!(table.find("PUT", "/a/c"), Ok(Matched::MethodUnlisted));
    assert_eq!(table.find("GET", "/a"), Ok(Matched::Unknown));
    for bad in ["GET", "get /a", "/a", "GET a", " /a"] {
        assert!(Table::parse(&[bad.to_owned()]).is_err(), "{bad:?}");
    }
}

// A4: a server that decodes before it routes must find the route that the policy was asked about.
#[test]
fn a_path_that_leads_elsewhere_once_decoded_is_refused() {
    let rows = ["GET /a/{x}", "DELETE /a/me:all", "GET /a/me:all", "GET /r/{*rest}", "GET /r/top/{x}", "GET /{x}"];
    let table = Table::parse(&rows.map(str::to_owned)).unwrap();
    assert!(matches!(table.find("GET", "/a/me:all"), Ok(Matched::Row(row)) if row.path == "/a/me:all"));
    assert!(table.find("GET", "/a/me%3Aall").is_err(), "as it stands `{{x}}`, decoded a literal");
    assert!(matches!(table.find("GET", "/a/me%3Aal"), Ok(Matched::Row(row)) if row.path == "/a/{x}"));
    assert!(table.find("GET", "/r/top%2Fb").is_err(), "as it stands the rest, decoded another template");
    assert!(matches!(table.find("GET", "/r/tip%2Fb"), Ok(Matched::Row(row)) if row.path == "/r/{*rest}"));
    assert!(table.find("GET", "/a%2Fb").is_err());
    // A percent sign of the name itself, which only a second decoding would undo.
    assert!(matches!(table.find("GET", "/r/100%25ff"), Ok(Matched::Row(row)) if row.path == "/r/{*rest}"));
}

// RFC 9110 section 7.6.1
#[test]
fn hop_by_hop_fields_and_those_that_connection_names_are_removed() {
    let mut map = HeaderMap::new();
    for (name, value) in [
        ("connection", "close, X-Mine"),
        ("x-mine", "1"),
        ("keep-alive", "5"),
        ("te", "trailers"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("proxy-authorization", "x"),
        ("expect", "100-continue"),
        ("x-stays", "1"),
        ("content-type", "a/b"),
    ] {
        map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    headers::strip_hop_by_hop(&mut map);
    let mut left: Vec<_> = map.keys().map(HeaderName::as_str).collect();
    left.sort_unstable();
    assert_eq!(left, ["content-type", "te", "x-stays"]);
}

// A4: method, target, host and repeated fields.
#[test]
fn requests_whose_target_or_host_is_unclear_are_refused() {
    let check = |method: &str, uri: &str, version, fields: &[(&'static str, &'static str)]| {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        canonical::request(&method.parse().unwrap(), &uri.parse().unwrap(), version, &map).is_ok()
    };
    use http::Version as V;
    assert!(check("GET", "/a?b", V::HTTP_11, &[("host", "x")]));
    assert!(check("GET", "https://x/a", V::HTTP_2, &[]));
    assert!(check("GET", "https://x/a", V::HTTP_2, &[("host", "X")]));
    assert!(!check("GET", "/a", V::HTTP_11, &[]));
    assert!(!check("GET", "/a", V::HTTP_11, &[("host", "x"), ("host", "x")]));
    assert!(!check("GET", "http://y/a", V::HTTP_11, &[("host", "x")]));
    assert!(!check("GET", "https://x/a", V::HTTP_2, &[("host", "y")]));
    assert!(!check("OPTIONS", "*", V::HTTP_11, &[("host", "x")]));
    assert!(!check("CONNECT", "x:443", V::HTTP_11, &[("host", "x")]));
    assert!(!check("TRACE", "/a", V::HTTP_11, &[("host", "x")]));
    assert!(!check("GET", "/a", V::HTTP_11, &[("host", "x"), ("txn-token", "a"), ("txn-token", "b")]));
    assert!(!check("GET", "/a", V::HTTP_11, &[("host", "x"), ("content-length", "1"), ("transfer-encoding", "chunked")]));
    assert!(check("GET", "/a?b=%C3%A9", V::HTTP_11, &[("host", "x")]));
    assert!(!check("GET", "/a?b=\u{e9}", V::HTTP_11, &[("host", "x")]));
    assert!(check("PUT", "/a", V::HTTP_11, &[("host", "x"), ("content-length", "10")]));
    assert!(!check("PUT", "/a", V::HTTP_11, &[("host", "x"), ("content-length", "+10")]));
    assert!(!check("PUT", "/a", V::HTTP_11, &[("host", "x"), ("content-length", "1,1")]));
    for alias in ["content_length", "transfer_encoding", "transfer-encoding", "connection", "upgrade", "host"] {
        assert!(!check("PUT", "https://y/a", V::HTTP_2, &[(alias, "x")]), "{alias}");
    }
    assert!(!check("PUT", "/a", V::HTTP_11, &[("host", "x"), ("transfer_encoding", "chunked")]));
}
