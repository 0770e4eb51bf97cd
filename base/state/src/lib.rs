//! Durable state: one SQLite file for each service, with migrations, one writer and a few readers.
//!
//! A commit is on the disk when it returns (`synchronous=FULL`, WAL), so what a room acknowledges afterwards survives `kill -9` and
//! power loss. All writes go through one connection with `BEGIN IMMEDIATE`: they queue, and never fail half-way as busy.
//!
//! Spec:       SQLite, "Write-Ahead Logging" and "PRAGMA synchronous".
//! Guarantees: the storage half of H1, G10: nothing acknowledged is lost.
//! Not here:   any table of any service; PostgreSQL, which becomes a second dialect behind `Store` when one machine is not enough.

mod key;
mod migration;
mod store;

pub use key::{KEY_BYTES, open_key};
pub use migration::Migration;
pub use store::{StateError, Store, WriteTxn, int, uint};

/// The SQL library, so that a service needs no version of its own.
pub use sqlx;

#[cfg(test)]
mod tests;
