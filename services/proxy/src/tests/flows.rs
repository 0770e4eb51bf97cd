//! Raw TCP flows: from `front`'s socket through both guards to `lines`, a server of a line protocol of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use contract::control::{Outbound, Protocol, TCP_ROUTE, View};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::sockets::program;
use super::world::{World, get, mirror, read};
use crate::view::ViewHolder;

/// Answers each line, and says how many there were once its caller has said everything.
async fn lines(stream: TcpStream) {
    let (reader, mut writer) = stream.into_split();
    let mut heard = BufReader::new(reader).lines();
    let mut count = 0;
    while let Ok(Some(line)) = heard.next_line().await {
        count += 1;
        if writer.write_all(format!("heard {line}\n").as_bytes()).await.is_err() {
            return;
        }
    }
    // A caller that was cut hears nothing more.
    let _heard = writer.write_all(format!("{count} lines\n").as_bytes()).await;
}

fn lines_view(world: &World) -> View {
    let mut view = world.view(&world.service("lines"));
    view.callers = [world.service("front")].into();
    let mut service = world.back_view().service.unwrap();
    service.name = "lines".into();
    service.routes = vec![TCP_ROUTE.into()];
    service.consumes = Vec::new();
    service.protocol = Protocol::Tcp;
    view.service = Some(service);
    view
}

struct Flowing {
    world: World,
    /// What decides at `lines`.
    holder: Arc<ViewHolder>,
    view: View,
    /// The socket in `front`'s sandbox.
    out: SocketAddr,
    stop: CancellationToken,
}

fn flowing(service: SocketAddr) -> Flowing {
    let world = World::new();
    let view = lines_view(&world);
    let holder = world.holder(&world.identity("lines"), &view);
    let (_lines, address) = world.guard_before(&holder, service);
    let mut front = world.front_view(address);
    let outbound =
        Outbound { port: 9002, env: "LINES_URL".into(), peer: world.service("lines"), routes: vec![TCP_ROUTE.into()], outside: None };
    front.service.as_mut().unwrap().outbound.push(outbound);
    front.peers.insert(world.service("lines"), vec![address.to_string()]);
    let listener = crate::listen::loopback().unwrap();
    let out = listener.local_addr().unwrap();
    let (guard, _) = world.guard("front", &front, mirror);
    let stop = world.stop.child_token();
    tokio::spawn(guard.outbound(9002, listener, stop.clone()));
    Flowing { world, holder, view, out, stop }
}

// D8: a protocol that is not HTTP, through both guards; half-closed, it still brings the answers; both ends and all bytes are recorded.
#[tokio::test]
async fn a_line_protocol_passes_two_guards_and_half_closes() {
    let flowing = flowing(program(lines));
    let mut stream = TcpStream::connect(flowing.out).await.unwrap();
    stream.write_all(b"one\n").await.unwrap();
    let mut first = [0; 10];
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"heard one\n", "each answer comes when it is made");
    stream.write_all(b"two\nthree\n").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "heard two\nheard three\n3 lines\n");
    assert!(flowing.world.saw("TunnelEnded", "guard").await && flowing.world.saw("TunnelEnded", "guard.out").await);
    assert!(flowing.world.saw("CallDecided", "flow.front.service.lines.tcp").await, "the permit of this flow has decided");
    let audit = flowing.world.sink.audit.lock().unwrap();
    let ended: Vec<_> = audit.iter().filter(|record| record.event == "TunnelEnded").collect();
    for record in &ended {
        assert_eq!(
            (&record.fields["bytes_in"], &record.fields["bytes_out"], &record.fields["why"]),
            (&14.into(), &40.into(), &"closed".into())
        );
    }
    assert_eq!(ended.len(), 2);
}

