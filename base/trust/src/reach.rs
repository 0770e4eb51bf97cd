//! Reach: what kind of place an address is, before anybody outside a system is connected to.
//!
//! A name's addresses are whatever its owner says today, so the name says nothing about where a connection leads; the address does.
//! Three kinds: public ones, those that a system may declare to be its own surroundings, and those that nobody ever means (a machine's
//! metadata, what leads back into IPv4, what is nowhere).
//!
//! Spec:       IANA IPv4 and IPv6 Special-Purpose Address Registries (RFC 6890, RFC 8190), RFC 5771, RFC 4291 section 2.
//! Guarantees: D10 metadata and link-local addresses cannot be reached, whatever is declared.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::Network;

/// What kind of place an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// A unicast address that the whole internet agrees on.
    Global,
    /// Only for who declares it: private and shared networks, this machine.
    Near(&'static str),
    /// Never.
    Never(&'static str),
}

/// Why an address is not connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreachable {
    /// It is of a kind that is never meant.
    #[error("{0} is never connected to: {1}")]
    Never(IpAddr, &'static str),
    /// It is not public, and not declared.
    #[error("{0} is not public ({1}), and no declared network has it")]
    Near(IpAddr, &'static str),
    /// Networks are declared, and it is in none of them.
    #[error("{0} is in none of the declared networks")]
    Elsewhere(IpAddr),
}

type Row4 = (Ipv4Addr, u8, Reach);
type Row6 = (Ipv6Addr, u8, Reach);

use Reach::{Near, Never};

/// The first row that fits counts.
const V4: &[Row4] = &[
    (Ipv4Addr::new(0, 0, 0, 0), 8, Never("this host on this network")),
    (Ipv4Addr::new(100, 100, 100, 200), 32, Never("metadata of a cloud's machine")),
    (Ipv4Addr::new(168, 63, 129, 16), 32, Never("metadata of a cloud's machine")),
    (Ipv4Addr::new(169, 254, 0, 0), 16, Never("link-local, metadata of a cloud's machine")),
    (Ipv4Addr::new(192, 0, 0, 0), 24, Never("for protocols, metadata of a cloud's machine")),
    (Ipv4Addr::new(192, 88, 99, 0), 24, Never("6to4 relays")),
    (Ipv4Addr::new(224, 0, 0, 0), 4, Never("multicast")),
    (Ipv4Addr::new(240, 0, 0, 0), 4, Never("reserved, broadcast")),
    (Ipv4Addr::new(10, 0, 0, 0), 8, Near("private")),
    (Ipv4Addr::new(100, 64, 0, 0), 10, Near("shared by a carrier")),
    (Ipv4Addr::new(127, 0, 0, 0), 8, Near("this machine")),
    (Ipv4Addr::new(172, 16, 0, 0), 12, Near("private")),
    (Ipv4Addr::new(192, 0, 2, 0), 24, Near("documentation")),
    (Ipv4Addr::new(192, 168, 0, 0), 16, Near("private")),
    (Ipv4Addr::new(198, 18, 0, 0), 15, Near("measurements")),
    (Ipv4Addr::new(198, 51, 100, 0), 24, Near("documentation")),
    (Ipv4Addr::new(203, 0, 113, 0), 24, Near("documentation")),
];

/// The first row that fits counts; what fits none is not assigned.
const V6: &[Row6] = &[
    (Ipv6Addr::LOCALHOST, 128, Near("this machine")),
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96, Never("IPv4 inside IPv6")),
    (Ipv6Addr::UNSPECIFIED, 96, Never("unspecified, IPv4 inside IPv6")),
    (Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96, Never("IPv4 inside IPv6 (NAT64)")),
    (Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0), 48, Never("IPv4 inside IPv6 (NAT64)")),
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23, Never("for protocols, Teredo")),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32, Near("documentation")),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16, Never("IPv4 inside IPv6 (6to4)")),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20, Near("documentation")),
    (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3, Reach::Global),
    (Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0), 32, Never("metadata of a cloud's machine")),
    (Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0), 32, Never("metadata of a cloud's machine")),
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7, Near("private")),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10, Never("link-local")),
    (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8, Never("multicast")),
];

