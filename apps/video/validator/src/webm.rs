//! WebM and Matroska: the header, then the segment's parts one by one.
//!
//! Spec:       RFC 8794 section 8 (EBML header), RFC 9559 section 5 (elements), 6.2 (unknown sizes).
//! Guarantees: N4, I10 no attachments, no links to other files, no encryption; only a segment and its clusters may have
//!             no size; clusters with a size are stepped over, not read.
//! Not here:   the content of blocks.

mod element;
mod tracks;

use crate::{
    check::{CheckFault, duration},
    media::{Container, MediaInfo},
    read::{RandomRead, Source},
    rejection::Rejection,
};
use element::{
    ATTACHMENTS, BLOCK, BLOCK_GROUP, Budget, CHAPTER_EDITION, CHAPTER_SEGMENT, CHAPTERS, CLUSTER, CRC32, CUES, DOC_TYPE,
    DOC_TYPE_READ_VERSION, DURATION, EBML, EBML_MAX_ID, EBML_MAX_SIZE, EBML_READ_VERSION, ENCRYPTED_BLOCK, Element, Head, INFO, Id,
    NEXT_FILE, NEXT_UUID, POSITION, PREV_FILE, PREV_SIZE, PREV_UUID, SEEK_HEAD, SEGMENT, SILENT_TRACKS, SIMPLE_BLOCK, TAGS, TIMESTAMP,
    TIMESTAMP_SCALE, TRACKS, VOID,
};
use tracks::Picture;

/// The most elements beside clusters and cues.
const ELEMENTS_MAX: u32 = 10_000;
/// The most elements in the cues: five for each of 100,000 entries.
const CUE_ELEMENTS_MAX: u32 = 500_000;
/// The most clusters.
const CLUSTERS_MAX: u32 = 100_000;
/// The most elements in clusters that must be walked.
const BLOCKS_MAX: u32 = 8_000_000;

/// What is known of a file so far.
struct Film {
    parts: Budget,
    clusters: Budget,
    blocks: Budget,
    info: Option<Info>,
    picture: Option<Picture>,
    seen: Vec<Id>,
    /// The latest time stamp, in units of the scale.
    latest: u64,
}

/// What `Info` says.
struct Info {
    scale_ns: u64,
    duration: f64,
}

/// Where a part's content lies.
#[derive(Clone, Copy)]
struct Content {
    start: u64,
    len: u64,
}

/// Checks a WebM or Matroska file.
pub(crate) async fn check<R: RandomRead>(source: &mut Source<R>) -> Result<MediaInfo, CheckFault<R::Fault>> {
    let mut film = Film {
        parts: Budget::new(ELEMENTS_MAX),
        clusters: Budget::new(CLUSTERS_MAX),
        blocks: Budget::new(BLOCKS_MAX),
        info: None,
        picture: None,
        seen: Vec::new(),
        latest: 0,
    };
    let (head, at) = head(source, 0, EBML).await?;
    let header = known(&head, at, source.size())?;
    let bytes = part(source, EBML, header, 4096).await?;
    document(&Element { id: EBML, body: &bytes }, &mut film.parts)?;
    let start = header.start.saturating_add(header.len);
    if start >= source.size() {
        return Err(Rejection::NoIndex { part: "Segment" }.into());
    }
    let (head, at) = self::head(source, start, SEGMENT).await?;
    if head.id != SEGMENT {
        return Err(Rejection::UnknownPart { part: head.id.to_string() }.into());
    }
    let end = match head.size {
        Some(_) => {
            let content = known(&head, at, source.size())?;
            content.start.saturating_add(content.len)
        }
        None => source.size(),
    };
    if end < source.size() {
        return Err(Rejection::TrailingData { bytes: source.size().saturating_sub(end) }.into());
    }
    let mut offset = at;
    while offset < end {
        let (head, at) = self::head(source, offset, SEGMENT).await?;
        offset = match head.size {
            Some(_) => {
                let content = known(&head, at, end)?;
                segment_part(source, &mut film, head.id, content).await?;
                content.start.saturating_add(content.len)
            }
            None if head.id == CLUSTER => {
                film.begin_cluster()?;
                cluster(source, &mut film, at, end, true).await?
            }
            None => return Err(Rejection::UnknownSize { part: head.id.to_string() }.into()),
        };
    }
    Ok(film.judge()?)
}

