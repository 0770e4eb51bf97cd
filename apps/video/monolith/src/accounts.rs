//! People, their sessions, invitations, and the list of work that is not done: one SQLite file.
//!
//! Guarantees: a session's cookie and an invitation are kept as digests; an invitation works once; guessing at one name is slowed down.
//! Not here:   second factors, recovery.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use sha2::{Digest, Sha256};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Row, SqlitePool};
use time::OffsetDateTime;
use tokio::sync::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use crate::passwords::{CHARS_MAX, CHARS_MIN, HashFault, Passwords, random_hex};

/// How long a session lives, in seconds.
const SESSION_S: i64 = 12 * 3600;
/// How long an invitation lives, in seconds.
const INVITATION_S: i64 = 24 * 3600;
/// Wrong guesses at one name before each costs a pause.
const GUESSES_FREE: u32 = 5;
/// Names whose wrong guesses are counted.
const NAMES_MAX: usize = 10_000;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS person (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE COLLATE NOCASE, password TEXT NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS session (digest TEXT PRIMARY KEY, person TEXT NOT NULL REFERENCES person (id), ends INTEGER NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS invitation (digest TEXT PRIMARY KEY, ends INTEGER NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS work (video TEXT PRIMARY KEY, owner TEXT NOT NULL, tries INTEGER NOT NULL DEFAULT 0) STRICT;
";

/// Why something of people could not be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AccountFault {
    /// The database said no.
    #[error("people: {0}")]
    Database(#[from] sqlx::Error),
    /// Argon2 said no.
    #[error(transparent)]
    Hash(#[from] HashFault),
}

/// Why nobody was enrolled or signed in, in words for the one who tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Objection(pub(crate) &'static str);

/// A person.
#[derive(Clone, Debug)]
pub(crate) struct Person {
    pub(crate) id: String,
    pub(crate) name: String,
}

/// Work on a video that is not done.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) video: Uuid,
    pub(crate) owner: String,
}

/// The file, and what is remembered of guesses.
pub(crate) struct Accounts {
    pool: SqlitePool,
    passwords: Passwords,
    guesses: Mutex<HashMap<String, (u32, Instant)>>,
}

impl Accounts {
    pub(crate) async fn open(folder: &Path) -> Result<Self, AccountFault> {
        let options = SqliteConnectOptions::new()
            .filename(folder.join("people.db"))
            .create_if_missing(true)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            .busy_timeout(Duration::from_secs(5))
            .synchronous(SqliteSynchronous::Full);
        let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await?;
        sqlx::raw_sql(SCHEMA).execute(&pool).await?;
        Ok(Self { pool, passwords: Passwords::new()?, guesses: Mutex::new(HashMap::new()) })
    }

    pub(crate) async fn has_people(&self) -> Result<bool, AccountFault> {
        Ok(sqlx::query("SELECT 1 FROM person LIMIT 1").fetch_optional(&self.pool).await?.is_some())
    }

    /// A new invitation: the path of its page.
    pub(crate) async fn invite(&self) -> Result<String, AccountFault> {
        let code = random_hex();
        sqlx::query("INSERT INTO invitation (digest, ends) VALUES (?, ?)")
            .bind(digest(&code))
            .bind(now_s() + INVITATION_S)
            .execute(&self.pool)
            .await?;
        Ok(format!("/enrol/{code}"))
    }

    pub(crate) async fn is_invited(&self, code: &str) -> Result<bool, AccountFault> {
        let found = sqlx::query("SELECT 1 FROM invitation WHERE digest = ? AND ends > ?").bind(digest(code)).bind(now_s());
        Ok(found.fetch_optional(&self.pool).await?.is_some())
    }

    /// Makes a person of an invitation, once.
    pub(crate) async fn enrol(&self, code: &str, name: &str, password: String) -> Result<Result<(), Objection>, AccountFault> {
        let name = name.trim();
        if name.is_empty() || name.chars().count() > 60 || name.chars().any(char::is_control) {
            return Ok(Err(Objection("Choose a name of 1 to 60 characters.")));
        }
        if !(CHARS_MIN..=CHARS_MAX).contains(&password.chars().count()) {
            return Ok(Err(Objection("Choose a password of 10 to 128 characters.")));
        }
        let hash = self.passwords.hash(password).await?;
        let mut work = self.pool.begin().await?;
        let taken = sqlx::query("DELETE FROM invitation WHERE digest = ? AND ends > ?").bind(digest(code)).bind(now_s());
        if taken.execute(&mut *work).await?.rows_affected() == 0 {
            return Ok(Err(Objection("This link was used or has ended. Ask for a new one.")));
        }
        let added = sqlx::query("INSERT INTO person (id, name, password) VALUES (?, ?, ?) ON CONFLICT DO NOTHING")
            .bind(Uuid::now_v7().to_string())
            .bind(name)
            .bind(hash)
            .execute(&mut *work)
            .await?;
        if added.rows_affected() == 0 {
            return Ok(Err(Objection("Somebody has this name. Choose another.")));
        }
        work.commit().await?;
        Ok(Ok(()))
    }

    /// A new session for who knows the password: the cookie's value.
    pub(crate) async fn sign_in(&self, name: &str, password: String) -> Result<Result<String, Objection>, AccountFault> {
        let name = name.trim().to_lowercase();
        if password.chars().count() > CHARS_MAX || self.must_wait(&name).await {
            return Ok(Err(Objection("Name or password are wrong, or there were too many tries; wait a little.")));
        }
        let row = sqlx::query("SELECT id, password FROM person WHERE name = ?").bind(&name).fetch_optional(&self.pool).await?;
        let kept = row.as_ref().map(|row| row.try_get("password")).transpose()?;
        if !self.passwords.fits(password, kept).await {
            self.count(name).await;
            return Ok(Err(Objection("Name or password are wrong.")));
        }
        self.guesses.lock().await.remove(&name);
        let person: String = row.as_ref().map(|row| row.try_get("id")).transpose()?.unwrap_or_default();
        let cookie = random_hex();
        sqlx::query("DELETE FROM session WHERE ends <= ?").bind(now_s()).execute(&self.pool).await?;
        sqlx::query("INSERT INTO session (digest, person, ends) VALUES (?, ?, ?)")
            .bind(digest(&cookie))
            .bind(person)
            .bind(now_s() + SESSION_S)
            .execute(&self.pool)
            .await?;
        Ok(Ok(cookie))
    }

    /// Whose session this is.
    pub(crate) async fn person(&self, cookie: &str) -> Result<Option<Person>, AccountFault> {
        let query = "SELECT person.id, person.name FROM session JOIN person ON person.id = session.person WHERE digest = ? AND ends > ?";
        let row = sqlx::query(query).bind(digest(cookie)).bind(now_s()).fetch_optional(&self.pool).await?;
        Ok(row.map(|row| Ok::<_, sqlx::Error>(Person { id: row.try_get("id")?, name: row.try_get("name")? })).transpose()?)
    }

    pub(crate) async fn sign_out(&self, cookie: &str) -> Result<(), AccountFault> {
        sqlx::query("DELETE FROM session WHERE digest = ?").bind(digest(cookie)).execute(&self.pool).await?;
        Ok(())
    }

    async fn must_wait(&self, name: &str) -> bool {
        let guesses = self.guesses.lock().await;
        guesses.get(name).is_some_and(|(wrong, last)| {
            let over = wrong.saturating_sub(GUESSES_FREE);
            over > 0 && last.elapsed() < Duration::from_secs(1 << over.min(8))
        })
    }

    async fn count(&self, name: String) {
        let mut guesses = self.guesses.lock().await;
        if guesses.len() >= NAMES_MAX {
            guesses.retain(|_, (_, last)| last.elapsed() < Duration::from_secs(256));
        }
        if guesses.len() < NAMES_MAX || guesses.contains_key(&name) {
            let entry = guesses.entry(name).or_insert((0, Instant::now()));
            *entry = (entry.0.saturating_add(1), Instant::now());
        }
    }

    /// Notes work on a video before it begins.
    pub(crate) async fn note(&self, job: &Job) -> Result<(), AccountFault> {
        let noted = sqlx::query("INSERT INTO work (video, owner) VALUES (?, ?) ON CONFLICT DO NOTHING");
        noted.bind(job.video.to_string()).bind(&job.owner).execute(&self.pool).await?;
        Ok(())
    }

    /// Counts one more try and gives how many there were.
    pub(crate) async fn tried(&self, job: &Job) -> Result<i64, AccountFault> {
        let row = sqlx::query("UPDATE work SET tries = tries + 1 WHERE video = ? RETURNING tries").bind(job.video.to_string());
        Ok(row.fetch_optional(&self.pool).await?.map(|row| row.try_get("tries")).transpose()?.unwrap_or_default())
    }

    pub(crate) async fn done(&self, job: &Job) -> Result<(), AccountFault> {
        sqlx::query("DELETE FROM work WHERE video = ?").bind(job.video.to_string()).execute(&self.pool).await?;
        Ok(())
    }

    /// All work that is not done.
    pub(crate) async fn undone(&self) -> Result<Vec<Job>, AccountFault> {
        let rows = sqlx::query("SELECT video, owner FROM work ORDER BY video").fetch_all(&self.pool).await?;
        let mut jobs = Vec::new();
        for row in rows {
            let video: String = row.try_get("video")?;
            if let Ok(video) = Uuid::parse_str(&video) {
                jobs.push(Job { video, owner: row.try_get("owner")? });
            }
        }
        Ok(jobs)
    }
}

fn digest(secret: &str) -> String {
    hex::encode(Sha256::digest(secret.as_bytes()))
}

fn now_s() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp()
}

#[cfg(test)]
mod tests {
    //! Tests of people.
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    async fn enrolled(accounts: &Accounts, name: &str) -> String {
        let code = accounts.invite().await.unwrap().trim_start_matches("/enrol/").to_owned();
        accounts.enrol(&code, name, "long walks over quiet hills".into()).await.unwrap().unwrap();
        code
    }

    // N8: no straw man.
    #[tokio::test]
    async fn an_invitation_works_once_and_a_session_until_it_is_signed_out() {
        let folder = tempfile::tempdir().unwrap();
        let accounts = Accounts::open(folder.path()).await.unwrap();
        let code = enrolled(&accounts, "ada").await;
        assert!(accounts.enrol(&code, "eve", "another long password".into()).await.unwrap().is_err());
        let cookie = accounts.sign_in("Ada", "long walks over quiet hills".into()).await.unwrap().unwrap();
        assert_eq!(accounts.person(&cookie).await.unwrap().unwrap().name, "ada");
        assert!(accounts.person("0123").await.unwrap().is_none());
        accounts.sign_out(&cookie).await.unwrap();
        assert!(accounts.person(&cookie).await.unwrap().is_none());
        let kept = std::fs::read(folder.path().join("people.db")).unwrap();
        assert!(!kept.windows(cookie.len()).any(|window| window == cookie.as_bytes()), "a cookie is kept as it is");
    }

    #[tokio::test]
    async fn guessing_at_one_name_is_slowed_down_and_at_another_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let accounts = Accounts::open(folder.path()).await.unwrap();
        enrolled(&accounts, "ada").await;
        enrolled(&accounts, "bob").await;
        for _ in 0..6 {
            assert!(accounts.sign_in("ada", "wrong wrong wrong".into()).await.unwrap().is_err());
        }
        assert!(accounts.must_wait("ada").await);
        assert!(!accounts.must_wait("bob").await);
        assert!(accounts.sign_in("bob", "long walks over quiet hills".into()).await.unwrap().is_ok());
    }
}
