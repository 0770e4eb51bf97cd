//! Identity providers besides the system's own: `[edge.issuer.NAME]`.
//!
//! What is checked here is what `proxy` relies on: public signature keys alone, each with a name and one algorithm, and scopes that are
//! named one by one.

use std::collections::{BTreeMap, BTreeSet};

use crate::document::Document;
use crate::model::Issuer;
use crate::written;

/// Providers of one system.
const ISSUERS_MAX: usize = 16;
/// Keys of one provider.
const KEYS_MAX: usize = 16;
/// What a key may sign with, and of which kind it then is (RFC 7518 section 3.1, RFC 8037).
const ALGORITHMS: &[(&str, &str)] = &[("ES256", "EC"), ("ES384", "EC"), ("EdDSA", "OKP"), ("RS256", "RSA"), ("PS256", "RSA")];
/// Parts of keys that nobody but the provider may have (RFC 7518 section 6).
const PRIVATE: &[&str] = &["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// Checks them all.
pub(super) fn issuers(document: &mut Document<'_>, written: &BTreeMap<String, written::Issuer>) -> BTreeMap<String, Issuer> {
    if written.len() > ISSUERS_MAX {
        document.problem(&["edge", "issuer"], format!("more than {ISSUERS_MAX} providers"), None);
    }
    let mut issuers = BTreeMap::new();
    for (name, w) in written {
        let at = |key| ["edge", "issuer", name.as_str(), key];
        let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !plain {
            document.problem(&["edge", "issuer", name], "write the name with lower-case letters, digits and '-'", None);
        }
        if !w.url.starts_with("https://") || w.url.len() > 255 {
            document.problem(&at("url"), "write the 'iss' of its tokens, an https address", None);
        }
        if w.audience.is_empty() || w.audience.len() > 255 {
            document.problem(&at("audience"), "write the 'aud' that its tokens for this system have", None);
        }
        if w.keys.is_empty() || w.keys.len() > KEYS_MAX {
            document.problem(&at("keys"), format!("write 1 to {KEYS_MAX} keys, as in its JWK set (RFC 7517)"), None);
        }
        let mut kids = BTreeSet::new();
        for key in &w.keys {
            if let Err(wrong) = key_is_good(key, &mut kids) {
                document.problem(&at("keys"), wrong, None);
            }
        }
        let issuer =
            Issuer { url: w.url.clone(), audience: w.audience.clone(), scopes: w.scopes.iter().cloned().collect(), keys: w.keys.clone() };
        if written.iter().any(|(other, o)| other < name && o.url == w.url) {
            document.problem(&at("url"), "another provider has this address", None);
        }
        issuers.insert(name.clone(), issuer);
    }
    issuers
}

fn key_is_good<'k>(key: &'k BTreeMap<String, String>, kids: &mut BTreeSet<&'k str>) -> Result<(), String> {
    let field = |name: &str| key.get(name).map(String::as_str).unwrap_or_default();
    if let Some(private) = PRIVATE.iter().find(|name| key.contains_key(**name)) {
        return Err(format!("'{private}' is a private part of a key: it must not stand here, and is no secret any more"));
    }
    let Some((_, kind)) = ALGORITHMS.iter().find(|(alg, _)| *alg == field("alg")) else {
        let known: Vec<_> = ALGORITHMS.iter().map(|(alg, _)| *alg).collect();
        return Err(format!("each key says its 'alg', one of {}", known.join(", ")));
    };
    if field("kty") != *kind {
        return Err(format!("a key for {} has kty = \"{kind}\"", field("alg")));
    }
    if field("kid").is_empty() || !kids.insert(key.get("kid").map(String::as_str).unwrap_or_default()) {
        return Err("each key has a 'kid' of its own".to_owned());
    }
    Ok(())
}
