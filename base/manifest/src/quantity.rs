//! Durations and sizes with their units, as people write them: `"10m"`, `"512MiB"`.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// A duration in milliseconds, written as a whole number with `ms`, `s`, `m`, `h` or `d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lasting(pub(crate) u64);

/// A size in bytes, written as a whole number with `B`, `KiB`, `MiB` or `GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) u64);

const DURATION_UNITS: &[(&str, u64)] = &[("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const SIZE_UNITS: &[(&str, u64)] = &[("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
/// Longest duration: a year. Largest size: 64 TiB.
const DURATION_MS_MAX: u64 = 366 * 86_400_000;
const SIZE_BYTES_MAX: u64 = 1 << 46;

impl Lasting {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        quantity(text, DURATION_UNITS, DURATION_MS_MAX).map(Self).ok_or_else(|| {
            format!("'{text}' is no duration; write a whole number above 0 with ms, s, m, h or d, at most 366d, as in \"10m\"")
        })
    }
}

impl Bytes {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        quantity(text, SIZE_UNITS, SIZE_BYTES_MAX).map(Self).ok_or_else(|| {
            format!("'{text}' is no size; write a whole number above 0 with B, KiB, MiB or GiB, at most 65536GiB, as in \"512MiB\"")
        })
    }
}

fn quantity(text: &str, units: &[(&str, u64)], most: u64) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let factor = units.iter().find(|(name, _)| *name == unit)?.1;
    let value = number.parse::<u64>().ok()?.checked_mul(factor)?;
    (1..=most).contains(&value).then_some(value)
}

impl<'de> Deserialize<'de> for Lasting {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(d)?).map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(d)?).map_err(D::Error::custom)
    }
}

impl schemars::JsonSchema for Lasting {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "format": "palisade-duration", "pattern": "^[0-9]+(ms|s|m|h|d)$" })
    }
}

impl schemars::JsonSchema for Bytes {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Size".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "format": "palisade-size", "pattern": "^[0-9]+(B|KiB|MiB|GiB)$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_need_a_unit_and_stay_in_bounds() {
        for (text, ms) in [("250ms", 250), ("10m", 600_000), ("1d", 86_400_000)] {
            assert_eq!(Lasting::parse(text), Ok(Lasting(ms)));
        }
        for bad in ["", "10", "m", "0s", "-1s", "1.5h", "10 m", "10M", "400d", "99999999999999999999s"] {
            assert!(Lasting::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Bytes::parse("512MiB"), Ok(Bytes(512 << 20)));
        for bad in ["512", "512MB", "0B", "1TiB", "99999999GiB"] {
            assert!(Bytes::parse(bad).is_err(), "{bad}");
        }
    }
}
