//! The S3 API for services: seventeen operations, everything else refused.
//!
//! `s3s` runs access checks only when an auth provider is set; here one is always set, the check admits nothing but a request that
//! carries a verified visitor and names a listed operation, and every operation demands the mark that only the check leaves.
//!
//! Spec:       Amazon S3 API Reference. Deviations: entity tags are SHA-256 (64 digits), or SHA-256 over the parts' digests with `-N`;
//!             a list shows the person's own objects; signatures are not looked at, since the guard's SVID says who calls.
//! Guarantees: G2, G3, G9.

mod copying;
mod deleting;
mod listing;
mod multipart;
mod uploads;

use std::collections::BTreeMap;
use std::sync::Arc;

use contract::Body;
use futures::TryStreamExt;
use http::{Extensions, HeaderMap, Request, Response, header};
use http_body_util::{BodyExt, BodyStream, StreamBody};
use policy::{Action, Resource};
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::SimpleAuth;
use s3s::config::{S3Config, StaticConfigProvider};
use s3s::dto::*;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result};
use time::OffsetDateTime;
use trust::{ObjectRef, clock::random_hex};

use crate::chunked::{self, Trailers};
use crate::gate::Visitor;
use crate::grant::REGION;
use crate::read::Conditions;
use crate::refusal::Refusal;
use crate::room::Shelf;
use crate::write::{Announced, Incoming};

const OPERATIONS: &[&str] = &[
    "GetObject",
    "HeadObject",
    "PutObject",
    "DeleteObject",
    "ListObjectsV2",
    "CreateMultipartUpload",
    "UploadPart",
    "CompleteMultipartUpload",
    "AbortMultipartUpload",
    "ListParts",
    "CopyObject",
    "UploadPartCopy",
    "DeleteObjects",
    "HeadBucket",
    "GetBucketLocation",
    "ListObjects",
    "ListMultipartUploads",
];
/// Bodies in XML are read whole: 1,000 keys to delete, or 10,000 parts.
const XML_BYTES_MAX: usize = 4 * 1024 * 1024;
const METADATA_BYTES_MAX: usize = 2048;

/// The operations over a shelf.
struct Door {
    shelf: Arc<Shelf>,
}

/// Left by the access check, and by nothing else.
#[derive(Debug, Clone)]
struct Admitted(Visitor);

/// What the framing of a request's body announced.
#[derive(Debug, Clone, Default)]
struct Framing {
    payload: Option<String>,
    in_trailers: Vec<String>,
    trailers: Trailers,
}

struct Check;

#[async_trait::async_trait]
impl S3Access for Check {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        let listed = OPERATIONS.contains(&cx.s3_op().name());
        match cx.extensions_mut().get::<Visitor>().cloned() {
            Some(visitor) if listed => {
                cx.extensions_mut().insert(Admitted(visitor));
                Ok(())
            }
            Some(_) => Err(S3Error::with_message(S3ErrorCode::NotImplemented, "this operation is not offered")),
            None => Err(S3Error::new(S3ErrorCode::AccessDenied)),
        }
    }
}

/// The service. Its access check cannot be left out.
pub(crate) fn service(shelf: Arc<Shelf>) -> S3Service {
    let nobody = random_hex(&*shelf.entropy, 32);
    let mut builder = S3ServiceBuilder::new(Door { shelf });
    // With an auth provider the access check runs. Nobody has this key: signatures are taken off before.
    builder.set_auth(SimpleAuth::from_single(nobody.clone(), nobody));
    builder.set_access(Check);
    let mut config = S3Config::default();
    config.xml_max_body_size = XML_BYTES_MAX;
    builder.set_config(Arc::new(StaticConfigProvider::new(Arc::new(config))));
    builder.build()
}

/// Answers an S3 request of `visitor`.
pub(crate) async fn call(service: &S3Service, visitor: Visitor, request: Request<Body>) -> Result<Response<Body>, Refusal> {
    let (mut head, body) = request.into_parts();
    let (framing, body) = unframed(&mut head.headers, body)?;
    head.extensions = Extensions::new();
    head.extensions.insert(visitor);
    head.extensions.insert(framing);
    let request = Request::from_parts(head, s3s::Body::http_body_unsync(body));
    let response = service.call(request).await.map_err(|error| Refusal::Internal(format!("{error:?}").into()))?;
    Ok(response.map(BodyExt::boxed_unsync))
}

