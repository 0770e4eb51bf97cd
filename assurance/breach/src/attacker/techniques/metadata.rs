//! The metadata service of a cloud, which gives credentials to whoever asks.

use std::net::{Ipv4Addr, SocketAddr};

use super::{Alone, Notes, Row, Run, refusal};
use crate::attacker::http::{Ask, Port, Request};
use crate::names;
use crate::{Cell, Control, Stride};

/// The row.
pub(super) const ROW: Row = Row {
    id: "metadata",
    title: "Asks the machine's metadata service for the credentials of its role.",
    attack: "T1552.005",
    stride: Stride::I,
    controls: &[Control::NetworkNamespace, Control::Landlock],
    run: Run::Alone(run, &[]),
};

fn run(_alone: &Alone<'_>, notes: &mut Notes) {
    let service = Port(SocketAddr::from((Ipv4Addr::new(169, 254, 169, 254), 80)));
    match service.ask(&Request::new("GET", "/latest/meta-data/iam/security-credentials/")) {
        Ok(answer) if answer.is_success() => notes.reached(Cell::secret(names::METADATA), "credentials of the machine"),
        Ok(answer) => notes.stopped(None, answer.status.to_string()),
        Err(error) => {
            let (by, seen) = refusal(&error);
            notes.stopped(by, seen);
        }
    }
}
