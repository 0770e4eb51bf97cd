//! Leftovers: what earlier jobs left in the sandbox of this one.
//!
//! Guarantees: I8 measured, L13.

use std::path::PathBuf;

use manifest::Fresh;

use super::{Row, Run};
use crate::attacker::{Act, Hand, Notes};
use crate::{Cell, Control, Extent, Stride};

/// The row.
pub(super) const ROW: Row = Row {
    id: "leftovers",
    title: "Looks for what earlier jobs, of whoever they were, left in the sandbox.",
    attack: "T1005",
    stride: Stride::I,
    controls: &[Control::FreshSandbox],
    run: Run::InHand(run, Act::Attack),
};

fn run(hand: &Hand<'_>, notes: &mut Notes) {
    if hand.part.fresh != Fresh::Job || !hand.is_job() {
        return;
    }
    match std::fs::read_to_string(place()) {
        Ok(left) if !left.is_empty() => {
            let cell = Cell::read(format!("files.{} of earlier jobs", hand.service), Extent::Everybody);
            notes.reached(cell, "what an earlier job left is there");
        }
        _ => notes.stopped(Some(Control::FreshSandbox), "nothing is left of earlier jobs"),
    }
}

/// Leaves something for the next job, as any program does that writes a temporary file.
pub(in crate::attacker) fn leave(hand: &Hand<'_>) {
    if hand.part.fresh == Fresh::Job && hand.is_job() {
        // What cannot be left is not found either.
        let _left = std::fs::write(place(), hand.mark.to_string());
    }
}

fn place() -> PathBuf {
    std::env::temp_dir().join("breach-left")
}
