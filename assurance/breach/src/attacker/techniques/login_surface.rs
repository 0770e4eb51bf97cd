//! What the edge answers before anybody has signed in: the pages and endpoints of `login`.

use contract::Who as Caller;

use super::{Notes, Row, Run, Visitor, Who};
use crate::attacker::http::Request;
use crate::{Cell, Control, Extent, Stride};

/// The row.
pub(super) const ROW: Row = Row {
    id: "login-surface",
    title: "Calls every route of the sign-in service, those of operators among them.",
    attack: "T1133",
    stride: Stride::S,
    controls: &[Control::SignIn],
    run: Run::Outside(run, &[Who::Stranger, Who::Person, Who::Insider, Who::InsiderMfa, Who::Vendor]),
};

fn run(visitor: &Visitor<'_>, notes: &mut Notes) {
    for route in contract::login::ROUTES {
        let path = format!("{}{}", contract::login::ISSUER_PATH, route.path.replace("{user}", "x").replace("{key}", "x"));
        let request = Request::new(route.method, path);
        let form = "application/x-www-form-urlencoded";
        let request = if route.method == "POST" { request.body(form, "grant_type=none") } else { request };
        let operators = route.who == Caller::Operator;
        // These ask for a credential of their own; of the others the question is whether anybody may ask, whatever the answer.
        let credential = operators || matches!(route.action, "login.userinfo" | "login.introspect");
        let answers = |status: u16| if credential { status < 400 } else { !matches!(status, 404 | 405 | 421) && status < 500 };
        match visitor.bare.ask(&request) {
            Ok(answer) if answers(answer.status) => {
                let (what, extent) =
                    (format!("{} {}", route.method, route.path), if operators { Extent::Everybody } else { Extent::Public });
                notes.reached(Cell::done("role.login", what, extent), "answers strangers");
            }
            Ok(answer) => notes.stopped(Some(Control::SignIn), answer.status.to_string()),
            Err(_) => notes.stopped(Some(Control::SignIn), "no answer"),
        }
    }
}
