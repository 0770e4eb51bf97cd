//! The room: routes, views, streams, and following `identity`.
//!
//! There is one snapshot of everything that a view is made of, replaced whole: two views made from the same snapshot agree, and no
//! view mixes two (M5).

mod contain;
mod issue;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use contract::control::{Apply, ROUTES, SignedView};
use contract::identity::{Bundle, IdentityClient, Revocation};
use contract::signing::SigningKey;
use contract::{Body, BoxError, Caller, Found, Peer, Room, Route, body, find};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use manifest::{Manifest, Search, canonical_json};
use serde::{Deserialize, Serialize};
use telemetry::Recorder;
use telemetry::event::{ActDone, CallDecided, FaultRaised, TamperingFound};
use tokio::sync::watch;
use trust::{Clock, Decision, DenyReason, Digest, Fault, FaultKind, KeySealer, Origin, Retry, SpiffeId};

use crate::force::{ApplyRefused, Files, Ground, InForce, force};
use crate::store::{Record, Store, StoreError};

/// Pause before `identity` is asked again after a failure.
const IDENTITY_RETRY: Duration = Duration::from_millis(500);
/// How long the first views wait for `identity`'s bundle, which comes a moment after `control` serves.
const BUNDLE_PATIENCE: Duration = Duration::from_secs(2);
/// Views that may wait for a slow reader of a stream.
const STREAM_DEPTH: usize = 2;

/// Who signs views: `control`'s present SVID.
pub trait Signer: Send + Sync + std::fmt::Debug + 'static {
    /// The key and its certificate chain (DER, leaf first); asked for each view, so a renewed SVID is used at once.
    fn current(&self) -> (SigningKey, Vec<Vec<u8>>);
}

/// What `control` is started with.
#[derive(Debug)]
pub struct ControlConfig {
    /// Its own folder.
    pub folder: PathBuf,
    /// Seals what it keeps there.
    pub sealer: KeySealer,
    /// Where the manifest's programs are.
    pub search: Search,
    /// Digest of the Palisade binary.
    pub palisade: Digest,
    /// Addresses of every workload of this run.
    pub addresses: BTreeMap<SpiffeId, Vec<String>>,
    /// Maximum age of a view, seconds.
    pub age_s_max: u64,
    /// The manifest that the system was started with.
    pub start: Apply,
}

