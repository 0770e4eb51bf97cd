//! ACME: the edge gets its certificates from an authority, and renews them when a third of their life is left.
//!
//! One order, and one certificate with a key of its own, for each host, so that one host's trouble is no other's. What goes wrong is tried
//! again after a pause that grows, is recorded, and changes nothing for the public: the certificate in force stays in force. Account and
//! certificates are kept sealed.
//!
//! Spec:       RFC 8555; RFC 8737 (tls-alpn-01). Deviation: no other challenge, so no wildcards, and no external account binding.
//! Guarantees: A2 certificates are issued and renewed without an operator, and without a request lost.
//! Not here:   who is shown which certificate (`certificates`).

pub(super) mod authority;
mod kept;
mod order;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use telemetry::Recorder;
use telemetry::certificate::CertificateOrderFailed;
use telemetry::event::TamperingFound;
use tokio_util::sync::CancellationToken;
use trust::{Clock, Entropy, KeySealer};

use self::authority::Directory;
use self::kept::Kept;
use super::certificates::{CertificateError, Certificates, Shown};
use crate::pause::jittered;

/// The name of its certificates in records.
const NAME: &str = "acme";
/// The pause after the first failure of a host; doubled each time. Authorities allow five failures an hour.
const PAUSE_S: u64 = 600;
/// The longest pause.
const PAUSE_S_MAX: u64 = 12 * 3_600;
/// How long one order may take.
const ORDER_MAX: Duration = Duration::from_secs(180);
/// How often it is looked whether anything is to be done.
const LOOK: Duration = Duration::from_secs(30);

