//! The two OAuth clients: the edge, which proves itself by its SVID, and the command line, which has no secret to keep.
//!
//! Spec:       RFC 9700, section 2.1 (exact redirect URIs); RFC 8252, sections 7.3 and 8.4 (loopback, any port).
//! Guarantees: B2, B3 in part: a code goes to no other place.

use contract::login::{CLIENT_HEADER, EDGE_CALLBACK, EDGE_CLIENT};
use http::{HeaderMap, header};

use crate::form::Params;

/// The command line's `client_id`.
const CLI_CLIENT: &str = "palisade-cli";
const CLI_CALLBACK: &str = "/callback";

/// A client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Client {
    /// The edge, for browsers' sessions.
    Edge,
    /// The command line and scripts, for people at this machine.
    Cli,
}

impl Client {
    /// The client with this id.
    pub(crate) fn parse(id: &str) -> Option<Self> {
        match id {
            EDGE_CLIENT => Some(Self::Edge),
            CLI_CLIENT => Some(Self::Cli),
            _ => None,
        }
    }

    /// Its `client_id`.
    pub(crate) fn id(self) -> &'static str {
        match self {
            Self::Edge => EDGE_CLIENT,
            Self::Cli => CLI_CLIENT,
        }
    }

    /// Whether it may be sent to `uri`.
    pub(crate) fn may_return_to(self, uri: &str, public_origin: &str) -> bool {
        match self {
            Self::Edge => uri.strip_prefix(public_origin) == Some(EDGE_CALLBACK),
            Self::Cli => ["http://127.0.0.1:", "http://[::1]:"].iter().filter_map(|loopback| uri.strip_prefix(loopback)).any(|rest| {
                let port = rest.strip_suffix(CLI_CALLBACK).unwrap_or_default();
                port.parse::<u16>().is_ok_and(|n| n > 0 && n.to_string() == port)
            }),
        }
    }

    /// Whether it may send people to `uri` once they have signed out.
    pub(crate) fn may_end_at(self, uri: &str, public_origin: &str) -> bool {
        self == Self::Edge && uri.strip_prefix(public_origin) == Some("/")
    }

    /// Where a form's answer may lead, for `form-action` (CSP level 3 applies it to redirects too).
    pub(crate) fn form_targets(self) -> &'static str {
        match self {
            Self::Edge => "'self'",
            Self::Cli => "'self' http://127.0.0.1:* http://[::1]:*",
        }
    }

    /// The client that asks at the token endpoint. The connection is the edge's own in any case; with the header it speaks for itself,
    /// without it passes on what a public client sends. No client has a secret, so any form of one is refused.
    pub(crate) fn authenticated(headers: &HeaderMap, params: &Params) -> Option<Self> {
        let secret_shown = headers.contains_key(header::AUTHORIZATION) || params.get("client_secret").is_some();
        if secret_shown || params.get("client_assertion").is_some() {
            return None;
        }
        let mut marks = headers.get_all(CLIENT_HEADER).iter();
        match (marks.next(), marks.next()) {
            (Some(mark), None) if mark == EDGE_CLIENT => params.get("client_id").is_none_or(|id| id == EDGE_CLIENT).then_some(Self::Edge),
            (None, None) => params.get("client_id").and_then(Self::parse).filter(|client| *client != Self::Edge),
            _ => None,
        }
    }
}
