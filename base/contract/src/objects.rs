//! The contract of `objects`: the S3 API, and three things of ours beside it: presigning (whole or in
//! parts), verdicts, and redeeming a presigned URL.

use serde::{Deserialize, Serialize};

use crate::route::{Route, Who};

/// Every route. S3's operations share paths and are told apart by their query (`?presign`, `?presign-parts`,
/// `?verdict`, `?uploads`, `?list-type=2`, `?location`…) or a header (`x-amz-copy-source`).
///
/// Paths under `/presigned` are for the edge alone: it has found no session, and the room checks the URL's signature (SigV4) instead.
/// There the request keeps its original path in the header `palisade-original-uri`, because that is what was signed.
pub const ROUTES: &[Route] = &[
    Route { method: "GET", path: "/{bucket}", action: "objects.list", who: Who::Policy },
    // The same, as the AWS SDK for JavaScript spells it.
    Route { method: "GET", path: "/{bucket}/", action: "objects.list", who: Who::Policy },
    Route { method: "HEAD", path: "/{bucket}", action: "objects.bucket.head", who: Who::Policy },
    Route { method: "HEAD", path: "/{bucket}/", action: "objects.bucket.head", who: Who::Policy },
    // `?delete`: each key of the body is decided by itself.
    Route { method: "POST", path: "/{bucket}", action: "objects.delete.many", who: Who::Policy },
    Route { method: "POST", path: "/{bucket}/", action: "objects.delete.many", who: Who::Policy },
    Route { method: "GET", path: "/{bucket}/{*key}", action: "objects.read", who: Who::Policy },
    Route { method: "HEAD", path: "/{bucket}/{*key}", action: "objects.head", who: Who::Policy },
    Route { method: "PUT", path: "/{bucket}/{*key}", action: "objects.write", who: Who::Policy },
    Route { method: "POST", path: "/{bucket}/{*key}", action: "objects.post", who: Who::Policy },
    Route { method: "DELETE", path: "/{bucket}/{*key}", action: "objects.delete", who: Who::Policy },
    Route { method: "GET", path: "/presigned/{bucket}/{*key}", action: "objects.redeem.read", who: Who::Roles(&["edge"]) },
    Route { method: "HEAD", path: "/presigned/{bucket}/{*key}", action: "objects.redeem.head", who: Who::Roles(&["edge"]) },
    Route { method: "PUT", path: "/presigned/{bucket}/{*key}", action: "objects.redeem.write", who: Who::Roles(&["edge"]) },
];

/// Header in which the edge gives the path and query as the browser sent them.
pub const ORIGINAL_URI_HEADER: &str = "palisade-original-uri";
/// Header in which the edge gives the public origin (`https://HOST[:PORT]`), for URLs in answers.
pub const PUBLIC_ORIGIN_HEADER: &str = "palisade-public-origin";

/// `POST /BUCKET/KEY?presign`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Presign {
    /// `GET`, `HEAD` or `PUT`.
    pub method: String,
    /// Life, 1 to 3,600 seconds.
    pub expires_s: u64,
    /// For PUT: the exact size in bytes.
    #[serde(default)]
    pub content_length: Option<u64>,
    /// For PUT: the media type.
    #[serde(default)]
    pub content_type: Option<String>,
}

/// The answer to `Presign`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Presigned {
    /// Absolute URL.
    pub url: String,
    /// Its method.
    pub method: String,
    /// Headers that the browser must send.
    pub headers: std::collections::BTreeMap<String, String>,
    /// End, RFC 3339.
    pub expires_at: String,
}

/// `POST /BUCKET/KEY?presign-parts`: begins an upload in parts from a browser, or goes on with the one that is open for the same
/// person, size and type.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PresignParts {
    /// Life of each part's URL, 1 to 3,600 seconds.
    pub expires_s: u64,
    /// The exact size of the whole, in bytes.
    pub content_length: u64,
    /// The media type of the whole.
    pub content_type: String,
}

/// The answer to `PresignParts`. With the last part the object is there; nobody has to say so.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PresignedParts {
    /// Whether the whole is there already.
    pub complete: bool,
    /// Bytes of each part but the last.
    pub part_bytes: u64,
    /// Parts that are there.
    pub stored: Vec<StoredPart>,
    /// URLs for the next parts that are not, lowest numbers first.
    pub parts: Vec<PresignedPart>,
    /// When what was sent is removed unless the rest has come, RFC 3339; empty when complete.
    pub removed_at: String,
}

/// A part that is there.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StoredPart {
    /// From 1.
    pub number: u32,
    /// SHA-256 of its bytes, hexadecimal: whoever goes on can tell whether it is the same file.
    pub sha256: String,
}

/// A part that may be sent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PresignedPart {
    /// From 1.
    pub number: u32,
    /// Its exact size in bytes.
    pub bytes: u64,
    /// Absolute URL, for one PUT.
    pub url: String,
}

/// `POST /BUCKET/KEY?verdict`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// Clean or rejected.
    pub verdict: VerdictKind,
    /// Why, for people.
    #[serde(default)]
    pub reason: String,
    /// What it really is.
    #[serde(default)]
    pub media_type: Option<String>,
}

/// What a validator found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerdictKind {
    /// May be read.
    Clean,
    /// May never be read.
    Rejected,
}

/// Data of the event `object.created`; its subject is `BUCKET/KEY`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectCreated {
    /// Bucket.
    pub bucket: String,
    /// Key.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// Media type as the writer declared it.
    pub content_type: String,
    /// Entity tag.
    pub etag: String,
}
