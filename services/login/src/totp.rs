//! Time-based one-time passwords: what an authenticator shows, reckoned again here.
//!
//! Spec:       RFC 6238 with SHA-1, 6 digits and steps of 30 s, which is what every authenticator has; RFC 4226, section 5.3; RFC 4648,
//!             section 6 (base32); the `otpauth` URIs of authenticators.
//! Guarantees: B13 a code of the step before, of this or of the next; a step that was accepted is the oldest that no longer counts.
//! Not here:   where secrets are kept (`factor`), how often somebody may try (`throttle`).

use aws_lc_rs::hmac;
use subtle::ConstantTimeEq;
use trust::{Entropy, Secret};

/// 160 bits, as RFC 4226, section 4, recommends.
const SECRET_BYTES: usize = 20;
const STEP_S: u64 = 30;
/// Steps before and after the present one whose codes count (RFC 6238, section 5.2).
const WINDOW: u64 = 1;
const DIGITS: usize = 6;
const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// A secret that an authenticator and this side have.
#[derive(Debug)]
pub(crate) struct Totp(Secret<Vec<u8>>);

impl Totp {
    /// Draws one.
    pub(crate) fn new(entropy: &dyn Entropy) -> Self {
        let mut bytes = vec![0; SECRET_BYTES];
        entropy.fill(&mut bytes);
        Self(Secret::new(bytes))
    }

    /// One that was drawn before.
    pub(crate) fn of(secret: Secret<Vec<u8>>) -> Self {
        Self(secret)
    }

    /// Its bytes, to be sealed.
    pub(crate) fn expose(&self) -> &[u8] {
        self.0.expose()
    }

    /// As people type it where they cannot scan.
    pub(crate) fn text(&self) -> Secret<String> {
        Secret::new(base32(self.expose()))
    }

    /// What authenticators scan.
    pub(crate) fn uri(&self, system: &str, name: &str) -> Secret<String> {
        let (system, name, secret) = (escaped(system), escaped(name), self.text());
        let settings = format!("algorithm=SHA1&digits={DIGITS}&period={STEP_S}");
        Secret::new(format!("otpauth://totp/{system}:{name}?secret={}&issuer={system}&{settings}", secret.expose()))
    }

    /// The step whose code was typed: the first within the window that is later than `last`. All of the window is looked at, whatever fits.
    pub(crate) fn step_of(&self, typed: &str, now_s: u64, last: u64) -> Option<u64> {
        let now = now_s / STEP_S;
        let mut found = None;
        for step in now.saturating_sub(WINDOW)..=now.saturating_add(WINDOW) {
            let fits = bool::from(self.code(step).as_bytes().ct_eq(typed.as_bytes()));
            if fits && step > last && found.is_none() {
                found = Some(step);
            }
        }
        found
    }

    /// The code of a step.
    fn code(&self, step: u64) -> String {
        format!("{:0DIGITS$}", self.truncated(step) % 1_000_000)
    }

    /// RFC 4226, section 5.3: 31 bits of the MAC, from where its last four bits point to.
    fn truncated(&self, step: u64) -> u32 {
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, self.expose());
        let mac = hmac::sign(&key, &step.to_be_bytes());
        let at = usize::from(mac.as_ref().last().copied().unwrap_or_default() & 0x0f);
        let four = mac.as_ref().iter().skip(at).take(4);
        four.fold(0_u32, |all, byte| (all << 8) | u32::from(*byte)) & 0x7fff_ffff
    }

    /// The code of the moment, as an authenticator shows it.
    #[cfg(test)]
    pub(crate) fn shown(&self, now_s: u64) -> String {
        self.code(now_s / STEP_S)
    }
}

/// What was typed, without what people or their keyboards put in between.
pub(crate) fn plain(typed: &str) -> String {
    typed.chars().filter(|c| !c.is_whitespace() && *c != '-').take(64).collect::<String>().to_ascii_uppercase()
}

