//! What `palisade breach` found, in words, as the operator tells it to `evidence` for the console.

use serde::{Deserialize, Serialize};
use trust::Digest;

/// A report of a breach, for people to look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreachTold {
    /// When it was told, milliseconds since the epoch; `evidence` says so, not who tells it.
    #[serde(default)]
    pub at_ms: u64,
    /// Whether it was measured by an attack, else predicted from the manifest.
    pub measured: bool,
    /// Digest of the manifest that it is about.
    pub manifest: Digest,
    /// One line for each attacker.
    pub attackers: Vec<BreachLine>,
    /// Rows and columns of the matrix.
    pub services: Vec<String>,
    /// Routes that the row can call of the column.
    pub matrix: Vec<Vec<u32>>,
    /// Where prediction and measurement differ, a sentence each.
    pub differences: Vec<String>,
}

/// What one attacker reaches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreachLine {
    /// Who: `service.transcoder`.
    pub who: String,
    /// How many things it reads, writes, does, finds as secrets, reaches outside, disturbs.
    pub counts: [u32; 6],
    /// The answer, in a sentence.
    pub sentence: String,
}
