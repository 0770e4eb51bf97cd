//! The behaviours that a published suite for S3 asks for, each under its name there: Ceph's `s3-tests`, `test_s3.py`.
//!
//! Those that apply to what is built, done here anew over the room; docs/s3.md names them, and those that do not apply, with the reason.
//! Entity tags are compared as opaque: they are not MD5 here.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod conditional;
mod copied;
mod deleted;
mod listed;
mod parts;
mod plain;

use std::pin::Pin;

use super::*;

type Case = fn(Somebody) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// A list of cases by the names of their functions.
macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        pub(super) const CASES: &[(&str, super::Case)] = &[$((stringify!($name), |s| Box::pin($name(s)))),*];
    };
}
use cases;

/// A person with a bucket, `files`, and another, `albums`.
pub(super) struct Somebody {
    objects: Objects,
    who: Caller,
    _world: Arc<World>,
}

/// An answer.
pub(super) struct Said {
    pub(super) status: u16,
    pub(super) headers: http::HeaderMap,
    pub(super) body: Bytes,
}

impl Said {
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(super) fn all(&self, tag: &str) -> Vec<String> {
        let text = self.text();
        text.split(&format!("<{tag}>")).skip(1).map(|rest| rest.split('<').next().unwrap().to_owned()).collect()
    }

    pub(super) fn one(&self, tag: &str) -> String {
        self.all(tag).pop().unwrap_or_default()
    }

    pub(super) fn header(&self, name: &str) -> String {
        self.headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
    }

    pub(super) fn fails(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.one("Code").as_str()), (status, code), "{}", self.text());
    }
}

impl Somebody {
    pub(super) async fn ask(&self, method: &str, uri: &str, headers: &[(&str, &str)], content: impl Into<Bytes>) -> Said {
        let response = send(&self.objects, &self.who, method.parse().unwrap(), uri, headers, content).await;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        Said { status: head.status.as_u16(), headers: head.headers, body }
    }

    pub(super) async fn well(&self, method: &str, uri: &str, headers: &[(&str, &str)], content: impl Into<Bytes>) -> Said {
        let said = self.ask(method, uri, headers, content).await;
        assert!(said.status < 300, "{method} {uri}: {} {}", said.status, said.text());
        said
    }

    /// Puts something at each key.
    pub(super) async fn has(&self, keys: &[&str]) {
        for key in keys {
            self.well("PUT", &path(key), &[], key.as_bytes().to_vec()).await;
        }
    }

    pub(super) async fn get(&self, key: &str) -> Said {
        self.ask("GET", &path(key), &[], "").await
    }

    /// Keys and common prefixes of a list.
    pub(super) async fn listed(&self, query: &str) -> (Vec<String>, Vec<String>, Said) {
        let said = self.well("GET", &format!("/files?{query}"), &[], "").await;
        let text = said.text();
        let prefixes = text.split("<CommonPrefixes>").skip(1).map(|rest| rest.split("<Prefix>").nth(1).unwrap().to_owned());
        let prefixes = prefixes.map(|rest| rest.split('<').next().unwrap().to_owned()).collect();
        (said.all("Key"), prefixes, said)
    }
}

/// A key of `files` as a path.
pub(super) fn path(key: &str) -> String {
    format!("/files/{}", crate::sigv4::encoded_path(key))
}

async fn all(cases: &[(&str, Case)]) {
    for (name, case) in cases {
        eprintln!("{name}");
        let world = Arc::new(World::new());
        let objects = world.open().await;
        case(Somebody { objects, who: filer(), _world: world }).await;
    }
}

#[tokio::test]
async fn lists_behave_as_published() {
    all(listed::CASES).await;
}

#[tokio::test]
async fn plain_objects_behave_as_published() {
    all(plain::CASES).await;
}

#[tokio::test]
async fn conditions_behave_as_published() {
    all(conditional::CASES).await;
}

#[tokio::test]
async fn copies_behave_as_published() {
    all(copied::CASES).await;
}

#[tokio::test]
async fn deletions_behave_as_published() {
    all(deleted::CASES).await;
}

#[tokio::test]
async fn uploads_in_parts_behave_as_published() {
    all(parts::CASES).await;
}

// G2: the list that is published is the list that runs.
#[test]
fn the_published_list_of_behaviours_is_the_tested_one() {
    let document = include_str!("../../../../docs/s3.md");
    let mut said: BTreeMap<&str, bool> = BTreeMap::new();
    for row in document.lines().filter_map(|line| line.strip_prefix("| `test_")) {
        let (_, rest) = row.split_once("` | ").unwrap();
        let name = &document[row.as_ptr() as usize - document.as_ptr() as usize - 5..][..row.find('`').unwrap() + 5];
        let yes = rest.starts_with("yes");
        assert!(yes || rest.starts_with("no: "), "{name}: yes, or no and why");
        assert!(said.insert(name, yes).is_none(), "{name} is listed twice");
    }
    let tables = [listed::CASES, plain::CASES, conditional::CASES, copied::CASES, deleted::CASES, parts::CASES];
    let run: BTreeSet<&str> = tables.iter().flat_map(|table| table.iter().map(|(name, _)| *name)).collect();
    let claimed: BTreeSet<&str> = said.iter().filter(|(_, yes)| **yes).map(|(name, _)| *name).collect();
    assert_eq!(claimed, run);
}
