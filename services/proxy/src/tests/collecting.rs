//! The way to a collector outside: which URLs are taken, and what is sent there.

use contract::{Transport, body};
use http::Request;

use super::world::{mirror, read, service};
use crate::client::{CollectorTransport, CollectorUrl, CollectorUrlError};

// J2: unencrypted spans go no further than loopback.
#[test]
fn only_urls_of_this_machine_are_taken() {
    let parse = |text: &str| text.parse::<CollectorUrl>().map(|url| url.to_string());
    assert_eq!(parse("http://127.0.0.1:4318").as_deref(), Ok("http://127.0.0.1:4318"));
    assert_eq!(parse("http://localhost:4318/").as_deref(), Ok("http://localhost:4318"));
    assert_eq!(parse("http://[::1]:4318/otlp/").as_deref(), Ok("http://[::1]:4318/otlp"));
    assert_eq!(parse("http://127.9.9.9").as_deref(), Ok("http://127.9.9.9"));
    for (text, expect) in [
        ("127.0.0.1:4318", CollectorUrlError::Malformed),
        ("", CollectorUrlError::Malformed),
        ("https://127.0.0.1:4318", CollectorUrlError::SchemeUnsupported),
        ("https://collector.example", CollectorUrlError::SchemeUnsupported),
        ("http://collector.example:4318", CollectorUrlError::NotLoopback),
        ("http://localhost.example:4318", CollectorUrlError::NotLoopback),
        ("http://192.0.2.1:4318", CollectorUrlError::NotLoopback),
        ("http://0.0.0.0:4318", CollectorUrlError::NotLoopback),
        ("http://[2001:db8::1]:4318", CollectorUrlError::NotLoopback),
        ("http://127.0.0.1:4318/?a=b", CollectorUrlError::TooMuch),
        ("http://user:secret@127.0.0.1:4318", CollectorUrlError::TooMuch),
        ("http://127.0.0.1:4318/#a", CollectorUrlError::TooMuch),
    ] {
        assert_eq!(parse(text), Err(expect), "{text}");
    }
}

// J2: paths of signals are appended to the base (OTLP/HTTP Request).
#[tokio::test]
async fn a_collector_is_asked_below_its_base_and_by_its_name() {
    let stop = tokio_util::sync::CancellationToken::new();
    let address = service(mirror, stop.clone());
    let url = format!("http://localhost:{}/otlp/", address.port()).parse().unwrap();
    let request = Request::post("/v1/traces").header("content-type", "application/x-protobuf").body(body::full(vec![1, 2, 3])).unwrap();
    let (status, seen) = read(CollectorTransport::new(url).send(request).await.unwrap()).await;
    assert_eq!((status, &seen["target"]), (200, &"/otlp/v1/traces".into()), "{seen}");
    assert_eq!(seen["headers"]["host"], format!("localhost:{}", address.port()), "{seen}");
    assert_eq!(seen["headers"]["content-type"], "application/x-protobuf");
    stop.cancel();
}

#[tokio::test]
async fn a_collector_that_is_not_there_is_a_fault_for_later() {
    let listener = crate::listen::loopback().unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let url = format!("http://{address}").parse().unwrap();
    let request = Request::post("/v1/traces").body(body::empty()).unwrap();
    let fault = CollectorTransport::new(url).send(request).await.unwrap_err();
    assert_eq!(fault.kind, trust::FaultKind::Unavailable, "{fault}");
}
