//! The names of traces: what a service hears of them, and what counts of what it says.

use std::sync::Arc;

use contract::{Body, body};
use http::Request;

use super::world::{World, get, mirror, raw, read};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// What `back` saw and which span was the parent of the call to it, when `front` calls it with these header lines (`TRACE` stands for the
/// trace that it is in); and the span that `front`'s guard made for the request.
struct Relayed {
    seen: serde_json::Value,
    parent: String,
    own: String,
    trace: String,
}

async fn relayed(lines: &'static str) -> Relayed {
    let world = World::new();
    let (_back, address) = world.guard("back", &world.back_view(), mirror);
    let listener = crate::listen::loopback().unwrap();
    let out = listener.local_addr().unwrap();
    let relay = move |request: Request<Body>| async move {
        let token = request.headers()["txn-token"].to_str().unwrap().to_owned();
        let trace = request.headers()["traceparent"].to_str().unwrap()[3..35].to_owned();
        let lines = lines.replace("TRACE", &trace);
        let text = format!("GET /things/1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTxn-Token: {token}\r\n{lines}\r\n");
        let answer = raw(out, &text).await;
        let (_, rest) = answer.split_once("\r\n\r\n").unwrap();
        body::with_type(http::StatusCode::OK, "application/json", rest.to_owned())
    };
    let (guard, front) = world.guard("front", &world.front_view(address), relay);
    tokio::spawn(Arc::clone(&guard).outbound(9001, listener, world.stop.clone()));
    let edge = world.transport(&world.edge, &world.service("front"), front);
    let (token, root) = (world.token("ann", "view"), format!("00-{TRACE}-b7ad6b7169203331-01"));
    let (status, seen) = read(edge.call(get("/relay/1", &[("txn-token", &token), ("traceparent", &root)])).await.unwrap()).await;
    assert_eq!(status, 200, "{seen}");
    let spans = world.sink.spans.lock().unwrap().clone();
    let span = |name: &str| spans.iter().find(|span| span.name.starts_with(name)).unwrap_or_else(|| panic!("{name}: {spans:?}")).clone();
    let (own, call) = (span("guard GET /relay"), span("guard.out to back"));
    Relayed { seen, parent: call.parent, own: own.span, trace: call.trace }
}

// J2: B3 libraries work unchanged in a service.
#[tokio::test]
async fn a_service_may_name_its_span_by_either_form_of_b3() {
    for lines in [
        "b3: TRACE-00000000000000aa-1\r\n",
        "b3: TRACE-00000000000000aa-1-00000000000000bb\r\n",
        "X-B3-TraceId: TRACE\r\nX-B3-SpanId: 00000000000000aa\r\nX-B3-Sampled: 1\r\n",
        "X-B3-TraceId: TRACE\r\nX-B3-SpanId: 00000000000000aa\r\nX-B3-ParentSpanId: 00000000000000bb\r\nX-B3-Flags: 1\r\n",
        "traceparent: 00-TRACE-00000000000000aa-01\r\nb3: TRACE-00000000000000cc-1\r\n",
        "b3: TRACE-00000000000000aa-1\r\nX-B3-TraceId: TRACE\r\nX-B3-SpanId: 00000000000000cc\r\n",
        "tracestate: a=1\r\ntracestate: b=2\r\ntraceparent: 00-TRACE-00000000000000aa-01\r\n",
    ] {
        let relayed = relayed(lines).await;
        assert_eq!((relayed.trace.as_str(), relayed.parent.as_str()), (TRACE, "00000000000000aa"), "{lines}");
        let headers = relayed.seen["headers"].as_object().unwrap();
        assert!(!headers.contains_key("tracestate") && !headers.keys().any(|name| name.starts_with("x-b3")), "{lines}: {headers:?}");
        assert!(!headers["b3"].as_str().unwrap().contains("00000000000000aa"), "`back` hears of its own span: {headers:?}");
    }
}

// J5: what is malformed, doubled or of another trace is nothing; the call belongs to the request whose token it carries.
#[tokio::test]
async fn a_service_cannot_join_another_trace_by_b3() {
    for lines in [
        "",
        "b3: 80f198ee56343ba864fe8b2a57d3eff7-00000000000000aa-1\r\n",
        "X-B3-TraceId: 80f198ee56343ba864fe8b2a57d3eff7\r\nX-B3-SpanId: 00000000000000aa\r\n",
        "b3: TRACE-00000000000000aa-yes\r\n",
        "b3: 0\r\n",
        "b3: TRACE-00000000000000aa-1\r\nb3: TRACE-00000000000000aa-1\r\n",
        "X-B3-TraceId: TRACE\r\nX-B3-SpanId: 00000000000000aa\r\nX-B3-Sampled: true\r\n",
        "traceparent: 00-TRACE-00000000000000aa\r\nb3: TRACE-00000000000000aa-1\r\n",
    ] {
        let relayed = relayed(lines).await;
        assert_eq!((relayed.trace.as_str(), &relayed.parent), (TRACE, &relayed.own), "{lines}");
    }
}

// J2, J5: the service hears the same span in both forms, and nothing that a peer wrote.
#[tokio::test]
async fn a_service_is_handed_b3_beside_traceparent() {
    let world = World::new();
    let (_guard, address) = world.guard("back", &world.back_view(), mirror);
    let transport = world.transport(&world.identity("front"), &world.service("back"), address);
    let token = world.token("ann", "view");
    let claims = [
        ("txn-token", token.as_str()),
        ("b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1"),
        ("x-b3-traceid", "80f198ee56343ba864fe8b2a57d3eff7"),
        ("x-b3-spanid", "e457b5a2e4d86bd1"),
        ("x-b3-parentspanid", "e457b5a2e4d86bd1"),
        ("x-b3-sampled", "0"),
        ("x-b3-flags", "1"),
    ];
    let (status, seen) = read(transport.call(get("/things/1", &claims)).await.unwrap()).await;
    assert_eq!(status, 200);
    let headers = seen["headers"].as_object().unwrap();
    let context = trust::TraceContext::parse(headers["traceparent"].as_str().unwrap()).unwrap();
    assert_eq!(trust::TraceContext::parse_b3(headers["b3"].as_str().unwrap()), Some(context));
    assert_ne!(context.trace_hex(), "80f198ee56343ba864fe8b2a57d3eff7", "in the mesh traceparent alone counts");
    assert!(!headers.keys().any(|name| name.starts_with("x-b3")), "{headers:?}");
}
