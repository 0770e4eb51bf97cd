//! Blobs: files of bytes that are either whole and on the disk, or not there.
//!
//! Bytes are received into a file under `incoming`, digested as they come (all of them, and each MiB), brought to the disk, and only
//! then renamed into `blobs`. What a crash leaves behind is swept at the start. Every MiB is checked against its digest before a byte
//! of it is handed out, so a read is right or fails.
//!
//! Below a floor of free bytes on the disk nothing is received, so that uploads do not take the room that records and databases need.
//!
//! Guarantees: G3 and G6 (cut at the limit, nothing kept), A13 (the floor), tampering is found (no wrong byte leaves), memory of one MiB per transfer.

use std::collections::BTreeSet;
use std::io::{self, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::digest::{Context, SHA256, digest};
use bytes::Bytes;
use contract::BoxError;
use futures::{Stream, StreamExt};
use tokio::fs::{self, File, OpenOptions};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
use trust::{Digest, Entropy, clock::random_hex};

use crate::gate::Watch;
use crate::refusal::Refusal;

/// Bytes under one digest.
pub(crate) const CHUNK: usize = 1024 * 1024;

/// Nothing is received while the store's disk has less free than this, in bytes: four times what the audit log stops at, since without the
/// log nothing is allowed at all.
pub const FREE_BYTES_MIN: u64 = 1024 * 1024 * 1024;

/// The folder of blobs.
#[derive(Debug, Clone)]
pub(crate) struct Blobs {
    incoming: PathBuf,
    kept: PathBuf,
    /// `FREE_BYTES_MIN`.
    pub(crate) floor: Arc<AtomicU64>,
}

/// A blob's name, size and digests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Blob {
    pub(crate) id: String,
    pub(crate) size: u64,
    pub(crate) digest: Digest,
    /// SHA-256 of each MiB, one after the other.
    pub(crate) chunks: Vec<u8>,
}

/// A file being received; removed unless kept.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) blob: Blob,
    path: Option<PathBuf>,
}

impl Blobs {
    /// Opens the folder under `root`, makes it if absent, and empties `incoming`.
    pub(crate) async fn open(root: &Path, free_bytes_min: u64) -> io::Result<Self> {
        let floor = Arc::new(AtomicU64::new(free_bytes_min));
        let blobs = Self { incoming: root.join("incoming"), kept: root.join("blobs"), floor };
        for folder in [&blobs.incoming, &blobs.kept] {
            fs::create_dir_all(folder).await?;
        }
        let mut left = fs::read_dir(&blobs.incoming).await?;
        while let Some(entry) = left.next_entry().await? {
            fs::remove_file(entry.path()).await?;
        }
        sync_folder(root).await?;
        Ok(blobs)
    }

    /// Removes every blob that is not among `known`; gives their number.
    pub(crate) async fn sweep(&self, known: &BTreeSet<String>) -> io::Result<u64> {
        let mut swept: u64 = 0;
        let mut entries = fs::read_dir(&self.kept).await?;
        while let Some(entry) = entries.next_entry().await? {
            if !entry.file_name().to_str().is_some_and(|name| known.contains(name)) {
                fs::remove_file(entry.path()).await?;
                swept = swept.saturating_add(1);
            }
        }
        Ok(swept)
    }

    /// Whether the disk has room for so many bytes more, above its floor. What others are sending meanwhile is not set aside for them, so
    /// it is asked again with each MiB.
    pub(crate) fn room_for(&self, bytes: u64) -> Result<(), Refusal> {
        let disk = rustix::fs::statvfs(&self.incoming).map_err(io::Error::from)?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if free < self.floor.load(Ordering::Relaxed).saturating_add(bytes) { Err(Refusal::NoRoom { free }) } else { Ok(()) }
    }

