//! Floods of HTTP/2 frames against both listeners, in raw frames: the connection that sends them is ended, others are served, memory
//! stays flat. Just below the limit it is an ordinary connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use contract::{Body, BoxError};
use http::{Request, Response};
use http_body_util::channel::Channel;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use super::streaming::resident_mib;
use super::world::{World, get, mirror, read};
use crate::limits;
use crate::passage::Passage;
use crate::serve::connection;
use crate::tls;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// `:method GET`, `:scheme https`, `:path /`, `:authority localhost:8443` (RFC 7541, appendix A and section 6.2.2).
const GET_ROOT: &[u8] = b"\x82\x87\x84\x01\x0elocalhost:8443";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Every kind of flood, as the bytes of its `n`th part.
#[expect(clippy::type_complexity, reason = "a table")]
pub fn floods() -> Vec<(&'static str, fn(u32) -> Vec<u8>)> {
    vec![
        // CVE-2023-44487
        ("rapid reset", |n| [frame(1, 5, 2 * n + 1, GET_ROOT), frame(3, 0, 2 * n + 1, &8_u32.to_be_bytes())].concat()),
        // CVE-2024-27316: a header list without an end.
        ("continuation", |n| if n == 0 { frame(1, 1, 1, GET_ROOT) } else { frame(9, 0, 1, &[0x00, 1, b'a', 1, b'b'].repeat(100)) }),
        // CVE-2019-9515
        ("settings", |_| frame(4, 0, 0, &[])),
        // CVE-2019-9512
        ("ping", |_| frame(6, 0, 0, &[7; 8])),
        // CVE-2019-9518
        ("empty data", |n| if n == 0 { frame(1, 4, 1, GET_ROOT) } else { frame(0, 0, 1, &[]) }),
        // CVE-2019-9513
        ("priority", |n| frame(2, 0, 2 * n + 1, &[0, 0, 0, 0, 16])),
        ("window update", |_| frame(8, 0, 0, &1_u32.to_be_bytes())),
        ("unknown", |_| frame(0xbb, 0, 0, &[])),
    ]
}

/// Sends parts of a flood until the other end has had enough; how many it took.
pub async fn pour<S: AsyncRead + AsyncWrite>(stream: S, part: fn(u32) -> Vec<u8>, most: u32) -> u32 {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let ended = CancellationToken::new();
    let heard = ended.clone();
    let reading = async move {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(1..) = reader.read(&mut buffer).await {}
        heard.cancel();
    };
    let writing = async {
        let begin = [PREFACE, &frame(4, 0, 0, &[])].concat();
        writer.write_all(&begin).await.unwrap();
        for n in 0..most {
            if ended.is_cancelled() || writer.write_all(&part(n)).await.is_err() {
                return n;
            }
        }
        // All of it was taken; it may still be about to say that it was too much.
        let _late = tokio::time::timeout(Duration::from_secs(20), ended.cancelled()).await;
        if ended.is_cancelled() { most - 1 } else { most }
    };
    let (poured, ()) = tokio::join!(
        async {
            let poured = writing.await;
            ended.cancel();
            poured
        },
        async {
            tokio::select! { () = reading => {}, () = ended.cancelled() => {} }
        }
    );
    poured
}

/// A connection to a listener of the mesh in the name of `front`.
async fn mesh(world: &World, address: SocketAddr) -> tokio_rustls::client::TlsStream<TcpStream> {
    let identity = world.identity("front");
    let config = tls::client(Some(&identity), identity.bundle(), &world.service("back"), &[tls::H2]).unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    TlsConnector::from(Arc::clone(&config)).connect(ServerName::try_from("mesh.invalid").unwrap(), stream).await.unwrap()
}

// A13, D9: against a guard's listener.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_against_a_guard_end_their_connection_and_no_other() {
    let world = World::new();
    let (_guard, address) = world.guard("back", &world.back_view(), mirror);
    let transport = world.transport(&world.identity("front"), &world.service("back"), address);
    let token = world.token("ann", "view");
    let before = resident_mib();
    for (name, part) in floods() {
        let poured = pour(mesh(&world, address).await, part, 200_000).await;
        assert!(poured < 200_000, "{name} went on and on");
        let (status, _) = read(transport.call(get("/things/1", &[("txn-token", &token)])).await.unwrap()).await;
        assert_eq!(status, 200, "others are served after {name}");
    }
    let grown = resident_mib().saturating_sub(before);
    assert!(grown <= 32, "it grew by {grown} MiB");
}

