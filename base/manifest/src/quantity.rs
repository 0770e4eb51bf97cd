//! Durations, sizes, rates and origins as people write them: `"10m"`, `"512MiB"`, `"100/s burst 200"`, `"https://app.example"`.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::model::Rate;

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
/// Most requests in a rate, and in its burst.
const RATE_MAX: u32 = 1_000_000;

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

/// An origin of the web (RFC 6454, section 6.2): `https://HOST` or `https://HOST:PORT`; plain `http` for this machine alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin(pub(crate) String);

impl Origin {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let help = || format!("'{text}' is no origin; write each one whole, as in \"https://app.example\"; there is no wildcard");
        let (secure, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return Err(help()),
        };
        let (host, port) = rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port)));
        let host_fits = !host.is_empty()
            && host.len() <= 253
            && host.split('.').all(|l| !l.is_empty() && l.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'));
        let default = if secure { 443 } else { 80 };
        let port_fits = port.is_none_or(|port| {
            !port.starts_with('0') && port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port != default)
        });
        let near = secure || matches!(host, "localhost" | "127.0.0.1");
        if host_fits && port_fits && near { Ok(Self(text.to_owned())) } else { Err(help()) }
    }
}

impl Rate {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let help = || {
            format!(
                "'{text}' is no rate; write a whole number above 0, '/s', '/m' or '/h', and 'burst N' if need be, as in \"100/s burst 200\""
            )
        };
        let number = |text: &str| text.parse::<u32>().ok().filter(|n| (1..=RATE_MAX).contains(n) && !text.starts_with('+'));
        let mut words = text.split(' ');
        let (requests, unit) = words.next().and_then(|word| word.split_once('/')).ok_or_else(help)?;
        let requests = number(requests).ok_or_else(help)?;
        let period_ms = match unit {
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(help()),
        };
        let burst = match (words.next(), words.next(), words.next()) {
            (None, _, _) => requests,
            (Some("burst"), Some(burst), None) => number(burst).ok_or_else(help)?,
            _ => return Err(help()),
        };
        Ok(Self { requests, period_ms, burst })
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

/// A rate as it is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WrittenRate(pub(crate) Rate);

impl<'de> Deserialize<'de> for WrittenRate {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Rate::parse(&String::deserialize(d)?).map(Self).map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Origin {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(d)?).map_err(D::Error::custom)
    }
}

impl schemars::JsonSchema for WrittenRate {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Rate".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "format": "palisade-rate", "pattern": "^[0-9]+/[smh]( burst [0-9]+)?$" })
    }
}

impl schemars::JsonSchema for Origin {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Origin".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "format": "palisade-origin", "pattern": "^https?://[a-z0-9.-]+(:[0-9]+)?$" })
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
        for (text, requests, period_ms, burst) in
            [("100/s burst 200", 100, 1000, 200), ("60/m", 60, 60_000, 60), ("1/h burst 1", 1, 3_600_000, 1)]
        {
            assert_eq!(Rate::parse(text), Ok(Rate { requests, period_ms, burst }));
        }
        for bad in
            ["", "100", "/s", "0/s", "100/d", "100/s burst", "100/s burst 0", "100/s 200", "+1/s", "1.5/s", "100/s burst 2 x", "1000001/s"]
        {
            assert!(Rate::parse(bad).is_err(), "{bad}");
        }
        for good in ["https://app.example", "https://app.example:8443", "http://localhost:3000", "http://127.0.0.1:3000"] {
            assert!(Origin::parse(good).is_ok(), "{good}");
        }
        let bad = [
            "*",
            "null",
            "https://*",
            "https://*.example",
            "app.example",
            "http://app.example",
            "https://app.example/",
            "https://app.example:443",
        ];
        for bad in bad.into_iter().chain([
            "https://App.example",
            "https://a@b.example",
            "https://",
            "https://a..b",
            "https://a:0",
            "https://a:70000",
        ]) {
            assert!(Origin::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Bytes::parse("512MiB"), Ok(Bytes(512 << 20)));
        for bad in ["512", "512MB", "0B", "1TiB", "99999999GiB"] {
            assert!(Bytes::parse(bad).is_err(), "{bad}");
        }
    }
}
