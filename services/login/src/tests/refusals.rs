//! Every route, by everybody who may not; and an audit log that cannot be written.

use std::sync::Arc;

use contract::login::ROUTES;
use contract::route::Who;
use contract::{LocalPeer, Peer, body};
use http::{Request, StatusCode};
use trust::TrustDomain;

use super::house::{House, edge_peer};

#[tokio::test]
async fn every_route_refuses_everybody_else() {
    let house = House::new().await;
    let local = LocalPeer { uid: 0, pid: 1, pidfd: None };
    let domain = TrustDomain::parse("video.example").unwrap();
    let peers = [
        ("supervisor", Peer::Supervisor),
        ("operator", Peer::Operator(local.clone())),
        ("local", Peer::Local(local)),
        ("a service called edge", Peer::Workload(domain.service("edge"))),
        ("control", Peer::Workload(domain.role("control"))),
        ("another domain's edge", Peer::Workload(TrustDomain::parse("other.example").unwrap().role("edge"))),
        ("edge", edge_peer()),
    ];
    for route in ROUTES {
        let admitted = if route.who == Who::Operator { "operator" } else { "edge" };
        for (name, peer) in peers.iter().filter(|(name, _)| *name != admitted) {
            let path = route.path.replace("{user}", "somebody");
            let request = Request::builder().method(route.method).uri(path).body(body::empty()).unwrap();
            let answer = house.send(peer.clone(), request).await;
            let reason = answer.json()["reason"].as_str().unwrap_or_default().to_owned();
            assert_eq!((answer.status, reason.as_str()), (StatusCode::FORBIDDEN, "caller_not_admitted"), "{name} {}", route.path);
        }
    }
    for (method, path, status) in [("GET", "/nothing", StatusCode::NOT_FOUND), ("PUT", "/token", StatusCode::METHOD_NOT_ALLOWED)] {
        let request = Request::builder().method(method).uri(path).body(body::empty()).unwrap();
        assert_eq!(house.send(edge_peer(), request).await.status, status);
    }
    let refusals = ROUTES.len() * (peers.len() - 1) + 2;
    assert_eq!(house.events("CallDecided").len(), refusals, "each refusal is in the audit log");
}

// A folder of keys that was sealed by another installation is not opened.
#[tokio::test]
async fn keys_of_another_installation_do_not_open() {
    use trust::{KeySealer, Secret, SystemClock, SystemEntropy};
    let folder = tempfile::tempdir().unwrap();
    let open = async |key: u8, origin: &str| {
        let (clock, entropy) = (SystemClock::shared(), SystemEntropy::shared());
        let sink = Arc::new(telemetry::MemorySink::default());
        crate::Login::open(crate::LoginConfig {
            database: folder.path().join("login.db"),
            public_origin: origin.to_owned(),
            system: "video".to_owned(),
            trust_domain: TrustDomain::parse("video.example").unwrap(),
            scopes: Default::default(),
            clients: vec![],
            sealer: KeySealer::new("login", &Secret::new([key; 32]), Arc::clone(&entropy)).unwrap(),
            recorder: telemetry::Recorder::new(sink, Arc::clone(&clock), Arc::clone(&entropy), Arc::new(telemetry::Metrics::new())),
            clock,
            entropy,
        })
        .await
        .map(|_| ())
    };
    open(1, "https://localhost").await.unwrap();
    assert!(matches!(open(2, "https://localhost").await, Err(crate::LoginError::Seal(_))));
    open(1, "https://localhost").await.unwrap();
    for origin in ["http://localhost", "https://localhost/", "https://localhost/x", "localhost", "https://LOCALHOST"] {
        assert!(matches!(open(1, origin).await, Err(crate::LoginError::OriginMalformed(_))), "{origin}");
    }
}
