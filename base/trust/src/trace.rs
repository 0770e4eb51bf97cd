//! Trace context (W3C Trace Context, section 3.2): which trace and span a request belongs to.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::clock::Entropy;

/// A `traceparent` of version 00.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TraceContext {
    /// 16 bytes, not all zero.
    pub trace_id: u128,
    /// 8 bytes, not all zero: the span that is the parent of what comes next.
    pub span_id: u64,
    /// Whether spans are kept.
    pub sampled: bool,
}

impl TraceContext {
    /// A new trace, with a span of its own. The edge begins every trace so: ids of strangers are never joined (J5).
    pub fn root(entropy: &dyn Entropy) -> Self {
        Self { trace_id: non_zero_u128(entropy), span_id: non_zero_u64(entropy), sampled: true }
    }

    /// The same trace, a new span.
    #[must_use]
    pub fn child(&self, entropy: &dyn Entropy) -> Self {
        Self { span_id: non_zero_u64(entropy), ..*self }
    }

    /// Parses a header. Anything but a well-formed version (00 is read strictly; higher ones by their first four fields) is nothing.
    #[must_use]
    pub fn parse(header: &str) -> Option<Self> {
        let mut fields = header.trim().split('-');
        let (version, trace, span, flags) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let lower_hex = |s: &str, n: usize| s.len() == n && s.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let well_formed = lower_hex(version, 2) && lower_hex(trace, 32) && lower_hex(span, 16) && lower_hex(flags, 2);
        if !well_formed || version == "ff" || (version == "00" && fields.next().is_some()) {
            return None;
        }
        let trace_id = u128::from_str_radix(trace, 16).ok().filter(|id| *id != 0)?;
        let span_id = u64::from_str_radix(span, 16).ok().filter(|id| *id != 0)?;
        let sampled = u8::from_str_radix(flags, 16).ok()? & 1 == 1;
        Some(Self { trace_id, span_id, sampled })
    }

    /// 32 hexadecimal digits.
    #[must_use]
    pub fn trace_hex(&self) -> String {
        format!("{:032x}", self.trace_id)
    }

    /// 16 hexadecimal digits.
    #[must_use]
    pub fn span_hex(&self) -> String {
        format!("{:016x}", self.span_id)
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, u8::from(self.sampled))
    }
}

fn non_zero_u64(entropy: &dyn Entropy) -> u64 {
    let mut bytes = [0; 8];
    entropy.fill(&mut bytes);
    u64::from_be_bytes(bytes).max(1)
}

fn non_zero_u128(entropy: &dyn Entropy) -> u128 {
    let mut bytes = [0; 16];
    entropy.fill(&mut bytes);
    u128::from_be_bytes(bytes).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    // J2: the examples of W3C Trace Context section 3.2.2.
    #[test]
    fn only_well_formed_headers_parse() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(TraceContext::parse(good).map(|c| c.to_string()).as_deref(), Some(good));
        assert!(TraceContext::parse("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-the-future-brings").is_some());
        for bad in [
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-extra",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "",
            "00-1-2-3",
        ] {
            assert!(TraceContext::parse(bad).is_none(), "{bad}");
        }
    }
}
