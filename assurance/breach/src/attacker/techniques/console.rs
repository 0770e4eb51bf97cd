//! The console: the system's map, its services and its audit log.

use super::{Notes, Row, Run, Visitor, Who};
use crate::attacker::http::Request;
use crate::{Cell, Control, Extent, Stride};

/// The row.
pub(super) const ROW: Row = Row {
    id: "console",
    title: "Reads the console's pages with what it has: nothing, a session, a key, an administrator's session.",
    attack: "T1613",
    stride: Stride::I,
    controls: &[Control::SignIn, Control::Role],
    run: Run::Outside(run, &[Who::Stranger, Who::Person, Who::Insider, Who::InsiderMfa, Who::Vendor]),
};

/// Paths, the routes that they are on, and the planes that they show.
const PAGES: &[(&str, &str, &[&str])] =
    &[("/console", "GET /console", &["plane.manifest", "plane.services"]), ("/console/audit", "GET /console/{*page}", &["plane.audit"])];

fn run(visitor: &Visitor<'_>, notes: &mut Notes) {
    for (path, route, planes) in PAGES {
        match visitor.door.ask(&Request::new("GET", *path)) {
            Ok(answer) if answer.is_success() => {
                notes.reached(Cell::done("role.evidence", *route, Extent::Everybody), "a page of the console");
                for plane in *planes {
                    notes.reached(Cell::read(*plane, Extent::Everybody), "a page of the console");
                }
            }
            Ok(answer) => {
                let by = if visitor.who == Who::Stranger { Control::SignIn } else { Control::Role };
                notes.stopped(Some(by), answer.status.to_string());
            }
            Err(_) => notes.stopped(None, "no answer"),
        }
    }
}
