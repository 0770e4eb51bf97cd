//! Onward: the request as the peer gets it, and the peer's answer as the browser gets it. Both are streams.
//!
//! A peer learns who the person is from the transaction token alone; the browser's cookie and token stay here.
//!
//! Guarantees: A11 the external credential never passes; A18 nothing is collected; a body over the limit is broken off.
//! Not here:   connections, their retries before the first byte, and connect time-outs (`client`).

use std::time::Duration;

use contract::objects::{ORIGINAL_URI_HEADER, PUBLIC_ORIGIN_HEADER};
use contract::{Body, Call, Client};
use http::{HeaderMap, Request, Response, Version, header};
use trust::{DenyReason, Fault, TraceContext};

use super::answer::{self, Source};
use super::destination::Destination;
use super::limit::{Exceeded, limit};
use super::stop::Stop;
use super::visit::Visit;
use crate::passage::{Passage, Progress};
use crate::{headers, limits};

/// An answer that brings nothing for so long is broken off: long enough for an event stream's pauses.
const ANSWER_IDLE_MS: u64 = 900_000;

/// Sends the visit to `peer` and gives the answer, cleansed.
///
/// # Errors
/// `Refused` with `BodyTooLarge`; `Failed` as the transport says.
pub async fn pass(peer: &Client, visit: Visit, body: Body, token: Option<&str>, trace: TraceContext) -> Result<Response<Body>, Stop> {
    let source = match visit.destination {
        Destination::Service(_) => Source::Service,
        Destination::Login { .. } => Source::Login,
        _ => Source::Role,
    };
    let (progress, exceeded) = (Progress::default(), Exceeded::default());
    let request = outgoing(visit, body, &progress, &exceeded)?;
    let answer = match head(peer.send(&Call { token, trace: Some(trace) }, request), &progress).await {
        Ok(answer) => answer,
        Err(_) if exceeded.is_so() => return Err(DenyReason::BodyTooLarge.into()),
        Err(fault) => return Err(fault.into()),
    };
    let (mut parts, body) = answer.into_parts();
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
    answer::cleanse(source, &mut parts.headers);
    let body = Passage::new(body).within(ANSWER_IDLE_MS).into_body();
    Ok(Response::from_parts(parts, body))
}

/// Waits for the answer's head as long as the request's body makes progress, and `ANSWER_HEAD_MS` after it does not.
async fn head(answer: impl Future<Output = Result<Response<Body>, Fault>>, progress: &Progress) -> Result<Response<Body>, Fault> {
    tokio::pin!(answer);
    let mut seen = progress.seen();
    loop {
        match tokio::time::timeout(Duration::from_millis(limits::ANSWER_HEAD_MS), &mut answer).await {
            Ok(answer) => return answer,
            Err(_) if progress.seen() != seen => seen = progress.seen(),
            Err(_) => return Err(Fault::timed_out("the peer did not answer in time")),
        }
    }
}

fn outgoing(visit: Visit, body: Body, progress: &Progress, exceeded: &Exceeded) -> Result<Request<Body>, Stop> {
    let target = visit.target().to_owned();
    let query = visit.head.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let bytes_max = visit.destination.body_bytes_max();
    let mut fields = visit.head.headers;
    fields.remove(header::HOST);
    let uri = match &visit.destination {
        Destination::Login { path, route } => {
            pass_login_its_own(&mut fields, &visit.for_login, route.action);
            headers::set(&mut fields, PUBLIC_ORIGIN_HEADER, &visit.origin);
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
        Destination::Service(_) | Destination::Session(_) => target,
    };
    let body = Passage::new(limit(body, bytes_max, exceeded)).counted(progress).into_body();
    let mut request = Request::builder().method(visit.head.method).uri(uri).body(body).map_err(Fault::internal)?;
    *request.headers_mut() = fields;
    Ok(request)
}

/// `login` keeps a cookie of its own, and takes tokens where its contract says so.
fn pass_login_its_own(fields: &mut HeaderMap, kept: &HeaderMap, action: &str) {
    if let Some(cookies) = kept.get(header::COOKIE) {
        fields.insert(header::COOKIE, cookies.clone());
    }
    let takes_tokens = matches!(action, "login.userinfo" | "login.token" | "login.token.revoke");
    if let Some(authorization) = kept.get(header::AUTHORIZATION).filter(|_| takes_tokens) {
        fields.insert(header::AUTHORIZATION, authorization.clone());
    }
}
