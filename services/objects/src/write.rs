//! Writing: decided before a byte is read, cut at the limit, visible only when whole, durable and still allowed.
//!
//! Guarantees: G3, G6, G10 (the event is committed with the object), G11 (a new version is untyped), H5.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use contract::BoxError;
use contract::control::BucketProfile;
use contract::objects::ObjectCreated;
use contract::queue::Event;
use futures::Stream;
use manifest::Verdict;
use policy::{Action, ObjectFacts, Resource};
use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum as _, Crc32, Crc32c, Crc64Nvme, Md5, Sha1, Sha256};
use trust::{DenyReason, Digest, ObjectRef, clock::random_hex};

use crate::blob::Blob;
use crate::chunked::Trailers;
use crate::gate::{Visitor, Watch};
use crate::ledger::{Arrival, Note, Object, Segment};
use crate::read::Conditions;
use crate::refusal::Refusal;
use crate::room::Shelf;

/// What is to be stored.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) at: ObjectRef,
    pub(crate) content_type: String,
    pub(crate) metadata: BTreeMap<String, String>,
    /// Bytes that were announced.
    pub(crate) length: Option<u64>,
    pub(crate) conditions: Conditions,
    /// The grant that it uses up.
    pub(crate) grant: Option<String>,
}

/// Digests that the sender announced; all must hold.
#[derive(Default)]
pub(crate) struct Announced {
    /// By S3's field name without prefix: `crc32`, `crc32c`, `crc64nvme`, `sha1`, `sha256`, `md5`; base64.
    pub(crate) values: BTreeMap<&'static str, String>,
    /// `x-amz-content-sha256`, hexadecimal.
    pub(crate) payload: Option<String>,
    /// Names in `x-amz-trailer`.
    pub(crate) in_trailers: Vec<String>,
    pub(crate) trailers: Trailers,
}

/// The checks under way.
pub(crate) struct Checks {
    announced: Announced,
    hasher: ChecksumHasher,
    md5: Option<Md5>,
}

impl Announced {
    /// Begins to check.
    pub(crate) fn begin(self) -> Checks {
        let wanted =
            |name: &str| self.values.contains_key(name) || self.in_trailers.iter().any(|t| t.strip_prefix("x-amz-checksum-") == Some(name));
        let hasher = ChecksumHasher {
            crc32: wanted("crc32").then(Crc32::new),
            crc32c: wanted("crc32c").then(Crc32c::new),
            sha1: wanted("sha1").then(Sha1::new),
            sha256: wanted("sha256").then(Sha256::new),
            crc64nvme: wanted("crc64nvme").then(Crc64Nvme::new),
        };
        let md5 = wanted("md5").then(Md5::new);
        Checks { announced: self, hasher, md5 }
    }
}

impl Checks {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        if let Some(md5) = &mut self.md5 {
            md5.update(bytes);
        }
    }

    /// Whether all that was announced holds.
    pub(crate) fn finish(self, whole: &Digest) -> Result<(), Refusal> {
        let sums = self.hasher.finalize();
        let mut found: BTreeMap<&str, String> = BTreeMap::new();
        let named = [
            ("crc32", sums.checksum_crc32),
            ("crc32c", sums.checksum_crc32c),
            ("crc64nvme", sums.checksum_crc64nvme),
            ("sha1", sums.checksum_sha1),
            ("sha256", sums.checksum_sha256),
            ("md5", self.md5.map(|md5| STANDARD.encode(md5.finalize()))),
        ];
        found.extend(named.into_iter().filter_map(|(name, sum)| Some((name, sum?))));
        let trailers = self.announced.trailers.all();
        let promised =
            self.announced.in_trailers.iter().filter_map(|name| Some((name.strip_prefix("x-amz-checksum-")?, trailers.get(name))));
        for (name, value) in promised {
            if value.is_none() || found.get(name) != value {
                return Err(Refusal::BadDigest);
            }
        }
        let wrong = self.announced.values.iter().any(|(name, value)| found.get(name) != Some(value));
        let other = self.announced.payload.is_some_and(|hex| hex != whole.to_hex());
        if wrong || other { Err(Refusal::BadDigest) } else { Ok(()) }
    }
}

