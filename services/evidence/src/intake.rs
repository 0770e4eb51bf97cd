//! Intake: the one thread that appends to the audit log. It takes records in their senders' order, writes what has gathered in one go,
//! syncs once, and only then answers: group commit.
//!
//! Guarantees: J7: what is answered for is on the disk; (workload, process, seq) is taken once; a gap in `seq` is refused with the
//!             number expected, so that nothing is lost unnoticed. A log that is broken takes nothing (fail closed).

use std::collections::HashMap;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use contract::console::AuditState;
use tokio::sync::{mpsc as async_mpsc, oneshot};
use trust::{AuditRecord, Clock, SpiffeId};

use crate::log::{AuditLog, CHECKPOINT_RECORDS, CHECKPOINT_S, Entry};

/// Runs of processes remembered for each workload; the longest unheard of is forgotten first, and would have to begin at 1 again.
const PROCESSES_MAX: usize = 256;
/// Records written at most in one go.
const GROUP_RECORDS_MAX: usize = 4096;
/// Groups that may wait for the index; what is beyond is read from the log later.
const INDEX_QUEUE: usize = 64;

/// Why records were not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IntakeError {
    /// Records before the first sent are missing.
    #[error("records are missing: sequence number {expected} is expected next, {sent} was sent")]
    Gap {
        /// What is expected next.
        expected: u64,
        /// What came.
        sent: u64,
    },
    /// The log does not verify.
    #[error("the audit log is broken; nothing is appended to it until an operator has looked at it")]
    Broken,
    /// The log's disk is nearly full.
    #[error("the audit log's disk has less than its floor free; make room, and it goes on by itself")]
    Full,
    /// The log cannot be written.
    #[error("the audit log cannot be written now")]
    Unwritable,
    /// A record is longer than a line of the log may be.
    #[error("a record is too long for the audit log")]
    TooLong,
}

struct Offer {
    workload: SpiffeId,
    process: String,
    records: Vec<AuditRecord>,
    answer: oneshot::Sender<Result<u64, IntakeError>>,
}

/// Where appended entries go for the searchable copy.
pub type Appended = async_mpsc::Receiver<Vec<Entry>>;

/// Handle on the thread.
#[derive(Debug, Clone)]
pub struct Intake {
    offers: Sender<Offer>,
    state: Arc<Mutex<(AuditState, String)>>,
}

/// How far each process's records were taken.
#[derive(Debug, Default)]
pub struct Taken {
    /// By workload and process: last sequence number, and the record in the log that it was.
    by_process: HashMap<SpiffeId, HashMap<String, (u64, u64)>>,
}

impl Taken {
    /// Notes an entry of the log.
    pub fn note(&mut self, workload: &SpiffeId, process: &str, seq: u64, n: u64) {
        let runs = self.by_process.entry(workload.clone()).or_default();
        let full = runs.len() >= PROCESSES_MAX && !runs.contains_key(process);
        if let Some(oldest) = full.then(|| runs.iter().min_by_key(|(_, (_, n))| *n).map(|(run, _)| run.clone())).flatten() {
            runs.remove(&oldest);
        }
        runs.insert(process.to_owned(), (seq, n));
    }

    /// The last sequence number taken of a process; 0 if none was.
    #[must_use]
    pub fn last(&self, workload: &SpiffeId, process: &str) -> u64 {
        self.by_process.get(workload).and_then(|runs| runs.get(process)).map_or(0, |(seq, _)| *seq)
    }
}

impl Intake {
    /// Starts the thread over an open log. It ends, with a last checkpoint, when every handle is gone.
    ///
    /// # Errors
    /// When no thread can be made.
    pub fn start(log: AuditLog, taken: Taken, clock: Arc<dyn Clock>) -> std::io::Result<(Self, Appended)> {
        let (offers, inbox) = mpsc::channel();
        let (appended, outbox) = async_mpsc::channel(INDEX_QUEUE);
        let state = Arc::new(Mutex::new((AuditState::default(), String::new())));
        let writer = Writer { log, taken, clock, state: Arc::clone(&state), appended };
        writer.publish();
        std::thread::Builder::new().name("audit-log".to_owned()).spawn(move || writer.run(&inbox))?;
        Ok((Self { offers, state }, outbox))
    }

    /// A handle that refuses everything: the log is broken, because of `why`.
    #[must_use]
    pub fn broken(why: String) -> Self {
        let (offers, _) = mpsc::channel();
        let state = AuditState { broken: Some(why), ..AuditState::default() };
        Self { offers, state: Arc::new(Mutex::new((state, String::new()))) }
    }

    /// Appends those of `records` that were not taken before; how far they are taken now, durably.
    ///
    /// # Errors
    /// `IntakeError`.
    pub async fn append(&self, workload: SpiffeId, process: String, records: Vec<AuditRecord>) -> Result<u64, IntakeError> {
        let (answer, answered) = oneshot::channel();
        let down = || if self.state().broken.is_some() { IntakeError::Broken } else { IntakeError::Unwritable };
        self.offers.send(Offer { workload, process, records, answer }).map_err(|_| down())?;
        answered.await.map_err(|_| IntakeError::Unwritable)?
    }

