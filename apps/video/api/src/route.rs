//! The routes for people: announce, list, see, watch, delete.
//!
//! Guarantees: N3 the owner of everything is the person whose request it is; another's video is as if it were not there.
//! Not here:   who that person is; the request says it.

use std::{path::PathBuf, sync::Arc};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, Query, State as Shared},
    http::{HeaderMap, StatusCode},
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;
use video_wire::{
    client::Client,
    context::Context,
    fault::Fault,
    setting,
    store::{Granted, Store},
};

use crate::{
    answer::Refusal,
    catalogue::Catalogue,
    status,
    video::{State, Video, Wish},
};

/// The service's name in logs.
pub const NAME: &str = "video-api";
/// The bucket of originals.
pub(crate) const ORIGINALS: &str = "originals";
/// The bucket of renditions.
pub(crate) const RENDITIONS: &str = "renditions";
/// How long a grant lives, in seconds.
const GRANT_S: u32 = 900;
/// The longest page of a list.
const PAGE_MAX: u32 = 100;

/// What the service works with.
pub(crate) struct Api {
    pub(crate) catalogue: Catalogue,
    pub(crate) store: Store,
}

/// Why the service cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartFault {
    /// A setting is missing or wrong.
    #[error(transparent)]
    Setting(#[from] setting::SettingError),
    /// The catalogue cannot be opened.
    #[error("{folder}: {fault}; is the folder there and writable?")]
    Catalogue {
        /// `STATE_DIR`.
        folder: String,
        /// What the catalogue said.
        fault: crate::catalogue::CatalogueFault,
    },
}

/// Builds the service from its environment.
///
/// # Errors
/// [`StartFault`] naming what is missing or cannot be opened.
pub async fn assemble() -> Result<Router, StartFault> {
    let folder = setting::required("STATE_DIR", "the folder of the catalogue")?;
    let store = setting::neighbour("AWS_ENDPOINT_URL", "the object store's address")?;
    let opened = Catalogue::open(&PathBuf::from(&folder)).await;
    let catalogue = opened.map_err(|fault| StartFault::Catalogue { folder, fault })?;
    Ok(router(Arc::new(Api { catalogue, store: Store::new(Client::new(), store) })))
}

pub(crate) fn router(api: Arc<Api>) -> Router {
    Router::new()
        .route("/api/videos", post(announce).get(list))
        .route("/api/videos/{id}", get(see).delete(delete))
        .route("/api/videos/{id}/upload", post(resume))
        .route("/api/videos/{id}/watch", get(watch))
        .route("/events", post(status::events))
        .with_state(api)
}

/// Whose request it is.
fn person(headers: &HeaderMap) -> Result<(Context, String), Refusal> {
    let context = Context::from_headers(headers);
    let owner = context.user.clone().ok_or_else(Refusal::nobody)?;
    Ok((context, owner))
}

/// Someone's video of this id.
async fn owned(api: &Api, owner: &str, id: &str) -> Result<Video, Refusal> {
    let id = Uuid::parse_str(id).map_err(|_| Refusal::no_video())?;
    api.catalogue.find(owner, id).await?.ok_or_else(Refusal::no_video)
}

/// `POST /api/videos`: announces a video and grants its upload.
async fn announce(Shared(api): Shared<Arc<Api>>, headers: HeaderMap, body: Bytes) -> Result<(StatusCode, Json<Value>), Refusal> {
    let (context, owner) = person(&headers)?;
    let understood = serde_json::from_slice::<Wish>(&body);
    let hint = "Send JSON like {\"name\":\"film.mp4\",\"size\":1048576,\"type\":\"video/mp4\"}.";
    let wish = understood.map_err(|_| Refusal::bad(("The announcement cannot be understood.", hint)))?;
    let wish = wish.checked().map_err(Refusal::bad)?;
    let id = Uuid::now_v7();
    let granted = Granted::Put { content_length: wish.size, content_type: &wish.media_type };
    // The grant first: a video that nobody could upload is never listed.
    let grant = api.store.presign(&context, (ORIGINALS, &original(id)), granted, GRANT_S).await?;
    let now = OffsetDateTime::now_utc();
    let now = now.replace_millisecond(now.millisecond()).unwrap_or(now);
    let video = Video {
        id,
        owner,
        name: wish.name,
        media_type: wish.media_type,
        size: wish.size,
        state: State::AwaitingUpload,
        progress: 0,
        reason: None,
        created_at: now.format(&Rfc3339).unwrap_or_default(),
        duration_s: None,
        renditions: Vec::new(),
        poster: None,
    };
    api.catalogue.add(&video).await?;
    let upload = json!({
        "url": grant.url, "method": grant.method, "headers": grant.headers, "expires_at": grant.expires_at,
    });
    Ok((StatusCode::CREATED, Json(json!({ "id": id, "upload": upload }))))
}

