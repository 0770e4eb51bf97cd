//! The service around the check: an upload comes in as an event, a verdict and events go out.
//!
//! Spec:       CloudEvents 1.0; S3 GetObject with Range.
//! Guarantees: I10 the verdict is recorded before anyone is told; every effect has an id of its own, so doing it twice
//!             is doing it once; media is never held, only headers and tables.
//! Not here:   what is sound (`check`).

use std::{sync::Arc, time::Duration};

use axum::{Router, body::Bytes, extract::State, http::HeaderMap, routing::post};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use uuid::Uuid;
use video_wire::{
    client::Client,
    context::Context,
    event::{Delivery, Event, Outcome},
    fault::Fault,
    queue::Queue,
    serve::log,
    setting::{self, SettingError},
    span::Tracer,
    store::Store,
};

use crate::{
    check::{CheckFault, check},
    media::MediaInfo,
    read::RandomRead,
    rejection::Rejection,
};

/// The service's name in logs and traces.
pub const NAME: &str = "video-validator";
/// How long a check may take; the slowest is of a recording without sizes, which is read whole.
const CHECK_LIMIT: Duration = Duration::from_secs(300);

/// How many checks run at once; an index may have 64 MiB, and it is held while it is read.
const AT_ONCE: usize = 2;

/// What the service works with.
struct Validator {
    store: Store,
    queue: Queue,
    tracer: Tracer,
    benches: Semaphore,
}

/// The data of `object.created`.
#[derive(Debug, Deserialize)]
struct Uploaded {
    bucket: String,
    key: String,
    size: u64,
    content_type: String,
    etag: String,
}

impl Uploaded {
    /// The video that the key belongs to: `VIDEO_ID/original`.
    fn video(&self) -> Option<Uuid> {
        let (id, name) = self.key.split_once('/')?;
        (name == "original").then(|| Uuid::parse_str(id).ok()).flatten()
    }
}

/// Builds the service from its environment.
///
/// # Errors
/// [`SettingError`] naming what is missing.
pub fn assemble() -> Result<Router, SettingError> {
    let client = Client::new();
    let store = setting::neighbour("AWS_ENDPOINT_URL", "the object store's address")?;
    let queue = setting::neighbour("QUEUE_URL", "the queue's address")?;
    let collector = setting::optional("OTEL_EXPORTER_OTLP_ENDPOINT");
    Ok(router(Arc::new(Validator {
        store: Store::new(client.clone(), store),
        queue: Queue::new(client.clone(), queue, "/video-validator"),
        tracer: Tracer::new(client, collector, NAME),
        benches: Semaphore::new(AT_ONCE),
    })))
}

fn router(validator: Arc<Validator>) -> Router {
    Router::new().route("/events", post(events)).with_state(validator)
}

async fn events(State(validator): State<Arc<Validator>>, headers: HeaderMap, body: Bytes) -> Outcome {
    let outcome = match Delivery::parse(&headers, &body) {
        Ok(delivery) => validator.handle(&delivery).await,
        Err(refused) => refused,
    };
    if let Outcome::Never(reason) | Outcome::Later(reason) = &outcome {
        log(NAME, reason);
    }
    outcome
}

/// An object of the store as something to read here and there.
struct Remote<'a> {
    store: &'a Store,
    context: &'a Context,
    uploaded: &'a Uploaded,
}

impl RandomRead for Remote<'_> {
    type Fault = Fault;

    fn size(&self) -> u64 {
        self.uploaded.size
    }

    async fn read_at(&mut self, offset: u64, len: usize) -> Result<Bytes, Fault> {
        let Uploaded { bucket, key, etag, .. } = self.uploaded;
        self.store.range(self.context, (bucket, key), Some(etag), (offset, len)).await
    }
}

