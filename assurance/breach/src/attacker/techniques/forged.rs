//! Tokens that it made or changed itself.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use manifest::Flow;
use serde_json::{Value, json};

use super::{Act, Hand, Notes, Row, Run, judged};
use crate::attacker::hand::Peer;
use crate::attacker::http::Request;
use crate::{Cell, Control, Extent, Stride};

/// The row.
pub(super) const ROW: Row = Row {
    id: "forged",
    title: "Shows tokens that it changed or made: no algorithm, another key, another person, another job, no end.",
    attack: "T1134.003",
    stride: Stride::S,
    controls: &[Control::TransactionToken, Control::JobToken],
    run: Run::InHand(run, Act::Attack),
};

fn run(hand: &Hand<'_>, notes: &mut Notes) {
    let Some(token) = hand.token.as_deref() else { return notes.untried(crate::untried::NO_TOKEN) };
    let victim = if hand.mark.person == "ada" { "bob" } else { "ada" };
    for (how, forged) in forgeries(token, victim) {
        notes.shows(Some(("a service's token", "changed")));
        for flow in &hand.part.flows {
            match flow {
                Flow::Bucket { bucket, .. } => {
                    let key = hand.before(victim).key(bucket);
                    let answer = hand.ask_as(Peer::Objects, Request::new("GET", format!("/{bucket}/{key}")), Some(&forged));
                    judged(notes, answer, Cell::read(format!("bucket.{bucket}"), Extent::Everybody), how);
                }
                Flow::Publish { queue, .. } => {
                    let answer = hand.ask_as(Peer::Queue, hand.event(queue, "forged"), Some(&forged));
                    judged(notes, answer, Cell::done(format!("queue.{queue}"), "publish", Extent::Everybody), how);
                }
                Flow::Call { service, method, path } if method == "GET" && !path.contains('{') => {
                    let answer = hand.ask_as(Peer::Named(service), Request::new("GET", path.clone()), Some(&forged));
                    judged(notes, answer, Cell::done(format!("service.{service}"), format!("GET {path}"), Extent::Everybody), how);
                }
                _ => {}
            }
        }
    }
}

/// Changes of a genuine token, each with its name.
pub(super) fn forgeries(token: &str, victim: &str) -> Vec<(&'static str, String)> {
    let parts: Vec<&str> = token.split('.').collect();
    let [head, claims, signature] = parts.as_slice() else { return vec![("not even a token", format!("{token}x"))] };
    let part = |text: &str| -> Value {
        URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    };
    let written = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let with = |text: &str, name: &str, value: Value| {
        let mut changed = part(text);
        if let Some(fields) = changed.as_object_mut() {
            fields.insert(name.to_owned(), value);
        }
        written(&changed)
    };
    let nobody = URL_SAFE_NO_PAD.encode([0_u8; 64]);
    let rotated: String = signature.chars().rev().collect();
    vec![
        ("no algorithm", format!("{}.{claims}.", with(head, "alg", json!("none")))),
        ("no signature", format!("{head}.{claims}.")),
        ("another signature", format!("{head}.{claims}.{rotated}")),
        ("a signature of zeros", format!("{head}.{claims}.{nobody}")),
        ("an algorithm with a shared key", format!("{}.{claims}.{signature}", with(head, "alg", json!("HS256")))),
        ("a key that it brings along", format!("{}.{claims}.{signature}", with(head, "jwk", json!({ "kty": "oct", "k": "AA" })))),
        ("another person", format!("{head}.{}.{signature}", with(claims, "sub", json!(victim)))),
        ("no end", format!("{head}.{}.{signature}", with(claims, "exp", json!(4_102_444_800_u64)))),
        ("another job", format!("{head}.{}.{signature}", with(claims, "job", json!({ "id": "other" })))),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_forgery_differs_from_the_genuine_token() {
        let token =
            format!("{}.{}.{}", URL_SAFE_NO_PAD.encode("{\"alg\":\"ES256\"}"), URL_SAFE_NO_PAD.encode("{\"sub\":\"ada\"}"), "c2lnbmF0dXJl");
        let all = forgeries(&token, "bob");
        assert_eq!(all.len(), 9);
        assert!(all.iter().all(|(_, forged)| *forged != token));
    }
}
