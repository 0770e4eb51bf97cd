//! Questions to the index: traces, one trace, audit records, refusals per hour.

use std::collections::BTreeSet;

use contract::console::{AuditFilter, RefusalCount, StoredLog, StoredRecord, StoredSpan, TraceDetail, TraceFilter, TraceSummary};
use contract::evidence::Source;
use state::sqlx::sqlite::SqliteRow;
use state::sqlx::{QueryBuilder, Row, Sqlite};
use state::{StateError, int, sqlx, uint};
use trust::{AuditRecord, Span};

use super::Index;

const SPANS_PER_TRACE_MAX: i64 = 2_000;
const HOUR_MS: u64 = 3_600_000;

impl Index {
    /// Traces, newest first.
    ///
    /// # Errors
    /// `Sql`.
    pub async fn traces(&self, filter: &TraceFilter) -> Result<Vec<TraceSummary>, StateError> {
        let mut query = QueryBuilder::<Sqlite>::new(
            "SELECT trace, start_ns, end_ns, name, workload, status, user, spans, failed, denied,
             (SELECT group_concat(workload, ' ') FROM (SELECT workload FROM span s WHERE s.trace = trace.trace GROUP BY workload ORDER BY min(start_ns)))
             FROM trace WHERE 1 = 1",
        );
        if !filter.video.is_empty() {
            query.push(" AND trace IN (SELECT trace FROM trace_key WHERE key = ").push_bind(filter.video.clone()).push(")");
        }
        if filter.video.is_empty() && filter.user.is_empty() && !filter.troubled {
            // Looking at the console every two seconds would otherwise be most of what the list shows.
            query.push(" AND instr(name, '/console') = 0");
        }
        if !filter.user.is_empty() {
            query.push(" AND user = ").push_bind(filter.user.clone());
        }
        if filter.troubled {
            query.push(" AND (failed > 0 OR denied > 0)");
        }
        query.push(" ORDER BY start_ns DESC LIMIT ").push_bind(i64::from(filter.limit));
        query.build().fetch_all(self.store.reader()).await?.iter().map(summary).collect()
    }

    /// One trace, or nothing.
    ///
    /// # Errors
    /// `Sql`.
    pub async fn trace(&self, trace: &str) -> Result<Option<TraceDetail>, StateError> {
        let spans = sqlx::query(
            "SELECT trace, span, parent, name, kind, start_ns, end_ns, status, attributes, workload, process FROM span
             WHERE trace = ? ORDER BY start_ns, span LIMIT ?",
        )
        .bind(trace.to_owned())
        .bind(SPANS_PER_TRACE_MAX)
        .fetch_all(self.store.reader())
        .await?;
        let records = sqlx::query(
            "SELECT n, at_ms, workload, process, seq, event, trace, span, fields FROM record WHERE trace = ? ORDER BY n LIMIT ?",
        )
        .bind(trace.to_owned())
        .bind(SPANS_PER_TRACE_MAX)
        .fetch_all(self.store.reader())
        .await?;
        if spans.is_empty() && records.is_empty() {
            return Ok(None);
        }
        let lines = sqlx::query("SELECT workload, at_ns, severity, body FROM line WHERE trace = ? ORDER BY at_ns, id LIMIT 500")
            .bind(trace.to_owned())
            .fetch_all(self.store.reader())
            .await?;
        let spans = spans.iter().filter_map(|row| stored_span(row).transpose()).collect::<Result<_, _>>()?;
        let records = records.iter().filter_map(|row| stored_record(row).transpose()).collect::<Result<_, _>>()?;
        let logs = lines.iter().map(stored_log).collect::<Result<_, _>>()?;
        Ok(Some(TraceDetail { trace: trace.to_owned(), spans, records, logs }))
    }

    /// Which of these traces there is a span of.
    ///
    /// # Errors
    /// `Sql`.
    pub async fn kept(&self, traces: &BTreeSet<&str>) -> Result<BTreeSet<String>, StateError> {
        const CHUNK: usize = 500;
        let (all, mut kept) = (traces.iter().copied().collect::<Vec<_>>(), BTreeSet::new());
        for chunk in all.chunks(CHUNK) {
            let mut query = QueryBuilder::<Sqlite>::new("SELECT trace FROM trace WHERE trace IN (");
            let mut list = query.separated(",");
            for trace in chunk {
                list.push_bind((*trace).to_owned());
            }
            query.push(")");
            for row in query.build().fetch_all(self.store.reader()).await? {
                kept.insert(row.try_get(0)?);
            }
        }
        Ok(kept)
    }

