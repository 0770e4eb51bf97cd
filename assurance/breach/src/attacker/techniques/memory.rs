//! The memory of the program that was taken over: what a guard would have to keep from it.

use std::os::unix::fs::FileExt;

use manifest::Isolation;

use super::environment::{found, of_others};
use super::{Act, Hand, Notes, Row, Run};
use crate::untried::NO_PROC;
use crate::{Cell, Control, Stride};

/// The row.
pub(super) const ROW: Row = Row {
    id: "memory",
    title: "Looks through every mapping of the taken-over program for keys and for what others must not see.",
    attack: "T1003",
    stride: Stride::I,
    controls: &[Control::GuardOut],
    run: Run::InHand(run, Act::Attack),
};

/// Bytes of one mapping that are looked through at most, and of all.
const MAPPING_BYTES_MAX: u64 = 8 << 20;
const ALL_BYTES_MAX: u64 = 64 << 20;

fn run(hand: &Hand<'_>, notes: &mut Notes) {
    let (Ok(maps), Ok(memory)) = (std::fs::read_to_string("/proc/self/maps"), std::fs::File::open("/proc/self/mem")) else {
        let part = hand.script.services.get(hand.service);
        let confined = part.is_some_and(|part| part.isolation == Isolation::Confined);
        return notes.untried(if confined { NO_PROC } else { "its own memory cannot be opened" });
    };
    let mut left = ALL_BYTES_MAX;
    for line in maps.lines() {
        let mut fields = line.split_whitespace();
        let (range, rights, name) =
            (fields.next().unwrap_or_default(), fields.next().unwrap_or_default(), fields.nth(3).unwrap_or_default());
        // What is mapped from files, the files have.
        if !rights.starts_with("rw") || name.starts_with('/') {
            continue;
        }
        let Some((start, end)) = range.split_once('-') else { continue };
        let (Ok(start), Ok(end)) = (u64::from_str_radix(start, 16), u64::from_str_radix(end, 16)) else { continue };
        let size = end.saturating_sub(start).min(MAPPING_BYTES_MAX).min(left);
        left = left.saturating_sub(size);
        let mut bytes = vec![0; usize::try_from(size).unwrap_or_default()];
        let Ok(count) = memory.read_at(&mut bytes, start) else { continue };
        bytes.truncate(count);
        if let Some(what) = found(hand.script, &bytes) {
            notes.reached(Cell::secret(format!("secret.{what}")), format!("{what} in its memory"));
        }
        of_others(hand.script, hand.service, &hand.mark.person, &bytes, "its memory", notes);
    }
    notes.stopped(Some(Control::GuardOut), "what there is of others is not in its memory");
}
