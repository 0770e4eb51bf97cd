//! Copying within the store: who copies may read the one and write the other, and only what has a clean verdict.
//!
//! A copy launders nothing. Bytes without a clean verdict are not copied, whoever asks: neither their validator, nor whoever writes
//! into a bucket where everything counts as clean. Into a bucket with a validator a copy comes as an upload does: untyped, and told of.
//!
//! Blobs never change, so a copy is new names for the same files: it takes no time and no room, and each MiB keeps its digest.
//!
//! Spec:       S3 API, CopyObject and UploadPartCopy. Deviation: the copy of an object made of parts keeps its entity tag.
//! Guarantees: G2, G11 for copies, H5.

use std::collections::BTreeMap;
use std::sync::Arc;

use manifest::Verdict;
use policy::Action;
use s3s::dto::Range;
use trust::{DenyReason, ObjectRef};

use crate::blob::Blob;
use crate::gate::{Visitor, Watch};
use crate::ledger::{Arrival, Object};
use crate::read::{Conditions, Reading};
use crate::refusal::Refusal;
use crate::room::Shelf;

/// What is copied.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) at: ObjectRef,
    pub(crate) conditions: Conditions,
}

impl Shelf {
    /// Copies an object. What `to` leaves out (media type, metadata) comes from the source.
    pub(crate) async fn copy(&self, visitor: &Visitor, source: Source, to: Copied) -> Result<Object, Refusal> {
        let from = self.copyable(visitor, &source).await?;
        let (content_type, metadata) = match to.described {
            Some(described) => described,
            None if from.at == to.at => {
                return Err(Refusal::Invalid("a copy of an object onto itself has to change its metadata".to_owned()));
            }
            None => (from.content_type.clone(), from.metadata.clone()),
        };
        let admitted = self.admit(visitor, Action::ObjectWrite, &to.at, &content_type).await?;
        to.conditions.check_write(admitted.there.as_ref().map(|o| o.etag.as_str()))?;
        if from.size > admitted.profile.object_bytes_max {
            return Err(Refusal::TooLarge);
        }
        Watch::new(Arc::clone(&self.gate), visitor.clone()).ask().await?;
        let blobs = self.linked(visitor, &from).await?;
        let mut object = self.object(visitor, &admitted, to.at, (content_type, metadata), from.etag.clone(), blobs);
        if object.verdict == from.verdict {
            // What the validator found the bytes to be is true of them under each name.
            object.media_type = from.media_type;
        }
        let note = self.note(visitor, &admitted.profile, &object)?;
        self.arrive(Arrival { object, replaces: admitted.there.map(|o| o.version), upload: None, grant: None, note }).await
    }

    /// Opens a range of an object to be copied into a part.
    pub(crate) async fn copied_range(&self, visitor: &Visitor, source: &Source, range: Option<&str>) -> Result<Reading, Refusal> {
        let from = self.copyable(visitor, source).await?;
        let range = match range.map(|text| (text, Range::parse(text))) {
            None => None,
            Some((_, Ok(range @ Range::Int { first, last: Some(last) }))) if first <= last => {
                if last >= from.size {
                    return Err(Refusal::Range(from.size));
                }
                Some(range)
            }
            Some((text, _)) => return Err(Refusal::Argument(format!("a part is copied from a range like bytes=0-9, not {text}"))),
        };
        self.reading(visitor, from, range).await
    }

    /// The source, if `visitor` may read it and it has a clean verdict.
    async fn copyable(&self, visitor: &Visitor, source: &Source) -> Result<Object, Refusal> {
        let from = self.look(visitor, Action::ObjectRead, &source.at).await?;
        if from.verdict != Verdict::Clean {
            return Err(self.gate.refuse(visitor, "objectCopy", &source.at.to_string(), DenyReason::ObjectQuarantined));
        }
        source.conditions.check_source(&from)?;
        Ok(from)
    }

    /// New names for an object's blobs; all of them, or none.
    async fn linked(&self, visitor: &Visitor, from: &Object) -> Result<Vec<Blob>, Refusal> {
        let mut blobs: Vec<Blob> = Vec::with_capacity(from.segments.len());
        for segment in &from.segments {
            match self.blobs.linked(&*self.entropy, &segment.blob).await {
                Ok(blob) => blobs.push(blob),
                Err(error) => {
                    self.blobs.remove(&blobs.iter().map(|blob| blob.id.clone()).collect::<Vec<_>>()).await;
                    if error.kind() != std::io::ErrorKind::NotFound {
                        return Err(error.into());
                    }
                    // It may have been deleted since it was decided upon.
                    let there = self.find(visitor, &from.at).await?.is_some_and(|object| object.version == from.version);
                    return Err(if there { self.gate.tampered(visitor.trace, &from.at, "its bytes are gone") } else { Refusal::NoSuchKey });
                }
            }
        }
        self.blobs.sync().await?;
        Ok(blobs)
    }
}

/// Where a copy goes, and what it will be called.
#[derive(Debug)]
pub(crate) struct Copied {
    pub(crate) at: ObjectRef,
    /// Media type and metadata, when they are not the source's.
    pub(crate) described: Option<(String, BTreeMap<String, String>)>,
    pub(crate) conditions: Conditions,
}
