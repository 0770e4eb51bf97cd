//! SPIFFE IDs (SPIFFE-ID, sections 2 and 2.3): who a workload is.
//!
//! Palisade's workloads have two kinds of path: `/role/NAME` for its own processes and `/service/NAME` for the manifest's services.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest SPIFFE ID (SPIFFE-ID, section 2.3), in bytes.
pub const SPIFFE_ID_BYTES_MAX: usize = 2048;

/// A trust domain: lower-case letters, digits, `-`, `_` and `.`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(String);

/// A SPIFFE ID of a Palisade workload.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    /// The trust domain.
    pub trust_domain: TrustDomain,
    /// Which workload in it.
    pub workload: Workload,
}

/// A workload of a trust domain.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Workload {
    /// One of Palisade's own processes: `edge`, `control`, `queue`…
    Role(String),
    /// A service of the manifest, spoken for by its guard.
    Service(String),
    /// A policy enforcement point of somebody else's making (an Envoy), as the manifest declares it.
    Pep(String),
    /// The policy decision point of that one: the process of ours that decides for it and hands it its identity.
    Pdp(String),
}

/// Why a text is no SPIFFE ID of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeIdError {
    /// Not `spiffe://`.
    #[error("a SPIFFE ID begins with spiffe://")]
    Scheme,
    /// Longer than the standard allows.
    #[error("a SPIFFE ID has at most {SPIFFE_ID_BYTES_MAX} bytes")]
    TooLong,
    /// A trust domain with other characters.
    #[error("a trust domain has lower-case letters, digits, '-', '_' and '.' only, 1 to 255 of them")]
    TrustDomain,
    /// A path that is not `/KIND/NAME` of one of our kinds.
    #[error("the path is /role/NAME, /service/NAME, /pep/NAME or /pdp/NAME, where NAME has lower-case letters, digits and '-'")]
    Path,
}

impl TrustDomain {
    /// Parses a trust domain name.
    ///
    /// # Errors
    /// `TrustDomain` for an empty one, one over 255 bytes, or another character (SPIFFE-ID, section 2.1).
    pub fn parse(text: &str) -> Result<Self, SpiffeIdError> {
        let fits = (1..=255).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.'));
        fits.then(|| Self(text.to_owned())).ok_or(SpiffeIdError::TrustDomain)
    }
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// The id of one of Palisade's own processes.
    #[must_use]
    pub fn role(&self, name: &str) -> SpiffeId {
        SpiffeId { trust_domain: self.clone(), workload: Workload::Role(name.to_owned()) }
    }
    /// The id of a service of the manifest.
    #[must_use]
    pub fn service(&self, name: &str) -> SpiffeId {
        SpiffeId { trust_domain: self.clone(), workload: Workload::Service(name.to_owned()) }
    }
    /// The id of an enforcement point of somebody else's making.
    #[must_use]
    pub fn pep(&self, name: &str) -> SpiffeId {
        SpiffeId { trust_domain: self.clone(), workload: Workload::Pep(name.to_owned()) }
    }
    /// The id of the decision point of that one.
    #[must_use]
    pub fn pdp(&self, name: &str) -> SpiffeId {
        SpiffeId { trust_domain: self.clone(), workload: Workload::Pdp(name.to_owned()) }
    }
}

impl Workload {
    /// The name, without its kind. Manifests refuse one name for two, so that it is unambiguous within a system; an enforcement point and
    /// its decision point share theirs, since policies know them as one.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Role(name) | Self::Service(name) | Self::Pep(name) | Self::Pdp(name) => name,
        }
    }
}

impl SpiffeId {
    /// Its text, in pieces.
    #[must_use]
    pub fn pieces(&self) -> [&str; 4] {
        let (kind, name) = match &self.workload {
            Workload::Role(name) => ("/role/", name),
            Workload::Service(name) => ("/service/", name),
            Workload::Pep(name) => ("/pep/", name),
            Workload::Pdp(name) => ("/pdp/", name),
        };
        ["spiffe://", &self.trust_domain.0, kind, name]
    }

    /// The name of one of Palisade's roles, or nothing for another workload.
    #[must_use]
    pub fn as_role(&self) -> Option<&str> {
        match &self.workload {
            Workload::Role(name) => Some(name),
            _ => None,
        }
    }
    /// The name of a service, or nothing for another workload.
    #[must_use]
    pub fn as_service(&self) -> Option<&str> {
        match &self.workload {
            Workload::Service(name) => Some(name),
            _ => None,
        }
    }
    /// The name of an enforcement point of somebody else's making, or nothing for another workload.
    #[must_use]
    pub fn as_pep(&self) -> Option<&str> {
        match &self.workload {
            Workload::Pep(name) => Some(name),
            _ => None,
        }
    }
    /// The name of a decision point, or nothing for another workload.
    #[must_use]
    pub fn as_pdp(&self) -> Option<&str> {
        match &self.workload {
            Workload::Pdp(name) => Some(name),
            _ => None,
        }
    }
}

/// Whether `name` may name a service, bucket, queue or role: 1 to 63 lower-case letters, digits and inner `-`.
#[must_use]
pub fn is_name(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pieces().iter().try_for_each(|piece| f.write_str(piece))
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeIdError;
    fn from_str(text: &str) -> Result<Self, SpiffeIdError> {
        if text.len() > SPIFFE_ID_BYTES_MAX {
            return Err(SpiffeIdError::TooLong);
        }
        let rest = text.strip_prefix("spiffe://").ok_or(SpiffeIdError::Scheme)?;
        let (domain, path) = rest.split_once('/').ok_or(SpiffeIdError::Path)?;
        let trust_domain = TrustDomain::parse(domain)?;
        let workload = match path.split_once('/') {
            Some(("role", name)) if is_name(name) => Workload::Role(name.to_owned()),
            Some(("service", name)) if is_name(name) => Workload::Service(name.to_owned()),
            Some(("pep", name)) if is_name(name) => Workload::Pep(name.to_owned()),
            Some(("pdp", name)) if is_name(name) => Workload::Pdp(name.to_owned()),
            _ => return Err(SpiffeIdError::Path),
        };
        Ok(Self { trust_domain, workload })
    }
}

macro_rules! as_text {
    ($type:ty, $parse:expr) => {
        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = String::deserialize(d)?;
                $parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}
// Expands to serde by way of Display and the parser named.
as_text!(TrustDomain, TrustDomain::parse);
as_text!(SpiffeId, |text: &str| text.parse::<SpiffeId>());

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    // C1: the vectors of SPIFFE-ID sections 2.1 to 2.3 that apply to ids of ours.
    #[test]
    fn only_well_formed_ids_parse() {
        for good in ["spiffe://video.example/service/api", "spiffe://a_b-c.d/role/edge", "spiffe://v/pep/envoy", "spiffe://v/pdp/envoy"] {
            assert_eq!(good.parse::<SpiffeId>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "spiffe://",
            "http://video.example/service/api",
            "spiffe://Video.example/service/api",
            "spiffe://v/service/",
            "spiffe://v/service/../api",
            "spiffe://v/service/api/",
            "spiffe://v/service//api",
            "spiffe://v:80/service/api",
            "spiffe://u@v/service/api",
            "spiffe://v/service/api?x",
            "spiffe://v/service/api#x",
            "spiffe://v/other/api",
            "spiffe://v/service/API",
            "SPIFFE://v/service/api",
            "spiffe://v/service/a%70i",
            "spiffe:///service/api",
        ] {
            assert!(bad.parse::<SpiffeId>().is_err(), "{bad}");
        }
    }
}
