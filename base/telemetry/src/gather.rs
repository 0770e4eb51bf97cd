//! Gathering: a flood of refusals grows the audit log slowly, and is accounted for to the last one.
//!
//! Whoever may only be refused may still ask, and each refusal is a record. So refusals have a rate (GCRA) for each point and principal:
//! up to it each has its record, past it they are counted, and the count is one record a second. What a flood can add to the log in a
//! second is bounded; the sum of what is recorded singly and of what was gathered is exactly what was refused. A process that is killed
//! loses the counts of its last second; what was counted there was refused all the same. Metrics count each one as ever.
//!
//! Guarantees: A13 for the log's growth; J7 nothing is left out silently.
//! Not here:   what is allowed: that always has its own record, before it takes effect.

use std::collections::BTreeMap;

use crate::event::RefusalsGathered;

/// Refusals of one principal at one point that are recorded singly, a second, over time.
pub const SINGLY_EACH_S: u64 = 20;
/// And at once after a pause.
pub const SINGLY_BURST: u64 = 1_000;
/// How long refusals past that are counted before the count is recorded, in milliseconds.
pub const GATHER_MS: u64 = 1_000;
/// Principals that are told apart at the same time; what claims to be yet another is counted as `OTHERS`. (Who is refused at a handshake
/// can claim any name.)
pub const PRINCIPALS_MAX: usize = 256;
/// Stands for all principals past `PRINCIPALS_MAX`.
pub const OTHERS: &str = "(others)";

const EACH_MS: u64 = 1_000 / SINGLY_EACH_S;

/// A point, a principal, and the event's name.
type Key = (&'static str, String, &'static str);

#[derive(Debug, Default)]
struct Counted {
    /// When the next one would be due at the steady rate (GCRA's theoretical arrival time), on the monotonic clock.
    due_ms: u64,
    /// Not recorded yet, and since when.
    waiting: u64,
    since_ms: u64,
}

/// The counts.
#[derive(Debug, Default)]
pub(crate) struct Gather {
    counted: BTreeMap<Key, Counted>,
}

impl Gather {
    /// One more refusal: whether it is recorded singly. If not, it is counted now.
    pub(crate) fn singly(&mut self, point: &'static str, principal: &str, event: &'static str, now_ms: u64) -> bool {
        let mut key = (point, principal.to_owned(), event);
        if self.counted.len() >= PRINCIPALS_MAX && !self.counted.contains_key(&key) {
            // Whoever has been quiet for long enough has its whole allowance again: forgetting it changes nothing.
            self.counted.retain(|_, one| one.waiting > 0 || one.due_ms > now_ms);
            if self.counted.len() >= PRINCIPALS_MAX {
                key = (point, OTHERS.to_owned(), event);
            }
        }
        let one = self.counted.entry(key).or_default();
        let due_ms = one.due_ms.max(now_ms);
        if due_ms.saturating_sub(now_ms) < SINGLY_BURST.saturating_mul(EACH_MS) {
            one.due_ms = due_ms.saturating_add(EACH_MS);
            return true;
        }
        if one.waiting == 0 {
            one.since_ms = now_ms;
        }
        one.waiting = one.waiting.saturating_add(1);
        false
    }

    /// Counts that have waited for `GATHER_MS`, or all of them. They stay until `told`.
    pub(crate) fn due(&self, now_ms: u64, all: bool) -> Vec<RefusalsGathered> {
        let ready = |one: &Counted| one.waiting > 0 && (all || now_ms.saturating_sub(one.since_ms) >= GATHER_MS);
        let event = |((point, principal, of), one): (&Key, &Counted)| RefusalsGathered {
            point,
            principal: principal.clone(),
            of,
            count: one.waiting,
        };
        self.counted.iter().filter(|(_, one)| ready(one)).map(event).collect()
    }

    /// A count is recorded.
    pub(crate) fn told(&mut self, event: &RefusalsGathered) {
        if let Some(one) = self.counted.get_mut(&(event.point, event.principal.clone(), event.of)) {
            one.waiting = one.waiting.saturating_sub(event.count);
        }
    }

