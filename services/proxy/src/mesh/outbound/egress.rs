//! A request's way out of the system: accept, match the destination, take the authority, admit, authorise, record, forward.
//!
//! The socket says which destination it is: it exists because the flow is declared. What leaves is the request as the service made it,
//! but for everything by which anybody here is known: its own credentials and cookies, the transaction token, identity headers, traces
//! and `Host`. What is added is the operator's, read here and never shown to the service.
//!
//! Guarantees: D10 default deny, one identity for each destination; D6, D7 on the way out; A13 limits in both directions; J7 the decision
//!             is recorded before a name is resolved or a byte leaves, and a refused address or certificate is recorded, too.
//! Not here:   addresses, TLS, connections (`client::outside`).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use contract::control::Outside;
use contract::{Body, body};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header};
use http_body::Body as _;
use tokio::time::Instant;
use trust::{Clock, DenyReason, Fault, TraceContext};

use super::{Taken, accept, match_flow, parent, take};
use crate::account::Account;
use crate::client::outside::{CameFrom, Line, OutsideFailed, Over, Resolve, bounded};
use crate::enforce::in_origin_form;
use crate::mesh::Guard;
use crate::mesh::flight::{Place, Places};
use crate::passage::Passage;
use crate::view::{Matched, Question};
use crate::{grpc, headers, limits};

/// This enforcement point's name.
pub(in crate::mesh) const POINT: &str = "egress";

/// What a guard keeps of each destination: connections, and how many calls are under way.
pub(in crate::mesh) struct Destinations {
    resolver: Arc<dyn Resolve>,
    clock: Arc<dyn Clock>,
    by_name: Mutex<BTreeMap<String, Arc<Destination>>>,
}

struct Destination {
    line: Line,
    places: Places,
}

impl Destinations {
    /// None is known yet.
    pub(in crate::mesh) fn new(resolver: Arc<dyn Resolve>, clock: Arc<dyn Clock>) -> Self {
        Self { resolver, clock, by_name: Mutex::default() }
    }

    /// Names come from the view, so there are as many as are declared.
    fn of(&self, name: &str) -> Result<Arc<Destination>, DenyReason> {
        let mut known = self.by_name.lock().map_err(|_| DenyReason::DependencyDown)?;
        let new =
            || Arc::new(Destination { line: Line::new(Arc::clone(&self.resolver), Arc::clone(&self.clock)), places: Places::default() });
        Ok(Arc::clone(known.entry(name.to_owned()).or_insert_with(new)))
    }
}

impl fmt::Debug for Destinations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Destinations").field("resolver", &self.resolver).finish_non_exhaustive()
    }
}

/// A call that may leave.
struct Admitted {
    to: Arc<Outside>,
    destination: Arc<Destination>,
    place: Place,
}

/// Whether the listener at `port` stands for a destination outside, by the view of now.
pub(in crate::mesh) fn is_outside(guard: &Guard, port: u16) -> bool {
    guard.views.last().is_some_and(|loaded| match_flow(&loaded, port).is_ok_and(|flow| flow.outside.is_some()))
}

/// Serves one request of the service on the listener for `port`.
pub(in crate::mesh) async fn serve(guard: Arc<Guard>, port: u16, request: Request<Body>) -> Response<Body> {
    let is_grpc = grpc::is_grpc(request.headers());
    let answer = answered(guard, port, request).await;
    if is_grpc { grpc::answer(answer) } else { answer }
}

async fn answered(guard: Arc<Guard>, port: u16, mut request: Request<Body>) -> Response<Body> {
    let taken = take(&guard, &request);
    let parent = parent(&guard, &request, taken.as_ref().ok().and_then(Option::as_ref));
    let mut account = Account::begin(&guard.recorder, &guard.clock, POINT, "client", parent);
    account.caller(guard.identity.id());
    account.resource(&[request.method().as_str(), " ", request.uri().path()]);
    let Admitted { to, destination, place } = match decide(&guard, port, &request, taken, &mut account) {
        Ok(admitted) => admitted,
        Err(reason) => return account.denied(reason),
    };
    let deadline = Instant::now() + Duration::from_millis(to.wall_ms);
    let over = Over::default();
    if let Err(fault) = in_origin_form(&mut request) {
        return account.finish(body::fault(&fault));
    }
    let sent = forward(&to, &destination.line, account.trace(), request, &over);
    match tokio::time::timeout_at(deadline, sent).await {
        Ok(Ok(answer)) => {
            if let Some(CameFrom(address)) = answer.extensions().get::<CameFrom>() {
                account.note("address", address.to_string());
            }
            let whole = Duration::from_millis(to.wall_ms);
            let answer = answer.map(|body| Passage::new(body).within(limits::BODY_IDLE_MS).by(deadline, whole).into_body());
            account.finish_holding(answer, place)
        }
        Ok(Err(_)) if over.is_over() => account.refuse(DenyReason::BodyTooLarge),
        Ok(Err(failed)) => refused_or_failed(account, failed),
        Err(_late) => {
            let answer = account.failed(&Fault::timed_out("the destination took too long"));
            account.finish(answer)
        }
    }
}

/// What the world did not give is a failure; what must not be connected to is a refusal, recorded as one.
fn refused_or_failed(account: Account, failed: OutsideFailed) -> Response<Body> {
    let refusal = failed.refusal();
    // Which address, name or file it was is for the log.
    let answer = account.failed(&failed.fault());
    match refusal {
        Some(reason) => account.refuse(reason),
        None => account.finish(answer),
    }
}