/// RFC 4648, section 6, without padding.
pub(crate) fn base32(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(5).saturating_mul(8));
    for chunk in bytes.chunks(5) {
        let mut five = [0_u8; 8];
        five.iter_mut().skip(3).zip(chunk).for_each(|(to, from)| *to = *from);
        let (bits, letters) = (u64::from_be_bytes(five), chunk.len().saturating_mul(8).div_ceil(5));
        for letter in 0..letters {
            let index = usize::try_from((bits >> (35_usize.saturating_sub(letter.saturating_mul(5)))) & 31).unwrap_or_default();
            text.extend(BASE32.get(index).copied().map(char::from));
        }
    }
    text
}

/// RFC 3986, section 2.3: whatever is not unreserved is escaped.
fn escaped(text: &str) -> String {
    let byte = |b: u8| if b.is_ascii_alphanumeric() || b"-._~".contains(&b) { char::from(b).to_string() } else { format!("%{b:02X}") };
    text.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totp(secret: &[u8]) -> Totp {
        Totp::of(Secret::new(secret.to_vec()))
    }

    // B13: RFC 6238, appendix B (SHA-1; its codes have eight digits, of which ours are the last six).
    #[test]
    fn codes_are_those_of_the_rfc() {
        let totp = totp(b"12345678901234567890");
        for (at_s, eight) in [
            (59, 94_287_082),
            (1_111_111_109, 7_081_804),
            (1_111_111_111, 14_050_471),
            (1_234_567_890, 89_005_924),
            (2_000_000_000, 69_279_037),
            (20_000_000_000, 65_353_130),
        ] {
            assert_eq!(totp.truncated(at_s / STEP_S) % 100_000_000, eight, "{at_s}");
            assert_eq!(totp.shown(at_s), format!("{:06}", eight % 1_000_000));
        }
    }

    // B13: the step before, this and the next; at both edges, and one second beyond each.
    #[test]
    fn the_window_is_one_step_on_each_side() {
        let totp = totp(b"12345678901234567890");
        let step = 1_000_000;
        let code = totp.code(step);
        let (from_s, until_s) = ((step - 1) * STEP_S, (step + 2) * STEP_S - 1);
        for (now_s, good) in [(from_s - 1, false), (from_s, true), (step * STEP_S, true), (until_s, true), (until_s + 1, false)] {
            assert_eq!(totp.step_of(&code, now_s, 0), good.then_some(step), "{now_s}");
        }
    }

    // B13: RFC 6238, section 5.2: what was accepted is not accepted again, nor anything older.
    #[test]
    fn a_step_counts_once_and_none_before_it() {
        let totp = totp(b"12345678901234567890");
        let now_s = 1_000_000 * STEP_S;
        for (step, last, good) in
            [(999_999, 999_998, true), (999_999, 999_999, false), (999_999, 1_000_000, false), (1_000_001, 1_000_000, true)]
        {
            assert_eq!(totp.step_of(&totp.code(step), now_s, last).is_some(), good, "{step} after {last}");
        }
        for typed in ["", "0", "00000", "0000000", "aaaaaa", "１２３４５６"] {
            assert_eq!(totp.step_of(typed, now_s, 0), None, "{typed}");
        }
    }

    // RFC 4648, section 10.
    #[test]
    fn base32_is_that_of_the_rfc() {
        for (bytes, text) in
            [("", ""), ("f", "MY"), ("fo", "MZXQ"), ("foo", "MZXW6"), ("foob", "MZXW6YQ"), ("fooba", "MZXW6YTB"), ("foobar", "MZXW6YTBOI")]
        {
            assert_eq!(base32(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn authenticators_are_told_everything_they_need() {
        let uri = totp(b"12345678901234567890").uri("video & co", "Ada: L");
        let expect = "otpauth://totp/video%20%26%20co:Ada%3A%20L?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=video%20%26%20co\
                      &algorithm=SHA1&digits=6&period=30";
        assert_eq!(uri.expose(), expect);
        assert_eq!(plain(" 123 456\n"), "123456");
        assert_eq!(plain("abcd-efgh"), "ABCDEFGH");
    }
}
