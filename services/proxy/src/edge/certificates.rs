//! Certificates: which one the public is shown for which host.
//!
//! A host that has none is refused at the handshake: no certificate stands for a name that nobody declared. Files are read again when
//! they change; a pair that does not fit together, or its hosts, is not taken, and the one before stays. What ACME brings is put in
//! place in the same table. Connections that are open keep what they were shown.
//!
//! Spec:       RFC 6066 section 3 (server_name), RFC 9525 section 6.3 (names), RFC 8737 section 3 (acme-tls/1).
//! Guarantees: A1 one certificate for each host, exchanged without a connection lost; A2 the edge answers its own challenges.
//! Not here:   how a certificate is got (`acme`).

mod pair;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use telemetry::certificate::{CertificateRefused, CertificateTaken};

pub use self::pair::{CertificateError, Shown};
use self::pair::{Change, Pair};
use crate::tls;

/// The files of a certificate, and the hosts that it is shown for.
#[derive(Debug, Clone)]
pub struct CertificateFiles {
    /// What it is called.
    pub name: String,
    /// Hosts, lower-case.
    pub hosts: Vec<String>,
    /// PEM: the chain, its own certificate first.
    pub chain: PathBuf,
    /// PEM: the private key (PKCS #8, SEC 1 or PKCS #1).
    pub key: PathBuf,
}

/// What happened at a look at the files.
#[derive(Debug)]
pub enum Looked {
    /// A new certificate is shown.
    Taken(CertificateTaken),
    /// A changed pair is not shown.
    Refused(CertificateRefused),
}

/// The certificates that the public sees.
pub struct Certificates {
    pairs: Vec<Mutex<Pair>>,
    /// Certificates that were brought in while running, by host.
    granted: Mutex<BTreeMap<String, Arc<Shown>>>,
    /// INVARIANT: holds hosts that were declared and nothing else.
    table: ArcSwap<HashMap<String, Arc<Shown>>>,
    /// Answers to challenges under way, by host.
    challenges: Mutex<HashMap<String, Arc<CertifiedKey>>>,
}

/// While it lives, the challenge for its host is answered.
pub(super) struct Challenge {
    certificates: Arc<Certificates>,
    host: String,
}

impl Certificates {
    /// Loads the files of each.
    ///
    /// # Errors
    /// See `CertificateError`: of the first that cannot be shown.
    pub fn open(files: Vec<CertificateFiles>) -> Result<Arc<Self>, CertificateError> {
        let pairs = files.into_iter().map(|files| Pair::open(files).map(Mutex::new)).collect::<Result<_, _>>()?;
        let certificates = Self { pairs, granted: Mutex::default(), table: ArcSwap::default(), challenges: Mutex::default() };
        certificates.spread();
        Ok(Arc::new(certificates))
    }

    /// Reads the files again; says what is new. What is broken is said at the second look that finds it, since files are written one
    /// after the other; and once.
    pub fn look(&self) -> Vec<Looked> {
        let mut looked = Vec::new();
        for pair in &self.pairs {
            let mut pair = locked(pair);
            let (name, hosts) = (pair.files.name.clone(), pair.files.hosts.clone());
            match pair.look() {
                Change::Nothing => {}
                Change::Taken(shown) => looked.push(Looked::Taken(shown.taken(name, hosts))),
                Change::Broken(error) => {
                    looked.push(Looked::Refused(CertificateRefused { name, hosts, why: with_causes(&error) }));
                }
            }
        }
        if looked.iter().any(|looked| matches!(looked, Looked::Taken(_))) {
            self.spread();
        }
        looked
    }

    /// Shows a certificate for a host from now on.
    pub(super) fn grant(&self, host: &str, shown: Arc<Shown>) {
        locked(&self.granted).insert(host.to_owned(), shown);
        self.spread();
    }

    /// Answers the challenge for `host` with that certificate until the answer is dropped.
    pub(super) fn challenge(self: &Arc<Self>, host: &str, answer: Arc<CertifiedKey>) -> Challenge {
        locked(&self.challenges).insert(host.to_owned(), answer);
        Challenge { certificates: Arc::clone(self), host: host.to_owned() }
    }

    /// Each host that has a certificate, and its end in seconds since the epoch.
    #[must_use]
    pub fn ends(&self) -> Vec<(String, u64)> {
        self.table.load().iter().map(|(host, shown)| (host.clone(), shown.not_after_s)).collect()
    }

    /// Whether one certificate is shown for both hosts, so that a connection made to one may carry requests to the other
    /// (RFC 9110 section 4.3.3).
    #[must_use]
    pub fn same(&self, one: &str, other: &str) -> bool {
        let table = self.table.load();
        matches!((table.get(one), table.get(other)), (Some(one), Some(other)) if Arc::ptr_eq(one, other))
    }

    fn spread(&self) {
        let mut table = HashMap::new();
        for pair in &self.pairs {
            let pair = locked(pair);
            table.extend(pair.files.hosts.iter().map(|host| (host.clone(), Arc::clone(&pair.shown))));
        }
        table.extend(locked(&self.granted).iter().map(|(host, shown)| (host.clone(), Arc::clone(shown))));
        self.table.store(Arc::new(table));
    }

    /// Whether there is more than one.
    #[must_use]
    pub fn are_several(&self) -> bool {
        let table = self.table.load();
        let mut all = table.values();
        all.next().is_some_and(|first| all.any(|other| !Arc::ptr_eq(first, other)))
    }

    /// Whose certificate a client is shown that names nobody: one that asked for an address (RFC 6066 has no names for those).
    pub(super) fn unnamed_host(&self) -> Option<String> {
        self.table.load().keys().find(|host| host.parse::<std::net::IpAddr>().is_ok()).cloned()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if hello.alpn().is_some_and(|mut offered| offered.next() == Some(tls::ACME) && offered.next().is_none()) {
            return locked(&self.challenges).get(hello.server_name()?).cloned();
        }
        // rustls gives the name in lower case.
        match hello.server_name() {
            Some(name) => self.table.load().get(name).map(|shown| Arc::clone(&shown.certified)),
            None => self.table.load().get(&self.unnamed_host()?).map(|shown| Arc::clone(&shown.certified)),
        }
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").field("hosts", &self.table.load().keys().collect::<Vec<_>>()).finish_non_exhaustive()
    }
}

impl Drop for Challenge {
    fn drop(&mut self) {
        locked(&self.certificates.challenges).remove(&self.host);
    }
}

/// An error with its causes.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        // Transparent errors say what their cause says.
        if !text.ends_with(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
