//! Destinations outside the system, as they are written.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::quantity::{Bytes, Lasting};

/// A destination outside the system, which services reach over HTTPS and by nothing else. A service that has a flow to it finds it as
/// NAME_URL in its environment, and calls it there over plain HTTP; its guard decides, resolves the name, checks the address, verifies
/// the certificate, and adds the credential.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Destination {
    /// Its host name, or one address. The certificate that it shows must be for this name.
    pub(crate) host: String,
    /// Its port; default 443.
    #[schemars(range(min = 1, max = 65535))]
    pub(crate) port: Option<u16>,
    /// Class of the data that may go there. A service that handles more sensitive data may not call it.
    pub(crate) data: String,
    /// Why services that handle more sensitive data than 'data' may call it all the same: what keeps that data back.
    pub(crate) declassified: Option<String>,
    /// PEM file with the roots that its certificate must end in, relative to the manifest's folder. Default: those that this machine trusts.
    pub(crate) root: Option<String>,
    /// Networks that its addresses are in, as in ["10.1.0.0/16"]; then no others are connected to. Default: public addresses alone.
    /// Link-local and metadata addresses are never connected to.
    #[serde(default)]
    pub(crate) networks: Vec<String>,
    /// The certificate by which guards show themselves there (mutual TLS). Its files are read again for each connection.
    pub(crate) certificate: Option<Shown>,
    /// A credential that guards add to each request. No service ever sees it.
    pub(crate) credential: Option<Credential>,
    /// Largest body of a request; default "1MiB".
    pub(crate) max_body: Option<Bytes>,
    /// Largest body of an answer; default "16MiB".
    pub(crate) max_answer: Option<Bytes>,
    /// Longest time for one call, to the last byte of its answer; default "30s".
    pub(crate) wall: Option<Lasting>,
    /// Calls at the same time from one guard; default 32.
    #[schemars(range(min = 1, max = 4096))]
    pub(crate) concurrency: Option<u32>,
    /// Whether it is told the trace that a call belongs to (W3C traceparent); default false.
    #[serde(default)]
    pub(crate) trace: bool,
}

/// A certificate and its key.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Shown {
    /// PEM file of the chain, its own certificate first; relative to the manifest's folder.
    pub(crate) chain: String,
    /// PEM file of the private key; relative to the manifest's folder. Only its owner may read it.
    pub(crate) key: String,
}

/// A field and the file that has its value.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Credential {
    /// The field, in lower case: "authorization", "x-api-key".
    pub(crate) header: String,
    /// File with the field's whole value in one line, as in "Bearer TOKEN"; relative to the manifest's folder. Only its owner may read
    /// it. It is read again when it changes.
    pub(crate) file: String,
}
