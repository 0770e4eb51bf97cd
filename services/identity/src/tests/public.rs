//! The certificate for HTTPS on this machine.

use std::fs;
use std::process::Command;

use trust::SystemEntropy;

use super::sealer;
use crate::{CaError, PublicCa};

fn open(folder: &std::path::Path) -> PublicCa {
    PublicCa::open(folder, &sealer(7), trust::SystemClock::shared(), SystemEntropy::shared()).unwrap()
}

// A1: an independent verifier accepts it for its hosts and for no other (needs the openssl program).
#[test]
fn local_certificate_is_good_for_its_hosts_alone() {
    let folder = tempfile::tempdir().unwrap();
    let hosts = ["localhost".to_owned(), "video.localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let first = open(&folder.path().join("ca")).issue(&hosts).unwrap();
    let again = open(&folder.path().join("ca")).issue(&hosts).unwrap();
    assert_eq!(first.root_pem, again.root_pem, "the root stays over restarts");
    assert_ne!(first.key_pem.expose(), again.key_pem.expose());
    let (root, leaf) = (folder.path().join("r"), folder.path().join("l"));
    fs::write(&root, &first.root_pem).unwrap();
    fs::write(&leaf, &again.chain_pem).unwrap();
    for (option, host, good) in [
        ("-verify_hostname", "localhost", true),
        ("-verify_hostname", "video.localhost", true),
        ("-verify_ip", "127.0.0.1", true),
        ("-verify_ip", "::1", true),
        ("-verify_hostname", "example.com", false),
        ("-verify_ip", "10.0.0.1", false),
    ] {
        let mut verify = Command::new("openssl");
        verify.args(["verify", "-x509_strict", "-purpose", "sslserver", option, host, "-CAfile"]).arg(&root).arg(&leaf);
        let output = verify.output().expect("this test needs the openssl program");
        assert_eq!(output.status.success(), good, "{host}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn hosts_beyond_this_machine_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let ca = open(folder.path());
    for host in ["example.com", "10.0.0.1", "localhost.example.com", "notlocalhost", "", "*.localhost", "local host"] {
        assert!(matches!(ca.issue(&[host.to_owned()]), Err(CaError::NameRefused(_))), "{host}");
    }
    assert!(ca.issue(&[]).is_err());
}
