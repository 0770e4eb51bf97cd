//! Publishing to a queue.
//!
//! Spec:       CloudEvents 1.0 HTTP protocol binding, section 3.1 (binary mode).
//! Guarantees: H1 the caller knows when `publish` returns that the queue has the event for good.
//! Not here:   receiving (`event::Delivery`).

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, header};

use crate::{
    client::{Call, Client, Payload, peer_of},
    context::Context,
    event::Event,
    fault::Fault,
};

/// The largest answer of the queue that is read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// The queues at `QUEUE_URL`.
#[derive(Clone)]
pub struct Queue {
    client: Client,
    base: String,
    source: &'static str,
}

impl Queue {
    /// Queues at this address; `source` is the publisher's name in its events.
    #[must_use]
    pub fn new(client: Client, base: String, source: &'static str) -> Self {
        Self { client, base, source }
    }

    /// Publishes one event.
    ///
    /// # Errors
    /// [`Fault`] when the queue cannot be reached or refuses.
    pub async fn publish(&self, context: &Context, queue: &str, event: &Event) -> Result<(), Fault> {
        let url = format!("{}/queues/{queue}", self.base);
        let peer = peer_of(&url);
        let mut call = Call::new(Method::POST, url);
        let attributes = [
            ("ce-specversion", "1.0"),
            ("ce-id", event.id.as_str()),
            ("ce-source", self.source),
            ("ce-type", event.kind),
            ("ce-subject", event.subject.as_str()),
        ];
        for (name, value) in attributes {
            let value = HeaderValue::from_str(value)
                .map_err(|_| Fault::Garbled { peer: peer.clone(), problem: format!("{name} cannot be a header") })?;
            call = call.header(HeaderName::from_static(name), value);
        }
        call = call.header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        call.payload = Payload::Bytes(Bytes::from(event.data.to_string()));
        self.client.fetch(context, call, ANSWER_BYTES_MAX).await.map(drop)
    }
}
