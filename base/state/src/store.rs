//! The store: a database file, its one writer and its readers.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Sqlite, SqlitePool, Transaction};

use crate::migration::{self, Migration};

/// A write transaction. Dropped without `commit`, nothing of it happened.
pub type WriteTxn = Transaction<'static, Sqlite>;

const READERS_MAX: u32 = 4;
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(30);
/// Memory that a writer's pages take at most, in KiB (SQLite's default).
const CACHE_KIB: u32 = 2_000;
const COPIES_CACHE_KIB: u32 = 16 * 1024;
const SQLITE_NOTADB: &str = "26";
const SQLITE_CORRUPT: &str = "11";

/// Why a database could not be opened or used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file could not be made or opened.
    #[error("cannot open the database file {path}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is not a SQLite database, or is damaged.
    #[error("{path} is not a SQLite database or is damaged; move it away and restore a backup")]
    NotADatabase {
        /// Which file.
        path: PathBuf,
    },
    /// The key file does not hold a key.
    #[error("{path} is not a key of 32 bytes; restore it from a backup")]
    KeyDamaged {
        /// Which file.
        path: PathBuf,
    },
    /// A later release wrote this file.
    #[error(
        "the database has schema version {found}, this release knows versions up to {known}; use the release that wrote it, or a later one"
    )]
    SchemaNewer {
        /// Version in the file.
        found: i64,
        /// Last version known.
        known: usize,
    },
    /// A migration that was applied is not the one that this release knows under its number.
    #[error("schema version {version} of the database is not this program's; the file belongs to another service or was edited")]
    SchemaForeign {
        /// Which version differs.
        version: i64,
    },
    /// The list of migrations has a gap: a defect of the program.
    #[error("migration {version} is out of order")]
    Numbering {
        /// Which.
        version: u32,
    },
    /// A statement failed.
    #[error("a statement failed")]
    Sql(#[from] sqlx::Error),
}

impl From<StateError> for trust::Fault {
    fn from(error: StateError) -> Self {
        Self::internal(error)
    }
}

/// A service's database.
#[derive(Debug, Clone)]
pub struct Store {
    // INVARIANT: holds one connection at most, so that writes queue here and never meet each other in SQLite.
    writer: SqlitePool,
    readers: SqlitePool,
}

impl Store {
    /// Opens `path` (made with mode 0600 if absent) and brings its schema up to date, in one transaction. What is committed is on the disk.
    ///
    /// # Errors
    /// `File`, `NotADatabase`, `SchemaNewer`, `SchemaForeign`, `Numbering`, or `Sql` when a migration fails; the file is then unchanged.
    pub async fn open(path: &Path, migrations: &[Migration]) -> Result<Self, StateError> {
        Self::opened(path, migrations, SqliteSynchronous::Full, CACHE_KIB).await
    }

    /// Opens a database of copies, which can be made again: a commit does not wait for the disk, so that a power cut may lose the last of
    /// them and never leaves it damaged ("PRAGMA synchronous", NORMAL), and more of it is held in memory, because copies are written in no order.
    ///
    /// # Errors
    /// Those of `open`.
    pub async fn open_copies(path: &Path, migrations: &[Migration]) -> Result<Self, StateError> {
        Self::opened(path, migrations, SqliteSynchronous::Normal, COPIES_CACHE_KIB).await
    }

    async fn opened(path: &Path, migrations: &[Migration], synchronous: SqliteSynchronous, cache_kib: u32) -> Result<Self, StateError> {
        create_private(path).map_err(|source| StateError::File { path: path.to_owned(), source })?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(false)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(synchronous)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT)
            .disable_statement_logging();
        let named = |error: sqlx::Error| if is_damage(&error) { StateError::NotADatabase { path: path.to_owned() } } else { error.into() };
        let lasting =
            || SqlitePoolOptions::new().acquire_timeout(ACQUIRE_TIMEOUT).idle_timeout(None).max_lifetime(None).test_before_acquire(false);
        let writing = options.clone().pragma("cache_size", format!("-{cache_kib}"));
        let writer = lasting().max_connections(1).min_connections(1).connect_with(writing).await.map_err(named)?;
        let readers = lasting().max_connections(READERS_MAX).min_connections(1).connect_lazy_with(options.pragma("query_only", "ON"));
        let store = Self { writer, readers };
        let mut txn = store.write().await?;
        migration::apply(&mut txn, migrations).await?;
        txn.commit().await?;
        Ok(store)
    }

    /// Begins a write transaction; waits for its turn.
    ///
    /// # Errors
    /// `Sql` when the writer is not free within 30 seconds.
    pub async fn write(&self) -> Result<WriteTxn, StateError> {
        Ok(self.writer.begin_with("BEGIN IMMEDIATE").await?)
    }

    /// For reading; each statement sees the last commit before it. Writing through it fails.
    #[must_use]
    pub fn reader(&self) -> &SqlitePool {
        &self.readers
    }

    /// Waits for running statements, then closes the file.
    pub async fn close(self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// A count or a time as SQLite keeps it (64 bits, signed); what does not fit becomes the largest that does.
#[must_use]
pub fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A count or a time as it was kept; a negative one, which `int` never writes, becomes zero.
#[must_use]
pub fn uint(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn is_damage(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|e| e.code());
    code.is_some_and(|code| code == SQLITE_NOTADB || code == SQLITE_CORRUPT)
}

fn create_private(path: &Path) -> io::Result<()> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match made {
        Ok(file) => {
            file.sync_all()?;
            match path.parent().filter(|p| !p.as_os_str().is_empty()) {
                Some(folder) => File::open(folder)?.sync_all(),
                None => File::open(".")?.sync_all(),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && fs::metadata(path)?.is_file() => Ok(()),
        Err(error) => Err(error),
    }
}