/// Takes dummy signatures and `aws-chunked` framing off.
fn unframed(headers: &mut HeaderMap, body: Body) -> Result<(Framing, Body), Refusal> {
    for name in ["authorization", "x-amz-date", "x-amz-security-token"] {
        headers.remove(name);
    }
    let text = |headers: &HeaderMap, name: &str| headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let mut framing = Framing::default();
    let Some(payload) = text(headers, "x-amz-content-sha256") else { return Ok((framing, body)) };
    headers.remove("x-amz-content-sha256");
    if !payload.starts_with("STREAMING-") {
        framing.payload = (payload != "UNSIGNED-PAYLOAD").then_some(payload);
        return Ok((framing, body));
    }
    let length = text(headers, "x-amz-decoded-content-length").and_then(|t| t.parse::<u64>().ok());
    let length = length.ok_or_else(|| Refusal::Invalid("x-amz-decoded-content-length is missing".to_owned()))?;
    framing.in_trailers =
        text(headers, "x-amz-trailer").map(|t| t.split(',').map(|n| n.trim().to_ascii_lowercase()).collect()).unwrap_or_default();
    for name in ["x-amz-decoded-content-length", "x-amz-trailer", "content-encoding"] {
        headers.remove(name);
    }
    headers.insert(header::CONTENT_LENGTH, length.into());
    let source = BodyStream::new(body).try_filter_map(|frame| async move { Ok(frame.into_data().ok()) });
    let data = chunked::decoded(Box::pin(source), framing.trailers.clone());
    Ok((framing, StreamBody::new(data.map_ok(http_body::Frame::data)).boxed_unsync()))
}

impl Door {
    /// Whether `visitor` may look at a bucket at all; whoever may list it may.
    async fn may_look(&self, visitor: &Visitor, bucket: &str) -> Result<(), Refusal> {
        self.shelf.gate.bucket(bucket)?;
        self.shelf.gate.allow(visitor, Action::BucketList, &Resource::Bucket(bucket.to_owned())).await
    }
}

fn visitor(extensions: &Extensions) -> S3Result<Visitor> {
    extensions.get::<Admitted>().map(|admitted| admitted.0.clone()).ok_or_else(|| S3Error::new(S3ErrorCode::AccessDenied))
}

fn reference(bucket: &str, key: &str) -> S3Result<ObjectRef> {
    ObjectRef::new(bucket, key).map_err(|error| Refusal::Invalid(error.to_string()).into_s3())
}

fn moment(unix_ms: u64) -> Option<Timestamp> {
    let seconds = i64::try_from(unix_ms / 1000).ok()?;
    OffsetDateTime::from_unix_timestamp(seconds).ok().map(Timestamp::from)
}