impl Film {
    fn begin_cluster(&mut self) -> Result<(), Rejection> {
        self.clusters.spend()?;
        if self.picture.is_none() { Err(Rejection::NoIndex { part: "Tracks" }) } else { Ok(()) }
    }

    fn judge(self) -> Result<MediaInfo, Rejection> {
        let info = self.info.ok_or(Rejection::NoIndex { part: "Info" })?;
        let picture = self.picture.ok_or(Rejection::NoIndex { part: "Tracks" })?;
        if !self.seen.contains(&CLUSTER) {
            return Err(Rejection::NoMedia);
        }
        let ticks = if info.duration > 0.0 { info.duration } else { self.latest as f64 };
        let seconds = |ticks: f64| ticks * info.scale_ns as f64 / 1e9;
        if self.latest > 0 {
            duration(seconds(self.latest as f64))?;
        }
        Ok(MediaInfo {
            container: Container::Webm,
            video_codec: picture.codec,
            width: picture.width,
            height: picture.height,
            duration_s: duration(seconds(ticks))?,
        })
    }
}

/// Reads the head of an element inside of `parent`; gives back where its content begins.
async fn head<R: RandomRead>(source: &mut Source<R>, offset: u64, parent: Id) -> Result<(Head, u64), CheckFault<R::Fault>> {
    let bytes = source.peek(offset, Head::BYTES_MAX).await.map_err(CheckFault::Unreadable)?;
    match Head::parse(&bytes)? {
        Some(head) => Ok((head, offset.saturating_add(head.len as u64))),
        None => Err(Rejection::Truncated { part: parent.to_string(), missing: 1 }.into()),
    }
}

/// The content of an element with a size, if it ends before `end`.
fn known(head: &Head, start: u64, end: u64) -> Result<Content, Rejection> {
    let len = head.size.ok_or_else(|| Rejection::UnknownSize { part: head.id.to_string() })?;
    let room = end.saturating_sub(start);
    if len > room {
        return Err(Rejection::Truncated { part: head.id.to_string(), missing: len.saturating_sub(room) });
    }
    Ok(Content { start, len })
}

async fn part<R: RandomRead>(source: &mut Source<R>, id: Id, content: Content, limit: u64) -> Result<Vec<u8>, CheckFault<R::Fault>> {
    if content.len > limit {
        return Err(Rejection::PartTooLarge { part: id.to_string(), bytes: content.len, limit }.into());
    }
    let len = usize::try_from(content.len).unwrap_or(0);
    source.part(content.start, len).await.map_err(CheckFault::Unreadable)
}

/// RFC 8794 section 11.2.
fn document(header: &Element<'_>, budget: &mut Budget) -> Result<(), Rejection> {
    let mut kind = None;
    for element in budget.children(EBML, header.body)? {
        let at_most = |limit| match element.unsigned() {
            Ok(value) if (1..=limit).contains(&value) => Ok(()),
            _ => Err(header.malformed("it asks for a newer reader")),
        };
        match element.id {
            EBML_READ_VERSION => at_most(1)?,
            EBML_MAX_ID => at_most(4)?,
            EBML_MAX_SIZE => at_most(8)?,
            DOC_TYPE_READ_VERSION => at_most(4)?,
            DOC_TYPE => kind = Some(element.text()?),
            _ => (),
        }
    }
    if matches!(kind, Some("webm" | "matroska")) { Ok(()) } else { Err(header.malformed("it is no WebM or Matroska")) }
}

/// One child of the segment that has a size.
async fn segment_part<R: RandomRead>(
    source: &mut Source<R>,
    film: &mut Film,
    id: Id,
    content: Content,
) -> Result<(), CheckFault<R::Fault>> {
    if id == CLUSTER {
        film.begin_cluster()?;
        film.seen.push(CLUSTER);
        film.seen.dedup();
        // With a duration in the header nothing in here is needed: look whether it begins as a cluster, and step over.
        let walk = film.info.as_ref().is_none_or(|info| info.duration <= 0.0);
        let end = content.start.saturating_add(content.len);
        return cluster(source, film, content.start, end, walk).await.map(drop);
    }
    film.parts.spend()?;
    if matches!(id, VOID | CRC32) {
        return Ok(());
    }
    let may_repeat = id == SEEK_HEAD || id == TAGS;
    if film.seen.contains(&id) && !may_repeat {
        return Err(Rejection::Duplicate { part: id.to_string() }.into());
    }
    film.seen.push(id);
    let limit = match id {
        SEEK_HEAD | INFO => 1 << 20,
        TRACKS | TAGS | CHAPTERS => 4 << 20,
        CUES => 16 << 20,
        ATTACHMENTS => return Err(Rejection::Attachments.into()),
        _ => return Err(Rejection::UnknownPart { part: id.to_string() }.into()),
    };
    let body = part(source, id, content, limit).await?;
    match id {
        INFO => film.info = Some(info(&body, &mut film.parts)?),
        TRACKS => film.picture = Some(tracks::parse(&body)?),
        CUES => Budget::new(CUE_ELEMENTS_MAX).walk(id, &body, 1, &mut |_, _| Ok(()))?,
        _ => film.parts.walk(id, &body, 1, &mut |_, element| match element.id {
            CHAPTER_SEGMENT | CHAPTER_EDITION if id == CHAPTERS => Err(Rejection::ExternalMedia),
            _ => Ok(()),
        })?,
    }
    Ok(())
}

