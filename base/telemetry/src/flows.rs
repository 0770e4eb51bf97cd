//! Rate, errors and duration of each flow: who called (a workload, or `internet`), by which route, with which outcome, and for how long.
//!
//! Counted by enforcement points for every hop, so that no service has to. A request costs a look-up and four additions; nothing is
//! allocated but for the first of its kind. A bucket of the histogram remembers one request that fell into it since it was last told of:
//! its trace is the exemplar.
//!
//! Spec:       OpenMetrics 1.0, sections "Counter", "Histogram", "Exemplars"; RED (rate, errors, duration).
//! Guarantees: D11, J1. Cardinality is bounded: `FLOWS_MAX` flows, `STATUSES_MAX` statuses of each; what is more is counted as others.
//! Not here:   merging of processes (`evidence::exposition`), which also leaves out exemplars whose trace is not kept.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use trust::TraceContext;

/// Flows that are told apart in one process.
pub const FLOWS_MAX: usize = 256;
/// Statuses that are told apart in one flow; others count as `2xx` to `5xx`.
pub const STATUSES_MAX: usize = 24;
/// Stands for callers and routes past `FLOWS_MAX`.
pub const OTHERS: &str = "(others)";

/// Upper ends of the buckets, in nanoseconds and as they are written, in seconds.
const BOUNDS: [(u64, &str); 14] = [
    (500_000, "0.0005"),
    (1_000_000, "0.001"),
    (2_500_000, "0.0025"),
    (5_000_000, "0.005"),
    (10_000_000, "0.01"),
    (25_000_000, "0.025"),
    (50_000_000, "0.05"),
    (100_000_000, "0.1"),
    (250_000_000, "0.25"),
    (500_000_000, "0.5"),
    (1_000_000_000, "1.0"),
    (2_500_000_000, "2.5"),
    (10_000_000_000, "10.0"),
    (60_000_000_000, "60.0"),
];
const BUCKETS: usize = BOUNDS.len() + 1;

/// How a request ended, as its point sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was allowed and has an answer.
    Answered,
    /// It was denied.
    Refused,
    /// It was allowed, and the answer says that it could not be done (5xx).
    Failed,
    /// The caller went away before the answer.
    Gone,
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Gone => "gone",
        }
    }
}

/// A request that has ended.
#[derive(Debug, Clone, Copy)]
pub struct Ended<'a> {
    /// The enforcement point.
    pub point: &'static str,
    /// Who called: a verified SPIFFE ID, or a word for those that have none.
    pub caller: &'a str,
    /// A template, never a path.
    pub route: &'a str,
    /// HTTP status.
    pub status: u16,
    /// How it ended.
    pub outcome: Outcome,
    /// How long it took, in nanoseconds.
    pub took_ns: u64,
    /// Its trace, if its span is told of; and when it began, in nanoseconds since the epoch.
    pub trace: Option<(TraceContext, u64)>,
}

/// A status, or all that are alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Exact(u16),
    Class(u16),
}

#[derive(Debug)]
struct Tally {
    status: Status,
    outcome: Outcome,
    count: AtomicU64,
}

/// A request that stands for a bucket.
#[derive(Debug, Clone, Copy)]
struct Exemplar {
    trace_id: u128,
    took_ns: u64,
    at_ms: u64,
}

const EMPTY: u8 = 0;
const BEING_WRITTEN: u8 = 1;
const FULL: u8 = 2;

/// Room for one exemplar. Whoever finds it empty fills it; whoever renders empties it.
#[derive(Debug, Default)]
struct Slot {
    state: AtomicU8,
    trace_high: AtomicU64,
    trace_low: AtomicU64,
    took_ns: AtomicU64,
    at_ms: AtomicU64,
}

