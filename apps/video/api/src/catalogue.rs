//! The catalogue: one SQLite file with every video and every event that was applied to it.
//!
//! Spec:       SQLite, WAL, `synchronous=FULL`: what was answered is on the disk.
//! Guarantees: H1 an event is applied once, in one transaction with the note that it was; N3 every question about a
//!             video names its owner.
//! Not here:   objects.

use std::path::Path;

use sqlx::{
    Row, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous},
};
use uuid::Uuid;

use crate::video::{Rendition, State, Video};

/// The tables; every statement may be run again.
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS video (
        id TEXT PRIMARY KEY, owner TEXT NOT NULL, name TEXT NOT NULL, media_type TEXT NOT NULL,
        size INTEGER NOT NULL, state TEXT NOT NULL, progress INTEGER NOT NULL DEFAULT 0, reason TEXT,
        created_at TEXT NOT NULL, duration_s REAL, renditions TEXT NOT NULL DEFAULT '[]', poster TEXT
    ) STRICT;
    CREATE INDEX IF NOT EXISTS video_owner ON video (owner, id DESC);
    CREATE TABLE IF NOT EXISTS applied (
        event TEXT PRIMARY KEY,
        video TEXT NOT NULL REFERENCES video (id) ON DELETE CASCADE
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS applied_video ON applied (video);
";

/// Why the catalogue could not do something.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueFault {
    /// The database said no.
    #[error("the catalogue: {0}")]
    Database(#[from] sqlx::Error),
    /// A row that this program did not write.
    #[error("the catalogue holds a damaged row for {0}")]
    Damaged(String),
}

/// What an event changes.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// Percent of the transcoding.
    pub progress: Option<u8>,
    /// Why it was refused or failed, for its owner.
    pub reason: Option<String>,
    /// Seconds.
    pub duration_s: Option<f64>,
    /// What was made of it.
    pub renditions: Option<Vec<Rendition>>,
    /// Where its picture is.
    pub poster: Option<String>,
}

/// What came of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It changed the video.
    Changed,
    /// It was applied before, or is overtaken by a later state.
    Overtaken,
    /// There is no such video (any more).
    NoVideo,
    /// The video belongs to someone else than the event.
    OtherOwner,
}

/// The catalogue's file.
#[derive(Clone)]
pub struct Catalogue {
    // One connection: writes queue up here instead of failing as busy, and reads take microseconds.
    pool: SqlitePool,
}

impl Catalogue {
    /// Opens the catalogue in a folder, and makes it if it is not there.
    ///
    /// # Errors
    /// [`CatalogueFault`] when the database cannot be used or holds what this program did not write.
    pub async fn open(folder: &Path) -> Result<Self, CatalogueFault> {
        let options = SqliteConnectOptions::new()
            .filename(folder.join("catalogue.db"))
            .create_if_missing(true)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await?;
        sqlx::raw_sql(SCHEMA).execute(&pool).await?;
        Ok(Self { pool })
    }

