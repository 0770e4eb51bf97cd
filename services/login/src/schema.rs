//! The tables. Whatever belongs to a person leaves with the person: the references say so, not the code.

use state::Migration;

/// Every step of the schema.
pub(crate) const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        name: "people, sessions, grants",
        sql: "
CREATE TABLE secret (name TEXT PRIMARY KEY, sealed TEXT NOT NULL) STRICT;
CREATE TABLE signing_key (generation INTEGER PRIMARY KEY, sealed TEXT NOT NULL, starts_s INTEGER NOT NULL) STRICT;
CREATE TABLE person (
    user TEXT PRIMARY KEY, name TEXT NOT NULL, name_key TEXT NOT NULL UNIQUE, roles TEXT NOT NULL, created_s INTEGER NOT NULL,
    salt BLOB, hash BLOB, memory_kib INTEGER, passes INTEGER, lanes INTEGER) STRICT;
CREATE TABLE link (
    digest TEXT PRIMARY KEY, user TEXT REFERENCES person (user) ON DELETE CASCADE, expires_s INTEGER NOT NULL, used_s INTEGER) STRICT;
CREATE TABLE session (
    sid TEXT PRIMARY KEY, digest TEXT NOT NULL UNIQUE, user TEXT NOT NULL REFERENCES person (user) ON DELETE CASCADE,
    auth_time_s INTEGER NOT NULL, expires_s INTEGER NOT NULL) STRICT;
CREATE TABLE family (
    family TEXT PRIMARY KEY, client TEXT NOT NULL, user TEXT NOT NULL REFERENCES person (user) ON DELETE CASCADE, sid TEXT NOT NULL,
    scope TEXT NOT NULL, auth_time_s INTEGER NOT NULL, ends_s INTEGER NOT NULL, dead INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE INDEX family_by_user ON family (user);
CREATE INDEX family_by_sid ON family (sid);
CREATE TABLE code (
    digest TEXT PRIMARY KEY, family TEXT NOT NULL REFERENCES family (family) ON DELETE CASCADE, redirect_uri TEXT NOT NULL,
    challenge TEXT NOT NULL, nonce TEXT, expires_s INTEGER NOT NULL, used INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE INDEX code_by_family ON code (family);
CREATE TABLE refresh (
    digest TEXT PRIMARY KEY, family TEXT NOT NULL REFERENCES family (family) ON DELETE CASCADE,
    expires_s INTEGER NOT NULL, used INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE INDEX refresh_by_family ON refresh (family);
CREATE TABLE throttle (key TEXT PRIMARY KEY, failures INTEGER NOT NULL, last_s INTEGER NOT NULL, until_s INTEGER NOT NULL) STRICT;
",
    },
    Migration { version: 2, name: "families that are bound to a key", sql: "ALTER TABLE family ADD COLUMN jkt TEXT;" },
    Migration {
        version: 3,
        name: "API keys, tokens by reference",
        sql: "
CREATE TABLE api_key (
    id TEXT PRIMARY KEY, mac TEXT NOT NULL UNIQUE, user TEXT NOT NULL REFERENCES person (user) ON DELETE CASCADE, name TEXT NOT NULL,
    scope TEXT NOT NULL, created_s INTEGER NOT NULL, expires_s INTEGER NOT NULL, revoked_s INTEGER) STRICT;
CREATE INDEX api_key_by_user ON api_key (user);
CREATE TABLE access (
    mac TEXT PRIMARY KEY, family TEXT NOT NULL REFERENCES family (family) ON DELETE CASCADE, claims TEXT NOT NULL,
    expires_s INTEGER NOT NULL) STRICT;
CREATE INDEX access_by_family ON access (family);
CREATE INDEX access_by_end ON access (expires_s);
",
    },
    Migration {
        version: 4,
        name: "second factors",
        sql: "
CREATE TABLE factor (
    user TEXT PRIMARY KEY REFERENCES person (user) ON DELETE CASCADE, sealed TEXT NOT NULL, begun_s INTEGER NOT NULL,
    confirmed_s INTEGER, step INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE TABLE recovery (mac TEXT PRIMARY KEY, user TEXT NOT NULL REFERENCES factor (user) ON DELETE CASCADE) STRICT;
CREATE INDEX recovery_by_user ON recovery (user);
ALTER TABLE session ADD COLUMN second INTEGER NOT NULL DEFAULT 0;
ALTER TABLE family ADD COLUMN second INTEGER NOT NULL DEFAULT 0;
",
    },
];
