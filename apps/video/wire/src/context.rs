//! The context of a request: what is passed along, unread, and whose request it is.
//!
//! Spec:       W3C Trace Context (`traceparent`).
//! Guarantees: B6 a call that belongs to a request carries that request's headers and no other's.
//! Not here:   what the headers mean; that is the platform's business.

use http::{HeaderMap, HeaderName, HeaderValue};

/// The headers that travel with the work.
const PASSED_ALONG: [HeaderName; 2] = [HeaderName::from_static("txn-token"), HeaderName::from_static("traceparent")];

/// What a request brought that its outgoing calls must carry.
#[derive(Clone, Debug, Default)]
pub struct Context {
    passed: HeaderMap,
    /// The person whose work this is (`Palisade-User`); the owner of what it makes.
    pub user: Option<String>,
    /// The job in hand (`Palisade-Job`), for deliveries from the queue.
    pub job: Option<String>,
}

impl Context {
    /// Takes the context from an incoming request's headers.
    #[must_use]
    pub fn from_headers(headers: &HeaderMap) -> Self {
        let mut passed = HeaderMap::new();
        for name in PASSED_ALONG {
            if let Some(value) = headers.get(&name) {
                passed.insert(name, value.clone());
            }
        }
        Self { passed, user: text(headers, "palisade-user"), job: text(headers, "palisade-job") }
    }

    /// Puts the passed-along headers on an outgoing request.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.passed {
            headers.insert(name.clone(), value.clone());
        }
    }

    /// The trace and parent span ids of `traceparent`, as lower-case hex, if the header is there and well formed.
    #[must_use]
    pub fn trace(&self) -> Option<(String, String)> {
        let value = self.passed.get("traceparent").map(HeaderValue::to_str)?.ok()?;
        let mut parts = value.split('-');
        let (_version, trace, parent) = (parts.next()?, parts.next()?, parts.next()?);
        let hex = |part: &str, len| part.len() == len && part.bytes().all(|b| b.is_ascii_hexdigit());
        (hex(trace, 32) && hex(parent, 16)).then(|| (trace.to_ascii_lowercase(), parent.to_ascii_lowercase()))
    }
}

/// A header's value as text, if it is there and printable.
pub(crate) fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned).filter(|value| !value.is_empty())
}
