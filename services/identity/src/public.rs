//! The authority behind the edge's HTTPS certificate on this machine, apart from the mesh's.
//!
//! A person may tell a browser to trust its root: name constraints hold it to `localhost`, names under it and loopback addresses, so
//! that it vouches for nothing else, and its root is not in the mesh's bundle, so that it vouches for no workload.
//!
//! Spec:     RFC 5280, section 4.2.1.10 (name constraints); RFC 6761, section 6.3 (localhost); RFC 9525 (names of servers).
//! Not here: certificates of public authorities (ACME).

use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;

use rcgen::{CidrSubnet, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, KeyUsagePurpose, NameConstraints, SanType};
use trust::{Clock, Entropy, KeySealer, Secret};

use crate::ca::CaError;
use crate::certificate::{self, AtRest, AtWork, DAY_S, SKEW_S};
use crate::durable::Folder;

const FILE: &str = "local-https.json";
const NAME: &str = "local-https";
const ROOT_LIFE_S: u64 = 3652 * DAY_S;
const LEAF_LIFE_S: u64 = 90 * DAY_S;

/// The authority for HTTPS on this machine.
#[derive(Debug)]
pub struct PublicCa {
    root: AtWork,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    _folder: Folder,
}

/// A server's certificate.
#[derive(Debug, Clone)]
pub struct PublicCertificate {
    /// The chain without the root, PEM.
    pub chain_pem: String,
    /// The private key, PKCS #8 PEM.
    pub key_pem: Secret<String>,
    /// The root, PEM: what a browser or a script may be told to trust.
    pub root_pem: String,
    /// Its end, seconds since the epoch.
    pub not_after_s: u64,
}

impl PublicCa {
    /// Opens the authority of a folder, or creates it there.
    ///
    /// # Errors
    /// `Folder`, `Seal` or `Broken`: what is there cannot be used as it is.
    pub fn open(folder: &Path, sealer: &KeySealer, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Result<Self, CaError> {
        let folder = Folder::open(folder)?;
        let kept: AtRest = match folder.read(FILE)? {
            Some(text) => serde_json::from_str(&text).map_err(|_| CaError::Broken(FILE))?,
            None => {
                let kept = create(sealer, &*clock, &*entropy)?;
                folder.write(FILE, &serde_json::to_string_pretty(&kept).map_err(|_| CaError::Broken(FILE))?)?;
                kept
            }
        };
        let root = kept.open(NAME, sealer)?;
        if !certificate::is_signed_by(&root.der, &root.der) {
            return Err(CaError::Broken(FILE));
        }
        Ok(Self { root, clock, entropy, _folder: folder })
    }

    /// A certificate with a new key for these hosts: `localhost`, names under it, loopback addresses.
    ///
    /// # Errors
    /// `NameRefused` for any other host, and when there is none.
    pub fn issue(&self, hosts: &[String]) -> Result<PublicCertificate, CaError> {
        let names = hosts.iter().map(|host| local_name(host)).collect::<Result<Vec<_>, _>>()?;
        if names.is_empty() {
            return Err(CaError::NameRefused(String::new()));
        }
        let now_s = self.clock.unix_s();
        let not_after_s = now_s.saturating_add(LEAF_LIFE_S).min(self.root.not_after_s);
        let mut params = certificate::blank(&*self.clock, &*self.entropy, now_s.saturating_sub(SKEW_S), not_after_s);
        params.subject_alt_names = names;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = certificate::new_key()?;
        let leaf = params.signed_by(&key, &self.root.issuer)?;
        Ok(PublicCertificate { chain_pem: leaf.pem(), key_pem: Secret::new(key.serialize_pem()), root_pem: self.root_pem(), not_after_s })
    }

    /// The root, PEM.
    #[must_use]
    pub fn root_pem(&self) -> String {
        let body = certificate::encoded(&self.root.der);
        let lines: Vec<&str> = body.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap_or_default()).collect();
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
    }
}

fn create(sealer: &KeySealer, clock: &dyn Clock, entropy: &dyn Entropy) -> Result<AtRest, CaError> {
    let now_s = clock.unix_s();
    let key = certificate::new_key()?;
    let mut params = certificate::blank(clock, entropy, now_s.saturating_sub(SKEW_S), now_s.saturating_add(ROOT_LIFE_S));
    certificate::as_authority(&mut params, "Palisade local HTTPS (this machine only)".to_owned(), 0);
    let permitted_subtrees = vec![
        GeneralSubtree::DnsName("localhost".to_owned()),
        GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix([127, 0, 0, 0], 8)),
        GeneralSubtree::IpAddress(CidrSubnet::V6(Ipv6Addr::LOCALHOST.octets(), [0xff; 16])),
    ];
    params.name_constraints = Some(NameConstraints { permitted_subtrees, excluded_subtrees: Vec::new() });
    AtRest::new(NAME, 1, params.self_signed(&key)?.der(), &key, sealer)
}

fn local_name(host: &str) -> Result<SanType, CaError> {
    let refused = || CaError::NameRefused(host.to_owned());
    if let Ok(address) = host.parse::<IpAddr>() {
        return if address.is_loopback() { Ok(SanType::IpAddress(address)) } else { Err(refused()) };
    }
    let labels_fit = host.split('.').all(trust::spiffe::is_name);
    if labels_fit && (host == "localhost" || host.ends_with(".localhost")) {
        return Ok(SanType::DnsName(host.to_owned().try_into()?));
    }
    Err(refused())
}
