//! Tests of `identity`, in the process: an authority in a temporary folder, a clock that is ours, real child processes to attest.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod ca;
mod process;
mod public;
mod room;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use trust::{Clock, KeySealer, Secret, SystemEntropy, TrustDomain};

use crate::certificate::encoded;
use crate::{Ca, CaConfig, CaError};

/// A clock that goes only when told to.
#[derive(Debug)]
struct TestClock(AtomicU64);

impl TestClock {
    fn shared() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(1_800_000_000)))
    }
    fn pass(&self, seconds: u64) {
        self.0.fetch_add(seconds, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn unix_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst) * 1000
    }
    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.unix_ms())
    }
}

fn domain() -> TrustDomain {
    TrustDomain::parse("video.example").unwrap()
}

fn sealer(byte: u8) -> KeySealer {
    KeySealer::new("identity", &Secret::new([byte; 32]), SystemEntropy::shared()).unwrap()
}

fn config(folder: &Path, clock: &Arc<TestClock>) -> CaConfig {
    CaConfig {
        folder: folder.to_owned(),
        trust_domain: domain(),
        sealer: sealer(7),
        svid_life_s: 3600,
        clock: Arc::clone(clock) as Arc<dyn Clock>,
        entropy: SystemEntropy::shared(),
    }
}

fn open(folder: &Path, clock: &Arc<TestClock>) -> Result<Ca, CaError> {
    Ca::open(config(folder, clock))
}

fn request_with(params: &CertificateParams) -> String {
    let key = KeyPair::generate().unwrap();
    encoded(params.serialize_request(&key).unwrap().der())
}

fn request() -> String {
    request_with(&CertificateParams::default())
}
