//! The whole system, idle: how long it takes to come up and what memory it holds.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::artefacts::Artefacts;
use crate::demo::Scratch;
use crate::running::Setting;
use crate::{Outcome, processes};

/// Starts the reference system, waits until it is idle, prints, and gives the figures.
///
/// # Errors
/// When the system does not come up.
pub fn measure() -> Outcome<Value> {
    let built = Artefacts::build_for_release()?;
    let scratch = Scratch::new()?;
    let start = Instant::now();
    let setting = Setting { palisade: built.palisade(), ..Setting::reference(&scratch.0.join("system"))? };
    let running = setting.start()?;
    let ready_s = start.elapsed().as_secs_f64();
    println!("\nThe whole system, release build: started and ready after {ready_s:.2} s, the first start with new keys and databases");
    std::thread::sleep(Duration::from_secs(5));
    let all = processes::tree(running.pid())?;
    println!("{:<24} {:>10} {:>10}", "process, idle", "RSS MiB", "PSS MiB");
    for process in &all {
        println!("{:<24} {:>10.1} {:>10}", process.name, mib(process.rss_bytes), known(process.pss_bytes));
    }
    println!("{:<24} {:>10} {:>10}", "sum", "", known(processes::pss_bytes(&all)));
    running.stop()?;
    Ok(json!({ "ready_s": ready_s, "processes": all }))
}

/// The kernel tells the PSS of processes that forbid dumps to root alone.
fn known(pss_bytes: Option<u64>) -> String {
    pss_bytes.map_or_else(|| "root only".to_owned(), |bytes| format!("{:.1}", mib(bytes)))
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
pub(super) fn mib(bytes: u64) -> f64 {
    bytes as f64 / (1024.0 * 1024.0)
}
