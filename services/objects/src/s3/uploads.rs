//! Lists of what is under way: a person's uploads in parts, and the parts of one.
//!
//! Spec:       S3 API, ListMultipartUploads and ListParts. Deviation: a list shows only what the asker could go on with.
//! Guarantees: G2, G3.

use policy::Action;
use s3s::S3Result;
use s3s::dto::*;

use super::listing::page_of;
use super::{Door, length, moment, reference};
use crate::gate::Visitor;
use crate::refusal::Refusal;

impl Door {
    /// A page of the uploads that this visitor began, on this authority.
    pub(super) async fn uploads(&self, visitor: &Visitor, input: ListMultipartUploadsInput) -> Result<ListMultipartUploadsOutput, Refusal> {
        self.may_look(visitor, &input.bucket).await?;
        let page = page_of(input.max_uploads, 0)?;
        let prefix = input.prefix.clone().unwrap_or_default();
        if input.delimiter.as_ref().is_some_and(|d| !d.is_empty()) {
            return Err(Refusal::Argument("uploads are listed without a delimiter".to_owned()));
        }
        let marker = (input.key_marker.clone().unwrap_or_default(), input.upload_id_marker.clone().unwrap_or_default());
        let mut open = self.shelf.ledger.open_uploads(&input.bucket, &visitor.principal.to_string()).await?;
        open.retain(|upload| {
            let place = (&upload.at.key, &upload.id);
            // With a key marker alone, all of that key come before it (S3 API, ListMultipartUploads).
            let after = if marker.1.is_empty() { *place.0 > marker.0 } else { place > (&marker.0, &marker.1) };
            upload.is_of(visitor) && upload.size.is_none() && upload.at.key.starts_with(&prefix) && after
        });
        let truncated = open.len() > usize::try_from(page).unwrap_or(0);
        open.truncate(usize::try_from(page).unwrap_or(0));
        let last = open.last().filter(|_| truncated).map(|upload| (upload.at.key.clone(), upload.id.clone()));
        let (next_key_marker, next_upload_id_marker) = last.unzip();
        let uploads = open.into_iter().map(|upload| MultipartUpload {
            key: Some(upload.at.key),
            upload_id: Some(upload.id),
            initiated: moment(upload.created_ms),
            ..Default::default()
        });
        Ok(ListMultipartUploadsOutput {
            bucket: Some(input.bucket),
            prefix: input.prefix,
            key_marker: input.key_marker,
            upload_id_marker: input.upload_id_marker,
            next_key_marker,
            next_upload_id_marker,
            max_uploads: Some(page),
            is_truncated: Some(truncated),
            uploads: Some(uploads.collect()),
            ..Default::default()
        })
    }

    /// A page of an upload's parts.
    pub(super) async fn parts(&self, visitor: &Visitor, input: ListPartsInput) -> S3Result<ListPartsOutput> {
        let at = reference(&input.bucket, &input.key)?;
        let upload = self.shelf.own_upload(visitor, &at, &input.upload_id).await.map_err(Refusal::into_s3)?;
        self.shelf.may_write(visitor, Action::ObjectWrite, &at).await.map_err(Refusal::into_s3)?;
        let parts = self.shelf.ledger.parts(&upload.id).await.map_err(Refusal::into_s3)?;
        let page = page_of(input.max_parts, 1).map_err(Refusal::into_s3)?;
        let marker = input.part_number_marker.unwrap_or(0);
        let number = |part: &crate::ledger::Part| i32::try_from(part.number).unwrap_or(i32::MAX);
        let mut left = parts.into_iter().filter(|part| number(part) > marker);
        let shown: Vec<Part> = left
            .by_ref()
            .take(usize::try_from(page).unwrap_or(1))
            .map(|part| Part {
                part_number: Some(number(&part)),
                size: Some(length(part.blob.size)),
                e_tag: Some(ETag::Strong(part.blob.digest.to_hex())),
                last_modified: moment(part.at_ms),
                ..Default::default()
            })
            .collect();
        Ok(ListPartsOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(input.upload_id),
            max_parts: Some(page),
            part_number_marker: Some(marker),
            next_part_number_marker: shown.last().and_then(|part| part.part_number),
            is_truncated: Some(left.next().is_some()),
            parts: Some(shown),
            ..Default::default()
        })
    }
}