    /// How many records the log has, for whoever must not keep the log open.
    pub(crate) fn count(&self) -> impl Fn() -> u64 + Send + Sync + use<> {
        let state = Arc::clone(&self.state);
        move || state.lock().map_or(0, |state| state.0.records)
    }

    /// The log's state.
    #[must_use]
    pub fn state(&self) -> AuditState {
        self.state.lock().map(|s| s.0.clone()).unwrap_or_default()
    }

    /// The newest checkpoint, a signed note.
    #[must_use]
    pub fn checkpoint(&self) -> Option<String> {
        self.state.lock().ok().map(|s| s.1.clone()).filter(|note| !note.is_empty())
    }
}

struct Writer {
    log: AuditLog,
    taken: Taken,
    clock: Arc<dyn Clock>,
    state: Arc<Mutex<(AuditState, String)>>,
    appended: async_mpsc::Sender<Vec<Entry>>,
}

impl Writer {
    fn run(mut self, inbox: &Receiver<Offer>) {
        loop {
            let offers = match inbox.recv_timeout(Duration::from_secs(CHECKPOINT_S)) {
                Ok(first) => {
                    let mut offers = vec![first];
                    let mut records = offers.iter().map(|o| o.records.len()).sum::<usize>();
                    while records < GROUP_RECORDS_MAX {
                        let Ok(next) = inbox.try_recv() else { break };
                        records = records.saturating_add(next.records.len());
                        offers.push(next);
                    }
                    offers
                }
                Err(RecvTimeoutError::Timeout) => Vec::new(),
                Err(RecvTimeoutError::Disconnected) => break,
            };
            self.group(offers);
            let signed = self.log.signed();
            let new = self.log.records().saturating_sub(signed.map_or(0, |s| s.size));
            let age_ms = self.clock.unix_ms().saturating_sub(signed.map_or(0, |s| s.at_ms));
            if new >= CHECKPOINT_RECORDS || (new > 0 && age_ms >= CHECKPOINT_S.saturating_mul(1000)) {
                self.sign();
            }
            self.publish();
        }
        self.sign();
        self.publish();
    }

    fn sign(&mut self) {
        if let Err(error) = self.log.checkpoint(self.clock.unix_ms()) {
            tracing::error!(%error, "no checkpoint could be written beside the audit log; make its folder writable");
        }
    }

    fn group(&mut self, offers: Vec<Offer>) {
        let (mut told, mut answers) = (Vec::new(), Vec::with_capacity(offers.len()));
        // Numbers as they will be once this group is written; `taken` itself moves only then.
        let mut ahead: HashMap<(SpiffeId, String), u64> = HashMap::new();
        for offer in offers {
            let key = (offer.workload, offer.process);
            let mut last = ahead.get(&key).copied().unwrap_or_else(|| self.taken.last(&key.0, &key.1));
            let mut fresh = Vec::new();
            let mut refused = None;
            let before = last;
            for record in offer.records.into_iter().skip_while(|r| r.seq <= before) {
                let expected = last.saturating_add(1);
                if record.seq != expected {
                    refused = Some(IntakeError::Gap { expected, sent: record.seq });
                    break;
                }
                last = record.seq;
                fresh.push((key.0.clone(), key.1.clone(), record));
            }
            match refused {
                Some(error) => drop(offer.answer.send(Err(error))),
                None => {
                    told.extend(fresh);
                    ahead.insert(key, last);
                    answers.push((offer.answer, last));
                }
            }
        }
        match self.log.append(told, self.clock.unix_ms()) {
            Ok(entries) => {
                for e in &entries {
                    self.taken.note(&e.workload, &e.process, e.record.seq, e.n);
                }
                // Whoever is answered and then asks finds what it was answered for.
                self.publish();
                for (answer, last) in answers {
                    // A sender that went away asks again; its records are taken.
                    drop(answer.send(Ok(last)));
                }
                // A copy that is behind reads what does not fit from the log; it never holds up the log.
                if !entries.is_empty() && matches!(self.appended.try_send(entries), Err(async_mpsc::error::TrySendError::Closed(_))) {
                    tracing::warn!("the index of the audit log is gone; it is made up for at the next start");
                }
            }
            Err(error) => {
                let why = match error.kind() {
                    std::io::ErrorKind::InvalidInput => IntakeError::TooLong,
                    std::io::ErrorKind::StorageFull => IntakeError::Full,
                    _ => IntakeError::Unwritable,
                };
                let (dir, floor) = (self.log.place().dir.display(), self.log.place().free_bytes_min);
                tracing::error!(%error, %dir, floor, "audit records could not be written; is the disk full? Nothing new is allowed until there is room");
                answers.into_iter().for_each(|(answer, _)| drop(answer.send(Err(why.clone()))));
            }
        }
    }

    fn publish(&self) {
        if let Ok(mut state) = self.state.lock() {
            let signed = self.log.signed();
            let checkpointed = signed.map_or(0, |s| s.size);
            if state.0.checkpointed != checkpointed || state.1.is_empty() {
                state.1 = self.log.note().unwrap_or_default();
            }
            state.0 = AuditState {
                records: self.log.records(),
                head: self.log.head(),
                checkpointed,
                checkpoint_ms: signed.map_or(0, |s| s.at_ms),
                broken: None,
            };
        }
    }
}
