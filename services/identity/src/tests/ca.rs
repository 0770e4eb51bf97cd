//! What is issued, what survives, what is refused.

use std::fs;
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use contract::identity::{Issued, Revocation};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose, SanType};
use trust::{SpiffeId, TrustDomain};
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};

use super::{TestClock, config, domain, open, request, request_with, sealer};
use crate::request::{ProvenKey, RequestError};
use crate::{Ca, CaError};

fn der(text: &str) -> Vec<u8> {
    STANDARD.decode(text).unwrap()
}

fn api() -> SpiffeId {
    domain().service("api")
}

/// What SPIFFE X509-SVID sections 2 to 4 ask of a leaf and of the authorities over it.
fn assert_is_svid(issued: &Issued, id: &SpiffeId) {
    let (leaf, intermediate) = (der(&issued.chain[0]), der(&issued.chain[1]));
    let (rest, leaf) = X509Certificate::from_der(&leaf).unwrap();
    let (_, intermediate) = X509Certificate::from_der(&intermediate).unwrap();
    assert!(rest.is_empty() && issued.chain.len() == 2, "leaf and intermediate, no root");
    let names = &leaf.subject_alternative_name().unwrap().expect("names").value.general_names;
    assert!(matches!(&names[..], [GeneralName::URI(uri)] if *uri == id.to_string()), "section 2: exactly one URI: {names:?}");
    assert_eq!(leaf.subject().iter().count(), 0, "no other names");
    assert!(!leaf.is_ca(), "section 4.1");
    let usage = leaf.key_usage().unwrap().expect("key usage");
    assert!(usage.critical && usage.value.digital_signature(), "section 4.3");
    assert!(!usage.value.key_cert_sign() && !usage.value.crl_sign(), "section 4.3: neither keyCertSign nor cRLSign");
    let extended = leaf.extended_key_usage().unwrap().expect("extended key usage").value;
    assert!(extended.server_auth && extended.client_auth && !extended.any, "section 4.4");
    assert!(leaf.raw_serial().len() >= 8 && leaf.raw_serial()[0] < 0x80, "at least 64 bits, positive");
    let (starts, ends) = (leaf.validity().not_before.timestamp(), leaf.validity().not_after.timestamp());
    assert!(ends - starts <= 3600, "C9: one hour at most");
    assert_eq!(u64::try_from(ends).unwrap(), issued.not_after_s);
    let has = |wanted: fn(&ParsedExtension<'_>) -> bool| leaf.extensions().iter().any(|e| wanted(e.parsed_extension()));
    assert!(
        has(|e| matches!(e, ParsedExtension::SubjectKeyIdentifier(_))) && has(|e| matches!(e, ParsedExtension::AuthorityKeyIdentifier(_)))
    );
    leaf.verify_signature(Some(intermediate.public_key())).unwrap();
    let root = der(&issued.bundle.roots[0]);
    let (_, root) = X509Certificate::from_der(&root).unwrap();
    intermediate.verify_signature(Some(root.public_key())).unwrap();
    for (authority, below) in [(&intermediate, 0), (&root, 1)] {
        let usage = authority.key_usage().unwrap().unwrap().value;
        assert!(authority.is_ca() && usage.key_cert_sign() && !usage.digital_signature(), "section 3.2 and 4.3");
        assert_eq!(authority.basic_constraints().unwrap().unwrap().value.path_len_constraint, Some(below));
        let names = &authority.subject_alternative_name().unwrap().unwrap().value.general_names;
        assert!(matches!(&names[..], [GeneralName::URI(uri)] if *uri == "spiffe://video.example"), "section 3.2: a domain, no path");
    }
}

// C1: the constraints of X509-SVID sections 2 to 4, for every kind of identity.
#[test]
fn issued_svids_have_exactly_the_form_that_spiffe_asks_for() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::shared());
    let ca = open(folder.path(), &clock).unwrap();
    for id in [api(), domain().role("edge"), domain().role("control")] {
        assert_is_svid(&ca.admit(&id, &request()).unwrap(), &id);
        assert_is_svid(&ca.renew(&id, &request()).unwrap(), &id);
    }
    assert_is_svid(&ca.issue_self(&request()).unwrap(), &domain().role("identity"));
    let serial = |issued: &Issued| X509Certificate::from_der(&der(&issued.chain[0])).unwrap().1.raw_serial().to_vec();
    assert_ne!(serial(&ca.admit(&api(), &request()).unwrap()), serial(&ca.admit(&api(), &request()).unwrap()));
}

