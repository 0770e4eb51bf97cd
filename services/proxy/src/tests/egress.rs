//! D10: out of the system, to declared destinations and nowhere else, with real TLS.

mod outdoors;

use std::sync::atomic::Ordering;
use std::time::Duration;

use rcgen::ExtendedKeyUsagePurpose;

use self::outdoors::{Outdoors, Place, SECRET, write};
use crate::tls;

fn reason(text: &str) -> &str {
    text.split("\"reason\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default()
}

// D10: per-destination identity. The operator's credential goes along, the service's own claims and ours do not.
#[tokio::test]
async fn a_destination_is_called_in_the_operators_name_and_nothing_of_ours_leaves() {
    for alpn in [&[tls::H2, tls::HTTP1][..], &[tls::HTTP1][..], &[][..]] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        write(&file, &format!("{SECRET}\n"), 0o600);
        let outdoors = Outdoors::at(Place { alpn, ..Place::default() }, |to| {
            to.credential = Some(("authorization".into(), file.display().to_string()));
        })
        .await;
        let fields = "Authorization: Bearer stolen|Cookie: a=b|Palisade-User: ann|Baggage: x=y|traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01|X-Keep: yes|BODY 3";
        let (status, text) = outdoors.ask_with("POST /v1/charges/7?full=1", fields, "/relay/x", "view").await;
        assert!(status == 200 && text.contains("thank you"), "{text}");
        let seen = outdoors.seen().pop().unwrap();
        assert_eq!((seen.line.as_str(), seen.bytes), ("POST /v1/charges/7?full=1", 3));
        assert_eq!(seen.fields["host"], format!("shop.test:{}", outdoors.port).as_str());
        assert!(seen.fields["authorization"] == SECRET && seen.fields["x-keep"] == "yes", "{seen:?}");
        for ours in ["cookie", "palisade-user", "txn-token", "baggage", "traceparent", "b3", "connection"] {
            assert!(!seen.fields.contains_key(ours), "{ours}: {seen:?}");
        }
        // It comes back in a field: the service does not see it, nor what speaks in our name.
        let (status, text) = outdoors.ask("GET /v1/echo").await;
        assert!(status == 200 && !text.contains("operators-own-secret") && !text.to_lowercase().contains("palisade-user"), "{text}");
        let records = outdoors.records();
        assert!(!records.contains("operators-own-secret") && !records.contains("stolen"), "{records}");
        assert!(records.contains("egress to shop") && records.contains(&format!("127.0.0.1:{}", outdoors.port)), "{records}");
        assert_eq!(outdoors.connections.load(Ordering::SeqCst), 1, "one connection for both");
        assert_eq!(outdoors.names.asked.load(Ordering::SeqCst), 1);
    }
}

// D10, D6, D7: what is not declared is refused before a name is resolved.
#[tokio::test]
async fn workload_person_purpose_method_and_path_must_all_be_declared() {
    let outdoors = Outdoors::new().await;
    for (line, fields, expected) in [
        ("GET /v2/charges", "", (404, "route_unknown")),
        ("DELETE /v1/charges/7", "", (405, "method_unlisted")),
        ("GET /v1/../admin", "", (400, "request_ambiguous")),
        ("GET /v1/live", "Upgrade: h2c", (403, "upgrade_unlisted")),
    ] {
        let (status, text) = outdoors.ask_with(line, fields, "/relay/x", "view").await;
        assert_eq!((status, reason(&text)), expected, "{line}: {text}");
    }
    let (status, text) = outdoors.ask_with("GET /v1/days", "", "/jobs/x", "process").await;
    assert_eq!((status, reason(&text)), (403, "policy_denied"), "{text}");
    let (status, text) = outdoors.ask_raw("GET /v1/days", "").await;
    assert_eq!((status, reason(&text)), (403, "authority_missing"), "{text}");
    let old = format!("Txn-Token: {}", outdoors.world.token("bob", "view"));
    let (status, text) = outdoors.ask_raw("GET /v1/days", &old).await;
    assert_eq!((status, reason(&text)), (403, "authority_not_in_flight"), "{text}");
    assert!(outdoors.world.saw("CallDecided", "policy_denied").await);
    assert_eq!((outdoors.names.asked.load(Ordering::SeqCst), outdoors.connections.load(Ordering::SeqCst)), (0, 0));
    assert_eq!(outdoors.ask("GET /v1/days").await.0, 200);
}

