//! Grants' rows: what a presigned URL stands for.

use state::sqlx::{self, Row};
use state::{WriteTxn, int, uint};
use trust::{Authority, DenyReason, ObjectRef, Secret, SpiffeId, TraceContext};

use super::{Ledger, damaged};
use crate::refusal::Refusal;

/// What a presigned URL allows, and who asked for it.
#[derive(Debug, Clone)]
pub(crate) struct Grant {
    pub(crate) id: String,
    pub(crate) method: String,
    pub(crate) at: ObjectRef,
    pub(crate) content_length: Option<u64>,
    pub(crate) content_type: Option<String>,
    pub(crate) principal: SpiffeId,
    pub(crate) authority: Option<Authority>,
    pub(crate) trace: TraceContext,
    pub(crate) created_s: u64,
    pub(crate) expires_s: u64,
    pub(crate) used: bool,
    /// Upload and number of the one part that it is for.
    pub(crate) part: Option<(String, u32)>,
}

impl Grant {
    /// The secret that signs for exactly this grant.
    pub(crate) fn secret(&self, ledger: &Ledger) -> Result<Secret<String>, Refusal> {
        let authority = serde_json::to_string(&self.authority).map_err(|_| damaged("authority"))?;
        let length = self.content_length.map(|n| n.to_string()).unwrap_or_default();
        let (principal, trace) = (self.principal.to_string(), self.trace.to_string());
        let part = self.part.as_ref().map(|(upload, number)| format!("{number} of {upload}")).unwrap_or_default();
        Ok(ledger.sealer.secret(
            "grant",
            &[
                self.id.as_bytes(),
                self.method.as_bytes(),
                self.at.bucket.as_bytes(),
                self.at.key.as_bytes(),
                length.as_bytes(),
                self.content_type.as_deref().unwrap_or_default().as_bytes(),
                principal.as_bytes(),
                authority.as_bytes(),
                trace.as_bytes(),
                &self.created_s.to_be_bytes(),
                &self.expires_s.to_be_bytes(),
                part.as_bytes(),
            ],
        ))
    }
}

impl Ledger {
    /// Keeps grants: all, or none.
    pub(crate) async fn keep_grants(&self, grants: &[Grant]) -> Result<(), Refusal> {
        let mut txn = self.store.write().await?;
        for grant in grants {
            let authority = grant.authority.as_ref().map(serde_json::to_string).transpose().map_err(|_| damaged("authority"))?;
            sqlx::query(
                "INSERT INTO grant_issued (id, method, bucket, key, content_length, content_type, principal, authority, trace, created_s, expires_s, upload, part)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )
            .bind(&grant.id)
            .bind(&grant.method)
            .bind(&grant.at.bucket)
            .bind(&grant.at.key)
            .bind(grant.content_length.map(int))
            .bind(&grant.content_type)
            .bind(grant.principal.to_string())
            .bind(authority)
            .bind(grant.trace.to_string())
            .bind(int(grant.created_s))
            .bind(int(grant.expires_s))
            .bind(grant.part.as_ref().map(|(upload, _)| upload))
            .bind(grant.part.as_ref().map(|(_, number)| *number))
            .execute(&mut *txn)
            .await?;
        }
        txn.commit().await?;
        Ok(())
    }

    /// Uses a grant up. `GrantInvalid` when it was used before.
    pub(super) async fn use_grant(txn: &mut WriteTxn, id: &str, now_ms: u64) -> Result<(), Refusal> {
        let used = sqlx::query("UPDATE grant_issued SET used_ms = ? WHERE id = ? AND used_ms IS NULL").bind(int(now_ms)).bind(id);
        if used.execute(&mut **txn).await?.rows_affected() == 1 { Ok(()) } else { Err(Refusal::Denied(DenyReason::GrantInvalid)) }
    }

    /// A grant, or nothing; also nothing when its row cannot be read.
    pub(crate) async fn grant(&self, id: &str) -> Result<Option<Grant>, Refusal> {
        let row = sqlx::query("SELECT * FROM grant_issued WHERE id = ?").bind(id).fetch_optional(self.store.reader()).await?;
        let Some(row) = row else { return Ok(None) };
        let (bucket, key, principal, trace): (String, String, String, String) =
            (row.try_get("bucket")?, row.try_get("key")?, row.try_get("principal")?, row.try_get("trace")?);
        let authority: Option<String> = row.try_get("authority")?;
        Ok(Some(Grant {
            id: row.try_get("id")?,
            method: row.try_get("method")?,
            at: ObjectRef::new(bucket, key).map_err(|_| damaged("key"))?,
            content_length: row.try_get::<Option<i64>, _>("content_length")?.map(uint),
            content_type: row.try_get("content_type")?,
            principal: principal.parse().map_err(|_| damaged("principal"))?,
            authority: authority.as_deref().map(serde_json::from_str).transpose().map_err(|_| damaged("authority"))?,
            trace: TraceContext::parse(&trace).ok_or_else(|| damaged("trace"))?,
            created_s: uint(row.try_get("created_s")?),
            expires_s: uint(row.try_get("expires_s")?),
            used: row.try_get::<Option<i64>, _>("used_ms")?.is_some(),
            part: row.try_get::<Option<String>, _>("upload")?.zip(row.try_get("part")?),
        }))
    }

    /// Forgets grants made before `before_s`.
    pub(crate) async fn prune_grants(&self, before_s: u64) -> Result<(), Refusal> {
        let mut txn = self.store.write().await?;
        sqlx::query("DELETE FROM grant_issued WHERE created_s < ?").bind(int(before_s)).execute(&mut *txn).await?;
        txn.commit().await?;
        Ok(())
    }
}
