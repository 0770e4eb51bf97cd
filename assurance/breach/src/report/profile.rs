//! Profiles: who the attacker is, and where it starts.
//!
//! Each is written as a word, so that it can be chosen on a command line and be a key in JSON.
//!
//! Guarantees: L7 five kinds of attacker: from outside, a signed-in person, each service, an insider, a partner.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An attacker.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Profile {
    /// `external`: reaches the edge and has no credential.
    External,
    /// `person`: signed in, with every scope that a route asks for, and no role. What it has besides its own is a finding.
    Person,
    /// `service.NAME`: runs code inside the sandbox of that service, with the work that it is given.
    Service(String),
    /// `insider`: an administrator's session without a second proof.
    Insider,
    /// `insider-mfa`: an administrator who proved themselves again just now.
    InsiderMfa,
    /// `vendor`: a partner's key, which acts for the partner's own account.
    Vendor,
}

/// A text is not a profile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no attacker; there are external, person, service.NAME, insider, insider-mfa and vendor")]
pub struct ProfileError(pub String);

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::External => f.write_str("external"),
            Self::Person => f.write_str("person"),
            Self::Service(name) => write!(f, "service.{name}"),
            Self::Insider => f.write_str("insider"),
            Self::InsiderMfa => f.write_str("insider-mfa"),
            Self::Vendor => f.write_str("vendor"),
        }
    }
}

impl FromStr for Profile {
    type Err = ProfileError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "external" => Self::External,
            "person" => Self::Person,
            "insider" => Self::Insider,
            "insider-mfa" => Self::InsiderMfa,
            "vendor" => Self::Vendor,
            other => match other.strip_prefix("service.") {
                Some(name) if !name.is_empty() => Self::Service(name.to_owned()),
                _ => return Err(ProfileError(text.to_owned())),
            },
        })
    }
}

impl Serialize for Profile {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Profile {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}
