//! Blast radius: what an attacker reaches who owns one part of a system, as data that a machine compares.
//!
//! A `Report` has for each attacker (`Profile`) what it reads, writes, does, finds and disturbs, and which service can really call
//! which route of which other. One that was predicted from a manifest and one that was measured by breaking in have the same form, so
//! they can be held against each other, cell by cell.
//!
//! Guarantees: L7 to L12.
//! Not here:   the system that is broken into; files, processes, the command line (`palisade`).

pub mod absent;
pub mod attacker;
pub mod compare;
pub mod defence;
pub mod names;
pub mod posture;
pub mod predict;
pub mod report;
pub mod show;
pub mod technique;
pub mod untried;

pub use absent::{Absent, Beyond};
pub use attacker::{Act, Hand, Mark, Notes, Script, Targets, Tried};
pub use compare::{Between, Change, Comparison, Difference, What, compare, measurable};
pub use defence::Protected;
pub use predict::{PredictError, Prediction, Way, predict, vendor_scopes};
pub use report::{
    Cell, Deputy, Extent, How, Kind, Lasts, Lateral, Measured, Neighbour, Pace, Profile, Radius, Reached, Report, SLOWER_FACTOR, SLOWER_MS,
    Theft, Thefts, Took,
};
pub use technique::{Attempt, Control, Detected, Outcome, Stride, Technique};
pub use untried::Gap;
