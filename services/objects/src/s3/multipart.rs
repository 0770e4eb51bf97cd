//! Uploads in parts: begun, filled, completed or dropped, only by who began them, on the same authority.
//!
//! Guarantees: G3; the limits of the bucket hold for the sum of the parts (G6); H5 at every part and again at the end.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use contract::BoxError;
use futures::Stream;
use policy::Action;
use s3s::dto::CompletedPart;
use trust::{ObjectRef, clock::random_hex};

use crate::gate::{Visitor, Watch};
use crate::ledger::{Arrival, Object, Part, Upload};
use crate::read::Conditions;
use crate::refusal::Refusal;
use crate::room::Shelf;
use crate::write::{Announced, composite};

/// The smallest part that is not the last (S3 API, "Amazon S3 multipart upload limits"), in bytes.
const PART_BYTES_MIN: u64 = 5 * 1024 * 1024;
const PART_NUMBER_MAX: u32 = 10_000;
/// Uploads that one workload may have open for one person.
const OPEN_MAX: i64 = 100;

/// A part to store.
#[derive(Debug)]
pub(crate) struct PartWish {
    pub(crate) upload: String,
    pub(crate) number: i32,
    pub(crate) length: u64,
}

impl Shelf {
    pub(super) async fn begin_upload(
        &self,
        visitor: &Visitor,
        at: ObjectRef,
        content_type: String,
        metadata: BTreeMap<String, String>,
    ) -> Result<Upload, Refusal> {
        self.admit(visitor, Action::ObjectWrite, &at, &content_type).await?;
        let upload = Upload {
            id: random_hex(&*self.entropy, 16),
            at,
            principal: visitor.principal.to_string(),
            owner: visitor.user().map(str::to_owned),
            job: visitor.job().map(|job| job.id.clone()),
            content_type,
            metadata,
            created_ms: self.clock.unix_ms(),
            size: None,
        };
        self.ledger.open_upload(&upload, OPEN_MAX).await?;
        Ok(upload)
    }

    /// An upload that this visitor began, on this authority. Others' do not exist.
    pub(super) async fn own_upload(&self, visitor: &Visitor, at: &ObjectRef, id: &str) -> Result<Upload, Refusal> {
        let upload = self.ledger.upload(id).await?.ok_or(Refusal::NoSuchUpload)?;
        // What browsers fill part by part is not for services to fill.
        if upload.at == *at && upload.is_of(visitor) && upload.size.is_none() { Ok(upload) } else { Err(Refusal::NoSuchUpload) }
    }

    pub(super) async fn store_part<S>(
        &self,
        visitor: &Visitor,
        at: &ObjectRef,
        wish: PartWish,
        announced: Announced,
        bytes: S,
    ) -> Result<String, Refusal>
    where
        S: Stream<Item = Result<Bytes, BoxError>> + Unpin + Send,
    {
        let number = u32::try_from(wish.number).ok().filter(|n| (1..=PART_NUMBER_MAX).contains(n));
        let number = number.ok_or_else(|| Refusal::Invalid(format!("part numbers are 1 to {PART_NUMBER_MAX}")))?;
        let upload = self.own_upload(visitor, at, &wish.upload).await?;
        let admitted = self.admit(visitor, Action::ObjectWrite, at, &upload.content_type).await?;
        let limit = admitted.profile.object_bytes_max;
        let mut watch = Watch::new(Arc::clone(&self.gate), visitor.clone());
        let blob = self.receive(&mut watch, Some(wish.length), limit, announced, bytes).await?;
        let (id, etag) = (blob.id.clone(), blob.digest.to_hex());
        match self.ledger.put_part(&upload.id, &Part { number, at_ms: self.clock.unix_ms(), blob }, limit).await {
            Ok(gone) => {
                self.blobs.remove(&gone).await;
                Ok(etag)
            }
            Err(refusal) => {
                if !matches!(refusal, Refusal::Internal(_)) {
                    self.blobs.remove(&[id]).await;
                }
                Err(refusal)
            }
        }
    }

    pub(super) async fn complete_upload(
        &self,
        visitor: &Visitor,
        at: &ObjectRef,
        id: &str,
        named: &[CompletedPart],
        conditions: &Conditions,
    ) -> Result<Object, Refusal> {
        let upload = self.own_upload(visitor, at, id).await?;
        let admitted = self.admit(visitor, Action::ObjectWrite, at, &upload.content_type).await?;
        conditions.check_write(admitted.there.as_ref().map(|o| o.etag.as_str()))?;
        let stored = self.ledger.parts(&upload.id).await?;
        let mut blobs = Vec::with_capacity(named.len());
        let mut before = 0;
        for part in named {
            let number = part.part_number.and_then(|n| u32::try_from(n).ok()).filter(|n| *n > before);
            let number = number.ok_or_else(|| Refusal::Invalid("the parts are not in order".to_owned()))?;
            before = number;
            let found = stored.iter().find(|p| p.number == number);
            let found = found.filter(|p| part.e_tag.as_ref().is_some_and(|tag| tag.value() == p.blob.digest.to_hex()));
            let found = found.ok_or_else(|| Refusal::InvalidPart(number))?;
            blobs.push(found.blob.clone());
        }
        let all_but_last = blobs.len().saturating_sub(1);
        if blobs.is_empty() {
            return Err(Refusal::Invalid("an upload has at least one part".to_owned()));
        }
        if blobs.iter().take(all_but_last).any(|blob| blob.size < PART_BYTES_MIN) {
            return Err(Refusal::TooSmall);
        }
        let etag = format!("{}-{}", composite(&blobs).to_hex(), blobs.len());
        let object = self.object(visitor, &admitted, upload.at, (upload.content_type, upload.metadata), etag, blobs);
        Watch::new(Arc::clone(&self.gate), visitor.clone()).ask().await?;
        let note = self.note(visitor, &admitted.profile, &object)?;
        self.arrive(Arrival { object, replaces: admitted.there.map(|o| o.version), upload: Some(upload.id), grant: None, note }).await
    }

    pub(super) async fn drop_upload(&self, visitor: &Visitor, at: &ObjectRef, id: &str) -> Result<(), Refusal> {
        let upload = self.own_upload(visitor, at, id).await?;
        self.may_write(visitor, Action::ObjectWrite, at).await?;
        let gone = self.ledger.abort_upload(&upload.id).await?;
        self.blobs.remove(&gone).await;
        Ok(())
    }
}
