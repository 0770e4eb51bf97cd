//! An administrator's session: what it changes without a second proof.

use super::{Notes, Row, Run, Visitor, Who};
use crate::attacker::http::Request;
use crate::{Cell, Control, Extent, Stride};

/// The row.
pub(super) const ROW: Row = Row {
    id: "insider",
    title: "Changes manifest, identities, people, keys and the audit log with an administrator's session.",
    attack: "T1098",
    stride: Stride::E,
    controls: &[Control::Role, Control::StepUp, Control::FileModes],
    run: Run::Outside(run, &[Who::Insider]),
};

fn run(visitor: &Visitor<'_>, notes: &mut Notes) {
    for (method, path, role, act) in [
        ("POST", "/apply", "role.control", "POST /apply"),
        ("POST", "/console/apply", "role.control", "POST /apply"),
        ("POST", "/palisade/apply", "role.control", "POST /apply"),
        ("POST", "/console/revoke", "role.control", "POST /revocations"),
        ("POST", "/oidc/users", "role.login", "POST /users"),
        ("POST", "/oidc/keys", "role.login", "POST /keys"),
        ("DELETE", "/console/audit", "role.evidence", "DELETE /audit"),
    ] {
        let request = Request::new(method, path).body("application/json", "{}");
        match visitor.door.ask(&request) {
            Ok(answer) if answer.is_success() => notes.reached(Cell::done(role, act, Extent::Everybody), act),
            Ok(answer) => notes.stopped(Some(Control::FileModes), format!("{act}: {}", answer.status)),
            Err(_) => notes.stopped(Some(Control::FileModes), format!("{act}: no answer")),
        }
    }
}
