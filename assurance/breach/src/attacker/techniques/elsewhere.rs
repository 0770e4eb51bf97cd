//! Credentials of others, shown where they are not at home: a session in a token's field, a key as a session, a person's as an
//! administrator's.
//!
//! Where it is at home a credential is whose it is, whoever shows it: sessions and keys are not bound to an address. That is what `person`,
//! `insider` and `vendor` are about.

use super::{Notes, Row, Run, Visitor, Who, patiently};
use crate::attacker::hand::HOPS_MAX;
use crate::attacker::http::Request;
use crate::attacker::script::filled;
use crate::{Cell, Control, Extent, Stride};

/// The row.
pub(super) const ROW: Row = Row {
    id: "elsewhere",
    title: "Shows stolen sessions and keys in every field that is not theirs, to routes, sign-in, the store and the console.",
    attack: "T1539",
    stride: Stride::S,
    controls: &[Control::SignIn, Control::Role],
    run: Run::Outside(run, &[Who::Stranger]),
};

/// A credential that was stolen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// Whose, in words.
    pub what: String,
    /// Field that it is at home in, and the text of that field; empty where it counts nowhere by itself.
    pub home: (&'static str, String),
    /// The text itself.
    pub text: String,
}

fn run(visitor: &Visitor<'_>, notes: &mut Notes) {
    let mut places: Vec<(String, String, String)> = vec![
        ("sign-in".to_owned(), format!("{}/userinfo", contract::login::ISSUER_PATH), "\"sub\"".to_owned()),
        ("the console".to_owned(), "/console".to_owned(), "/console/console.".to_owned()),
    ];
    for (service, part) in &visitor.script.services {
        let route = part.routes.iter().find(|route| route.public && route.method == "GET" && !route.page);
        let target = |path: &str| format!("{}?breach={}&hops={HOPS_MAX}", filled(path, &visitor.own), visitor.own);
        places.extend(route.map(|route| (service.clone(), target(&route.path), format!("\"breach_service\":\"{service}\""))));
    }
    for bucket in visitor.script.buckets.keys().take(1) {
        places.push(("the store".to_owned(), format!("/{bucket}/{}/{bucket}", visitor.own), "canary".to_owned()));
    }
    for credential in visitor.credentials {
        let text = &credential.text;
        at_home(visitor, notes, credential, &places);
        let fields = [
            ("authorization", format!("Bearer {text}")),
            ("authorization", format!("DPoP {text}")),
            ("authorization", format!("Basic {text}")),
            ("txn-token", text.clone()),
            ("x-api-key", text.clone()),
            ("cookie", format!("__Host-palisade={text}")),
            ("cookie", format!("__Host-palisade-sign-in={text}")),
        ];
        for (name, value) in fields.into_iter().filter(|(name, value)| !is_home(credential, name, value)) {
            notes.shows(Some((&credential.what, &format!("in the field {name}{}", scheme(&value)))));
            for (place, path, said) in &places {
                match patiently(visitor.bare, &Request::new("GET", path.clone()).with(name, value.clone())) {
                    Ok(answer) if answer.is_success() && answer.text().contains(said.as_str()) => {
                        let cell = Cell::read(format!("elsewhere.{place}"), Extent::Everybody);
                        notes.reached(cell, format!("{} in {name} opens {place}", credential.what));
                    }
                    Ok(answer) => notes.stopped(Some(Control::SignIn), format!("{} in {name}: {}", credential.what, answer.status)),
                    Err(_) => notes.stopped(Some(Control::SignIn), format!("{} in {name}: no answer", credential.what)),
                }
            }
        }
    }
    notes.shows(None);
}

/// Where its owner shows it, too, from wherever that is.
fn at_home(visitor: &Visitor<'_>, notes: &mut Notes, credential: &Credential, places: &[(String, String, String)]) {
    let (name, value) = &credential.home;
    // What is bound is nowhere at home by itself.
    if name.is_empty() {
        return;
    }
    notes.shows(Some((&credential.what, "where it is at home, from another place")));
    for (place, path, said) in places {
        let answer = patiently(visitor.bare, &Request::new("GET", path.clone()).with(name, value.clone()));
        if answer.is_ok_and(|answer| answer.is_success() && answer.text().contains(said.as_str())) {
            notes.counts(format!("{} at home: {place} answers", credential.what));
        }
    }
    notes.shows(None);
}

/// The scheme in a field's text, as a part of its name; a cookie's name.
fn scheme(value: &str) -> String {
    match value.split_once([' ', '=']) {
        Some((scheme @ ("Bearer" | "DPoP" | "Basic" | "__Host-palisade" | "__Host-palisade-sign-in"), _)) => format!(" ({scheme})"),
        _ => String::new(),
    }
}

/// A key may come as a bearer's, too.
fn is_home(credential: &Credential, name: &str, value: &str) -> bool {
    let is_key = credential.home.0 == "x-api-key" && name == "authorization" && value.starts_with("Bearer ");
    is_key || (credential.home.0, credential.home.1.as_str()) == (name, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_not_elsewhere_where_it_is_at_home() {
        let session = Credential { what: "a session".to_owned(), home: ("cookie", "__Host-palisade=s".to_owned()), text: "s".to_owned() };
        let key = Credential { what: "a key".to_owned(), home: ("x-api-key", "k".to_owned()), text: "k".to_owned() };
        assert!(is_home(&session, "cookie", "__Host-palisade=s") && !is_home(&session, "authorization", "Bearer s"));
        assert!(is_home(&key, "x-api-key", "k") && is_home(&key, "authorization", "Bearer k") && !is_home(&key, "txn-token", "k"));
    }
}
