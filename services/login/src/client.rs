//! The OAuth clients: the edge, which proves itself by its SVID; the command line and the applications that the manifest declares,
//! which have no secret to keep; some of these show themselves by a certificate.
//!
//! Spec:       RFC 9700, section 2.1 (exact redirect URIs); RFC 8252, sections 7.3 and 8.4 (loopback, any port); RFC 8705, section 2.1; RFC 9449, section 5.2.
//! Guarantees: B2, B3 in part: a code goes to no other place.

use std::sync::Arc;

use contract::login::{CLIENT_HEADER, ClientProfile, EDGE_CALLBACK, EDGE_CLIENT};
use http::{HeaderMap, header};

use crate::form::Params;
use crate::possession;
use crate::provider::Inner;

/// The command line's `client_id`.
const CLI_CLIENT: &str = "palisade-cli";
const CLI_CALLBACK: &str = "/callback";

/// A client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Client {
    /// The edge, for browsers' sessions.
    Edge,
    /// The command line and scripts, for people at this machine.
    Cli,
    /// An application that the manifest declares.
    Declared(Arc<ClientProfile>),
}

impl Inner {
    /// The client with this id.
    pub(crate) fn client(&self, id: &str) -> Option<Client> {
        match id {
            EDGE_CLIENT => Some(Client::Edge),
            CLI_CLIENT => Some(Client::Cli),
            _ => self.clients.get(id).cloned().map(Client::Declared),
        }
    }

    /// The client that asks at the token endpoint. The connection is the edge's own in any case; with the header it speaks for itself,
    /// without it passes on what a public client sends. No client has a secret, so any form of one is refused.
    pub(crate) fn authenticated(&self, headers: &HeaderMap, params: &Params) -> Option<Client> {
        let secret_shown = headers.contains_key(header::AUTHORIZATION) || params.get("client_secret").is_some();
        if secret_shown || params.get("client_assertion").is_some() {
            return None;
        }
        let mut marks = headers.get_all(CLIENT_HEADER).iter();
        match (marks.next(), marks.next()) {
            (Some(mark), None) if mark == EDGE_CLIENT => params.get("client_id").is_none_or(|id| id == EDGE_CLIENT).then_some(Client::Edge),
            (None, None) => {
                let client = params.get("client_id").and_then(|id| self.client(id)).filter(|client| *client != Client::Edge)?;
                client.certificate().is_none_or(|name| possession::has_name(headers, name)).then_some(client)
            }
            _ => None,
        }
    }
}

impl Client {
    /// Its `client_id`.
    pub(crate) fn id(&self) -> &str {
        match self {
            Self::Edge => EDGE_CLIENT,
            Self::Cli => CLI_CLIENT,
            Self::Declared(client) => &client.id,
        }
    }

    /// Whether it may be sent to `uri`.
    pub(crate) fn may_return_to(&self, uri: &str, public_origin: &str) -> bool {
        match self {
            Self::Edge => uri.strip_prefix(public_origin) == Some(EDGE_CALLBACK),
            Self::Cli => is_loopback(uri, CLI_CALLBACK),
            Self::Declared(client) => client.returns.iter().any(|to| match to.split_once("://") {
                Some(("http", rest)) => rest.split_once('/').is_some_and(|(host, path)| {
                    uri.strip_prefix("http://").is_some_and(|uri| uri.starts_with(&format!("{host}:")))
                        && is_loopback(uri, &format!("/{path}"))
                }),
                _ => to == uri,
            }),
        }
    }

    /// Whether it may send people to `uri` once they have signed out.
    pub(crate) fn may_end_at(&self, uri: &str, public_origin: &str) -> bool {
        *self == Self::Edge && uri.strip_prefix(public_origin) == Some("/")
    }

    /// Where a form's answer may lead, for `form-action` (CSP level 3 applies it to redirects too).
    pub(crate) fn form_targets(&self) -> String {
        let loopback = "http://127.0.0.1:* http://[::1]:*";
        match self {
            Self::Edge => "'self'".to_owned(),
            Self::Cli => format!("'self' {loopback}"),
            Self::Declared(client) => client.returns.iter().fold("'self'".to_owned(), |all, to| match url::Url::parse(to) {
                Ok(url) if url.scheme() == "https" => format!("{all} {}", url.origin().ascii_serialization()),
                _ => format!("{all} {loopback}"),
            }),
        }
    }

    /// Whether its access tokens say nothing and stand for what is kept here.
    pub(crate) fn is_opaque(&self) -> bool {
        matches!(self, Self::Declared(client) if client.opaque)
    }

    /// The DNS name in the certificate that it must show (RFC 8705, section 2.1.2: `tls_client_auth_san_dns`).
    pub(crate) fn certificate(&self) -> Option<&str> {
        match self {
            Self::Declared(client) => client.certificate.as_deref(),
            _ => None,
        }
    }

    /// Whether it gets no token without a proof of a key (RFC 9449, section 5.2).
    pub(crate) fn must_prove(&self) -> bool {
        matches!(self, Self::Declared(client) if client.proof_required)
    }
}

/// Whether `uri` is that path on the loopback, at any port in its one spelling.
fn is_loopback(uri: &str, path: &str) -> bool {
    ["http://127.0.0.1:", "http://[::1]:"].iter().filter_map(|loopback| uri.strip_prefix(loopback)).any(|rest| {
        let port = rest.strip_suffix(path).unwrap_or_default();
        port.parse::<u16>().is_ok_and(|n| n > 0 && n.to_string() == port)
    })
}
