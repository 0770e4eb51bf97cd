//! Reading: who may, which bytes, and each of them checked before it leaves.
//!
//! Guarantees: G2 (ranges, conditions), G11 (the decision sees the verdict), H5 (the lease is watched while bytes flow).

use std::sync::Arc;

use bytes::Bytes;
use contract::BoxError;
use futures::Stream;
use manifest::Verdict;
use policy::{Action, ObjectFacts, Resource};
use s3s::dto::{ETag, ETagCondition, Range, Timestamp};
use time::OffsetDateTime;
use tokio::fs::File;
use trust::ObjectRef;

use crate::blob::{self, Blob, CHUNK};
use crate::gate::{Visitor, Watch};
use crate::ledger::{Ledger, Object};
use crate::refusal::Refusal;
use crate::room::Shelf;

/// Conditions of RFC 9110, section 13.1.
#[derive(Debug, Default)]
pub(crate) struct Conditions {
    pub(crate) if_match: Option<ETagCondition>,
    pub(crate) if_none_match: Option<ETagCondition>,
    pub(crate) if_modified_since: Option<Timestamp>,
    pub(crate) if_unmodified_since: Option<Timestamp>,
}

/// An object opened for reading, its first piece already checked.
pub(crate) struct Reading {
    pub(crate) object: Object,
    /// First byte and the one after the last.
    pub(crate) span: std::ops::Range<u64>,
    reader: Reader,
    first: Option<Bytes>,
}

struct Reader {
    blobs: blob::Blobs,
    ledger: Arc<Ledger>,
    at: ObjectRef,
    version: String,
    /// Segments still to be read, first one first, with the span of each that is wanted.
    left: std::collections::VecDeque<(Blob, std::ops::Range<u64>)>,
    file: Option<File>,
    watch: Watch,
}

impl Conditions {
    /// Checks them for a read, in the order of RFC 9110, section 13.2.2: an entity tag outweighs a time.
    pub(crate) fn check_read(&self, object: &Object) -> Result<(), Refusal> {
        let etag = Some(object.etag.as_str());
        let matches = match (&self.if_match, &self.if_unmodified_since) {
            (Some(condition), _) => names(condition, etag),
            (None, Some(since)) => !changed_after(object, since),
            (None, None) => true,
        };
        if !matches {
            return Err(Refusal::Precondition);
        }
        let known = match (&self.if_none_match, &self.if_modified_since) {
            (Some(condition), _) => names(condition, etag),
            (None, Some(since)) => !changed_after(object, since),
            (None, None) => false,
        };
        if known { Err(Refusal::NotModified) } else { Ok(()) }
    }

    /// The same for what is copied: there is no answer that says "you have it already" (S3 API, CopyObject).
    pub(crate) fn check_source(&self, object: &Object) -> Result<(), Refusal> {
        self.check_read(object).map_err(|_| Refusal::Precondition)
    }

    /// Checks them for a write over `etag`, or over nothing.
    pub(crate) fn check_write(&self, etag: Option<&str>) -> Result<(), Refusal> {
        let broken = self.if_match.as_ref().is_some_and(|c| !names(c, etag)) || self.if_none_match.as_ref().is_some_and(|c| names(c, etag));
        if broken { Err(Refusal::Precondition) } else { Ok(()) }
    }
}

/// Times of HTTP have whole seconds.
fn changed_after(object: &Object, since: &Timestamp) -> bool {
    let created_s = i64::try_from(object.created_ms / 1000).unwrap_or(i64::MAX);
    created_s > OffsetDateTime::from(since.clone()).unix_timestamp()
}

fn names(condition: &ETagCondition, etag: Option<&str>) -> bool {
    match (condition, etag) {
        (_, None) => false,
        (ETagCondition::Any, Some(_)) => true,
        (ETagCondition::ETag(ETag::Strong(value)), Some(etag)) => value == etag,
        _ => false,
    }
}

impl Shelf {
    /// Whether `visitor` may do `action` to the object at `at`, and the object. One that is not there looks to the policy as if it were
    /// the visitor's own: who may not read it hears of the refusal, not of the absence.
    pub(crate) async fn look(&self, visitor: &Visitor, action: Action, at: &ObjectRef) -> Result<Object, Refusal> {
        self.gate.bucket(&at.bucket)?;
        let object = self.find(visitor, at).await?;
        let facts = object.as_ref().map_or_else(
            || ObjectFacts {
                reference: at.clone(),
                verdict: if action == Action::ObjectVerdict { Verdict::Untyped } else { Verdict::Clean },
                owner: visitor.user().map(str::to_owned),
                shared_with: Default::default(),
            },
            Object::facts,
        );
        self.gate.allow(visitor, action, &Resource::Object(facts)).await?;
        object.ok_or(Refusal::NoSuchKey)
    }