/// RFC 9559 section 5.1.2.
fn info(body: &[u8], budget: &mut Budget) -> Result<Info, Rejection> {
    let mut info = Info { scale_ns: 1_000_000, duration: 0.0 };
    for element in budget.children(INFO, body)? {
        match element.id {
            TIMESTAMP_SCALE => info.scale_ns = element.unsigned()?,
            DURATION => info.duration = element.float()?,
            PREV_UUID | PREV_FILE | NEXT_UUID | NEXT_FILE => return Err(Rejection::ExternalMedia),
            _ => (),
        }
    }
    if info.scale_ns == 0 || info.duration.is_nan() || info.duration < 0.0 {
        return Err(Rejection::malformed(INFO, "the clock stands still or runs backwards"));
    }
    Ok(info)
}

/// Walks a cluster's parts up to its end (or, without a size, up to what is no part of it); gives back where it ends.
///
/// Without `walk` only the first part is looked at.
async fn cluster<R: RandomRead>(
    source: &mut Source<R>,
    film: &mut Film,
    start: u64,
    end: u64,
    walk: bool,
) -> Result<u64, CheckFault<R::Fault>> {
    if !film.seen.contains(&CLUSTER) {
        film.seen.push(CLUSTER);
    }
    let mut offset = start;
    let mut timestamp = 0u64;
    while offset < end {
        film.blocks.spend()?;
        let (head, at) = head(source, offset, CLUSTER).await?;
        match head.id {
            // The next part of the segment ends a cluster without size.
            CLUSTER | CUES | TAGS | SEEK_HEAD | CHAPTERS | INFO | TRACKS | ATTACHMENTS if offset > start => break,
            TIMESTAMP | SIMPLE_BLOCK | BLOCK_GROUP | POSITION | PREV_SIZE | SILENT_TRACKS | VOID | CRC32 => (),
            ENCRYPTED_BLOCK => return Err(Rejection::Encrypted.into()),
            other => return Err(Rejection::UnknownPart { part: other.to_string() }.into()),
        }
        let content = known(&head, at, end)?;
        if !walk {
            return Ok(end);
        }
        let bytes = source.peek(content.start, 16).await.map_err(CheckFault::Unreadable)?;
        let clipped = usize::try_from(content.len).unwrap_or(usize::MAX).min(bytes.len());
        let body = bytes.get(..clipped).unwrap_or_default();
        match head.id {
            TIMESTAMP if content.len <= 8 => timestamp = Element { id: TIMESTAMP, body }.unsigned()?,
            TIMESTAMP => return Err(Rejection::malformed(TIMESTAMP, "a number is too long").into()),
            SIMPLE_BLOCK => film.latest = film.latest.max(block_time(body, timestamp)),
            BLOCK_GROUP => {
                if let Some(inner) = Head::parse(body)?.filter(|inner| inner.id == BLOCK) {
                    let block = body.get(inner.len..).unwrap_or_default();
                    film.latest = film.latest.max(block_time(block, timestamp));
                }
            }
            _ => (),
        }
        offset = content.start.saturating_add(content.len);
    }
    Ok(offset)
}

/// RFC 9559 section 10.1: track number, then 16 bits of time relative to the cluster.
fn block_time(block: &[u8], timestamp: u64) -> u64 {
    let number = block.first().map_or(1, |first| first.leading_zeros() as usize + 1);
    let relative = block.get(number..).and_then(<[u8]>::first_chunk::<2>).map_or(0, |bytes| i16::from_be_bytes(*bytes));
    timestamp.saturating_add_signed(i64::from(relative))
}
