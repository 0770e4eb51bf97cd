//! The PROXY protocol: a load balancer in front says for whom it connects.
//!
//! Only where the manifest names the balancers' networks. Then every connection must come from there and begin with a header: there is
//! no guessing, since who may leave it out may write it too. The address in it is the one that limits, records and audit know; the ports
//! and all type-length-values are read over, and say nothing that anybody trusts.
//!
//! Spec:       The PROXY protocol versions 1 & 2 (HAProxy, 2020-03-05), sections 2.1, 2.2 and 4.
//! Guarantees: A13 limits hit the caller and not the balancer.
//! Not here:   TLS, which comes after it (`listen`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use trust::{DenyReason, Network};

use crate::limits;

/// Both versions are told apart, and refused, by so many bytes; the shortest header has more.
const FIRST_BYTES: usize = 12;
/// What version 2 begins with.
const SIGNATURE: [u8; FIRST_BYTES] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 1: the longest line that there can be, with its end (section 2.1).
const LINE_BYTES_MAX: usize = 107;

/// Who is believed about the caller's address.
#[derive(Debug, Clone, Default)]
pub struct Balancers {
    /// INVARIANT: empty means that nobody is, and that no header is read.
    networks: Vec<Network>,
}

/// For whom a connection was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caller {
    /// For itself: the balancer looks whether we live (LOCAL), or does not know (UNKNOWN, UNSPEC).
    Itself,
    /// For that address.
    Address(IpAddr),
}

impl Balancers {
    /// Nobody: the address of a connection is its caller's.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Those in these networks.
    #[must_use]
    pub fn of(networks: Vec<Network>) -> Self {
        Self { networks }
    }

    /// The caller of a connection from `peer`; nothing behind the header is read.
    ///
    /// # Errors
    /// `ProxyUntrusted` for a connection from elsewhere, `ProxyHeaderInvalid` for a header that is missing, malformed, over-long or slow.
    pub async fn caller(&self, stream: &mut (impl AsyncRead + Unpin), peer: IpAddr) -> Result<IpAddr, DenyReason> {
        if self.networks.is_empty() {
            return Ok(peer);
        }
        if !self.networks.iter().any(|network| network.contains(peer)) {
            return Err(DenyReason::ProxyUntrusted);
        }
        let reading = tokio::time::timeout(Duration::from_millis(limits::PROXY_HEADER_MS), header(stream));
        match reading.await.ok().flatten() {
            Some(Caller::Itself) => Ok(peer),
            Some(Caller::Address(address)) => Ok(address.to_canonical()),
            None => Err(DenyReason::ProxyHeaderInvalid),
        }
    }
}

/// Reads a header and nothing behind it; nothing for what is none.
async fn header(stream: &mut (impl AsyncRead + Unpin)) -> Option<Caller> {
    let mut first = [0; FIRST_BYTES];
    stream.read_exact(&mut first).await.ok()?;
    if first == SIGNATURE {
        return second_version(stream).await;
    }
    if !first.starts_with(b"PROXY ") {
        return None;
    }
    let mut line = first.to_vec();
    // One at a time: what comes behind the line belongs to TLS.
    while !line.ends_with(b"\r\n") {
        if line.len() >= LINE_BYTES_MAX {
            return None;
        }
        line.push(stream.read_u8().await.ok()?);
    }
    first_version(std::str::from_utf8(&line).ok()?.strip_suffix("\r\n")?)
}

/// `PROXY TCP4 192.0.2.7 198.51.100.1 51000 443`, in this one spelling (section 2.1).
fn first_version(line: &str) -> Option<Caller> {
    let mut words = line.split(' ');
    let (proxy, family) = (words.next()?, words.next()?);
    if proxy != "PROXY" {
        return None;
    }
    if family == "UNKNOWN" {
        // Whatever follows is to be ignored.
        return Some(Caller::Itself);
    }
    let (source, destination) = (words.next()?, words.next()?);
    let (from_port, to_port) = (words.next()?, words.next()?);
    if words.next().is_some() || !is_port(from_port) || !is_port(to_port) {
        return None;
    }
    let source = match family {
        "TCP4" => {
            destination.parse::<Ipv4Addr>().ok()?;
            IpAddr::V4(source.parse().ok()?)
        }
        "TCP6" => {
            destination.parse::<Ipv6Addr>().ok()?;
            IpAddr::V6(source.parse().ok()?)
        }
        _ => return None,
    };
    Some(Caller::Address(source))
}

/// A number without needless zeroes (section 2.1).
fn is_port(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0')) && text.parse::<u16>().is_ok()
}

/// Section 2.2, behind the signature.
async fn second_version(stream: &mut (impl AsyncRead + Unpin)) -> Option<Caller> {
    let version_and_command = stream.read_u8().await.ok()?;
    let family = stream.read_u8().await.ok()?;
    let length = usize::from(stream.read_u16().await.ok()?);
    if length > limits::PROXY_HEADER_BYTES_MAX {
        return None;
    }
    let mut rest = vec![0; length];
    stream.read_exact(&mut rest).await.ok()?;
    let is_local = match version_and_command {
        0x20 => true,
        0x21 => false,
        _ => return None,
    };
    let (caller, values) = match family {
        // UNSPEC: there is no address.
        0x00 => (Caller::Itself, rest.as_slice()),
        // TCP over IPv4: two addresses, two ports.
        0x11 => {
            let (addresses, values) = rest.split_first_chunk::<12>()?;
            let source: [u8; 4] = *addresses.first_chunk()?;
            (Caller::Address(IpAddr::from(source)), values)
        }
        // TCP over IPv6.
        0x21 => {
            let (addresses, values) = rest.split_first_chunk::<36>()?;
            let source: [u8; 16] = *addresses.first_chunk()?;
            (Caller::Address(IpAddr::from(source)), values)
        }
        // A balancer that speaks for itself may name any family (section 2.2, LOCAL).
        0x12 | 0x22 | 0x31 | 0x32 if is_local => return Some(Caller::Itself),
        _ => return None,
    };
    if is_local {
        return Some(Caller::Itself);
    }
    well_formed(values).then_some(caller)
}

/// Whether type-length-values fill the rest exactly (section 2.2.1).
fn well_formed(mut values: &[u8]) -> bool {
    while let Some(([_kind, high, low], rest)) = values.split_first_chunk::<3>() {
        let Some(next) = rest.get(usize::from(u16::from_be_bytes([*high, *low]))..) else { return false };
        values = next;
    }
    values.is_empty()
}
