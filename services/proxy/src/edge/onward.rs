//! Onward: the request as the peer gets it, and the peer's answer as the browser gets it. Both are streams.
//!
//! A peer learns who the person is from the transaction token alone; the browser's cookie and token stay here.
//!
//! Guarantees: A11 the external credential never passes; A18 nothing is collected; a body over the limit is broken off.
//! Not here:   connections, retries before the first byte, time-outs (`client`).

use contract::login::{CERTIFICATE_HEADER, NAMES_HEADER};
use contract::objects::{ORIGINAL_URI_HEADER, PUBLIC_ORIGIN_HEADER};
use contract::{Body, Call, Client, dpop, txn_token};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Version, header};
use trust::{Clock, Fault, TraceContext};

use super::admission;
use super::answer::{self, Apart, Source};
use super::cors;
use super::destination::Destination;
use super::limit::{Exceeded, limit, limit_of_stream};
use super::stop::Stop;
use super::visit::Visit;
use crate::headers;
use crate::passage::Passage;

/// An answer that brings nothing for so long is broken off: long enough for an event stream's pauses.
const ANSWER_IDLE_MS: u64 = 900_000;

/// Sends the visit (of which its headers and body are gone then) to `peer` and gives the answer, cleansed.
///
/// # Errors
/// `Refused` with `BodyTooLarge` or `BodyTooSlow`; `Failed` as the transport says.
pub async fn pass(
    peer: &Client,
    visit: &mut Visit,
    body: Body,
    token: Option<&HeaderValue>,
    trace: TraceContext,
    (clock, csp): (&dyn Clock, &HeaderValue),
) -> Result<Response<Body>, Stop> {
    let source = match visit.destination {
        Destination::Service(_) => Source::Service,
        Destination::Login { .. } => Source::Login,
        _ => Source::Role,
    };
    let exceeded = Exceeded::default();
    let apart = visit.apart;
    let has_cors = apart || visit.destination.route().is_some_and(|route| !route.cors.is_empty());
    let reader = visit.reader.clone();
    let mut request = outgoing(visit, body, &exceeded, clock)?;
    if let Some(token) = token {
        request.headers_mut().insert(txn_token::HEADER, token.clone());
    }
    let answer = match peer.send(&Call { token: None, trace: Some(trace) }, request).await {
        Ok(answer) => answer,
        Err(fault) => return Err(exceeded.reason().map_or_else(|| fault.into(), Into::into)),
    };
    let (mut parts, body) = answer.into_parts();
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
    answer::cleanse(source, &mut parts.headers, csp);
    cors::open(&mut parts.headers, has_cors, reader.as_deref());
    if apart {
        parts.extensions.insert(Apart);
    }
    let body = Passage::new(body).within(ANSWER_IDLE_MS).into_body();
    Ok(Response::from_parts(parts, body))
}

/// The request that goes on: the path that was decided on, none of the credentials.
pub(super) fn outgoing(visit: &mut Visit, body: Body, exceeded: &Exceeded, clock: &dyn Clock) -> Result<Request<Body>, Stop> {
    let target = visit.target().to_owned();
    let query = visit.head.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let bytes_max = visit.destination.body_bytes_max();
    let mut fields = std::mem::take(&mut visit.head.headers);
    // The host is one of ours, exactly: `Visit::read` made the origin of it.
    headers::set(&mut fields, "host", visit.origin.strip_prefix("https://").unwrap_or_default());
    let uri = match &visit.destination {
        Destination::Login { path, route } => {
            pass_login_its_own(&mut fields, &visit.for_login, route.action);
            headers::set(&mut fields, contract::login::SOURCE_HEADER, &admission::network(visit.from).to_string());
            headers::set(&mut fields, PUBLIC_ORIGIN_HEADER, &visit.origin);
            if let Some((certificate, thumbprint)) = visit.certificate.as_ref().and_then(|c| Some((c, c.thumbprint(clock)?))) {
                headers::set(&mut fields, CERTIFICATE_HEADER, thumbprint);
                headers::set(&mut fields, NAMES_HEADER, &certificate.names().join(","));
            }
            format!("{path}{query}")
        }
        Destination::Presigned { .. } => {
            headers::set(&mut fields, PUBLIC_ORIGIN_HEADER, &visit.origin);
            headers::set(&mut fields, ORIGINAL_URI_HEADER, &target);
            format!("/presigned{target}")
        }
        Destination::Console { .. } => {
            headers::set(&mut fields, PUBLIC_ORIGIN_HEADER, &visit.origin);
            target
        }
        Destination::Service(_) | Destination::Session(_) | Destination::Preflight(_) => target,
    };
    // Calls of gRPC may pause between two messages; their senders are people, and each has only so many under way.
    let is_stream = fields.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    let limited = match visit.destination {
        Destination::Service(_) if is_stream => limit_of_stream(body, bytes_max, exceeded),
        _ => limit(body, bytes_max, exceeded),
    };
    let mut request = Request::builder().method(visit.head.method.clone()).uri(uri).body(limited).map_err(Fault::internal)?;
    *request.headers_mut() = fields;
    Ok(request)
}

/// `login` keeps a cookie of its own, and takes tokens where its contract says so.
fn pass_login_its_own(fields: &mut HeaderMap, kept: &HeaderMap, action: &str) {
    if let Some(cookies) = kept.get(header::COOKIE) {
        fields.insert(header::COOKIE, cookies.clone());
    }
    if !matches!(action, "login.userinfo" | "login.token" | "login.token.revoke") {
        return;
    }
    for name in [header::AUTHORIZATION, HeaderName::from_static(dpop::HEADER)] {
        if let Some(value) = kept.get(&name) {
            fields.insert(name, value.clone());
        }
    }
}