/// `POST /api/videos/{id}/upload`: what the store has of a video, and grants for the parts that it has not.
async fn resume(Shared(api): Shared<Arc<Api>>, Path(id): Path<String>, headers: HeaderMap) -> Result<Json<Value>, Refusal> {
    let (context, owner) = person(&headers)?;
    let video = owned(&api, &owner, &id).await?;
    if video.state != State::AwaitingUpload {
        return Ok(Json(json!({ "complete": true, "stored": [], "parts": [] })));
    }
    let granted = (video.size, video.media_type.as_str());
    Ok(Json(api.store.presign_parts(&context, (ORIGINALS, &original(video.id)), granted, GRANT_S).await?))
}

/// The query of a list.
#[derive(Deserialize)]
struct Page {
    limit: Option<u32>,
    before: Option<Uuid>,
}

/// `GET /api/videos?limit=&before=`: a page of someone's videos, newest first.
async fn list(
    Shared(api): Shared<Arc<Api>>,
    headers: HeaderMap,
    page: Result<Query<Page>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<Value>, Refusal> {
    let (_, owner) = person(&headers)?;
    let hint = "Use limit=1 to 100 and before=ID of the last video seen.";
    let Query(page) = page.map_err(|_| Refusal::bad(("The page cannot be understood.", hint)))?;
    let limit = page.limit.unwrap_or(PAGE_MAX).clamp(1, PAGE_MAX);
    let mut videos = api.catalogue.page(&owner, page.before, limit + 1).await?;
    let more = videos.len() > limit as usize;
    videos.truncate(limit as usize);
    let next = if more { videos.last().map(|video| video.id) } else { None };
    Ok(Json(json!({ "videos": videos, "next_before": next })))
}

/// `GET /api/videos/{id}`.
async fn see(Shared(api): Shared<Arc<Api>>, Path(id): Path<String>, headers: HeaderMap) -> Result<Json<Video>, Refusal> {
    let (_, owner) = person(&headers)?;
    owned(&api, &owner, &id).await.map(Json)
}

/// `GET /api/videos/{id}/watch`: grants to read the renditions and the poster.
async fn watch(Shared(api): Shared<Arc<Api>>, Path(id): Path<String>, headers: HeaderMap) -> Result<Json<Value>, Refusal> {
    let (context, owner) = person(&headers)?;
    let video = owned(&api, &owner, &id).await?;
    if video.state != State::Ready {
        return Err(Refusal::not_ready());
    }
    let mut renditions = Vec::new();
    for made in &video.renditions {
        let grant = api.store.presign(&context, (RENDITIONS, &made.key), Granted::Get, GRANT_S).await?;
        let mut shown = json!(made);
        if let Some(shown) = shown.as_object_mut() {
            shown.insert(String::from("url"), json!(grant.url));
        }
        renditions.push(shown);
    }
    let poster = match &video.poster {
        Some(key) => Some(api.store.presign(&context, (RENDITIONS, key), Granted::Get, GRANT_S).await?.url),
        None => None,
    };
    Ok(Json(json!({ "renditions": renditions, "poster_url": poster, "expires_s": GRANT_S })))
}

/// `DELETE /api/videos/{id}`: the objects first, so that none is left without a row that names it.
async fn delete(Shared(api): Shared<Arc<Api>>, Path(id): Path<String>, headers: HeaderMap) -> Result<StatusCode, Refusal> {
    let (context, owner) = person(&headers)?;
    let video = owned(&api, &owner, &id).await?;
    delete_objects(&api.store, &context, &video).await?;
    api.catalogue.remove(&owner, video.id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn delete_objects(store: &Store, context: &Context, video: &Video) -> Result<(), Fault> {
    store.delete(context, (ORIGINALS, &original(video.id))).await?;
    for made in &video.renditions {
        store.delete(context, (RENDITIONS, &made.key)).await?;
    }
    if let Some(poster) = &video.poster {
        store.delete(context, (RENDITIONS, poster)).await?;
    }
    Ok(())
}

/// The key of a video's original.
pub(crate) fn original(id: Uuid) -> String {
    format!("{id}/original")
}

#[cfg(test)]
mod tests;