    /// Adds a new video.
    ///
    /// # Errors
    /// [`CatalogueFault`] when the database cannot be used or holds what this program did not write.
    pub async fn add(&self, video: &Video) -> Result<(), CatalogueFault> {
        sqlx::query("INSERT INTO video (id, owner, name, media_type, size, state, created_at) VALUES (?, ?, ?, ?, ?, ?, ?)")
            .bind(video.id.to_string())
            .bind(&video.owner)
            .bind(&video.name)
            .bind(&video.media_type)
            .bind(i64::try_from(video.size).unwrap_or(i64::MAX))
            .bind(video.state.name())
            .bind(&video.created_at)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// A page of someone's videos, newest first, before the one of this id if there is one.
    ///
    /// # Errors
    /// [`CatalogueFault`] when the database cannot be used or holds what this program did not write.
    pub async fn page(&self, owner: &str, before: Option<Uuid>, limit: u32) -> Result<Vec<Video>, CatalogueFault> {
        // Ids are version 7: their order is that of their making. '~' is after every id.
        let before = before.map_or_else(|| String::from("~"), |id| id.to_string());
        let rows = sqlx::query("SELECT * FROM video WHERE owner = ? AND id < ? ORDER BY id DESC LIMIT ?")
            .bind(owner)
            .bind(before)
            .bind(limit)
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(video).collect()
    }

    /// Someone's video; another's is as if it were not there.
    ///
    /// # Errors
    /// [`CatalogueFault`] when the database cannot be used or holds what this program did not write.
    pub async fn find(&self, owner: &str, id: Uuid) -> Result<Option<Video>, CatalogueFault> {
        let row = sqlx::query("SELECT * FROM video WHERE owner = ? AND id = ?")
            .bind(owner)
            .bind(id.to_string())
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(video).transpose()
    }

    /// Removes someone's video.
    ///
    /// # Errors
    /// [`CatalogueFault`] when the database cannot be used or holds what this program did not write.
    pub async fn remove(&self, owner: &str, id: Uuid) -> Result<(), CatalogueFault> {
        sqlx::query("DELETE FROM video WHERE owner = ? AND id = ?").bind(owner).bind(id.to_string()).execute(&self.pool).await?;
        Ok(())
    }

    /// Applies an event to a video: once, forward only, and only its owner's.
    ///
    /// # Errors
    /// [`CatalogueFault`] when the database cannot be used or holds what this program did not write.
    pub async fn apply(
        &self,
        (event, id, owner): (&str, Uuid, Option<&str>),
        next: State,
        change: Change,
    ) -> Result<Applied, CatalogueFault> {
        let mut work = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let row = sqlx::query("SELECT * FROM video WHERE id = ?").bind(id.to_string()).fetch_optional(&mut *work).await?;
        let Some(current) = row.as_ref().map(video).transpose()? else { return Ok(Applied::NoVideo) };
        if owner.is_some_and(|owner| owner != current.owner) {
            return Ok(Applied::OtherOwner);
        }
        let noted = sqlx::query("INSERT INTO applied (event, video) VALUES (?, ?) ON CONFLICT DO NOTHING")
            .bind(event)
            .bind(id.to_string())
            .execute(&mut *work)
            .await?;
        if noted.rows_affected() == 0 {
            return Ok(Applied::Overtaken);
        }
        let applied = if current.state.may_become(next) { Applied::Changed } else { Applied::Overtaken };
        if applied == Applied::Changed {
            let renditions = change.renditions.unwrap_or(current.renditions);
            let renditions = serde_json::to_string(&renditions).map_err(|_| CatalogueFault::Damaged(id.to_string()))?;
            sqlx::query(
                "UPDATE video SET state = ?, progress = max(progress, ?), reason = ?, duration_s = ?, renditions = ?, \
                 poster = ? WHERE id = ?",
            )
            .bind(next.name())
            .bind(change.progress.unwrap_or_default())
            .bind(change.reason)
            .bind(change.duration_s.or(current.duration_s))
            .bind(renditions)
            .bind(change.poster.or(current.poster))
            .bind(id.to_string())
            .execute(&mut *work)
            .await?;
        }
        work.commit().await?;
        Ok(applied)
    }
}

/// A video out of its row.
fn video(row: &SqliteRow) -> Result<Video, CatalogueFault> {
    let id: String = row.try_get("id")?;
    let damaged = || CatalogueFault::Damaged(id.clone());
    let state: String = row.try_get("state")?;
    let renditions: String = row.try_get("renditions")?;
    Ok(Video {
        id: Uuid::parse_str(&id).map_err(|_| damaged())?,
        owner: row.try_get("owner")?,
        name: row.try_get("name")?,
        media_type: row.try_get("media_type")?,
        size: u64::try_from(row.try_get::<i64, _>("size")?).map_err(|_| damaged())?,
        state: State::parse(&state).ok_or_else(damaged)?,
        progress: u8::try_from(row.try_get::<i64, _>("progress")?).map_err(|_| damaged())?,
        reason: row.try_get("reason")?,
        created_at: row.try_get("created_at")?,
        duration_s: row.try_get("duration_s")?,
        renditions: serde_json::from_str(&renditions).map_err(|_| damaged())?,
        poster: row.try_get("poster")?,
    })
}
