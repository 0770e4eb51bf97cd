//! Applications that people may sign in to besides the system's own pages: `[edge.client.NAME]`.
//!
//! What is checked here is what `login` relies on: exact addresses to return to, over TLS or on the person's own machine.

use std::collections::BTreeMap;

use crate::document::Document;
use crate::model::Client;
use crate::written;

/// Applications of one system.
const CLIENTS_MAX: usize = 64;
/// Addresses of one application.
const RETURNS_MAX: usize = 16;
/// Names that are Palisade's own clients'.
const OWN: &[&str] = &["edge", "palisade-cli"];

/// Checks them all.
pub(super) fn clients(document: &mut Document<'_>, written: &BTreeMap<String, written::Client>, asks: bool) -> BTreeMap<String, Client> {
    if written.len() > CLIENTS_MAX {
        document.problem(&["edge", "client"], format!("more than {CLIENTS_MAX} applications"), None);
    }
    let mut clients = BTreeMap::new();
    for (name, w) in written {
        let at = |key| ["edge", "client", name.as_str(), key];
        if !trust::spiffe::is_name(name) {
            document.problem(&["edge", "client", name], "write the name with lower-case letters, digits and '-'", None);
        } else if OWN.contains(&name.as_str()) {
            document.problem(&["edge", "client", name], format!("'{name}' is one of Palisade's own clients"), None);
        }
        if w.returns.is_empty() || w.returns.len() > RETURNS_MAX {
            document.problem(&at("returns"), format!("write 1 to {RETURNS_MAX} addresses that people are sent back to"), None);
        }
        if let Some(wrong) = w.returns.iter().find(|address| !is_return(address)) {
            let help = Some(
                "as in \"https://app.example/callback\", or \"http://127.0.0.1/callback\" for a program on the person's machine".to_owned(),
            );
            document.problem(&at("returns"), format!("'{wrong}' is no address to return to"), help);
        }
        if let Some(name) = &w.certificate {
            let plain = name.len() <= 253 && name.split('.').all(trust::spiffe::is_name);
            if !plain {
                document.problem(&at("certificate"), "write the DNS name in its certificate, in lower case", None);
            } else if !asks {
                let help = Some("write client_ca = \"FILE.pem\" under [edge]".to_owned());
                document.problem(&at("certificate"), "the edge asks nobody for a certificate", help);
            }
        }
        let client = Client {
            returns: w.returns.iter().cloned().collect(),
            opaque: w.tokens == written::Tokens::Opaque,
            proof_required: w.dpop,
            certificate: w.certificate.clone(),
        };
        clients.insert(name.clone(), client);
    }
    clients
}

/// An exact https address, or a path on the loopback, where the port is the program's choice (RFC 8252, section 7.3).
fn is_return(address: &str) -> bool {
    let plain = address.len() <= 255
        && address.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'#' | b'"' | b'\'' | b'\\' | b'*' | b';' | b','));
    let loopback = ["http://127.0.0.1/", "http://[::1]/"].iter().any(|start| address.starts_with(start));
    let host = address.strip_prefix("https://").map(|rest| rest.split(['/', '?']).next().unwrap_or_default());
    let public = host.is_some_and(|host| !host.is_empty() && !host.contains('@') && host.bytes().all(|b| !b.is_ascii_uppercase()));
    plain && (loopback || public)
}
