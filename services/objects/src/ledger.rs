//! The ledger: rows for objects, uploads, grants and events, in SQL.
//!
//! An object is visible once its row is committed, and its row is committed only after its bytes are on the disk. What an object is
//! and who owns it is sealed, so that a row edited on the disk is found.
//!
//! Guarantees: G3, G8, G10, G11; nothing acknowledged is lost.

mod grants;
mod objects;
mod outbox;
mod uploads;

use std::collections::BTreeSet;
use std::path::Path;

use state::sqlx::{self, Row};
use state::{Migration, StateError, Store};
use trust::Entropy;

use crate::refusal::Refusal;
use crate::seal::Sealer;

pub(crate) use grants::Grant;
pub(crate) use objects::{Arrival, Object, Ruling, Segment};
pub(crate) use outbox::Note;
pub(crate) use uploads::{Part, Upload};

const SCHEMA: &[Migration] = &[
    Migration {
        version: 1,
        name: "objects, uploads, grants, outbox",
        sql: "
CREATE TABLE object (
    bucket TEXT NOT NULL,
    key TEXT NOT NULL,
    version TEXT NOT NULL UNIQUE,
    size INTEGER NOT NULL,
    digest TEXT NOT NULL,
    etag TEXT NOT NULL,
    content_type TEXT NOT NULL,
    metadata TEXT NOT NULL,
    owner TEXT,
    verdict TEXT NOT NULL CHECK (verdict IN ('untyped', 'clean', 'rejected')),
    media_type TEXT,
    verdict_by TEXT,
    verdict_job TEXT,
    verdict_ms INTEGER,
    verdict_reason TEXT,
    created_ms INTEGER NOT NULL,
    seal BLOB NOT NULL,
    PRIMARY KEY (bucket, key)
) STRICT, WITHOUT ROWID;
CREATE TABLE blob (
    id TEXT PRIMARY KEY,
    size INTEGER NOT NULL,
    digest TEXT NOT NULL,
    chunks BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE segment (
    version TEXT NOT NULL REFERENCES object (version) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    blob TEXT NOT NULL UNIQUE REFERENCES blob (id),
    PRIMARY KEY (version, position)
) STRICT, WITHOUT ROWID;
CREATE TABLE upload (
    id TEXT PRIMARY KEY,
    bucket TEXT NOT NULL,
    key TEXT NOT NULL,
    principal TEXT NOT NULL,
    owner TEXT,
    job TEXT,
    content_type TEXT NOT NULL,
    metadata TEXT NOT NULL,
    created_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX upload_age ON upload (created_ms);
CREATE TABLE part (
    upload TEXT NOT NULL REFERENCES upload (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    blob TEXT NOT NULL UNIQUE REFERENCES blob (id),
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (upload, number)
) STRICT, WITHOUT ROWID;
CREATE TABLE grant_issued (
    id TEXT PRIMARY KEY,
    method TEXT NOT NULL,
    bucket TEXT NOT NULL,
    key TEXT NOT NULL,
    content_length INTEGER,
    content_type TEXT,
    principal TEXT NOT NULL,
    authority TEXT,
    trace TEXT NOT NULL,
    created_s INTEGER NOT NULL,
    expires_s INTEGER NOT NULL,
    used_ms INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX grant_age ON grant_issued (created_s);
CREATE TABLE outbox (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    queue TEXT NOT NULL,
    object TEXT NOT NULL,
    event TEXT NOT NULL,
    authority TEXT,
    trace TEXT NOT NULL,
    seal BLOB NOT NULL,
    due_ms INTEGER NOT NULL,
    tries INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX outbox_object ON outbox (object, seq);
",
    },
    Migration {
        version: 2,
        name: "uploads in parts from browsers",
        sql: "
ALTER TABLE upload ADD COLUMN size INTEGER;
ALTER TABLE grant_issued ADD COLUMN upload TEXT;
ALTER TABLE grant_issued ADD COLUMN part INTEGER;
CREATE INDEX upload_place ON upload (bucket, key);
",
    },
];

/// The ledger.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) store: Store,
    pub(crate) sealer: Sealer,
}

impl Ledger {
    /// Opens the ledger in `folder`.
    pub(crate) async fn open(folder: &Path, entropy: &dyn Entropy) -> Result<Self, StateError> {
        let key = state::open_key(&folder.join("objects.key"), entropy)?;
        let store = Store::open(&folder.join("objects.db"), SCHEMA).await?;
        Ok(Self { store, sealer: Sealer::new(&key) })
    }

    /// Every blob that a row names.
    pub(crate) async fn blobs(&self) -> Result<BTreeSet<String>, StateError> {
        let rows = sqlx::query("SELECT blob FROM segment UNION ALL SELECT blob FROM part").fetch_all(self.store.reader()).await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// Removes the rows of blobs that nothing names any more.
    pub(crate) async fn forget_blobs(txn: &mut state::WriteTxn, ids: &[String]) -> Result<(), StateError> {
        for id in ids {
            sqlx::query("DELETE FROM blob WHERE id = ?").bind(id).execute(&mut **txn).await?;
        }
        Ok(())
    }
}

/// What a column holds that this program did not write.
fn damaged(what: &'static str) -> Refusal {
    Refusal::Internal(format!("the ledger's column {what} cannot be read").into())
}