// C1: an independent verifier agrees (needs the openssl program).
#[test]
fn chain_validates_with_openssl() {
    let folder = tempfile::tempdir().unwrap();
    // openssl checks against the machine's clock.
    let mut config = config(&folder.path().join("ca"), &TestClock::shared());
    config.clock = trust::SystemClock::shared();
    let issued = Ca::open(config).unwrap().admit(&api(), &request()).unwrap();
    let file = |name: &str, der: &str| {
        let path = folder.path().join(name);
        fs::write(&path, format!("-----BEGIN CERTIFICATE-----\n{der}\n-----END CERTIFICATE-----\n")).unwrap();
        path
    };
    let (root, intermediate, leaf) = (file("r", &issued.bundle.roots[0]), file("i", &issued.chain[1]), file("l", &issued.chain[0]));
    for purpose in ["sslserver", "sslclient"] {
        let mut verify = Command::new("openssl");
        verify.args(["verify", "-x509_strict", "-purpose", purpose, "-CAfile"]).arg(&root).arg("-untrusted").arg(&intermediate).arg(&leaf);
        let output = verify.output().expect("this test needs the openssl program");
        assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    }
}

// C1: only the key of a request is believed.
#[test]
fn whatever_else_a_request_asks_for_is_ignored() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::shared());
    let ca = open(folder.path(), &clock).unwrap();
    let mut greedy = CertificateParams::default();
    greedy.distinguished_name.push(DnType::CommonName, "role/control");
    greedy.subject_alt_names = vec![
        SanType::URI("spiffe://video.example/role/control".try_into().unwrap()),
        SanType::DnsName("localhost".try_into().unwrap()),
        SanType::IpAddress([127, 0, 0, 1].into()),
    ];
    greedy.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    greedy.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    assert_is_svid(&ca.admit(&api(), &request_with(&greedy)).unwrap(), &api());
}

// C1: possession is proven, and only P-256 is signed.
#[test]
fn requests_without_a_proof_or_with_other_keys_are_refused() {
    let good = der(&request());
    let flip = |at: usize| {
        let mut edited = good.clone();
        edited[at] ^= 1;
        super::encoded(&edited)
    };
    let other_key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let p384 = super::encoded(CertificateParams::default().serialize_request(&other_key).unwrap().der());
    let trailing = super::encoded(&[good.as_slice(), b"x"].concat());
    for (case, text, expect) in [
        ("signature edited", flip(good.len() - 1), RequestError::Unsigned),
        ("P-384", p384, RequestError::KeyUnsuited),
        ("trailing bytes", trailing, RequestError::Malformed),
        ("not base64", "§".to_owned(), RequestError::Malformed),
        ("empty", String::new(), RequestError::Malformed),
        ("huge", "A".repeat(100_000), RequestError::Malformed),
    ] {
        assert_eq!(ProvenKey::parse(&text).err(), Some(expect), "{case}");
    }
}

#[test]
fn other_trust_domains_are_not_certified() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::shared());
    let ca = open(folder.path(), &clock).unwrap();
    let foreign = TrustDomain::parse("other.example").unwrap().service("api");
    assert!(matches!(ca.admit(&foreign, &request()), Err(CaError::NameRefused(_))));
}

// C9: shorter lives for tests, never longer ones.
#[test]
fn life_is_configurable_up_to_one_hour() {
    let clock = TestClock::shared();
    for (asked, window) in [(10, 11), (600, 660), (3600, 3600), (1_000_000, 3600)] {
        let folder = tempfile::tempdir().unwrap();
        let ca = Ca::open(crate::CaConfig { svid_life_s: asked, ..config(folder.path(), &clock) }).unwrap();
        let issued = ca.admit(&api(), &request()).unwrap();
        let leaf = der(&issued.chain[0]);
        let validity = X509Certificate::from_der(&leaf).unwrap().1.validity().clone();
        assert_eq!(validity.not_after.timestamp() - validity.not_before.timestamp(), window, "{asked}");
    }
}

// C9: intermediates are replaced long before their end, under the same root, and over restarts.
#[test]
fn intermediates_replace_themselves_before_their_end() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::shared());
    let ca = open(folder.path(), &clock).unwrap();
    let first = ca.admit(&api(), &request()).unwrap();
    clock.pass(59 * 86_400);
    assert_eq!(ca.admit(&api(), &request()).unwrap().chain[1], first.chain[1], "31 days are left");
    clock.pass(2 * 86_400);
    let second = ca.admit(&api(), &request()).unwrap();
    assert_ne!(second.chain[1], first.chain[1], "29 days are left");
    assert_eq!(second.bundle.roots, first.bundle.roots);
    assert_is_svid(&second, &api());
    drop(ca);
    assert_eq!(open(folder.path(), &clock).unwrap().admit(&api(), &request()).unwrap().chain[1], second.chain[1]);
}

// C12, B9: what was revoked and which keys sign authority is known after any restart.
#[test]
fn restart_keeps_roots_revocations_keys_and_sequence() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::shared());
    let ca = open(folder.path(), &clock).unwrap();
    let edge = domain().role("edge");
    for id in [&edge, &domain().role("queue"), &api()] {
        ca.admit(id, &request()).unwrap();
    }
    ca.renew(&edge, &request()).unwrap();
    ca.revoke(&Revocation { spiffe_id: api(), before_s: u64::MAX }).unwrap();
    let before = ca.bundle().unwrap();
    assert_eq!(before.authority_keys.len(), 3, "two of the edge, one of the queue, none of a service");
    drop(ca);
    let ca = open(folder.path(), &clock).unwrap();
    assert_eq!(ca.bundle().unwrap(), before);
    clock.pass(3600);
    let later = ca.bundle().unwrap();
    assert!(later.authority_keys.is_empty() && later.sequence > before.sequence, "keys leave with their SVIDs");
}

