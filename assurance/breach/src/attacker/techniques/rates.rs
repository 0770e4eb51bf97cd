//! Rates: one person asks faster than anybody may.
//!
//! Guarantees: A13 measured, L13.

use super::{Notes, Row, Run, Visitor, Who};
use crate::attacker::http::Request;
use crate::attacker::note::now_ms;
use crate::{Cell, Control, Stride};

/// The row.
pub(super) const ROW: Row = Row {
    id: "rates",
    title: "Asks for its own session faster than anybody may, until it is told to wait.",
    attack: "T1499",
    stride: Stride::D,
    controls: &[Control::Limits],
    run: Run::Outside(run, &[Who::Person]),
};

/// Requests at most, and threads that send them.
const REQUESTS_MAX: usize = 6_000;
const THREADS: usize = 16;
/// Waits no longer than this for a refusal, milliseconds.
const TIME_MS_MAX: u64 = 8_000;
/// With the standard rate and burst of a person, as many again: whoever was answered so often within the time has no limit.
const RATE_S: u64 = 100;
const BURST: u64 = 200;
const BEYOND: u64 = 2;

fn run(visitor: &Visitor<'_>, notes: &mut Notes) {
    let from_ms = now_ms();
    let (mut answered, mut refused) = (0_u64, false);
    while !refused && usize::try_from(answered).unwrap_or(usize::MAX) < REQUESTS_MAX && now_ms().saturating_sub(from_ms) < TIME_MS_MAX {
        let statuses = visitor.door.at_once(&Request::new("GET", "/auth/me"), THREADS);
        refused = statuses.contains(&429);
        answered = answered.saturating_add(u64::try_from(statuses.iter().filter(|status| **status == 200).count()).unwrap_or_default());
    }
    let passed_s = now_ms().saturating_sub(from_ms).saturating_add(999) / 1000;
    let fair = BURST.saturating_add(RATE_S.saturating_mul(passed_s));
    if refused {
        notes.stopped(Some(Control::Limits), "told to wait");
    } else if answered > fair.saturating_mul(BEYOND) {
        notes.reached(Cell::disturbed("role.edge"), "asks as fast as it can");
    } else {
        notes.untried("this machine answers no faster than anybody may ask");
    }
}