    /// Receives at most `limit` bytes; one more, and nothing is kept.
    pub(crate) async fn receive<S>(
        &self,
        entropy: &dyn Entropy,
        mut bytes: S,
        limit: u64,
        watch: &mut Watch,
        mut also: impl FnMut(&[u8]),
    ) -> Result<Received, Refusal>
    where
        S: Stream<Item = Result<Bytes, BoxError>> + Unpin,
    {
        let id = random_hex(entropy, 16);
        let path = self.incoming.join(&id);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).await?;
        let mut received = Received { blob: Blob { id, size: 0, digest: Digest::of(b""), chunks: Vec::new() }, path: Some(path) };
        let mut whole = Context::new(&SHA256);
        let mut chunk = Vec::with_capacity(CHUNK);
        while let Some(piece) = bytes.next().await {
            let mut piece = piece.map_err(|_| Refusal::Incomplete)?;
            received.blob.size = received.blob.size.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
            if received.blob.size > limit {
                return Err(Refusal::TooLarge);
            }
            watch.step(piece.len()).await?;
            also(&piece);
            whole.update(&piece);
            while !piece.is_empty() {
                let part = piece.split_to(piece.len().min(CHUNK.saturating_sub(chunk.len())));
                chunk.extend_from_slice(&part);
                if chunk.len() == CHUNK {
                    self.room_for(0)?;
                    flush(&mut file, &mut chunk, &mut received.blob.chunks).await?;
                }
            }
        }
        if !chunk.is_empty() {
            flush(&mut file, &mut chunk, &mut received.blob.chunks).await?;
        }
        file.flush().await?;
        file.sync_all().await?;
        received.blob.digest = digest_of(whole);
        Ok(received)
    }

    /// Makes a received file a blob; it is on the disk when this returns. Until a row names it, a crash lets the sweep have it.
    pub(crate) async fn keep(&self, mut received: Received) -> io::Result<Blob> {
        if let Some(path) = received.path.as_ref() {
            fs::rename(path, self.kept.join(&received.blob.id)).await?;
            received.path = None;
            sync_folder(&self.kept).await?;
        }
        Ok(received.blob.clone())
    }

    /// The same bytes under a name of its own: blobs never change, so the file is the same one until each name is removed.
    pub(crate) async fn linked(&self, entropy: &dyn Entropy, blob: &Blob) -> io::Result<Blob> {
        let id = random_hex(entropy, 16);
        fs::hard_link(self.kept.join(&blob.id), self.kept.join(&id)).await?;
        Ok(Blob { id, ..blob.clone() })
    }

    /// Brings new names to the disk.
    pub(crate) async fn sync(&self) -> io::Result<()> {
        sync_folder(&self.kept).await
    }

    /// Removes blobs that no row names any more. What cannot be removed now is swept at the next start.
    pub(crate) async fn remove(&self, ids: &[String]) {
        for id in ids {
            if let Err(error) = fs::remove_file(self.kept.join(id)).await {
                tracing::warn!(%error, blob = id, "a blob could not be removed; the next start sweeps it");
            }
        }
    }

    /// Opens a blob for reading.
    pub(crate) async fn file(&self, blob: &Blob) -> io::Result<File> {
        File::open(self.kept.join(&blob.id)).await
    }
}

/// Reads the `index`th MiB of `blob` and checks it.
///
/// Gives nothing when it is not what was stored.
pub(crate) async fn checked_chunk(file: &mut File, blob: &Blob, index: u64) -> io::Result<Option<Bytes>> {
    let chunk = u64::try_from(CHUNK).unwrap_or(u64::MAX);
    let start = index.saturating_mul(chunk);
    let length = usize::try_from(blob.size.saturating_sub(start).min(chunk)).unwrap_or(CHUNK);
    file.seek(SeekFrom::Start(start)).await?;
    let mut bytes = vec![0; length];
    if let Err(error) = file.read_exact(&mut bytes).await {
        return if error.kind() == io::ErrorKind::UnexpectedEof { Ok(None) } else { Err(error) };
    }
    let at = usize::try_from(index).unwrap_or(usize::MAX).saturating_mul(32);
    let expected = blob.chunks.get(at..at.saturating_add(32));
    let found = digest(&SHA256, &bytes);
    Ok((expected == Some(found.as_ref())).then(|| Bytes::from(bytes)))
}

impl Drop for Received {
    fn drop(&mut self) {
        if let Some(path) = self.path.take()
            && let Err(error) = std::fs::remove_file(&path)
        {
            tracing::warn!(%error, "a cut upload could not be removed; the next start sweeps it");
        }
    }
}

async fn flush(file: &mut File, chunk: &mut Vec<u8>, chunks: &mut Vec<u8>) -> io::Result<()> {
    chunks.extend_from_slice(digest(&SHA256, chunk).as_ref());
    file.write_all(chunk).await?;
    chunk.clear();
    Ok(())
}

fn digest_of(context: Context) -> Digest {
    let bytes: Result<[u8; 32], _> = context.finish().as_ref().try_into();
    Digest::from(bytes.unwrap_or_default())
}

async fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder).await?.sync_all().await
}
