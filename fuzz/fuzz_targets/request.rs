//! Heads of HTTP/1.1 requests and their paths: what the screen lets through, the parser reads alike, and what is canonical stays so.
//!
//! The files of `proxy` are taken in by path, so that this needs none of what `proxy` needs.
#![no_main]
#![allow(dead_code, reason = "the files have more than is fuzzed")]

#[path = "../../services/proxy/src/canonical.rs"]
mod canonical;
#[path = "../../services/proxy/src/choice.rs"]
mod choice;
#[path = "../../services/proxy/src/limits.rs"]
mod limits;
#[path = "../../services/proxy/src/serve/screen.rs"]
mod screen;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version};
use libfuzzer_sys::fuzz_target;

const ROUTES: &[(&str, &str)] =
    &[("GET", "/"), ("GET", "/a/{x}"), ("GET", "/a/me:all"), ("PUT", "/a/{x}"), ("GET", "/r/{*rest}"), ("GET", "/r/top/{x}"), ("GET", "/{x}")];

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes)
        && canonical::path(text).is_ok()
    {
        route(text);
    }
    let Ok(framing) = screen::head(bytes) else { return };
    let mut fields = [httparse::EMPTY_HEADER; 256];
    let mut parsed = httparse::Request::new(&mut fields);
    let Ok(httparse::Status::Complete(end)) = parsed.parse(bytes) else { return };
    assert_eq!(end, bytes.len(), "the screen and the parser see the same end of the head");
    let length = |name: &str| parsed.headers.iter().filter(|f| f.name.eq_ignore_ascii_case(name)).map(|f| f.value).collect::<Vec<_>>();
    let (lengths, codings) = (length("content-length"), length("transfer-encoding"));
    match framing {
        screen::Framing::Chunked => assert!(lengths.is_empty() && codings.len() == 1),
        screen::Framing::Length(n) => {
            assert!(codings.is_empty() && lengths.len() <= 1);
            let said = lengths.first().map_or(0, |v| std::str::from_utf8(v).unwrap().trim().parse::<u64>().unwrap());
            assert_eq!(n, said);
        }
    }
    let (Ok(method), Ok(uri)) = (parsed.method.unwrap().parse::<Method>(), parsed.path.unwrap().parse::<Uri>()) else { return };
    let mut headers = HeaderMap::new();
    for field in parsed.headers.iter() {
        let (Ok(name), Ok(value)) = (field.name.parse::<HeaderName>(), HeaderValue::from_bytes(field.value)) else { return };
        headers.append(name, value);
    }
    if let Ok(path) = canonical::request(&method, &uri, Version::HTTP_11, &headers) {
        assert_eq!(canonical::path(path), Ok(path));
        assert!(parsed.path.unwrap().starts_with(path), "what was sent is what is decided on");
        route(path);
    }
});

/// The row that is chosen for a path is the row that is chosen for the path once decoded, if that can be asked about at all.
fn route(path: &str) {
    let rows = ROUTES.iter().enumerate().map(|(n, (method, template))| (*method, *template, n));
    if let Ok(canonical::Choice::Row(row, _)) = canonical::choose(rows.clone(), "GET", path) {
        let decoded = percent_encoding::percent_decode_str(path).decode_utf8().expect("canonical paths are UTF-8 once decoded");
        assert!(!decoded.split('/').any(|s| s == "." || s == ".."));
        if canonical::path(&decoded).is_ok()
            && let Ok(canonical::Choice::Row(again, _)) = canonical::choose(rows, "GET", &decoded)
        {
            assert_eq!(row, again);
        }
    }
}