    /// Audit records, newest first.
    ///
    /// # Errors
    /// `Sql`.
    pub async fn audit(&self, filter: &AuditFilter) -> Result<Vec<StoredRecord>, StateError> {
        let mut query =
            QueryBuilder::<Sqlite>::new("SELECT n, at_ms, workload, process, seq, event, trace, span, fields FROM record WHERE 1 = 1");
        if !filter.event.is_empty() {
            query.push(" AND event = ").push_bind(filter.event.clone());
        }
        if !filter.reason.is_empty() {
            query.push(" AND reason = ").push_bind(filter.reason.clone());
        }
        if filter.refused {
            query.push(" AND reason <> ''");
        }
        if !filter.who.is_empty() {
            query.push(" AND instr(who, ").push_bind(filter.who.clone()).push(") > 0");
        }
        if let Some(before) = filter.before {
            query.push(" AND n < ").push_bind(int(before));
        }
        query.push(" ORDER BY n DESC LIMIT ").push_bind(i64::from(filter.limit));
        let rows = query.build().fetch_all(self.store.reader()).await?;
        rows.iter().filter_map(|row| stored_record(row).transpose()).collect()
    }

    /// Refusals by hour and reason since `since_ms` (J9).
    ///
    /// # Errors
    /// `Sql`.
    pub async fn refusals(&self, since_ms: u64) -> Result<Vec<RefusalCount>, StateError> {
        let rows = sqlx::query(
            "SELECT at_ms / ?1 * ?1 AS hour, reason, count(*) FROM record WHERE reason > '' AND at_ms >= ?2 GROUP BY hour, reason ORDER BY hour, reason",
        )
        .bind(int(HOUR_MS))
        .bind(int(since_ms))
        .fetch_all(self.store.reader())
        .await?;
        rows.iter().map(|r| Ok(RefusalCount { hour_ms: uint(r.try_get(0)?), reason: r.try_get(1)?, count: uint(r.try_get(2)?) })).collect()
    }
}

/// The node id of the map for a SPIFFE ID's text: its path.
#[must_use]
pub fn node_of(workload: &str) -> String {
    workload.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/')).map_or(workload, |(_, path)| path).to_owned()
}

fn summary(row: &SqliteRow) -> Result<TraceSummary, StateError> {
    let workloads: Option<String> = row.try_get(10)?;
    Ok(TraceSummary {
        trace: row.try_get(0)?,
        start_ns: uint(row.try_get(1)?),
        end_ns: uint(row.try_get(2)?),
        name: row.try_get(3)?,
        workload: node_of(row.try_get(4)?),
        status: u16::try_from(row.try_get::<i64, _>(5)?).unwrap_or(0),
        user: row.try_get(6)?,
        spans: uint(row.try_get(7)?),
        failed: uint(row.try_get(8)?),
        denied: uint(row.try_get(9)?),
        workloads: workloads.unwrap_or_default().split_whitespace().map(node_of).collect(),
    })
}

fn source(workload: &str, process: String) -> Option<Source> {
    Some(Source { workload: workload.parse().ok()?, process })
}

fn stored_span(row: &SqliteRow) -> Result<Option<StoredSpan>, StateError> {
    let span = Span {
        trace: row.try_get(0)?,
        span: row.try_get(1)?,
        parent: row.try_get(2)?,
        name: row.try_get(3)?,
        kind: row.try_get(4)?,
        start_ns: uint(row.try_get(5)?),
        end_ns: uint(row.try_get(6)?),
        status: u16::try_from(row.try_get::<i64, _>(7)?).unwrap_or(0),
        attributes: serde_json::from_str(row.try_get(8)?).unwrap_or_default(),
    };
    Ok(source(row.try_get(9)?, row.try_get(10)?).map(|source| StoredSpan { source, span }))
}

fn stored_record(row: &SqliteRow) -> Result<Option<StoredRecord>, StateError> {
    let record = AuditRecord {
        seq: uint(row.try_get(4)?),
        at_ms: uint(row.try_get(1)?),
        event: row.try_get(5)?,
        trace: row.try_get(6)?,
        span: row.try_get(7)?,
        fields: serde_json::from_str(row.try_get(8)?).unwrap_or_default(),
    };
    let n = uint(row.try_get(0)?);
    Ok(source(row.try_get(2)?, row.try_get(3)?).map(|source| StoredRecord { n, source, record }))
}

fn stored_log(row: &SqliteRow) -> Result<StoredLog, StateError> {
    Ok(StoredLog { workload: node_of(row.try_get(0)?), at_ns: uint(row.try_get(1)?), severity: row.try_get(2)?, body: row.try_get(3)? })
}
