//! An administrator's session, or their password: what it changes of the system.

use contract::Who as Caller;

use super::{Notes, Row, Run, Visitor, Who};
use crate::attacker::http::Request;
use crate::attacker::script::filled;
use crate::{Cell, Control, Extent, Stride};

/// The row.
pub(super) const ROW: Row = Row {
    id: "insider",
    title: "Calls every route of operators, supervisors and roles through the edge, with an administrator's session; signs in by the password alone.",
    attack: "T1098",
    stride: Stride::E,
    controls: &[Control::Role, Control::SignIn, Control::StepUp, Control::FileModes],
    run: Run::Outside(run, &[Who::Insider, Who::InsiderMfa]),
};

/// Where a route of a role could be found at the edge: under no prefix, or one of those that lead to a role.
const PREFIXES: &[&str] = &["", "/console", contract::login::ISSUER_PATH, "/palisade"];

fn run(visitor: &Visitor<'_>, notes: &mut Notes) {
    if visitor.who == Who::Insider {
        password_alone(visitor, notes);
    }
    let roles = [
        ("control", contract::control::ROUTES),
        ("identity", contract::identity::ROUTES),
        ("login", contract::login::ROUTES),
        ("evidence", contract::evidence::ROUTES),
        ("queue", contract::queue::ROUTES),
    ];
    for (role, routes) in roles {
        // What is a person's is a page of the console, and what is the edge's or any door's is a page of sign-in: others try those.
        let inner = |route: &&contract::Route| !matches!(route.who, Caller::Person(_) | Caller::Doors | Caller::Roles(&["edge"]));
        for route in routes.iter().filter(inner) {
            for prefix in PREFIXES.iter().filter(|prefix| !(route.method == "GET" && **prefix == "/console")) {
                let (act, path) = (format!("{} {}", route.method, route.path), format!("{prefix}{}", filled(route.path, "x")));
                let request = Request::new(route.method, path);
                let request = if route.method == "GET" { request } else { request.body("application/json", "{}") };
                match visitor.door.ask(&request) {
                    // Some service of the system may have a route of that name.
                    Ok(answer) if answer.is_success() && !answer.text().contains("\"breach_service\"") => {
                        notes.reached(Cell::done(format!("role.{role}"), act.clone(), Extent::Everybody), act);
                    }
                    Ok(answer) => notes.stopped(Some(Control::FileModes), answer.status.to_string()),
                    Err(_) => notes.stopped(Some(Control::FileModes), "no answer"),
                }
            }
        }
    }
}

/// A password that was looked at, or used elsewhere as well: it ends at the question for the code.
fn password_alone(visitor: &Visitor<'_>, notes: &mut Notes) {
    match (visitor.by_password_alone)() {
        Ok(true) => {
            let cell = Cell::done("role.login", "sign in without the second factor", Extent::Everybody);
            notes.reached(cell, "the password alone gives a session");
        }
        Ok(false) => notes.stopped(Some(Control::SignIn), "the password alone: a code is asked for"),
        Err(error) => notes.untried(format!("signing in by the password alone: {error}")),
    }
}