impl Slot {
    fn offer(&self, one: Exemplar) {
        let free = self.state.load(Ordering::Relaxed) == EMPTY
            && self.state.compare_exchange(EMPTY, BEING_WRITTEN, Ordering::Acquire, Ordering::Relaxed).is_ok();
        if !free {
            return;
        }
        let [high, low] = [one.trace_id >> 64, one.trace_id & u128::from(u64::MAX)].map(|half| u64::try_from(half).unwrap_or_default());
        self.trace_high.store(high, Ordering::Relaxed);
        self.trace_low.store(low, Ordering::Relaxed);
        self.took_ns.store(one.took_ns, Ordering::Relaxed);
        self.at_ms.store(one.at_ms, Ordering::Relaxed);
        self.state.store(FULL, Ordering::Release);
    }

    fn take(&self) -> Option<Exemplar> {
        if self.state.load(Ordering::Acquire) != FULL {
            return None;
        }
        let trace_id = (u128::from(self.trace_high.load(Ordering::Relaxed)) << 64) | u128::from(self.trace_low.load(Ordering::Relaxed));
        let one = Exemplar { trace_id, took_ns: self.took_ns.load(Ordering::Relaxed), at_ms: self.at_ms.load(Ordering::Relaxed) };
        self.state.store(EMPTY, Ordering::Release);
        Some(one)
    }
}

#[derive(Debug, Default)]
struct Bucket {
    count: AtomicU64,
    slot: Slot,
}

#[derive(Debug)]
struct Flow {
    point: &'static str,
    caller: String,
    route: String,
    tallies: RwLock<Vec<Tally>>,
    buckets: [Bucket; BUCKETS],
    took_ns: AtomicU64,
    /// What was told last, for as long as nothing newer comes.
    told: Mutex<[Option<Exemplar>; BUCKETS]>,
}

impl Flow {
    fn new(point: &'static str, caller: &str, route: &str) -> Arc<Self> {
        Arc::new(Self {
            point,
            caller: caller.to_owned(),
            route: route.to_owned(),
            tallies: RwLock::default(),
            buckets: std::array::from_fn(|_| Bucket::default()),
            took_ns: AtomicU64::new(0),
            told: Mutex::new([None; BUCKETS]),
        })
    }

    fn is(&self, point: &'static str, caller: &str) -> bool {
        self.point == point && self.caller == caller
    }

    fn count(&self, ended: &Ended<'_>) {
        self.tally(ended.status, ended.outcome);
        self.took_ns.fetch_add(ended.took_ns, Ordering::Relaxed);
        let at = BOUNDS.iter().position(|(bound, _)| ended.took_ns <= *bound).unwrap_or(BOUNDS.len());
        let Some(bucket) = self.buckets.get(at) else { return };
        bucket.count.fetch_add(1, Ordering::Relaxed);
        if let Some((trace, began_ns)) = ended.trace.filter(|(trace, _)| trace.sampled) {
            let at_ms = began_ns.saturating_add(ended.took_ns) / 1_000_000;
            bucket.slot.offer(Exemplar { trace_id: trace.trace_id, took_ns: ended.took_ns, at_ms });
        }
    }

    fn tally(&self, status: u16, outcome: Outcome) {
        let counted = |tallies: &[Tally], status: Status| {
            let found = tallies.iter().find(|tally| tally.status == status && tally.outcome == outcome);
            found.map(|tally| tally.count.fetch_add(1, Ordering::Relaxed)).is_some()
        };
        if counted(&self.tallies.read().unwrap_or_else(PoisonError::into_inner), Status::Exact(status)) {
            return;
        }
        let mut tallies = self.tallies.write().unwrap_or_else(PoisonError::into_inner);
        let status = if tallies.len() < STATUSES_MAX { Status::Exact(status) } else { Status::Class(status / 100) };
        if !counted(&tallies, status) {
            tallies.push(Tally { status, outcome, count: AtomicU64::new(1) });
        }
    }

