//! Authority: on whose behalf, for which purpose, and over which job a request is made.
//!
//! It is never standing: it travels with the work, in a transaction token (draft-ietf-oauth-transaction-tokens), and these are
//! that token's contents once verified. How it is signed and checked is `contract::txn_token`.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::limits;

/// What a verified transaction token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    /// The transaction: one id from the edge to the last consumer (`txn`).
    pub txn: String,
    /// The person (`sub`), as `login` names them.
    pub user: String,
    /// Why, one of the manifest's purposes (`purp`).
    pub purpose: String,
    /// OAuth scopes the person's token had, narrowed to the route's.
    pub scopes: BTreeSet<String>,
    /// The person's roles.
    #[serde(default)]
    pub roles: BTreeSet<String>,
    /// Whether the person proved themselves again just now.
    #[serde(default)]
    pub step_up: bool,
    /// The work in hand; present only in tokens that `queue` narrowed for a delivery.
    #[serde(default)]
    pub job: Option<Job>,
}

/// A delivered message's work: the only reason for which a worker may touch an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// The message, stable over redeliveries.
    pub id: String,
    /// This delivery; dead after ack, nack, time-out or the end of its connection.
    pub lease: String,
    /// The queue that it came from.
    pub queue: String,
    /// The service that may use it.
    pub consumer: String,
    /// Objects that it names as input.
    pub inputs: Vec<ObjectRef>,
    /// The folder (first key segment) that its outputs go to.
    pub folder: String,
}

/// A bucket and a key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectRef {
    /// Bucket name, as in the manifest.
    pub bucket: String,
    /// Object key, unescaped.
    pub key: String,
}

/// Why a text is not an object reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ObjectRefError {
    /// No `/` between bucket and key.
    #[error("an object is named bucket/key; there is no '/'")]
    NoSlash,
    /// Empty, too long, or with segments that a path normaliser would change.
    #[error(
        "object key is empty, longer than {} bytes, or has an empty, '.' or '..' segment or a control character",
        limits::OBJECT_KEY_BYTES_MAX
    )]
    BadKey,
}

impl ObjectRef {
    /// A reference to `key` in `bucket`.
    ///
    /// # Errors
    /// `BadKey` when the key could be read in two ways: empty, over 1,024 bytes, dot segments, empty segments, control characters.
    pub fn new(bucket: impl Into<String>, key: impl Into<String>) -> Result<Self, ObjectRefError> {
        let (bucket, key) = (bucket.into(), key.into());
        let unambiguous = key.split('/').all(|s| !s.is_empty() && s != "." && s != "..")
            && !key.chars().any(char::is_control)
            && key.len() <= limits::OBJECT_KEY_BYTES_MAX
            && !key.contains('\\');
        if bucket.is_empty() || !unambiguous {
            return Err(ObjectRefError::BadKey);
        }
        Ok(Self { bucket, key })
    }

    /// The first segment of the key when there is another after it, else the empty folder.
    #[must_use]
    pub fn folder(&self) -> &str {
        self.key.split_once('/').map_or("", |(folder, _)| folder)
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.bucket, self.key)
    }
}

impl FromStr for ObjectRef {
    type Err = ObjectRefError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (bucket, key) = text.split_once('/').ok_or(ObjectRefError::NoSlash)?;
        Self::new(bucket, key)
    }
}

impl Serialize for ObjectRef {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ObjectRef {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn keys_that_can_be_read_in_two_ways_are_refused() {
        for bad in ["b/", "b//x", "b/../x", "b/x/./y", "b/x\0y", "b/a\\b", "nokey"] {
            assert!(bad.parse::<ObjectRef>().is_err(), "{bad}");
        }
        let good: ObjectRef = "originals/018f/original".parse().unwrap();
        assert_eq!((good.folder(), good.to_string().as_str()), ("018f", "originals/018f/original"));
    }
}
