//! WebSockets across two guards: from the edge to `front`, out of `front`, into `back`, which says back what it hears.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use contract::{Body, BoxError};
use http::{Request, Response};
use http_body_util::BodyExt;
use http_body_util::channel::{Channel, Sender};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::streaming::resident_mib;
use super::world::{World, read};
use crate::client::MeshTransport;
use crate::passage::Passage;
use crate::websocket;

const GET_THING: &str = "GET /things/{id}";

/// A frame of a client, masked.
pub fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        short @ 0..=125 => frame.push(0x80 | u8::try_from(short).unwrap()),
        middle @ 126..=65_535 => {
            frame.push(0x80 | 126);
            frame.extend(u16::try_from(middle).unwrap().to_be_bytes());
        }
        long => {
            frame.push(0x80 | 127);
            frame.extend((long as u64).to_be_bytes());
        }
    }
    let mask = [1, 2, 3, 4];
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// One frame: its opcode and payload, unmasked.
pub async fn frame<S: AsyncRead + Unpin>(stream: &mut S) -> std::io::Result<(u8, Vec<u8>)> {
    let (first, second) = (stream.read_u8().await?, stream.read_u8().await?);
    let length = match second & 0x7f {
        126 => usize::from(stream.read_u16().await?),
        127 => usize::try_from(stream.read_u64().await?).unwrap(),
        short => usize::from(short),
    };
    let mut mask = [0; 4];
    if second & 0x80 != 0 {
        stream.read_exact(&mut mask).await?;
    }
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).await?;
    payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    Ok((first & 0x0f, payload))
}

/// A frame of a server.
pub fn plain(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = masked(opcode, payload);
    frame[1] &= 0x7f;
    let header = frame.len() - payload.len() - 4;
    frame.truncate(header);
    frame.extend(payload);
    frame
}

/// The head of an HTTP/1.1 message.
pub async fn head<S: AsyncRead + Unpin>(stream: &mut S) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).await.unwrap() == 0 {
            break;
        }
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

pub fn field(head: &str, name: &str) -> String {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.filter(|(its, _)| its.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).collect::<Vec<_>>().join("|")
}

/// A program that listens and does `serve` with each connection.
pub fn program<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = crate::listen::loopback().unwrap();
    let address = listener.local_addr().unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    address
}

/// Answers the handshake as RFC 6455 asks.
async fn shake_hands(stream: &mut TcpStream) -> String {
    let asked = head(stream).await;
    let key = field(&asked, "sec-websocket-key");
    assert_eq!(STANDARD.decode(&key).unwrap().len(), 16);
    assert_eq!((field(&asked, "upgrade").as_str(), field(&asked, "sec-websocket-version").as_str()), ("websocket", "13"));
    let accept = aws_lc_rs::digest::digest(
        &aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY,
        format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11").as_bytes(),
    );
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {}\r\n\r\n",
        STANDARD.encode(accept)
    );
    stream.write_all(answer.as_bytes()).await.unwrap();
    asked
}

/// Says back each message; a Close is answered with one, and the end.
async fn echo(mut stream: TcpStream) {
    shake_hands(&mut stream).await;
    while let Ok((opcode, payload)) = frame(&mut stream).await {
        stream.write_all(&plain(opcode, &payload)).await.unwrap();
        if opcode == 8 {
            return;
        }
    }
}

