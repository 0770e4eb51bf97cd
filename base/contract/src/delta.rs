//! A signed view as a change of the one before it: what stayed the same is not sent again.
//!
//! A delta names the view that it is made on, and says how the new one's payload is put together: runs of bytes of the old payload, and
//! new text. The result is the whole JWS to the byte, so the signature is over the full view and is verified as if it had come whole: a
//! delta that was changed, or put on another view, gives something that nobody signed.
//!
//! Spec:       RFC 7515, section 7.1 (compact JWS). The form of the change is our own; RFC 3284 has the same two instructions.
//! Guarantees: E16.
//! Not here:   whether the result is to be believed (`proxy::view`).

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use serde::{Deserialize, Serialize};
use trust::Digest;

use crate::control::SignedView;
use crate::transport::ANSWER_BYTES_MAX;

/// Why a delta is not the view that it should be; a whole one helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DeltaError {
    /// It is made on a view that is not held.
    #[error("the change is on another view than the one that is held")]
    OtherBase,
    /// It takes bytes that its base does not have, or the result is not text, or too long.
    #[error("the change does not fit the view that it is made on")]
    Unfit,
}

/// One instruction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Piece {
    /// So many bytes of the old payload from this one on: `[from, length]`.
    Kept(usize, usize),
    /// New text.
    New(String),
}

/// A new view on an old one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ViewDelta {
    /// Digest of the old JWS.
    pub base: Digest,
    /// The new JWS' header (base64url); absent: the old one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// The new payload.
    pub payload: Vec<Piece>,
    /// The new JWS' signature (base64url).
    pub signature: String,
}

/// Digest of a view, as `ViewDelta::base` has it.
#[must_use]
pub fn digest_of(view: &SignedView) -> Digest {
    Digest::of(view.view.as_bytes())
}

impl ViewDelta {
    /// How `new` is made of `old`; nothing when that would not be shorter, or one of them is no JWS.
    #[must_use]
    pub fn between(old: &SignedView, new: &SignedView) -> Option<Self> {
        let (old_header, old_payload, _) = parts(old)?;
        let (header, payload, signature) = parts(new)?;
        let payload = pieces(&old_payload, &payload)?;
        let text: usize = payload.iter().map(|piece| if let Piece::New(text) = piece { text.len() } else { 0 }).sum();
        let header = (header != old_header).then(|| header.to_owned());
        let shorter = text.saturating_add(header.as_ref().map_or(0, String::len)) < new.view.len() / 2;
        shorter.then(|| Self { base: digest_of(old), header, payload, signature: signature.to_owned() })
    }

    /// The whole view, put together. Its signature is not verified here.
    ///
    /// # Errors
    /// See `DeltaError`.
    pub fn onto(&self, old: &SignedView) -> Result<SignedView, DeltaError> {
        if digest_of(old) != self.base {
            return Err(DeltaError::OtherBase);
        }
        let (old_header, old_payload, _) = parts(old).ok_or(DeltaError::Unfit)?;
        let mut payload = Vec::with_capacity(old_payload.len());
        for piece in &self.payload {
            let more = match piece {
                Piece::New(text) => text.as_bytes(),
                Piece::Kept(from, length) => {
                    let end = from.checked_add(*length).ok_or(DeltaError::Unfit)?;
                    old_payload.get(*from..end).ok_or(DeltaError::Unfit)?
                }
            };
            if payload.len().saturating_add(more.len()) > ANSWER_BYTES_MAX {
                return Err(DeltaError::Unfit);
            }
            payload.extend_from_slice(more);
        }
        let header = self.header.as_deref().unwrap_or(old_header);
        Ok(SignedView { view: format!("{header}.{}.{}", B64.encode(payload), self.signature) })
    }
}

fn parts(view: &SignedView) -> Option<(&str, Vec<u8>, &str)> {
    let (header, rest) = view.view.split_once('.')?;
    let (payload, signature) = rest.split_once('.')?;
    Some((header, B64.decode(payload).ok()?, signature))
}

