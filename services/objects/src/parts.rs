//! Uploads in parts from browsers, which break and go on: each part by a presigned URL of its own, the whole as granted or not at all.
//!
//! An upload is for one person, one object, one size and one type. The store cuts the size into parts, so number and size of each part
//! follow from it, and all of them together can be nothing but the size that was granted. Whoever asks again, on the same authority, for
//! the same object, hears which parts are there and gets URLs for those that are not. With the last part the object is there, in one
//! transaction: there is no call to complete it that could be lost, made early, or made by somebody else.
//!
//! Spec:       S3 API, UploadPart by presigned URL (`partNumber`, `uploadId`). Decision: docs/adr/0008.
//! Guarantees: G3, G5 and G6 for parts, G8 (each URL works once), G11; N2.

use std::collections::BTreeMap;

use contract::objects::{PresignParts, PresignedPart, PresignedParts, StoredPart};
use contract::{Body, body};
use futures::TryStreamExt;
use http::{Request, Response, StatusCode, header};
use http_body_util::BodyStream;
use manifest::Verdict;
use policy::Action;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use trust::{ObjectRef, clock::random_hex, limits};

use crate::blob::Blob;
use crate::created::UPLOAD_AGE_MS_MAX;
use crate::gate::{Visitor, Watch};
use crate::ledger::{Arrival, Grant, Part, Upload};
use crate::redeem::set;
use crate::refusal::Refusal;
use crate::room::Shelf;
use crate::write::{Announced, composite};

/// Bytes of each part but the last.
pub(crate) const PART_BYTES: u64 = 8 * 1024 * 1024;
/// URLs in one answer.
pub(crate) const PARTS_AT_ONCE: usize = 32;
/// Unfinished uploads that one person may have through one service.
const OPEN_MAX: i64 = 20;

/// Number and size of each part of a whole of `size` bytes.
fn plan(size: u64) -> impl Iterator<Item = (u32, u64)> {
    let starts = (0..size).step_by(usize::try_from(PART_BYTES).unwrap_or(usize::MAX));
    starts.zip(1..).map(move |(start, number)| (number, size.saturating_sub(start).min(PART_BYTES)))
}

impl Shelf {
    /// `POST /BUCKET/KEY?presign-parts`.
    pub(crate) async fn presign_parts(&self, visitor: &Visitor, at: &ObjectRef, request: Request<Body>) -> Result<Response<Body>, Refusal> {
        let wish: PresignParts = body::parse_json(request.into_body()).await?;
        if !(1..=limits::GRANT_LIFE_S_MAX).contains(&wish.expires_s) {
            return Err(Refusal::Invalid(format!("expires_s is 1 to {}", limits::GRANT_LIFE_S_MAX)));
        }
        if wish.content_length == 0 || !wish.content_type.bytes().all(|b| b.is_ascii_graphic() || b == b' ') {
            return Err(Refusal::Invalid("an upload in parts has at least one byte, and a media type".to_owned()));
        }
        let admitted = self.may_write(visitor, Action::ObjectPresignPut, at).await?;
        if let Some(there) = &admitted.there
            && there.size == wish.content_length
            && there.content_type == wish.content_type
            && there.owner.as_deref() == visitor.user()
        {
            let complete =
                PresignedParts { complete: true, part_bytes: PART_BYTES, stored: Vec::new(), parts: Vec::new(), removed_at: String::new() };
            return Ok(body::json(StatusCode::OK, &complete));
        }
        Self::takes(&admitted, &wish.content_type)?;
        if wish.content_length > admitted.profile.object_bytes_max {
            return Err(Refusal::TooLarge);
        }
        let upload = self.open_for_parts(visitor, at, &wish).await?;
        let stored = self.ledger.parts(&upload.id).await?;
        let there = stored.iter().fold(0, |sum: u64, part| sum.saturating_add(part.blob.size));
        self.blobs.room_for(wish.content_length.saturating_sub(there))?;
        let missing = plan(wish.content_length).filter(|(number, _)| !stored.iter().any(|part| part.number == *number));
        let created_s = self.clock.unix_s();
        let grants: Vec<Grant> = missing
            .take(PARTS_AT_ONCE)
            .map(|(number, bytes)| Grant {
                id: format!("PG{}", random_hex(&*self.entropy, 16)),
                method: "PUT".to_owned(),
                at: at.clone(),
                content_length: Some(bytes),
                content_type: None,
                principal: visitor.principal.clone(),
                authority: visitor.authority.clone(),
                trace: visitor.trace,
                created_s,
                expires_s: created_s.saturating_add(wish.expires_s),
                used: false,
                part: Some((upload.id.clone(), number)),
            })
            .collect();
        self.ledger.keep_grants(&grants).await?;
        let mut parts = Vec::with_capacity(grants.len());
        for grant in &grants {
            let number = grant.part.as_ref().map(|(_, number)| *number).unwrap_or_default();
            parts.push(PresignedPart { number, bytes: grant.content_length.unwrap_or_default(), url: self.url(grant)?.url });
        }
        let answer = PresignedParts {
            complete: false,
            part_bytes: PART_BYTES,
            stored: stored.into_iter().map(|part| StoredPart { number: part.number, sha256: part.blob.digest.to_hex() }).collect(),
            parts,
            removed_at: moment(upload.created_ms.saturating_add(UPLOAD_AGE_MS_MAX))?,
        };
        Ok(body::json(StatusCode::OK, &answer))
    }