/// What ACME is told.
#[derive(Debug, Clone)]
pub struct AcmeSettings {
    /// Address of the authority's directory; https.
    pub directory: String,
    /// Hosts that get a certificate each.
    pub hosts: Vec<String>,
    /// Where the authority may write to; `mailto:` addresses.
    pub contact: Vec<String>,
    /// PEM file with the root of the directory's own certificate; absent: those that this machine trusts.
    pub root: Option<PathBuf>,
    /// Where account and certificates are kept.
    pub folder: PathBuf,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum AcmeError {
    /// The roots for the directory's certificate.
    #[error("cannot use {path} as the roots that the authority's own certificate is checked against; name a PEM file as edge.acme.root")]
    Roots {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Account and certificates cannot be kept.
    #[error("cannot keep account and certificates in {path}")]
    Folder {
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// What is kept does not open.
    #[error("'{0}' is not as it was left")]
    Tampered(String, #[source] trust::SealError),
    /// The authority, or the way to it.
    #[error("the authority gave no certificate")]
    Authority(#[from] instant_acme::Error),
    /// The authority found that the host is not ours.
    #[error("the authority could not prove that the host is ours: it must reach this edge as port 443 of the host's address")]
    Unproved,
    /// The authority offers no challenge that can be answered here.
    #[error("the authority offers no tls-alpn-01 challenge for this host")]
    ChallengeUnoffered,
    /// A key or request could not be made: a defect of the build.
    #[error("a key or a certificate request could not be made")]
    Unmade(#[from] rcgen::Error),
    /// A key is of no supported kind: a defect of the build.
    #[error("the challenge's certificate cannot be shown")]
    Unshowable(#[from] rustls::Error),
    /// What the authority gave cannot be shown.
    #[error("the authority gave a certificate that cannot be shown")]
    Certificate(#[from] CertificateError),
    /// It took too long.
    #[error("the order was not done within {} seconds", ORDER_MAX.as_secs())]
    Late,
}

/// Keeps certificates.
#[derive(Debug)]
pub struct Acme {
    settings: AcmeSettings,
    directory: Directory,
    kept: Kept,
    certificates: Arc<Certificates>,
    recorder: Recorder,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    plans: BTreeMap<String, Plan>,
}

/// What is to be done for a host.
#[derive(Debug, Clone, Copy, Default)]
struct Plan {
    /// When; seconds since the epoch.
    due_s: u64,
    /// Failures in a row.
    failures: u32,
}

impl Acme {
    /// Shows the certificates that are kept, and makes ready to get the others.
    ///
    /// # Errors
    /// `Roots` or `Folder`. What is kept and does not open is reported as tampering, and got anew.
    pub fn open(
        settings: AcmeSettings,
        sealer: KeySealer,
        certificates: Arc<Certificates>,
        recorder: Recorder,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, AcmeError> {
        let directory = Directory::new(settings.root.as_deref())?;
        let kept = Kept::open(settings.folder.clone(), sealer)?;
        let mut acme = Self { settings, directory, kept, certificates, recorder, clock, entropy, plans: BTreeMap::new() };
        for host in acme.settings.hosts.clone() {
            acme.recorder.metrics().certificate_ends(&host, 0);
            let found = match acme.kept.certificate(&host) {
                Ok(found) => found,
                Err(AcmeError::Folder { path, source }) => return Err(AcmeError::Folder { path, source }),
                Err(error) => {
                    acme.tampered(&host, &error);
                    None
                }
            };
            let due_s = match found {
                Some(shown) => acme.show(&host, shown),
                None => 0,
            };
            acme.plans.insert(host, Plan { due_s, failures: 0 });
        }
        Ok(acme)
    }

    /// Gets and renews until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        self.run_looking(LOOK, stop).await;
    }

    /// The same, looking so often.
    pub(super) async fn run_looking(mut self, look: Duration, stop: CancellationToken) {
        loop {
            let now_s = self.clock.unix_s();
            let next = self.plans.iter().min_by_key(|(_, plan)| plan.due_s).map(|(host, plan)| (host.clone(), *plan));
            let Some((host, plan)) = next else { return };
            if plan.due_s > now_s {
                let pause = Duration::from_secs(plan.due_s.saturating_sub(now_s)).min(look);
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(pause) => continue,
                }
            }
            let done = tokio::select! {
                () = stop.cancelled() => return,
                done = tokio::time::timeout(ORDER_MAX, self.order(&host)) => done.unwrap_or(Err(AcmeError::Late)),
            };
            let plan = match done {
                Ok(shown) => Plan { due_s: self.taken(&host, shown), failures: 0 },
                Err(error) => self.failed(&host, plan.failures.saturating_add(1), &error),
            };
            self.plans.insert(host, plan);
        }
    }

    /// One order, from the account to the certificate.
    async fn order(&self, host: &str) -> Result<Shown, AcmeError> {
        let account = match self.kept.account(&self.settings) {
            Ok(found) => found,
            Err(error) => {
                self.tampered("account", &error);
                None
            }
        };
        let account = self.directory.account(&self.settings, account, &self.kept).await?;
        let pems = order::run(&account, host, &self.certificates).await?;
        let shown = Shown::parse(pems.chain.as_bytes(), pems.key.expose().as_bytes(), &[host.to_owned()], &self.settings.folder)?;
        self.kept.keep_certificate(host, &pems)?;
        Ok(shown)
    }

    /// Shows it, and says so; when it is to be renewed.
    fn taken(&self, host: &str, shown: Shown) -> u64 {
        // The certificate is public in any case; without a record of it the order fails the next time it is needed, and says so.
        let _kept = self.recorder.record(None, &shown.taken(NAME.to_owned(), vec![host.to_owned()]));
        self.show(host, shown)
    }

    fn show(&self, host: &str, shown: Shown) -> u64 {
        self.recorder.metrics().certificate_ends(host, shown.not_after_s);
        let due_s = renewal_s(shown.not_before_s, shown.not_after_s, &*self.entropy);
        self.certificates.grant(host, Arc::new(shown));
        due_s
    }

    fn failed(&self, host: &str, failures: u32, error: &AcmeError) -> Plan {
        let again_s = pause_s(failures, &*self.entropy);
        let why = super::certificates::with_causes(error);
        let event = CertificateOrderFailed { host: host.to_owned(), why, failures, again_s };
        // It is counted and logged in any case; nothing takes effect.
        let _kept = self.recorder.record(None, &event);
        Plan { due_s: self.clock.unix_s().saturating_add(again_s), failures }
    }

    fn tampered(&self, which: &str, error: &AcmeError) {
        let event = TamperingFound { what: "certificate", which: which.to_owned(), detail: super::certificates::with_causes(error) };
        // What was found is not used in any case.
        let _kept = self.recorder.record(None, &event);
    }
}

/// When a third of its life is left, or at most a thirtieth of it earlier, so that many do not come on one day.
fn renewal_s(not_before_s: u64, not_after_s: u64, entropy: &dyn Entropy) -> u64 {
    let life = not_after_s.saturating_sub(not_before_s);
    let early = jittered(life / 30, entropy);
    not_after_s.saturating_sub(life / 3).saturating_sub(early)
}

/// The pause after so many failures in a row.
fn pause_s(failures: u32, entropy: &dyn Entropy) -> u64 {
    let doubled = 1_u64.checked_shl(failures.saturating_sub(1)).unwrap_or(u64::MAX);
    jittered(PAUSE_S.saturating_mul(doubled).min(PAUSE_S_MAX), entropy)
}

#[cfg(test)]
mod tests {
    use trust::SystemEntropy;

    use super::*;

    // A2
    #[test]
    fn a_certificate_is_renewed_when_a_third_of_its_life_is_left() {
        for _ in 0..100 {
            let due = renewal_s(1_000, 1_000 + 90 * 86_400, &SystemEntropy);
            let left = (1_000 + 90 * 86_400 - due) / 86_400;
            assert!((30..=33).contains(&left), "{left} days");
        }
        assert!(renewal_s(0, 30, &SystemEntropy) >= 19, "also where life is seconds");
    }

    // A2: five failures take more than an hour, and no pause is longer than half a day.
    #[test]
    fn pauses_after_failures_grow_and_are_never_the_same() {
        let pauses: Vec<u64> = (1..=40).map(|failures| pause_s(failures, &SystemEntropy)).collect();
        let mut whole = PAUSE_S;
        for pause in &pauses {
            assert!((whole / 2..=whole).contains(pause), "{pause} of {whole}");
            whole = (whole * 2).min(PAUSE_S_MAX);
        }
        assert!(pauses.iter().take(5).sum::<u64>() > 3_600);
        assert!(pauses.iter().collect::<std::collections::BTreeSet<_>>().len() > 20, "{pauses:?}");
    }
}
