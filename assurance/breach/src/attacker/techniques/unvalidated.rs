//! What nobody has looked at yet: whoever gives verdicts hands its input on before it has given one, and the next one tries to read it.
//!
//! Guarantees: G11 measured, L13.

use std::time::Duration;

use manifest::{BucketOperation, Flow};

use super::{Act, Hand, Notes, Row, Run, judged};
use crate::attacker::hand::Peer;
use crate::attacker::http::Request;
use crate::attacker::server::pause;
use crate::untried::HANDED_ON;
use crate::{Cell, Control, Extent, Stride};

/// The row.
pub(in crate::attacker) const ROW: Row = Row {
    id: "unvalidated",
    title: "Hands an object on before its verdict; who is given it reads it.",
    attack: "T1080",
    stride: Stride::T,
    controls: &[Control::Quarantine],
    run: Run::First(hand_on),
};

/// A sandbox is started for whoever is handed it.
const WAITS: Duration = Duration::from_secs(6);

/// Publishes what is in hand wherever it may, and waits with the verdict until it was looked at.
fn hand_on(hand: &Hand<'_>, notes: &mut Notes) {
    let gives = |bucket: &String| hand.may(bucket, BucketOperation::Verdict);
    if hand.mark.act != Act::Attack || !hand.input.as_ref().is_some_and(|(bucket, _)| gives(bucket)) {
        return;
    }
    let mut handed = false;
    for flow in hand.flows() {
        let Flow::Publish { queue, .. } = flow else { continue };
        handed |= hand.ask(Peer::Queue, hand.event(queue, UNSEEN)).is_ok_and(|answer| answer.is_success());
    }
    if handed {
        notes.untried(HANDED_ON);
        pause(WAITS);
    } else {
        notes.untried("nobody takes what it hands on");
    }
}

/// In the id of such a message.
pub(in crate::attacker) const UNSEEN: &str = "unseen";

/// Reads what it was handed so.
pub(in crate::attacker) fn look(hand: &Hand<'_>, notes: &mut Notes) {
    let Some((bucket, key)) = hand.input.as_ref().filter(|(bucket, _)| hand.may(bucket, BucketOperation::Read)) else { return };
    let answer = hand.ask(Peer::Objects, Request::new("GET", format!("/{bucket}/{key}")));
    judged(notes, answer, Cell::read(format!("bucket.{bucket} before its verdict"), Extent::JobInput), "read");
}