/// Accept to authorise, and the record of the answer.
fn decide(
    guard: &Guard,
    port: u16,
    request: &Request<Body>,
    taken: Result<Option<Taken>, DenyReason>,
    account: &mut Account,
) -> Result<Admitted, DenyReason> {
    let admitted = admit(guard, port, request, taken, account);
    match admitted {
        Ok((admitted, decision)) => account.decide(decision).map(|()| admitted),
        // It is an error whether or not it could be recorded.
        Err(reason) => Err(account.decide(trust::Decision::deny(reason)).err().unwrap_or(reason)),
    }
}

fn admit(
    guard: &Guard,
    port: u16,
    request: &Request<Body>,
    taken: Result<Option<Taken>, DenyReason>,
    account: &mut Account,
) -> Result<(Admitted, trust::Decision), DenyReason> {
    let loaded = accept(guard, request)?;
    let flow = match_flow(&loaded, port)?;
    let declared = flow.outside.clone().ok_or(DenyReason::PeerUndeclared)?;
    let to = if guard.dangerous_without.destinations { dangerous_as_asked(declared, request) } else { declared };
    account.act("egress", format!("{}:{} {}", to.name, request.method(), request.uri().path()), format!("to {}", to.name));
    let taken = taken?;
    if let Some(taken) = &taken {
        account.authority(&taken.delivered.authority);
    }
    if headers::asks_upgrade(request.headers()) {
        return Err(DenyReason::UpgradeUnlisted);
    }
    let table = loaded.outbound.iter().find(|(of, _)| *of == port).map(|(_, table)| table).ok_or(DenyReason::PeerUndeclared)?;
    let row = match table.find(request.method().as_str(), request.uri().path()).map_err(|_| DenyReason::RequestAmbiguous)? {
        Matched::Row(row) => row,
        Matched::MethodUnlisted => return Err(DenyReason::MethodUnlisted),
        Matched::Unknown => return Err(DenyReason::RouteUnknown),
    };
    if request.body().size_hint().lower() > to.body_bytes_max {
        return Err(DenyReason::BodyTooLarge);
    }
    let destination = guard.destinations.of(&to.name)?;
    let most = usize::try_from(to.concurrency).unwrap_or(usize::MAX);
    let place = destination.places.take(most).ok_or(DenyReason::ConcurrencyExceeded)?;
    let authority = taken.as_ref().map(|taken| &*taken.delivered.authority);
    let service = guard.identity.id().workload.name();
    let decision = loaded.engine.decide(&Question::Egress { service, destination: &to.name, route: &row.text, authority });
    Ok((Admitted { to, destination, place }, decision))
}

/// The destination that the service itself names in `Host`, with nothing that is the operator's; the declared one where it names none.
fn dangerous_as_asked(declared: Arc<Outside>, request: &Request<Body>) -> Arc<Outside> {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()?.parse::<http::uri::Authority>().ok());
    match host.as_ref().and_then(|host| Some((host.host(), host.port_u16()?))) {
        Some((host, port)) if !host.starts_with("127.") && host != "localhost" => Arc::new(Outside {
            host: host.to_owned(),
            port,
            networks: Vec::new(),
            root: None,
            certificate: None,
            credential: None,
            ..(*declared).clone()
        }),
        _ => declared,
    }
}

/// Sends what may leave; both bodies stream, within what is declared.
async fn forward(
    to: &Arc<Outside>,
    line: &Line,
    trace: TraceContext,
    mut request: Request<Body>,
    over: &Over,
) -> Result<Response<Body>, OutsideFailed> {
    let credential = line.credential(to).await?;
    outward(request.headers_mut(), credential.as_ref(), to.trace.then_some(trace));
    let request = request.map(|body| bounded(body, to.body_bytes_max, false, over));
    let mut answer = line.call(to, request).await?;
    inward(answer.headers_mut(), credential.as_ref());
    Ok(answer)
}

/// What leaves of the service's fields, and what the guard adds.
fn outward(fields: &mut HeaderMap, credential: Option<&(HeaderName, HeaderValue)>, trace: Option<TraceContext>) {
    headers::strip_hop_by_hop_and(fields, |name| {
        let known_by = headers::claims_identity(name) || headers::is_credential(name) || headers::names_trace(name);
        known_by || matches!(name, "host" | "baggage" | "dpop")
    });
    if let Some((name, value)) = credential {
        fields.insert(name.clone(), value.clone());
    }
    if let Some(trace) = trace {
        headers::set(fields, "traceparent", &trace.to_string());
    }
}

/// What the service gets of the answer's fields: nothing that speaks in our name, and not the credential, should it come back.
fn inward(fields: &mut HeaderMap, credential: Option<&(HeaderName, HeaderValue)>) {
    headers::strip_hop_by_hop_and(fields, |name| name == "txn-token" || name.starts_with("palisade-") || name == "alt-svc");
    if let Some((_, secret)) = credential {
        let echoes = |value: &HeaderValue| memchr::memmem::find(value.as_bytes(), secret.as_bytes()).is_some();
        let told: Vec<HeaderName> = fields.iter().filter(|(_, value)| echoes(value)).map(|(name, _)| name.clone()).collect();
        told.iter().for_each(|name| drop(fields.remove(name)));
    }
    fields.remove(header::TE);
}
