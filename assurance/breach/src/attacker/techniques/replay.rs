//! What was stolen elsewhere, tried here while it is still in flight there.

use manifest::Flow;

use super::{Act, Hand, Notes, Row, Run, judged};
use crate::attacker::hand::Peer;
use crate::attacker::http::Request;
use crate::attacker::mark::Mark;
use crate::attacker::raw;
use crate::attacker::script::filled;
use crate::{Cell, Control, Extent, Stride};

/// The row.
pub(super) const ROW: Row = Row {
    id: "replay",
    title: "Uses a token that another service holds right now, at its own flows.",
    attack: "T1550.001",
    stride: Stride::S,
    controls: &[Control::TransactionToken, Control::JobToken, Control::Lease],
    run: Run::InHand(run, Act::Replay),
};

fn run(hand: &Hand<'_>, notes: &mut Notes) {
    let Some((mark, stolen)) = hand.carry.as_deref().and_then(|carry| carry.split_once('~')) else {
        return notes.untried(crate::untried::NOTHING_STOLEN);
    };
    notes.shows(Some(("a service's token", "by another service, while it is in flight")));
    // What it passed on itself is its own, and still in flight here: no theft.
    let of = Mark::find(mark).map(|mark| mark.service).unwrap_or_default();
    let is_own = hand.script.passes_on(hand.service, &of);
    for flow in &hand.part.flows {
        match flow {
            Flow::Bucket { bucket, .. } => {
                // The stolen token's own object, which its holder may read.
                let own = Mark::find(mark).unwrap_or_else(|| hand.before(&hand.mark.person));
                let request = Request::new("GET", format!("/{bucket}/{}", own.key(bucket)));
                let cell = Cell::read(format!("bucket.{bucket}"), Extent::Everybody);
                judged(notes, hand.ask_as(Peer::Objects, request, Some(stolen)), cell, "another's token");
            }
            Flow::Publish { queue, .. } => {
                let answer = hand.ask_as(Peer::Queue, hand.event(queue, "replay"), Some(stolen));
                judged(notes, answer, Cell::done(format!("queue.{queue}"), "publish", Extent::Everybody), "another's token");
            }
            Flow::Call { service, method, path } if method != raw::METHOD && !is_own => {
                let answer = hand.ask_as(Peer::Named(service), Request::new(method, filled(path, "x")), Some(stolen));
                judged(
                    notes,
                    answer,
                    Cell::done(format!("service.{service}"), format!("{method} {path}"), Extent::Everybody),
                    "another's token",
                );
            }
            _ => {}
        }
    }
}