    /// Whether anything waits.
    pub(crate) fn waits(&self) -> bool {
        self.counted.values().any(|one| one.waiting > 0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use trust::{Clock, DenyReason, SystemEntropy};

    use super::*;
    use crate::event::ConnectionRefused;
    use crate::{MemorySink, Metrics, Recorder};

    #[derive(Debug, Default)]
    struct HandClock(AtomicU64);

    impl Clock for HandClock {
        fn unix_ms(&self) -> u64 {
            self.0.load(Ordering::SeqCst)
        }
        fn monotonic(&self) -> Duration {
            Duration::from_millis(self.unix_ms())
        }
    }

    fn world() -> (Arc<HandClock>, Arc<MemorySink>, Recorder) {
        let (clock, sink) = (Arc::new(HandClock::default()), Arc::new(MemorySink::default()));
        clock.0.store(1_000_000, Ordering::SeqCst);
        let recorder = Recorder::new(sink.clone(), clock.clone(), SystemEntropy::shared(), Arc::new(Metrics::new()));
        (clock, sink, recorder)
    }

    fn refuse(recorder: &Recorder, peer: &str) {
        let event = ConnectionRefused { point: "guard", peer: peer.to_owned(), reason: DenyReason::SvidUntrusted };
        recorder.record(None, &event).unwrap();
    }

    fn counts(sink: &MemorySink) -> (usize, u64) {
        let audit = sink.audit.lock().unwrap();
        let gathered = audit.iter().filter(|r| r.event == "RefusalsGathered").map(|r| r.fields["count"].as_u64().unwrap()).sum();
        (audit.iter().filter(|r| r.event == "ConnectionRefused").count(), gathered)
    }

    // A13, J7: up to the rate each has its record; past it they are a number a second, and none is missing.
    #[test]
    fn a_flood_of_refusals_is_recorded_as_a_number_and_none_is_missing() {
        let (clock, sink, recorder) = world();
        for _ in 0..SINGLY_BURST {
            refuse(&recorder, "spiffe://x/service/a");
        }
        assert_eq!(counts(&sink), (1_000, 0), "just below: each has its own");
        for _ in 0..50_000 {
            refuse(&recorder, "spiffe://x/service/a");
        }
        refuse(&recorder, "spiffe://x/service/b");
        assert_eq!(counts(&sink), (1_001, 0), "another's refusal is not lost in the flood");
        clock.0.fetch_add(GATHER_MS - 1, Ordering::SeqCst);
        recorder.tell_gathered(false);
        assert_eq!(counts(&sink), (1_001, 0));
        clock.0.fetch_add(1, Ordering::SeqCst);
        refuse(&recorder, "spiffe://x/service/b");
        assert_eq!(counts(&sink), (1_002, 50_000), "told by whatever is recorded next");
        recorder.tell_gathered(true);
        assert_eq!(counts(&sink), (1_002, 50_000), "and once");
        clock.0.fetch_add(1_000, Ordering::SeqCst);
        for _ in 0..100 {
            refuse(&recorder, "spiffe://x/service/a");
        }
        let (single, _) = counts(&sink);
        assert!((1_002 + 20..=1_002 + 40).contains(&single), "the steady rate: {single}");
        recorder.tell_gathered(true);
        let (single, gathered) = counts(&sink);
        assert_eq!(single as u64 + gathered, 1_002 + 50_000 + 100);
        assert!(recorder.metrics().render().contains(" 51102"), "metrics count each one");
    }

    // A13: names that a stranger makes up do not take memory, nor a record each.
    #[test]
    fn invented_names_are_counted_together() {
        let (clock, sink, recorder) = world();
        for n in 0..20_000 {
            refuse(&recorder, &format!("spiffe://x/service/n{n}"));
        }
        let (single, _) = counts(&sink);
        assert!(single < 2_000, "{single}");
        recorder.tell_gathered(true);
        let (single, gathered) = counts(&sink);
        assert_eq!(single as u64 + gathered, 20_000);
        // Time passes: the names are forgotten, and a new one is told apart again.
        clock.0.fetch_add(60_000_000, Ordering::SeqCst);
        refuse(&recorder, "spiffe://x/service/new");
        assert_eq!(counts(&sink).0, single + 1);
    }

    // J7: a count that could not be kept waits.
    #[test]
    fn a_count_that_cannot_be_kept_is_told_later() {
        #[derive(Debug, Default)]
        struct Full(AtomicU64, MemorySink);
        impl crate::Sink for Full {
            fn audit(&self, record: crate::NewRecord<'_>) -> Result<(), crate::AuditLost> {
                if self.0.load(Ordering::SeqCst) == 1 { Err(crate::AuditLost) } else { self.1.audit(record) }
            }
            fn span(&self, _span: crate::NewSpan<'_>) {}
        }
        let (clock, sink) = (Arc::new(HandClock::default()), Arc::new(Full::default()));
        let recorder = Recorder::new(sink.clone(), clock, SystemEntropy::shared(), Arc::new(Metrics::new()));
        for _ in 0..SINGLY_BURST + 7 {
            refuse(&recorder, "a");
        }
        sink.0.store(1, Ordering::SeqCst);
        recorder.tell_gathered(true);
        sink.0.store(0, Ordering::SeqCst);
        assert_eq!(counts(&sink.1).1, 0);
        recorder.tell_gathered(true);
        assert_eq!(counts(&sink.1).1, 7);
    }
}