/// `front`'s program: opens a WebSocket to `back` through its guard for each that is opened to it, with the token that it got.
async fn relay(mut stream: TcpStream, out: SocketAddr) {
    let asked = shake_hands(&mut stream).await;
    let mut onward = TcpStream::connect(out).await.unwrap();
    let opening = format!(
        "GET /things/live HTTP/1.1\r\nHost: back\r\nTxn-Token: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        field(&asked, "txn-token")
    );
    onward.write_all(opening.as_bytes()).await.unwrap();
    let answer = head(&mut onward).await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    assert_eq!(field(&answer, "sec-websocket-accept"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    let _ended = tokio::io::copy_bidirectional(&mut stream, &mut onward).await;
}

/// The caller's side of a tunnel over the mesh, as the edge has it.
struct Open {
    answer: Response<Body>,
    say: Sender<Bytes, BoxError>,
}

impl Open {
    async fn at(transport: &MeshTransport, path: &str, token: &str) -> Self {
        let (say, channel) = Channel::new(8);
        let mut request = Request::get(path).header("txn-token", token).body(Passage::new(channel).into_body()).unwrap();
        websocket::mark(request.headers_mut());
        Self { answer: transport.call(request).await.unwrap(), say }
    }

    fn is_open(&self) -> bool {
        self.answer.status() == 200 && websocket::is_tunnel(self.answer.headers())
    }

    /// What is heard, as a stream to read from, and where to speak.
    fn split(self) -> (impl AsyncRead + Unpin + Send, Sender<Bytes, BoxError>) {
        let frames = self.answer.into_body().into_data_stream();
        let frames = futures::StreamExt::map(frames, |piece| piece.map_err(std::io::Error::other));
        (tokio_util::io::StreamReader::new(frames), self.say)
    }
}

struct Chain {
    world: World,
    edge: Arc<MeshTransport>,
    token: String,
}

/// edge → guard of `front` → `relay` → guard of `front` → guard of `back` → `echo`.
fn chain() -> Chain {
    let world = World::new();
    let mut view = world.back_view();
    view.service.as_mut().unwrap().websockets = vec![GET_THING.into()];
    let (_back, address) = world.guard_before(&world.holder(&world.identity("back"), &view), program(echo));
    let listener = crate::listen::loopback().unwrap();
    let out = listener.local_addr().unwrap();
    let mut view = world.front_view(address);
    view.service.as_mut().unwrap().websockets = vec!["GET /relay/{*rest}".into()];
    let (front, address) = world.guard_before(&world.holder(&world.identity("front"), &view), program(move |stream| relay(stream, out)));
    tokio::spawn(Arc::clone(&front).outbound(9001, listener, world.stop.clone()));
    let (edge, token) = (world.transport(&world.edge, &world.service("front"), address), world.token("ann", "view"));
    Chain { world, edge, token }
}

// A18, D8: 100,000 messages and some of 8 MiB, both ways through two guards and both their services, with flat memory; then it closes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_goes_through_two_guards_with_flat_memory_and_closes_both_ways() {
    const MESSAGES: usize = 100_000;
    let chain = chain();
    let open = Open::at(&chain.edge, "/relay/live", &chain.token).await;
    assert!(open.is_open(), "{:?}", open.answer);
    let (mut hear, mut say) = open.split();
    let before = resident_mib();
    let speaking = tokio::spawn(async move {
        for first in (0..MESSAGES).step_by(50) {
            let frames: Vec<u8> = (first..first + 50).flat_map(|number| masked(1, format!("message {number}").as_bytes())).collect();
            say.send_data(frames.into()).await.unwrap();
        }
        say
    });
    let mut most = before;
    for number in 0..MESSAGES {
        let (opcode, payload) = frame(&mut hear).await.unwrap();
        assert_eq!((opcode, payload), (1, format!("message {number}").into_bytes()));
        if number % 10_000 == 0 {
            most = most.max(resident_mib());
        }
    }
    let mut say = speaking.await.unwrap();
    assert!(most - before <= 16, "everything together grew by {} MiB", most - before);
    let large: Vec<u8> = (0..8 << 20).map(|i: u32| i.to_le_bytes()[1]).collect();
    for _ in 0..2 {
        let sent = masked(2, &large);
        let speaking = tokio::spawn(async move {
            for piece in sent.chunks(64 * 1024) {
                say.send_data(Bytes::copy_from_slice(piece)).await.unwrap();
            }
            say
        });
        assert!(frame(&mut hear).await.unwrap() == (2, large.clone()));
        say = speaking.await.unwrap();
    }
    say.send_data(masked(8, &1000_u16.to_be_bytes()).into()).await.unwrap();
    assert_eq!(frame(&mut hear).await.unwrap(), (8, 1000_u16.to_be_bytes().to_vec()));
    let mut rest = Vec::new();
    hear.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty(), "nothing after the Close");
    drop(say);
    // Each hop has recorded the opening and the end.
    assert!(chain.world.saw("TunnelEnded", "closed").await);
    assert!(chain.world.saw("TunnelEnded", "guard").await && chain.world.saw("TunnelEnded", "guard.out").await);
}

