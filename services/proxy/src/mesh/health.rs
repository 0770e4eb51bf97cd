//! Health: whether the guard's own service answers as it should, found out by asking it. While it does not, nothing is let in.
//!
//! The guard asks, and not the callers: it is the service's parent and has the way into its sandbox anyway, so asking is no way around
//! a policy, costs one small request on loopback whatever the number of callers, and each caller hears of it in the one place where it
//! would have asked, by an answer that says that this replica is out (`contract::guard::REPLICA_OUT_HEADER`). Nothing of a service's
//! answer goes anywhere.
//!
//! Guarantees: A15 active checks: a replica that hangs is out and comes back; one that was never well gets nothing.
//! Not here:   what callers make of it (`client::mesh`).

use std::sync::Arc;
use std::time::Duration;

use contract::body;
use contract::control::{HealthProfile, Protocol, ServiceProfile};
use http::{HeaderMap, HeaderValue, Request, header};
use telemetry::event::ActDone;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Guard;
use crate::client::CallFailed;
use crate::passage::Passage;

/// Of an answer so much is read, so that its connection can be used again.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Whether the service is well, and whether it may be asked anything at all.
#[derive(Debug)]
pub(super) struct Health {
    standing: watch::Sender<Standing>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Standing {
    is_in: bool,
    is_contained: bool,
}

impl Default for Health {
    fn default() -> Self {
        Self { standing: watch::channel(Standing::default()).0 }
    }
}

impl Health {
    /// Whether requests may go to it.
    pub(super) fn lets_in(&self, service: &ServiceProfile) -> bool {
        service.health.is_none() || self.standing.borrow().is_in
    }

    /// Waits until the service is contained, or found to be out if it `is_asked`, and says what that means for who waits.
    pub(super) async fn went_out(&self, is_asked: bool) -> CallFailed {
        let mut standing = self.standing.subscribe();
        let found = standing.wait_for(|now| now.is_contained || (is_asked && !now.is_in)).await.map(|now| now.is_contained);
        match found {
            Ok(true) => CallFailed::Contained,
            Ok(false) => CallFailed::ReplicaOut,
            Err(_) => std::future::pending().await,
        }
    }

    fn found(&self, is_in: bool) {
        self.standing.send_modify(|now| now.is_in = is_in);
    }
}

/// Says that this replica is out.
pub(super) fn mark(fields: &mut HeaderMap) {
    fields.insert(contract::guard::REPLICA_OUT_HEADER, HeaderValue::from_static("1"));
}

impl Guard {
    /// Answers whatever waits for the service, which is contained and will not.
    pub fn cut(&self) {
        self.health.standing.send_modify(|now| now.is_contained = true);
    }

    /// Asks the service as its view says, until `stop`.
    pub async fn probe(self: Arc<Self>, stop: CancellationToken) {
        let mut found = Found::default();
        let mut views = self.views.changed();
        loop {
            let Some(declared) = self.declared_health() else {
                // It has been taking requests unasked; when it is to be asked, it is out only once it is found to be.
                found = Found { is_in: true, ever: true, row: 0 };
                self.health.found(true);
                tokio::select! {
                    changed = views.changed() => if changed.is_err() { return },
                    () = stop.cancelled() => return,
                }
                continue;
            };
            let is_well = self.is_well(&declared).await;
            if let Some(is_in) = found.note(is_well, &declared) {
                self.health.found(is_in);
                let act = if is_in { "service.healthy" } else { "service.unhealthy" };
                let to = self.identity.id().workload.name().to_owned();
                // It is in or out whether or not this is kept.
                let _recorded = self.recorder.record(None, &ActDone { act, by: "guard".to_owned(), to, detail: declared.path.clone() });
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(declared.interval_ms)) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Waits until the service may be sent requests: at once where it is not asked.
    pub async fn well(&self) {
        if self.declared_health().is_some() {
            let mut standing = self.health.standing.subscribe();
            // It lasts as long as we do.
            let _is_in = standing.wait_for(|now| now.is_in).await;
        }
    }

    fn declared_health(&self) -> Option<HealthProfile> {
        self.views.last()?.view.service.as_ref()?.health.clone()
    }

    async fn is_well(&self, declared: &HealthProfile) -> bool {
        let request = Request::builder()
            .uri(declared.path.as_str())
            .header(header::HOST, self.identity.id().workload.name())
            .header(header::USER_AGENT, "palisade-health")
            .body(body::empty());
        let Ok(request) = request else { return false };
        let asked = async {
            let answer = self.service.send(request, Protocol::Http).await.ok()?;
            let status = answer.status();
            body::collect(Passage::new(answer.into_body()).into_body(), ANSWER_BYTES_MAX).await.ok()?;
            Some(status.is_success())
        };
        tokio::time::timeout(Duration::from_millis(declared.timeout_ms), asked).await.ok().flatten().unwrap_or(false)
    }
}

/// What was found so far.
#[derive(Debug, Default)]
struct Found {
    is_in: bool,
    /// Whether it was ever well.
    ever: bool,
    /// Answers in a row that say the opposite.
    row: u32,
}

impl Found {
    /// Notes an answer; says when it goes out or comes back.
    fn note(&mut self, is_well: bool, declared: &HealthProfile) -> Option<bool> {
        if is_well == self.is_in {
            self.row = 0;
            return None;
        }
        self.row = self.row.saturating_add(1);
        let needed = match (self.is_in, self.ever) {
            (true, _) => declared.unhealthy,
            (false, true) => declared.healthy,
            (false, false) => 1,
        };
        if self.row < needed {
            return None;
        }
        *self = Self { is_in: is_well, ever: self.ever || is_well, row: 0 };
        Some(is_well)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    // A15
    #[test]
    fn it_is_in_after_its_first_good_answer_and_out_and_back_after_so_many_in_a_row() {
        let declared = HealthProfile { path: "/h".into(), interval_ms: 1, timeout_ms: 1, unhealthy: 3, healthy: 2 };
        let mut found = Found::default();
        let said: Vec<Option<bool>> = "00101100100010110001".chars().map(|answer| found.note(answer == '1', &declared)).collect();
        let changes: Vec<(usize, bool)> = said.iter().enumerate().filter_map(|(at, said)| Some((at, (*said)?))).collect();
        // In at the first 1; out at the third 0 in a row; back at the second 1 in a row; out again.
        assert_eq!(changes, [(2, true), (11, false), (15, true), (18, false)]);
    }
}
