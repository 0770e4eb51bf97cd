//! Tokens that it made or changed itself, each tried at what its own claims would permit.
//!
//! Spec:       RFC 8725, sections 2.1, 2.3 and 3.1 (algorithms, keys from the header); RFC 7515, sections 4.1.2 and 4.1.3.
//! Guarantees: L10; D6, D7 seen from the other side.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use aws_lc_rs::{hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use manifest::Flow;
use serde_json::{Value, json};

use super::{Act, Hand, Notes, Row, Run, judged};
use crate::attacker::hand::Peer;
use crate::attacker::http::Request;
use crate::attacker::raw;
use crate::attacker::script::filled;
use crate::{Cell, Control, Extent, Stride};

/// The row.
pub(super) const ROW: Row = Row {
    id: "forged",
    title: "Shows tokens that it changed or signed itself, for itself and as another person with a job of theirs.",
    attack: "T1134.003",
    stride: Stride::S,
    controls: &[Control::TransactionToken, Control::JobToken],
    run: Run::InHand(run, Act::Attack),
};

fn run(hand: &Hand<'_>, notes: &mut Notes) {
    let Some(token) = hand.token.as_deref() else { return notes.untried(crate::untried::NO_TOKEN) };
    let Some(genuine) = Parts::of(token) else { return notes.untried("the token in hand has no claims that can be read") };
    let person = hand.mark.person.as_str();
    let victim = if person == "ada" { "bob" } else { "ada" };
    let Some(id) = hand.carry.as_deref().and_then(|carry| victim_id(carry, victim)) else {
        return notes.untried("nobody told it what the other person is called in tokens");
    };
    notes.shows(Some(("a service's token", "changed")));
    // Each bucket by itself, because a job names what it is about.
    for flow in &hand.part.flows {
        match flow {
            Flow::Bucket { bucket, .. } => {
                let own = hand.input.as_ref().filter(|(of, _)| of == bucket).map(|(_, key)| key.clone());
                let own = own.unwrap_or_else(|| hand.before(person).key(bucket));
                let theirs = hand.before(victim).key(bucket);
                let read = |notes: &mut Notes, key: &str, forged: &str, how: &str| {
                    let answer = hand.ask_as(Peer::Objects, Request::new("GET", format!("/{bucket}/{key}")), Some(forged));
                    judged(notes, answer, Cell::read(format!("bucket.{bucket}"), Extent::Everybody), how);
                };
                for (how, forged) in genuine.forged(&genuine.claims) {
                    read(notes, &own, &forged, how);
                }
                let claims = genuine.as_another(&id, hand.service, bucket, &theirs);
                for (how, forged) in genuine.forged(&claims) {
                    read(notes, &theirs, &forged, how);
                }
                for (how, forged) in genuine.changed(&id) {
                    read(notes, &theirs, &forged, how);
                }
                read(notes, &theirs, &genuine.with(&claims), "another person with a job of theirs");
            }
            Flow::Publish { queue, .. } => {
                for (how, forged) in forgeries(token, &id) {
                    let answer = hand.ask_as(Peer::Queue, hand.event(queue, "forged"), Some(&forged));
                    judged(notes, answer, Cell::done(format!("queue.{queue}"), "publish", Extent::Everybody), how);
                }
            }
            Flow::Call { service, method, path } if method != raw::METHOD => {
                for (how, forged) in forgeries(token, &id) {
                    let answer = hand.ask_as(Peer::Named(service), Request::new(method, filled(path, "x")), Some(&forged));
                    judged(notes, answer, Cell::done(format!("service.{service}"), format!("{method} {path}"), Extent::Everybody), how);
                }
            }
            _ => {}
        }
    }
}

/// What the run carries for this: whom it is about, and that person's id.
#[must_use]
pub fn carried(person: &str, id: &str) -> String {
    format!("{person}~{id}")
}

fn victim_id(carry: &str, victim: &str) -> Option<String> {
    let (person, id) = carry.split_once('~')?;
    (person == victim && !id.is_empty()).then(|| id.to_owned())
}

/// Changes of a genuine token, and tokens that it signed itself, for another person; each with its name.
pub(super) fn forgeries(token: &str, victim: &str) -> Vec<(&'static str, String)> {
    let Some(genuine) = Parts::of(token) else { return vec![("not even a token", format!("{token}x"))] };
    let mut claims = genuine.claims.clone();
    set(&mut claims, "sub", json!(victim));
    let mut all = genuine.forged(&genuine.claims);
    all.extend(genuine.forged(&claims));
    all.extend(genuine.changed(victim));
    all
}

/// A token, taken apart.
struct Parts {
    head: Value,
    claims: Value,
    signature: String,
}

fn set(value: &mut Value, name: &str, to: Value) {
    if let Some(fields) = value.as_object_mut() {
        fields.insert(name.to_owned(), to);
    }
}

