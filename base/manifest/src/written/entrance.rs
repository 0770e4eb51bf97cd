//! How the edge lets people in, as it is written: certificates, ACME, load balancers in front.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::quantity::{Bytes, Lasting, WrittenRate};

/// A certificate that you bring. Its files are read again when they change; a pair that does not fit together is not taken.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Certificate {
    /// Names that it is for, as in ["shop.example", "*.shop.example"]; a host that is named whole wins over a wildcard.
    pub(crate) hosts: Vec<String>,
    /// PEM file of the chain, its own certificate first; relative to the manifest's folder.
    pub(crate) chain: String,
    /// PEM file of the private key; relative to the manifest's folder. Others than its owner and group may not read it.
    pub(crate) key: String,
}

/// Certificates by ACME (RFC 8555), proved by the tls-alpn-01 challenge on the edge's own port, which the authority reaches as port 443.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Acme {
    /// Address of the authority's directory, as in "https://acme.example/directory".
    pub(crate) directory: String,
    /// Hosts of the edge that get a certificate each. No wildcards: they cannot be proved on the edge's own port.
    pub(crate) hosts: Vec<String>,
    /// Where the authority may write to, as in ["mailto:operator@shop.example"].
    #[serde(default)]
    pub(crate) contact: Vec<String>,
    /// Whether you agree to the authority's terms of service; it gives no account without.
    pub(crate) terms_agreed: bool,
    /// PEM file with the root that the directory's own certificate ends in; relative to the manifest's folder. Default: those that
    /// this machine trusts.
    pub(crate) root: Option<String>,
}

/// Where the edge offers a service's public routes. Default: at the host that people sign in at, whatever the header.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PublicAt {
    /// A host of the edge, which then serves these routes and no others; for callers with tokens, since people sign in elsewhere.
    pub(crate) host: Option<String>,
    /// Fields that a request must have, each once and with exactly this value, as in { x-release = "next" }. Among routes of one path
    /// those with fields win.
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
}

/// The PROXY protocol (versions 1 and 2): each connection begins with the address that it was made for.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProxyProtocol {
    /// Networks of the load balancers, as in ["10.0.0.0/8"]. Connections from elsewhere, and without the header, are refused.
    pub(crate) from: Vec<String>,
}

/// How much one address and one person may ask the edge for, over all routes. Routes have limits of their own besides.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EdgeLimits {
    /// Requests a second of one address (IPv6: of one /64); default "200/s burst 400".
    pub(crate) address: Option<WrittenRate>,
    /// Requests a second of one person; default "100/s burst 200".
    pub(crate) person: Option<WrittenRate>,
    /// Requests of one address under way; default 256.
    pub(crate) address_in_flight: Option<u32>,
    /// Requests of one person under way; default 64.
    pub(crate) person_in_flight: Option<u32>,
    /// Requests under way in all; default 2048.
    pub(crate) in_flight: Option<u32>,
    /// Connections of one address; default 256.
    pub(crate) address_connections: Option<u32>,
}

/// How much of the access logs is kept: of each door's (the edge, and each guard that has one) so much, and for so long.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AccessLog {
    /// Size; default "256MiB", least "1MiB".
    pub(crate) bytes: Option<Bytes>,
    /// Age, after which lines are removed within a day; default "14d".
    pub(crate) age: Option<Lasting>,
}
