//! From a name to addresses that may be connected to: all of them, or none.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use trust::{Network, may_connect};

use super::OutsideFailed;
use crate::limits;

/// Gives the addresses of names.
#[async_trait]
pub trait Resolve: Send + Sync + std::fmt::Debug + 'static {
    /// Every address of `host`.
    ///
    /// # Errors
    /// When there is no answer.
    async fn addresses(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// The machine's own resolver (`getaddrinfo`).
#[derive(Debug, Clone, Copy)]
pub struct MachineResolver;

#[async_trait]
impl Resolve for MachineResolver {
    async fn addresses(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect())
    }
}

/// The addresses of `host`, each of which may be connected to. A host that is an address is its own.
pub(super) async fn checked(resolver: &dyn Resolve, host: &str, networks: &[Network]) -> Result<Vec<IpAddr>, OutsideFailed> {
    let mut addresses = match host.parse::<IpAddr>() {
        Ok(address) => vec![address],
        Err(_) => {
            let found = tokio::time::timeout(Duration::from_millis(limits::RESOLVE_MS), resolver.addresses(host)).await;
            let found = found.unwrap_or_else(|late| Err(io::Error::new(io::ErrorKind::TimedOut, late)));
            found.map_err(|error| OutsideFailed::Unresolved(host.to_owned(), error))?
        }
    };
    let mut seen = std::collections::BTreeSet::new();
    addresses.retain(|address| seen.insert(*address));
    if addresses.is_empty() || addresses.len() > limits::OUTSIDE_ADDRESSES_MAX {
        return Err(OutsideFailed::Addresses(host.to_owned(), addresses.len()));
    }
    for address in &addresses {
        may_connect(*address, networks)?;
    }
    Ok(addresses)
}
