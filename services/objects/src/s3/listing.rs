//! Lists of a bucket's objects, by token and, as it was done before, by marker.
//!
//! Spec:       S3 API, ListObjectsV2 and ListObjects.

use s3s::dto::*;

use super::{Door, length, moment};
use crate::gate::Visitor;
use crate::refusal::Refusal;

const PAGE_MAX: i32 = 1000;

impl Door {
    /// A page of the keys of the person's own objects; under a job, only of those that the job names or that lie in its folder.
    pub(super) async fn list(&self, visitor: &Visitor, input: ListObjectsV2Input) -> Result<ListObjectsV2Output, Refusal> {
        self.may_look(visitor, &input.bucket).await?;
        let page = page_of(input.max_keys, 0)?;
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
}

impl Door {
    /// The same by marker: the last key, or common prefix, that the page before ended with.
    pub(super) async fn list_by_marker(&self, visitor: &Visitor, input: ListObjectsInput) -> Result<ListObjectsOutput, Refusal> {
        let asked = ListObjectsV2Input {
            bucket: input.bucket,
            prefix: input.prefix,
            delimiter: input.delimiter,
            start_after: input.marker.clone(),
            max_keys: input.max_keys,
            ..Default::default()
        };
        let found = self.list(visitor, asked).await?;
        let next_marker = found.next_continuation_token.as_deref().map(read_token).transpose()?;
        Ok(ListObjectsOutput {
            name: found.name,
            prefix: found.prefix,
            delimiter: found.delimiter,
            marker: Some(input.marker.unwrap_or_default()),
            max_keys: found.max_keys,
            is_truncated: found.is_truncated,
            next_marker,
            contents: found.contents,
            common_prefixes: found.common_prefixes,
            ..Default::default()
        })
    }
}

/// Entries of a page: as many as asked for, at most a thousand.
pub(super) fn page_of(asked: Option<i32>, least: i32) -> Result<i32, Refusal> {
    match asked {
        Some(asked) if asked < 0 => Err(Refusal::Argument("a page has 0 to 1,000 entries".to_owned())),
        asked => Ok(asked.unwrap_or(PAGE_MAX).clamp(least, PAGE_MAX)),
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
