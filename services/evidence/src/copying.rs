//! What may be slow: the searchable copy of the audit log, and spans. Neither ever holds up an audit record.
//!
//! The log is written first and waits for nobody. What is appended is offered to the copy; while the copy is behind, what does not fit is
//! left out here and read from the log later, in order. Spans wait in a queue of bounded size; what does not fit is dropped and counted.
//! Who told of spans waits a moment for them to be findable, and no longer.
//!
//! Guarantees: J7 in part: the index cannot stop the log; a slow disk costs traces, not requests.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use telemetry::Metrics;
use tokio::sync::{mpsc, oneshot};
use trust::{Span, SpiffeId};

use crate::index::{Index, ToldSpans};
use crate::intake::{self, Taken};
use crate::live::Live;
use crate::log;
use crate::room::OpenError;

/// Records of one transaction of the copy.
const CHUNK: usize = 2_000;
/// Spans that wait to be indexed.
pub(crate) const SPANS_WAITING_MAX: usize = 16_384;
/// Spans of one transaction, about.
const SPANS_AT_ONCE: usize = 2_048;
/// How long whoever tells of spans waits until they can be found.
const PATIENCE: Duration = Duration::from_millis(100);
/// Pause after the copy could not be written.
const RETRY: Duration = Duration::from_secs(1);

/// Makes the copy of the audit records up to date with the log, and says how far each process's records were taken.
pub(crate) async fn caught_up(index: &Index, dir: &std::path::Path, records: u64) -> Result<Taken, OpenError> {
    let mut taken = Taken::default();
    if index.copied().await? > records {
        // The copy knows more than the log: it belongs to another log. What it says of processes would be wrong.
        index.clear_records().await?;
    }
    for (workload, process, seq, n) in index.taken().await? {
        taken.note(&workload, &process, seq, n);
    }
    made_up(index, dir, &mut |entry| taken.note(&entry.workload, &entry.process, entry.record.seq, entry.n)).await?;
    Ok(taken)
}

/// Copies what the log has and the copy has not.
async fn made_up(index: &Index, dir: &std::path::Path, each: &mut (dyn FnMut(&log::Entry) + Send)) -> Result<u64, OpenError> {
    let copied = index.copied().await?;
    let (send, mut receive) = mpsc::channel(4);
    let dir = dir.to_owned();
    let reading = tokio::task::spawn_blocking(move || {
        let mut chunk = Vec::new();
        let mut each = |entry| {
            chunk.push(entry);
            if chunk.len() >= CHUNK {
                // A receiver that is gone failed already, and says so itself.
                drop(send.blocking_send(std::mem::take(&mut chunk)));
            }
        };
        let read = log::segment::replay(&dir, copied, &mut each);
        drop(send.blocking_send(chunk));
        read
    });
    let mut last = copied;
    while let Some(chunk) = receive.recv().await {
        chunk.iter().for_each(&mut *each);
        index.copy(&chunk).await?;
        last = chunk.last().map_or(last, |entry| entry.n);
    }
    reading.await.map_err(std::io::Error::other)??;
    Ok(last)
}

/// Copies what is appended, for ever; `copied` is the number of the last record that is copied already.
pub(crate) async fn keep_copy(
    index: Index,
    (dir, count): (PathBuf, impl Fn() -> u64),
    live: Arc<Mutex<Live>>,
    mut appended: intake::Appended,
    mut copied: u64,
) {
    let seen = |entry: &log::Entry| {
        if let Ok(mut live) = live.lock() {
            live.decided(entry);
        }
    };
    while let Some(mut entries) = appended.recv().await {
        // What waits goes in one transaction with it, as far as nothing is missing in between: that is read from the log below.
        while entries.len() < CHUNK
            && let Ok(mut more) = appended.try_recv()
            && more.first().map(|entry| entry.n) == entries.last().map(|entry| entry.n.saturating_add(1))
        {
            entries.append(&mut more);
        }
        let (first, last) = (entries.first().map_or(0, |entry| entry.n), entries.last().map_or(0, |entry| entry.n));
        if first == copied.saturating_add(1) {
            entries.iter().for_each(seen);
            match index.copy(&entries).await {
                Ok(()) => copied = last,
                Err(error) => tracing::warn!(%error, "audit records could not be copied to the index; it is tried again from the log"),
            }
        }
        // Some were left out, or could not be copied: the log has them all, and nothing that waits here is newer.
        if appended.is_empty() && copied < count() {
            match made_up(&index, &dir, &mut |entry| seen(entry)).await {
                Ok(last) => copied = last,
                Err(error) => {
                    tracing::warn!(%error, "the index is behind the audit log and cannot be made up for yet; the log itself is whole");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}

/// Spans that are to be indexed.
#[derive(Debug, Clone)]
pub(crate) struct Spans {
    queue: mpsc::UnboundedSender<Waiting>,
    waiting: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct Waiting {
    told: ToldSpans,
    done: oneshot::Sender<()>,
}

impl Spans {
    /// Starts to index.
    pub(crate) fn start(index: Index, metrics: Arc<Metrics>) -> Self {
        let (queue, inbox) = mpsc::unbounded_channel();
        let spans = Self { queue, waiting: Arc::default(), metrics };
        tokio::spawn(written(index, inbox, Arc::clone(&spans.waiting), Arc::clone(&spans.metrics)));
        spans
    }

    /// Takes them, or drops and counts them when too many wait; returns when they can be found, or a moment later.
    pub(crate) async fn take(&self, workload: &SpiffeId, process: &str, spans: Vec<Span>) {
        let count = spans.len();
        if count == 0 {
            return;
        }
        let room = |waiting: usize| waiting.checked_add(count).filter(|sum| *sum <= SPANS_WAITING_MAX);
        if self.waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, room).is_err() {
            return (0..count).for_each(|_| self.metrics.span_dropped());
        }
        let (done, written) = oneshot::channel();
        let told = ToldSpans { workload: workload.clone(), process: process.to_owned(), spans };
        if self.queue.send(Waiting { told, done }).is_ok() {
            // Later is as good for them; it is for whoever asks right away.
            let _soon = tokio::time::timeout(PATIENCE, written).await;
        }
    }
}

async fn written(index: Index, mut inbox: mpsc::UnboundedReceiver<Waiting>, waiting: Arc<AtomicUsize>, metrics: Arc<Metrics>) {
    while let Some(first) = inbox.recv().await {
        let (mut told, mut done, mut count) = (Vec::new(), Vec::new(), 0_usize);
        let mut next = Some(first);
        while let Some(one) = next.take() {
            count = count.saturating_add(one.told.spans.len());
            told.push(one.told);
            done.push(one.done);
            if count < SPANS_AT_ONCE {
                next = inbox.try_recv().ok();
            }
        }
        if let Err(error) = index.spans_of_all(&told).await {
            tracing::warn!(%error, count, "spans could not be kept");
            (0..count).for_each(|_| metrics.span_dropped());
        }
        waiting.fetch_sub(count, Ordering::AcqRel);
        // Who stopped waiting needs no answer.
        for one in done {
            let _gone = one.send(());
        }
    }
}
