//! Objects' rows: put in place, read, listed, ruled upon, removed.

use std::collections::BTreeMap;

use manifest::Verdict;
use policy::ObjectFacts;
use state::sqlx::sqlite::SqliteRow;
use state::sqlx::{self, Row};
use state::{WriteTxn, int, uint};
use trust::{Digest, ObjectRef};

use super::outbox::Note;
use super::{Ledger, damaged};
use crate::blob::Blob;
use crate::refusal::Refusal;

/// An object.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    pub(crate) at: ObjectRef,
    pub(crate) version: String,
    pub(crate) size: u64,
    /// SHA-256 of the bytes; of an object made of parts, SHA-256 over the parts' digests.
    pub(crate) digest: Digest,
    pub(crate) etag: String,
    pub(crate) content_type: String,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) owner: Option<String>,
    pub(crate) verdict: Verdict,
    /// What the validator found it to be.
    pub(crate) media_type: Option<String>,
    pub(crate) created_ms: u64,
    pub(crate) segments: Vec<Segment>,
}

/// A piece of an object.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub(crate) blob: Blob,
}

/// A new object, about to become visible.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) object: Object,
    /// The version that must be there, or none: what was decided upon.
    pub(crate) replaces: Option<String>,
    /// The upload whose parts it is made of.
    pub(crate) upload: Option<String>,
    /// The grant that it uses up.
    pub(crate) grant: Option<String>,
    /// The event that tells of it.
    pub(crate) note: Option<Note>,
}

/// A verdict.
#[derive(Debug)]
pub(crate) struct Ruling<'a> {
    pub(crate) verdict: Verdict,
    pub(crate) media_type: Option<&'a str>,
    pub(crate) reason: &'a str,
    pub(crate) by: &'a str,
    pub(crate) job: &'a str,
    pub(crate) now_ms: u64,
}

const COLUMNS: &str = "bucket, key, version, size, digest, etag, content_type, metadata, owner, verdict, media_type, created_ms, seal";

impl Object {
    /// As a decision sees it.
    pub(crate) fn facts(&self) -> ObjectFacts {
        ObjectFacts { reference: self.at.clone(), verdict: self.verdict, owner: self.owner.clone(), shared_with: Default::default() }
    }

    fn sealed<T>(&self, use_fields: impl FnOnce(&[&[u8]]) -> T) -> Result<T, Refusal> {
        let metadata = serde_json::to_string(&self.metadata).map_err(|_| damaged("metadata"))?;
        let size = self.size.to_be_bytes();
        let optional = |value: &Option<String>| value.clone().unwrap_or_else(|| "\0absent".to_owned());
        let (owner, media_type) = (optional(&self.owner), optional(&self.media_type));
        let segments: Vec<u8> = self.segments.iter().flat_map(|s| s.blob.fields()).collect();
        Ok(use_fields(&[
            self.at.bucket.as_bytes(),
            self.at.key.as_bytes(),
            self.version.as_bytes(),
            &size,
            self.digest.as_bytes(),
            self.etag.as_bytes(),
            self.content_type.as_bytes(),
            metadata.as_bytes(),
            owner.as_bytes(),
            verdict_text(self.verdict).as_bytes(),
            media_type.as_bytes(),
            &segments,
        ]))
    }
}

impl Blob {
    /// Name, size and all digests, for the seal.
    fn fields(&self) -> Vec<u8> {
        let mut out = Digest::of(&self.chunks).as_bytes().to_vec();
        out.extend_from_slice(self.digest.as_bytes());
        out.extend_from_slice(&self.size.to_be_bytes());
        out.extend_from_slice(self.id.as_bytes());
        out
    }

    pub(super) fn load(row: &SqliteRow) -> Result<Self, Refusal> {
        let digest: String = row.try_get("digest")?;
        Ok(Self {
            id: row.try_get("id")?,
            size: uint(row.try_get("size")?),
            digest: digest.parse().map_err(|_| damaged("digest"))?,
            chunks: row.try_get("chunks")?,
        })
    }

    pub(super) async fn insert(&self, txn: &mut WriteTxn) -> Result<(), Refusal> {
        sqlx::query("INSERT INTO blob (id, size, digest, chunks) VALUES (?, ?, ?, ?)")
            .bind(&self.id)
            .bind(int(self.size))
            .bind(self.digest.to_string())
            .bind(&self.chunks)
            .execute(&mut **txn)
            .await?;
        Ok(())
    }
}