// C12: a revoked identity gets nothing until it is attested anew, and then an SVID that the revocation does not hit.
#[test]
fn revoked_identity_is_shut_out_until_attested_anew() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::shared());
    let ca = open(folder.path(), &clock).unwrap();
    let edge = domain().role("edge");
    ca.admit(&edge, &request()).unwrap();
    let sequence = ca.bundle().unwrap().sequence;
    let now = 1_800_000_000;
    let bundle = ca.revoke(&Revocation { spiffe_id: edge.clone(), before_s: now }).unwrap();
    assert!(bundle.sequence > sequence && bundle.authority_keys.is_empty(), "its keys sign no more");
    assert!(matches!(ca.renew(&edge, &request()), Err(CaError::Revoked)));
    assert!(ca.renew(&api(), &request()).is_ok(), "others go on");
    let anew = ca.admit(&edge, &request()).unwrap();
    let leaf = der(&anew.chain[0]);
    let starts = X509Certificate::from_der(&leaf).unwrap().1.validity().not_before.timestamp();
    assert!(starts >= i64::try_from(now).unwrap(), "begins at the mark, not a minute before");
    assert!(ca.renew(&edge, &request()).is_ok());
    let again = ca.revoke(&Revocation { spiffe_id: edge.clone(), before_s: 5 }).unwrap();
    assert_eq!(again.revoked[0].before_s, now, "a mark is never moved back");
}

// C1: keys at rest. Every edit of the folder is found before anything is signed.
#[test]
fn tampered_folders_are_refused() {
    let clock = TestClock::shared();
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for path in [folder.path(), other.path()] {
        let ca = open(path, &clock).unwrap();
        ca.revoke(&Revocation { spiffe_id: api(), before_s: 1 }).unwrap();
    }
    let original = fs::read_to_string(folder.path().join("ca.json")).unwrap();
    let value =
        |path: &std::path::Path| serde_json::from_str::<serde_json::Value>(&fs::read_to_string(path.join("ca.json")).unwrap()).unwrap();
    let (own, foreign) = (value(folder.path()), value(other.path()));
    assert!(!original.contains("PRIVATE"), "no key in the open");
    let with = |edit: &dyn Fn(&mut serde_json::Value)| {
        let mut edited = own.clone();
        edit(&mut edited);
        edited.to_string()
    };
    for (case, text) in [
        ("root's key in the intermediate's place", with(&|v| v["intermediate"]["key"] = own["root"]["key"].clone())),
        ("another authority's root certificate", with(&|v| v["root"]["certificate"] = foreign["root"]["certificate"].clone())),
        ("another authority's whole intermediate", with(&|v| v["intermediate"] = foreign["intermediate"].clone())),
        ("another generation", with(&|v| v["intermediate"]["generation"] = 2.into())),
        ("cut short", original[..original.len() / 2].to_owned()),
    ] {
        fs::write(folder.path().join("ca.json"), text).unwrap();
        assert!(open(folder.path(), &clock).is_err(), "{case}");
    }
    fs::write(folder.path().join("ca.json"), &original).unwrap();
    let ledger = fs::read_to_string(folder.path().join("ledger.sealed")).unwrap();
    fs::write(folder.path().join("ledger.sealed"), ledger.replacen(&ledger[40..41], if &ledger[40..41] == "0" { "1" } else { "0" }, 1))
        .unwrap();
    assert!(open(folder.path(), &clock).is_err(), "a revocation edited away");
    fs::write(folder.path().join("ledger.sealed"), ledger).unwrap();
    assert!(open(folder.path(), &clock).is_ok(), "as it was");
    let under_another_key = crate::CaConfig { sealer: sealer(8), ..config(folder.path(), &clock) };
    let message = Ca::open(under_another_key).map(|_| ()).unwrap_err();
    let CaError::Seal(cause) = message else { panic!("{message}") };
    assert!(cause.to_string().contains("another key-encryption key"), "{cause}");
    let foreign_domain = crate::CaConfig { trust_domain: TrustDomain::parse("other").unwrap(), ..config(folder.path(), &clock) };
    assert!(matches!(Ca::open(foreign_domain), Err(CaError::Foreign { .. })));
}

#[test]
fn one_process_at_a_time_has_the_folder() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::shared());
    let ca = open(folder.path(), &clock).unwrap();
    assert!(matches!(open(folder.path(), &clock), Err(CaError::Folder(_))));
    drop(ca);
    assert!(open(folder.path(), &clock).is_ok());
}