// A6, A18: a route that does not say so takes no WebSocket; as a plain request it is what it was.
#[tokio::test]
async fn an_undeclared_websocket_is_refused_before_the_service_hears_of_it() {
    let world = World::new();
    let untouched = program(|_stream| async { panic!("the service was asked") });
    let (_guard, address) = world.guard_before(&world.holder(&world.identity("back"), &world.back_view()), untouched);
    let transport = world.transport(&world.identity("front"), &world.service("back"), address);
    let open = Open::at(&transport, "/things/1", &world.token("ann", "view")).await;
    let (status, said) = read(open.answer).await;
    assert_eq!((status, said["reason"].as_str()), (403, Some("upgrade_unlisted")));
    assert!(world.saw("CallDecided", "upgrade_unlisted").await);
}

// A18: a service that refuses, or proves nothing, opens nothing.
#[tokio::test]
async fn a_service_that_does_not_shake_hands_opens_nothing() {
    let world = World::new();
    let mut view = world.back_view();
    view.service.as_mut().unwrap().websockets = vec![GET_THING.into()];
    for (answer, status) in [
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nPalisade-Tunnel: websocket\r\n\r\n", 403),
        (
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
            503,
        ),
    ] {
        let service = program(move |mut stream| async move {
            head(&mut stream).await;
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        let (_guard, address) = world.guard_before(&world.holder(&world.identity("back"), &view), service);
        let transport = world.transport(&world.identity("front"), &world.service("back"), address);
        let open = Open::at(&transport, "/things/1", &world.token("ann", "view")).await;
        assert!(!open.is_open());
        assert_eq!(open.answer.status().as_u16(), status, "{answer}");
    }
}

// C12, A18: a flow that is withdrawn ends what was opened over it, with a Close that says so; the drain does, too.
#[tokio::test]
async fn a_withdrawn_flow_and_a_drain_end_an_open_websocket() {
    let world = World::new();
    let mut view = world.back_view();
    view.service.as_mut().unwrap().websockets = vec![GET_THING.into()];
    for (status, why) in [(1008_u16, "peer_undeclared"), (1001, "drained")] {
        let holder = world.holder(&world.identity("back"), &view);
        let (_guard, address) = world.guard_before(&holder, program(echo));
        let transport = world.transport(&world.identity("front"), &world.service("back"), address);
        let open = Open::at(&transport, "/things/1", &world.token("ann", "view")).await;
        assert!(open.is_open());
        let (mut hear, mut say) = open.split();
        say.send_data(masked(1, b"still there?").into()).await.unwrap();
        assert_eq!(frame(&mut hear).await.unwrap().1, b"still there?");
        if why == "drained" {
            world.stop.cancel();
        } else {
            let mut without = view.clone();
            without.epoch += 1;
            without.callers.remove(&world.service("front"));
            holder.accept(&world.sign(&without)).unwrap();
        }
        let closed = tokio::time::timeout(Duration::from_secs(20), frame(&mut hear)).await.expect("it ends");
        assert_eq!(closed.unwrap(), (8, status.to_be_bytes().to_vec()));
        assert!(world.saw("TunnelEnded", why).await);
    }
}

// D7: what a service opens on somebody's authority ends when that authority is no longer in flight.
#[tokio::test]
async fn a_websocket_ends_with_the_request_that_brought_its_authority() {
    let chain = chain();
    let open = Open::at(&chain.edge, "/relay/live", &chain.token).await;
    let (mut hear, mut say) = open.split();
    say.send_data(masked(1, b"hello").into()).await.unwrap();
    assert_eq!(frame(&mut hear).await.unwrap().1, b"hello");
    // The caller goes without a word.
    drop((say, hear));
    let ended = || chain.world.sink.audit.lock().unwrap().iter().filter(|record| record.event == "TunnelEnded").count();
    for _ in 0..2000 {
        if ended() == 3 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("of three tunnels {} have ended", ended());
}

/// Says one message of a client.
pub async fn say<S: AsyncWrite + Unpin>(stream: &mut S, opcode: u8, payload: &[u8]) {
    stream.write_all(&masked(opcode, payload)).await.unwrap();
    stream.flush().await.unwrap();
}