impl Validator {
    async fn handle(&self, delivery: &Delivery) -> Outcome {
        if delivery.kind != "object.created" {
            return Outcome::Never(format!("events of type {} are not for the validator", delivery.kind));
        }
        let uploaded: Uploaded = match delivery.data() {
            Ok(uploaded) => uploaded,
            Err(refused) => return refused,
        };
        let Some(video) = uploaded.video() else {
            return Outcome::Never(format!("{} is not the key of an original", uploaded.key));
        };
        match self.judge(&delivery.context, video, &uploaded).await {
            Ok(()) => Outcome::Done,
            Err(fault) if fault.is_gone() => Outcome::Never(fault.to_string()),
            Err(fault) => Outcome::Later(fault.to_string()),
        }
    }

    async fn judge(&self, context: &Context, video: Uuid, uploaded: &Uploaded) -> Result<(), Fault> {
        self.tell(context, video, uploaded, "video.uploaded", json!({})).await?;
        let _bench = self.benches.acquire().await;
        let mut span = self.tracer.begin(context, "check");
        span.note("video.id", video);
        let reader = Remote { store: &self.store, context, uploaded };
        let checked = tokio::time::timeout(CHECK_LIMIT, check(reader, &uploaded.content_type)).await;
        let verdict: Result<MediaInfo, Rejection> = match checked {
            Ok(Ok(info)) => Ok(info),
            Ok(Err(CheckFault::Rejected(rejection))) => Err(rejection),
            Ok(Err(CheckFault::Unreadable(fault))) => {
                self.tracer.end(span, Some(&fault.to_string()));
                return Err(fault);
            }
            Err(_) => {
                let limit_s = CHECK_LIMIT.as_secs();
                self.tracer.end(span, Some("out of time"));
                return Err(Fault::TimedOut { peer: format!("the check of {video}"), limit_s });
            }
        };
        let object = (uploaded.bucket.as_str(), uploaded.key.as_str());
        match verdict {
            Ok(info) => {
                span.note("video.codec", info.video_codec.clone());
                self.tracer.end(span, None);
                let media_type = info.container.media_type();
                self.store.verdict(context, object, Ok(media_type)).await?;
                let numbers = numbers(&info);
                self.tell(context, video, uploaded, "video.validated", numbers.clone()).await?;
                self.hand_on(context, video, uploaded, &info, numbers).await
            }
            Err(rejection) => {
                let reason = rejection.to_string();
                span.note("video.rejected", reason.clone());
                self.tracer.end(span, None);
                self.store.verdict(context, object, Err(&reason)).await?;
                self.tell(context, video, uploaded, "video.rejected", json!({ "reason": reason })).await
            }
        }
    }

    /// Tells the catalogue.
    async fn tell(&self, context: &Context, video: Uuid, uploaded: &Uploaded, kind: &'static str, mut data: Value) -> Result<(), Fault> {
        merge(&mut data, json!({ "video_id": video }));
        let event = event(video, uploaded, kind, kind, data);
        self.queue.publish(context, "status", &event).await
    }

    /// Hands a clean video on to the transcoder.
    async fn hand_on(&self, context: &Context, video: Uuid, uploaded: &Uploaded, info: &MediaInfo, mut data: Value) -> Result<(), Fault> {
        let more = json!({
            "video_id": video, "bucket": uploaded.bucket, "key": uploaded.key, "size": uploaded.size,
            "etag": uploaded.etag, "media_type": info.container.media_type(), "demuxer": info.container.demuxer(),
        });
        merge(&mut data, more);
        let event = event(video, uploaded, "hand-on", "video.validated", data);
        self.queue.publish(context, "validated", &event).await
    }
}

fn numbers(info: &MediaInfo) -> Value {
    json!({ "width": info.width, "height": info.height, "duration_s": info.duration_s })
}

fn merge(data: &mut Value, more: Value) {
    if let (Value::Object(data), Value::Object(more)) = (data, more) {
        data.extend(more);
    }
}

/// An event whose id says which effect of which upload it is.
fn event(video: Uuid, uploaded: &Uploaded, effect: &str, kind: &'static str, data: Value) -> Event {
    let version: String = uploaded.etag.chars().filter(char::is_ascii_alphanumeric).collect();
    let subject = format!("{}/{}", uploaded.bucket, uploaded.key);
    Event { id: format!("{video}:{version}:{effect}"), kind, subject, data }
}

#[cfg(test)]
mod tests;
