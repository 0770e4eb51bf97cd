//! A4: request smuggling, against the public socket: HTTP/1.1 and HTTP/2 with real TLS, and the same corpus against HAProxy.
//!
//! Both the outer and the hidden request carry a good token, so that nothing but the reading of the message stands in the way of the
//! hidden one. `haproxy_refuses_nothing_that_the_edge_lets_pass` needs the program `haproxy` (Debian's package):
//! `cargo nextest run -p proxy haproxy --run-ignored all --no-capture` prints the comparison.

mod corpus;
mod haproxy;
mod pingora;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use self::corpus::{H2_REFUSED, PASSED, REFUSED};
use super::tls::{Served, connect, served};
use super::world::Settings;

/// How long an answer may take to come, and a connection to end.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);
const HIDDEN: &str = "/api/videos/smuggled";

/// What came of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Passed,
    Refused,
}

fn written(shape: &str, authority: &str, token: &str) -> Vec<u8> {
    let own = format!("Host: {authority}\r\nAuthorization: Bearer {token}\r\n");
    shape.replace("{S}", &format!("GET {HIDDEN} HTTP/1.1\r\n{own}\r\n")).replace("{H}", &own).into_bytes()
}

/// Sends all of it, then reads what comes until the end or until there is a whole head. An end without an answer is a refusal.
async fn h1<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, bytes: &[u8]) -> Outcome {
    // Who refuses early may close before everything is sent.
    let _sent = stream.write_all(bytes).await;
    let _flushed = stream.flush().await;
    let mut answer = Vec::new();
    let reading = async {
        let mut piece = [0; 4096];
        while !answer.windows(4).any(|w| w == b"\r\n\r\n") {
            match stream.read(&mut piece).await {
                Ok(read @ 1..) => answer.extend_from_slice(&piece[..read]),
                _ => return,
            }
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("an answer or an end");
    if answer.starts_with(b"HTTP/1.1 2") || answer.starts_with(b"HTTP/1.0 2") { Outcome::Passed } else { Outcome::Refused }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// HPACK without compression: each field a literal with its name (RFC 7541, section 6.2.2).
fn hpack(fields: &[(String, String)]) -> Vec<u8> {
    let text = |text: &str| match u8::try_from(text.len()) {
        Ok(length @ 0..127) => [&[length][..], text.as_bytes()].concat(),
        _ => {
            let (mut bytes, mut rest) = (vec![127], text.len() - 127);
            while rest >= 128 {
                bytes.push((rest % 128) as u8 | 128);
                rest /= 128;
            }
            bytes.push(rest as u8);
            [&bytes[..], text.as_bytes()].concat()
        }
    };
    fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

/// The fields of a good request with those of a case in the place of their namesakes.
fn h2_fields(case: &[(&str, &str)], authority: &str, token: &str) -> Vec<(String, String)> {
    let bearer = format!("Bearer {token}");
    let mut fields: Vec<(String, String)> =
        [(":method", "GET"), (":scheme", "https"), (":path", "/api/videos"), (":authority", authority), ("authorization", bearer.as_str())]
            .map(|(n, v)| (n.to_owned(), v.to_owned()))
            .to_vec();
    for (name, value) in case {
        let value = value.replace("{A}", authority);
        match (fields.iter_mut().find(|(n, _)| n == name && n.starts_with(':')), name.strip_prefix("again")) {
            (Some(field), _) => field.1 = value,
            (None, Some(again)) => fields.push((again.to_owned(), value)),
            (None, None) => fields.push(((*name).to_owned(), value)),
        }
    }
    fields
}

/// One request on a connection of its own, frame by frame.
async fn h2<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, fields: &[(String, String)], body: &str) -> Outcome {
    let end = u8::from(body.is_empty());
    let mut bytes = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(4, 0, 0, &[]), frame(1, 4 | end, 1, &hpack(fields))].concat();
    if !body.is_empty() {
        bytes.extend(frame(0, 1, 1, body.as_bytes()));
    }
    let _sent = stream.write_all(&bytes).await;
    let _flushed = stream.flush().await;
    let reading = async {
        loop {
            let mut head = [0; 9];
            if stream.read_exact(&mut head).await.is_err() {
                return Outcome::Refused;
            }
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            if stream.read_exact(&mut payload).await.is_err() {
                return Outcome::Refused;
            }
            match head[3] {
                // `:status: 200` is entry 8 of the static table.
                1 if payload.first() == Some(&0x88) => return Outcome::Passed,
                1 | 3 | 7 => return Outcome::Refused,
                _ => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("an answer or an end")
}

async fn edge_h1(served: &Served, shape: &str) -> Outcome {
    let authority = format!("localhost:{}", served.address.port());
    let stream = connect(served, &served.root, &rustls::version::TLS13, b"http/1.1").await.unwrap();
    h1(stream, &written(shape, &authority, &served.world.login.token())).await
}

async fn edge_h2(served: &Served, case: &[(&str, &str)], body: &str) -> Outcome {
    let authority = format!("localhost:{}", served.address.port());
    let stream = connect(served, &served.root, &rustls::version::TLS13, b"h2").await.unwrap();
    h2(stream, &h2_fields(case, &authority, &served.world.login.token()), body).await
}

pub(super) async fn for_tokens() -> Served {
    let served = served(Settings::default()).await;
    // Tokens name the origin, whose port is only known now.
    served.world.login.at(&format!("https://localhost:{}", served.address.port()));
    served
}

fn assert_nothing_hidden(served: &Served, name: &str) {
    let seen = served.world.api.seen.lock().unwrap();
    assert!(seen.iter().all(|s| s.uri != HIDDEN), "{name}: the hidden request reached the service");
}

// A4
#[tokio::test]
async fn http_1_messages_of_two_readings_are_refused_on_the_wire() {
    let served = for_tokens().await;
    for (name, shape) in PASSED {
        assert_eq!(edge_h1(&served, shape).await, Outcome::Passed, "{name}");
    }
    // What is hidden could pass: as a request of its own it does.
    let before = served.world.api.count();
    assert_eq!(edge_h1(&served, "{S}").await, Outcome::Passed);
    assert_eq!((served.world.api.count(), served.world.api.last().uri.as_str()), (before + 1, HIDDEN));
    served.world.api.seen.lock().unwrap().clear();
    for (name, shape) in REFUSED {
        assert_eq!(edge_h1(&served, shape).await, Outcome::Refused, "{name}");
        assert_nothing_hidden(&served, name);
    }
    assert_eq!(served.world.api.count(), 0, "not even the outer request of any");
    served.stop.cancel();
}

// A4: what HTTP/2 carries in frames cannot become framing once it is HTTP/1.1.
#[tokio::test]
async fn http_2_messages_that_would_split_once_downgraded_are_refused_on_the_wire() {
    let served = for_tokens().await;
    assert_eq!(edge_h2(&served, &[], "").await, Outcome::Passed);
    assert_eq!(edge_h2(&served, &[(":method", "POST"), ("content-length", "5")], "hello").await, Outcome::Passed);
    assert_eq!(edge_h2(&served, &[("te", "trailers")], "").await, Outcome::Passed);
    served.world.api.seen.lock().unwrap().clear();
    for (name, fields, body) in H2_REFUSED {
        assert_eq!(edge_h2(&served, fields, body).await, Outcome::Refused, "{name}");
        assert_nothing_hidden(&served, name);
    }
    assert_eq!(served.world.api.count(), 0, "not even the outer request of any");
    served.stop.cancel();
}