    /// The upload that this visitor has open for exactly this, or a new one in place of one for something else.
    async fn open_for_parts(&self, visitor: &Visitor, at: &ObjectRef, wish: &PresignParts) -> Result<Upload, Refusal> {
        let open = self.ledger.open_uploads(&at.bucket, &visitor.principal.to_string()).await?;
        let mut mine = open.into_iter().filter(|upload| upload.at == *at && upload.is_of(visitor) && upload.size.is_some());
        if let Some(upload) = mine.next() {
            if upload.size == Some(wish.content_length) && upload.content_type == wish.content_type {
                return Ok(upload);
            }
            let gone = self.ledger.abort_upload(&upload.id).await?;
            self.blobs.remove(&gone).await;
        }
        let upload = Upload {
            id: random_hex(&*self.entropy, 16),
            at: at.clone(),
            principal: visitor.principal.to_string(),
            owner: visitor.user().map(str::to_owned),
            job: visitor.job().map(|job| job.id.clone()),
            content_type: wish.content_type.clone(),
            metadata: BTreeMap::new(),
            created_ms: self.clock.unix_ms(),
            size: Some(wish.content_length),
        };
        self.ledger.open_upload(&upload, OPEN_MAX).await?;
        Ok(upload)
    }

    /// A part, by its URL. The policy is asked as for a whole upload, with the authority that the grant keeps.
    pub(crate) async fn redeem_part(&self, visitor: &Visitor, grant: Grant, body: Body) -> Result<Response<Body>, Refusal> {
        let (id, number) = grant.part.as_ref().ok_or(Refusal::NoSuchUpload)?;
        let upload = self.ledger.upload(id).await?.filter(|upload| upload.at == grant.at && upload.is_of(visitor));
        let upload = upload.ok_or(Refusal::NoSuchUpload)?;
        let size = upload.size.ok_or(Refusal::NoSuchUpload)?;
        let count = plan(size).count();
        let admitted = self.admit(visitor, Action::ObjectPresignPut, &grant.at, &upload.content_type).await?;
        let bytes = Box::pin(BodyStream::new(body).try_filter_map(|frame| async move { Ok(frame.into_data().ok()) }));
        let mut watch = Watch::new(std::sync::Arc::clone(&self.gate), visitor.clone());
        // Without a length nothing is granted; what a part may be at most is what the plan says.
        let length = grant.content_length.ok_or(Refusal::NoSuchUpload)?;
        let blob = self.receive(&mut watch, Some(length), admitted.profile.object_bytes_max.min(size), Announced::default(), bytes).await?;
        let (blob_id, etag) = (blob.id.clone(), blob.digest.to_hex());
        let part = Part { number: *number, at_ms: self.clock.unix_ms(), blob };
        let whole = |blobs: Vec<Blob>| {
            let etag = format!("{}-{}", composite(&blobs).to_hex(), blobs.len());
            let described = (upload.content_type.clone(), BTreeMap::new());
            let mut object = self.object(visitor, &admitted, upload.at.clone(), described, etag, blobs);
            // A stranger's bytes are untyped wherever they come to lie.
            object.verdict = Verdict::Untyped;
            let note = self.note(visitor, &admitted.profile, &object)?;
            let replaces = admitted.there.as_ref().map(|there| there.version.clone());
            Ok(Arrival { object, replaces, upload: Some(upload.id.clone()), grant: None, note })
        };
        match self.ledger.put_granted_part((&upload.id, size, count), &part, &grant.id, whole).await {
            Ok((gone, complete)) => {
                self.blobs.remove(&gone).await;
                if complete {
                    self.stirred.notify_one();
                }
                let mut response = body::plain(StatusCode::OK);
                set(response.headers_mut(), header::ETAG, &format!("\"{etag}\""));
                Ok(response)
            }
            Err(refusal) => {
                // Of a commit whose outcome is unknown the next start's sweep judges.
                if !matches!(refusal, Refusal::Internal(_)) {
                    self.blobs.remove(&[blob_id]).await;
                }
                Err(refusal)
            }
        }
    }

    /// Drops what was sent of an object that its person has deleted before it was whole.
    pub(crate) async fn forget_parts(&self, visitor: &Visitor, at: &ObjectRef) -> Result<(), Refusal> {
        let open = self.ledger.open_uploads(&at.bucket, &visitor.principal.to_string()).await?;
        for upload in open.iter().filter(|upload| upload.at == *at && upload.size.is_some() && upload.is_of(visitor)) {
            let gone = self.ledger.abort_upload(&upload.id).await?;
            self.blobs.remove(&gone).await;
        }
        Ok(())
    }
}

fn moment(unix_ms: u64) -> Result<String, Refusal> {
    let at = OffsetDateTime::from_unix_timestamp(i64::try_from(unix_ms / 1000).unwrap_or(i64::MAX));
    at.ok().and_then(|at| at.format(&Rfc3339).ok()).ok_or_else(|| Refusal::Internal("not a time".into()))
}
