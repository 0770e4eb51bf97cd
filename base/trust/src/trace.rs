//! Trace context: which trace and span a request belongs to.
//!
//! Spec:       W3C Trace Context, section 3.2; B3 propagation, single header and multiple headers. Deviation: B3 is read strictly, so
//!             `true`, `false` and capital letters, which the specification lets lenient readers accept, are nothing.
//! Guarantees: J2.

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

/// The `X-B3-…` headers of a request, as they came.
#[derive(Debug, Clone, Copy)]
pub struct B3Fields<'h> {
    /// `X-B3-TraceId`: 32 or 16 digits.
    pub trace: &'h str,
    /// `X-B3-SpanId`.
    pub span: &'h str,
    /// `X-B3-ParentSpanId`, which only has to be well formed.
    pub parent: Option<&'h str>,
    /// `X-B3-Sampled`: `0` or `1`.
    pub sampled: Option<&'h str>,
    /// `X-B3-Flags`: `1` is debug.
    pub flags: Option<&'h str>,
}

impl TraceContext {
    /// A new trace, with a span of its own. The edge begins every trace so: ids of strangers are never joined (J5).
    ///
    /// The first 4 bytes of its id are the second in which it began, so that whoever keeps traces sorted by id writes them at one place;
    /// the other 12 are random (W3C Trace Context Level 2, section 3.2.2.3, asks for 7 at the end).
    pub fn root(unix_s: u64, entropy: &dyn Entropy) -> Self {
        let mut random = [0; 16];
        entropy.fill(&mut random);
        let trace_id = ((u128::from_be_bytes(random) >> 32) | (u128::from(unix_s) << 96)).max(1);
        Self { trace_id, span_id: non_zero_u64(entropy), sampled: true }
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
        let well_formed = lower_hex(version, 2) && lower_hex(trace, 32) && lower_hex(span, 16) && lower_hex(flags, 2);
        if !well_formed || version == "ff" || (version == "00" && fields.next().is_some()) {
            return None;
        }
        let trace_id = u128::from_str_radix(trace, 16).ok().filter(|id| *id != 0)?;
        let span_id = u64::from_str_radix(span, 16).ok().filter(|id| *id != 0)?;
        let sampled = u8::from_str_radix(flags, 16).ok()? & 1 == 1;
        Some(Self { trace_id, span_id, sampled })
    }

    /// Parses a `b3` header: `TRACE-SPAN`, `TRACE-SPAN-SAMPLING` or `TRACE-SPAN-SAMPLING-PARENT` (B3, "Single Header"). One that only
    /// says whether to sample names no trace and is nothing. Where sampling is left to the receiver, spans are kept.
    #[must_use]
    pub fn parse_b3(header: &str) -> Option<Self> {
        let mut fields = header.trim().split('-');
        let (trace, span, sampling, parent) = (fields.next()?, fields.next()?, fields.next(), fields.next());
        if fields.next().is_some() {
            return None;
        }
        let sampled = match sampling {
            None | Some("1" | "d") => true,
            Some("0") => false,
            Some(_) => return None,
        };
        Self::of_b3(trace, span, parent, sampled)
    }

    /// Parses the `X-B3-…` headers (B3, "Multiple Headers"). A set debug flag is a decision to sample; any other flag is passed over.
    #[must_use]
    pub fn parse_b3_fields(fields: &B3Fields<'_>) -> Option<Self> {
        let sampled = match fields.sampled {
            None | Some("1") => true,
            Some("0") => fields.flags == Some("1"),
            Some(_) => return None,
        };
        Self::of_b3(fields.trace, fields.span, fields.parent, sampled)
    }

    /// Trace ids of 64 bits are the lower half of one of 128.
    fn of_b3(trace: &str, span: &str, parent: Option<&str>, sampled: bool) -> Option<Self> {
        let well_formed =
            (lower_hex(trace, 32) || lower_hex(trace, 16)) && lower_hex(span, 16) && parent.is_none_or(|id| lower_hex(id, 16));
        if !well_formed {
            return None;
        }
        let trace_id = u128::from_str_radix(trace, 16).ok().filter(|id| *id != 0)?;
        let span_id = u64::from_str_radix(span, 16).ok().filter(|id| *id != 0)?;
        Some(Self { trace_id, span_id, sampled })
    }

    /// As a `traceparent` header, without an allocation.
    #[must_use]
    pub fn traceparent(&self) -> Written<55> {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        self.ids(text.get_mut(3..52).unwrap_or_default());
        if let Some(flag) = text.last_mut().filter(|_| self.sampled) {
            *flag = b'1';
        }
        Written(text)
    }

    /// As a `b3` header.
    #[must_use]
    pub fn b3(&self) -> Written<51> {
        let mut text = *b"00000000000000000000000000000000-0000000000000000-0";
        self.ids(text.get_mut(..49).unwrap_or_default());
        if let Some(flag) = text.last_mut().filter(|_| self.sampled) {
            *flag = b'1';
        }
        Written(text)
    }

    /// Both ids, each in its place around the dash between them.
    fn ids(&self, text: &mut [u8]) {
        // The places have two digits for each byte.
        let _trace = text.get_mut(..32).map(|to| hex::encode_to_slice(self.trace_id.to_be_bytes(), to));
        let _span = text.get_mut(33..49).map(|to| hex::encode_to_slice(self.span_id.to_be_bytes(), to));
    }

