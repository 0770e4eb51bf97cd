//! An authenticator: what a person's phone shows for a secret that they scanned.
//!
//! Spec: RFC 6238 with SHA-1, 6 digits and 30 s; RFC 4226, section 5.3; RFC 4648, section 6.

use aws_lc_rs::hmac;

const STEP_S: u64 = 30;

/// One, with its secret.
#[derive(Debug, Clone)]
pub(crate) struct Authenticator(Vec<u8>);

impl Authenticator {
    /// Takes the secret from the page that shows it.
    pub(crate) fn scan(page: &str) -> Option<Self> {
        let text = page.split_once("id=\"secret\">")?.1.split_once('<')?.0;
        let (mut bytes, mut bits, mut held) = (Vec::new(), 0_u32, 0_u32);
        for letter in text.trim().chars() {
            let five = match letter {
                'A'..='Z' => u32::from(letter).saturating_sub(u32::from('A')),
                '2'..='7' => u32::from(letter).saturating_sub(u32::from('2')).saturating_add(26),
                _ => return None,
            };
            (bits, held) = ((bits << 5) | five, held.saturating_add(5));
            if held >= 8 {
                held = held.saturating_sub(8);
                bytes.push(u8::try_from((bits >> held) & 0xff).ok()?);
                bits &= (1 << held) - 1;
            }
        }
        (!bytes.is_empty()).then_some(Self(bytes))
    }

    /// What it shows at that time, which may be so many steps from now.
    pub(crate) fn shows(&self, unix_s: u64, steps: i64) -> String {
        let step = (unix_s / STEP_S).saturating_add_signed(steps);
        let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &self.0), &step.to_be_bytes());
        let at = usize::from(mac.as_ref().last().copied().unwrap_or_default() & 0x0f);
        let four = mac.as_ref().iter().skip(at).take(4).fold(0_u32, |all, byte| (all << 8) | u32::from(*byte));
        format!("{:06}", (four & 0x7fff_ffff) % 1_000_000)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    // RFC 6238, appendix B: the last six digits of its codes.
    #[test]
    fn an_authenticator_shows_what_the_rfc_says() {
        let phone = Authenticator::scan("<p id=\"secret\">GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ</p>").unwrap();
        for (unix_s, code) in [(59, "287082"), (1_111_111_109, "081804"), (1_111_111_111, "050471"), (20_000_000_000, "353130")] {
            assert_eq!(phone.shows(unix_s, 0), code);
        }
        assert_eq!(phone.shows(1_111_111_109, 1), phone.shows(1_111_111_139, 0));
        assert!(Authenticator::scan("<p id=\"secret\">a1</p>").is_none() && Authenticator::scan("<p></p>").is_none());
    }
}