fn length(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn announced(extensions: &Extensions, md5: Option<String>, sums: [(&'static str, Option<String>); 5]) -> Announced {
    let framing = extensions.get::<Framing>().cloned().unwrap_or_default();
    let all = sums.into_iter().chain([("md5", md5)]);
    let values = all.filter_map(|(name, value)| Some((name, value?))).collect();
    Announced { values, payload: framing.payload, in_trailers: framing.in_trailers, trailers: framing.trailers }
}

fn content(length: Option<i64>, body: Option<StreamingBlob>) -> S3Result<(u64, StreamingBlob)> {
    let length = length.and_then(|n| u64::try_from(n).ok());
    let length = length.ok_or_else(|| S3Error::new(S3ErrorCode::MissingContentLength))?;
    Ok((length, body.unwrap_or_else(|| StreamingBlob::from(s3s::Body::empty()))))
}

fn metadata(given: Option<Metadata>) -> S3Result<BTreeMap<String, String>> {
    let metadata: BTreeMap<String, String> = given.unwrap_or_default().into_iter().collect();
    let bytes: usize = metadata.iter().map(|(name, value)| name.len().saturating_add(value.len())).sum();
    if bytes > METADATA_BYTES_MAX { Err(S3Error::new(S3ErrorCode::MetadataTooLarge)) } else { Ok(metadata) }
}

fn media_type(given: Option<ContentType>) -> String {
    given.unwrap_or_else(|| "application/octet-stream".to_owned())
}

#[async_trait::async_trait]
impl S3 for Door {
    async fn get_object(&self, req: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let visitor = visitor(&req.extensions)?;
        let input = req.input;
        let at = reference(&input.bucket, &input.key)?;
        let conditions = Conditions {
            if_match: input.if_match,
            if_none_match: input.if_none_match,
            if_modified_since: input.if_modified_since,
            if_unmodified_since: input.if_unmodified_since,
        };
        let reading = self.shelf.open(&visitor, Action::ObjectRead, &at, input.range, &conditions).await.map_err(Refusal::into_s3)?;
        let object = reading.object.clone();
        let output = GetObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            content_length: Some(length(reading.length())),
            content_range: input.range.map(|_| reading.content_range()),
            content_type: Some(object.content_type),
            e_tag: Some(ETag::Strong(object.etag)),
            last_modified: moment(object.created_ms),
            metadata: Some(object.metadata.into_iter().collect()),
            body: Some(StreamingBlob::from(s3s::Body::http_body_unsync(StreamBody::new(reading.stream().map_ok(http_body::Frame::data))))),
            ..Default::default()
        };
        Ok(S3Response::new(output))
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let visitor = visitor(&req.extensions)?;
        let input = req.input;
        let at = reference(&input.bucket, &input.key)?;
        let object = self.shelf.look(&visitor, Action::ObjectRead, &at).await.map_err(Refusal::into_s3)?;
        let conditions = Conditions {
            if_match: input.if_match,
            if_none_match: input.if_none_match,
            if_modified_since: input.if_modified_since,
            if_unmodified_since: input.if_unmodified_since,
        };
        conditions.check_read(&object).map_err(Refusal::into_s3)?;
        Ok(S3Response::new(HeadObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            content_length: Some(length(object.size)),
            content_type: Some(object.content_type),
            e_tag: Some(ETag::Strong(object.etag)),
            last_modified: moment(object.created_ms),
            metadata: Some(object.metadata.into_iter().collect()),
            ..Default::default()
        }))
    }

    async fn put_object(&self, req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let visitor = visitor(&req.extensions)?;
        let input = req.input;
        let sums = [
            ("crc32", input.checksum_crc32),
            ("crc32c", input.checksum_crc32c),
            ("crc64nvme", input.checksum_crc64nvme),
            ("sha1", input.checksum_sha1),
            ("sha256", input.checksum_sha256),
        ];
        let announced = announced(&req.extensions, input.content_md5, sums);
        let (length, bytes) = content(input.content_length, input.body)?;
        let incoming = Incoming {
            at: reference(&input.bucket, &input.key)?,
            content_type: media_type(input.content_type),
            metadata: metadata(input.metadata)?,
            length: Some(length),
            conditions: Conditions { if_match: input.if_match, if_none_match: input.if_none_match, ..Conditions::default() },
            grant: None,
        };
        let object = self.shelf.put(&visitor, Action::ObjectWrite, incoming, announced, bytes).await.map_err(Refusal::into_s3)?;
        Ok(S3Response::new(PutObjectOutput { e_tag: Some(ETag::Strong(object.etag)), ..Default::default() }))
    }

    async fn copy_object(&self, req: S3Request<CopyObjectInput>) -> S3Result<S3Response<CopyObjectOutput>> {
        let visitor = visitor(&req.extensions)?;
        self.copy(&visitor, req.input, &req.headers).await.map(S3Response::new)
    }

    async fn delete_object(&self, req: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        let visitor = visitor(&req.extensions)?;
        self.delete_one(&visitor, req.input).await?;
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn delete_objects(&self, req: S3Request<DeleteObjectsInput>) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let visitor = visitor(&req.extensions)?;
        self.delete_many(&visitor, req.input).await.map(S3Response::new)
    }

    async fn head_bucket(&self, req: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        self.may_look(&visitor(&req.extensions)?, &req.input.bucket).await.map_err(Refusal::into_s3)?;
        Ok(S3Response::new(HeadBucketOutput { bucket_region: Some(REGION.to_owned()), ..Default::default() }))
    }

    async fn get_bucket_location(&self, req: S3Request<GetBucketLocationInput>) -> S3Result<S3Response<GetBucketLocationOutput>> {
        self.may_look(&visitor(&req.extensions)?, &req.input.bucket).await.map_err(Refusal::into_s3)?;
        let location_constraint = Some(BucketLocationConstraint::from(REGION.to_owned()));
        Ok(S3Response::new(GetBucketLocationOutput { location_constraint }))
    }

    async fn list_objects(&self, req: S3Request<ListObjectsInput>) -> S3Result<S3Response<ListObjectsOutput>> {
        let visitor = visitor(&req.extensions)?;
        self.list_by_marker(&visitor, req.input).await.map(S3Response::new).map_err(Refusal::into_s3)
    }

    async fn list_objects_v2(&self, req: S3Request<ListObjectsV2Input>) -> S3Result<S3Response<ListObjectsV2Output>> {
        let visitor = visitor(&req.extensions)?;
        self.list(&visitor, req.input).await.map(S3Response::new).map_err(Refusal::into_s3)
    }

    async fn list_multipart_uploads(&self, req: S3Request<ListMultipartUploadsInput>) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        let visitor = visitor(&req.extensions)?;
        self.uploads(&visitor, req.input).await.map(S3Response::new).map_err(Refusal::into_s3)
    }

    async fn create_multipart_upload(
        &self,
        req: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let visitor = visitor(&req.extensions)?;
        let input = req.input;
        let at = reference(&input.bucket, &input.key)?;
        let (content_type, metadata) = (media_type(input.content_type), metadata(input.metadata)?);
        let upload = self.shelf.begin_upload(&visitor, at, content_type, metadata).await.map_err(Refusal::into_s3)?;
        let (bucket, key) = (Some(upload.at.bucket), Some(upload.at.key));
        Ok(S3Response::new(CreateMultipartUploadOutput { bucket, key, upload_id: Some(upload.id), ..Default::default() }))
    }

    async fn upload_part(&self, req: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        let visitor = visitor(&req.extensions)?;
        let input = req.input;
        let sums = [
            ("crc32", input.checksum_crc32),
            ("crc32c", input.checksum_crc32c),
            ("crc64nvme", input.checksum_crc64nvme),
            ("sha1", input.checksum_sha1),
            ("sha256", input.checksum_sha256),
        ];
        let announced = announced(&req.extensions, input.content_md5, sums);
        let at = reference(&input.bucket, &input.key)?;
        let (length, bytes) = content(input.content_length, input.body)?;
        let part = multipart::PartWish { upload: input.upload_id, number: input.part_number, length };
        let etag = self.shelf.store_part(&visitor, &at, part, announced, bytes).await.map_err(Refusal::into_s3)?;
        Ok(S3Response::new(UploadPartOutput { e_tag: Some(ETag::Strong(etag)), ..Default::default() }))
    }

    async fn upload_part_copy(&self, req: S3Request<UploadPartCopyInput>) -> S3Result<S3Response<UploadPartCopyOutput>> {
        let visitor = visitor(&req.extensions)?;
        self.copy_part(&visitor, req.input).await.map(S3Response::new)
    }

    async fn complete_multipart_upload(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let visitor = visitor(&req.extensions)?;
        let input = req.input;
        let at = reference(&input.bucket, &input.key)?;
        let conditions = Conditions { if_match: input.if_match, if_none_match: input.if_none_match, ..Conditions::default() };
        let parts = input.multipart_upload.and_then(|m| m.parts).unwrap_or_default();
        let object = self.shelf.complete_upload(&visitor, &at, &input.upload_id, &parts, &conditions).await.map_err(Refusal::into_s3)?;
        let (bucket, key) = (Some(object.at.bucket), Some(object.at.key));
        Ok(S3Response::new(CompleteMultipartUploadOutput { bucket, key, e_tag: Some(ETag::Strong(object.etag)), ..Default::default() }))
    }

    async fn abort_multipart_upload(&self, req: S3Request<AbortMultipartUploadInput>) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let visitor = visitor(&req.extensions)?;
        let at = reference(&req.input.bucket, &req.input.key)?;
        self.shelf.drop_upload(&visitor, &at, &req.input.upload_id).await.map_err(Refusal::into_s3)?;
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }

    async fn list_parts(&self, req: S3Request<ListPartsInput>) -> S3Result<S3Response<ListPartsOutput>> {
        let visitor = visitor(&req.extensions)?;
        self.parts(&visitor, req.input).await.map(S3Response::new)
    }
}