    /// 32 hexadecimal digits.
    #[must_use]
    pub fn trace_hex(&self) -> String {
        hex::encode(self.trace_id.to_be_bytes())
    }

    /// 16 hexadecimal digits.
    #[must_use]
    pub fn span_hex(&self) -> String {
        hex::encode(self.span_id.to_be_bytes())
    }
}

/// A header's value of so many ASCII characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written<const BYTES: usize>([u8; BYTES]);

impl<const BYTES: usize> Written<BYTES> {
    /// It.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Digits and dashes.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.traceparent().as_str())
    }
}

fn lower_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn non_zero_u64(entropy: &dyn Entropy) -> u64 {
    let mut bytes = [0; 8];
    entropy.fill(&mut bytes);
    u64::from_be_bytes(bytes).max(1)
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

    // J2, J5: ids have an order, and cannot be guessed.
    #[test]
    fn ids_of_traces_begin_with_their_second_and_are_random_after_it() {
        let begun = |unix_s| TraceContext::root(unix_s, &crate::SystemEntropy);
        let (first, second, later) = (begun(0x6921_0000), begun(0x6921_0000), begun(0x6921_0001));
        assert!(first.trace_hex().starts_with("69210000") && second.trace_hex().starts_with("69210000"), "{first} {second}");
        assert!(first.trace_id < later.trace_id && second.trace_id < later.trace_id);
        let random = |of: TraceContext| of.trace_id & (u128::MAX >> 32);
        assert!(random(first) != random(second) && random(first) >> 64 != 0 && first.span_id != second.span_id);
    }

    const TRACE: &str = "80f198ee56343ba864fe8b2a57d3eff7";
    const SPAN: &str = "e457b5a2e4d86bd1";

    // J2: the examples of B3 propagation, "Single Header".
    #[test]
    fn only_well_formed_b3_headers_parse() {
        let read = |header: &str| TraceContext::parse_b3(header).map(|c| (c.trace_hex(), c.span_hex(), c.sampled));
        let expect = |trace: &str, sampled| Some((trace.to_owned(), SPAN.to_owned(), sampled));
        assert_eq!(read(&format!("{TRACE}-{SPAN}-1-05e3ac9a4f6e3b90")), expect(TRACE, true));
        assert_eq!(read(&format!("{TRACE}-{SPAN}-0")), expect(TRACE, false));
        assert_eq!(read(&format!("{TRACE}-{SPAN}-d")), expect(TRACE, true));
        assert_eq!(read(&format!("{TRACE}-{SPAN}")), expect(TRACE, true), "the decision is left to us");
        assert_eq!(read(&format!("64fe8b2a57d3eff7-{SPAN}-1")), expect("000000000000000064fe8b2a57d3eff7", true));
        for bad in [
            "0",
            "1",
            "d",
            "",
            TRACE,
            &format!("{TRACE}-"),
            &format!("{TRACE}-{SPAN}-"),
            &format!("{TRACE}-{SPAN}-2"),
            &format!("{TRACE}-{SPAN}-true"),
            &format!("{TRACE}-{SPAN}-05e3ac9a4f6e3b90"),
            &format!("{TRACE}-{SPAN}-1-05e3ac9a4f6e3b9"),
            &format!("{TRACE}-{SPAN}-1-05e3ac9a4f6e3b90-1"),
            &format!("{}-{SPAN}-1", "0".repeat(32)),
            &format!("{TRACE}-{}-1", "0".repeat(16)),
            &format!("{}-{SPAN}-1", TRACE.to_uppercase()),
            &format!("+{}-{SPAN}-1", "1".repeat(31)),
        ] {
            assert!(TraceContext::parse_b3(bad).is_none(), "{bad}");
        }
    }

    // J2: the examples of B3 propagation, "Multiple Headers".
    #[test]
    fn only_well_formed_b3_fields_parse() {
        let whole = B3Fields { trace: TRACE, span: SPAN, parent: Some("05e3ac9a4f6e3b90"), sampled: Some("1"), flags: None };
        let sampled = |fields: B3Fields<'_>| TraceContext::parse_b3_fields(&fields).map(|c| c.sampled);
        assert_eq!(TraceContext::parse_b3_fields(&whole).map(|c| c.b3().as_str().to_owned()), Some(format!("{TRACE}-{SPAN}-1")));
        assert_eq!(sampled(B3Fields { sampled: None, parent: None, ..whole }), Some(true));
        assert_eq!(sampled(B3Fields { sampled: Some("0"), ..whole }), Some(false));
        assert_eq!(sampled(B3Fields { sampled: None, flags: Some("1"), ..whole }), Some(true));
        assert_eq!(sampled(B3Fields { sampled: Some("true"), ..whole }), None);
        assert_eq!(sampled(B3Fields { parent: Some("x"), ..whole }), None);
        assert_eq!(sampled(B3Fields { trace: "80f1", ..whole }), None);
        assert_eq!(sampled(B3Fields { span: "", ..whole }), None);
    }

    // J2: what is written is read, in both ways.
    #[test]
    fn both_forms_of_a_context_say_the_same() {
        for sampled in [true, false] {
            let context = TraceContext { trace_id: 0x0af7, span_id: 9, sampled };
            assert_eq!(TraceContext::parse_b3(context.b3().as_str()), Some(context));
            assert_eq!(TraceContext::parse(&context.to_string()), Some(context));
        }
    }
}
