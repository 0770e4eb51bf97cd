//! The copy's disk, read by somebody who has everything but the folder of sealing keys: private keys, and the canary in the manifest.
//!
//! Guarantees: C1 (keys at rest) measured, L13.
//! Not here:   objects and messages. They lie as they are, in folders of their owner alone: what seals them is the disk's encryption.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use breach::Control;
use evidence::NoteSigner;

use super::Probed;
use crate::system::Layout;

/// Roles that keep something sealed.
const ROLES: &[&str] = &["control", "evidence", "identity", "login"];
/// What a private P-256 key has in PKCS #8 (RFC 5958; RFC 5915) and a public one has not.
const PRIVATE: &str = "06072a8648ce3d020106082a8648ce3d030107046d306b0201010420";
/// As much of a file as is read.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// A seed lies in a small file.
const SEED_FILE_BYTES_MAX: usize = 64 * 1024;
const SEED_DIGITS: usize = 64;

/// Looks through the folder of each role.
pub(in crate::breach) fn read(dir: &Path, canaries: &[String]) -> io::Result<Vec<Probed>> {
    let layout = Layout { dir: dir.to_path_buf() };
    let verifier = fs::read_to_string(layout.audit_key())?.trim().to_owned();
    let mut probed = Vec::new();
    for role in ROLES {
        let mut found = None;
        each_file(&layout.data(role), &mut |name, bytes| found = found.or_else(|| lies_open(name, bytes, &verifier, canaries)))?;
        let what = found.map_or("nothing that is secret lies open on the disk".to_owned(), |what| format!("{what} lies open on the disk"));
        probed.push(Probed::new(Control::Sealing, role, found.is_none(), what));
    }
    Ok(probed)
}

/// What of a file is secret and open, in words.
fn lies_open(name: &str, bytes: &[u8], verifier: &str, canaries: &[String]) -> Option<&'static str> {
    // The key of the gateway's own certificate is for the gateway to read.
    if name == "key.pem" {
        return None;
    }
    let has = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
    let either = |hexadecimal: &str| has(hexadecimal.as_bytes()) || hex::decode(hexadecimal).is_ok_and(|raw| has(&raw));
    if either(PRIVATE) {
        return Some("a private key");
    }
    if canaries.iter().any(|canary| either(&hex::encode(canary))) {
        return Some("the manifest in force");
    }
    (bytes.len() <= SEED_FILE_BYTES_MAX && is_seed_in(bytes, verifier)).then_some("the seed of the key that signs the audit log")
}

/// Whether some run of hexadecimal digits is the seed whose public half verifies the log.
fn is_seed_in(bytes: &[u8], verifier: &str) -> bool {
    let name = verifier.split('+').next().unwrap_or_default();
    let runs = bytes.split(|byte| !byte.is_ascii_hexdigit()).filter(|run| run.len() == SEED_DIGITS);
    runs.filter_map(|run| NoteSigner::from_seed(name, &hex::decode(run).ok()?).ok()).any(|signer| signer.verifier().to_string() == verifier)
}

fn each_file(folder: &Path, look: &mut dyn FnMut(&str, &[u8])) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            each_file(&entry.path(), look)?;
        } else if kind.is_file() {
            let mut bytes = Vec::new();
            fs::File::open(entry.path())?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
            look(&entry.file_name().to_string_lossy(), &bytes);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use proxy::svid::PendingKey;
    use trust::{KeySealer, Secret, SystemEntropy};

    use super::*;

    // L13, C1: what is sealed is not found; the same as it is, is.
    #[test]
    fn keys_are_found_where_they_lie_open_and_not_where_they_are_sealed() {
        let sealer = KeySealer::new("identity", &Secret::new([1; 32]), SystemEntropy::shared()).unwrap();
        let open = sealer.clone().dangerous_unsealed();
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap().serialize_der();
        let signer = NoteSigner::from_seed("a/audit", &[5; 32]).unwrap();
        let (verifier, canaries) = (signer.verifier().to_string(), ["canary-1".to_owned()]);
        let look = |text: &str| lies_open("x", text.as_bytes(), &verifier, &canaries);
        for (plain, what) in [
            (key.as_slice(), "a private key"),
            (b"...canary-1...", "the manifest in force"),
            (&[5; 32], "the seed of the key that signs the audit log"),
        ] {
            assert_eq!(look(&sealer.seal("n", 1, plain).unwrap()), None);
            assert_eq!(look(&open.seal("n", 1, plain).unwrap()), Some(what));
            assert_eq!(open.open("n", 1, &open.seal("n", 1, plain).unwrap()).unwrap().expose(), plain);
            assert!(sealer.open("n", 1, &open.seal("n", 1, plain).unwrap()).is_err(), "what lies open is refused by every other");
        }
        assert_eq!(lies_open("x", &key, &verifier, &canaries), Some("a private key"));
        assert_eq!(look(PendingKey::generate().unwrap().csr()), None, "a public key is none");
        assert_eq!(lies_open("key.pem", &key, &verifier, &canaries), None);
    }
}
