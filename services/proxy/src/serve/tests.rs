//! Time limits of a connection's beginning.

use tokio::io::AsyncWriteExt;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::*;
use crate::tests::world::World;

/// What a handshake came to, and after how long, when the client begins its own so much later.
async fn shaken(client_waits: Duration) -> (bool, Duration) {
    let world = World::new();
    let (back, front) = (world.identity("back"), world.identity("front"));
    let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
    let config = tls::server(&back, CallerSvid::Required).unwrap();
    let began = Instant::now();
    let client = async {
        tokio::time::sleep(client_waits).await;
        let config = tls::client(Some(&front), front.bundle(), back.id(), &[tls::H2]).unwrap();
        let name = rustls::pki_types::ServerName::try_from("x").unwrap();
        if let Ok(mut stream) = TlsConnector::from(config).connect(name, &mut theirs).await {
            // TLS 1.3: the client's last message may wait in its buffer.
            let _sent = stream.flush().await;
            std::future::pending::<()>().await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        done = handshake(ours, config, &world.recorder, "test") => (done.is_some(), began.elapsed()),
        () = client => unreachable!("it waits for ever"),
    }
}

// A13, D1: ten seconds from the connection to the end of the handshake, and no more. In real time, both at once.
#[tokio::test]
async fn a_handshake_has_its_time_and_no_more() {
    let most = Duration::from_millis(limits::HANDSHAKE_MS);
    let ((made, _), (late, took)) = tokio::join!(shaken(most / 2), shaken(most * 10));
    assert!(made);
    assert!(!late && took >= most && took < most * 5, "{took:?}");
}
