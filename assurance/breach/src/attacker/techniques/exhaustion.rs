//! More than its share of the machine: memory, processes, processors and the planes that all share, until they are refused.
//!
//! It has a round of its own, so that meanwhile other people's work through other services can be timed: whether they suffer is what
//! counts. Of processors it takes as many as the machine has, and a thread more for each of its flows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{Alone, Notes, Row, Run};
use crate::attacker::hand;
use crate::attacker::http::{Ask, Request};
use crate::attacker::server::pause;
use crate::{Cell, Control, Stride};

/// The row.
pub(super) const ROW: Row = Row {
    id: "exhaustion",
    title: "Takes memory, processes, processors and the shared planes until there is nothing left for its neighbours.",
    attack: "T1499",
    stride: Stride::D,
    controls: &[Control::Limits],
    run: Run::Pressing(run),
};

/// So many threads beyond its limit tell that there is none.
const THREADS_BEYOND: u64 = 64;
/// The most that are tried.
const THREADS_MAX: u64 = 8_192;
/// Memory that is not touched costs nobody anything; that so many times the limit is granted tells as much.
const BEYOND: u64 = 2;
/// Memory that is really used while it presses, bytes, at most.
const USED_BYTES_MAX: usize = 256 << 20;
/// How long it presses: long enough for a few dozen requests of each neighbour.
const PRESS: Duration = Duration::from_secs(3);

fn run(alone: &Alone<'_>, notes: &mut Notes) {
    let limit = alone.script.services.get(alone.service).map_or(0, |part| part.memory_bytes);
    let wanted = usize::try_from(limit.saturating_mul(BEYOND)).unwrap_or(usize::MAX);
    let mut much: Vec<u8> = Vec::new();
    match much.try_reserve_exact(wanted) {
        Err(_) => notes.stopped(Some(Control::Limits), "memory beyond its limit is refused"),
        Ok(()) => notes.reached(Cell::disturbed("machine.memory"), "memory beyond its limit is granted"),
    }
    drop(much);
    press();
    let sleeper = || std::thread::Builder::new().stack_size(16 * 1024).spawn(std::thread::park).is_ok();
    let limit = alone.script.services.get(alone.service).map_or(u64::MAX, |part| part.processes);
    let threads = limit.saturating_add(THREADS_BEYOND).min(THREADS_MAX);
    if (0..threads).all(|_| sleeper()) {
        notes.reached(Cell::disturbed("machine.processes"), "processes beyond its limit are granted");
    } else {
        notes.stopped(Some(Control::Limits), "processes beyond its limit are refused");
    }
}

/// Uses all that it can have, for a while.
fn press() {
    let over = Arc::new(AtomicBool::new(false));
    let mut used: Vec<u8> = Vec::new();
    if used.try_reserve_exact(USED_BYTES_MAX).is_ok() {
        used.resize(USED_BYTES_MAX, 1);
    }
    let small = || std::thread::Builder::new().stack_size(64 * 1024);
    for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
        let over = Arc::clone(&over);
        // What is refused here is refused: the limit holds.
        let _refused = small().spawn(move || while !over.load(Ordering::Relaxed) {});
    }
    for port in hand::ports().into_values() {
        let over = Arc::clone(&over);
        let _refused = small().spawn(move || {
            while !over.load(Ordering::Relaxed) {
                // Whatever the answer: each costs the guard and whoever is behind it.
                let _answer = port.ask(&Request::new("GET", "/"));
            }
        });
    }
    pause(PRESS);
    over.store(true, Ordering::Relaxed);
    drop(used);
}
