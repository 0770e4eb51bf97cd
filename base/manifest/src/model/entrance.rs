//! The edge: where it listens, what it is called, which certificates it shows, whom it believes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use serde::Serialize;
use trust::Network;

use super::{Client, Issuer, Rate};

/// The edge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Edge {
    /// Address and port.
    pub listen: SocketAddr,
    /// Host names that it answers to, that of `content` included.
    pub hosts: BTreeSet<String>,
    /// The host that presigned URLs are for, which serves nothing else; absent: they are at the host that people sign in at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// Idle life of a session, ms.
    pub session_idle_ms: u64,
    /// Whole life of a session, ms.
    pub session_life_ms: u64,
    /// Identity providers whose access tokens count besides those of `login`, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub issuers: BTreeMap<String, Issuer>,
    /// Applications that people may sign in to besides the system's own pages, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub clients: BTreeMap<String, Client>,
    /// PEM file of the authorities of clients' certificates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<String>,
    /// Certificates that were brought, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub certificates: BTreeMap<String, Certificate>,
    /// Certificates by ACME.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acme: Option<Acme>,
    /// Load balancers that say whom they connect for; none: nobody is believed.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub proxies: BTreeSet<Network>,
    /// How much one may ask for.
    #[serde(skip_serializing_if = "EdgeLimits::is_standard")]
    pub limits: EdgeLimits,
    /// What is kept of access logs.
    #[serde(skip_serializing_if = "AccessLog::is_standard")]
    pub access_log: AccessLog,
}

/// How much one address and one person may ask the edge for, over all routes; what is absent is the edge's standard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct EdgeLimits {
    /// Requests of one address; its period is a second.
    pub address: Option<Rate>,
    /// Requests of one person; its period is a second.
    pub person: Option<Rate>,
    /// Requests of one address under way.
    pub address_in_flight: Option<u32>,
    /// Requests of one person under way.
    pub person_in_flight: Option<u32>,
    /// Requests under way in all.
    pub in_flight: Option<u32>,
    /// Connections of one address.
    pub address_connections: Option<u32>,
}

impl EdgeLimits {
    fn is_standard(&self) -> bool {
        *self == Self::default()
    }
}

/// What is kept of each access log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct AccessLog {
    /// Bytes.
    pub bytes: u64,
    /// Age, ms.
    pub age_ms: u64,
}

impl AccessLog {
    /// What holds where the manifest says nothing.
    pub(crate) const STANDARD: Self = Self { bytes: 256 << 20, age_ms: 14 * 86_400_000 };

    /// Manifests that do not say so have the digest that they always had.
    fn is_standard(&self) -> bool {
        *self == Self::STANDARD
    }
}

/// Where the edge offers a service's public routes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PublicAt {
    /// Host; absent: the one that people sign in at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Fields that a request must have, with their values.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
}

impl PublicAt {
    /// Whether nothing is asked for.
    #[must_use]
    pub fn is_anything(&self) -> bool {
        self.host.is_none() && self.headers.is_empty()
    }

    /// Whether of two services with the same route it is known whose it is, for every request: by host, by a field that the one asks for
    /// and the other does not, or by two values of one field.
    #[must_use]
    pub(crate) fn is_told_from(&self, other: &Self) -> bool {
        let by_value = self.headers.iter().any(|(name, value)| other.headers.get(name).is_some_and(|its| its != value));
        self.host != other.host || self.headers.is_empty() != other.headers.is_empty() || by_value
    }
}

/// A certificate that was brought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Certificate {
    /// Names that it is for, wildcards among them.
    pub names: BTreeSet<String>,
    /// The edge's hosts that it is shown for: each host has one.
    pub hosts: BTreeSet<String>,
    /// PEM file of the chain, relative to the manifest's folder.
    pub chain: String,
    /// PEM file of the key, relative to the manifest's folder.
    pub key: String,
}

/// Certificates by ACME.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Acme {
    /// The authority's directory.
    pub directory: String,
    /// Hosts with a certificate each.
    pub hosts: BTreeSet<String>,
    /// Where the authority may write to.
    pub contact: Vec<String>,
    /// PEM file of the directory's root, relative to the manifest's folder; absent: the machine's.
    pub root: Option<String>,
}

impl Edge {
    /// The host that people sign in at: `localhost` if it is among them, else the first.
    #[must_use]
    pub fn main_host(&self) -> &str {
        let for_people = || self.hosts.iter().filter(|host| Some(*host) != self.content.as_ref());
        for_people().find(|host| *host == "localhost").or_else(|| for_people().next()).map_or("localhost", String::as_str)
    }

    /// Hosts of this machine, whose certificate is made here: those that no other certificate is for.
    #[must_use]
    pub fn local_hosts(&self) -> BTreeSet<String> {
        let brought = self.certificates.values().flat_map(|certificate| &certificate.hosts);
        let taken: BTreeSet<&String> = brought.chain(self.acme.iter().flat_map(|acme| &acme.hosts)).collect();
        self.hosts.iter().filter(|host| !taken.contains(host)).cloned().collect()
    }
}

/// Whether a host is of this machine alone (RFC 6761 section 6.3), so that its certificate can be made here.
pub(crate) fn is_local(host: &str) -> bool {
    host.parse::<IpAddr>().map_or_else(|_| host == "localhost" || host.ends_with(".localhost"), |address| address.is_loopback())
}

/// Whether a certificate's name covers a host: itself, or one label in the place of `*` (RFC 9525 section 6.3).
pub(crate) fn covers(name: &str, host: &str) -> bool {
    match name.strip_prefix("*.") {
        Some(parent) => host.split_once('.').is_some_and(|(_, rest)| rest == parent),
        None => name == host,
    }
}