// A13: below the limit they are frames like any other.
#[tokio::test]
async fn a_few_control_frames_end_nothing() {
    let world = World::new();
    let (_guard, address) = world.guard("back", &world.back_view(), mirror);
    let mut stream = mesh(&world, address).await;
    let (pings, resets) = (limits::FLOOD_CREDIT_MAX / 2, limits::FLOOD_CREDIT_MAX / 4 / limits::FLOOD_RESET_COST);
    let mut bytes = [PREFACE, &frame(4, 0, 0, &[])].concat();
    stream.write_all(&bytes).await.unwrap();
    for n in 0..u32::try_from(resets).unwrap() {
        bytes = [frame(1, 5, 2 * n + 1, GET_ROOT), frame(3, 0, 2 * n + 1, &8_u32.to_be_bytes())].concat();
        stream.write_all(&bytes).await.unwrap();
        stream.flush().await.unwrap();
        // As somebody who changes their mind, not as fast as can be: h2 itself takes only so many before they are accepted.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    for _ in 0..pings {
        stream.write_all(&frame(6, 0, 0, b"pingpong")).await.unwrap();
    }
    stream.write_all(&frame(6, 0, 0, b"the last")).await.unwrap();
    stream.flush().await.unwrap();
    let mut heard = Vec::new();
    let answered = async {
        while !heard.windows(8).any(|window| window == b"the last") {
            assert!(stream.read_buf(&mut heard).await.unwrap() > 0, "it was ended");
        }
    };
    tokio::time::timeout(Duration::from_secs(30), answered).await.expect("the last ping is answered");
}

/// Answers that never end.
async fn endless(_request: Request<Body>) -> Response<Body> {
    let (mut say, channel) = Channel::<Bytes, BoxError>::new(1);
    tokio::spawn(async move { while say.send_data(Bytes::from_static(&[7; 16 * 1024])).await.is_ok() {} });
    Response::new(Passage::new(channel).into_body())
}

// A13: a reader that asks for much and takes nothing holds nothing for long, and its answers are not collected meanwhile.
#[tokio::test]
async fn a_reader_that_closes_its_windows_is_ended() {
    let (mut near, far) = tokio::io::duplex(1 << 16);
    let stop = CancellationToken::new();
    let before = resident_mib();
    let serving = tokio::spawn(async move { connection::http2_taken_within(Duration::from_secs(1), far, endless, &stop).await });
    // SETTINGS_INITIAL_WINDOW_SIZE = 0 (RFC 9113, section 6.5.2), and as many requests as are allowed at once.
    let mut bytes = [PREFACE, &frame(4, 0, 0, &[0, 4, 0, 0, 0, 0])].concat();
    (0..limits::STREAMS_MAX).for_each(|n| bytes.extend(frame(1, 5, 2 * n + 1, GET_ROOT)));
    near.write_all(&bytes).await.unwrap();
    let mut rest = Vec::new();
    let _ended = tokio::time::timeout(Duration::from_secs(30), near.read_to_end(&mut rest)).await.expect("it ends");
    serving.await.unwrap();
    assert!(resident_mib() - before <= 16);
}

// A13: one that only pauses, or whose answers have nothing to say yet, is not.
#[tokio::test]
async fn a_connection_that_waits_for_its_answers_is_not_ended() {
    let (mut near, far) = tokio::io::duplex(1 << 16);
    let stop = CancellationToken::new();
    let late = |_request: Request<Body>| async {
        let (mut say, channel) = Channel::<Bytes, BoxError>::new(1);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(3)).await;
            say.send_data(Bytes::from_static(b"at last")).await.unwrap();
        });
        Response::new(Passage::new(channel).into_body())
    };
    tokio::spawn(async move { connection::http2_taken_within(Duration::from_secs(1), far, late, &stop).await });
    near.write_all(&[PREFACE, &frame(4, 0, 0, &[]), &frame(1, 5, 1, GET_ROOT)].concat()).await.unwrap();
    let mut heard = Vec::new();
    while !heard.windows(7).any(|window| window == b"at last") {
        assert!(near.read_buf(&mut heard).await.unwrap() > 0, "it was ended");
    }
}
