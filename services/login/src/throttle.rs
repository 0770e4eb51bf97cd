//! Growing delays: what a guesser meets, and nobody else.
//!
//! An attempt is counted before the password is looked at, so that a thousand at the same time are a thousand. What is counted:
//!
//! | what | free | longest wait | for whom |
//! |---|---|---|---|
//! | an account from one network (/24, /48) | 5 | 5 min | browsers that are not known |
//! | a source, over all accounts | 30 | 1 min (many people may share it) | browsers that are not known |
//! | an account from everywhere | 20 | 5 min | browsers that are not known, from networks that are not known either |
//! | a browser that has signed in to this account (`device`) | 5 | 5 min | that browser alone |
//! | codes of an account's second factor, a known browser's apart | 5 | 1 h | whoever knows the password |
//!
//! So a stranger who keeps guessing at an account, from however many addresses, delays strangers; its owner comes in with the browser or
//! from the network that was used before. Past what is free each failure doubles the wait. Names that nobody has are counted like any
//! other. A success clears what was the person's own, and takes its attempt back elsewhere; a day without failures clears everything.
//!
//! Spec:       OWASP, "Slow Down Online Guessing Attacks with Device Cookies".
//! Guarantees: B12 lock-out, without telling who has an account, and without locking its owner out.

use std::net::IpAddr;

use sqlx::Row;
use state::{Store, int, sqlx, uint};

use crate::provider::LoginError;

const FORGOTTEN_AFTER_S: u64 = 24 * 3600;
/// A network from which an account was signed in to is known for this long.
const KNOWN_FOR_S: u64 = 30 * 24 * 3600;

/// What is counted.
#[derive(Debug, Clone)]
pub(crate) struct Counted {
    /// Keyed digest of the account's or the source's name.
    pub(crate) key: String,
    free: u64,
    wait_s_max: u64,
}

impl Counted {
    /// An account, from one network.
    pub(crate) fn here(key: String) -> Self {
        Self { key: format!("h{key}"), free: 5, wait_s_max: 300 }
    }
    /// An account, from everywhere.
    pub(crate) fn everywhere(key: String) -> Self {
        Self { key: format!("a{key}"), free: 20, wait_s_max: 300 }
    }
    /// A browser that is known for an account.
    pub(crate) fn device(key: String) -> Self {
        Self { key: format!("d{key}"), free: 5, wait_s_max: 300 }
    }
    /// Codes of an account's second factor, from whoever knows its password; from a known browser under a key of its own.
    pub(crate) fn second(key: String) -> Self {
        Self { key: format!("f{key}"), free: 5, wait_s_max: 3600 }
    }
    /// Where attempts come from.
    pub(crate) fn source(key: String) -> Self {
        Self { key: format!("s{key}"), free: 30, wait_s_max: 60 }
    }

    /// Whether it is one person's own, so that their success clears it.
    fn is_own(&self) -> bool {
        self.key.starts_with(['h', 'd', 'f'])
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
    let old = "DELETE FROM throttle WHERE last_s < ?1 AND (key NOT LIKE 'k%' OR last_s < ?2)";
    let (forgotten_s, unknown_s) = (now_s.saturating_sub(FORGOTTEN_AFTER_S), now_s.saturating_sub(KNOWN_FOR_S));
    sqlx::query(old).bind(int(forgotten_s)).bind(int(unknown_s)).execute(&mut *txn).await?;
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

/// Takes the attempt back: the person's own counts are cleared, others are one failure better. The network is known from now on.
pub(crate) async fn succeeded(store: &Store, counted: &[Counted], known: &str, now_s: u64) -> Result<(), LoginError> {
    let mut txn = store.write().await?;
    for one in counted {
        let sql = if one.is_own() {
            "DELETE FROM throttle WHERE key = ?"
        } else {
            "UPDATE throttle SET failures = max(failures - 1, 0), until_s = 0 WHERE key = ?"
        };
        sqlx::query(sql).bind(&one.key).execute(&mut *txn).await?;
    }
    let sql = "INSERT INTO throttle (key, failures, last_s, until_s) VALUES (?, 0, ?, 0)
        ON CONFLICT (key) DO UPDATE SET last_s = excluded.last_s";
    sqlx::query(sql).bind(format!("k{known}")).bind(int(now_s)).execute(&mut *txn).await?;
    txn.commit().await?;
    Ok(())
}

/// Whether the account was signed in to from this network before, not too long ago.
pub(crate) async fn is_known(store: &Store, known: &str, now_s: u64) -> Result<bool, LoginError> {
    let sql = "SELECT 1 FROM throttle WHERE key = ? AND last_s >= ?";
    let query = sqlx::query(sql).bind(format!("k{known}")).bind(int(now_s.saturating_sub(KNOWN_FOR_S)));
    Ok(query.fetch_optional(store.reader()).await?.is_some())
}

/// The network of an address: what one party commonly has (IPv4 /24, IPv6 /48). What is no address is its own.
pub(crate) fn network_of(source: &str) -> String {
    match source.parse::<IpAddr>().map(|address| address.to_canonical()) {
        Ok(IpAddr::V4(address)) => {
            let [a, b, c, _] = address.octets();
            format!("{a}.{b}.{c}.0/24")
        }
        Ok(IpAddr::V6(address)) => {
            let [a, b, c, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}::/48")
        }
        Err(_) => source.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // B12: the delays grow, and end.
    #[test]
    fn waits_double_up_to_their_limit() {
        let account = Counted::here(String::new());
        let waits: Vec<u64> = [0, 5, 6, 7, 8, 13, 14, 15, 70, u64::MAX].iter().map(|n| account.wait_s(*n)).collect();
        assert_eq!(waits, [0, 0, 2, 4, 8, 256, 300, 300, 300, 300]);
        assert_eq!(Counted::source(String::new()).wait_s(30), 0);
        assert_eq!(Counted::source(String::new()).wait_s(60), 60);
        let everywhere = Counted::everywhere(String::new());
        assert_eq!([20, 21, 40].map(|n| everywhere.wait_s(n)), [0, 2, 300]);
        let second = Counted::second(String::new());
        assert_eq!([5, 6, 16, 17].map(|n| second.wait_s(n)), [0, 2, 2048, 3600]);
    }

    #[test]
    fn networks_are_what_one_party_has() {
        for (source, network) in [
            ("198.51.100.7", "198.51.100.0/24"),
            ("::ffff:198.51.100.9", "198.51.100.0/24"),
            ("2001:db8:7:8::1", "2001:db8:7::/48"),
            ("2001:db8:7:ffff::1", "2001:db8:7::/48"),
            ("", ""),
            ("unix", "unix"),
        ] {
            assert_eq!(network_of(source), network);
        }
    }
}
