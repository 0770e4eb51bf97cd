//! The routes: announce, list, see, watch, delete; and where the other files' routes are.
//!
//! Guarantees: N3 another's video is as if it were not there; the answers have the form of the reference system's API.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::{get, post, put};
use axum::{Json, Router, middleware};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;
use video_api::video::{State as Stage, Video, Wish};

use crate::accounts::Person;
use crate::visitor::{Refusal, at_the_door, ours};
use crate::{App, files, pages, uploads};

/// The longest page of a list.
const PAGE_MAX: u32 = 100;
/// The largest form or announcement.
const BODY_BYTES_MAX: usize = 64 * 1024;

pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(pages::page))
        .route("/static/{file}", get(pages::asset))
        .route("/auth/login", get(pages::login).post(pages::sign_in))
        .route("/auth/logout", get(pages::logout))
        .route("/auth/me", get(pages::me))
        .route("/enrol/{code}", get(pages::invited).post(pages::enrol))
        .route("/api/videos", post(announce).get(list))
        .route("/api/videos/{id}", get(see).delete(delete))
        .route("/api/videos/{id}/upload", post(uploads::resume))
        .route("/api/videos/{id}/watch", get(watch))
        .route("/upload/{id}", put(uploads::whole))
        .route("/upload/{id}/{number}", put(uploads::part))
        .route("/media/{id}/{file}", get(media))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn(at_the_door))
        .with_state(app)
}

/// Someone's video of this id.
pub(crate) async fn owned(app: &App, person: &Person, id: &str) -> Result<Video, Refusal> {
    let none = || Refusal(StatusCode::NOT_FOUND, "There is no such video.", "It may have been deleted; reload the page.");
    let id = Uuid::parse_str(id).map_err(|_| none())?;
    app.catalogue.find(&person.id, id).await.map_err(|error| ours(&error))?.ok_or_else(none)
}

async fn announce(State(app): State<Arc<App>>, person: Person, body: Bytes) -> Result<(StatusCode, Json<Value>), Refusal> {
    let bad = |(error, hint)| Refusal(StatusCode::BAD_REQUEST, error, hint);
    let wish = serde_json::from_slice::<Wish>(&body).map_err(|_| bad(("The announcement cannot be understood.", "Send JSON.")))?;
    let wish = wish.checked().map_err(bad)?;
    let now = OffsetDateTime::now_utc();
    let now = now.replace_millisecond(now.millisecond()).unwrap_or(now);
    let video = Video {
        id: Uuid::now_v7(),
        owner: person.id,
        name: wish.name,
        media_type: wish.media_type,
        size: wish.size,
        state: Stage::AwaitingUpload,
        progress: 0,
        reason: None,
        created_at: now.format(&Rfc3339).unwrap_or_default(),
        duration_s: None,
        renditions: Vec::new(),
        poster: None,
    };
    app.catalogue.add(&video).await.map_err(|error| ours(&error))?;
    let upload = json!({ "url": format!("/upload/{}", video.id), "method": "PUT", "headers": { "content-type": video.media_type } });
    Ok((StatusCode::CREATED, Json(json!({ "id": video.id, "upload": upload }))))
}

/// The query of a list.
#[derive(Deserialize)]
struct Page {
    limit: Option<u32>,
    before: Option<Uuid>,
}

async fn list(State(app): State<Arc<App>>, person: Person, Query(page): Query<Page>) -> Result<Json<Value>, Refusal> {
    listed(&app, &person, page.limit.unwrap_or(PAGE_MAX), page.before).await.map(Json)
}

/// A page of someone's videos, newest first.
pub(crate) async fn listed(app: &App, person: &Person, limit: u32, before: Option<Uuid>) -> Result<Value, Refusal> {
    let limit = limit.clamp(1, PAGE_MAX);
    let mut videos = app.catalogue.page(&person.id, before, limit + 1).await.map_err(|error| ours(&error))?;
    let more = videos.len() > limit as usize;
    videos.truncate(limit as usize);
    let next = if more { videos.last().map(|video| video.id) } else { None };
    Ok(json!({ "videos": videos, "next_before": next }))
}

async fn see(State(app): State<Arc<App>>, person: Person, Path(id): Path<String>) -> Result<Json<Video>, Refusal> {
    owned(&app, &person, &id).await.map(Json)
}

async fn watch(State(app): State<Arc<App>>, person: Person, Path(id): Path<String>) -> Result<Json<Value>, Refusal> {
    let video = owned(&app, &person, &id).await?;
    if video.state != Stage::Ready {
        return Err(Refusal(StatusCode::CONFLICT, "This video cannot be watched yet.", "Wait until it is ready."));
    }
    let address = |key: &str| format!("/media/{key}");
    let renditions: Vec<Value> = video
        .renditions
        .iter()
        .map(|made| {
            let mut shown = json!(made);
            if let Some(shown) = shown.as_object_mut() {
                shown.insert(String::from("url"), json!(address(&made.key)));
            }
            shown
        })
        .collect();
    Ok(Json(json!({ "renditions": renditions, "poster_url": video.poster.as_deref().map(address), "expires_s": 900 })))
}

async fn media(
    State(app): State<Arc<App>>,
    person: Person,
    Path((id, file)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let video = owned(&app, &person, &id).await?;
    files::serve(&app.files.of(video.id), &file, &headers).await.map_err(|error| ours(&error))
}

async fn delete(State(app): State<Arc<App>>, person: Person, Path(id): Path<String>) -> Result<StatusCode, Refusal> {
    let video = owned(&app, &person, &id).await?;
    app.catalogue.remove(&person.id, video.id).await.map_err(|error| ours(&error))?;
    app.files.remove(video.id).await.map_err(|error| ours(&error))?;
    Ok(StatusCode::NO_CONTENT)
}