// D10: IMDS, link-local, other networks and IPv4 in every disguise; one bad address refuses all.
#[tokio::test]
async fn a_name_with_an_address_that_may_not_be_connected_to_leads_nowhere() {
    let outdoors = Outdoors::new().await;
    for addresses in [
        &["169.254.169.254"][..],
        &["127.0.0.1", "169.254.169.254"],
        &["::ffff:127.0.0.1"],
        &["64:ff9b::7f00:1"],
        &["2002:7f00:1::1"],
        &["fd00:ec2::254"],
        &["fe80::1"],
        &["::1"],
        &["10.0.0.1", "127.0.0.1"],
        &["1.1.1.1"],
        &["0.0.0.0"],
        &["::"],
    ] {
        outdoors.resolves_to(&[addresses]);
        let (status, text) = outdoors.ask("GET /v1/days").await;
        assert_eq!((status, reason(&text)), (403, "address_forbidden"), "{addresses:?}: {text}");
    }
    assert!(outdoors.world.saw("CallDecided", "address_forbidden").await);
    assert_eq!(outdoors.connections.load(Ordering::SeqCst), 0);
    let many: Vec<String> = (1..=33).map(|n| format!("127.0.1.{n}")).collect();
    outdoors.resolves_to(&[&many.iter().map(String::as_str).collect::<Vec<_>>()]);
    assert_eq!(outdoors.ask("GET /v1/days").await.0, 503, "more addresses than anybody means");
    outdoors.resolves_to(&[&[]]);
    assert_eq!(outdoors.ask("GET /v1/days").await.0, 503);
    outdoors.resolves_to(&[&["127.0.0.1"]]);
    assert_eq!(outdoors.ask("GET /v1/days").await.0, 200);
}

// D10: hosts that are addresses, in every spelling that parses as one.
#[tokio::test]
async fn a_host_that_is_an_address_is_checked_like_one() {
    for host in ["::1", "0:0:0:0:0:0:0:1", "::ffff:127.0.0.1", "::ffff:7f00:1", "::7f00:1", "169.254.169.254", "fe80::1", "fd00:ec2::254"] {
        let outdoors = Outdoors::at(Place::default(), |to| to.host = host.to_owned()).await;
        let (status, text) = outdoors.ask("GET /v1/days").await;
        assert_eq!((status, reason(&text)), (403, "address_forbidden"), "{host}: {text}");
        assert_eq!(outdoors.names.asked.load(Ordering::SeqCst), 0, "an address is not resolved");
    }
    let place = Place { certificate_for: "127.0.0.1", ..Place::default() };
    let outdoors = Outdoors::at(place, |to| to.host = "127.0.0.1".to_owned()).await;
    assert_eq!(outdoors.ask("GET /v1/days").await.0, 200);
}

// D10: DNS rebinding. What was checked is what is connected to; the next connection is checked anew.
#[tokio::test]
async fn a_name_that_is_changed_under_a_connection_leads_nowhere_else() {
    let outdoors = Outdoors::at(Place { alpn: &[tls::HTTP1], ..Place::default() }, |_| {}).await;
    outdoors.resolves_to(&[&["127.0.0.1"], &["169.254.169.254"]]);
    assert_eq!(outdoors.ask("GET /v1/days").await.0, 200);
    assert_eq!(outdoors.ask("GET /v1/bye").await.0, 200, "the same connection, which nobody resolves for");
    assert_eq!(outdoors.names.asked.load(Ordering::SeqCst), 1);
    let (status, text) = outdoors.ask("GET /v1/days").await;
    assert_eq!((status, reason(&text)), (403, "address_forbidden"), "{text}");
    assert_eq!((outdoors.names.asked.load(Ordering::SeqCst), outdoors.connections.load(Ordering::SeqCst)), (2, 1));
}

// D10: TLS is always on, and the name is verified.
#[tokio::test]
async fn who_does_not_prove_to_be_the_host_gets_no_byte() {
    let wrong_name = Outdoors::at(Place { certificate_for: "other.test", ..Place::default() }, |_| {}).await;
    let other = outdoors::Authority::new();
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("other.pem");
    write(&root, &other.pem, 0o644);
    let wrong_root = Outdoors::at(Place::default(), |to| to.root = Some(root.display().to_string())).await;
    for outdoors in [wrong_name, wrong_root] {
        let (status, text) = outdoors.ask("GET /v1/days").await;
        assert_eq!((status, reason(&text)), (502, "destination_untrusted"), "{text}");
        assert!(outdoors.world.saw("CallDecided", "destination_untrusted").await);
        assert!(outdoors.seen().is_empty());
    }
}

// D10: a destination cannot send a guard elsewhere.
#[tokio::test]
async fn a_redirect_is_passed_back_and_not_followed() {
    let outdoors = Outdoors::new().await;
    let (status, text) = outdoors.ask("GET /v1/redirect").await;
    assert!(status == 302 && text.contains("169.254.169.254/latest/meta-data"), "{text}");
    assert_eq!((outdoors.seen().len(), outdoors.names.asked.load(Ordering::SeqCst)), (1, 1));
}

