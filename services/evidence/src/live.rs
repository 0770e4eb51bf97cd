//! What is happening now: calls of the last minute from node to node, and when each process was last heard of. In memory alone.
//!
//! Guarantees: J10 in part: what the map compares with the declared flows comes from the decisions of enforcement points, which no
//!             service can leave out or make up for another.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use contract::console::{LiveFlow, ProcessHealth};
use contract::control::System;
use serde_json::Value;
use trust::{Span, SpiffeId};

use crate::index::reason_of;
use crate::index::search::node_of;
use crate::log::Entry;

/// Length of the window, in seconds.
pub const WINDOW_S: u64 = 60;
const PAIRS_PER_SECOND_MAX: usize = 512;
const PROCESSES_MAX: usize = 512;
/// A process that was not heard of for so long is forgotten, milliseconds.
const FORGET_MS: u64 = 24 * 3_600_000;

type Pair = (String, String);

#[derive(Debug, Default)]
struct Tally {
    allowed: u64,
    denied: u64,
    failed: u64,
    reasons: BTreeMap<&'static str, u64>,
    last_ms: u64,
}

/// The window.
#[derive(Debug, Default)]
pub struct Live {
    seconds: VecDeque<(u64, HashMap<Pair, Tally>)>,
    processes: BTreeMap<(String, String), ProcessHealth>,
    known: HashSet<String>,
    feeds: BTreeMap<String, Vec<String>>,
}

impl Live {
    /// Takes in what the system is, in order to tell buckets and queues apart from the roles that keep them.
    pub fn describe(&mut self, system: &System) {
        self.known = system.nodes.iter().map(|n| n.id.clone()).collect();
        self.feeds.clear();
        for flow in &system.flows {
            self.feeds.entry(flow.to.clone()).or_default().push(flow.from.clone());
        }
    }

    /// Counts the decision of an audit record.
    pub fn decided(&mut self, entry: &Entry) {
        let text = |name: &str| entry.record.fields.get(name).and_then(Value::as_str).unwrap_or_default();
        let principal = match entry.record.event.as_str() {
            "CallDecided" => text("principal"),
            "ConnectionRefused" => text("peer"),
            _ => return,
        };
        let (at, resource, reason) = (node_of(&entry.workload.to_string()), text("resource"), reason_of(&entry.record));
        // A call is decided more than once: on its way out, by the route's contract, and by the room that knows the bucket or queue.
        // Where it arrives, and as exactly as it is told there, it counts; refusals count wherever they are given.
        let on_the_way_out = text("point") == "guard.out";
        let told_again = matches!(at.as_str(), "role/objects" | "role/queue") && resource.contains(" /");
        if reason.is_empty() && (on_the_way_out || told_again) {
            return;
        }
        let at = match resource.split_once(' ') {
            Some((peer, _)) if on_the_way_out && peer.starts_with("spiffe://") => node_of(peer),
            _ => at,
        };
        let pair = self.pair(principal, &at, resource);
        let Some(tally) = self.tally(entry.record.at_ms, pair) else { return };
        tally.last_ms = tally.last_ms.max(entry.record.at_ms);
        if reason.is_empty() {
            tally.allowed = tally.allowed.saturating_add(1);
        } else {
            tally.denied = tally.denied.saturating_add(1);
            let count = tally.reasons.entry(reason).or_default();
            *count = count.saturating_add(1);
        }
    }

    /// Counts a failed request that `workload` answered.
    pub fn ended(&mut self, workload: &SpiffeId, span: &Span) {
        // `queue`'s own span of a delivery is the other end of one that the consumer's guard tells of.
        let ours = matches!(span.kind.as_str(), "server" | "consumer") && !(span.kind == "consumer" && workload.as_role() == Some("queue"));
        if span.status < 500 || !ours {
            return;
        }
        let text = |name: &str| span.attributes.get(name).and_then(Value::as_str).unwrap_or_default();
        let resource = [text("resource"), text("object"), text("queue")].into_iter().find(|t| !t.is_empty()).unwrap_or_default();
        let pair = self.pair(text("peer"), &node_of(&workload.to_string()), resource);
        if let Some(tally) = self.tally(span.end_ns / 1_000_000, pair) {
            tally.failed = tally.failed.saturating_add(1);
        }
    }