/// What was decided before the first byte.
pub(crate) struct Admitted {
    pub(crate) profile: BucketProfile,
    pub(crate) there: Option<Object>,
}

impl Shelf {
    /// Whether `visitor` may write at `at`, and what is there. The policy sees the object as it will be.
    pub(crate) async fn may_write(&self, visitor: &Visitor, action: Action, at: &ObjectRef) -> Result<Admitted, Refusal> {
        let profile = self.gate.bucket(&at.bucket)?;
        let there = self.find(visitor, at).await?;
        let owner = there.as_ref().map_or_else(|| visitor.user().map(str::to_owned), |o| o.owner.clone());
        let facts = ObjectFacts { reference: at.clone(), verdict: Verdict::Untyped, owner, shared_with: Default::default() };
        self.gate.allow(visitor, action, &Resource::Object(facts)).await?;
        // The empty folder is every job's without an input: no job writes there.
        if visitor.job().is_some() && at.folder().is_empty() {
            return Err(self.gate.refuse(visitor, action.as_str(), &at.to_string(), DenyReason::JobMismatch));
        }
        Ok(Admitted { profile, there })
    }

    /// Whether `visitor` may store something of this type at `at`.
    pub(crate) async fn admit(&self, visitor: &Visitor, action: Action, at: &ObjectRef, content_type: &str) -> Result<Admitted, Refusal> {
        let admitted = self.may_write(visitor, action, at).await?;
        Self::takes(&admitted, content_type)?;
        Ok(admitted)
    }

    /// Whether a bucket takes something of this type where it was admitted.
    pub(crate) fn takes(admitted: &Admitted, content_type: &str) -> Result<(), Refusal> {
        let profile = &admitted.profile;
        if !profile.types.is_empty() && !profile.types.iter().any(|t| t == content_type) {
            return Err(Refusal::Invalid(format!("this bucket takes {} only", profile.types.join(", "))));
        }
        if admitted.there.is_some() && profile.quarantine_until.is_some() {
            // A verdict speaks of the bytes that were looked at: under its name no others appear.
            return Err(Refusal::Conflict("objects of this bucket are written once; delete it first".to_owned()));
        }
        Ok(())
    }

    /// Stores an object.
    pub(crate) async fn put<S>(
        &self,
        visitor: &Visitor,
        action: Action,
        incoming: Incoming,
        announced: Announced,
        bytes: S,
    ) -> Result<Object, Refusal>
    where
        S: Stream<Item = Result<Bytes, BoxError>> + Unpin + Send,
    {
        let admitted = self.admit(visitor, action, &incoming.at, &incoming.content_type).await?;
        incoming.conditions.check_write(admitted.there.as_ref().map(|o| o.etag.as_str()))?;
        let mut watch = Watch::new(Arc::clone(&self.gate), visitor.clone());
        let blob = self.receive(&mut watch, incoming.length, admitted.profile.object_bytes_max, announced, bytes).await?;
        let etag = blob.digest.to_hex();
        let mut object = self.object(visitor, &admitted, incoming.at, (incoming.content_type, incoming.metadata), etag, vec![blob]);
        if incoming.grant.is_some() {
            // A stranger's bytes are untyped wherever they come to lie; the manifest lets none into a bucket without a validator.
            object.verdict = Verdict::Untyped;
        }
        let arrival = Arrival {
            note: self.note(visitor, &admitted.profile, &object)?,
            object,
            replaces: admitted.there.map(|o| o.version),
            upload: None,
            grant: incoming.grant,
        };
        self.arrive(arrival).await
    }

