//! Events about the state of videos, from the validator and the transcoder.
//!
//! Spec:       CloudEvents 1.0.
//! Guarantees: H1 applied once and forward only, in whatever order they come; an event of another person's work never
//!             touches a video.

use std::sync::Arc;

use axum::{body::Bytes, extract::State as Shared, http::HeaderMap};
use serde::Deserialize;
use uuid::Uuid;
use video_wire::{
    event::{Delivery, Outcome},
    serve::log,
};

use crate::{
    catalogue::{Applied, Change},
    route::{Api, NAME},
    video::{Rendition, State},
};

#[derive(Deserialize)]
struct About {
    video_id: Uuid,
}

#[derive(Deserialize)]
struct Validated {
    duration_s: f64,
}

#[derive(Deserialize)]
struct Reason {
    reason: String,
}

#[derive(Deserialize)]
struct Progress {
    percent: u8,
}

#[derive(Deserialize)]
struct Ready {
    renditions: Vec<Rendition>,
    poster: String,
    duration_s: f64,
}

/// `POST /events`.
pub(crate) async fn events(Shared(api): Shared<Arc<Api>>, headers: HeaderMap, body: Bytes) -> Outcome {
    let outcome = match Delivery::parse(&headers, &body) {
        Ok(delivery) => apply(&api, &delivery).await.unwrap_or_else(|refused| refused),
        Err(refused) => refused,
    };
    if let Outcome::Never(reason) | Outcome::Later(reason) = &outcome {
        log(NAME, reason);
    }
    outcome
}

async fn apply(api: &Api, delivery: &Delivery) -> Result<Outcome, Outcome> {
    let About { video_id } = delivery.data()?;
    let (next, change) = understood(delivery)?;
    let owner = delivery.context.user.as_deref();
    let applied = api.catalogue.apply((&delivery.id, video_id, owner), next, change).await;
    match applied.map_err(|fault| Outcome::Later(fault.to_string()))? {
        // A deleted video needs no news.
        Applied::Changed | Applied::Overtaken | Applied::NoVideo => Ok(Outcome::Done),
        Applied::OtherOwner => Ok(Outcome::Never(format!("{} is about another person's video", delivery.id))),
    }
}

/// What an event says.
fn understood(delivery: &Delivery) -> Result<(State, Change), Outcome> {
    Ok(match delivery.kind.as_str() {
        "video.uploaded" => (State::Uploaded, Change::default()),
        "video.validated" => {
            let Validated { duration_s } = delivery.data()?;
            (State::Validated, Change { duration_s: Some(duration_s), ..Change::default() })
        }
        "video.rejected" => {
            let Reason { reason } = delivery.data()?;
            (State::Rejected, Change { reason: Some(reason), ..Change::default() })
        }
        "video.progress" => {
            let Progress { percent } = delivery.data()?;
            (State::Transcoding, Change { progress: Some(percent.min(99)), ..Change::default() })
        }
        "video.failed" => {
            let Reason { reason } = delivery.data()?;
            (State::Failed, Change { reason: Some(reason), ..Change::default() })
        }
        "video.ready" => {
            let Ready { renditions, poster, duration_s } = delivery.data()?;
            let change = Change {
                progress: Some(100),
                reason: None,
                duration_s: Some(duration_s),
                renditions: Some(renditions),
                poster: Some(poster),
            };
            (State::Ready, change)
        }
        other => return Err(Outcome::Never(format!("events of type {other} are not for the catalogue"))),
    })
}
