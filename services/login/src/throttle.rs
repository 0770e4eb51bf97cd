//! Growing delays: what a guesser meets, for each account and for each source.
//!
//! An attempt is counted before the password is looked at, so that a thousand at the same time are a thousand. Five are free for an
//! account and thirty for a source; then each failure doubles the wait, up to five minutes for an account, and to one for a source, which
//! many people may share. Names that nobody has are counted
//! like any other. A success clears the account; a day without failures clears everything.
//!
//! Guarantees: B12 lock-out, without telling who has an account.

use sqlx::Row;
use state::{Store, int, sqlx, uint};

use crate::provider::LoginError;

const FORGOTTEN_AFTER_S: u64 = 24 * 3600;

/// What is counted.
#[derive(Debug, Clone)]
pub(crate) struct Counted {
    /// Keyed digest of the account's or the source's name.
    pub(crate) key: String,
    free: u64,
    wait_s_max: u64,
}

impl Counted {
    /// An account.
    pub(crate) fn account(key: String) -> Self {
        Self { key: format!("a{key}"), free: 5, wait_s_max: 300 }
    }
    /// Where attempts come from.
    pub(crate) fn source(key: String) -> Self {
        Self { key: format!("s{key}"), free: 30, wait_s_max: 60 }
    }

    /// How long to wait after that many failures, in seconds.
    fn wait_s(&self, failures: u64) -> u64 {
        match failures.checked_sub(self.free) {
            None | Some(0) => 0,
            Some(beyond) => {
                1_u64.checked_shl(u32::try_from(beyond).unwrap_or(u32::MAX)).map_or(self.wait_s_max, |s| s.clamp(1, self.wait_s_max))
            }
        }
    }
}

/// Counts an attempt as failed until `succeeded` says otherwise; whether it may go on.
pub(crate) async fn attempt(store: &Store, counted: &[Counted], now_s: u64) -> Result<bool, LoginError> {
    let mut txn = store.write().await?;
    sqlx::query("DELETE FROM throttle WHERE last_s < ?").bind(int(now_s.saturating_sub(FORGOTTEN_AFTER_S))).execute(&mut *txn).await?;
    for one in counted {
        let row = sqlx::query("SELECT until_s FROM throttle WHERE key = ?").bind(&one.key).fetch_optional(&mut *txn).await?;
        if let Some(row) = row
            && uint(row.try_get(0)?) > now_s
        {
            return Ok(false);
        }
    }
    for one in counted {
        let sql = "INSERT INTO throttle (key, failures, last_s, until_s) VALUES (?, 1, ?, 0)
            ON CONFLICT (key) DO UPDATE SET failures = failures + 1, last_s = excluded.last_s RETURNING failures";
        let failures = uint(sqlx::query(sql).bind(&one.key).bind(int(now_s)).fetch_one(&mut *txn).await?.try_get(0)?);
        let until_s = now_s.saturating_add(one.wait_s(failures));
        sqlx::query("UPDATE throttle SET until_s = ? WHERE key = ?").bind(int(until_s)).bind(&one.key).execute(&mut *txn).await?;
    }
    txn.commit().await?;
    Ok(true)
}

/// Takes the attempt back: the account is cleared, the source is one failure better.
pub(crate) async fn succeeded(store: &Store, account: &Counted, source: &Counted) -> Result<(), LoginError> {
    let mut txn = store.write().await?;
    sqlx::query("DELETE FROM throttle WHERE key = ?").bind(&account.key).execute(&mut *txn).await?;
    sqlx::query("UPDATE throttle SET failures = max(failures - 1, 0), until_s = 0 WHERE key = ?")
        .bind(&source.key)
        .execute(&mut *txn)
        .await?;
    txn.commit().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    // B12: the delays grow, and end.
    #[test]
    fn waits_double_up_to_their_limit() {
        let account = Counted::account(String::new());
        let waits: Vec<u64> = [0, 5, 6, 7, 8, 13, 14, 15, 70, u64::MAX].iter().map(|n| account.wait_s(*n)).collect();
        assert_eq!(waits, [0, 0, 2, 4, 8, 256, 300, 300, 300, 300]);
        assert_eq!(Counted::source(String::new()).wait_s(30), 0);
        assert_eq!(Counted::source(String::new()).wait_s(60), 60);
    }
}
