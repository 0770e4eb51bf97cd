//! The room: evidence's routes, and the facts that the console's pages are made of.
//!
//! Guarantees: J7: `POST /records` answers only for what is on the disk. J12: the console is served from here, by way of `Pages`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use contract::console::{
    AuditFilter, AuditState, BreachTold, MapFacts, Pages, Reader, StoredRecord, TraceDetail, TraceFilter, TraceSummary,
};
use contract::control::System;
use contract::evidence::{Appended, BATCH_BYTES_MAX, BREACH_BYTES_MAX, Batch, ROUTES};
use contract::queue::{QueueClient, QueueStats};
use contract::{Body, Call, Caller, Client, Found, Peer, Room, Route, body, route};
use http::{Request, Response, StatusCode, header};
use state::StateError;
use telemetry::Recorder;
use telemetry::event::TamperingFound;
use trust::{Clock, DenyReason, Fault, SpiffeId};

use crate::copying;
use crate::exposition::{self, Style, Told};
use crate::forward::Forward;
use crate::index::search::node_of;
use crate::index::{Index, OTLP_PROCESS, Retention};
use crate::intake::{Intake, IntakeError};
use crate::live::{Live, WINDOW_S};
use crate::log::{self, AuditLog, LogError};
use crate::note::{NoteSigner, VerifierKey};
use crate::{otlp, told};

const ASK_TIMEOUT: Duration = Duration::from_secs(2);
const ASK_EVERY_MS: u64 = 2_000;
const TEND_EVERY: Duration = Duration::from_secs(10);
/// Between two steps of it, so that writers are not kept waiting.
const TEND_PAUSE: Duration = Duration::from_millis(20);
const METRICS_AGE_MS_MAX: u64 = 5 * 60 * 1000;
const METRICS_PROCESSES_MAX: usize = 512;
const PROCESS_NAME_BYTES_MAX: usize = 64;
const DAY_MS: u64 = 24 * 3_600_000;

/// What evidence is made of.
#[derive(Debug)]
pub struct Parts {
    /// Its own identity.
    pub own: SpiffeId,
    /// Where the audit log and its anchor are.
    pub place: log::Place,
    /// Signs checkpoints.
    pub signer: NoteSigner,
    /// File of the index.
    pub database: PathBuf,
    /// What the index keeps.
    pub retention: Retention,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// For its own events and metrics.
    pub recorder: Recorder,
    /// `control`, for the system.
    pub control: Client,
    /// `queue`, for figures.
    pub queue: QueueClient,
    /// The console.
    pub pages: Arc<dyn Pages>,
}

