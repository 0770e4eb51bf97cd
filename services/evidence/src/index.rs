//! The index: traces, spans, log lines and a searchable copy of the audit records, in SQLite, bounded by age and number.
//!
//! The copy of the audit records is a cache: the log is the truth, and the copy is made up from it at every start.
//!
//! Guarantees: J3 (one trace from browser to rendition), J4 (the decision at each hop), J9 (refusals per hour).

mod keep;
pub mod search;

use std::path::Path;

use serde_json::Value;
use state::sqlx::Row;
use state::{Migration, StateError, Store, int, sqlx, uint};
use trust::{DenyReason, Span, SpiffeId};

use crate::log::Entry;

const SCHEMA: &[Migration] = &[
    Migration {
        version: 1,
        name: "traces and the copy of the audit log",
        sql: "
CREATE TABLE span (
  trace TEXT NOT NULL, span TEXT NOT NULL, parent TEXT NOT NULL, name TEXT NOT NULL, kind TEXT NOT NULL,
  start_ns INTEGER NOT NULL, end_ns INTEGER NOT NULL, status INTEGER NOT NULL,
  workload TEXT NOT NULL, process TEXT NOT NULL, attributes TEXT NOT NULL,
  PRIMARY KEY (trace, span, workload)) STRICT, WITHOUT ROWID;
CREATE TABLE trace (
  trace TEXT PRIMARY KEY, start_ns INTEGER NOT NULL, end_ns INTEGER NOT NULL, name TEXT NOT NULL, workload TEXT NOT NULL,
  status INTEGER NOT NULL, user TEXT NOT NULL, spans INTEGER NOT NULL, failed INTEGER NOT NULL, denied INTEGER NOT NULL) STRICT;
CREATE INDEX trace_by_start ON trace (start_ns DESC);
CREATE TABLE trace_key (key TEXT NOT NULL, trace TEXT NOT NULL, PRIMARY KEY (key, trace)) STRICT, WITHOUT ROWID;
CREATE INDEX trace_key_by_trace ON trace_key (trace);
CREATE TABLE line (
  id INTEGER PRIMARY KEY, trace TEXT NOT NULL, at_ns INTEGER NOT NULL, workload TEXT NOT NULL, severity TEXT NOT NULL, body TEXT NOT NULL
) STRICT;
CREATE INDEX line_by_trace ON line (trace);
CREATE TABLE record (
  n INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, workload TEXT NOT NULL, process TEXT NOT NULL, seq INTEGER NOT NULL,
  event TEXT NOT NULL, trace TEXT NOT NULL, span TEXT NOT NULL, reason TEXT NOT NULL, who TEXT NOT NULL, fields TEXT NOT NULL) STRICT;
CREATE INDEX record_by_trace ON record (trace);
CREATE INDEX record_by_reason ON record (reason, n);
CREATE TABLE taken (workload TEXT NOT NULL, process TEXT NOT NULL, seq INTEGER NOT NULL, n INTEGER NOT NULL,
  PRIMARY KEY (workload, process)) STRICT, WITHOUT ROWID;
",
    },
    Migration {
        version: 2,
        name: "which traces have their first span",
        sql: "ALTER TABLE trace ADD COLUMN root INTEGER NOT NULL DEFAULT 0;",
    },
];

/// What is kept at most.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// Age of traces and of the searchable copy of audit records, seconds. The audit log itself is kept.
    pub age_s: u64,
    /// Spans.
    pub spans: u64,
    /// Copies of audit records.
    pub records: u64,
}

/// Process name under which spans that services told by OTLP are kept; no process of Palisade may have it.
pub const OTLP_PROCESS: &str = "otlp";
/// Longest text of a span or log line that is kept, in bytes.
pub const TEXT_BYTES_MAX: usize = 1024;
/// Attributes of a span.
pub const ATTRIBUTES_MAX: usize = 64;
const KEYS_PER_SPAN_MAX: usize = 16;

/// A log line to keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Trace, or empty.
    pub trace: String,
    /// Nanoseconds since the epoch.
    pub at_ns: u64,
    /// `INFO`, `ERROR`…
    pub severity: String,
    /// The line.
    pub body: String,
}

/// Spans, and who told of them.
#[derive(Debug, Clone)]
pub struct ToldSpans {
    /// Who.
    pub workload: SpiffeId,
    /// Which of its processes.
    pub process: String,
    /// What.
    pub spans: Vec<Span>,
}

