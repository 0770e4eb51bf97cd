//! Pauses between attempts: doubled each time up to a limit, and shortened at random so that many do not come back at once.

use std::sync::Arc;
use std::time::Duration;

use trust::Entropy;

/// How long to wait before the next attempt.
#[derive(Debug)]
pub struct Backoff {
    first_ms: u64,
    next_ms: u64,
    longest_ms: u64,
    entropy: Arc<dyn Entropy>,
}

impl Backoff {
    /// Pauses from `first_ms` to `longest_ms`.
    #[must_use]
    pub fn new(first_ms: u64, longest_ms: u64, entropy: Arc<dyn Entropy>) -> Self {
        Self { first_ms, next_ms: first_ms, longest_ms, entropy }
    }

    /// The last attempt worked: begin again with the first pause.
    pub fn reset(&mut self) {
        self.next_ms = self.first_ms;
    }

    /// Waits, between half of the pause and all of it.
    pub async fn pause(&mut self) {
        let whole = self.next_ms;
        self.next_ms = whole.saturating_mul(2).min(self.longest_ms);
        tokio::time::sleep(Duration::from_millis(jittered(whole, &*self.entropy))).await;
    }
}

/// A value between half of `whole` and `whole`.
#[must_use]
pub fn jittered(whole: u64, entropy: &dyn Entropy) -> u64 {
    let mut bytes = [0; 8];
    entropy.fill(&mut bytes);
    let half = whole / 2;
    half.saturating_add(u64::from_be_bytes(bytes).checked_rem(half.saturating_add(1)).unwrap_or_default())
}
