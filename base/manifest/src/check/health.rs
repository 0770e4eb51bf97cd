//! How services are found to be well: only those that run all the time and can be asked.

use super::{Check, services};
use crate::model::{Fresh, Health, Protocol, Replicas};
use crate::written;

/// Shortest pause between two questions.
const INTERVAL_MS_MIN: u64 = 100;

impl Check<'_, '_, '_> {
    pub(super) fn health(&mut self, name: &str, w: &written::Service, fresh: Fresh, replicas: &Replicas) -> Option<Health> {
        let health = w.health.as_ref()?;
        let at = |key| ["service", name, "health", key];
        let against = if w.protocol != Protocol::Http {
            Some("only a service with protocol = \"http\" can be asked")
        } else if fresh == Fresh::Job {
            Some("each of its jobs gets a sandbox of its own, so there is nothing to ask in between")
        } else if replicas.min != replicas.max {
            Some(
                "those of its replicas that start only when there is work would be started by being asked; write replicas = { min = N, max = N }",
            )
        } else {
            None
        };
        if let Some(why) = against {
            self.document.problem(&["service", name, "health"], why, None);
        }
        if let Err(why) = services::is_template(&health.path) {
            self.document.problem(&at("path"), why, None);
        } else if health.path.contains('{') {
            self.document.problem(&at("path"), "one path, without names in braces", None);
        }
        let interval_ms = health.interval.map_or(5_000, |d| d.0);
        if interval_ms < INTERVAL_MS_MIN {
            self.document.problem(&at("interval"), format!("at least \"{INTERVAL_MS_MIN}ms\""), None);
        }
        Some(Health {
            path: health.path.clone(),
            interval_ms,
            timeout_ms: health.timeout.map_or(1_000, |d| d.0),
            unhealthy: health.unhealthy.unwrap_or(3),
            healthy: health.healthy.unwrap_or(2),
        })
    }
}