/// The database.
#[derive(Debug, Clone)]
pub struct Index {
    store: Store,
}

impl Index {
    /// Opens or makes it.
    ///
    /// # Errors
    /// Those of `Store::open`.
    pub async fn open(path: &Path) -> Result<Self, StateError> {
        Ok(Self { store: Store::open_copies(path, SCHEMA).await? })
    }

    /// Keeps everybody from writing until it is dropped, as a disk that hangs does.
    #[cfg(test)]
    pub(crate) async fn hold(&self) -> state::WriteTxn {
        self.store.write().await.expect("nobody else writes")
    }

    /// Number of the last audit record copied.
    ///
    /// # Errors
    /// `Sql`.
    pub async fn copied(&self) -> Result<u64, StateError> {
        let row = sqlx::query("SELECT coalesce(max(n), 0) FROM (SELECT max(n) AS n FROM record UNION ALL SELECT max(n) FROM taken)")
            .fetch_one(self.store.reader())
            .await?;
        Ok(uint(row.try_get(0)?))
    }

    /// How far each process's records were taken, as of `copied`.
    ///
    /// # Errors
    /// `Sql`.
    pub async fn taken(&self) -> Result<Vec<(SpiffeId, String, u64, u64)>, StateError> {
        let rows = sqlx::query("SELECT workload, process, seq, n FROM taken ORDER BY n").fetch_all(self.store.reader()).await?;
        let mut all = Vec::with_capacity(rows.len());
        for row in rows {
            if let Ok(workload) = row.try_get::<String, _>(0)?.parse() {
                all.push((workload, row.try_get(1)?, uint(row.try_get(2)?), uint(row.try_get(3)?)));
            }
        }
        Ok(all)
    }

    /// Lets go of all copies of audit records: they are of another log.
    ///
    /// # Errors
    /// `Sql`.
    pub async fn clear_records(&self) -> Result<(), StateError> {
        let mut txn = self.store.write().await?;
        sqlx::query("DELETE FROM record").execute(&mut *txn).await?;
        sqlx::query("DELETE FROM taken").execute(&mut *txn).await?;
        Ok(txn.commit().await?)
    }

    /// Copies audit records.
    ///
    /// # Errors
    /// `Sql`.
    pub async fn copy(&self, entries: &[Entry]) -> Result<(), StateError> {
        let mut txn = self.store.write().await?;
        keep::records(&mut txn, entries).await?;
        Ok(txn.commit().await?)
    }

    /// Keeps spans that `workload` told of. A span told twice is kept once. How many were new.
    ///
    /// # Errors
    /// `Sql`.
    #[cfg(test)]
    pub async fn spans(&self, workload: &SpiffeId, process: &str, spans: &[Span]) -> Result<u64, StateError> {
        let told = ToldSpans { workload: workload.clone(), process: process.to_owned(), spans: spans.to_vec() };
        self.spans_of_all(&[told]).await
    }

    /// Keeps what several workloads told, in one transaction. A span told twice is kept once. How many were new.
    ///
    /// # Errors
    /// `Sql`: none is kept then.
    pub async fn spans_of_all(&self, told: &[ToldSpans]) -> Result<u64, StateError> {
        let mut new = 0_u64;
        let mut txn = self.store.write().await?;
        for one in told {
            new = new.saturating_add(keep::spans(&mut txn, one).await?);
        }
        txn.commit().await?;
        Ok(new)
    }

    /// Keeps log lines that `workload` told of.
    ///
    /// # Errors
    /// `Sql`.
    pub async fn lines(&self, workload: &SpiffeId, lines: &[LogLine]) -> Result<(), StateError> {
        let mut txn = self.store.write().await?;
        keep::lines(&mut txn, workload, lines).await?;
        Ok(txn.commit().await?)
    }