    /// Receives bytes into a blob that is on the disk and that no row names yet.
    pub(crate) async fn receive<S>(
        &self,
        watch: &mut Watch,
        length: Option<u64>,
        limit: u64,
        announced: Announced,
        bytes: S,
    ) -> Result<Blob, Refusal>
    where
        S: Stream<Item = Result<Bytes, BoxError>> + Unpin + Send,
    {
        if length.is_some_and(|length| length > limit) {
            return Err(Refusal::TooLarge);
        }
        self.blobs.room_for(length.unwrap_or_default())?;
        let mut checks = announced.begin();
        let cut = length.unwrap_or(limit);
        let received = self.blobs.receive(&*self.entropy, bytes, cut, watch, |piece| checks.update(piece)).await?;
        if length.is_some_and(|length| received.blob.size != length) {
            return Err(Refusal::Incomplete);
        }
        checks.finish(&received.blob.digest)?;
        watch.ask().await?;
        Ok(self.blobs.keep(received).await?)
    }

    /// The object that these blobs make.
    pub(crate) fn object(
        &self,
        visitor: &Visitor,
        admitted: &Admitted,
        at: ObjectRef,
        (content_type, metadata): (String, BTreeMap<String, String>),
        etag: String,
        blobs: Vec<Blob>,
    ) -> Object {
        let digest = match blobs.as_slice() {
            [one] => one.digest,
            many => composite(many),
        };
        Object {
            at,
            version: random_hex(&*self.entropy, 16),
            size: blobs.iter().fold(0, |sum, blob| sum.saturating_add(blob.size)),
            digest,
            etag,
            content_type,
            metadata,
            owner: admitted.there.as_ref().map_or_else(|| visitor.user().map(str::to_owned), |o| o.owner.clone()),
            verdict: if admitted.profile.quarantine_until.is_some() { Verdict::Untyped } else { Verdict::Clean },
            media_type: None,
            created_ms: self.clock.unix_ms(),
            segments: blobs.into_iter().map(|blob| Segment { blob }).collect(),
        }
    }

    /// The event that tells of a new object, if its bucket has a queue for that. Its id is the same however often it is told.
    pub(crate) fn note(&self, visitor: &Visitor, profile: &BucketProfile, object: &Object) -> Result<Option<Note>, Refusal> {
        let Some(queue) = &profile.created_queue else { return Ok(None) };
        let data = ObjectCreated {
            bucket: object.at.bucket.clone(),
            key: object.at.key.clone(),
            size: object.size,
            content_type: object.content_type.clone(),
            etag: object.etag.clone(),
        };
        let event = Event {
            id: Digest::of(format!("{}\0{}\0{}", object.at, object.etag, object.version).as_bytes()).to_hex(),
            source: format!("/objects/{}", object.at.bucket),
            kind: "object.created".to_owned(),
            subject: Some(object.at.to_string()),
            content_type: "application/json".to_owned(),
            data: serde_json::to_vec(&data).map_err(|error| Refusal::Internal(error.into()))?,
        };
        Ok(Some(Note {
            seq: 0,
            queue: queue.clone(),
            object: object.at.to_string(),
            event,
            authority: visitor.authority.clone(),
            trace: visitor.trace,
            tries: 0,
            genuine: true,
        }))
    }

    /// Makes an object visible; if that fails, the blobs that came for it go.
    pub(crate) async fn arrive(&self, arrival: Arrival) -> Result<Object, Refusal> {
        match self.ledger.arrive(&arrival, self.clock.unix_ms()).await {
            Ok(gone) => {
                self.blobs.remove(&gone).await;
                self.stirred.notify_one();
                Ok(arrival.object)
            }
            Err(refusal) => {
                // An internal error may be a commit whose outcome is unknown: then the bytes stay, for the next start's sweep to judge.
                if arrival.upload.is_none() && !matches!(refusal, Refusal::Internal(_)) {
                    let ids: Vec<String> = arrival.object.segments.iter().map(|s| s.blob.id.clone()).collect();
                    self.blobs.remove(&ids).await;
                }
                Err(refusal)
            }
        }
    }
}

/// SHA-256 over the digests of parts.
pub(crate) fn composite(parts: &[Blob]) -> Digest {
    let all: Vec<u8> = parts.iter().flat_map(|part| part.digest.as_bytes().iter().copied()).collect();
    let bytes: Result<[u8; 32], _> = digest(&SHA256, &all).as_ref().try_into();
    Digest::from(bytes.unwrap_or_default())
}