    /// The object's row; one that was edited is recorded as such.
    pub(crate) async fn find(&self, visitor: &Visitor, at: &ObjectRef) -> Result<Option<Object>, Refusal> {
        match self.ledger.object(at).await {
            Err(Refusal::Tampered) => Err(self.gate.tampered(visitor.trace, at, "the row is not as it was stored")),
            other => other,
        }
    }

    /// Opens an object that `visitor` may read.
    pub(crate) async fn open(
        &self,
        visitor: &Visitor,
        action: Action,
        at: &ObjectRef,
        range: Option<Range>,
        conditions: &Conditions,
    ) -> Result<Reading, Refusal> {
        let object = self.look(visitor, action, at).await?;
        conditions.check_read(&object)?;
        let reading = self.reading(visitor, object, range).await?;
        self.note_read(visitor, &reading.object);
        Ok(reading)
    }

    /// Opens an object that was decided upon.
    pub(crate) async fn reading(&self, visitor: &Visitor, object: Object, range: Option<Range>) -> Result<Reading, Refusal> {
        let span = match range {
            Some(range) => range.check(object.size).map_err(|_| Refusal::Range(object.size))?,
            None => 0..object.size,
        };
        let mut left = std::collections::VecDeque::new();
        let mut begin: u64 = 0;
        for segment in &object.segments {
            let end = begin.saturating_add(segment.blob.size);
            let wanted = span.start.max(begin)..span.end.min(end);
            if wanted.start < wanted.end {
                left.push_back((segment.blob.clone(), wanted.start.saturating_sub(begin)..wanted.end.saturating_sub(begin)));
            }
            begin = end;
        }
        let watch = Watch::new(Arc::clone(&self.gate), visitor.clone());
        let (ledger, at, version) = (Arc::clone(&self.ledger), object.at.clone(), object.version.clone());
        let mut reader = Reader { blobs: self.blobs.clone(), ledger, at, version, left, file: None, watch };
        let first = reader.next().await?;
        Ok(Reading { object, span, reader, first })
    }
}

impl Reading {
    /// The bytes. It ends with an error, never with wrong bytes, when what is stored is not what was stored or the lease ends.
    pub(crate) fn stream(self) -> impl Stream<Item = Result<Bytes, BoxError>> + Send {
        futures::stream::try_unfold((self.reader, self.first), |(mut reader, first)| async move {
            let piece = match first {
                Some(piece) => Some(piece),
                None => reader.next().await.map_err(|refusal| BoxError::from(format!("the read ends here: {refusal:?}")))?,
            };
            Ok(piece.map(|piece| (piece, (reader, None))))
        })
    }

    pub(crate) fn length(&self) -> u64 {
        self.span.end.saturating_sub(self.span.start)
    }

    pub(crate) fn content_range(&self) -> String {
        format!("bytes {}-{}/{}", self.span.start, self.span.end.saturating_sub(1), self.object.size)
    }
}

impl Reader {
    async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        let Some((blob, wanted)) = self.left.front_mut() else { return Ok(None) };
        let mut file = match self.file.take() {
            Some(file) => file,
            None => match self.blobs.file(blob).await {
                Ok(file) => file,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(self.gone().await),
                Err(error) => return Err(error.into()),
            },
        };
        let chunk = u64::try_from(CHUNK).unwrap_or(u64::MAX);
        let index = wanted.start / chunk;
        let begin = index.saturating_mul(chunk);
        let Some(bytes) = blob::checked_chunk(&mut file, blob, index).await? else {
            return Err(self.found("its bytes do not have the digest that was stored"));
        };
        let end = begin.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX)).min(wanted.end);
        let place = |at: u64| usize::try_from(at.saturating_sub(begin)).unwrap_or(usize::MAX);
        let piece = bytes.slice(place(wanted.start).min(bytes.len())..place(end).min(bytes.len()));
        wanted.start = end;
        if wanted.start >= wanted.end {
            self.left.pop_front();
        } else {
            self.file = Some(file);
        }
        self.watch.step(piece.len()).await?;
        Ok(Some(piece))
    }

    /// Bytes that are gone because the object was deleted, or replaced, while it was read, are nobody's offence.
    async fn gone(&self) -> Refusal {
        match self.ledger.object(&self.at).await {
            Ok(there) if there.as_ref().map(|object| &object.version) != Some(&self.version) => Refusal::NoSuchKey,
            Err(refusal @ Refusal::Internal(_)) => refusal,
            _ => self.found("its bytes are gone"),
        }
    }

    fn found(&self, detail: &str) -> Refusal {
        self.watch.gate().tampered(self.watch.visitor().trace, &self.at, detail)
    }
}
