//! Canonical JSON: one text for one value, so that a digest over it means the system and not its layout.
//!
//! The form is that of RFC 8785 (JCS) for the values that occur: object keys sorted by their bytes, no white space, strings escaped
//! only where JSON demands it, numbers whole and within 2^53 (a manifest's value holds no others). Sets are sorted lists, every
//! default is filled in, durations are milliseconds, sizes bytes, processors thousandths.

use serde::Serialize;
use serde_json::Value;

/// The canonical JSON of `value`. A value that serde cannot write (none of this crate's) gives the empty text.
#[must_use]
pub fn canonical_json(value: &impl Serialize) -> String {
    let mut out = String::new();
    if let Ok(value) = serde_json::to_value(value) {
        write(&value, &mut out);
    }
    out
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| key.as_bytes());
            out.push('{');
            for (i, (key, value)) in entries.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                write(value, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write(item, out);
            }
            out.push(']');
        }
        other => out.push_str(&other.to_string()),
    }
}