    fn labels(&self) -> String {
        format!(r#"point="{}",caller="{}",route="{}""#, self.point, escaped(&self.caller), escaped(&self.route))
    }

    fn write_requests(&self, out: &mut String) {
        let labels = self.labels();
        for tally in self.tallies.read().unwrap_or_else(PoisonError::into_inner).iter() {
            let count = tally.count.load(Ordering::Relaxed);
            let _written = write!(out, r#"palisade_requests_total{{{labels},outcome="{}",status=""#, tally.outcome.word());
            let _written = match tally.status {
                Status::Exact(status) => write!(out, "{status}"),
                Status::Class(hundreds) => write!(out, "{hundreds}xx"),
            };
            let _written = writeln!(out, r#""}} {count}"#);
        }
    }

    fn write_durations(&self, out: &mut String) {
        let labels = self.labels();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let ends = BOUNDS.iter().map(|(_, end)| *end).chain(["+Inf"]);
        let mut below = 0_u64;
        for ((bucket, told), end) in self.buckets.iter().zip(told.iter_mut()).zip(ends) {
            below = below.saturating_add(bucket.count.load(Ordering::Relaxed));
            let _written = write!(out, r#"palisade_request_duration_seconds_bucket{{{labels},le="{end}"}} {below}"#);
            if let Some(newer) = bucket.slot.take() {
                *told = Some(newer);
            }
            if let Some(one) = told {
                let (took, at_s, at_ms) = (Seconds(one.took_ns), one.at_ms / 1000, one.at_ms % 1000);
                let _written = write!(out, r##" # {{trace_id="{:032x}"}} {took} {at_s}.{at_ms:03}"##, one.trace_id);
            }
            out.push('\n');
        }
        let sum = Seconds(self.took_ns.load(Ordering::Relaxed));
        let _written = writeln!(out, "palisade_request_duration_seconds_sum{{{labels}}} {sum}");
        let _written = writeln!(out, "palisade_request_duration_seconds_count{{{labels}}} {below}");
    }
}

/// Nanoseconds, written in seconds.
struct Seconds(u64);

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:09}", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}

/// A label's value as it is written between quotes.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// All flows of a process.
#[derive(Debug, Default)]
pub(crate) struct Flows {
    by_route: RwLock<HashMap<String, Vec<Arc<Flow>>>>,
}

impl Flows {
    /// Counts a request.
    pub(crate) fn count(&self, ended: &Ended<'_>) {
        let caller = node(ended.caller);
        let by_route = self.by_route.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(flow) = by_route.get(ended.route).and_then(|flows| flows.iter().find(|flow| flow.is(ended.point, caller))) {
            return flow.count(ended);
        }
        drop(by_route);
        self.first(ended, caller).count(ended);
    }

    /// The flow of a request that none of its kind was before.
    fn first(&self, ended: &Ended<'_>, caller: &str) -> Arc<Flow> {
        let mut by_route = self.by_route.write().unwrap_or_else(PoisonError::into_inner);
        let full = by_route.values().map(Vec::len).sum::<usize>() >= FLOWS_MAX;
        let (caller, route) = if full { (OTHERS, OTHERS) } else { (caller, ended.route) };
        let flows = by_route.entry(route.to_owned()).or_default();
        if let Some(there) = flows.iter().find(|flow| flow.is(ended.point, caller)) {
            return Arc::clone(there);
        }
        let flow = Flow::new(ended.point, caller, route);
        flows.push(Arc::clone(&flow));
        flow
    }

    /// Both families as OpenMetrics, without `# EOF`.
    pub(crate) fn write(&self, out: &mut String) {
        let mut all: Vec<Arc<Flow>> = self.by_route.read().unwrap_or_else(PoisonError::into_inner).values().flatten().cloned().collect();
        all.sort_by(|a, b| (a.point, &a.caller, &a.route).cmp(&(b.point, &b.caller, &b.route)));
        out.push_str("# HELP palisade_requests Requests answered.\n# TYPE palisade_requests counter\n");
        all.iter().for_each(|flow| flow.write_requests(out));
        out.push_str("# HELP palisade_request_duration_seconds Time from the head of a request to the end of its answer.\n");
        out.push_str("# TYPE palisade_request_duration_seconds histogram\n# UNIT palisade_request_duration_seconds seconds\n");
        all.iter().for_each(|flow| flow.write_durations(out));
    }
}

/// `service/api` of `spiffe://video.example/service/api`; words stay what they are.
fn node(caller: &str) -> &str {
    caller.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/')).map_or(caller, |(_, node)| node)
}

#[cfg(test)]
mod tests;
