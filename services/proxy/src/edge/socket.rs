//! A browser's WebSocket: opened like any request, then a tunnel that is looked at again every second.
//!
//! Guarantees: A18; A14 a page of another origin opens none (cross-site WebSocket hijacking); B19 in part: it ends within about a second
//!             of its session's end, of a withdrawn route, or of a policy that now says no.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use contract::control::PublicRoute;
use contract::{Body, BoxError, Call, Client, txn_token};
use http::{Method, Request, Response};
use http_body_util::channel::Channel;
use tokio_util::sync::CancellationToken;
use trust::{Clock, DenyReason, Entropy, Fault, TraceContext};

use super::admission::Permit;
use super::answer::{self, Source};
use super::person::{People, Person};
use super::stop::Stop;
use super::visit::{Credential, Visit};
use super::{Admitted, DangerousWithout, Edge, Outcome, entry, profile};
use crate::account::Account;
use crate::passage::Passage;
use crate::serve::afterwards::Afterwards;
use crate::tunnel::{self, Bounds, End, Why};
use crate::view::ViewHolder;
use crate::websocket::{self, Opening};
use crate::{headers, limits};

/// What an accepted opening's answer carries until the account is there to run it.
#[derive(Clone)]
pub(super) struct Opened(Arc<std::sync::Mutex<Option<Parts>>>);

struct Parts {
    opening: Opening,
    peer: End,
    watch: Watch,
}

impl Edge {
    /// Watches over what was allowed to that visit, for as long as it lasts.
    pub(super) fn watch(&self, visit: &Visit, person: Option<&Person>, route: &PublicRoute, trace: TraceContext) -> Watch {
        Watch {
            people: self.people.clone(),
            views: Arc::clone(&self.views),
            clock: Arc::clone(&self.clock),
            entropy: Arc::clone(&self.entropy),
            dangerous_without: self.dangerous_without,
            credential: visit.credential.clone(),
            origin: visit.main.clone(),
            user: person.map(|person| person.claims.sub.clone()).unwrap_or_default(),
            route: route.clone(),
            trace,
        }
    }

    /// Opens it at the service's guard; the answer is the browser's.
    pub(super) async fn open_socket(&self, route: &PublicRoute, opening: Opening, admitted: Admitted, trace: TraceContext) -> Outcome {
        let Admitted { visit, person, token, .. } = admitted;
        let watch = self.watch(&visit, person.as_ref(), route, trace);
        let (sender, channel) = Channel::<Bytes, BoxError>::new(1);
        let mut request = Request::builder().method(Method::GET).uri(visit.target()).body(Passage::new(channel).into_body());
        if let Ok(request) = &mut request {
            let host = visit.origin.strip_prefix("https://").unwrap_or_default().to_owned();
            *request.headers_mut() = visit.head.headers;
            headers::set(request.headers_mut(), "host", &host);
            websocket::mark(request.headers_mut());
            if let Some(token) = token {
                request.headers_mut().insert(txn_token::HEADER, token);
            }
        }
        let transport = self.peers.transport(&route.service)?;
        let call = Call { token: None, trace: Some(trace) };
        let (mut head, body) = Client::new(transport).send(&call, request.map_err(Fault::internal)?).await?.into_parts();
        if websocket::is_tunnel(&head.headers) {
            let mut accepted = opening.accepted(&head.headers);
            let parts = Parts { opening, peer: End::bodies(body, sender), watch };
            accepted.extensions_mut().insert(Opened(Arc::new(std::sync::Mutex::new(Some(parts)))));
            return Ok(accepted);
        }
        if head.status.is_success() {
            // To HTTP/2 a success is an open tunnel (RFC 8441, section 5).
            return Err(Stop::Failed(bad_gateway()));
        }
        head.version = http::Version::HTTP_11;
        head.extensions.clear();
        answer::cleanse(Source::Service, &mut head.headers, &self.csp);
        Ok(Response::from_parts(head, Passage::new(body).within(limits::BODY_IDLE_MS).into_body()))
    }
}

/// What a peer did wrong.
fn bad_gateway() -> Fault {
    let mut fault = Fault::bad_request("the service did not open a WebSocket");
    fault.kind = trust::FaultKind::Unprocessable;
    fault
}

impl Opened {
    /// Gives an accepted opening its account and permit, which it keeps to its end; other answers get them back.
    pub(super) fn begin(answer: &mut Response<Body>, account: Account, permit: Option<Permit>) -> Option<(Account, Option<Permit>)> {
        let opened: Option<Self> = answer.extensions_mut().remove();
        let Some(parts) = opened.and_then(|opened| opened.0.lock().ok()?.take()) else { return Some((account, permit)) };
        let status = answer.status().as_u16();
        Afterwards::attach(answer, move |stop| async move {
            let Parts { opening, peer, watch } = parts;
            let Some(caller) = opening.caller().await else { return };
            let summary = tunnel::run(caller, peer, Bounds::websocket(), true, watch.ending(stop)).await;
            account.tunnel_ended(status, &summary);
            drop(permit);
        });
        None
    }
}

/// Asks again, for as long as a tunnel is open, what was asked at its opening.
pub(super) struct Watch {
    people: People,
    views: Arc<ViewHolder>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    dangerous_without: DangerousWithout,
    credential: Credential,
    origin: String,
    user: String,
    route: PublicRoute,
    trace: TraceContext,
}

impl Watch {
    async fn ending(self, stop: CancellationToken) -> Why {
        tokio::select! {
            () = stop.cancelled() => Why::Drained,
            why = self.withdrawn() => why,
        }
    }

    /// Returns once it is no longer allowed.
    pub(super) async fn withdrawn(self) -> Why {
        loop {
            tokio::time::sleep(Duration::from_millis(limits::TUNNEL_LOOK_MS)).await;
            match self.look().await {
                Ok(()) => {}
                Err(Stop::Refused(refusal)) => return Why::Revoked(refusal.reason),
                Err(_) => return Why::Revoked(DenyReason::DependencyDown),
            }
        }
    }

    /// The session lives (its token is renewed as for a request, and an open WebSocket counts as its use), the route is there, and the
    /// policy still says yes.
    async fn look(&self) -> Result<(), Stop> {
        let view = self.views.fresh()?;
        let person = self.people.person(&view, &self.credential, &self.origin, self.trace).await?;
        if person.claims.sub != self.user {
            return Err(DenyReason::SessionEnded.into());
        }
        let route = profile(&view)?.routes.iter().find(|route| ***route == self.route).ok_or(DenyReason::RouteUnknown)?;
        entry::service(&view, route, &person, &*self.clock, &*self.entropy, self.dangerous_without).map(|_| ())
    }
}
