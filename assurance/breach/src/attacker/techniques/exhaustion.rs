//! More than its share of the machine: processes and memory, until they are refused.

use super::{Alone, Notes, Row, Run};
use crate::{Cell, Control, Stride};

/// The row.
pub(super) const ROW: Row = Row {
    id: "exhaustion",
    title: "Takes processes and memory until there is nothing left for its neighbours.",
    attack: "T1499",
    stride: Stride::D,
    controls: &[Control::Limits],
    run: Run::Alone(run),
};

/// So many threads are more than any limit lets through.
const THREADS_MAX: usize = 8_192;
/// Memory that is not touched costs nobody anything; that so many times the limit is granted tells as much.
const BEYOND: u64 = 2;

fn run(alone: &Alone<'_>, notes: &mut Notes) {
    let limit = alone.script.services.get(alone.service).map_or(0, |part| part.memory_bytes);
    let wanted = usize::try_from(limit.saturating_mul(BEYOND)).unwrap_or(usize::MAX);
    let mut much: Vec<u8> = Vec::new();
    match much.try_reserve_exact(wanted) {
        Err(_) => notes.stopped(Some(Control::Limits), "memory beyond its limit is refused"),
        Ok(()) => notes.reached(Cell::disturbed("machine.memory"), "memory beyond its limit is granted"),
    }
    drop(much);
    let sleeper = || std::thread::Builder::new().stack_size(16 * 1024).spawn(std::thread::park).is_ok();
    if (0..THREADS_MAX).all(|_| sleeper()) {
        notes.reached(Cell::disturbed("machine.processes"), "processes beyond every limit are granted");
    } else {
        notes.stopped(Some(Control::Limits), "processes beyond its limit are refused");
    }
}
