//! The PROXY protocol: whom the edge believes, and what it does not.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use trust::{DenyReason, Entropy, SystemEntropy};

use super::tls::{Served, files, serve_with, write_certificate};
use super::world::{Settings, World};
use crate::edge::{Balancers, Certificates};
use crate::limits;

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3));

fn balancers() -> Balancers {
    Balancers::of(vec!["10.0.0.0/8".parse().unwrap(), "127.0.0.1".parse().unwrap()])
}

/// A header of version 2.
fn second(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([command, family]);
    header.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    header.extend(body);
    header
}

fn v4(values: &[u8]) -> Vec<u8> {
    [&[192, 0, 2, 7, 198, 51, 100, 1, 0xc7, 0x38, 1, 0xbb], values].concat()
}

fn v6(source: &str) -> Vec<u8> {
    let source: std::net::Ipv6Addr = source.parse().unwrap();
    [&source.octets()[..], &[0; 16], &[0xc7, 0x38, 1, 0xbb]].concat()
}

/// What is made of those bytes, and how many of what follows were left.
async fn read(bytes: &[u8]) -> (Result<IpAddr, DenyReason>, usize) {
    let mut stream = bytes;
    let caller = balancers().caller(&mut stream, PEER).await;
    (caller, stream.len())
}

#[tokio::test]
async fn a_header_of_either_version_says_who_calls_and_nothing_behind_it_is_read() {
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    let long = format!("PROXY UNKNOWN {}\r\n", "f".repeat(107 - 16));
    for (header, caller) in [
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 51000 443\r\n".to_vec(), address("192.0.2.7")),
        (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n".to_vec(), address("255.255.255.255")),
        (b"PROXY TCP6 2001:db8::7 2001:db8::1 51000 443\r\n".to_vec(), address("2001:db8::7")),
        (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 51000 443\r\n".to_vec(), address("192.0.2.7")),
        (b"PROXY UNKNOWN\r\n".to_vec(), PEER),
        (long.into_bytes(), PEER),
        (second(0x21, 0x11, &v4(&[])), address("192.0.2.7")),
        (second(0x21, 0x21, &v6("2001:db8::7")), address("2001:db8::7")),
        // One address has one spelling, so that it has one limit.
        (second(0x21, 0x21, &v6("::ffff:192.0.2.7")), address("192.0.2.7")),
        // A balancer that looks whether we live.
        (second(0x20, 0x00, &[]), PEER),
        (second(0x20, 0x11, &v4(&[])), PEER),
        (second(0x21, 0x00, &[4, 0, 1, 0]), PEER),
        // Values that are read over: a checksum, an authority, TLS that ended at the balancer, one without content.
        (second(0x21, 0x11, &v4(&[3, 0, 4, 1, 2, 3, 4, 2, 0, 1, b'x', 0x20, 0, 5, 1, 0, 0, 0, 0, 4, 0, 0])), address("192.0.2.7")),
        (second(0x21, 0x11, &v4(&[&[4, 7, 0xf1][..], &[0; 2033]].concat())), address("192.0.2.7")),
    ] {
        let read = read(&[header.clone(), b"\x16\x03\x01hello".to_vec()].concat()).await;
        assert_eq!(read, (Ok(caller), 8), "{:?}", String::from_utf8_lossy(&header));
    }
}

#[tokio::test]
async fn a_header_that_is_not_exactly_one_is_refused() {
    for header in [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00\x00\x00\x00".to_vec(),
        b"PROXY TCP4 192.0.2.7 198.51.100.1 51000 443\n\n".to_vec(),
        b"PROXY TCP4 192.0.2.7 198.51.100.1 51000 443 \r\n".to_vec(),
        b"PROXY TCP4 192.0.2.7  198.51.100.1 51000 443\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.7 198.51.100.1 51000\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.07 198.51.100.1 51000 443\r\n".to_vec(),
        b"PROXY TCP4 2001:db8::7 2001:db8::1 51000 443\r\n".to_vec(),
        b"PROXY TCP6 192.0.2.7 198.51.100.1 51000 443\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.7 localhost 51000 443\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.7 198.51.100.1 051000 443\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.7 198.51.100.1 +1 443\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.7 198.51.100.1 65536 443\r\n".to_vec(),
        b"PROXY UDP4 192.0.2.7 198.51.100.1 51000 443\r\n".to_vec(),
        b"proxy TCP4 192.0.2.7 198.51.100.1 51000 443\r\n".to_vec(),
        b"PROXY UNKNOWNS\r\n".to_vec(),
        // One byte longer than the longest line.
        format!("PROXY UNKNOWN {}\r\n", "f".repeat(107 - 15)).into_bytes(),
        // Versions 1 and 3, an unknown command, a family of datagrams, of sockets of this machine, of nothing known.
        second(0x11, 0x11, &v4(&[])),
        second(0x31, 0x11, &v4(&[])),
        second(0x22, 0x11, &v4(&[])),
        second(0x21, 0x12, &v4(&[])),
        second(0x21, 0x31, &[0; 216]),
        second(0x21, 0x41, &v4(&[])),
        // Addresses that are cut off, and values that are.
        second(0x21, 0x11, &v4(&[])[..11]),
        second(0x21, 0x21, &v4(&[])),
        second(0x21, 0x11, &v4(&[3, 0, 5, 1, 2, 3, 4])),
        second(0x21, 0x11, &v4(&[3, 0])),
        // One byte more than there may be.
        second(0x21, 0x11, &v4(&[&[4, 7, 0xf2][..], &[0; 2034]].concat())),
        // The end comes before the header's.
        second(0x21, 0x11, &v4(&[]))[..20].to_vec(),
        b"PROXY TCP4".to_vec(),
        Vec::new(),
    ] {
        assert_eq!(read(&header).await.0, Err(DenyReason::ProxyHeaderInvalid), "{:?}", String::from_utf8_lossy(&header));
    }
}

#[tokio::test]
async fn nobody_but_the_declared_balancers_is_believed() {
    let header: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 51000 443\r\n";
    for (peer, expected) in [("10.0.0.1", true), ("::ffff:10.0.0.1", true), ("11.0.0.1", false), ("192.0.2.7", false), ("::1", false)] {
        let (mut stream, peer) = (header, peer.parse().unwrap());
        let caller = balancers().caller(&mut stream, peer).await;
        assert_eq!(caller, if expected { Ok("192.0.2.7".parse().unwrap()) } else { Err(DenyReason::ProxyUntrusted) }, "{peer}");
    }
    // Where none is declared, a header is no header: TLS will not like it, and the caller is who it is.
    let mut stream = header;
    assert_eq!((Balancers::none().caller(&mut stream, PEER).await, stream.len()), (Ok(PEER), header.len()));
}

#[tokio::test]
async fn a_header_that_trickles_in_is_given_up() {
    let (mut ours, mut theirs) = tokio::io::duplex(1024);
    let reading = tokio::spawn(async move { balancers().caller(&mut theirs, PEER).await });
    ours.write_all(b"PROXY TCP4 192.0.2.7").await.unwrap();
    tokio::time::sleep(Duration::from_millis(limits::PROXY_HEADER_MS / 4)).await;
    assert!(!reading.is_finished(), "a slow one is waited for");
    let given_up = tokio::time::timeout(Duration::from_millis(20 * limits::PROXY_HEADER_MS), reading).await;
    assert_eq!(given_up.unwrap().unwrap(), Err(DenyReason::ProxyHeaderInvalid));
    drop(ours);
}

// What begins as a good header and is bent at random is refused, or read as the caller that an independent reader finds too.
#[tokio::test]
async fn bent_headers_are_refused_or_mean_what_another_reader_says() {
    let good = [
        b"PROXY TCP4 192.0.2.7 198.51.100.1 51000 443\r\n".to_vec(),
        b"PROXY TCP6 2001:db8::7 2001:db8::1 51000 443\r\n".to_vec(),
        second(0x21, 0x11, &v4(&[3, 0, 4, 1, 2, 3, 4])),
        second(0x21, 0x21, &v6("2001:db8::7")),
    ];
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(seed >> 33).unwrap() % below
    };
    let (mut taken, mut refused) = (0, 0);
    for round in 0..40_000 {
        let mut bent = good[round % good.len()].clone();
        for _ in 0..=next(3) {
            let at = next(bent.len());
            match next(4) {
                0 => bent[at] ^= 1 << next(8),
                1 => bent[at] = b" \r\n0123456789.:fF\0"[next(18)],
                2 => bent.insert(at, b" 0.:\0\r"[next(6)]),
                _ => drop(bent.remove(at)),
            }
        }
        match read(&bent).await.0 {
            Err(_) => refused += 1,
            Ok(caller) => {
                taken += 1;
                let theirs = match ppp::HeaderResult::parse(&bent) {
                    ppp::HeaderResult::V1(Ok(header)) => match header.addresses {
                        ppp::v1::Addresses::Tcp4(ip) => IpAddr::V4(ip.source_address),
                        ppp::v1::Addresses::Tcp6(ip) => IpAddr::V6(ip.source_address).to_canonical(),
                        ppp::v1::Addresses::Unknown => PEER,
                    },
                    ppp::HeaderResult::V2(Ok(header)) => match (header.command, header.addresses) {
                        (ppp::v2::Command::Local, _) => PEER,
                        (_, ppp::v2::Addresses::IPv4(ip)) => IpAddr::V4(ip.source_address),
                        (_, ppp::v2::Addresses::IPv6(ip)) => IpAddr::V6(ip.source_address).to_canonical(),
                        _ => PEER,
                    },
                    other => panic!("{:?}: {other:?}", String::from_utf8_lossy(&bent)),
                };
                assert_eq!(caller, theirs, "{:?}", String::from_utf8_lossy(&bent));
            }
        }
    }
    assert!(taken > 1_000 && refused > 1_000, "{taken} taken, {refused} refused");
    let mut noise = vec![0; 300];
    for _ in 0..1_000 {
        SystemEntropy.fill(&mut noise);
        assert!(read(&noise).await.0.is_err());
    }
}

async fn served_behind(limits: crate::edge::Limits) -> Served {
    let listener = crate::listen::loopback().unwrap();
    let port = listener.local_addr().unwrap().port();
    let world = World::with(Settings { port, limits, ..Settings::default() }).await;
    let folder = world.folder.path().to_owned();
    let root = write_certificate(&folder, "local", &["localhost"]);
    let certificates = Certificates::open(vec![files(&folder, "local", &["localhost"])]).unwrap();
    serve_with(listener, world, root, certificates, balancers(), false)
}

/// One request over a connection of its own, which a balancer made for `header`'s caller.
async fn asked(served: &Served, header: &[u8]) -> std::io::Result<String> {
    let mut tcp = TcpStream::connect(served.address).await?;
    tcp.write_all(header).await?;
    let mut stream = super::tls::over(tcp, &served.root, &rustls::version::TLS13, b"").await?;
    let asked = format!("GET /auth/login HTTP/1.1\r\nHost: localhost:{}\r\nConnection: close\r\n\r\n", served.address.port());
    stream.write_all(asked.as_bytes()).await?;
    stream.flush().await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}

// A13: limits count callers, not balancers; and what is refused is recorded with who it was.
#[tokio::test]
async fn limits_and_records_know_the_caller_behind_the_balancer() {
    let one = std::num::NonZeroU32::new(1).unwrap();
    let limits = crate::edge::Limits { address_rate: one, address_burst: one, ..crate::edge::Limits::standard() };
    let served = served_behind(limits).await;
    let of = |host: u8| format!("PROXY TCP4 192.0.2.{host} 198.51.100.1 51000 443\r\n");
    assert!(asked(&served, of(1).as_bytes()).await.unwrap().starts_with("HTTP/1.1 303"));
    assert!(asked(&served, of(1).as_bytes()).await.unwrap().starts_with("HTTP/1.1 429"), "the same caller");
    assert!(asked(&served, of(2).as_bytes()).await.unwrap().starts_with("HTTP/1.1 303"), "another behind the same balancer");
    // Without a header there is no handshake, and a record says why.
    assert!(asked(&served, b"").await.is_err());
    assert_eq!(served.world.connection_refusals(), ["proxy_header_invalid"]);
    served.stop.cancel();
}

// From elsewhere than the declared networks nothing is read.
#[tokio::test]
async fn a_connection_past_the_balancer_is_refused() {
    let served = served_behind(crate::edge::Limits::standard()).await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 2], 0).into()).unwrap();
    let mut tcp = socket.connect(served.address).await.unwrap();
    // It may be closed before this is written.
    let _written = tcp.write_all(b"PROXY TCP4 192.0.2.1 198.51.100.1 51000 443\r\n").await;
    let mut rest = Vec::new();
    let _end = tcp.read_to_end(&mut rest).await;
    assert!(rest.is_empty());
    assert_eq!(served.world.connection_refusals(), ["proxy_untrusted"]);
    served.stop.cancel();
}
