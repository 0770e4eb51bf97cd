//! Pauses before redelivery: doubled each time, capped, and spread by chance so that failures do not return together.

use contract::control::QueueProfile;
use trust::Entropy;

/// The pause after `deliveries` deliveries (from 1), in milliseconds: between half and all of `backoff_ms * 2^(deliveries-1)`.
pub(crate) fn pause_ms(profile: &QueueProfile, deliveries: u32, entropy: &dyn Entropy) -> u64 {
    let doubled = profile.backoff_ms.saturating_mul(1_u64.checked_shl(deliveries.saturating_sub(1).min(40)).unwrap_or(u64::MAX));
    let whole = doubled.min(profile.backoff_ms_max);
    let half = whole / 2;
    let mut bytes = [0; 8];
    entropy.fill(&mut bytes);
    let spread = u64::from_le_bytes(bytes) % whole.saturating_sub(half).saturating_add(1);
    half.saturating_add(spread)
}