impl Ledger {
    /// An object, or nothing. `Tampered` when its row is not as it was written.
    pub(crate) async fn object(&self, at: &ObjectRef) -> Result<Option<Object>, Refusal> {
        let mut connection = self.store.reader().acquire().await?;
        self.load(&mut connection, at).await
    }

    async fn load(&self, connection: &mut sqlx::SqliteConnection, at: &ObjectRef) -> Result<Option<Object>, Refusal> {
        let query = sqlx::AssertSqlSafe(format!("SELECT {COLUMNS} FROM object WHERE bucket = ? AND key = ?"));
        let Some(row) = sqlx::query(query).bind(&at.bucket).bind(&at.key).fetch_optional(&mut *connection).await? else {
            return Ok(None);
        };
        let mut object = object_of(&row)?;
        let rows = sqlx::query(
            "SELECT b.id, b.size, b.digest, b.chunks FROM segment s JOIN blob b ON b.id = s.blob WHERE s.version = ? ORDER BY s.position",
        )
        .bind(&object.version)
        .fetch_all(&mut *connection)
        .await?;
        object.segments = rows.iter().map(|row| Blob::load(row).map(|blob| Segment { blob })).collect::<Result<_, _>>()?;
        let seal: Vec<u8> = row.try_get("seal")?;
        let holds = object.sealed(|fields| self.sealer.holds("object", fields, &seal))?;
        if holds { Ok(Some(object)) } else { Err(Refusal::Tampered) }
    }

    /// Makes an object visible, in place of the version that was decided upon. Gives the blobs that nothing names any more.
    ///
    /// `Conflict` when another version is there by now, or the upload is gone; `Precondition` when the grant was used.
    pub(crate) async fn arrive(&self, arrival: &Arrival, now_ms: u64) -> Result<Vec<String>, Refusal> {
        let mut txn = self.store.write().await?;
        let gone = self.arrive_in(&mut txn, arrival, now_ms).await?;
        txn.commit().await?;
        Ok(gone)
    }

    pub(super) async fn arrive_in(&self, txn: &mut WriteTxn, arrival: &Arrival, now_ms: u64) -> Result<Vec<String>, Refusal> {
        let object = &arrival.object;
        let there = self.load(txn, &object.at).await?;
        if there.as_ref().map(|o| &o.version) != arrival.replaces.as_ref() {
            return Err(Refusal::Conflict("the object was changed meanwhile".to_owned()));
        }
        if let Some(grant) = &arrival.grant {
            Self::use_grant(txn, grant, now_ms).await?;
        }
        let mut gone = match there {
            Some(old) => Self::delete_rows(txn, &old).await?,
            None => Vec::new(),
        };
        if let Some(upload) = &arrival.upload {
            gone.extend(Self::close_upload(txn, upload, &object.segments).await?);
        } else {
            for segment in &object.segments {
                segment.blob.insert(txn).await?;
            }
        }
        self.insert_object(txn, object).await?;
        if let Some(note) = &arrival.note {
            note.insert(txn, &self.sealer, now_ms).await?;
        }
        Ok(gone)
    }

