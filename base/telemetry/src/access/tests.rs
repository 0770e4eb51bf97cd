//! A line says what it should, and nothing that a stranger wants it to.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use serde_json::Value;
use trust::DenyReason;

use super::*;

/// A request, with what it borrows.
struct Held {
    asked: Asked,
    principal: String,
    user: String,
    decision: Decision,
    route: &'static str,
}

impl Held {
    fn line(&self, service: &str) -> String {
        let decided = Decided {
            point: "edge",
            principal: &self.principal,
            action: "enter",
            resource: "",
            user: &self.user,
            purpose: "watch",
            txn: "secret-txn",
            job: "",
            decision: &self.decision,
        };
        let trace = TraceContext { trace_id: 0xabc, span_id: 1, sampled: true };
        let access = Access {
            asked: &self.asked,
            decided,
            route: self.route,
            status: 200,
            bytes_in: 1,
            bytes_out: 2,
            began_ns: 0,
            took_ns: 12_345_678,
            trace,
        };
        let mut out = Vec::new();
        access.write("2026-11-22T08:01:56.123Z", service, &mut out);
        String::from_utf8(out).unwrap()
    }
}

fn access(target: &str) -> Held {
    Held {
        asked: Asked {
            method: Method::GET,
            target: target.parse().unwrap(),
            host: Some(HeaderValue::from_static("video.example")),
            agent: Some(HeaderValue::from_static("curl/8.5.0")),
            version: Version::HTTP_2,
            tls: "1.3",
            from: Some(IpAddr::from([127, 0, 0, 1])),
            shown: Shown::Session,
        },
        principal: "internet".to_owned(),
        user: "u1".to_owned(),
        decision: Decision::Allow { policies: vec!["p1".to_owned(), "p2".to_owned()], epoch: 3, shadow: None },
        route: "api:GET /api/videos/{id}",
    }
}

// J1: each field, as docs/operations.md says it; no query.
#[test]
fn a_line_says_who_asked_for_what_and_what_became_of_it() {
    let said: Value = serde_json::from_str(&access("/api/videos/7?token=hunter2").line("")).unwrap();
    let expected = serde_json::json!({
        "time": "2026-11-22T08:01:56.123Z", "duration_ms": 12.345, "point": "edge", "method": "GET", "host": "video.example",
        "path": "/api/videos/7", "service": "api", "route": "GET /api/videos/{id}", "status": 200, "bytes_in": 1, "bytes_out": 2,
        "protocol": "HTTP/2", "tls": "1.3", "address": "127.0.0.1", "caller": "internet", "shown": "session", "person": "u1",
        "decision": "allow", "reason": "", "policy": "p1 p2", "epoch": 3, "trace": format!("{:032x}", 0xabc), "user_agent": "curl/8.5.0",
    });
    assert_eq!(said, expected);
    let mut refused = access("https://video.example:8443/x");
    refused.route = "GET /x";
    refused.decision = Decision::deny(DenyReason::PolicyDenied);
    let said: Value = serde_json::from_str(&refused.line("api")).unwrap();
    assert_eq!((&said["decision"], &said["reason"]), (&Value::from("deny"), &Value::from("policy_denied")));
    assert_eq!(
        (&said["service"], &said["route"], &said["host"]),
        (&Value::from("api"), &Value::from("GET /x"), &Value::from("video.example:8443"))
    );
}

// A13, J1: no field of a stranger's can end a line, begin another, steer a terminal or turn text around.
#[test]
fn no_request_can_write_a_line_of_its_own() {
    let nasty = "x\r\n{\"status\":200}\u{1b}[2J\u{9b}31m\u{202e}\u{2028}\u{2066}\u{feff}\u{7f}\"\\";
    let mut access = access("/a");
    access.user = nasty.to_owned();
    access.principal = nasty.to_owned();
    // What a header field may have by its grammar: tabs, and bytes of no text.
    access.asked.agent = Some(HeaderValue::from_bytes(b"a\tb\x80\xff\xe2\x80\xae\"}").unwrap());
    access.asked.host = Some(HeaderValue::from_bytes(b"h\xc2\x9b31m").unwrap());
    let text = access.line("");
    assert!(!text.chars().any(|c| c.is_control() || matches!(c, '\u{202e}' | '\u{2028}' | '\u{2066}' | '\u{feff}')), "{text:?}");
    let said: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(said["status"], 200);
    assert_eq!(said["person"], "x\u{fffd}\u{fffd}{\"status\":200}\u{fffd}[2J\u{fffd}31m\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\"\\");
    assert_eq!(said["user_agent"], "a\u{fffd}b\u{fffd}\u{fffd}\u{fffd}\"}");
    assert_eq!(said["host"], "h\u{fffd}31m");
}

// A13: exactly the limit is kept, one byte more is cut, and never in the middle of a character.
#[test]
fn long_texts_are_cut_at_their_limit() {
    let of = |text: &str| cleaned(text.as_bytes(), AGENT_BYTES_MAX);
    let most = "a".repeat(AGENT_BYTES_MAX);
    assert_eq!(of(&most), most);
    assert_eq!(of(&format!("{most}b")), most);
    let split = of(&"é".repeat(AGENT_BYTES_MAX));
    assert_eq!(split, "é".repeat(AGENT_BYTES_MAX / 2));
    let replaced = of(&"\r".repeat(AGENT_BYTES_MAX));
    assert!(replaced.len() <= AGENT_BYTES_MAX && replaced.chars().all(|c| c == '\u{fffd}'), "{}", replaced.len());
    let path = format!("/{}", "p".repeat(PATH_BYTES_MAX));
    let said: Value = serde_json::from_str(&access(&path).line("")).unwrap();
    assert_eq!(said["path"].as_str().unwrap().len(), PATH_BYTES_MAX);
}
