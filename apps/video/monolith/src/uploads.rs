//! Uploads: a whole file, or parts of it that go on after a broken connection.
//!
//! Guarantees: an upload that is not as announced leaves nothing; what is complete is on the disk before it is answered for.

use std::path::Path;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path as At, State};
use axum::http::{HeaderMap, StatusCode, header};
use futures::StreamExt;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use uuid::Uuid;
use video_api::video::{State as Stage, Video};

use crate::accounts::{Job, Person};
use crate::visitor::{Refusal, ours};
use crate::{App, files, work};

/// Bytes of each part but the last.
const PART_BYTES: u64 = 8 << 20;
/// Addresses in one answer.
const PARTS_AT_ONCE: usize = 32;

/// Number and size of each part.
fn plan(size: u64) -> impl Iterator<Item = (u64, u64)> {
    (0..size.div_ceil(PART_BYTES)).map(move |index| (index + 1, PART_BYTES.min(size.saturating_sub(index * PART_BYTES))))
}

fn taken() -> Refusal {
    Refusal(StatusCode::CONFLICT, "This video was uploaded already.", "Announce another.")
}

/// `PUT /upload/{id}`: the whole.
pub(crate) async fn whole(
    State(app): State<Arc<App>>,
    person: Person,
    At(id): At<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Refusal> {
    let video = crate::routes::owned(&app, &person, &id).await?;
    if video.state != Stage::AwaitingUpload {
        return Err(taken());
    }
    let declared = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if declared != Some(video.media_type.as_str()) {
        return Err(Refusal(StatusCode::BAD_REQUEST, "This is not the type that was announced.", "Send what was announced."));
    }
    let original = app.files.original(video.id);
    receive(&original, video.size, body).await?;
    finished(&app, &video).await
}

/// `PUT /upload/{id}/{number}`: a part.
pub(crate) async fn part(
    State(app): State<Arc<App>>,
    person: Person,
    At((id, number)): At<(String, u64)>,
    body: Body,
) -> Result<StatusCode, Refusal> {
    let video = crate::routes::owned(&app, &person, &id).await?;
    if video.state != Stage::AwaitingUpload {
        return Err(taken());
    }
    let size = plan(video.size).find(|(planned, _)| *planned == number).map(|(_, size)| size);
    let size = size.ok_or(Refusal(StatusCode::BAD_REQUEST, "There is no such part.", "Ask which parts are missing."))?;
    let folder = app.files.of(video.id);
    receive(&folder.join(format!("part-{number}")), size, body).await?;
    if plan(video.size).all(|(number, _)| folder.join(format!("part-{number}")).exists()) {
        join(&folder, &video).await.map_err(|error| ours(&error))?;
        finished(&app, &video).await?;
    }
    Ok(StatusCode::OK)
}

/// `POST /api/videos/{id}/upload`: which parts are there, and addresses for the next that are not.
pub(crate) async fn resume(State(app): State<Arc<App>>, person: Person, At(id): At<String>) -> Result<Json<Value>, Refusal> {
    let video = crate::routes::owned(&app, &person, &id).await?;
    if video.state != Stage::AwaitingUpload {
        return Ok(Json(json!({ "complete": true, "part_bytes": PART_BYTES, "stored": [], "parts": [] })));
    }
    let folder = app.files.of(video.id);
    let (mut stored, mut parts) = (Vec::new(), Vec::new());
    for (number, bytes) in plan(video.size) {
        let path = folder.join(format!("part-{number}"));
        if path.exists() {
            stored.push(json!({ "number": number, "sha256": digest(&path).await.map_err(|error| ours(&error))? }));
        } else if parts.len() < PARTS_AT_ONCE {
            parts.push(json!({ "number": number, "bytes": bytes, "url": format!("/upload/{}/{number}", video.id) }));
        }
    }
    Ok(Json(json!({ "complete": false, "part_bytes": PART_BYTES, "stored": stored, "parts": parts })))
}

/// Takes a body of exactly `size` bytes to its place.
async fn receive(to: &Path, size: u64, body: Body) -> Result<(), Refusal> {
    let folder = to.parent().map(Path::to_path_buf).unwrap_or_default();
    tokio::fs::create_dir_all(&folder).await.map_err(|error| ours(&error))?;
    let passing = folder.join(format!("incoming-{}", Uuid::new_v4().simple()));
    let taken = write(&passing, size, body).await;
    match taken {
        Ok(file) => files::settle(file, &passing, to).await.map_err(|error| ours(&error)),
        Err(refusal) => {
            // What was not as announced leaves nothing; a file that was never made needs no removal.
            let _absent = tokio::fs::remove_file(&passing).await;
            Err(refusal)
        }
    }
}

async fn write(path: &Path, size: u64, body: Body) -> Result<File, Refusal> {
    let not_as_announced = || Refusal(StatusCode::BAD_REQUEST, "This is not the size that was announced.", "Send what was announced.");
    let mut file = File::create_new(path).await.map_err(|error| ours(&error))?;
    let (mut stream, mut written) = (body.into_data_stream(), 0u64);
    while let Some(piece) = stream.next().await {
        let piece = piece.map_err(|_| Refusal(StatusCode::BAD_REQUEST, "The upload broke off.", "Try again."))?;
        written = written.saturating_add(piece.len() as u64);
        if written > size {
            return Err(not_as_announced());
        }
        file.write_all(&piece).await.map_err(|error| ours(&error))?;
    }
    if written == size { Ok(file) } else { Err(not_as_announced()) }
}

async fn join(folder: &Path, video: &Video) -> std::io::Result<()> {
    let passing = folder.join(format!("incoming-{}", Uuid::new_v4().simple()));
    let mut whole = File::create_new(&passing).await?;
    for (number, _) in plan(video.size) {
        tokio::io::copy(&mut File::open(folder.join(format!("part-{number}"))).await?, &mut whole).await?;
    }
    files::settle(whole, &passing, &folder.join("original")).await?;
    for (number, _) in plan(video.size) {
        tokio::fs::remove_file(folder.join(format!("part-{number}"))).await?;
    }
    Ok(())
}

async fn digest(path: &Path) -> std::io::Result<String> {
    let (mut file, mut sum, mut piece) = (File::open(path).await?, Sha256::new(), vec![0; 64 * 1024]);
    loop {
        match file.read(&mut piece).await? {
            0 => return Ok(hex::encode(sum.finalize())),
            read => sum.update(piece.get(..read).unwrap_or_default()),
        }
    }
}

async fn finished(app: &Arc<App>, video: &Video) -> Result<StatusCode, Refusal> {
    let job = Job { video: video.id, owner: video.owner.clone() };
    app.accounts.note(&job).await.map_err(|error| ours(&error))?;
    work::become_(app, &job, "uploaded", Stage::Uploaded, video_api::catalogue::Change::default()).await.map_err(|error| ours(&error))?;
    work::begin(app, job);
    Ok(StatusCode::OK)
}

#[cfg(test)]
mod tests {
    //! Tests of the plan.
    use super::*;

    #[test]
    fn parts_add_up_to_the_whole() {
        for size in [1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES + 5] {
            assert_eq!(plan(size).map(|(_, bytes)| bytes).sum::<u64>(), size);
            assert!(plan(size).all(|(_, bytes)| (1..=PART_BYTES).contains(&bytes)));
        }
    }
}
