//! Tokens that were stolen inside, shown outside.

use super::forged::forgeries;
use super::{Notes, Row, Run, Visitor, Who, patiently};
use crate::attacker::hand::HOPS_MAX;
use crate::attacker::http::Request;
use crate::attacker::script::filled;
use crate::{Cell, Control, Extent, Stride};

/// The row.
pub(super) const ROW: Row = Row {
    id: "tokens-outside",
    title: "Shows the edge tokens that were stolen from services, in every field that a credential can come in.",
    attack: "T1550.001",
    stride: Stride::S,
    controls: &[Control::SignIn, Control::TransactionToken],
    run: Run::Outside(run, &[Who::Stranger]),
};

fn run(visitor: &Visitor<'_>, notes: &mut Notes) {
    if visitor.stolen.is_empty() {
        return notes.untried(crate::untried::NOTHING_STOLEN);
    }
    for (what, token) in visitor.stolen {
        let mut tried = vec![(token.clone(), true)];
        tried.extend(forgeries(token, "bob").into_iter().map(|(_, forged)| (forged, false)));
        for (token, genuine) in tried {
            let bearer = ("authorization", format!("Bearer {token}"));
            let elsewhere = [
                ("authorization", format!("DPoP {token}")),
                ("txn-token", token.clone()),
                ("x-api-key", token.clone()),
                ("cookie", format!("__Host-palisade={token}")),
            ];
            // What was changed is tried where it would be read as a token at all.
            for (name, value) in std::iter::once(bearer).chain(elsewhere.into_iter().filter(|_| genuine)) {
                notes.shows(Some(("a service's token", &format!("at the edge, in the field {name}"))));
                for (service, part) in &visitor.script.services {
                    let Some(route) = part.routes.iter().find(|route| route.public && route.method == "GET") else { continue };
                    let target = format!("{}?breach={}&hops={HOPS_MAX}", filled(&route.path, &visitor.own), visitor.own);
                    let said = format!("\"breach_service\":\"{service}\"");
                    match patiently(visitor.bare, &Request::new("GET", target).with(name, value.clone())) {
                        Ok(answer) if answer.text().contains(&said) => {
                            notes.reached(Cell::read(format!("service.{service}"), Extent::Everybody), format!("{what} opens the edge"));
                        }
                        Ok(answer) => notes.stopped(Some(Control::SignIn), format!("{what} in {name}: {}", answer.status)),
                        Err(_) => notes.stopped(Some(Control::SignIn), format!("{what} in {name}: no answer")),
                    }
                }
            }
        }
    }
}
