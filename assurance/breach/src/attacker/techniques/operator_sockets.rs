//! The operator's sockets, called by another user of the machine: an administrator of the application with a login there.

use std::path::Path;

use super::{Notes, Row, Run, Visitor, Who};
use crate::{Cell, Control, Extent, Stride};

/// The row.
pub(super) const ROW: Row = Row {
    id: "operator-sockets",
    title: "Calls the operator's sockets as another user of the machine, as they lie there and with all file modes set aside.",
    attack: "T1078.003",
    stride: Stride::E,
    controls: &[Control::FileModes, Control::PeerCredentials],
    run: Run::Outside(run, &[Who::Insider, Who::InsiderMfa]),
};

fn run(visitor: &Visitor<'_>, notes: &mut Notes) {
    for socket in &visitor.script.targets.sockets {
        let role = Path::new(socket).file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        for (modes_aside, by, how) in
            [(false, Control::FileModes, "as it lies there"), (true, Control::PeerCredentials, "its file modes set aside")]
        {
            match (visitor.as_another_user)(socket, modes_aside) {
                Ok(said) if said.starts_with("status 2") => {
                    let cell = Cell::done(format!("role.{role}"), "operator's socket", Extent::Everybody);
                    notes.reached(cell, format!("{how}: {said}"));
                }
                Ok(said) => notes.stopped(Some(by), format!("{how}: {said}")),
                Err(why) => notes.untried(format!("{} ({}); run it as root", crate::untried::NOBODY_ELSE, why.kind())),
            }
        }
    }
}
