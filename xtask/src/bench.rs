//! `cargo xtask bench`: figures, measured here and now. They are printed, never asserted.

use std::time::Instant;

use crate::artefacts::Artefacts;
use crate::demo::Scratch;
use crate::running::Setting;
use crate::{Outcome, packages, processes};

/// Measures the start and the idle memory of the whole system.
///
/// # Errors
/// When the system does not come up.
pub fn run() -> Outcome {
    packages::ensure(packages::RUN)?;
    Artefacts::build()?;
    let scratch = Scratch::new()?;
    let start = Instant::now();
    let running = Setting::reference(&scratch.0.join("system"))?.start()?;
    println!("cold start to ready: {:.2} s", start.elapsed().as_secs_f64());
    std::thread::sleep(std::time::Duration::from_secs(5));
    let all = processes::tree(running.pid())?;
    println!("{:<24} {:>10} {:>10}", "process, idle", "RSS MiB", "PSS MiB");
    for process in &all {
        println!("{:<24} {:>10.1} {:>10}", process.name, mib(process.rss_bytes), known(process.pss_bytes));
    }
    println!("{:<24} {:>10} {:>10}", "sum", "", known(processes::pss_bytes(&all)));
    running.stop()
}

/// The kernel tells the PSS of processes that forbid dumps to root alone.
fn known(pss_bytes: Option<u64>) -> String {
    pss_bytes.map_or_else(|| "root only".to_owned(), |bytes| format!("{:.1}", mib(bytes)))
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / (1024.0 * 1024.0)
}
