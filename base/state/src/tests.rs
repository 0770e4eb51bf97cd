//! The store's promises, with real files.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt;

use sqlx::Row;

use crate::{Migration, StateError, Store, int, open_key, uint};

const ONE: Migration =
    Migration { version: 1, name: "notes", sql: "CREATE TABLE note (id INTEGER PRIMARY KEY, body TEXT NOT NULL) STRICT" };
const TWO: Migration = Migration {
    version: 2,
    name: "authors",
    sql: "CREATE TABLE author (id INTEGER PRIMARY KEY) STRICT; ALTER TABLE note ADD COLUMN author INTEGER REFERENCES author (id)",
};

async fn insert(store: &Store, body: &str) {
    let mut txn = store.write().await.unwrap();
    sqlx::query("INSERT INTO note (body) VALUES (?)").bind(body.to_owned()).execute(&mut *txn).await.unwrap();
    txn.commit().await.unwrap();
}

async fn count(store: &Store) -> i64 {
    sqlx::query("SELECT count(*) FROM note").fetch_one(store.reader()).await.unwrap().get(0)
}

#[tokio::test]
async fn what_was_committed_is_there_after_a_reopen_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    let store = Store::open(&path, &[ONE]).await.unwrap();
    insert(&store, "kept").await;
    let mut dropped = store.write().await.unwrap();
    sqlx::query("INSERT INTO note (body) VALUES ('lost')").execute(&mut *dropped).await.unwrap();
    drop(dropped);
    insert(&store, "kept too").await;
    // Not closed: as after a kill, only the files remain.
    let again = Store::open(&path, &[ONE, TWO]).await.unwrap();
    assert_eq!(count(&again).await, 2);
    let bad = sqlx::query("INSERT INTO note (body, author) VALUES ('x', 7)").execute(&mut *again.write().await.unwrap()).await;
    assert!(bad.is_err(), "foreign keys are on");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn settings_that_durability_rests_on_are_in_force() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("s.db"), &[ONE]).await.unwrap();
    let mut txn = store.write().await.unwrap();
    for (pragma, expect) in [("PRAGMA synchronous", "2"), ("PRAGMA journal_mode", "wal"), ("PRAGMA foreign_keys", "1")] {
        let row = sqlx::query(pragma).fetch_one(&mut *txn).await.unwrap();
        let value = row.try_get::<i64, _>(0).map(|n| n.to_string()).or_else(|_| row.try_get::<String, _>(0)).unwrap();
        assert_eq!(value, expect, "{pragma}");
    }
    let through_reader = sqlx::query("INSERT INTO note (body) VALUES ('x')").execute(store.reader()).await;
    assert!(through_reader.is_err(), "readers cannot write");
}

#[tokio::test]
async fn writers_queue_and_none_fails_as_busy() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("s.db"), &[ONE]).await.unwrap();
    let tasks: Vec<_> = (0..16)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move { insert(&store, &format!("note {n}")).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(count(&store).await, 16);
}

#[tokio::test]
async fn files_that_are_not_this_schema_are_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let garbage = folder.path().join("garbage.db");
    fs::write(
        &garbage,
        "certainly not a database, but long enough to have a header of 100 bytes, which SQLite reads first of all, I think",
    )
    .unwrap();
    assert!(matches!(Store::open(&garbage, &[ONE]).await, Err(StateError::NotADatabase { .. })));
    assert!(matches!(Store::open(folder.path(), &[ONE]).await, Err(StateError::File { .. })));

    let path = folder.path().join("s.db");
    Store::open(&path, &[ONE, TWO]).await.unwrap().close().await;
    assert!(matches!(Store::open(&path, &[ONE]).await, Err(StateError::SchemaNewer { found: 2, known: 1 })));
    let changed = Migration { sql: "CREATE TABLE note (id INTEGER PRIMARY KEY) STRICT", ..ONE };
    assert!(matches!(Store::open(&path, &[changed, TWO]).await, Err(StateError::SchemaForeign { version: 1 })));
    assert!(matches!(
        Store::open(&folder.path().join("g.db"), &[ONE, Migration { version: 3, ..TWO }]).await,
        Err(StateError::Numbering { version: 3 })
    ));
}

#[tokio::test]
async fn a_failed_migration_leaves_the_file_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    Store::open(&path, &[ONE]).await.unwrap().close().await;
    let broken = Migration { sql: "CREATE TABLE author (id INTEGER PRIMARY KEY) STRICT; CREATE TABLE nonsense", ..TWO };
    assert!(matches!(Store::open(&path, &[ONE, broken]).await, Err(StateError::Sql(_))));
    let store = Store::open(&path, &[ONE, TWO]).await.unwrap();
    insert(&store, "fine").await;
    assert_eq!(count(&store).await, 1);
}

#[test]
fn numbers_survive_the_trip_or_saturate() {
    for n in [0, 1, 1_760_000_000_000] {
        assert_eq!(uint(int(n)), n);
    }
    assert_eq!((int(u64::MAX), uint(-1)), (i64::MAX, 0));
}

#[test]
fn a_key_is_made_once_and_a_damaged_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("k.key");
    let first = open_key(&path, &trust::SystemEntropy).unwrap().expose().clone();
    assert_eq!(&first, open_key(&path, &trust::SystemEntropy).unwrap().expose());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    fs::write(&path, &first[..31]).unwrap();
    assert!(matches!(open_key(&path, &trust::SystemEntropy), Err(StateError::KeyDamaged { .. })));
}