    /// Lets go of what is older or more than is kept, a step of it; whether there may be more.
    ///
    /// # Errors
    /// `Sql`.
    pub async fn forget(&self, retention: &Retention, now_ms: u64) -> Result<bool, StateError> {
        // In steps of a bounded size, oldest first, so that no writer waits long.
        const STEP: i64 = 5_000;
        let oldest_ms = now_ms.saturating_sub(retention.age_s.saturating_mul(1000));
        let oldest_ns = int(oldest_ms.saturating_mul(1_000_000));
        let mut txn = self.store.write().await?;
        let total: i64 = sqlx::query("SELECT coalesce(sum(spans), 0) FROM trace").fetch_one(&mut *txn).await?.try_get(0)?;
        let mut over = total.saturating_sub(int(retention.spans));
        let traces =
            sqlx::query("SELECT trace, spans, end_ns FROM trace ORDER BY start_ns, trace LIMIT ?").bind(STEP).fetch_all(&mut *txn).await?;
        let mut gone = Vec::new();
        for row in traces {
            let (trace, spans, end_ns): (String, i64, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            if over <= 0 && end_ns >= oldest_ns {
                continue;
            }
            over = over.saturating_sub(spans);
            gone.push(trace);
        }
        // Whole traces go.
        keep::let_go(&mut txn, &gone).await?;
        let lines = sqlx::query("DELETE FROM line WHERE id IN (SELECT id FROM line ORDER BY id LIMIT ?3) AND (at_ns < ?1 OR id <= (SELECT max(id) FROM line) - ?2)")
            .bind(oldest_ns)
            .bind(int(retention.spans))
            .bind(STEP)
            .execute(&mut *txn)
            .await?;
        let records = sqlx::query("DELETE FROM record WHERE n IN (SELECT n FROM record ORDER BY n LIMIT ?3) AND (at_ms < ?1 OR n <= (SELECT max(n) FROM record) - ?2)")
            .bind(int(oldest_ms))
            .bind(int(retention.records))
            .bind(STEP)
            .execute(&mut *txn)
            .await?;
        sqlx::query("DELETE FROM taken WHERE n < (SELECT n FROM (
  SELECT n, row_number() OVER (PARTITION BY workload ORDER BY n DESC) AS place, workload AS w FROM taken) WHERE place = 256 AND w = taken.workload)")
            .execute(&mut *txn).await?;
        txn.commit().await?;
        Ok(i64::try_from(gone.len()).unwrap_or(i64::MAX) >= STEP
            || [lines, records].iter().any(|done| done.rows_affected() >= STEP.unsigned_abs()))
    }
}

/// The reason of a refusal that a record tells of, or empty.
#[must_use]
pub fn reason_of(record: &trust::AuditRecord) -> &'static str {
    let denied = record.fields.get("decision").and_then(|d| d.get("deny")).and_then(|d| d.get("reason"));
    let code = denied.or_else(|| record.fields.get("reason")).and_then(Value::as_str).unwrap_or_default();
    DenyReason::ALL.iter().map(|reason| reason.code()).find(|known| *known == code).unwrap_or_default()
}

/// What a trace can be looked up by: segments of objects, folders, jobs and paths that its spans name.
fn keys_of(span: &Span) -> Vec<String> {
    const NAMES: [&str; 10] = ["object", "objects", "folder", "inputs", "input", "job", "resource", "path", "url.path", "video"];
    let texts = NAMES.iter().filter_map(|name| span.attributes.get(*name)).flat_map(|value| match value {
        Value::String(text) => vec![text.as_str()],
        Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    });
    let segments = texts.flat_map(|text| text.split(['/', ' ', ',', '?'])).filter(|s| (8..=64).contains(&s.len()));
    segments.map(str::to_owned).take(KEYS_PER_SPAN_MAX).collect()
}

fn bounded(attributes: &serde_json::Map<String, Value>) -> serde_json::Map<String, Value> {
    const SECRET: [&str; 6] = ["authorization", "cookie", "token", "password", "secret", "signature"];
    let keep = |(name, value): (&String, &Value)| {
        let lower = name.to_ascii_lowercase();
        let value = match value {
            _ if SECRET.iter().any(|s| lower.contains(s)) => Value::from("redacted"),
            Value::String(text) => Value::from(cut(text)),
            Value::Array(_) | Value::Object(_) if value.to_string().len() > TEXT_BYTES_MAX => Value::from(cut(&value.to_string())),
            other => other.clone(),
        };
        (cut(name), value)
    };
    attributes.iter().take(ATTRIBUTES_MAX).map(keep).collect()
}

fn cut(text: &str) -> String {
    text.get(..text.floor_char_boundary(TEXT_BYTES_MAX)).unwrap_or(text).to_owned()
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests;
