//! Metrics: what a process counts, as OpenMetrics (J1). Rate, errors and duration of requests are in `flows`.

use std::fmt;
use std::sync::Mutex;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use trust::DenyReason;

use crate::flows::{Ended, Flows};
use crate::memo::Memo;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DecisionLabels {
    point: &'static str,
    action: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ShadowLabels {
    point: &'static str,
    action: String,
    decided: &'static str,
    would: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ActLabels {
    act: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct HostLabels {
    host: String,
}

/// A process's counters and histograms. Label values come from closed sets or from the manifest, never from a request's bytes.
pub struct Metrics {
    registry: Mutex<Registry>,
    decisions: Family<DecisionLabels, Counter>,
    decisions_of_late: Memo<DecisionLabels, Counter>,
    shadows: Family<ShadowLabels, Counter>,
    acts: Family<ActLabels, Counter>,
    flows: Flows,
    spans_dropped: Counter,
    access_lines_dropped: Counter,
    audit_waiting: Gauge,
    audit_spool_bytes: Gauge,
    certificate_ends: Family<HostLabels, Gauge>,
}

impl Metrics {
    /// Metrics with everything at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("palisade");
        let decisions = Family::default();
        registry.register("decisions", "Answers of enforcement points, by reason", Family::clone(&decisions));
        let shadows = Family::default();
        registry.register("shadow_decisions", "Answers beside those that policies in shadow would have given", Family::clone(&shadows));
        let acts = Family::default();
        registry.register("acts", "Acts that took effect", Family::clone(&acts));
        let spans_dropped = Counter::default();
        registry.register("spans_dropped", "Spans that could not be kept", Clone::clone(&spans_dropped));
        let access_lines_dropped = Counter::default();
        registry.register("access_lines_dropped", "Lines of the access log that could not be written", Clone::clone(&access_lines_dropped));
        let audit_waiting = Gauge::default();
        registry.register("audit_records_waiting", "Audit records that evidence does not have yet", Clone::clone(&audit_waiting));
        let audit_spool_bytes = Gauge::default();
        registry.register("audit_spool_bytes", "Size of the file in which audit records wait", Clone::clone(&audit_spool_bytes));
        let certificate_ends = Family::default();
        registry.register(
            "certificate_end_timestamp_seconds",
            "When the certificate ends that the public is shown for a host",
            Family::clone(&certificate_ends),
        );
        Self {
            registry: Mutex::new(registry),
            decisions,
            decisions_of_late: Memo::default(),
            shadows,
            acts,
            flows: Flows::default(),
            spans_dropped,
            access_lines_dropped,
            audit_waiting,
            audit_spool_bytes,
            certificate_ends,
        }
    }

    /// Counts an answer.
    pub fn decision(&self, point: &'static str, action: &str, denied: Option<DenyReason>) {
        let outcome = denied.map_or("allow", DenyReason::code);
        let is = |its: &DecisionLabels| its.outcome == outcome && its.action == action && its.point == point;
        let find = || {
            let labels = DecisionLabels { point, action: action.to_owned(), outcome };
            let counter = self.decisions.get_or_create(&labels).clone();
            (labels, counter)
        };
        self.decisions_of_late.get(is, find).inc();
    }

    /// Counts an answer beside the one that policies in shadow would have given.
    pub fn shadow(&self, point: &'static str, action: &str, allowed: bool, would_allow: bool) {
        let word = |allow| if allow { "allow" } else { "deny" };
        let labels = ShadowLabels { point, action: action.to_owned(), decided: word(allowed), would: word(would_allow) };
        self.shadows.get_or_create(&labels).inc();
    }

    /// Counts an act.
    pub fn act(&self, act: &'static str) {
        self.acts.get_or_create(&ActLabels { act }).inc();
    }

    /// Counts a request that has ended.
    pub fn request(&self, ended: &Ended<'_>) {
        self.flows.count(ended);
    }

    /// Counts a lost span.
    pub fn span_dropped(&self) {
        self.spans_dropped.inc();
    }

    /// Counts lost lines of the access log.
    pub fn access_lines_dropped(&self, lines: usize) {
        self.access_lines_dropped.inc_by(u64::try_from(lines).unwrap_or(u64::MAX));
    }

    /// Says how many audit records wait for `evidence`, and how many bytes their file has.
    pub fn audit_waiting(&self, records: usize, bytes: u64) {
        self.audit_waiting.set(i64::try_from(records).unwrap_or(i64::MAX));
        self.audit_spool_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Says when the certificate of a host of the manifest ends; zero: it has none yet.
    pub fn certificate_ends(&self, host: &str, not_after_s: u64) {
        let ends = self.certificate_ends.get_or_create(&HostLabels { host: host.to_owned() });
        ends.set(i64::try_from(not_after_s).unwrap_or(i64::MAX));
    }

    /// All of it as text (OpenMetrics).
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        if let Ok(registry) = self.registry.lock() {
            // Writing into a String does not fail; an encoder's error leaves the text empty, which a scraper reports.
            if encode(&mut text, &registry).is_err() {
                text.clear();
            }
        }
        if let Some(end) = text.rfind("# EOF") {
            text.truncate(end);
            self.flows.write(&mut text);
            text.push_str("# EOF\n");
        }
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}
