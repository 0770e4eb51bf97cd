//! Tokens that were stolen inside, shown outside.

use super::forged::forgeries;
use super::{Notes, Row, Run, Visitor, Who};
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
        let mut tried = vec![token.clone()];
        tried.extend(forgeries(token, "bob").into_iter().map(|(_, forged)| forged));
        for token in tried {
            for (name, value) in [
                ("authorization", format!("Bearer {token}")),
                ("authorization", format!("DPoP {token}")),
                ("txn-token", token.clone()),
                ("x-api-key", token.clone()),
                ("cookie", format!("__Host-palisade={token}")),
            ] {
                for (service, part) in &visitor.script.services {
                    let Some(route) = part.routes.iter().find(|route| route.public && route.method == "GET") else { continue };
                    let said = format!("\"breach_service\":\"{service}\"");
                    match visitor.bare.ask(&Request::new("GET", filled(&route.path, "x")).with(name, value.clone())) {
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
