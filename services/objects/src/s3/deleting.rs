//! Deleting: one object, or up to a thousand, of which each is decided by itself.
//!
//! Spec:       S3 API, DeleteObject and DeleteObjects. Versions are not built: a version that is not `null` does not exist.
//! Guarantees: G2.

use policy::Action;
use s3s::dto::*;
use s3s::{S3Error, S3ErrorCode, S3Result};
use trust::ObjectRef;

use super::{Door, length, moment, reference};
use crate::gate::Visitor;
use crate::ledger::Object;
use crate::read::Conditions;
use crate::refusal::Refusal;
use crate::room::Shelf;

/// Keys of one request (S3 API, DeleteObjects).
const KEYS_MAX: usize = 1000;

/// What must hold of the object that is deleted.
#[derive(Debug, Default)]
pub(crate) struct Expected {
    conditions: Conditions,
    size: Option<i64>,
    modified: Option<Timestamp>,
}

impl Expected {
    fn check(&self, object: &Object) -> Result<(), Refusal> {
        self.conditions.check_write(Some(&object.etag))?;
        let as_said = self.size.is_none_or(|size| size == length(object.size))
            && self.modified.as_ref().is_none_or(|at| Some(at) == moment(object.created_ms).as_ref());
        if as_said { Ok(()) } else { Err(Refusal::Precondition) }
    }
}

impl Shelf {
    /// Deletes an object that `visitor` may delete; what is not there is deleted, whatever was expected of it.
    pub(crate) async fn delete(&self, visitor: &Visitor, at: &ObjectRef, expected: &Expected) -> Result<(), Refusal> {
        let object = match self.look(visitor, Action::ObjectDelete, at).await {
            Err(Refusal::NoSuchKey) => return self.forget_parts(visitor, at).await,
            other => other?,
        };
        expected.check(&object)?;
        let gone = self.ledger.remove(&object).await?;
        self.blobs.remove(&gone).await;
        self.forget_parts(visitor, at).await
    }
}

impl Door {
    pub(super) async fn delete_one(&self, visitor: &Visitor, input: DeleteObjectInput) -> S3Result<()> {
        let at = reference(&input.bucket, &input.key)?;
        unversioned(input.version_id.as_deref())?;
        let expected = Expected {
            conditions: Conditions { if_match: input.if_match, ..Conditions::default() },
            size: input.if_match_size,
            modified: input.if_match_last_modified_time,
        };
        self.shelf.delete(visitor, &at, &expected).await.map_err(Refusal::into_s3)
    }

    /// Each key by itself: one that is refused keeps no other from being deleted.
    pub(super) async fn delete_many(&self, visitor: &Visitor, input: DeleteObjectsInput) -> S3Result<DeleteObjectsOutput> {
        self.shelf.gate.bucket(&input.bucket).map_err(Refusal::into_s3)?;
        let quiet = input.delete.quiet.unwrap_or(false);
        if !(1..=KEYS_MAX).contains(&input.delete.objects.len()) {
            return Err(S3Error::with_message(S3ErrorCode::MalformedXML, format!("1 to {KEYS_MAX} keys are deleted in one go")));
        }
        let (mut deleted, mut errors) = (Vec::new(), Vec::new());
        for named in input.delete.objects {
            let key = named.key.clone();
            match self.delete_named(visitor, &input.bucket, named).await {
                Ok(()) if quiet => {}
                Ok(()) => deleted.push(DeletedObject { key: Some(key), ..Default::default() }),
                Err(error) => errors.push(Error {
                    code: Some(error.code().as_str().to_owned()),
                    message: error.message().map(str::to_owned),
                    key: Some(key),
                    ..Default::default()
                }),
            }
        }
        Ok(DeleteObjectsOutput { deleted: Some(deleted), errors: Some(errors), ..Default::default() })
    }

    async fn delete_named(&self, visitor: &Visitor, bucket: &str, named: ObjectIdentifier) -> S3Result<()> {
        let at = reference(bucket, &named.key)?;
        unversioned(named.version_id.as_deref())?;
        let if_match = named.e_tag.map(ETagCondition::ETag);
        let conditions = Conditions { if_match, ..Conditions::default() };
        let expected = Expected { conditions, size: named.size, modified: named.last_modified_time };
        self.shelf.delete(visitor, &at, &expected).await.map_err(Refusal::into_s3)
    }
}

fn unversioned(version: Option<&str>) -> S3Result<()> {
    match version {
        None | Some("" | "null") => Ok(()),
        Some(_) => Err(S3Error::with_message(S3ErrorCode::NoSuchVersion, "this store keeps one version of each object")),
    }
}
