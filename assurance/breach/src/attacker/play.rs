//! Playing along: every declared flow is performed as the manifest says it, with canaries for content.

use manifest::{BucketOperation, Flow, Protocol};
use serde_json::{Value, json};

use super::grpc::MEDIA_TYPE;
use super::hand::{HOPS_MAX, Hand, Peer};
use super::http::{Answer, Request, text_of};
use super::script::filled;

/// Size of every canary object, in bytes: presigned URLs are for one size.
pub const CONTENT_BYTES: usize = 8192;

/// What playing along brought: URLs to hand on, and what each flow was answered with.
#[derive(Debug, Default)]
pub struct Played {
    /// Uploads that a browser may do now.
    pub uploads: Vec<Value>,
    /// Downloads that a browser may do now.
    pub downloads: Vec<Value>,
    /// Flow and status.
    pub done: Vec<(String, u16)>,
}

impl Played {
    /// As the body of the answer.
    pub(super) fn answer(&self, hand: &Hand<'_>) -> Answer {
        let done: Vec<Value> = self.done.iter().map(|(flow, status)| json!([flow, status])).collect();
        let body = json!({
            "breach_service": hand.service, "mark": hand.mark.to_string(), "uploads": self.uploads, "downloads": self.downloads, "done": done,
        });
        Answer {
            status: 200,
            headers: vec![("content-type".to_owned(), "application/json".to_owned())],
            body: body.to_string().into_bytes(),
        }
    }
}

/// Whose objects there are.
pub const PERSONS: &[&str] = &["ada", "bob"];

/// What is in every object of a person, and in nobody else's.
#[must_use]
pub fn canary_of(person: &str) -> String {
    format!("canary of {person}")
}

/// The same backwards, without ever making it: for whoever looks through memory.
#[must_use]
pub fn canary_backwards(person: &str) -> String {
    person.chars().rev().chain(" fo yranac".chars()).collect()
}

/// A canary object: whose it is, and what travels along, at its fixed size.
#[must_use]
pub fn content(mark: &str, canary: &str, carry: Option<&str>) -> Vec<u8> {
    let mut text = json!({ "mark": mark, "canary": canary, "carry": carry }).to_string().into_bytes();
    text.resize(CONTENT_BYTES, b' ');
    text
}

/// Performs every flow that the work permits.
pub(super) fn along(hand: &mut Hand<'_>) -> Played {
    let mut played = Played::default();
    let flows: Vec<&Flow> = hand.flows().collect();
    // Reading comes first, so that what travels in the content is known; handing on comes last.
    let order = |flow: &&&Flow| match flow {
        Flow::Bucket { operation: BucketOperation::Read, .. } => 0,
        Flow::Bucket { operation: BucketOperation::Verdict, .. } => 1,
        Flow::Bucket { .. } => 2,
        Flow::Call { .. } | Flow::Secret { .. } | Flow::Egress { .. } => 3,
        Flow::Publish { .. } => 4,
    };
    let mut sorted: Vec<&&Flow> = flows.iter().collect();
    sorted.sort_by_key(order);
    let mut content: Option<Vec<u8>> = None;
    for flow in sorted {
        let status = match flow {
            Flow::Bucket { bucket, operation, .. } => on_bucket(hand, bucket, *operation, &mut content, &mut played),
            Flow::Publish { queue, .. } if hand.hops < HOPS_MAX => status(hand.ask(Peer::Queue, hand.event(queue, "step"))),
            Flow::Call { service, method, path } if hand.hops < HOPS_MAX => call(hand, service, method, path),
            Flow::Publish { .. } | Flow::Call { .. } | Flow::Secret { .. } | Flow::Egress { .. } => None,
        };
        if let Some(status) = status {
            played.done.push((flow.to_string(), status));
        }
    }
    played
}

fn status(answer: std::io::Result<Answer>) -> Option<u16> {
    Some(answer.map_or(0, |answer| answer.status))
}

fn on_bucket(
    hand: &mut Hand<'_>,
    bucket: &str,
    operation: BucketOperation,
    content: &mut Option<Vec<u8>>,
    played: &mut Played,
) -> Option<u16> {
    let input = hand.input.clone().filter(|(of, _)| of == bucket);
    match operation {
        BucketOperation::Read => {
            let (bucket, key) = input?;
            let answer = hand.ask(Peer::Objects, Request::new("GET", format!("/{bucket}/{key}"))).ok()?;
            if answer.is_success() {
                let found: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
                hand.carry = text_of(&found, "carry").map(str::to_owned).or(hand.carry.take());
                *content = Some(answer.body);
            }
            Some(answer.status)
        }
        BucketOperation::Verdict => {
            let (bucket, key) = input?;
            let media_type = hand.script.buckets.get(&bucket)?.0.clone();
            let body = json!({ "verdict": "clean", "reason": "", "media_type": media_type });
            let request = Request::new("POST", format!("/{bucket}/{key}?verdict")).body("application/json", body.to_string());
            status(hand.ask(Peer::Objects, request))
        }
        BucketOperation::Write => {
            let body = content.clone().unwrap_or_else(|| self::content(&hand.mark.to_string(), "", hand.carry.as_deref()));
            let media_type = hand.script.buckets.get(bucket)?.0.clone();
            let request = Request::new("PUT", format!("/{bucket}/{}", hand.output(bucket))).body(&media_type, body);
            status(hand.ask(Peer::Objects, request))
        }
        BucketOperation::PresignPut => {
            let media_type = hand.script.buckets.get(bucket)?.0.clone();
            let wish = json!({ "method": "PUT", "expires_s": 300, "content_length": CONTENT_BYTES, "content_type": media_type });
            presign(hand, bucket, &wish, &mut played.uploads)
        }
        BucketOperation::PresignGet => presign(hand, bucket, &json!({ "method": "GET", "expires_s": 300 }), &mut played.downloads),
        BucketOperation::Delete | BucketOperation::List | BucketOperation::Share => None,
    }
}

fn presign(hand: &Hand<'_>, bucket: &str, wish: &Value, granted: &mut Vec<Value>) -> Option<u16> {
    let key = hand.mark.key(bucket);
    let request = Request::new("POST", format!("/{bucket}/{key}?presign")).body("application/json", wish.to_string());
    let answer = hand.ask(Peer::Objects, request).ok()?;
    if answer.is_success() {
        let mut grant: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        if let Some(fields) = grant.as_object_mut() {
            fields.insert("bucket".to_owned(), bucket.into());
            fields.insert("key".to_owned(), key.into());
        }
        granted.push(grant);
    }
    Some(answer.status)
}

fn call(hand: &Hand<'_>, service: &str, method: &str, path: &str) -> Option<u16> {
    let mark = hand.mark.to_string();
    let speaks = hand.script.services.get(service).map(|part| part.protocol).unwrap_or_default();
    if speaks != Protocol::Http {
        let request = Request::new(method, filled(path, &mark)).body(MEDIA_TYPE, hand.words(hand.hops.saturating_add(1)));
        return status(hand.ask(Peer::Named(service), request));
    }
    let mut target = format!("{}?breach={mark}&hops={}", filled(path, &mark), hand.hops.saturating_add(1));
    if let Some(carry) = &hand.carry {
        target.push_str(&format!("&carry={carry}"));
    }
    let mut request = Request::new(method, target);
    if method != "GET" && method != "HEAD" && method != "DELETE" {
        request = request.body("application/json", "{}");
    }
    status(hand.ask(Peer::Named(service), request))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_canary_backwards_is_one() {
        for person in PERSONS {
            assert_eq!(canary_backwards(person).chars().rev().collect::<String>(), canary_of(person));
        }
    }
}
