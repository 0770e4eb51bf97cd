//! Marks: whose turn it is, in the name of an object, a query or a message, so that it travels wherever the work does.
//!
//! A mark is `breach.ACT.SERVICE.PERSON.NUMBER`. No name of a service or person has a dot in it.

use std::fmt;

/// What a marked request or delivery is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Act {
    /// Everybody cooperates.
    Calm,
    /// The named service attacks.
    Attack,
    /// The named service tries what was stolen elsewhere and is carried along.
    Replay,
    /// The named service uses up all that it can have, while others are timed.
    Press,
    /// The named service lends the run the authority that it has in hand, and attacks nobody.
    Lend,
}

/// A mark.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// What for.
    pub act: Act,
    /// The service that it is about; `none` in calm.
    pub service: String,
    /// Whose request began it.
    pub person: String,
    /// Which one.
    pub number: u32,
}

impl Mark {
    /// A mark.
    #[must_use]
    pub fn new(act: Act, service: &str, person: &str, number: u32) -> Self {
        Self { act, service: service.to_owned(), person: person.to_owned(), number }
    }

    /// The first mark in a text.
    #[must_use]
    pub fn find(text: &str) -> Option<Self> {
        let at = text.find("breach.")?;
        let rest = text.get(at..)?;
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '.').unwrap_or(rest.len());
        let mut parts = rest.get(..end)?.split('.').skip(1);
        let act = match parts.next()? {
            "calm" => Act::Calm,
            "attack" => Act::Attack,
            "replay" => Act::Replay,
            "press" => Act::Press,
            "lend" => Act::Lend,
            _ => return None,
        };
        let (service, person, number) = (parts.next()?, parts.next()?, parts.next()?.parse().ok()?);
        Some(Self::new(act, service, person, number))
    }

    /// The object that a request with this mark makes in a bucket.
    #[must_use]
    pub fn key(&self, bucket: &str) -> String {
        format!("{self}/{bucket}")
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let act = match self.act {
            Act::Calm => "calm",
            Act::Attack => "attack",
            Act::Replay => "replay",
            Act::Press => "press",
            Act::Lend => "lend",
        };
        write!(f, "breach.{act}.{}.{}.{}", self.service, self.person, self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_found_wherever_it_travels() {
        let mark = Mark::new(Act::Attack, "trans-coder", "ada", 7);
        for text in
            [mark.to_string(), format!("/originals/{mark}/originals"), format!("{{\"a\":\"{mark}\"}}"), format!("x=1&breach={mark}&y=2")]
        {
            assert_eq!(Mark::find(&text), Some(mark.clone()), "{text}");
        }
        for text in ["", "breach", "breach.calm.none", "breach.other.a.b.1", "breach.calm.a.b.x"] {
            assert_eq!(Mark::find(text), None, "{text}");
        }
    }
}