/// What `control` works with.
#[derive(Debug)]
pub struct Parts {
    /// Signs views.
    pub signer: Arc<dyn Signer>,
    /// Gives the trust bundle, takes revocations.
    pub identity: IdentityClient,
    /// Takes events.
    pub recorder: Recorder,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// Why `control` does not start.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Its folder cannot be used, or was tampered with.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The manifest cannot be put into force.
    #[error(transparent)]
    Refused(#[from] ApplyRefused),
}

/// Everything that a view is made of.
#[derive(Debug, Clone)]
struct Snapshot {
    epoch: u64,
    in_force: Arc<InForce>,
    bundle: Option<Arc<Bundle>>,
    /// Contained services, and since when in seconds since the epoch.
    contained: BTreeMap<String, u64>,
}

/// The room.
#[derive(Debug, Clone)]
pub struct Control(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    store: Store,
    ground: Ground,
    started_with: Digest,
    parts: Parts,
    current: watch::Sender<Snapshot>,
    /// Held while an epoch is made: checked, kept, published.
    making: tokio::sync::Mutex<()>,
    /// Last time that a view carries, so that re-issued views never go back in time.
    issued_ms: Mutex<u64>,
    /// The last view that each workload was sent: what it says it holds may be this, and then only the change is sent.
    sent: Mutex<BTreeMap<SpiffeId, Arc<SignedView>>>,
    /// Workloads of the manifest before this one, which `identity` has still to be told that they are gone.
    gone: Mutex<Vec<SpiffeId>>,
    streams: AtomicUsize,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Revoke {
    spiffe_id: SpiffeId,
}

#[derive(Debug, Serialize)]
struct Epoch {
    epoch: u64,
    manifest: Digest,
}

#[derive(Debug, Serialize)]
struct Status {
    system: String,
    epoch: u64,
    manifest: Digest,
    lock: Digest,
    streams: usize,
    bundle_sequence: Option<u64>,
    age_s_max: u64,
    contained: Vec<String>,
}

enum Outcome {
    Denied(DenyReason),
    Fault(Fault),
}

impl From<Fault> for Outcome {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl Control {
    /// Loads what was in force, or puts `config.start` into force if the system was started with something new. Blocks: it digests
    /// files.
    ///
    /// # Errors
    /// `Store` when what was kept was tampered with (also recorded); `Refused` when a manifest does not pass its checks.
    pub fn open(config: ControlConfig, parts: Parts) -> Result<Self, ControlError> {
        let store = Store::open(&config.folder, config.sealer)?;
        let started_with = Digest::of(canonical_json(&config.start).as_bytes());
        let kept = store.newest().inspect_err(|error| {
            if let StoreError::Tampered { path, why } = error {
                // It does not start either way; losing this record must not hide the reason from its log.
                let _recorded = parts.recorder.record(None, &TamperingFound { what: "manifest", which: path.clone(), detail: why.clone() });
            }
        })?;
        let ControlConfig { search, palisade, addresses, age_s_max, .. } = config;
        let mut ground = Ground { search, palisade, addresses, age_s_max, trust_domain: None };
        let mut before = None;
        // What an operator contained stays so, whatever the system is started with, as long as it has such a service.
        let mut contained = kept.as_ref().map(|record| record.contained.clone()).unwrap_or_default();
        let (epoch, in_force) = match kept {
            Some(record) if record.started_with == started_with => (record.epoch, force(record.apply, &ground, Files::AsLocked, None)?),
            older => {
                before = older.as_ref().and_then(|record| Manifest::parse("palisade.toml", &record.apply.manifest).ok());
                let epoch = older.map_or(0, |r| r.epoch).saturating_add(1);
                let in_force = force(config.start.clone(), &ground, Files::Digested, None)?;
                let (at_ms, cause) = (parts.clock.unix_ms(), "apply".to_owned());
                contained.retain(|service, _| in_force.manifest.services.contains_key(service));
                store.keep(&Record { epoch, at_ms, cause, started_with, apply: config.start, contained: contained.clone() })?;
                (epoch, in_force)
            }
        };
        ground.trust_domain = Some(in_force.manifest.trust_domain.clone());
        let (current, _) = watch::channel(Snapshot { epoch, in_force, bundle: None, contained });
        let (making, issued_ms, streams) = (tokio::sync::Mutex::new(()), Mutex::new(0), AtomicUsize::new(0));
        let gone = before.iter().flat_map(crate::force::identities).filter(|id| !current.borrow().in_force.names(id));
        let (sent, gone) = (Mutex::default(), Mutex::new(gone.collect()));
        Ok(Self(Arc::new(Shared { store, ground, started_with, parts, current, making, issued_ms, sent, gone, streams })))
    }

    /// Follows `identity`'s bundle until the process ends. Its roots, keys and revocations are pushed to every stream at once.
    pub async fn follow_identity(&self) {
        let mut known = 0;
        loop {
            match self.0.parts.identity.bundle(known).await {
                Ok(bundle) => {
                    known = bundle.sequence;
                    let taken = match self.0.take_bundle(bundle).await {
                        Ok(()) => self.0.end_those_gone().await,
                        Err(fault) => Err(fault),
                    };
                    if let Err(fault) = taken {
                        self.0.raised("control.bundle", &fault);
                        tokio::time::sleep(IDENTITY_RETRY).await;
                    }
                }
                Err(fault) => {
                    self.0.raised("control.bundle", &fault);
                    tokio::time::sleep(IDENTITY_RETRY).await;
                }
            }
        }
    }

    /// The epoch in force.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.0.current.borrow().epoch
    }
}

impl Shared {
    async fn answer(self: &Arc<Self>, route: &Route, caller: &Caller, request: Request<Body>) -> Result<Response<Body>, Outcome> {
        match (route.action, &caller.peer) {
            ("control.view.read", Peer::Workload(id)) => {
                self.bundle_came().await;
                let held = self.held(id, request.uri().query());
                let (line, _) = self.line(&self.owned(id)?, id, held.as_deref())?;
                Ok(body::json(StatusCode::OK, &line))
            }
            ("control.view.stream", Peer::Workload(id)) => {
                self.owned(id)?;
                let held = self.held(id, request.uri().query());
                Ok(self.stream(id.clone(), held))
            }
            ("control.system.read", Peer::Workload(id)) if id.as_role() == Some("evidence") => {
                let snapshot = self.owned(id)?;
                Ok(body::json(StatusCode::OK, &crate::map::system(&snapshot.in_force.manifest, snapshot.epoch)))
            }
            ("control.apply", Peer::Operator(_)) => {
                let apply = body::parse_json(request.into_body()).await?;
                self.apply(apply, caller).await.map(|epoch| body::json(StatusCode::OK, &epoch))
            }
            ("control.revoke", Peer::Operator(_)) => {
                let revoke: Revoke = body::parse_json(request.into_body()).await?;
                self.revoke(revoke, caller).await.map(|epoch| body::json(StatusCode::OK, &epoch))
            }
            ("control.contain", Peer::Operator(_)) => {
                let asked = body::parse_json(request.into_body()).await?;
                self.contain(asked, caller).await.map(|answer| body::json(StatusCode::OK, &answer))
            }
            ("control.release", Peer::Operator(_)) => {
                let asked = body::parse_json(request.into_body()).await?;
                self.release(&asked, caller).await.map(|answer| body::json(StatusCode::OK, &answer))
            }
            ("control.status.read", Peer::Operator(_)) => Ok(body::json(StatusCode::OK, &self.status())),
            _ => Err(Outcome::Denied(DenyReason::CallerNotAdmitted)),
        }
    }

    /// The snapshot, if `id` is a workload of it.
    fn owned(&self, id: &SpiffeId) -> Result<Snapshot, Outcome> {
        let snapshot = self.current.borrow().clone();
        if id.trust_domain != snapshot.in_force.manifest.trust_domain {
            return Err(Outcome::Denied(DenyReason::TrustDomainForeign));
        }
        if snapshot.in_force.shares.contains_key(id) { Ok(snapshot) } else { Err(Outcome::Denied(DenyReason::PeerUndeclared)) }
    }

    /// Resolves once there is a bundle, or after a while without.
    async fn bundle_came(&self) {
        let mut changes = self.current.subscribe();
        // Without one, `view` says so.
        let _in_time = tokio::time::timeout(BUNDLE_PATIENCE, changes.wait_for(|snapshot| snapshot.bundle.is_some())).await.is_ok();
    }

    /// One view per line: now, at every change, and again long before the last one is stale.
    fn stream(self: &Arc<Self>, id: SpiffeId, mut held: Option<Arc<SignedView>>) -> Response<Body> {
        let (mut sender, channel) = Channel::<Bytes, BoxError>::new(STREAM_DEPTH);
        let shared = Arc::clone(self);
        let mut changes = self.current.subscribe();
        let again = Duration::from_millis((self.ground.age_s_max * 1000 / 5).max(100));
        tokio::spawn(async move {
            shared.streams.fetch_add(1, Ordering::Relaxed);
            loop {
                // Marks the change as seen before the view is made: one that comes in between is sent with the next line.
                changes.borrow_and_update();
                // A workload that is no longer declared gets nothing more; its stream ends.
                let Ok(snapshot) = shared.owned(&id) else { break };
                if let Ok((line, view)) = shared.line(&snapshot, &id, held.as_deref())
                    && let Ok(mut line) = serde_json::to_vec(&line)
                {
                    line.push(b'\n');
                    if sender.send_data(line.into()).await.is_err() {
                        break;
                    }
                    held = Some(view);
                }
                if let Ok(Err(_closed)) = tokio::time::timeout(again, changes.changed()).await {
                    break;
                }
            }
            shared.streams.fetch_sub(1, Ordering::Relaxed);
        });
        let mut response = Response::new(channel.boxed_unsync());
        response.headers_mut().insert(http::header::CONTENT_TYPE, http::header::HeaderValue::from_static("application/x-ndjson"));
        response
    }

    async fn apply(self: &Arc<Self>, apply: Apply, caller: &Caller) -> Result<Epoch, Outcome> {
        let _making = self.making.lock().await;
        let shared = Arc::clone(self);
        let present = self.current.borrow().in_force.clone();
        let forced = move || force(apply, &shared.ground, Files::Digested, Some(&present));
        let checked = tokio::task::spawn_blocking(forced).await.map_err(Fault::internal)?;
        let in_force = match checked {
            Ok(in_force) => in_force,
            Err(why) => {
                if let ApplyRefused::Tampered(found) = &why {
                    self.record(caller, &TamperingFound { what: "lock", which: "palisade.lock".into(), detail: found.join("; ") })?;
                }
                return Err(unprocessable(why.to_string()).into());
            }
        };
        // Whoever is gone from the manifest has no identity any more: it is told before the epoch, so that no view is without both.
        let present = self.current.borrow().in_force.clone();
        let mut bundle = None;
        let gone = present.identities().into_iter().filter(|id| !in_force.names(id));
        for id in gone {
            bundle = Some(Arc::new(self.end(&id).await?));
        }
        let detail = format!("manifest {}", in_force.manifest.digest());
        let change = |snapshot: &mut Snapshot| {
            snapshot.contained.retain(|service, _| in_force.manifest.services.contains_key(service));
            snapshot.in_force = in_force;
            snapshot.bundle = bundle.or(snapshot.bundle.take());
        };
        self.new_epoch(caller, ("apply", "control.apply", detail), change).await
    }

    async fn revoke(self: &Arc<Self>, revoke: Revoke, caller: &Caller) -> Result<Epoch, Outcome> {
        let _making = self.making.lock().await;
        let snapshot = self.current.borrow().clone();
        if !snapshot.in_force.names(&revoke.spiffe_id) {
            return Err(Fault::not_found(format!("{} is no workload of this system", revoke.spiffe_id)).into());
        }
        let bundle = self.end(&revoke.spiffe_id).await?;
        let what = ("revoke", "control.revoke", revoke.spiffe_id.to_string());
        self.new_epoch(caller, what, |snapshot| snapshot.bundle = Some(Arc::new(bundle))).await
    }

    /// Has `identity` refuse what this workload was issued until now, and every renewal of it.
    async fn end(&self, id: &SpiffeId) -> Result<Bundle, Fault> {
        self.parts.identity.revoke(&Revocation { spiffe_id: id.clone(), before_s: self.parts.clock.unix_s() }).await
    }

    /// Ends the identities of those that an earlier manifest had and this one, which the system was started with, has not.
    async fn end_those_gone(&self) -> Result<(), Fault> {
        loop {
            let next = self.gone.lock().unwrap_or_else(std::sync::PoisonError::into_inner).last().cloned();
            let Some(id) = next else { return Ok(()) };
            self.end(&id).await?;
            self.gone.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop();
        }
    }

    /// Kept, audited, then seen; in that order. The caller of this holds `making`.
    async fn new_epoch(
        self: &Arc<Self>,
        caller: &Caller,
        (cause, act, detail): (&str, &'static str, String),
        change: impl FnOnce(&mut Snapshot),
    ) -> Result<Epoch, Outcome> {
        let mut next = self.current.borrow().clone();
        change(&mut next);
        next.epoch = next.epoch.saturating_add(1);
        let (epoch, digest) = (next.epoch, next.in_force.manifest.digest());
        self.record(caller, &ActDone { act, by: "operator".into(), to: format!("epoch {epoch}"), detail })?;
        self.keep(&next, cause).await?;
        // Only the bundle may have moved meanwhile; the newer one stays.
        self.current.send_modify(|current| {
            let newer = current.bundle.take().filter(|b| next.bundle.as_ref().is_none_or(|n| b.sequence > n.sequence));
            *current = Snapshot { bundle: newer.or(next.bundle.clone()), ..next.clone() };
        });
        Ok(Epoch { epoch, manifest: digest })
    }

    async fn keep(self: &Arc<Self>, next: &Snapshot, cause: &str) -> Result<(), Fault> {
        let (at_ms, started_with) = (self.parts.clock.unix_ms(), self.started_with);
        let (cause, apply, contained) = (cause.to_owned(), next.in_force.apply.clone(), next.contained.clone());
        let record = Record { epoch: next.epoch, at_ms, cause, started_with, apply, contained };
        let shared = Arc::clone(self);
        tokio::task::spawn_blocking(move || shared.store.keep(&record)).await.map_err(Fault::internal)?.map_err(Fault::internal)
    }

    /// A newer bundle is pushed at once; one with other revocations is a new epoch.
    async fn take_bundle(self: &Arc<Self>, bundle: Bundle) -> Result<(), Fault> {
        let _making = self.making.lock().await;
        let present = self.current.borrow().clone();
        if present.bundle.as_ref().is_some_and(|b| b.sequence >= bundle.sequence) {
            return Ok(());
        }
        // The first bundle after a start may hold revocations that came while nobody was here: count it, if there are any.
        let revoked = present.bundle.as_ref().map_or(&[][..], |b| b.revoked.as_slice());
        let mut next = Snapshot { bundle: Some(Arc::new(bundle.clone())), ..present.clone() };
        if revoked != bundle.revoked.as_slice() {
            next.epoch = next.epoch.saturating_add(1);
            self.keep(&next, "revoke").await?;
        }
        self.current.send_replace(next);
        Ok(())
    }

    fn status(&self) -> Status {
        let snapshot = self.current.borrow().clone();
        Status {
            system: snapshot.in_force.manifest.name.clone(),
            epoch: snapshot.epoch,
            manifest: snapshot.in_force.manifest.digest(),
            lock: Digest::of(snapshot.in_force.lock.to_toml().as_bytes()),
            streams: self.streams.load(Ordering::Relaxed),
            bundle_sequence: snapshot.bundle.as_ref().map(|b| b.sequence),
            age_s_max: self.ground.age_s_max,
            contained: snapshot.contained.keys().cloned().collect(),
        }
    }

    fn record<E: telemetry::Event>(&self, caller: &Caller, event: &E) -> Result<(), Outcome> {
        self.parts.recorder.record(Some(caller.trace), event).map_err(|_| Outcome::Denied(DenyReason::AuditUnavailable))
    }

    fn raised(&self, action: &str, fault: &Fault) {
        let cause = fault.cause.as_ref().map_or_else(|| fault.public.clone(), |cause| format!("{}: {cause}", fault.public));
        let _recorded = self.parts.recorder.record(None, &FaultRaised { point: "control", action: action.to_owned(), cause });
    }

    /// A refusal is an answer, and always recorded.
    fn refuse(&self, caller: &Caller, action: &str, reason: DenyReason) -> Response<Body> {
        let principal = match &caller.peer {
            Peer::Workload(id) => id.to_string(),
            Peer::Operator(_) => "operator".to_owned(),
            Peer::Local(_) | Peer::Supervisor => "unauthenticated".to_owned(),
        };
        let (resource, user, purpose, txn, job) = Default::default();
        let decision = Decision::deny(reason);
        let event = CallDecided { point: "control", principal, action: action.to_owned(), resource, user, purpose, txn, job, decision };
        let kept = self.parts.recorder.record(Some(caller.trace), &event);
        body::denied(if kept.is_ok() { reason } else { DenyReason::AuditUnavailable })
    }
}

/// The request is well-formed; what it asks for is not acceptable.
fn unprocessable(public: String) -> Fault {
    Fault { kind: FaultKind::Unprocessable, public, cause: None, origin: Origin::Caller, retry: Retry::Never }
}

#[async_trait]
impl Room for Control {
    fn routes(&self) -> &'static [Route] {
        ROUTES
    }

    async fn call(&self, caller: Caller, request: Request<Body>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let route = match find(ROUTES, request.method().as_str(), &path) {
            Found::Route(route, _) => route,
            Found::MethodUnlisted => return self.0.refuse(&caller, "control", DenyReason::MethodUnlisted),
            Found::Unknown => return self.0.refuse(&caller, "control", DenyReason::RouteUnknown),
        };
        match self.0.answer(route, &caller, request).await {
            Ok(response) => response,
            Err(Outcome::Denied(reason)) => self.0.refuse(&caller, route.action, reason),
            Err(Outcome::Fault(fault)) => {
                self.0.raised(route.action, &fault);
                body::fault(&fault)
            }
        }
    }
}
