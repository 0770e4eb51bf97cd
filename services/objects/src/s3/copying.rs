//! CopyObject and UploadPartCopy, as S3 says them.
//!
//! Spec:       S3 API, CopyObject (`x-amz-copy-source`, `x-amz-metadata-directive`, conditions of source and target), UploadPartCopy.
//! Guarantees: G2.

use http::{HeaderMap, header};
use s3s::dto::*;
use s3s::{S3Error, S3ErrorCode, S3Result};

use super::multipart::PartWish;
use super::{Door, media_type, metadata, moment, reference};
use crate::copy::{Copied, Source};
use crate::gate::Visitor;
use crate::read::Conditions;
use crate::refusal::Refusal;
use crate::write::Announced;

impl Door {
    pub(super) async fn copy(&self, visitor: &Visitor, input: CopyObjectInput, headers: &HeaderMap) -> S3Result<CopyObjectOutput> {
        let conditions = Conditions {
            if_match: input.copy_source_if_match,
            if_none_match: input.copy_source_if_none_match,
            if_modified_since: input.copy_source_if_modified_since,
            if_unmodified_since: input.copy_source_if_unmodified_since,
        };
        let described = match input.metadata_directive.as_ref().map(MetadataDirective::as_str) {
            None | Some(MetadataDirective::COPY) => None,
            Some(MetadataDirective::REPLACE) => Some((media_type(input.content_type), metadata(input.metadata)?)),
            Some(_) => return Err(S3Error::with_message(S3ErrorCode::InvalidArgument, "x-amz-metadata-directive is COPY or REPLACE")),
        };
        let to = Copied { at: reference(&input.bucket, &input.key)?, described, conditions: of_target(headers)? };
        let source = Source { at: source(&input.copy_source)?, conditions };
        let object = self.shelf.copy(visitor, source, to).await.map_err(Refusal::into_s3)?;
        let result =
            CopyObjectResult { e_tag: Some(ETag::Strong(object.etag)), last_modified: moment(object.created_ms), ..Default::default() };
        Ok(CopyObjectOutput { copy_object_result: Some(result), ..Default::default() })
    }

    pub(super) async fn copy_part(&self, visitor: &Visitor, input: UploadPartCopyInput) -> S3Result<UploadPartCopyOutput> {
        let at = reference(&input.bucket, &input.key)?;
        let conditions = Conditions {
            if_match: input.copy_source_if_match,
            if_none_match: input.copy_source_if_none_match,
            if_modified_since: input.copy_source_if_modified_since,
            if_unmodified_since: input.copy_source_if_unmodified_since,
        };
        let source = Source { at: source(&input.copy_source)?, conditions };
        let reading = self.shelf.copied_range(visitor, &source, input.copy_source_range.as_deref()).await.map_err(Refusal::into_s3)?;
        let part = PartWish { upload: input.upload_id, number: input.part_number, length: reading.length() };
        let bytes = Box::pin(reading.stream());
        let etag = self.shelf.store_part(visitor, &at, part, Announced::default(), bytes).await.map_err(Refusal::into_s3)?;
        let last_modified = moment(self.shelf.clock.unix_ms());
        let result = CopyPartResult { e_tag: Some(ETag::Strong(etag)), last_modified, ..Default::default() };
        Ok(UploadPartCopyOutput { copy_part_result: Some(result), ..Default::default() })
    }
}

fn source(named: &CopySource) -> S3Result<trust::ObjectRef> {
    match named {
        CopySource::Bucket { bucket, key, version_id } if version_id.as_deref().is_none_or(|version| version == "null") => {
            reference(bucket, key)
        }
        CopySource::Bucket { .. } => Err(S3Error::with_message(S3ErrorCode::NoSuchVersion, "this store keeps one version of each object")),
        _ => Err(S3Error::with_message(S3ErrorCode::InvalidArgument, "x-amz-copy-source is BUCKET/KEY")),
    }
}

/// `If-Match` and `If-None-Match`, which speak of what is there at the target.
fn of_target(headers: &HeaderMap) -> S3Result<Conditions> {
    let read = |name: header::HeaderName| match headers.get(&name) {
        None => Ok(None),
        Some(value) => ETagCondition::parse_http_header(value.as_bytes())
            .map(Some)
            .map_err(|_| S3Error::with_message(S3ErrorCode::InvalidArgument, format!("{name} is not an entity tag"))),
    };
    Ok(Conditions { if_match: read(header::IF_MATCH)?, if_none_match: read(header::IF_NONE_MATCH)?, ..Conditions::default() })
}
