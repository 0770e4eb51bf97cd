//! Migrations: numbered steps of a schema, each applied once, in order, and never changed afterwards.

use sqlx::{Row, Sqlite, Transaction};
use trust::Digest;

use crate::store::StateError;

/// One step of a schema.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    /// From 1, without gaps.
    pub version: u32,
    /// What it does, for people.
    pub name: &'static str,
    /// One or more statements. Once released they never change: their digest is kept and compared at every start.
    pub sql: &'static str,
}

const LEDGER: &str = "CREATE TABLE IF NOT EXISTS schema_migration (
    version INTEGER PRIMARY KEY, name TEXT NOT NULL, digest TEXT NOT NULL) STRICT";

/// Brings the schema up to the last of `steps`, inside `txn`.
pub(crate) async fn apply(txn: &mut Transaction<'_, Sqlite>, steps: &[Migration]) -> Result<(), StateError> {
    sqlx::raw_sql(LEDGER).execute(&mut **txn).await?;
    let rows = sqlx::query("SELECT version, digest FROM schema_migration ORDER BY version").fetch_all(&mut **txn).await?;
    for (at, row) in rows.iter().enumerate() {
        let (version, digest): (i64, String) = (row.try_get(0)?, row.try_get(1)?);
        let step = steps.get(at).ok_or(StateError::SchemaNewer { found: version, known: steps.len() })?;
        if i64::from(step.version) != version || Digest::of(step.sql.as_bytes()).to_string() != digest {
            return Err(StateError::SchemaForeign { version });
        }
    }
    for (at, step) in steps.iter().enumerate() {
        if usize::try_from(step.version).ok() != at.checked_add(1) {
            return Err(StateError::Numbering { version: step.version });
        }
        if at < rows.len() {
            continue;
        }
        sqlx::raw_sql(step.sql).execute(&mut **txn).await?;
        sqlx::query("INSERT INTO schema_migration (version, name, digest) VALUES (?, ?, ?)")
            .bind(i64::from(step.version))
            .bind(step.name)
            .bind(Digest::of(step.sql.as_bytes()).to_string())
            .execute(&mut **txn)
            .await?;
    }
    Ok(())
}
