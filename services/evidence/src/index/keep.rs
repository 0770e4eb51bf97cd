//! Keeping: rows that come many at a time are written by few statements, each of many rows.
//!
//! A statement costs a change of thread and back, which is more than the row itself; so rows are gathered first, and what several of them
//! say of one trace is put together here.
//!
//! Spec:       SQLite, "INSERT", "UPSERT", "Row Values".
//! Guarantees: J3: a span told twice is kept once; whatever the order they come in, a trace has the same name and sums.
//! Not here:   finding (`search`), how much is kept (`Index::forget`).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use state::sqlx::query_builder::Separated;
use state::sqlx::{QueryBuilder, Row, Sqlite};
use state::{StateError, WriteTxn, int, sqlx};
use trust::{Span, SpiffeId};

use super::{LogLine, OTLP_PROCESS, ToldSpans, bounded, cut, is_hex, keys_of, reason_of};
use crate::log::Entry;

/// Rows of one statement, at most. The numbers of rows are powers of two, so that there are few statements to keep prepared.
const ROWS_MAX: usize = 64;

/// What spans of one call say of a trace.
#[derive(Debug)]
struct Told<'a> {
    /// Gives the trace its name.
    first: &'a Span,
    start_ns: u64,
    end_ns: u64,
    user: &'a str,
    spans: i64,
    failed: i64,
}

impl<'a> Told<'a> {
    fn new(span: &'a Span) -> Self {
        Self { first: span, start_ns: span.start_ns, end_ns: span.end_ns, user: "", spans: 0, failed: 0 }
    }

    fn add(&mut self, span: &'a Span, user: &'a str) {
        // The span that begins the trace gives it its name: the one without a parent, else the earliest.
        let later = |span: &Span| (!span.parent.is_empty(), span.start_ns);
        if later(span) < later(self.first) {
            self.first = span;
        }
        self.start_ns = self.start_ns.min(span.start_ns);
        self.end_ns = self.end_ns.max(span.end_ns);
        if self.user.is_empty() {
            self.user = user;
        }
        self.spans = self.spans.saturating_add(1);
        self.failed = self.failed.saturating_add(i64::from(span.status >= 500));
    }
}

/// Keeps what one workload told; how many spans were new.
pub(super) async fn spans(txn: &mut WriteTxn, told: &ToldSpans) -> Result<u64, StateError> {
    let ToldSpans { workload, process, spans } = told;
    let workload = workload.to_string();
    let mut rows: BTreeMap<(&str, &str), &Span> = BTreeMap::new();
    for span in spans.iter().filter(|span| is_hex(&span.trace, 32) && is_hex(&span.span, 16)) {
        rows.entry((&span.trace, &span.span)).or_insert(span);
    }
    let known = known(txn, &workload, rows.keys().copied().collect()).await?;
    if !known.is_empty() {
        rows.retain(|(trace, span), _| !known.contains(&((*trace).to_owned(), (*span).to_owned())));
    }
    let (mut traces, mut keys) = (BTreeMap::new(), BTreeSet::new());
    for span in rows.values() {
        // What a service says of itself names no person: only Palisade's own processes know who it was.
        let user = span.attributes.get("user").and_then(Value::as_str).filter(|_| process.as_str() != OTLP_PROCESS).unwrap_or_default();
        traces.entry(span.trace.as_str()).or_insert_with(|| Told::new(span)).add(span, user);
        keys.extend(keys_of(span).into_iter().map(|key| (key, span.trace.as_str())));
    }
    let rows: Vec<&Span> = rows.into_values().collect();
    let head = "INSERT INTO span (trace, span, parent, name, kind, start_ns, end_ns, status, workload, process, attributes) ";
    insert(txn, &rows, head, "", |values, span| {
        values.push_bind(span.trace.clone()).push_bind(span.span.clone()).push_bind(span.parent.clone());
        values.push_bind(cut(&span.name)).push_bind(cut(&span.kind)).push_bind(int(span.start_ns)).push_bind(int(span.end_ns));
        values.push_bind(i64::from(span.status)).push_bind(workload.clone()).push_bind(process.clone());
        values.push_bind(Value::Object(bounded(&span.attributes)).to_string());
    })
    .await?;
    tell_traces(txn, &workload, &traces).await?;
    let keys: Vec<(String, &str)> = keys.into_iter().collect();
    insert(txn, &keys, "INSERT OR IGNORE INTO trace_key (key, trace) ", "", |values, (key, trace)| {
        values.push_bind(key.clone()).push_bind((*trace).to_owned());
    })
    .await?;
    Ok(u64::try_from(rows.len()).unwrap_or(u64::MAX))
}

