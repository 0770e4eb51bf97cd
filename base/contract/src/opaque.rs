//! Opaque credentials: API keys and reference tokens, which say nothing and stand for what `login` keeps about them.
//!
//! `palk_` or `palt_`, 256 random bits in hexadecimal, and a checksum: scanners for secrets find them by their beginning and tell a real
//! one from an example by its end, and whoever takes them refuses a mistyped one without asking anybody.
//!
//! Spec:       RFC 6750, section 2.1 (they are `b64token`s).
//! Guarantees: A8, A12 nothing can be learnt from one but its kind.
//! Not here:   what one stands for (`login`).

use trust::{Digest, Entropy, Secret, clock};

/// What a credential stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An API key: a person's scopes for a program, for weeks.
    Key,
    /// An access token, for minutes.
    Token,
}

const BYTES: usize = 32;
const CHECKSUM_CHARS: usize = 8;

impl Kind {
    fn prefix(self) -> &'static str {
        match self {
            Self::Key => "palk_",
            Self::Token => "palt_",
        }
    }
}

/// A new one, to be shown once.
#[must_use]
pub fn random(kind: Kind, entropy: &dyn Entropy) -> Secret<String> {
    let text = format!("{}{}", kind.prefix(), clock::random_hex(entropy, BYTES));
    let checksum = checksum(&text);
    Secret::new(text + &checksum)
}

/// Whether it begins as one of ours does, whatever follows.
#[must_use]
pub fn is_meant(text: &str) -> bool {
    meant(text).is_some()
}

/// The kind that it would be by its beginning, whatever follows.
#[must_use]
pub fn meant(text: &str) -> Option<Kind> {
    [Kind::Key, Kind::Token].into_iter().find(|kind| text.starts_with(kind.prefix()))
}

/// The kind of a credential that has the form of one and the right checksum.
#[must_use]
pub fn kind_of(text: &str) -> Option<Kind> {
    let kind = meant(text)?;
    let (said, end) = text.split_at_checked(kind.prefix().len().saturating_add(2 * BYTES))?;
    let hex = said.get(kind.prefix().len()..)?.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'));
    (hex && end == checksum(said)).then_some(kind)
}

/// Against slips, not against forgers.
fn checksum(text: &str) -> String {
    Digest::of(text.as_bytes()).to_hex().get(..CHECKSUM_CHARS).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

    use trust::SystemEntropy;

    use super::*;

    // A12: the form, and every slip of one letter.
    #[test]
    fn a_credential_says_its_kind_and_one_that_is_mistyped_is_none() {
        for (kind, prefix) in [(Kind::Key, "palk_"), (Kind::Token, "palt_")] {
            let (a, b) = (random(kind, &SystemEntropy), random(kind, &SystemEntropy));
            let text = a.expose();
            assert_ne!(text, b.expose());
            assert_eq!((kind_of(text), text.len()), (Some(kind), 77));
            assert!(text.starts_with(prefix) && is_meant(text));
            for at in 0..text.len() {
                let other = if &text[at..=at] == "0" { "1" } else { "0" };
                let slip = format!("{}{other}{}", &text[..at], &text[at + 1..]);
                assert_eq!(kind_of(&slip), None, "{slip}");
            }
            for none in [text.to_uppercase(), text[1..].to_owned(), format!("{text}0"), text[..76].to_owned(), prefix.to_owned()] {
                assert_eq!(kind_of(&none), None, "{none}");
            }
        }
    }
}
