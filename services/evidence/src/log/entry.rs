//! One line of the log: an entry, and the hash that chains it to all before it.
//!
//! A line is exactly `{"hash":"HEX","entry":ENTRY}` and a newline, where ENTRY is one JSON object in its original bytes and
//! HEX is SHA-256(0x01 ‖ hash before ‖ ENTRY). What is hashed is what is written: no canonical form has to be found again.
//!
//! Spec:       a simple hash chain, not RFC 6962's tree; the leading byte keeps its hashes apart from any other use of SHA-256.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use trust::{AuditRecord, SpiffeId};

/// Longest line, in bytes, with its newline.
pub const LINE_BYTES_MAX: usize = 256 * 1024;

const HEAD: &[u8] = b"{\"hash\":\"";
const MIDDLE: &[u8] = b"\",\"entry\":";
const TAIL: &[u8] = b"}\n";
const HEX_BYTES: usize = 64;

/// A link of the chain.
pub type Link = [u8; 32];

/// What the chain begins with: no record.
pub const GENESIS: Link = [0; 32];

/// An entry as it is written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its number in the log, from 1.
    pub n: u64,
    /// When `evidence` took it, milliseconds since the epoch.
    pub taken_ms: u64,
    /// Who told it, as the connection proved.
    pub workload: SpiffeId,
    /// Which run of which process.
    pub process: String,
    /// What was told.
    pub record: AuditRecord,
}

/// The next link.
#[must_use]
pub fn chain(before: &Link, entry: &[u8]) -> Link {
    Sha256::new().chain_update([1]).chain_update(before).chain_update(entry).finalize().into()
}

/// The line for an entry's JSON, and its link.
#[must_use]
pub fn frame(before: &Link, entry: &[u8]) -> (Vec<u8>, Link) {
    let link = chain(before, entry);
    let mut line = Vec::with_capacity(entry.len().saturating_add(96));
    line.extend_from_slice(HEAD);
    line.extend_from_slice(hex::encode(link).as_bytes());
    line.extend_from_slice(MIDDLE);
    line.extend_from_slice(entry);
    line.extend_from_slice(TAIL);
    (line, link)
}

/// Takes a whole line (with its newline) apart; nothing if it is not exactly of that form.
#[must_use]
pub fn unframe(line: &[u8]) -> Option<(Link, &[u8])> {
    let rest = line.strip_prefix(HEAD)?.strip_suffix(TAIL)?;
    let (digits, rest) = rest.split_at_checked(HEX_BYTES)?;
    let lower = digits.iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b));
    let link = if lower { hex::decode(digits).ok()?.try_into().ok()? } else { return None };
    Some((link, rest.strip_prefix(MIDDLE)?))
}

/// What an unfinished last line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfinished {
    /// The beginning of a line: a write that a crash cut short. It was never acknowledged.
    Torn,
    /// A whole line but for its newline: as good as written.
    NewlineMissing,
    /// No crash leaves this.
    Altered,
}

/// Judges the bytes after the last newline, which follow on `before`.
#[must_use]
pub fn judge(before: &Link, bytes: &[u8]) -> Unfinished {
    let whole = |bytes: &[u8]| {
        let mut line = bytes.to_vec();
        line.push(b'\n');
        unframe(&line).is_some_and(|(link, entry)| chain(before, entry) == link)
    };
    if whole(bytes) {
        return Unfinished::NewlineMissing;
    }
    if bytes.split_last().is_some_and(|(_, but_last)| whole(but_last)) {
        return Unfinished::Altered;
    }
    let zeroes = bytes.iter().all(|b| *b == 0); // A power cut may leave the length of a write without its bytes.
    let begins = bytes.iter().zip(HEAD).all(|(a, b)| a == b);
    if (begins || zeroes) && bytes.len() < LINE_BYTES_MAX { Unfinished::Torn } else { Unfinished::Altered }
}