/// Which of these spans `workload` told of before.
async fn known(txn: &mut WriteTxn, workload: &str, spans: Vec<(&str, &str)>) -> Result<BTreeSet<(String, String)>, StateError> {
    let mut known = BTreeSet::new();
    for piece in pieces(&spans) {
        let mut query = QueryBuilder::<Sqlite>::new("SELECT trace, span FROM span WHERE (trace, span, workload) IN (");
        query.push_values(piece, |mut values, (trace, span)| {
            values.push_bind((*trace).to_owned()).push_bind((*span).to_owned()).push_bind(workload.to_owned());
        });
        query.push(")");
        for row in query.build().fetch_all(&mut **txn).await? {
            known.insert((row.try_get(0)?, row.try_get(1)?));
        }
    }
    Ok(known)
}

async fn tell_traces(txn: &mut WriteTxn, workload: &str, traces: &BTreeMap<&str, Told<'_>>) -> Result<(), StateError> {
    let rows: Vec<(&str, &Told<'_>)> = traces.iter().map(|(trace, told)| (*trace, told)).collect();
    let head = "INSERT INTO trace (trace, start_ns, end_ns, name, workload, status, root, user, spans, failed, denied) ";
    let tail = "
ON CONFLICT DO UPDATE SET
  name = CASE WHEN (excluded.root, -excluded.start_ns) > (root, -start_ns) THEN excluded.name ELSE name END,
  workload = CASE WHEN (excluded.root, -excluded.start_ns) > (root, -start_ns) THEN excluded.workload ELSE workload END,
  status = CASE WHEN (excluded.root, -excluded.start_ns) > (root, -start_ns) THEN excluded.status ELSE status END,
  root = max(root, excluded.root),
  start_ns = min(start_ns, excluded.start_ns), end_ns = max(end_ns, excluded.end_ns),
  user = CASE WHEN user = '' THEN excluded.user ELSE user END, spans = spans + excluded.spans, failed = failed + excluded.failed";
    insert(txn, &rows, head, tail, |values, (trace, told)| {
        let first = told.first;
        values.push_bind((*trace).to_owned()).push_bind(int(told.start_ns)).push_bind(int(told.end_ns));
        values.push_bind(cut(&first.name)).push_bind(workload.to_owned()).push_bind(i64::from(first.status));
        values.push_bind(first.parent.is_empty()).push_bind(cut(told.user)).push_bind(told.spans).push_bind(told.failed);
        values.push("(SELECT count(*) FROM record WHERE reason <> '' AND trace = ").push_bind_unseparated((*trace).to_owned());
        values.push_unseparated(")");
    })
    .await
}

/// Keeps copies of audit records. Those that are kept already are left as they are.
pub(super) async fn records(txn: &mut WriteTxn, entries: &[Entry]) -> Result<(), StateError> {
    let head = "INSERT OR IGNORE INTO record (n, at_ms, workload, process, seq, event, trace, span, reason, who, fields) ";
    insert(txn, entries, head, "", |values, e| {
        let record = &e.record;
        let named = ["principal", "user", "by", "peer"].iter().filter_map(|k| record.fields.get(*k).and_then(Value::as_str));
        let who = named.filter(|name| !name.is_empty()).collect::<Vec<_>>().join(" ");
        values.push_bind(int(e.n)).push_bind(int(record.at_ms)).push_bind(e.workload.to_string()).push_bind(e.process.clone());
        values.push_bind(int(record.seq)).push_bind(record.event.clone()).push_bind(record.trace.clone()).push_bind(record.span.clone());
        values.push_bind(reason_of(record)).push_bind(who).push_bind(Value::Object(record.fields.clone()).to_string());
    })
    .await?;
    let (mut taken, mut denied) = (BTreeMap::<(&SpiffeId, &str), (u64, u64)>::new(), BTreeMap::<&str, i64>::new());
    for e in entries {
        let last = taken.entry((&e.workload, &e.process)).or_default();
        *last = (*last).max((e.n, e.record.seq));
        if !reason_of(&e.record).is_empty() && !e.record.trace.is_empty() {
            let count = denied.entry(&e.record.trace).or_default();
            *count = count.saturating_add(1);
        }
    }
    let taken: Vec<_> = taken.into_iter().collect();
    let head = "INSERT INTO taken (workload, process, seq, n) ";
    let tail = " ON CONFLICT DO UPDATE SET seq = excluded.seq, n = excluded.n WHERE excluded.n > n";
    insert(txn, &taken, head, tail, |values, ((workload, process), (n, seq))| {
        values.push_bind(workload.to_string()).push_bind((*process).to_owned()).push_bind(int(*seq)).push_bind(int(*n));
    })
    .await?;
    for (trace, count) in denied {
        let update = sqlx::query("UPDATE trace SET denied = denied + ? WHERE trace = ?");
        update.bind(count).bind(trace.to_owned()).execute(&mut **txn).await?;
    }
    Ok(())
}

/// Keeps log lines of `workload`.
pub(super) async fn lines(txn: &mut WriteTxn, workload: &SpiffeId, lines: &[LogLine]) -> Result<(), StateError> {
    insert(txn, lines, "INSERT INTO line (trace, at_ns, workload, severity, body) ", "", |values, line| {
        values.push_bind(line.trace.clone()).push_bind(int(line.at_ns)).push_bind(workload.to_string());
        values.push_bind(cut(&line.severity)).push_bind(cut(&line.body));
    })
    .await
}

/// Lets go of these traces, with all their spans and keys.
pub(super) async fn let_go(txn: &mut WriteTxn, traces: &[String]) -> Result<(), StateError> {
    for piece in pieces(traces) {
        for head in ["DELETE FROM span WHERE trace IN (", "DELETE FROM trace_key WHERE trace IN (", "DELETE FROM trace WHERE trace IN ("] {
            let mut query = QueryBuilder::<Sqlite>::new(head);
            let mut list = query.separated(", ");
            for trace in piece {
                list.push_bind(trace.clone());
            }
            query.push(")");
            query.build().execute(&mut **txn).await?;
        }
    }
    Ok(())
}

/// Inserts all rows, by few statements.
async fn insert<T>(
    txn: &mut WriteTxn,
    rows: &[T],
    head: &'static str,
    tail: &'static str,
    row: impl Fn(&mut Separated<'_, Sqlite, &'static str>, &T),
) -> Result<(), StateError> {
    for piece in pieces(rows) {
        let mut query = QueryBuilder::<Sqlite>::new(head);
        query.push_values(piece, |mut values, one| row(&mut values, one));
        query.push(tail);
        query.build().execute(&mut **txn).await?;
    }
    Ok(())
}

/// The rows in pieces of `ROWS_MAX`, then of smaller powers of two.
fn pieces<T>(rows: &[T]) -> impl Iterator<Item = &[T]> {
    let mut rest = rows;
    std::iter::from_fn(move || {
        let count = 1_usize << rest.len().min(ROWS_MAX).checked_ilog2()?;
        let (piece, more) = rest.split_at_checked(count)?;
        rest = more;
        Some(piece)
    })
}
