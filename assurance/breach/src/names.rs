//! Names: what lies around a sandbox, as the model and the attack both call it.
//!
//! A cell that is predicted under one name and reached under another can never agree. So what the manifest does not name has its name here,
//! and nowhere else.
//!
//! Guarantees: L8, L13: what is reached without a control is the cell that the model has behind it.
//! Not here:   names that come from the manifest (`bucket.NAME`, `service.NAME`).

/// Addresses beyond the system: a neighbour, the internet.
pub const OUTSIDE: &str = "outside";
/// By TCP.
pub const TCP: &str = "tcp";
/// By UDP.
pub const UDP: &str = "udp";
/// In questions to name servers.
pub const DNS: &str = "dns";
/// Ports of the machine's loopback, where roles and guards are.
pub const LOOPBACK: &str = "host.loopback";
/// What a cloud's metadata service gives.
pub const METADATA: &str = "secret.metadata";
/// A private key: of a guard's SVID, where one is found in memory.
pub const PRIVATE_KEY: &str = "secret.private-key";
/// The key of Palisade's own authority.
pub const AUTHORITY_KEY: &str = "key.authority";
/// Files of the machine and of the control plane.
pub const FILES: &str = "host.files";
/// UNIX sockets of operators and of the machine.
pub const SOCKETS: &str = "host.sockets";
/// What is done at one.
pub const CONNECT: &str = "connect";
/// Memory, environment and files of other processes.
pub const PROCESSES: &str = "process.others";
/// What listeners of services that share the network of others say to whoever comes by, of whom nobody asks for a certificate.
pub const PLAIN_ANSWER: &str = "answer of somebody";
/// What is done to its own init, of the same user and the same process namespace.
pub const SIGNAL_INIT: &str = "signal its init";
/// Where the audit log lies.
pub const EVIDENCE: &str = "role.evidence";

/// The folder of a service.
#[must_use]
pub fn state(service: &str) -> String {
    format!("state.{service}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::predict::tests::{VIDEO, predicted};

    // L8, L13: the model has a way to each of them, which some control stops, and nobody reaches one with every control in force.
    #[test]
    fn the_model_knows_everything_that_the_attack_has_a_name_for() {
        let prediction = predicted(VIDEO);
        let names = [OUTSIDE, LOOPBACK, METADATA, PRIVATE_KEY, AUTHORITY_KEY, FILES, SOCKETS, PROCESSES, "state.api"];
        for name in names {
            let mut ways = prediction.ways.iter().filter(|way| way.cell.target == name && way.profile.to_string() == "service.web");
            assert!(ways.clone().count() > 0 && ways.all(|way| !way.stops.is_empty()), "{name}");
        }
    }
}
