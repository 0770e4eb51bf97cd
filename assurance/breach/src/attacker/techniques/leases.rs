//! A delivery that another service has in hand: its lease is named in the token that was stolen from there.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::{Act, Hand, Notes, Row, Run, judged};
use crate::attacker::hand::Peer;
use crate::attacker::http::Request;
use crate::untried::BY_PUSH;
use crate::{Cell, Control, Extent, Stride};

/// The row.
pub(super) const ROW: Row = Row {
    id: "leases",
    title: "Ends, extends and inspects the delivery of another service by its genuine lease, with its token and with none.",
    attack: "T1550",
    stride: Stride::T,
    controls: &[Control::GuardOut, Control::Policy, Control::Lease],
    run: Run::InHand(run, Act::Replay),
};

fn run(hand: &Hand<'_>, notes: &mut Notes) {
    // Tokens of requests have none.
    let Some((stolen, lease)) =
        hand.carry.as_deref().and_then(|carry| carry.split_once('~')).and_then(|(_, token)| Some((token, lease(token)?)))
    else {
        return;
    };
    for (method, act) in [("POST", "extend"), ("POST", "ack"), ("POST", "nack"), ("GET", "")] {
        let path = format!("/leases/{lease}/{act}");
        for (token, how) in [(Some(stolen), "its token"), (hand.token.as_deref(), "its own token"), (None, "no token")] {
            notes.shows(Some(("a job's lease", &format!("by another service, with {how}"))));
            let request = Request::new(method, path.trim_end_matches('/'));
            let request = if method == "POST" { request.body("application/json", "{}") } else { request };
            let what = format!("another's lease, {}", if act.is_empty() { "inspect" } else { act });
            let cell = Cell::done("role.queue", what.clone(), Extent::Everybody);
            match hand.ask_as(Peer::Queue, request, token) {
                // What was delivered cannot be asked about, extended or ended by anybody: only what was taken can.
                Ok(answer) if answer.status == 404 => {
                    notes.untried(format!("{BY_PUSH}, and nobody holds one that they took: {what}"));
                }
                answer => {
                    judged(notes, answer, cell, &what);
                }
            }
        }
    }
}

/// The lease that a job's token names.
fn lease(token: &str) -> Option<String> {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&claims).ok()?;
    Some(claims.get("job")?.get("lease")?.as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lease_of_a_job_is_in_its_token() {
        let token = |claims: &str| format!("e30.{}.x", URL_SAFE_NO_PAD.encode(claims));
        assert_eq!(lease(&token(r#"{"job":{"lease":"l1"}}"#)).as_deref(), Some("l1"));
        assert_eq!(lease(&token(r#"{"sub":"ada"}"#)), None);
        assert_eq!(lease("x"), None);
    }
}
