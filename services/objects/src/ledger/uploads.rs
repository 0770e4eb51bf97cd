//! Multipart uploads' rows.

use std::collections::BTreeMap;

use state::sqlx::sqlite::SqliteRow;
use state::sqlx::{self, Row};
use state::{WriteTxn, int, uint};
use trust::ObjectRef;

use super::objects::{Arrival, Segment};
use super::{Ledger, damaged};
use crate::blob::Blob;
use crate::gate::Visitor;
use crate::refusal::Refusal;

/// An upload in parts.
#[derive(Debug, Clone)]
pub(crate) struct Upload {
    pub(crate) id: String,
    pub(crate) at: ObjectRef,
    pub(crate) principal: String,
    pub(crate) owner: Option<String>,
    pub(crate) job: Option<String>,
    pub(crate) content_type: String,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) created_ms: u64,
    /// Of one that a browser fills by granted parts: the size of the whole.
    pub(crate) size: Option<u64>,
}

/// A part of one.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) number: u32,
    pub(crate) at_ms: u64,
    pub(crate) blob: Blob,
}

impl Upload {
    /// Whether this visitor began it, on this authority.
    pub(crate) fn is_of(&self, visitor: &Visitor) -> bool {
        self.principal == visitor.principal.to_string()
            && self.owner.as_deref() == visitor.user()
            && self.job.as_deref() == visitor.job().map(|job| job.id.as_str())
    }
}

fn upload_of(row: &SqliteRow) -> Result<Upload, Refusal> {
    let (bucket, key, metadata): (String, String, String) = (row.try_get("bucket")?, row.try_get("key")?, row.try_get("metadata")?);
    Ok(Upload {
        id: row.try_get("id")?,
        at: ObjectRef::new(bucket, key).map_err(|_| damaged("key"))?,
        principal: row.try_get("principal")?,
        owner: row.try_get("owner")?,
        job: row.try_get("job")?,
        content_type: row.try_get("content_type")?,
        metadata: serde_json::from_str(&metadata).map_err(|_| damaged("metadata"))?,
        created_ms: uint(row.try_get("created_ms")?),
        size: row.try_get::<Option<i64>, _>("size")?.map(uint),
    })
}

