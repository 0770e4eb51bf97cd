//! What a service says: kept in the guard's log, at a pace that fills no disk.
//!
//! A full disk stops the audit log, and with it the whole system: a service that is taken over must not be able to fill it by talking.

use std::time::Duration;

/// Bytes that may come at once, after silence.
const BURST_BYTES: u64 = 1024 * 1024;
/// Bytes a second over time: at most 1.4 GB a day.
const BYTES_A_SECOND: u64 = 16 * 1024;
/// What a line costs beside its text: time, level, field names.
const LINE_OVERHEAD_BYTES: u64 = 128;

/// How much a service may still say.
#[derive(Debug)]
pub(super) struct Pace {
    left: u64,
    at: Duration,
    lost: u64,
}

impl Pace {
    /// A full allowance at `now` (monotonic).
    pub(super) fn new(now: Duration) -> Self {
        Self { left: BURST_BYTES, at: now, lost: 0 }
    }

    /// Whether a line is kept, `lost` having gone before it came here; if so, how many before it were not.
    pub(super) fn keep(&mut self, text: &str, lost: u64, now: Duration) -> Option<u64> {
        self.lost = self.lost.saturating_add(lost);
        let earned = now.saturating_sub(self.at).as_millis().saturating_mul(u128::from(BYTES_A_SECOND)) / 1000;
        if earned > 0 {
            self.left = self.left.saturating_add(u64::try_from(earned).unwrap_or(u64::MAX)).min(BURST_BYTES);
            self.at = now;
        }
        // JSON writes a control character in six bytes.
        let written = |byte: u8| if byte < b' ' || byte == b'"' || byte == b'\\' { 6 } else { 1 };
        let cost = text.bytes().fold(LINE_OVERHEAD_BYTES, |sum, byte| sum.saturating_add(written(byte)));
        if let Some(left) = self.left.checked_sub(cost) {
            self.left = left;
            return Some(std::mem::take(&mut self.lost));
        }
        self.lost = self.lost.saturating_add(1);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_talks_without_end_is_cut_to_a_pace_and_what_is_lost_is_counted() {
        let mut pace = Pace::new(Duration::ZERO);
        let line = "x".repeat(1000);
        let (mut kept, mut lost, mut said) = (0, 0, 0);
        // A thousand lines of 1,000 bytes a second for a minute.
        for millis in 0..60_000 {
            said += 1;
            if let Some(before) = pace.keep(&line, 0, Duration::from_millis(millis)) {
                kept += 1;
                lost += before;
            }
        }
        let most = (BURST_BYTES + 60 * BYTES_A_SECOND) / (1000 + LINE_OVERHEAD_BYTES);
        assert!(kept <= most && kept * 20 >= most * 19, "{kept} of at most {most}");
        let after = pace.keep(&line, 7, Duration::from_secs(120));
        assert_eq!(kept + lost + after.unwrap_or_default(), said + 7, "each line is kept or counted");
        assert_eq!(pace.keep(&line, 0, Duration::from_secs(120)), Some(0));
        let control = "\u{1}".repeat(200_000);
        assert_eq!(pace.keep(&control, 0, Duration::from_secs(300)), None, "what JSON makes of it counts");
    }
}
