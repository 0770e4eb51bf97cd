//! The service around the jobs: a checked original comes in as an event, progress and the result go out.
//!
//! Spec:       CloudEvents 1.0.
//! Guarantees: H1 the delivery is answered when the work is done, not before; if the delivery's connection ends, so does
//!             the work. One job at a time, so that its memory is the service's memory.
//! Not here:   who may hand in a job, and which objects it may touch.

use std::{convert::Infallible, path::PathBuf, sync::Arc, time::Duration};

use axum::{Router, body::Bytes, extract::State, http::HeaderMap, routing::post};
use serde_json::{Value, json};
use tokio::{
    sync::{Mutex, watch},
    time::{Instant, sleep_until},
};
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
    job::{JobFault, Made, Original, Workshop, sweep},
    progress::Report,
    run::Ffmpeg,
};

/// The service's name in logs and traces.
pub const NAME: &str = "video-transcoder";
/// The shortest time between two reports.
const REPORT_GAP: Duration = Duration::from_millis(500);

/// What the service works with.
struct Transcoder {
    workshop: Workshop,
    queue: Queue,
    bench: Mutex<()>,
}

/// Builds the service from its environment.
///
/// # Errors
/// [`SettingError`] naming what is missing or wrong.
pub async fn assemble() -> Result<Router, SettingError> {
    let client = Client::new();
    let store = setting::neighbour("AWS_ENDPOINT_URL", "the object store's address")?;
    let queue = setting::neighbour("QUEUE_URL", "the queue's address")?;
    let collector = setting::optional("OTEL_EXPORTER_OTLP_ENDPOINT");
    let parent = setting::optional("TMPDIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let program = setting::optional("FFMPEG").unwrap_or_else(|| String::from("/usr/bin/ffmpeg"));
    let wall = Duration::from_secs(setting::number("TRANSCODE_WALL_S", 3300)?);
    if let Err(error) = sweep(&parent) {
        let value = parent.display().to_string();
        log(NAME, &format!("{value}: {error}"));
        return Err(SettingError::Invalid { name: "TMPDIR", value, meaning: "a folder to work in" });
    }
    let workshop = Workshop {
        store: Store::new(client.clone(), store),
        tracer: Tracer::new(client.clone(), collector, NAME),
        ffmpeg: Ffmpeg { program: PathBuf::from(program), wall },
        parent,
    };
    let queue = Queue::new(client, queue, "/video-transcoder");
    Ok(router(Arc::new(Transcoder { workshop, queue, bench: Mutex::new(()) })))
}

fn router(transcoder: Arc<Transcoder>) -> Router {
    Router::new().route("/events", post(events)).with_state(transcoder)
}

async fn events(State(transcoder): State<Arc<Transcoder>>, headers: HeaderMap, body: Bytes) -> Outcome {
    let outcome = match Delivery::parse(&headers, &body) {
        Ok(delivery) => transcoder.handle(&delivery).await,
        Err(refused) => refused,
    };
    if let Outcome::Never(reason) | Outcome::Later(reason) = &outcome {
        log(NAME, reason);
    }
    outcome
}

impl Transcoder {
    async fn handle(&self, delivery: &Delivery) -> Outcome {
        if delivery.kind != "video.validated" {
            return Outcome::Never(format!("events of type {} are not for the transcoder", delivery.kind));
        }
        let original: Original = match delivery.data() {
            Ok(original) => original,
            Err(refused) => return refused,
        };
        let _alone = self.bench.lock().await;
        let context = &delivery.context;
        let (reports, receiver) = watch::channel(Some(Report { percent: 0, out_us: 0 }));
        let made = tokio::select! {
            made = self.workshop.make(context, &original, &reports) => made,
            never = self.report(context, &original, receiver) => match never {},
        };
        let told = match &made {
            Ok(made) => self.tell(context, &original, "ready", "video.ready", ready(made)).await,
            Err(JobFault::Hopeless(reason)) => self.tell(context, &original, "failed", "video.failed", json!({ "reason": reason })).await,
            Err(JobFault::Gone(_) | JobFault::Passing(_)) => Ok(()),
        };
        match (made, told) {
            (_, Err(fault)) => Outcome::Later(fault.to_string()),
            (Ok(_), Ok(())) => Outcome::Done,
            (Err(fault @ (JobFault::Hopeless(_) | JobFault::Gone(_))), Ok(())) => Outcome::Never(fault.to_string()),
            (Err(fault @ JobFault::Passing(_)), Ok(())) => Outcome::Later(fault.to_string()),
        }
    }

    /// Tells the catalogue how far the work is, as often as there is something new but not oftener than the gap.
    async fn report(&self, context: &Context, original: &Original, mut reports: watch::Receiver<Option<Report>>) -> Infallible {
        loop {
            let report = *reports.borrow_and_update();
            let begun = Instant::now();
            if let Some(Report { percent, out_us }) = report {
                let effect = format!("progress:{out_us}");
                let data = json!({ "percent": percent });
                if let Err(fault) = self.tell(context, original, &effect, "video.progress", data).await {
                    // Progress is a courtesy; the result is what counts.
                    log(NAME, &format!("progress of {} was not told: {fault}", original.video_id));
                }
            }
            sleep_until(begun + REPORT_GAP).await;
            if reports.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Publishes an event whose id says which effect of which upload it is.
    async fn tell(&self, context: &Context, original: &Original, effect: &str, kind: &'static str, mut data: Value) -> Result<(), Fault> {
        if let Some(data) = data.as_object_mut() {
            data.insert(String::from("video_id"), json!(original.video_id));
        }
        let version: String = original.etag.chars().filter(char::is_ascii_alphanumeric).collect();
        let id = format!("{}:{version}:{effect}", original.video_id);
        let subject = format!("{}/{}", original.bucket, original.key);
        self.queue.publish(context, "status", &Event { id, kind, subject, data }).await
    }
}

fn ready(made: &Made) -> Value {
    json!({ "renditions": made.renditions, "poster": made.poster, "duration_s": made.duration_s })
}

#[cfg(test)]
mod tests;