fn written(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

impl Parts {
    fn of(token: &str) -> Option<Self> {
        let mut parts = token.split('.');
        let mut json = || -> Option<Value> { serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts.next()?).ok()?).ok() };
        let (head, claims) = (json()?, json()?);
        Some(Self { head, claims, signature: parts.next()?.to_owned() })
    }

    fn head(&self, fields: &[(&str, Value)]) -> Value {
        let mut head = self.head.clone();
        for (name, to) in fields {
            set(&mut head, name, to.clone());
        }
        head
    }

    /// These claims, under signatures that are none, or are its own.
    fn forged(&self, claims: &Value) -> Vec<(&'static str, String)> {
        let body = written(claims);
        let plain = |head: &Value, signature: &str| format!("{}.{body}.{signature}", written(head));
        let rotated: String = self.signature.chars().rev().collect();
        let mut all = vec![
            ("no algorithm", plain(&self.head(&[("alg", json!("none"))]), "")),
            ("no signature", plain(&self.head, "")),
            ("another signature", plain(&self.head, &rotated)),
            ("a signature of zeros", plain(&self.head, &URL_SAFE_NO_PAD.encode([0_u8; 64]))),
        ];
        // A verifier that takes the algorithm from the token takes its key for a shared one: what everybody may know of it is its name.
        let shared = self.head(&[("alg", json!("HS256"))]);
        let name = self.head.get("kid").and_then(Value::as_str).unwrap_or_default();
        for (how, key) in [("a shared key that is the key's name", name.as_bytes()), ("a shared key that is empty", b"".as_slice())] {
            let text = format!("{}.{body}", written(&shared));
            let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes());
            all.push((how, format!("{text}.{}", URL_SAFE_NO_PAD.encode(tag))));
        }
        if let Some(own) = Own::new() {
            for (how, fields) in [
                ("its own key under the genuine one's name", vec![]),
                ("its own key, which the token brings along", vec![("jwk", own.jwk())]),
                ("its own key, at an address that the token names", vec![("jku", json!("https://93.184.215.14/keys"))]),
            ] {
                let text = format!("{}.{body}", written(&self.head(&fields)));
                if let Some(signature) = own.sign(text.as_bytes()) {
                    all.push((how, format!("{text}.{signature}")));
                }
            }
        }
        all
    }

    /// Other claims under the genuine signature.
    fn with(&self, claims: &Value) -> String {
        format!("{}.{}.{}", written(&self.head), written(claims), self.signature)
    }

    /// One claim changed, under the genuine signature.
    fn changed(&self, victim: &str) -> Vec<(&'static str, String)> {
        let one = |name: &str, to: Value| {
            let mut claims = self.claims.clone();
            set(&mut claims, name, to);
            self.with(&claims)
        };
        vec![
            ("another person", one("sub", json!(victim))),
            ("no end", one("exp", json!(4_102_444_800_u64))),
            ("a role", one("roles", json!(["admin"]))),
        ]
    }

    /// Claims of another person, with a job about an object of theirs where the genuine ones have a job.
    fn as_another(&self, id: &str, service: &str, bucket: &str, key: &str) -> Value {
        let mut claims = self.claims.clone();
        set(&mut claims, "sub", json!(id));
        if let Some(mut job) = self.claims.get("job").filter(|job| job.is_object()).cloned() {
            set(&mut job, "inputs", json!([format!("{bucket}/{key}")]));
            set(&mut job, "folder", json!(key.split('/').next().unwrap_or_default()));
            if job.get("consumer").is_none() {
                set(&mut job, "consumer", json!(service));
            }
            set(&mut claims, "job", job);
        }
        claims
    }
}

/// A key of its own.
struct Own(EcdsaKeyPair);

impl Own {
    fn new() -> Option<Self> {
        let made = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).ok()?;
        Some(Self(made))
    }

    fn point(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }

    fn jwk(&self) -> Value {
        let half = |from: usize| URL_SAFE_NO_PAD.encode(self.point().get(from..from.saturating_add(32)).unwrap_or_default());
        json!({ "kty": "EC", "crv": "P-256", "x": half(1), "y": half(33) })
    }

    fn sign(&self, text: &[u8]) -> Option<String> {
        let signature = self.0.sign(&rand::SystemRandom::new(), text).ok()?;
        Some(URL_SAFE_NO_PAD.encode(signature))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::collections::BTreeSet;

    use super::*;

    fn token(claims: &str) -> String {
        format!("{}.{}.{}", URL_SAFE_NO_PAD.encode("{\"alg\":\"ES256\",\"kid\":\"k\"}"), URL_SAFE_NO_PAD.encode(claims), "c2lnbmF0dXJl")
    }

    #[test]
    fn every_forgery_differs_from_the_genuine_token() {
        let token = token("{\"sub\":\"ada\"}");
        let all: BTreeSet<String> = forgeries(&token, "bob").into_iter().map(|(_, forged)| forged).collect();
        assert_eq!(all.len(), 21);
        assert!(!all.contains(&token));
    }

    // What it signs itself is well signed: it is refused for its key, and for nothing else.
    #[test]
    fn what_it_signs_with_its_own_key_verifies_with_that_key() {
        let own = Own::new().unwrap();
        let signature = URL_SAFE_NO_PAD.decode(own.sign(b"text").unwrap()).unwrap();
        let key = aws_lc_rs::signature::UnparsedPublicKey::new(&aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED, own.point().to_vec());
        assert!(key.verify(b"text", &signature).is_ok() && key.verify(b"other", &signature).is_err());
    }

    #[test]
    fn another_persons_claims_are_whole() {
        let genuine = token(r#"{"sub":"1","job":{"id":"j","lease":"l","queue":"q","consumer":"c","inputs":["b/x/b"],"folder":"x"}}"#);
        let claims = Parts::of(&genuine).unwrap().as_another("2", "web", "b", "y/b");
        let job: trust::Job = serde_json::from_value(claims.get("job").unwrap().clone()).unwrap();
        assert_eq!((claims.get("sub").unwrap(), job.folder.as_str(), job.inputs.len()), (&json!("2"), "y", 1));
        assert_eq!(victim_id(&carried("bob", "u7"), "bob").as_deref(), Some("u7"));
        assert_eq!(victim_id("breach.attack.web.ada.1~e30.e30.x", "bob"), None);
    }
}
