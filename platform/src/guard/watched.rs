//! What a service tried in its sandbox, and how that ended: told to the audit log.
//!
//! Init counts what it denies and tells it twice a second; here each kind is a record, at the pace of all refusals (`telemetry::gather`). A
//! program that is not the locked one any more has ended its sandbox already: it is recorded, and the next start is refused.
//!
//! Guarantees: I6 a denied system call is an event; I15 a drift is an alert.
//! Not here:   what is denied (`sandbox`).

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;

use sandbox::{Exit, ExitCause, Running, Seen};
use telemetry::Recorder;
use telemetry::event::{ActDone, SyscallDenied, TamperingFound};

/// SIGSYS: how a program ends that the kernel itself ended for a system call, where init may not see them.
const SIGSYS: i32 = 31;

/// Watches one sandbox until its end. It holds nothing of it: when the sandbox is given up, it ends.
pub(super) fn watch(running: &mut Running, service: &str, recorder: Recorder, trace: Option<PathBuf>) {
    let (seen, end) = (running.take_seen(), running.end());
    let service = service.to_owned();
    tokio::spawn(async move {
        let Some(mut seen) = seen else { return };
        while let Some(one) = seen.recv().await {
            match one {
                Seen::Denied(denials) => {
                    for denial in denials {
                        let denied =
                            SyscallDenied { service: service.clone(), call: denial.call, count: denial.count, killed: denial.killed };
                        // It was denied, whether or not this is kept.
                        let _recorded = recorder.record(None, &denied);
                    }
                }
                Seen::Traced(names) => {
                    if let Some(trace) = &trace {
                        let (trace, service) = (trace.clone(), service.clone());
                        let kept = tokio::task::spawn_blocking(move || keep(&trace, names)).await.map_err(std::io::Error::other);
                        if let Err(error) = kept.flatten() {
                            tracing::error!(service, %error, "what was traced cannot be kept");
                        }
                    }
                }
            }
        }
        ended(&service, &recorder, end.await);
    });
}

fn ended(service: &str, recorder: &Recorder, exit: Exit) {
    if let ExitCause::Drifted(mismatch) = &exit.cause {
        tracing::error!(service, %mismatch, "what runs was changed; it is stopped");
        let found = TamperingFound { what: "artefact", which: service.to_owned(), detail: format!("while it ran: {mismatch}") };
        let _recorded = recorder.record(None, &found); // It is stopped, whether or not this is kept.
    } else if let ExitCause::Filled(why) = &exit.cause {
        tracing::error!(service, why, "its state folder is full; it is stopped, and does not start until there is room");
        let act = ActDone { act: "service.filled", by: "guard".to_owned(), to: service.to_owned(), detail: why.clone() };
        let _recorded = recorder.record(None, &act); // As above.
    } else if exit.signal == Some(SIGSYS) {
        let denied = SyscallDenied { service: service.to_owned(), call: "(not seen)".to_owned(), count: 1, killed: true };
        let _recorded = recorder.record(None, &denied); // As above.
    }
}

/// Adds names to those in a file; several sandboxes may at once, so nothing is ever taken out of it.
fn keep(path: &PathBuf, names: Vec<String>) -> std::io::Result<()> {
    let before = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    let known: BTreeSet<&str> = before.lines().collect();
    let new: String = names.into_iter().filter(|name| !known.contains(name.as_str())).map(|name| name + "\n").collect();
    std::fs::OpenOptions::new().create(true).append(true).open(path)?.write_all(new.as_bytes())
}
