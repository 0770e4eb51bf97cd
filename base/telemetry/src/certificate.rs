//! Events of the certificates that the public sees. Each is in the audit log: who can put a certificate there can be the edge.

use serde::Serialize;

use crate::event::{Event, Level};
use crate::metrics::Metrics;

/// A certificate is shown from now on.
#[derive(Debug, Clone, Serialize)]
pub struct CertificateTaken {
    /// Its name in the manifest, or `acme`.
    pub name: String,
    /// The hosts that it is shown for.
    pub hosts: Vec<String>,
    /// SHA-256 of the certificate (DER), hexadecimal.
    pub fingerprint: String,
    /// Its end, seconds since the epoch.
    pub not_after_s: u64,
}

impl Event for CertificateTaken {
    const NAME: &'static str = "CertificateTaken";
    const AUDITED: bool = true;
    fn level(&self) -> Level {
        Level::Info
    }
    fn count(&self, metrics: &Metrics) {
        metrics.act("certificate.taken");
    }
}

/// Files of a certificate changed into something that cannot be shown; what was there before is still shown.
#[derive(Debug, Clone, Serialize)]
pub struct CertificateRefused {
    /// Its name in the manifest.
    pub name: String,
    /// The hosts that it is for.
    pub hosts: Vec<String>,
    /// What is wrong with it.
    pub why: String,
}

impl Event for CertificateRefused {
    const NAME: &'static str = "CertificateRefused";
    const AUDITED: bool = true;
    fn level(&self) -> Level {
        Level::Error
    }
    fn count(&self, metrics: &Metrics) {
        metrics.act("certificate.refused");
    }
}

/// An authority gave no certificate; it is asked again.
#[derive(Debug, Clone, Serialize)]
pub struct CertificateOrderFailed {
    /// The host.
    pub host: String,
    /// What went wrong.
    pub why: String,
    /// How often in a row.
    pub failures: u32,
    /// It is asked again in so many seconds.
    pub again_s: u64,
}

impl Event for CertificateOrderFailed {
    const NAME: &'static str = "CertificateOrderFailed";
    const AUDITED: bool = true;
    fn level(&self) -> Level {
        Level::Error
    }
    fn count(&self, metrics: &Metrics) {
        metrics.act("certificate.order.failed");
    }
}