impl Ledger {
    /// Opens an upload, unless its principal has `open_max` open already for the same person.
    pub(crate) async fn open_upload(&self, upload: &Upload, open_max: i64) -> Result<(), Refusal> {
        let mut txn = self.store.write().await?;
        let count =
            sqlx::query("SELECT count(*) FROM upload WHERE principal = ? AND owner IS ?").bind(&upload.principal).bind(&upload.owner);
        let row = count.fetch_one(&mut *txn).await?;
        if row.try_get::<i64, _>(0)? >= open_max {
            return Err(Refusal::Denied(trust::DenyReason::RateExceeded));
        }
        sqlx::query("INSERT INTO upload (id, bucket, key, principal, owner, job, content_type, metadata, created_ms, size) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
            .bind(&upload.id)
            .bind(&upload.at.bucket)
            .bind(&upload.at.key)
            .bind(&upload.principal)
            .bind(&upload.owner)
            .bind(&upload.job)
            .bind(&upload.content_type)
            .bind(serde_json::to_string(&upload.metadata).map_err(|_| damaged("metadata"))?)
            .bind(int(upload.created_ms))
            .bind(upload.size.map(int))
            .execute(&mut *txn)
            .await?;
        txn.commit().await?;
        Ok(())
    }

    /// An upload.
    pub(crate) async fn upload(&self, id: &str) -> Result<Option<Upload>, Refusal> {
        let row = sqlx::query("SELECT * FROM upload WHERE id = ?").bind(id).fetch_optional(self.store.reader()).await?;
        row.as_ref().map(upload_of).transpose()
    }

    /// The uploads that a workload has open in a bucket, in the order of their keys.
    pub(crate) async fn open_uploads(&self, bucket: &str, principal: &str) -> Result<Vec<Upload>, Refusal> {
        let rows = sqlx::query("SELECT * FROM upload WHERE bucket = ? AND principal = ? ORDER BY key, id")
            .bind(bucket)
            .bind(principal)
            .fetch_all(self.store.reader())
            .await?;
        rows.iter().map(upload_of).collect()
    }

    /// The parts of an upload, in order.
    pub(crate) async fn parts(&self, upload: &str) -> Result<Vec<Part>, Refusal> {
        let mut connection = self.store.reader().acquire().await?;
        Self::parts_of(&mut connection, upload).await
    }

    async fn parts_of(connection: &mut sqlx::SqliteConnection, upload: &str) -> Result<Vec<Part>, Refusal> {
        let rows = sqlx::query(
            "SELECT p.number, p.at_ms, b.id, b.size, b.digest, b.chunks FROM part p JOIN blob b ON b.id = p.blob WHERE p.upload = ? ORDER BY p.number",
        )
        .bind(upload)
        .fetch_all(connection)
        .await?;
        rows.iter()
            .map(|row| Ok(Part { number: row.try_get("number")?, at_ms: uint(row.try_get("at_ms")?), blob: Blob::load(row)? }))
            .collect()
    }

    /// Puts a part in, in place of one with its number, unless all parts together would be larger than `limit`. Gives the blob that
    /// nothing names any more.
    pub(crate) async fn put_part(&self, upload: &str, part: &Part, limit: u64) -> Result<Vec<String>, Refusal> {
        let mut txn = self.store.write().await?;
        let gone = Self::place_part(&mut txn, upload, part, limit).await?;
        txn.commit().await?;
        Ok(gone)
    }

    /// Puts a granted part in and uses its grant up; when no part of `count` is missing any more, the object that `whole` makes of them
    /// arrives in the same breath. Gives the blobs that nothing names any more, and whether it arrived.
    pub(crate) async fn put_granted_part(
        &self,
        (upload, size, count): (&str, u64, usize),
        part: &Part,
        grant: &str,
        whole: impl FnOnce(Vec<Blob>) -> Result<Arrival, Refusal>,
    ) -> Result<(Vec<String>, bool), Refusal> {
        let mut txn = self.store.write().await?;
        Self::use_grant(&mut txn, grant, part.at_ms).await?;
        let mut gone = Self::place_part(&mut txn, upload, part, size).await?;
        let stored = Self::parts_of(&mut txn, upload).await?;
        let complete = stored.len() == count;
        if complete {
            let arrival = whole(stored.into_iter().map(|part| part.blob).collect())?;
            gone.extend(self.arrive_in(&mut txn, &arrival, part.at_ms).await?);
        }
        txn.commit().await?;
        Ok((gone, complete))
    }

    async fn place_part(txn: &mut WriteTxn, upload: &str, part: &Part, limit: u64) -> Result<Vec<String>, Refusal> {
        let there = sqlx::query("SELECT 1 FROM upload WHERE id = ?").bind(upload).fetch_optional(&mut **txn).await?;
        there.ok_or(Refusal::NoSuchUpload)?;
        let gone = sqlx::query("DELETE FROM part WHERE upload = ? AND number = ? RETURNING blob").bind(upload).bind(part.number);
        let gone = gone.fetch_optional(&mut **txn).await?.map(|row| row.try_get(0)).transpose()?;
        let gone: Vec<String> = gone.into_iter().collect();
        Self::forget_blobs(txn, &gone).await?;
        let sum = sqlx::query("SELECT coalesce(sum(b.size), 0) FROM part p JOIN blob b ON b.id = p.blob WHERE p.upload = ?").bind(upload);
        let sum = uint(sum.fetch_one(&mut **txn).await?.try_get(0)?);
        if sum.saturating_add(part.blob.size) > limit {
            return Err(Refusal::TooLarge);
        }
        part.blob.insert(txn).await?;
        sqlx::query("INSERT INTO part (upload, number, blob, at_ms) VALUES (?, ?, ?, ?)")
            .bind(upload)
            .bind(part.number)
            .bind(&part.blob.id)
            .bind(int(part.at_ms))
            .execute(&mut **txn)
            .await?;
        Ok(gone)
    }

    /// Drops an upload and its parts; gives their blobs.
    pub(crate) async fn abort_upload(&self, upload: &str) -> Result<Vec<String>, Refusal> {
        let mut txn = self.store.write().await?;
        let gone = Self::close_upload(&mut txn, upload, &[]).await?;
        txn.commit().await?;
        Ok(gone)
    }

    /// Uploads that were opened before `before_ms`.
    pub(crate) async fn stale_uploads(&self, before_ms: u64) -> Result<Vec<String>, Refusal> {
        let rows = sqlx::query("SELECT id FROM upload WHERE created_ms < ? LIMIT 1000")
            .bind(int(before_ms))
            .fetch_all(self.store.reader())
            .await?;
        Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
    }

    /// Ends an upload; the parts that `used` names become the object's, the others' blobs are given.
    pub(super) async fn close_upload(txn: &mut WriteTxn, upload: &str, used: &[Segment]) -> Result<Vec<String>, Refusal> {
        let rows = sqlx::query("SELECT blob FROM part WHERE upload = ?").bind(upload).fetch_all(&mut **txn).await?;
        let all: Vec<String> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        if used.iter().any(|segment| !all.contains(&segment.blob.id)) {
            return Err(Refusal::Conflict("a part was replaced meanwhile".to_owned()));
        }
        let closed = sqlx::query("DELETE FROM upload WHERE id = ?").bind(upload).execute(&mut **txn).await?;
        if closed.rows_affected() != 1 {
            return Err(Refusal::NoSuchUpload);
        }
        let gone: Vec<String> = all.into_iter().filter(|id| !used.iter().any(|segment| segment.blob.id == *id)).collect();
        Self::forget_blobs(txn, &gone).await?;
        Ok(gone)
    }
}
