//! Nearby: a place in the network of the system, from where its inner listeners can be reached, and nothing that a member of it would have.
//!
//! Guarantees: D1 is tried by whoever stands there.
//! Not here:   TLS and sockets (the assembly gives them).

use std::net::SocketAddr;

/// What somebody nearby can do.
pub trait Nearby {
    /// Every listener of this network that is not for everybody.
    fn listeners(&self) -> Vec<SocketAddr>;
    /// Knocks at one.
    fn knock(&self, at: SocketAddr, shown: &Shown, speaks: Speaks) -> Knocked;
}

/// What is shown as a client's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// None.
    Nothing,
    /// One that signed itself, with this URI as its name.
    SelfSigned(String),
    /// One of an authority of its own, with this URI as its name.
    OwnAuthority(String),
    /// One that says that the system's own authority signed it, which it did not; with this URI as its name.
    InAuthoritysName(String),
    /// The genuine one that the listener at this address shows, without its key.
    Genuine(SocketAddr),
}

/// What is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// HTTP/2 within TLS 1.3.
    Http2,
    /// HTTP/1.1 within TLS 1.3.
    Http1,
    /// A raw flow within TLS 1.3.
    Tcp,
    /// HTTP/1.1 within TLS 1.2.
    OldTls,
    /// HTTP/1.1 without TLS.
    PlainHttp1,
    /// HTTP/2 by prior knowledge without TLS.
    PlainHttp2,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Knocked {
    /// Who the listener says it is, where it showed a certificate.
    pub who: Option<String>,
    /// How it ended.
    pub end: End,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// By a TLS alert, by closing, or in silence: in words.
    Refused(&'static str),
    /// It said something beyond that.
    Answered,
    /// It could not be tried.
    Untried(String),
}

impl Shown {
    /// In words.
    #[must_use]
    pub fn words(&self) -> &'static str {
        match self {
            Self::Nothing => "no certificate",
            Self::SelfSigned(_) => "a self-signed certificate",
            Self::OwnAuthority(_) => "a certificate of its own authority",
            Self::InAuthoritysName(_) => "a certificate in the authority's name",
            Self::Genuine(_) => "a genuine certificate without its key",
        }
    }
}

impl Speaks {
    /// In words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Http2 => "HTTP/2",
            Self::Http1 => "HTTP/1.1",
            Self::Tcp => "a raw flow",
            Self::OldTls => "TLS 1.2",
            Self::PlainHttp1 => "HTTP/1.1 without TLS",
            Self::PlainHttp2 => "HTTP/2 without TLS",
        }
    }
}