// D10: the operator's files: what others can read is not used, what is replaced counts, what is taken away ends.
#[tokio::test]
async fn a_credential_is_its_owners_alone_and_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let outdoors = Outdoors::at(Place::default(), |to| to.credential = Some(("x-api-key".into(), file.display().to_string()))).await;
    let old = Duration::from_millis(1200);
    for (text, mode) in [("first", 0o640), ("first", 0o604), ("", 0o600), ("two\nlines", 0o600), (" blank", 0o600), ("caf\u{e9}", 0o600)] {
        write(&file, text, mode);
        let (status, said) = outdoors.ask("GET /v1/days").await;
        assert_eq!((status, reason(&said)), (503, "credential_unavailable"), "{text:?} {mode:o}: {said}");
    }
    assert!(outdoors.seen().is_empty(), "nothing went without it");
    for value in ["first", "second"] {
        write(&file, &format!("{value}\n"), 0o600);
        tokio::time::sleep(old).await;
        assert_eq!(outdoors.ask_with("GET /v1/days", "X-Api-Key: of-the-service", "/relay/x", "view").await.0, 200);
        let seen = outdoors.seen().pop().unwrap();
        assert_eq!(seen.fields.get_all("x-api-key").iter().collect::<Vec<_>>(), [value]);
    }
    std::fs::remove_file(&file).unwrap();
    tokio::time::sleep(old).await;
    assert_eq!(reason(&outdoors.ask("GET /v1/days").await.1), "credential_unavailable");
}

// D10: mutual TLS towards a destination, with a certificate of its own.
#[tokio::test]
async fn a_destination_may_ask_for_a_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let (chain, key) = (folder.path().join("us.pem"), folder.path().join("us.key"));
    let declared = (chain.display().to_string(), key.display().to_string());
    let place = Place { asks_certificate: true, ..Place::default() };
    let outdoors = Outdoors::at(place, |to| to.certificate = Some(declared)).await;
    let (chain_pem, key_pem) = outdoors.authority.issue("us.test", ExtendedKeyUsagePurpose::ClientAuth);
    write(&chain, &chain_pem, 0o644);
    write(&key, &key_pem, 0o640);
    let (status, text) = outdoors.ask("GET /v1/days").await;
    assert_eq!((status, reason(&text)), (503, "credential_unavailable"), "a key that others can read: {text}");
    write(&key, &key_pem, 0o600);
    assert_eq!(outdoors.ask("GET /v1/days").await.0, 200);
    assert!(outdoors.seen()[0].shown);
}

// A13 outwards: each limit crossed, and just below.
#[tokio::test]
async fn bodies_answers_and_calls_have_their_limits() {
    for alpn in [&[tls::H2][..], &[tls::HTTP1][..]] {
        let outdoors = Outdoors::at(Place { alpn, ..Place::default() }, |_| {}).await;
        let post = |fields| outdoors.ask_with("POST /v1/charges/1", fields, "/relay/x", "view");
        for (fields, status) in [("BODY 1000", 200), ("CHUNKED 1000", 200), ("BODY 1001", 413), ("CHUNKED 1001", 413)] {
            let (got, text) = post(fields).await;
            assert_eq!(got, status, "{fields}: {text}");
            assert!(status == 200 || reason(&text) == "body_too_large", "{text}");
        }
        assert!(outdoors.seen().iter().all(|seen| seen.bytes <= 1000 && !seen.trailers && !seen.fields.contains_key("authorization")));
        assert_eq!(outdoors.ask("GET /v1/1000").await.0, 200);
        assert_eq!(outdoors.ask("GET /v1/1001").await.0, 502);
        let (_, streamed) = outdoors.ask("GET /v1/streamed").await;
        assert!(streamed.matches('x').count() <= 1000 && !streamed.ends_with("0\r\n\r\n"), "broken off: {}", streamed.len());
    }
}

// D9, D10: a destination that does not answer, and more calls than are declared.
#[tokio::test]
async fn a_destination_that_never_answers_ends_with_its_time_and_takes_no_more_places() {
    let outdoors = Outdoors::at(Place::default(), |to| to.wall_ms = 3000).await;
    let never = || outdoors.ask("GET /v1/never");
    let third = async {
        while outdoors.seen().len() < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        outdoors.ask("GET /v1/days").await
    };
    let (first, second, (status, text)) = tokio::join!(never(), never(), third);
    assert_eq!((status, reason(&text)), (503, "concurrency_exceeded"), "{text}");
    assert_eq!((first.0, second.0), (504, 504), "{first:?} {second:?}");
    assert_eq!(outdoors.ask("GET /v1/days").await.0, 200, "places are free again");
}

// D10: traces leave only where the manifest says so.
#[tokio::test]
async fn a_trace_leaves_only_where_it_is_declared() {
    let outdoors = Outdoors::at(Place::default(), |to| to.trace = true).await;
    assert_eq!(outdoors.ask("GET /v1/days").await.0, 200);
    assert!(outdoors.seen()[0].fields.contains_key("traceparent"));
}
