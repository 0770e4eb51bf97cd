//! The same corpus against HAProxy, to say how strict the edge is beside it.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::corpus::{H2_REFUSED, PASSED, REFUSED};
use super::{Outcome, edge_h1, edge_h2, for_tokens, h1, h2, h2_fields, written};

/// A server that answers 200 to whatever has a head, and counts.
async fn backend() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, served) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&served);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let count = Arc::clone(&count);
            tokio::spawn(async move {
                let (mut text, mut piece) = (Vec::new(), [0; 4096]);
                while !text.windows(4).any(|w| w == b"\r\n\r\n") {
                    match stream.read(&mut piece).await {
                        Ok(read @ 1..) => text.extend_from_slice(&piece[..read]),
                        _ => return,
                    }
                }
                count.fetch_add(1, Ordering::SeqCst);
                // The peer may have gone; it was counted.
                let _written = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
            });
        }
    });
    (port, served)
}

// A4
#[tokio::test]
#[ignore = "needs the program haproxy: cargo nextest run -p proxy haproxy --run-ignored all --no-capture"]
async fn haproxy_refuses_nothing_that_the_edge_lets_pass() {
    let (backend, _count) = backend().await;
    let port = |_: ()| std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (one, two) = (port(()), port(()));
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "defaults\n mode http\n timeout connect 5s\n timeout client 5s\n timeout server 5s\n option http-server-close\n\
         frontend one\n bind 127.0.0.1:{one}\n default_backend b\nfrontend two\n bind 127.0.0.1:{two} proto h2\n default_backend b\n\
         backend b\n server s 127.0.0.1:{backend}\n"
    );
    let file = folder.path().join("haproxy.cfg");
    std::fs::write(&file, config).unwrap();
    let mut haproxy = tokio::process::Command::new("haproxy")
        .args(["-db", "-f"])
        .arg(&file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("the program haproxy: apt-get install haproxy");
    while TcpStream::connect(("127.0.0.1", two)).await.is_err() {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let served = for_tokens().await;
    let (mut laxer, mut stricter) = (Vec::new(), Vec::new());
    let mut both = 0;
    let mut compare = |name: &str, ours, theirs| match (ours, theirs) {
        (Outcome::Passed, Outcome::Refused) => laxer.push(name.to_owned()),
        (Outcome::Refused, Outcome::Passed) => stricter.push(name.to_owned()),
        _ => both += 1,
    };
    for (name, shape) in PASSED.iter().chain(REFUSED) {
        let stream = TcpStream::connect(("127.0.0.1", one)).await.unwrap();
        let theirs = h1(stream, &written(shape, "localhost:8443", "x")).await;
        compare(name, edge_h1(&served, shape).await, theirs);
    }
    for (name, fields, body) in H2_REFUSED {
        let stream = TcpStream::connect(("127.0.0.1", two)).await.unwrap();
        let theirs = h2(stream, &h2_fields(fields, "localhost:8443", "x"), body).await;
        compare(&format!("h2: {name}"), edge_h2(&served, fields, body).await, theirs);
    }
    eprintln!("alike: {both}; the edge alone refuses {}: {stricter:#?}", stricter.len());
    assert!(laxer.is_empty(), "HAProxy alone refuses {laxer:#?}");
    haproxy.kill().await.unwrap();
    served.stop.cancel();
}
