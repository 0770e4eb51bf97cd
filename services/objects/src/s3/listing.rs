//! Lists: of a bucket's objects, and of an upload's parts.

use policy::{Action, Resource};
use s3s::S3Result;
use s3s::dto::*;
use trust::ObjectRef;

use super::{Door, length, moment, reference};
use crate::gate::Visitor;
use crate::refusal::Refusal;
use crate::room::Shelf;

const PAGE_MAX: i32 = 1000;

impl Shelf {
    /// Deletes an object that `visitor` may delete.
    pub(crate) async fn delete(&self, visitor: &Visitor, at: &ObjectRef) -> Result<(), Refusal> {
        let object = self.look(visitor, Action::ObjectDelete, at).await?;
        let gone = self.ledger.remove(&object).await?;
        self.blobs.remove(&gone).await;
        Ok(())
    }
}

impl Door {
    /// A page of the keys of the person's own objects; under a job, only of those that the job names or that lie in its folder.
    pub(super) async fn list(&self, visitor: &Visitor, input: ListObjectsV2Input) -> Result<ListObjectsV2Output, Refusal> {
        self.shelf.gate.bucket(&input.bucket)?;
        self.shelf.gate.allow(visitor, Action::BucketList, &Resource::Bucket(input.bucket.clone())).await?;
        let page = input.max_keys.unwrap_or(PAGE_MAX).clamp(0, PAGE_MAX);
        let wanted = usize::try_from(page).unwrap_or(0);
        let prefix = input.prefix.clone().unwrap_or_default();
        let delimiter = input.delimiter.clone().filter(|d| !d.is_empty());
        let mut after = match &input.continuation_token {
            Some(token) => read_token(token)?,
            None => input.start_after.clone().unwrap_or_default(),
        };
        let (mut contents, mut folders): (Vec<Object>, Vec<CommonPrefix>) = (Vec::new(), Vec::new());
        let mut truncated = false;
        let Some(owner) = visitor.user().filter(|_| wanted > 0) else {
            return Ok(answer(input, page, contents, folders, None));
        };
        'pages: loop {
            let rows = self.shelf.ledger.list(&input.bucket, owner, &prefix, &after, 1000).await?;
            let last = rows.len() < 1000;
            for object in rows {
                let key = object.at.key.clone();
                let folder = delimiter.as_ref().and_then(|d| folder_of(&key, &prefix, d));
                if after_folder(&after, delimiter.as_deref(), &key) {
                    continue;
                }
                let known = folder.as_ref().is_some_and(|f| folders.last().and_then(|l| l.prefix.as_ref()) == Some(f));
                let hidden = visitor
                    .job()
                    .is_some_and(|job| !job.inputs.contains(&object.at) && (job.folder.is_empty() || object.at.folder() != job.folder));
                if known || hidden {
                    after = key;
                    continue;
                }
                if contents.len().saturating_add(folders.len()) == wanted {
                    truncated = true;
                    break 'pages;
                }
                match folder {
                    Some(folder) => {
                        after.clone_from(&folder);
                        folders.push(CommonPrefix { prefix: Some(folder) });
                    }
                    None => {
                        contents.push(entry(object));
                        after = key;
                    }
                }
            }
            if last {
                break;
            }
        }
        let next = truncated.then(|| write_token(&after));
        Ok(answer(input, page, contents, folders, next))
    }

    /// A page of an upload's parts.
    pub(super) async fn parts(&self, visitor: &Visitor, input: ListPartsInput) -> S3Result<ListPartsOutput> {
        let at = reference(&input.bucket, &input.key)?;
        let upload = self.shelf.own_upload(visitor, &at, &input.upload_id).await.map_err(Refusal::into_s3)?;
        self.shelf.may_write(visitor, Action::ObjectWrite, &at).await.map_err(Refusal::into_s3)?;
        let parts = self.shelf.ledger.parts(&upload.id).await.map_err(Refusal::into_s3)?;
        let page = input.max_parts.unwrap_or(PAGE_MAX).clamp(1, PAGE_MAX);
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

fn entry(object: crate::ledger::Object) -> Object {
    Object {
        key: Some(object.at.key),
        e_tag: Some(ETag::Strong(object.etag)),
        size: Some(length(object.size)),
        last_modified: moment(object.created_ms),
        ..Default::default()
    }
}

fn answer(
    input: ListObjectsV2Input,
    page: i32,
    contents: Vec<Object>,
    folders: Vec<CommonPrefix>,
    next: Option<String>,
) -> ListObjectsV2Output {
    ListObjectsV2Output {
        name: Some(input.bucket),
        prefix: input.prefix,
        delimiter: input.delimiter,
        start_after: input.start_after,
        continuation_token: input.continuation_token,
        max_keys: Some(page),
        key_count: i32::try_from(contents.len().saturating_add(folders.len())).ok(),
        is_truncated: Some(next.is_some()),
        next_continuation_token: next,
        contents: Some(contents),
        common_prefixes: Some(folders),
        ..Default::default()
    }
}

/// The common prefix under which `key` is shown, up to and with the first delimiter after `prefix`.
fn folder_of(key: &str, prefix: &str, delimiter: &str) -> Option<String> {
    let rest = key.strip_prefix(prefix)?;
    let end = rest.find(delimiter)?.saturating_add(delimiter.len()).saturating_add(prefix.len());
    key.get(..end).map(str::to_owned)
}

/// Whether `key` lies in the folder that the last page, or the last entry, ended with.
fn after_folder(after: &str, delimiter: Option<&str>, key: &str) -> bool {
    delimiter.is_some_and(|d| after.ends_with(d) && key.starts_with(after))
}

fn write_token(after: &str) -> String {
    hex::encode(after)
}

fn read_token(token: &str) -> Result<String, Refusal> {
    let bytes = hex::decode(token).ok();
    bytes.and_then(|b| String::from_utf8(b).ok()).ok_or_else(|| Refusal::Invalid("this continuation token was not given here".to_owned()))
}
