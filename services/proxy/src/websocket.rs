//! WebSockets: an opening handshake is a request like any other, and passes every step of one; what follows is a tunnel.
//!
//! Each hop shakes hands for itself. A browser opens over HTTP/1.1 (`Upgrade`) or HTTP/2 (extended CONNECT); between edge and guards the
//! opening is a GET with `TUNNEL_HEADER` whose two bodies are the two directions, so that it has the same mutual TLS, connections,
//! windows and records as every other call; the guard upgrades the service's plain HTTP/1.1. No key or accept value travels.
//!
//! Spec:       RFC 6455 sections 4 (handshake), 5.2 (frames), 7.4 (status); RFC 8441 sections 4 and 5.
//! Guarantees: A18; A6 what the manifest does not declare is refused (`UpgradeUnlisted`); a 101 that proves nothing is not believed.
//! Not here:   who may (`edge`, `mesh`), moving bytes (`tunnel`).

mod frames;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use contract::{Body, body};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use trust::{DenyReason, Fault};

pub(crate) use self::frames::Frames;
use crate::headers;
use crate::tunnel::End;

/// Marks an opening between our own ends, and the answer that accepts it.
pub const TUNNEL_HEADER: HeaderName = HeaderName::from_static("palisade-tunnel");
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
/// RFC 6455, section 1.3.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A caller's wish to open a WebSocket, found well-formed.
#[derive(Debug, Clone)]
pub struct Opening {
    /// What the answer of HTTP/1.1 must prove; HTTP/2 proves nothing.
    accept: Option<HeaderValue>,
    on_upgrade: OnUpgrade,
}

impl Opening {
    /// Finds one in a request and takes it out: after this the request is a plain GET.
    ///
    /// # Errors
    /// `RequestAmbiguous` when it begins like one and is not one: another version than 13, a key that is not 16 bytes, a body.
    pub fn take<B>(request: &mut Request<B>) -> Result<Option<Self>, DenyReason> {
        let opening = match request.version() {
            Version::HTTP_2 => Self::of_http2(request)?,
            _ => Self::of_http1(request)?,
        };
        if opening.is_some() {
            request.headers_mut().remove(header::SEC_WEBSOCKET_KEY);
            let has_body =
                request.headers().contains_key(header::CONTENT_LENGTH) || request.headers().contains_key(header::TRANSFER_ENCODING);
            let versions: Vec<_> = request.headers().get_all(header::SEC_WEBSOCKET_VERSION).iter().collect();
            if has_body || versions != [&HeaderValue::from_static("13")] {
                return Err(DenyReason::RequestAmbiguous);
            }
        }
        Ok(opening)
    }

    /// RFC 6455, section 4.2.1. Another protocol than WebSocket is not upgraded to, which is every server's right (RFC 9110, section 7.8).
    fn of_http1<B>(request: &mut Request<B>) -> Result<Option<Self>, DenyReason> {
        let wished = |name: HeaderName, token: &str| {
            let values = request.headers().get_all(name).iter().filter_map(|value| value.to_str().ok());
            values.flat_map(|value| value.split(',')).any(|one| one.trim().eq_ignore_ascii_case(token))
        };
        if !(wished(header::UPGRADE, "websocket") && wished(header::CONNECTION, "upgrade")) {
            return Ok(None);
        }
        let mut keys = request.headers().get_all(header::SEC_WEBSOCKET_KEY).iter();
        let key = match (keys.next(), keys.next()) {
            (Some(key), None) => key.as_bytes(),
            _ => return Err(DenyReason::RequestAmbiguous),
        };
        let is_key = STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == 16);
        if *request.method() != Method::GET || request.version() != Version::HTTP_11 || !is_key {
            return Err(DenyReason::RequestAmbiguous);
        }
        let accept = Some(accept(key)?);
        let on_upgrade = request.extensions_mut().remove().ok_or(DenyReason::RequestAmbiguous)?;
        Ok(Some(Self { accept, on_upgrade }))
    }

    /// RFC 8441, section 5: CONNECT with `:protocol`; a GET from here on.
    fn of_http2<B>(request: &mut Request<B>) -> Result<Option<Self>, DenyReason> {
        if *request.method() != Method::CONNECT {
            return Ok(None);
        }
        let Some(protocol) = request.extensions_mut().remove::<Protocol>() else { return Ok(None) };
        if protocol.as_str() != "websocket" {
            return Err(DenyReason::RequestAmbiguous);
        }
        let on_upgrade = request.extensions_mut().remove().ok_or(DenyReason::RequestAmbiguous)?;
        *request.method_mut() = Method::GET;
        Ok(Some(Self { accept: None, on_upgrade }))
    }

    /// The answer that accepts it, with what the service chose.
    #[must_use]
    pub fn accepted(&self, chosen: &HeaderMap) -> Response<Body> {
        let mut answer = body::plain(if self.accept.is_some() { StatusCode::SWITCHING_PROTOCOLS } else { StatusCode::OK });
        if let Some(accept) = &self.accept {
            let fields = answer.headers_mut();
            fields.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            fields.insert(header::UPGRADE, WEBSOCKET);
            fields.insert(header::SEC_WEBSOCKET_ACCEPT, accept.clone());
        }
        pass_choice(chosen, answer.headers_mut());
        answer
    }

    /// The caller's side of the tunnel, once the answer is written; nothing when the caller has gone.
    pub async fn caller(self) -> Option<End> {
        Some(End::socket(TokioIo::new(self.on_upgrade.await.ok()?)))
    }
}

