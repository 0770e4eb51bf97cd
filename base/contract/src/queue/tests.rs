//! CloudEvents in headers.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;

fn event(kind: &str) -> Event {
    Event {
        id: "1".into(),
        source: "/tests".into(),
        kind: kind.into(),
        subject: Some("a b/\"ü\"%41".into()),
        content_type: "text/plain; charset=\"a%20b\"".into(),
        data: b"data".to_vec(),
    }
}

fn passed_on(event: &Event) -> Result<Event, Fault> {
    let mut headers = HeaderMap::new();
    event.write_headers(&mut headers)?;
    Event::from_parts(&headers, event.data.clone())
}

// Found by fuzzing: escaped, each of these bytes is three.
#[test]
fn an_event_of_the_longest_attributes_is_read_as_it_was_written() {
    for kind in ["%".repeat(128), "ü".repeat(64), " ".repeat(128), "x".repeat(128)] {
        assert_eq!(passed_on(&event(&kind)).unwrap(), event(&kind));
    }
}

#[test]
fn attributes_that_are_too_long_or_have_control_characters_are_refused() {
    for kind in
        ["x".repeat(129), "%".repeat(129), "ü".repeat(65), String::new(), "a\tb".into(), "a\nb".into(), "a\u{7f}".into(), "\u{85}".into()]
    {
        assert_eq!(passed_on(&event(&kind)).unwrap_err().kind, trust::FaultKind::BadRequest, "{kind:?}");
    }
    let mut headers = HeaderMap::new();
    event("x").write_headers(&mut headers).unwrap();
    headers.insert("ce-type", http::HeaderValue::from_static("a\tb"));
    assert_eq!(Event::from_parts(&headers, Vec::new()).unwrap_err().kind, trust::FaultKind::BadRequest);
}