// D8: whole megabytes both ways, in flat memory, as they were.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_raw_flow_moves_much_in_flat_memory() {
    const BYTES: usize = 64 << 20;
    let flowing = flowing(program(|mut stream| async move {
        let (mut reader, mut writer) = stream.split();
        tokio::io::copy(&mut reader, &mut writer).await.unwrap();
    }));
    let before = super::streaming::resident_mib();
    let (mut reader, mut writer) = TcpStream::connect(flowing.out).await.unwrap().into_split();
    let saying = tokio::spawn(async move {
        let piece: Vec<u8> = (0..1 << 16).map(|i: u32| i.to_le_bytes()[0]).collect();
        for _ in 0..BYTES / piece.len() {
            writer.write_all(&piece).await.unwrap();
        }
        writer.shutdown().await.unwrap();
    });
    let (mut buffer, mut heard) = (vec![0; 1 << 16], 0_usize);
    loop {
        let read = reader.read(&mut buffer).await.unwrap();
        if read == 0 {
            break;
        }
        assert!(buffer[..read].iter().enumerate().all(|(i, byte)| usize::from(*byte) == (heard + i) % 256));
        heard += read;
    }
    saying.await.unwrap();
    assert_eq!(heard, BYTES);
    let grown = super::streaming::resident_mib().saturating_sub(before);
    assert!(grown <= 16, "it grew by {grown} MiB");
}

// D4, D6, A6: decided on connect. Who has no such flow gets nothing, and no HTTP passes where raw flows are declared, nor the reverse.
#[tokio::test]
async fn an_undeclared_flow_is_cut_before_the_service_hears_of_it() {
    let world = World::new();
    let untouched = program(|_stream| async { panic!("the service was asked") });
    let mut view = lines_view(&world);
    // The view lets `stranger` in; the policies do not.
    view.callers.insert(world.service("stranger"));
    let (_guard, address) = world.guard_before(&world.holder(&world.identity("lines"), &view), untouched);
    let mut stream = world.transport(&world.identity("stranger"), &world.service("lines"), address).raw().await.unwrap();
    let mut heard = Vec::new();
    let _cut = stream.read_to_end(&mut heard).await;
    assert!(heard.is_empty() && world.saw("CallDecided", "peer_undeclared").await);
    // HTTP to it, on somebody's authority, by the flow's own caller.
    let transport = world.transport(&world.identity("front"), &world.service("lines"), address);
    let token = world.token("ann", "view");
    let (status, said) = read(transport.call(get("/", &[("txn-token", &token)])).await.unwrap()).await;
    assert_eq!((status, said["reason"].as_str()), (404, Some("route_unknown")));
    // A raw flow to a service of HTTP.
    let (_back, address) = world.guard_before(&world.holder(&world.identity("back"), &world.back_view()), untouched_too());
    let mut stream = world.transport(&world.identity("front"), &world.service("back"), address).raw().await.unwrap();
    let _cut = stream.read_to_end(&mut heard).await;
    assert!(heard.is_empty() && world.saw("CallDecided", "route_unknown").await);
}

fn untouched_too() -> SocketAddr {
    program(|_stream| async { panic!("the service was asked") })
}

// C12, D8: an open flow ends soon after it is withdrawn, and with a drain; it is cut, not ended, so that nobody takes a part for the whole.
#[tokio::test]
async fn a_withdrawn_flow_is_cut_and_so_is_one_at_a_drain() {
    for why in ["peer_undeclared", "drained"] {
        let mut flowing = flowing(program(lines));
        let mut stream = TcpStream::connect(flowing.out).await.unwrap();
        stream.write_all(b"one\n").await.unwrap();
        let mut first = [0; 10];
        stream.read_exact(&mut first).await.unwrap();
        if why == "drained" {
            flowing.stop.cancel();
        } else {
            flowing.view.epoch += 1;
            flowing.view.callers.clear();
            flowing.holder.accept(&flowing.world.sign(&flowing.view)).unwrap();
        }
        let cut = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut first)).await.expect("it ends");
        assert!(cut.is_err(), "{why}: reset, not ended: {cut:?}");
        assert!(flowing.world.saw("TunnelEnded", why).await);
    }
}