/// Why evidence does not start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The log is in use or cannot be read. (A log that does not verify is no reason not to start: evidence then takes nothing and says why.)
    #[error(transparent)]
    Log(#[from] LogError),
    /// The index cannot be opened.
    #[error("the index of traces and audit records cannot be opened")]
    Index(#[from] StateError),
    /// No thread could be made.
    #[error("no thread could be made for the audit log")]
    Thread(#[from] std::io::Error),
}

/// The newest answers of others.
#[derive(Debug, Default)]
struct Asked {
    at_ms: u64,
    system: Option<System>,
    system_ms: u64,
    queues: Vec<QueueStats>,
}

#[derive(Debug)]
struct ProcessMetrics {
    at_ms: u64,
    text: String,
}

/// The room.
#[derive(Debug)]
pub struct Evidence {
    own: SpiffeId,
    key: VerifierKey,
    place: log::Place,
    intake: Intake,
    index: Index,
    spans: copying::Spans,
    breach: PathBuf,
    retention: Retention,
    live: Arc<Mutex<Live>>,
    metrics: Mutex<BTreeMap<(String, String), ProcessMetrics>>,
    asked: tokio::sync::Mutex<Asked>,
    clock: Arc<dyn Clock>,
    recorder: Recorder,
    control: Client,
    queue: QueueClient,
    pages: Arc<dyn Pages>,
    forward: Option<Forward>,
}

impl Evidence {
    /// Opens the log and the index. If the log does not verify, the room stands, reports `TamperingFound`, and refuses to append.
    ///
    /// # Errors
    /// `OpenError`.
    pub async fn open(parts: Parts) -> Result<Arc<Self>, OpenError> {
        Self::open_forwarding(parts, None).await
    }

    /// As `open`; `collector`, if there is one, gets every span too, over OTLP/HTTP.
    ///
    /// # Errors
    /// `OpenError`.
    pub async fn open_forwarding(parts: Parts, collector: Option<Client>) -> Result<Arc<Self>, OpenError> {
        Self::opened(parts, collector, |log| log).await
    }

    /// As `open_forwarding`, over a log in which no record says what came before it. For a throw-away copy of a system alone, to see that an
    /// attack finds that.
    ///
    /// # Errors
    /// `OpenError`.
    pub async fn dangerous_open_unchained(parts: Parts, collector: Option<Client>) -> Result<Arc<Self>, OpenError> {
        Self::opened(parts, collector, AuditLog::dangerous_unchained).await
    }

    async fn opened(parts: Parts, collector: Option<Client>, as_it_is: fn(AuditLog) -> AuditLog) -> Result<Arc<Self>, OpenError> {
        let key = parts.signer.verifier();
        let index = Index::open(&parts.database).await?;
        let live = Arc::new(Mutex::new(Live::default()));
        let (place, dir) = (parts.place.clone(), parts.place.dir.clone());
        let intake = match AuditLog::open(parts.place, parts.signer, parts.clock.unix_ms()).map(as_it_is) {
            Ok(log) => {
                let (taken, copied) = (copying::caught_up(&index, &dir, log.records()).await?, log.records());
                let (intake, appended) = Intake::start(log, taken, Arc::clone(&parts.clock))?;
                tokio::spawn(copying::keep_copy(index.clone(), (dir.clone(), intake.count()), Arc::clone(&live), appended, copied));
                intake
            }
            Err(error @ LogError::Broken { .. }) => {
                let found = TamperingFound { what: "audit", which: dir.display().to_string(), detail: error.to_string() };
                if parts.recorder.record(None, &found).is_err() {
                    tracing::error!("and that finding itself could not be recorded");
                }
                Intake::broken(error.to_string())
            }
            Err(error) => return Err(error.into()),
        };
        let metrics = Arc::clone(parts.recorder.metrics());
        let forward = collector.map(|collector| Forward::start(collector, move || metrics.span_dropped()));
        Ok(Arc::new(Self {
            own: parts.own,
            key,
            place,
            intake,
            spans: copying::Spans::start(index.clone(), Arc::clone(parts.recorder.metrics())),
            index,
            breach: told::beside(&parts.database),
            retention: parts.retention,
            live,
            metrics: Mutex::default(),
            asked: tokio::sync::Mutex::default(),
            clock: parts.clock,
            recorder: parts.recorder,
            control: parts.control,
            queue: parts.queue,
            pages: parts.pages,
            forward,
        }))
    }

    /// The key that verifies the log's checkpoints; printed for whoever keeps the anchor.
    #[must_use]
    pub fn verifier_key(&self) -> &VerifierKey {
        &self.key
    }

    /// Why nothing is appended any more, if the log is broken.
    #[must_use]
    pub fn broken(&self) -> Option<String> {
        self.intake.state().broken
    }

    /// Learns what the system is, so that calls are counted for the right bucket or queue before anybody looks at the map; then lets go of
    /// what is past its retention, every ten seconds. Never returns. The assembly spawns it.
    pub async fn run(&self) {
        while self.asked().await.0.is_none() {
            tokio::time::sleep(Duration::from_millis(ASK_EVERY_MS)).await;
        }
        loop {
            tokio::time::sleep(TEND_EVERY).await;
            // However much comes in, as much goes.
            loop {
                match self.index.forget(&self.retention, self.clock.unix_ms()).await {
                    Ok(true) => tokio::time::sleep(TEND_PAUSE).await,
                    Ok(false) => break,
                    Err(error) => {
                        tracing::warn!(%error, "old traces could not be let go of");
                        break;
                    }
                }
            }
        }
    }

    /// Takes a batch of `workload`, as `POST /records` does. Evidence's own records come this way too.
    ///
    /// # Errors
    /// `BadRequest` for a process without a proper name or a record too long; `Conflict` for a gap; `Unavailable` when the log cannot be
    /// written or is broken.
    pub async fn append(&self, workload: &SpiffeId, batch: Batch) -> Result<Appended, Fault> {
        let Batch { process, audit, spans, metrics } = batch;
        let named = (1..=PROCESS_NAME_BYTES_MAX).contains(&process.len())
            && process.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if !named || process == OTLP_PROCESS || workload.trust_domain != self.own.trust_domain {
            return Err(Fault::bad_request("a process is named by 1 to 64 letters, digits, '-', '_' or '.'"));
        }
        let seq = self.intake.append(workload.clone(), process.clone(), audit).await.map_err(|error| match error {
            IntakeError::Gap { .. } => Fault::conflict(error.to_string()),
            IntakeError::TooLong => Fault::bad_request(error.to_string()),
            IntakeError::Broken | IntakeError::Full | IntakeError::Unwritable => Fault::unavailable(error.to_string()),
        })?;
        let now_ms = self.clock.unix_ms();
        self.send_on(workload, &spans);
        if let Ok(mut live) = self.live.lock() {
            live.heard(workload, &process, now_ms, seq);
            spans.iter().for_each(|span| live.ended(workload, span));
        }
        self.spans.take(workload, &process, spans).await;
        if !metrics.is_empty() {
            self.keep_metrics(workload, process, metrics, now_ms);
        }
        Ok(Appended { seq })
    }

    fn send_on(&self, workload: &SpiffeId, spans: &[trust::Span]) {
        if self.forward.as_ref().is_some_and(|forward| !forward.offer(workload, spans)) {
            self.recorder.metrics().span_dropped();
        }
    }

    fn keep_metrics(&self, workload: &SpiffeId, process: String, text: String, at_ms: u64) {
        let fits = text.len() <= exposition::TEXT_BYTES_MAX;
        if let (Ok(mut all), true) = (self.metrics.lock(), fits) {
            all.retain(|_, m| at_ms.saturating_sub(m.at_ms) < METRICS_AGE_MS_MAX);
            if all.len() < METRICS_PROCESSES_MAX {
                all.insert((node_of(&workload.to_string()), process), ProcessMetrics { at_ms, text });
            }
        } else if !fits {
            tracing::warn!(%workload, bytes = text.len(), "a process's metrics are too long and are left out");
        }
    }

    /// What evidence counts, and knows of its log, for `/metrics`.
    fn own_figures(&self, shipped: bool) -> String {
        let state = self.intake.state();
        format!(
            "{}# TYPE palisade_audit_log_records gauge\n# HELP palisade_audit_log_records Records in the audit log\n\
             palisade_audit_log_records {}\n# TYPE palisade_audit_log_checkpointed_records gauge\n\
             # HELP palisade_audit_log_checkpointed_records Records under the newest signed checkpoint\n\
             palisade_audit_log_checkpointed_records {}\n# TYPE palisade_audit_log_broken gauge\n\
             # HELP palisade_audit_log_broken Whether the audit log does not verify, so that nothing is appended\n\
             palisade_audit_log_broken {}\n# TYPE palisade_audit_disk_free_bytes gauge\n\
             # HELP palisade_audit_disk_free_bytes Bytes free on the disk of the audit log\npalisade_audit_disk_free_bytes {}\n\
             # TYPE palisade_audit_disk_floor_bytes gauge\n\
             # HELP palisade_audit_disk_floor_bytes Free bytes under which nothing is appended to the audit log\n\
             palisade_audit_disk_floor_bytes {}\n",
            if shipped { String::new() } else { self.recorder.metrics().render() },
            state.records,
            state.checkpointed,
            u8::from(state.broken.is_some()),
            self.place.free_bytes().unwrap_or_default(),
            self.place.free_bytes_min,
        )
    }

    async fn exposition(&self, style: Style) -> Result<String, Fault> {
        let (now_ms, own_node) = (self.clock.unix_ms(), node_of(&self.own.to_string()));
        let fresh: Vec<(String, String, String)> = match self.metrics.lock() {
            Ok(all) => {
                let fresh = all.iter().filter(|(_, m)| now_ms.saturating_sub(m.at_ms) < METRICS_AGE_MS_MAX);
                fresh.map(|((workload, process), m)| (workload.clone(), process.clone(), m.text.clone())).collect()
            }
            Err(_) => Vec::new(),
        };
        // When this process also ships its metrics as the others do, they must not be counted twice.
        let own = self.own_figures(fresh.iter().any(|(workload, ..)| *workload == own_node));
        let mut told = vec![Told { workload: &own_node, process: "self", text: &own }];
        told.extend(fresh.iter().map(|(workload, process, text)| Told { workload, process, text }));
        let kept = match style {
            Style::Prometheus => BTreeSet::new(),
            Style::OpenMetrics => self.index.kept(&told.iter().flat_map(|told| exposition::traces(told.text)).collect()).await?,
        };
        let (text, refused) = exposition::merge(&told, style, &kept);
        let end = if style == Style::OpenMetrics { "# EOF\n" } else { "" };
        Ok(format!(
            "{text}# HELP palisade_metrics_lines_refused Lines of processes' metrics that were no OpenMetrics\n\
             # TYPE palisade_metrics_lines_refused gauge\npalisade_metrics_lines_refused {refused}\n{end}"
        ))
    }

    async fn otlp(&self, caller: &Caller, path: &str, request: Request<Body>) -> Result<Response<Body>, Fault> {
        let Some(workload) = caller.workload() else { return Ok(body::denied(DenyReason::CallerNotAdmitted)) };
        let encoding = match otlp::encoding(request.headers()) {
            Ok(encoding) => encoding,
            Err(answer) => return Ok(*answer),
        };
        let bytes = body::collect(request.into_body(), otlp::BODY_BYTES_MAX).await?;
        match path {
            "/v1/traces" => {
                let spans = otlp::spans(encoding, &bytes, workload)?;
                self.send_on(workload, &spans);
                self.spans.take(workload, OTLP_PROCESS, spans).await;
                Ok(otlp::traces_taken(encoding))
            }
            "/v1/logs" => {
                self.index.lines(workload, &otlp::lines(encoding, &bytes)?).await?;
                Ok(otlp::logs_taken(encoding))
            }
            _ => {
                let text = otlp::metrics(encoding, &bytes)?;
                self.keep_metrics(workload, OTLP_PROCESS.to_owned(), text, self.clock.unix_ms());
                Ok(otlp::metrics_taken(encoding))
            }
        }
    }

    async fn answer(&self, caller: &Caller, request: Request<Body>) -> Result<Response<Body>, Fault> {
        let path = request.uri().path().to_owned();
        let Found::Route(found, values) = route::find(ROUTES, request.method().as_str(), &path) else {
            return Ok(body::denied(DenyReason::RouteUnknown));
        };
        match found.path {
            "/records" => {
                let Some(workload) = caller.workload() else { return Ok(body::denied(DenyReason::CallerNotAdmitted)) };
                let appended = self.append(workload, body::parse_json_within(request.into_body(), BATCH_BYTES_MAX).await?).await?;
                Ok(body::json(StatusCode::OK, &appended))
            }
            "/v1/traces" | "/v1/logs" | "/v1/metrics" => self.otlp(caller, found.path, request).await,
            "/metrics" if operator(caller) => {
                let accept = request.headers().get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect::<Vec<_>>();
                let style = Style::of(&accept.join(","));
                Ok(body::with_type(StatusCode::OK, style.content_type(), self.exposition(style).await?))
            }
            "/checkpoint" if operator(caller) => match self.intake.checkpoint() {
                Some(note) => Ok(body::with_type(StatusCode::OK, "text/plain; charset=utf-8", note)),
                None => Err(Fault::unavailable("the audit log is broken; there is no checkpoint to vouch for")),
            },
            "/traces/{trace}" if operator(caller) => {
                let trace = values.first().map(|(_, trace)| trace.as_ref()).unwrap_or_default();
                let detail = self.index.trace(trace).await?.ok_or_else(|| Fault::not_found("no such trace is kept"))?;
                Ok(body::json(StatusCode::OK, &detail))
            }
            "/breach" if operator(caller) => {
                let told: BreachTold = body::parse_json_within(request.into_body(), BREACH_BYTES_MAX).await?;
                told::keep(&self.breach, &BreachTold { at_ms: self.clock.unix_ms(), ..told }).await?;
                Ok(body::plain(StatusCode::NO_CONTENT))
            }
            "/console" | "/console/{*page}" => {
                let query = request.uri().query().unwrap_or_default();
                Ok(self.pages.page(self, caller, &path, query).await)
            }
            _ => Ok(body::denied(DenyReason::CallerNotAdmitted)),
        }
    }

    async fn asked(&self) -> (Option<System>, u64, Vec<QueueStats>) {
        let now_ms = self.clock.unix_ms();
        let mut asked = self.asked.lock().await;
        if asked.at_ms == 0 || now_ms.saturating_sub(asked.at_ms) >= ASK_EVERY_MS {
            asked.at_ms = now_ms;
            let call = Call::default();
            let (system, queues) = tokio::join!(
                tokio::time::timeout(ASK_TIMEOUT, self.control.get::<System>(&call, "/system")),
                tokio::time::timeout(ASK_TIMEOUT, self.queue.stats()),
            );
            // What does not answer is shown as it last was; the page says how old that is.
            if let Ok(Ok(system)) = system {
                if let Ok(mut live) = self.live.lock() {
                    live.describe(&system);
                }
                (asked.system, asked.system_ms) = (Some(system), now_ms);
            }
            if let Ok(Ok(queues)) = queues {
                asked.queues = queues;
            }
        }
        (asked.system.clone(), now_ms.saturating_sub(asked.system_ms), asked.queues.clone())
    }
}

fn operator(caller: &Caller) -> bool {
    matches!(caller.peer, Peer::Operator(_))
}

#[async_trait]
impl Room for Evidence {
    fn routes(&self) -> &'static [Route] {
        ROUTES
    }

    async fn call(&self, caller: Caller, request: Request<Body>) -> Response<Body> {
        match self.answer(&caller, request).await {
            Ok(answer) => answer,
            Err(fault) => {
                if let Some(cause) = &fault.cause {
                    tracing::warn!(%fault, %cause, "a request to evidence failed");
                }
                body::fault(&fault)
            }
        }
    }
}

#[async_trait]
impl Reader for Evidence {
    async fn map(&self) -> Result<MapFacts, Fault> {
        let (system, system_age_ms, queues) = self.asked().await;
        let now_ms = self.clock.unix_ms();
        let refusals = self.index.refusals(now_ms.saturating_sub(DAY_MS)).await?;
        let (flows, processes) = match self.live.lock() {
            Ok(live) => (live.flows(now_ms), live.processes(now_ms)),
            Err(_) => (Vec::new(), Vec::new()),
        };
        Ok(MapFacts { now_ms, system, system_age_ms, window_s: WINDOW_S, flows, queues, processes, refusals, audit: self.intake.state() })
    }
    async fn traces(&self, filter: &TraceFilter) -> Result<Vec<TraceSummary>, Fault> {
        Ok(self.index.traces(filter).await?)
    }
    async fn trace(&self, trace: &str) -> Result<Option<TraceDetail>, Fault> {
        Ok(self.index.trace(trace).await?)
    }
    async fn audit(&self, filter: &AuditFilter) -> Result<Vec<StoredRecord>, Fault> {
        Ok(self.index.audit(filter).await?)
    }
    async fn breach(&self) -> Result<Option<BreachTold>, Fault> {
        told::kept(&self.breach).await
    }
    fn audit_state(&self) -> AuditState {
        self.intake.state()
    }
}

#[cfg(test)]
mod tests;