    /// Notes that a process was heard of.
    pub fn heard(&mut self, workload: &SpiffeId, process: &str, now_ms: u64, records: u64) {
        let key = (node_of(&workload.to_string()), process.to_owned());
        let full = self.processes.len() >= PROCESSES_MAX && !self.processes.contains_key(&key);
        let oldest = |all: &BTreeMap<_, ProcessHealth>| all.iter().min_by_key(|(_, p)| p.heard_ms).map(|(key, _)| Clone::clone(key));
        if let Some(oldest) = full.then(|| oldest(&self.processes)).flatten() {
            self.processes.remove(&oldest);
        }
        let health = ProcessHealth { workload: key.0.clone(), process: key.1.clone(), heard_ms: now_ms, records };
        self.processes.insert(key, health);
    }

    /// The window's calls, added up.
    #[must_use]
    pub fn flows(&self, now_ms: u64) -> Vec<LiveFlow> {
        let oldest = (now_ms / 1000).saturating_sub(WINDOW_S);
        let mut sums: BTreeMap<&Pair, LiveFlow> = BTreeMap::new();
        for (pair, tally) in self.seconds.iter().filter(|(second, _)| *second > oldest).flat_map(|(_, pairs)| pairs) {
            let sum = sums.entry(pair).or_insert_with(|| LiveFlow { from: pair.0.clone(), to: pair.1.clone(), ..LiveFlow::default() });
            sum.allowed = sum.allowed.saturating_add(tally.allowed);
            sum.denied = sum.denied.saturating_add(tally.denied);
            sum.failed = sum.failed.saturating_add(tally.failed);
            sum.last_ms = sum.last_ms.max(tally.last_ms);
            for (reason, count) in &tally.reasons {
                let total = sum.reasons.entry((*reason).to_owned()).or_default();
                *total = total.saturating_add(*count);
            }
        }
        sums.into_values().collect()
    }

    /// Processes heard of in the last day.
    #[must_use]
    pub fn processes(&self, now_ms: u64) -> Vec<ProcessHealth> {
        self.processes.values().filter(|p| now_ms.saturating_sub(p.heard_ms) < FORGET_MS).cloned().collect()
    }

    fn tally(&mut self, at_ms: u64, pair: Pair) -> Option<&mut Tally> {
        let second = at_ms / 1000;
        if self.seconds.back().is_none_or(|(newest, _)| *newest < second) {
            self.seconds.push_back((second, HashMap::new()));
            while self.seconds.front().is_some_and(|(oldest, _)| oldest.saturating_add(WINDOW_S) < second) {
                self.seconds.pop_front();
            }
        }
        // Records arrive in batches, so one may belong to an earlier second of the window.
        let (_, pairs) = self.seconds.iter_mut().rev().find(|(s, _)| *s <= second)?;
        if pairs.len() >= PAIRS_PER_SECOND_MAX && !pairs.contains_key(&pair) {
            return None;
        }
        Some(pairs.entry(pair).or_default())
    }

    /// The two nodes of a call: `objects` and `queue` stand for the bucket or queue that the call was about.
    fn pair(&self, principal: &str, at: &str, resource: &str) -> Pair {
        let data = |kind: &str| {
            let tokens = resource.split(['/', ':', '"', ' ', '?']).filter(|t| !t.is_empty());
            tokens.map(|t| format!("{kind}/{t}")).find(|id| self.known.contains(id))
        };
        let from = if principal.is_empty() { "unauthenticated".to_owned() } else { node_of(principal) };
        let to = match at {
            "role/objects" => data("bucket").unwrap_or_else(|| at.to_owned()),
            "role/queue" => data("queue").unwrap_or_else(|| at.to_owned()),
            _ => at.to_owned(),
        };
        // The two roles also speak for their buckets and queues: the declared flow into `to` says for which.
        let fed_by = |kind: &str| self.feeds.get(&to).and_then(|from| from.iter().find(|f| f.starts_with(kind))).cloned();
        let from = match from.as_str() {
            "role/queue" => data("queue").or_else(|| fed_by("queue/")).unwrap_or(from),
            "role/objects" => fed_by("bucket/").unwrap_or(from),
            _ => from,
        };
        (from, to)
    }
}

#[cfg(test)]
mod tests;