/// Whether a request between our own ends opens a tunnel, or an answer accepts one.
#[must_use]
pub fn is_tunnel(fields: &HeaderMap) -> bool {
    fields.get(TUNNEL_HEADER) == Some(&WEBSOCKET)
}

/// Marks a request between our own ends, or its answer.
pub fn mark(fields: &mut HeaderMap) {
    fields.insert(TUNNEL_HEADER, WEBSOCKET);
}

/// Subprotocol and extensions, which the two ends of a WebSocket agree on.
pub fn pass_choice(from: &HeaderMap, to: &mut HeaderMap) {
    for name in [header::SEC_WEBSOCKET_PROTOCOL, header::SEC_WEBSOCKET_EXTENSIONS] {
        for value in from.get_all(&name) {
            to.append(name.clone(), value.clone());
        }
    }
}

/// The guard's own handshake with its service.
#[derive(Debug)]
pub struct Handshake {
    accept: HeaderValue,
    offered: Vec<HeaderValue>,
}

impl Handshake {
    /// Makes an upgrade of a request in origin form. The nonce tells handshakes apart; it is no secret.
    ///
    /// # Errors
    /// `Internal` never happens: a digest in base64 is a header value.
    pub fn begin(request: &mut Request<Body>, nonce: [u8; 16]) -> Result<Self, Fault> {
        let key = STANDARD.encode(nonce);
        let fields = request.headers_mut();
        fields.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        fields.insert(header::UPGRADE, WEBSOCKET);
        fields.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        headers::set(fields, "sec-websocket-key", &key);
        let accept = accept(key.as_bytes()).map_err(|_| Fault::internal("not a header value"))?;
        Ok(Self { accept, offered: fields.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().cloned().collect() })
    }

    /// Whether a 101 is this handshake's and chooses only what was offered (RFC 6455, section 4.1).
    #[must_use]
    pub fn is_answered_by(&self, fields: &HeaderMap) -> bool {
        let is_websocket = fields.get(header::UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
        let chosen: Vec<_> = fields.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().collect();
        let offered = |choice: &HeaderValue| {
            let texts = self.offered.iter().filter_map(|value| value.to_str().ok());
            texts.flat_map(|text| text.split(',')).any(|one| one.trim().as_bytes() == choice.as_bytes())
        };
        is_websocket
            && fields.get(header::SEC_WEBSOCKET_ACCEPT) == Some(&self.accept)
            && chosen.len() <= 1
            && chosen.into_iter().all(offered)
    }
}

fn accept(key: &[u8]) -> Result<HeaderValue, DenyReason> {
    let both = [key, GUID.as_bytes()].concat();
    let text = STANDARD.encode(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &both));
    HeaderValue::from_str(&text).map_err(|_| DenyReason::RequestAmbiguous)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

    use super::*;

    // RFC 6455, section 1.3: its own example.
    #[test]
    fn the_published_example_of_a_handshake_is_answered_as_published() {
        assert_eq!(accept(b"dGhlIHNhbXBsZSBub25jZQ==").unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    // A18: a 101 that another handshake earned, or that chooses what nobody offered, is none.
    #[test]
    fn an_answer_that_proves_nothing_is_not_believed() {
        let mut request = Request::builder().header(header::SEC_WEBSOCKET_PROTOCOL, "chat, news").body(body::empty()).unwrap();
        let ours = Handshake::begin(&mut request, [3; 16]).unwrap();
        let answer = |accept: &HeaderValue, chosen: Option<&'static str>| {
            let mut fields = HeaderMap::new();
            fields.insert(header::UPGRADE, HeaderValue::from_static("WebSocket"));
            fields.insert(header::SEC_WEBSOCKET_ACCEPT, accept.clone());
            chosen.map(|chosen| fields.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(chosen)));
            fields
        };
        assert!(ours.is_answered_by(&answer(&ours.accept, None)));
        assert!(ours.is_answered_by(&answer(&ours.accept, Some("news"))));
        assert!(!ours.is_answered_by(&answer(&ours.accept, Some("games"))));
        assert!(!ours.is_answered_by(&answer(&HeaderValue::from_static("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), None)));
    }
}
