//! Events about the state of videos, from the validator and the transcoder, and from the queue when it gives one up.
//!
//! Spec:       CloudEvents 1.0.
//! Guarantees: H1 applied once and forward only, in whatever order they come; an event of another person's work, or of
//!             work on another video, never touches a video; what was made of a deleted video is deleted too.

use std::sync::Arc;

use axum::{body::Bytes, extract::State as Shared, http::HeaderMap};
use serde::Deserialize;
use uuid::Uuid;
use video_wire::{
    context::Context,
    event::{Delivery, Outcome},
    fault::Fault,
    serve::log,
};

use crate::{
    catalogue::{Applied, Change},
    route::{Api, NAME, ORIGINALS, RENDITIONS, original},
    video::{Rendition, State},
};

#[derive(Deserialize)]
struct About {
    video_id: Uuid,
}

/// What the queue says of work that it gave up.
const GIVEN_UP: &str = "queue.dead_letter";
/// Every name that the transcoder gives to what it makes, whatever the original is.
const MADE: [&str; 4] = ["720p.mp4", "360p.mp4", "small.mp4", "poster.jpg"];

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
    let video_id = video(delivery)?;
    let (next, change) = understood(delivery)?;
    let owner = delivery.context.user.as_deref();
    let renditions = change.renditions.clone().unwrap_or_default();
    let applied = api.catalogue.apply((&delivery.id, video_id, owner), next, change).await;
    match applied.map_err(|fault| Outcome::Later(fault.to_string()))? {
        Applied::Changed | Applied::Overtaken => Ok(Outcome::Done),
        // A deleted video needs no news; but what was still being made of it goes.
        Applied::NoVideo if matches!(next, State::Ready | State::Failed) => {
            let swept = sweep(api, &delivery.context, video_id, &renditions).await;
            swept.map(|()| Outcome::Done).map_err(|fault| Outcome::Later(fault.to_string()))
        }
        Applied::NoVideo => Ok(Outcome::Done),
        Applied::OtherOwner => Ok(Outcome::Never(format!("{} is about another person's video", delivery.id))),
    }
}

/// The video whose work this is, as the queue has verified it; what the event says of itself must agree.
fn video(delivery: &Delivery) -> Result<Uuid, Outcome> {
    let subject = delivery.subject.as_deref().unwrap_or_default();
    let id = subject.strip_prefix(ORIGINALS).and_then(|rest| rest.strip_prefix('/')).and_then(|key| key.split('/').next());
    let id = id.and_then(|id| Uuid::parse_str(id).ok()).filter(|id| subject == format!("{ORIGINALS}/{}", original(*id)));
    let id = id.ok_or_else(|| Outcome::Never(format!("{} does not say which video it is about", delivery.id)))?;
    if delivery.kind != GIVEN_UP {
        let About { video_id } = delivery.data()?;
        if video_id != id {
            return Err(Outcome::Never(format!("{} is of the work on {id} and speaks of {video_id}", delivery.id)));
        }
    }
    Ok(id)
}

/// Deletes what was made of a video that is not there any more.
async fn sweep(api: &Api, context: &Context, id: Uuid, renditions: &[Rendition]) -> Result<(), Fault> {
    let folder = format!("{id}/");
    let named = renditions.iter().map(|made| made.key.clone()).filter(|key| key.starts_with(&folder));
    let usual = MADE.iter().map(|name| format!("{folder}{name}"));
    for key in named.chain(usual).collect::<std::collections::BTreeSet<_>>() {
        api.store.delete(context, (RENDITIONS, &key)).await?;
    }
    Ok(())
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
        GIVEN_UP => {
            let reason = String::from("processing was given up after several tries");
            (State::Failed, Change { reason: Some(reason), ..Change::default() })
        }
        other => return Err(Outcome::Never(format!("events of type {other} are not for the catalogue"))),
    })
}
