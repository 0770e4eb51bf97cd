//! CloudEvents in headers: what is read can be written and is read the same again.
#![no_main]

use contract::queue::Event;
use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut headers = HeaderMap::new();
    let mut lines = bytes.split(|byte| *byte == b'\n');
    for line in lines.by_ref().take(16) {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let (Some(name), Some(value)) = (parts.next(), parts.next()) else { continue };
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    let data = lines.next().unwrap_or_default().to_vec();
    if let Ok(event) = Event::from_parts(&headers, data) {
        let mut written = HeaderMap::new();
        if event.write_headers(&mut written).is_ok() {
            let again = Event::from_parts(&written, event.data.clone()).expect("what was written is read");
            assert_eq!(event, again);
        }
    }
});
