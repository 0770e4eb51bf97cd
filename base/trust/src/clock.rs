//! Time and chance, as values: the only place where the wall clock, the monotonic clock and the kernel's entropy are read.
//!
//! Rooms take an `Arc<dyn Clock>` and an `Arc<dyn Entropy>`, so that a simulation can own both.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What time it is.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Milliseconds since the UNIX epoch.
    fn unix_ms(&self) -> u64;
    /// Time since an arbitrary, fixed start; never goes back.
    fn monotonic(&self) -> Duration;
    /// Whole seconds since the UNIX epoch.
    fn unix_s(&self) -> u64 {
        self.unix_ms() / 1000
    }
    /// Nanoseconds since the UNIX epoch, for span times (OTLP).
    fn unix_ns(&self) -> u64 {
        self.unix_ms().saturating_mul(1_000_000)
    }
}

/// The machine's clocks.
#[derive(Debug, Clone)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// The machine's clocks, shared.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the place where time is read")]
    pub fn shared() -> Arc<dyn Clock> {
        Arc::new(Self { start: Instant::now() })
    }
}

impl Clock for SystemClock {
    fn unix_ms(&self) -> u64 {
        self.unix_ns() / 1_000_000
    }
    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
    #[expect(clippy::disallowed_methods, reason = "this is the place where time is read")]
    fn unix_ns(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Unpredictable bytes.
pub trait Entropy: Send + Sync + std::fmt::Debug {
    /// Fills `out`. Never returns predictable bytes: a source that fails aborts the process.
    fn fill(&self, out: &mut [u8]);
}

/// The kernel's and AWS-LC's generator.
#[derive(Debug, Clone, Copy)]
pub struct SystemEntropy;

impl SystemEntropy {
    /// The system's generator, shared.
    #[must_use]
    pub fn shared() -> Arc<dyn Entropy> {
        Arc::new(Self)
    }
}

impl Entropy for SystemEntropy {
    fn fill(&self, out: &mut [u8]) {
        if aws_lc_rs::rand::fill(out).is_err() {
            // Without entropy no key, nonce or token is safe: stop rather than go on with zeroes.
            std::process::abort();
        }
    }
}

/// `bytes` random bytes as lower-case hexadecimal.
#[must_use]
pub fn random_hex(entropy: &dyn Entropy, bytes: usize) -> String {
    let mut buffer = vec![0; bytes];
    entropy.fill(&mut buffer);
    hex::encode(buffer)
}
