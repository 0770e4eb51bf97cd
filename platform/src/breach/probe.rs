//! Probes: what the run looks at itself, where no attacker of the model comes by a control because another stands before it.
//!
//! Whoever calls a guard with another service's certificate or a page's owner in the gateway's place, reads the disk, changes a program or
//! edits the audit log is nobody of the model: there the run does it, in a copy that goes without such a control, at the place that goes
//! without it and at those that do not. A probe has two answers: the control stands there, or it is missing.
//!
//! Guarantees: L13: each control that can be switched off is found missing, and found standing elsewhere by the same means.
//! Not here:   what attackers of the model try (`breach::attacker`), what the audit log shows by itself (`review`).

pub(super) mod chain;
pub(super) mod disk;
mod genuine;
pub(super) mod page;
pub(super) mod program;
pub(super) mod stranger;

use breach::Control;

use crate::dangerous::DangerousSwitch;

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Probed {
    /// Of which control.
    pub(super) control: Control,
    /// Where.
    pub(super) place: String,
    /// Whether it stands.
    pub(super) stands: bool,
    /// What was done, and what came of it.
    pub(super) what: String,
}

impl Probed {
    fn new(control: Control, place: &str, stands: bool, what: impl Into<String>) -> Self {
        Self { control, place: place.to_owned(), stands, what: what.into() }
    }
}

/// Whether a control is left out anywhere.
pub(super) fn is_out(switches: &[DangerousSwitch], control: Control) -> bool {
    switches.iter().any(|switch| switch.control == control)
}

/// Whether a control is left out at this service or role.
pub(super) fn is_out_at(switches: &[DangerousSwitch], control: Control, place: &str) -> bool {
    switches.iter().any(|switch| switch.control == control && switch.at.as_deref().is_none_or(|at| at == place))
}