/// Cuts both after each closing brace (an entity, a cell, a rule) and looks for what is new among what is old. Runs are joined.
fn pieces(old: &[u8], new: &[u8]) -> Option<Vec<Piece>> {
    let mut known: HashMap<&[u8], usize> = HashMap::new();
    let mut at = 0_usize;
    for one in cut(old) {
        known.entry(one).or_insert(at);
        at = at.saturating_add(one.len());
    }
    let mut all: Vec<Piece> = Vec::new();
    for one in cut(new) {
        // First what goes on where the last run ended, so that repeated text does not tear a run.
        let next = match all.last() {
            Some(Piece::Kept(from, length)) => from.checked_add(*length),
            _ => None,
        };
        let goes_on = next.filter(|next| old.get(*next..).is_some_and(|rest| rest.starts_with(one)));
        match (goes_on.or_else(|| known.get(one).copied()), all.last_mut()) {
            (Some(from), Some(Piece::Kept(begun, length))) if begun.checked_add(*length) == Some(from) => {
                *length = length.saturating_add(one.len());
            }
            (Some(from), _) => all.push(Piece::Kept(from, one.len())),
            (None, Some(Piece::New(text))) => text.push_str(std::str::from_utf8(one).ok()?),
            (None, _) => all.push(Piece::New(std::str::from_utf8(one).ok()?.to_owned())),
        }
    }
    Some(all)
}

fn cut(payload: &[u8]) -> impl Iterator<Item = &[u8]> {
    payload.split_inclusive(|byte| *byte == b'}')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

    use super::*;

    fn view(header: &str, payload: &str, signature: &str) -> SignedView {
        SignedView { view: format!("{header}.{}.{signature}", B64.encode(payload)) }
    }

    fn long(epoch: u64, changed: &str) -> String {
        let rows: Vec<String> =
            (0..100).map(|n| format!("{{\"row\":{n},\"word\":\"{}\"}}", if n == 50 { changed } else { "same" })).collect();
        format!("{{\"epoch\":{epoch},\"rows\":[{}],\"é\":\"ü\"}}", rows.join(","))
    }

    // E16: the whole comes out to the byte, and what stayed the same is not sent.
    #[test]
    fn a_change_gives_the_whole_to_the_byte() {
        let old = view("h1", &long(1, "old"), "s1");
        for (header, text) in [("h1", long(2, "new")), ("h2", long(2, "old")), ("h1", long(1, "old")), ("h1", long(9, "old") + "{}more")] {
            let new = view(header, &text, "s2");
            let delta = ViewDelta::between(&old, &new).unwrap();
            assert_eq!(delta.onto(&old).unwrap(), new);
            assert_eq!(delta.header.is_some(), header != "h1");
            let sent = serde_json::to_string(&delta).unwrap();
            assert!(sent.len() < new.view.len() / 4, "{sent}");
            assert_eq!(serde_json::from_str::<ViewDelta>(&sent).unwrap(), delta);
        }
        let other = view("h1", &"x".repeat(9_000), "s2");
        assert_eq!(ViewDelta::between(&old, &other), None, "nothing in common: whole");
    }

    // E16: a change on another view, or of bytes that are not there, is no view.
    #[test]
    fn a_change_that_does_not_fit_is_refused() {
        let (old, new) = (view("h", &long(1, "old"), "s1"), view("h", &long(2, "new"), "s2"));
        let delta = ViewDelta::between(&old, &new).unwrap();
        assert_eq!(delta.onto(&new), Err(DeltaError::OtherBase));
        let with = |piece| ViewDelta { payload: vec![piece], ..delta.clone() }.onto(&old);
        assert_eq!(with(Piece::Kept(0, 1 << 20)), Err(DeltaError::Unfit));
        assert_eq!(with(Piece::Kept(usize::MAX, 2)), Err(DeltaError::Unfit));
        let length = long(1, "old").len();
        assert!(with(Piece::Kept(0, length)).is_ok());
        assert_eq!(with(Piece::Kept(1, length)), Err(DeltaError::Unfit));
        let bomb = ViewDelta { payload: vec![Piece::Kept(0, length); ANSWER_BYTES_MAX / length + 1], ..delta };
        assert_eq!(bomb.onto(&old), Err(DeltaError::Unfit), "small on the wire, larger than any view");
    }
}