impl Reach {
    /// What kind of place `address` is.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        let fits = |own: u128, other: u128, width: u32, bits: u8| {
            let behind = width.saturating_sub(u32::from(bits));
            own.checked_shr(behind) == other.checked_shr(behind)
        };
        match address {
            IpAddr::V4(v4) => {
                let number = u128::from(v4.to_bits());
                let row = V4.iter().find(|(own, bits, _)| fits(own.to_bits().into(), number, 32, *bits));
                row.map_or(Self::Global, |(_, _, reach)| *reach)
            }
            IpAddr::V6(v6) => {
                let row = V6.iter().find(|(own, bits, _)| fits(own.to_bits(), v6.to_bits(), 128, *bits));
                row.map_or(Never("not assigned"), |(_, _, reach)| *reach)
            }
        }
    }
}

/// Whether a connection to `address` may be made for who declares these networks: to public ones where none is declared, else to those
/// in them alone.
///
/// # Errors
/// Why not.
pub fn may_connect(address: IpAddr, declared: &[Network]) -> Result<(), Unreachable> {
    match Reach::of(address) {
        Never(why) => Err(Unreachable::Never(address, why)),
        _ if declared.iter().any(|network| network.contains(address)) => Ok(()),
        _ if !declared.is_empty() => Err(Unreachable::Elsewhere(address)),
        Reach::Global => Ok(()),
        Near(why) => Err(Unreachable::Near(address, why)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn kind(text: &str) -> &'static str {
        match Reach::of(text.parse().unwrap()) {
            Reach::Global => "global",
            Near(_) => "near",
            Never(_) => "never",
        }
    }

    // D10: each range of the registries by its first and last address, and the addresses just outside it.
    #[test]
    fn every_special_range_is_refused_up_to_its_last_address_and_no_further() {
        // Before, first, last, behind; with what each is.
        type Edges = [(&'static str, &'static str); 4];
        let table: &[Edges] = &[
            [("255.255.255.255", "never"), ("0.0.0.0", "never"), ("0.255.255.255", "never"), ("1.0.0.0", "global")],
            [("9.255.255.255", "global"), ("10.0.0.0", "near"), ("10.255.255.255", "near"), ("11.0.0.0", "global")],
            [("100.63.255.255", "global"), ("100.64.0.0", "near"), ("100.127.255.255", "near"), ("100.128.0.0", "global")],
            [("100.100.100.199", "near"), ("100.100.100.200", "never"), ("100.100.100.200", "never"), ("100.100.100.201", "near")],
            [("126.255.255.255", "global"), ("127.0.0.0", "near"), ("127.255.255.255", "near"), ("128.0.0.0", "global")],
            [("168.63.129.15", "global"), ("168.63.129.16", "never"), ("168.63.129.16", "never"), ("168.63.129.17", "global")],
            [("169.253.255.255", "global"), ("169.254.0.0", "never"), ("169.254.255.255", "never"), ("169.255.0.0", "global")],
            [("172.15.255.255", "global"), ("172.16.0.0", "near"), ("172.31.255.255", "near"), ("172.32.0.0", "global")],
            [("191.255.255.255", "global"), ("192.0.0.0", "never"), ("192.0.0.255", "never"), ("192.0.1.0", "global")],
            [("192.0.1.255", "global"), ("192.0.2.0", "near"), ("192.0.2.255", "near"), ("192.0.3.0", "global")],
            [("192.88.98.255", "global"), ("192.88.99.0", "never"), ("192.88.99.255", "never"), ("192.88.100.0", "global")],
            [("192.167.255.255", "global"), ("192.168.0.0", "near"), ("192.168.255.255", "near"), ("192.169.0.0", "global")],
            [("198.17.255.255", "global"), ("198.18.0.0", "near"), ("198.19.255.255", "near"), ("198.20.0.0", "global")],
            [("198.51.99.255", "global"), ("198.51.100.0", "near"), ("198.51.100.255", "near"), ("198.51.101.0", "global")],
            [("203.0.112.255", "global"), ("203.0.113.0", "near"), ("203.0.113.255", "near"), ("203.0.114.0", "global")],
            [("223.255.255.255", "global"), ("224.0.0.0", "never"), ("239.255.255.255", "never"), ("240.0.0.0", "never")],
            [("240.0.0.0", "never"), ("240.0.0.1", "never"), ("255.255.255.255", "never"), ("::", "never")],
            [("::", "never"), ("::1", "near"), ("::1", "near"), ("::2", "never")],
            [("::fffe:ffff:ffff", "never"), ("::ffff:0:0", "never"), ("::ffff:ffff:ffff", "never"), ("::1:0:0:0", "never")],
            [("64:ff9a:ffff::", "never"), ("64:ff9b::", "never"), ("64:ff9b::ffff:ffff", "never"), ("64:ff9b:0:0:0:1::", "never")],
            [("64:ff9b:0:ffff::", "never"), ("64:ff9b:1::", "never"), ("64:ff9b:1:ffff::", "never"), ("64:ff9b:2::", "never")],
            [("ff:ffff::", "never"), ("100::", "never"), ("100::ffff:ffff:ffff:ffff", "never"), ("100:0:0:1::", "never")],
            [("1fff:ffff::", "never"), ("2000::", "global"), ("2000:ffff::", "global"), ("2001::", "never")],
            [("2000:ffff:ffff::", "global"), ("2001::", "never"), ("2001:1ff:ffff::", "never"), ("2001:200::", "global")],
            [("2001:db7:ffff::", "global"), ("2001:db8::", "near"), ("2001:db8:ffff::", "near"), ("2001:db9::", "global")],
            [("2001:ffff::", "global"), ("2002::", "never"), ("2002:ffff:ffff::", "never"), ("2003::", "global")],
            [("3ffe:ffff::", "global"), ("3fff::", "near"), ("3fff:fff:ffff::", "near"), ("3fff:1000::", "global")],
            [("3fff:ffff::", "global"), ("4000::", "never"), ("5f00::", "never"), ("fbff:ffff::", "never")],
            [("fbff:ffff:ffff::", "never"), ("fc00::", "near"), ("fdff:ffff::", "near"), ("fe00::", "never")],
            [("fd00:ec1:ffff::", "near"), ("fd00:ec2::", "never"), ("fd00:ec2:ffff::", "never"), ("fd00:ec3::", "near")],
            [("fd20:cd:ffff::", "near"), ("fd20:ce::", "never"), ("fd20:ce:ffff::", "never"), ("fd20:cf::", "near")],
            [("fe7f:ffff::", "never"), ("fe80::", "never"), ("febf:ffff::", "never"), ("fec0::", "never")],
            [("feff:ffff::", "never"), ("ff00::", "never"), ("ffff:ffff::", "never"), ("2620:4f:8000::", "global")],
        ];
        for edges in table {
            for (address, expected) in edges {
                assert_eq!(kind(address), *expected, "{address}");
            }
        }
    }

    // D10
    #[test]
    fn declared_networks_are_all_that_is_reached_and_open_nothing_that_is_never_meant() {
        let networks = |all: &[&str]| all.iter().map(|one| one.parse::<Network>().unwrap()).collect::<Vec<_>>();
        let may = |address: &str, declared: &[&str]| may_connect(address.parse().unwrap(), &networks(declared)).is_ok();
        assert!(may("1.1.1.1", &[]) && may("2606:4700::1111", &[]));
        assert!(!may("10.1.2.3", &[]) && !may("127.0.0.1", &[]) && !may("fd00::1", &[]));
        assert!(may("10.1.2.3", &["10.1.0.0/16"]) && may("127.0.0.1", &["127.0.0.0/8"]) && may("fd00::1", &["fd00::/8"]));
        assert!(!may("10.2.0.0", &["10.1.0.0/16"]) && !may("1.1.1.1", &["10.1.0.0/16"]), "what is declared is all");
        assert!(!may("100.100.100.200", &["100.64.0.0/10"]) && !may("fd00:ec2::254", &["fd00::/8"]));
        for never in
            ["169.254.169.254", "169.254.170.2", "::ffff:10.1.2.3", "::ffff:1.1.1.1", "64:ff9b::101:101", "2002:101:101::", "fe80::1"]
        {
            assert!(!may(never, &[]) && !may(never, &["10.0.0.0/8", "128.0.0.0/1", "8000::/1"]), "{never}");
        }
    }
}
