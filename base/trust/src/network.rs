//! Networks: addresses by their first bits, as people write them (`10.0.0.0/8`, `2001:db8::/32`, `192.0.2.7`).
//!
//! Spec: RFC 4632 section 3.1 (CIDR), RFC 4291 section 2.3. An IPv4 address written inside IPv6 (`::ffff:192.0.2.7`) is the IPv4 address.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// All addresses that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network {
    /// INVARIANT: canonical, and zero behind the first `bits`.
    address: IpAddr,
    bits: u8,
}

/// Why a text is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// No address, or no number of bits that fits it.
    #[error("'{0}' is no network; write an address and its bits, as in \"10.0.0.0/8\", or one address")]
    Malformed(String),
    /// There is something behind the bits that count.
    #[error("'{written}' has bits behind the first {bits}; the network is written \"{meant}\"")]
    HostBits {
        /// As it was written.
        written: String,
        /// How many count.
        bits: u8,
        /// As it would be right.
        meant: String,
    },
}

impl Network {
    /// Its first address.
    #[must_use]
    pub fn first(&self) -> IpAddr {
        self.address
    }

    /// Whether an address is in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                first(own.to_bits().into(), 32, self.bits) == first(other.to_bits().into(), 32, self.bits)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => first(own.to_bits(), 128, self.bits) == first(other.to_bits(), 128, self.bits),
            _ => false,
        }
    }
}

/// The first `bits` of a number of `width` bits; the rest is shifted out.
fn first(number: u128, width: u32, bits: u8) -> u128 {
    number.checked_shr(width.saturating_sub(u32::from(bits))).unwrap_or(0)
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let malformed = || NetworkError::Malformed(text.to_owned());
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| malformed())?;
        let width = if address.is_ipv4() { 32_u8 } else { 128 };
        let bits = match bits {
            None => width,
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0')) => {
                digits.parse::<u8>().ok().filter(|bits| *bits <= width).ok_or_else(malformed)?
            }
            Some(_) => return Err(malformed()),
        };
        if address.to_canonical() != address {
            return Err(malformed());
        }
        let cleared = match address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32_u32.saturating_sub(bits.into())).unwrap_or(0);
                IpAddr::V4((v4.to_bits() & mask).into())
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(128_u32.saturating_sub(bits.into())).unwrap_or(0);
                IpAddr::V6((v6.to_bits() & mask).into())
            }
        };
        if cleared != address {
            let meant = Self { address: cleared, bits }.to_string();
            return Err(NetworkError::HostBits { written: text.to_owned(), bits, meant });
        }
        Ok(Self { address, bits })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_network_has_exactly_the_addresses_that_begin_with_its_bits() {
        let check = |network: &str, inside: &[&str], outside: &[&str]| {
            let network: Network = network.parse().unwrap();
            for address in inside {
                assert!(network.contains(address.parse().unwrap()), "{network} has {address}");
            }
            for address in outside {
                assert!(!network.contains(address.parse().unwrap()), "{network} has no {address}");
            }
        };
        check("10.0.0.0/8", &["10.0.0.0", "10.255.255.255", "::ffff:10.1.2.3"], &["9.255.255.255", "11.0.0.0", "::a00:0"]);
        check("192.0.2.7", &["192.0.2.7", "::ffff:192.0.2.7"], &["192.0.2.6", "192.0.2.8"]);
        check("0.0.0.0/0", &["0.0.0.0", "255.255.255.255"], &["::", "2001:db8::1"]);
        check("2001:db8::/33", &["2001:db8::1", "2001:db8:7fff::1"], &["2001:db8:8000::1", "10.0.0.1"]);
        check("::/0", &["::1", "2001:db8::1"], &["127.0.0.1", "::ffff:127.0.0.1"]);
    }

    #[test]
    fn what_is_written_otherwise_is_no_network() {
        for text in [
            "",
            "10.0.0.0/",
            "10.0.0.0/33",
            "::/129",
            "10.0.0/8",
            "10.0.0.0/08",
            "10.0.0.0/+8",
            "localhost",
            "::ffff:10.0.0.0/104",
            "010.0.0.0/8",
        ] {
            assert!(matches!(text.parse::<Network>(), Err(NetworkError::Malformed(_))), "{text}");
        }
        let wrong = "10.1.0.0/8".parse::<Network>().unwrap_err();
        assert!(wrong.to_string().contains("\"10.0.0.0/8\""), "{wrong}");
        assert_eq!("192.0.2.7".parse::<Network>().unwrap().to_string(), "192.0.2.7/32");
    }
}