    async fn insert_object(&self, txn: &mut WriteTxn, object: &Object) -> Result<(), Refusal> {
        let seal = object.sealed(|fields| self.sealer.seal("object", fields))?;
        sqlx::query(
            "INSERT INTO object (bucket, key, version, size, digest, etag, content_type, metadata, owner, verdict, media_type, created_ms, seal)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(&object.at.bucket)
        .bind(&object.at.key)
        .bind(&object.version)
        .bind(int(object.size))
        .bind(object.digest.to_string())
        .bind(&object.etag)
        .bind(&object.content_type)
        .bind(serde_json::to_string(&object.metadata).map_err(|_| damaged("metadata"))?)
        .bind(&object.owner)
        .bind(verdict_text(object.verdict))
        .bind(&object.media_type)
        .bind(int(object.created_ms))
        .bind(seal)
        .execute(&mut **txn)
        .await?;
        for (position, segment) in object.segments.iter().enumerate() {
            sqlx::query("INSERT INTO segment (version, position, blob) VALUES (?, ?, ?)")
                .bind(&object.version)
                .bind(i64::try_from(position).unwrap_or(i64::MAX))
                .bind(&segment.blob.id)
                .execute(&mut **txn)
                .await?;
        }
        Ok(())
    }

    /// Removes an object; gives the blobs whose files may go. `Conflict` when it is not that version any more.
    pub(crate) async fn remove(&self, object: &Object) -> Result<Vec<String>, Refusal> {
        let mut txn = self.store.write().await?;
        let there = self.load(&mut txn, &object.at).await?;
        if there.map(|o| o.version).as_ref() != Some(&object.version) {
            return Err(Refusal::Conflict("the object was changed meanwhile".to_owned()));
        }
        let gone = Self::delete_rows(&mut txn, object).await?;
        txn.commit().await?;
        Ok(gone)
    }

    async fn delete_rows(txn: &mut WriteTxn, object: &Object) -> Result<Vec<String>, Refusal> {
        let gone: Vec<String> = object.segments.iter().map(|s| s.blob.id.clone()).collect();
        sqlx::query("DELETE FROM object WHERE version = ?").bind(&object.version).execute(&mut **txn).await?;
        Self::forget_blobs(txn, &gone).await?;
        Ok(gone)
    }

    /// Records a verdict on exactly this version, once.
    pub(crate) async fn rule(&self, object: &Object, ruling: &Ruling<'_>) -> Result<(), Refusal> {
        let mut ruled = object.clone();
        ruled.verdict = ruling.verdict;
        ruled.media_type = ruling.media_type.map(str::to_owned);
        let seal = ruled.sealed(|fields| self.sealer.seal("object", fields))?;
        let mut txn = self.store.write().await?;
        let done = sqlx::query(
            "UPDATE object SET verdict = ?, media_type = ?, verdict_by = ?, verdict_job = ?, verdict_ms = ?, verdict_reason = ?, seal = ?
             WHERE version = ? AND verdict = 'untyped'",
        )
        .bind(verdict_text(ruling.verdict))
        .bind(&ruled.media_type)
        .bind(ruling.by)
        .bind(ruling.job)
        .bind(int(ruling.now_ms))
        .bind(ruling.reason)
        .bind(seal)
        .bind(&object.version)
        .execute(&mut *txn)
        .await?;
        if done.rows_affected() != 1 {
            return Err(Refusal::Conflict("the object was changed or ruled upon meanwhile".to_owned()));
        }
        txn.commit().await?;
        Ok(())
    }

    /// Keys of a bucket after `after`, in order, with `prefix`, at most `limit`; only those of `owner`.
    pub(crate) async fn list(&self, bucket: &str, owner: &str, prefix: &str, after: &str, limit: u32) -> Result<Vec<Object>, Refusal> {
        let query = sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM object WHERE bucket = ? AND key > ? AND key >= ? AND substr(key, 1, length(?)) = ? AND owner = ? ORDER BY key LIMIT ?"
        ));
        let rows = sqlx::query(query)
            .bind(bucket)
            .bind(after)
            .bind(prefix)
            .bind(prefix)
            .bind(prefix)
            .bind(owner)
            .bind(i64::from(limit))
            .fetch_all(self.store.reader())
            .await?;
        rows.iter().map(object_of).collect()
    }
}

fn object_of(row: &SqliteRow) -> Result<Object, Refusal> {
    let (bucket, key): (String, String) = (row.try_get("bucket")?, row.try_get("key")?);
    let (digest, metadata, verdict): (String, String, String) = (row.try_get("digest")?, row.try_get("metadata")?, row.try_get("verdict")?);
    Ok(Object {
        at: ObjectRef::new(bucket, key).map_err(|_| damaged("key"))?,
        version: row.try_get("version")?,
        size: uint(row.try_get("size")?),
        digest: digest.parse().map_err(|_| damaged("digest"))?,
        etag: row.try_get("etag")?,
        content_type: row.try_get("content_type")?,
        metadata: serde_json::from_str(&metadata).map_err(|_| damaged("metadata"))?,
        owner: row.try_get("owner")?,
        verdict: match verdict.as_str() {
            "clean" => Verdict::Clean,
            "rejected" => Verdict::Rejected,
            _ => Verdict::Untyped,
        },
        media_type: row.try_get("media_type")?,
        created_ms: uint(row.try_get("created_ms")?),
        segments: Vec::new(),
    })
}

fn verdict_text(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Untyped => "untyped",
        Verdict::Clean => "clean",
        Verdict::Rejected => "rejected",
    }
}
