//! A partition's directory: whose it is, how it comes to be, how it goes.
//!
//! ```text
//! orders-0/thalweg.partition     "version: 0\npartition: 7\n"   made by Thalweg: if the catalog does not know it, it goes
//!                                "flushed: true\n" as well     made by an import: all of its files are durable
//! orders-0/partition.metadata    "version: 0\ntopic_id: …"      Kafka's: the topic's id, which decides whose it is
//! orders-0/00000000000000000000.log …
//! ```
//! A directory without `thalweg.partition` was copied in from a Kafka: it is never removed unless its topic is deleted.

use super::PartitionSpec;
use crate::{
    disk::{Disk, Open, read_whole, write_whole},
    ids::PartitionId,
    segment::{FileKind, PARTITION_METADATA, PartitionFiles, decode_metadata, encode_metadata, file_name, stray_names},
};
use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
};
use uuid::Uuid;

/// Our own file: the directory was made by Thalweg, for the partition of this number.
pub const MARK_FILE: &str = "thalweg.partition";
/// The line of the mark that says that all files of the directory are durable.
const FLUSHED: &str = "flushed: true";

/// What a directory says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// The topic's id, if `partition.metadata` is there and whole.
    pub topic_id: Option<Uuid>,
    /// The partition that Thalweg made it for.
    pub mark: Option<PartitionId>,
    /// The mark says that all of its files are durable: an import made it.
    pub flushed: bool,
    /// Its files.
    pub files: PartitionFiles,
}

impl Directory {
    /// True if a segment holds, or may hold, a batch.
    #[must_use]
    pub fn has_data(&self) -> bool {
        self.files.segments.iter().any(|segment| segment.base_offset > 0 || segment.log_bytes > 0)
    }
}

/// The path of a segment's `.log`.
#[must_use]
pub fn log_path(directory: &Path, segment_base: i64) -> PathBuf {
    directory.join(file_name(segment_base, FileKind::Log))
}

/// Reads what a directory says of itself; `None` if there is none.
///
/// # Errors
/// The disk's.
pub async fn read<D: Disk>(disk: &D, path: &Path) -> io::Result<Option<Directory>> {
    let files = match PartitionFiles::list(disk, path).await {
        Ok(files) => files,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let (mark, flushed) = read_mark(disk, path).await?;
    Ok(Some(Directory { topic_id: read_topic_id(disk, path).await?, mark, flushed, files }))
}

/// The topic's id in `partition.metadata`; `None` if the file is missing or not whole.
///
/// # Errors
/// The disk's.
pub async fn read_topic_id<D: Disk>(disk: &D, path: &Path) -> io::Result<Option<Uuid>> {
    Ok(read_text(disk, &path.join(PARTITION_METADATA)).await?.and_then(|text| decode_metadata(&text).ok()))
}

async fn read_mark<D: Disk>(disk: &D, path: &Path) -> io::Result<(Option<PartitionId>, bool)> {
    let text = read_text(disk, &path.join(MARK_FILE)).await?.unwrap_or_default();
    let mark = text.lines().find_map(|line| line.strip_prefix("partition: ")?.parse().ok()).map(PartitionId);
    Ok((mark, mark.is_some() && text.lines().any(|line| line == FLUSHED)))
}

/// The mark of a directory that an import has made and flushed whole. Until a start has taken it over, it is a left-over.
#[must_use]
pub fn import_mark() -> String {
    format!("version: 0\npartition: 0\n{FLUSHED}\n")
}

/// A small text file; `None` if it does not exist or is not UTF-8.
///
/// # Errors
/// The disk's.
pub async fn read_text<D: Disk>(disk: &D, path: &Path) -> io::Result<Option<String>> {
    match read_whole(disk, path).await {
        Ok(bytes) => Ok(String::from_utf8(bytes).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes sure that a new partition's directory is there and empty of anybody else's bytes: mark, `partition.metadata`
/// and an empty first segment are durable when this returns. A directory that already has this topic's id keeps its
/// segments (so repeating it is no error); one of another topic is removed if Thalweg made it, and renamed to
/// `…-stray` if not.
///
/// # Errors
/// The disk's; it may be repeated.
pub async fn create<D: Disk>(disk: &D, data_dir: &Path, spec: &PartitionSpec) -> io::Result<()> {
    let path = data_dir.join(&spec.directory);
    let mut empty = true;
    if let Some(found) = read(disk, &path).await? {
        if found.topic_id == Some(spec.topic_id) {
            empty = found.files.segments.is_empty();
        } else if found.topic_id.is_some() || found.has_data() {
            evict(disk, data_dir, &spec.directory, &found).await?;
        }
    }
    disk.create_dir(&path).await?;
    mark(disk, &path, spec.id).await?;
    write_whole(disk, &path.join(PARTITION_METADATA), encode_metadata(spec.topic_id).as_bytes()).await?;
    if empty {
        let file = disk.open(&log_path(&path, 0), Open::Create).await?;
        disk.sync(&file).await?;
        disk.sync_dir(&path).await?;
    }
    disk.sync_dir(data_dir).await
}

/// Marks a directory as made by Thalweg, or taken over for good.
///
/// # Errors
/// The disk's.
pub async fn mark<D: Disk>(disk: &D, path: &Path, partition: PartitionId) -> io::Result<()> {
    write_whole(disk, &path.join(MARK_FILE), format!("version: 0\npartition: {}\n", partition.0).as_bytes()).await
}

/// Takes a directory that is not the partition's out of the way: removed if Thalweg made it, else renamed.
///
/// # Errors
/// The disk's; it may be repeated.
pub async fn evict<D: Disk>(disk: &D, data_dir: &Path, directory: &Path, found: &Directory) -> io::Result<()> {
    if found.mark.is_some() || (found.topic_id.is_none() && !found.has_data()) {
        return remove(disk, data_dir, directory).await;
    }
    let stray = set_aside(disk, data_dir, directory, found).await?;
    tracing::warn!("{} belongs to another topic; it is kept as {}", data_dir.join(directory).display(), stray.display());
    Ok(())
}

/// Gives a directory a name that no start takes for a partition's, durably: `NAME.ID-stray`, with the topic's id, as a Kafka does.
///
/// # Errors
/// The disk's.
pub async fn set_aside<D: Disk>(disk: &D, data_dir: &Path, directory: &Path, found: &Directory) -> io::Result<PathBuf> {
    let id = found.topic_id.map_or_else(|| "unknown".to_owned(), |id| id.simple().to_string());
    let taken: BTreeSet<String> = disk.list(data_dir).await?.into_iter().map(|entry| entry.name).collect();
    let name = stray_names(&directory.display().to_string(), &id).find(|name| !taken.contains(name)).expect("numbers don't end");
    let stray = data_dir.join(name);
    disk.rename(&data_dir.join(directory), &stray).await?;
    disk.sync_dir(data_dir).await?;
    Ok(stray)
}

/// Times that a directory is emptied: a reader that is under way may store an index in it once more.
const REMOVALS_MAX: usize = 8;

/// Removes a partition's directory and all files in it, durably. It is no error if it is gone. The mark goes last, so
/// that a removal that was cut short is finished by the next start.
///
/// # Errors
/// The disk's; it may be repeated.
pub async fn remove<D: Disk>(disk: &D, data_dir: &Path, directory: &Path) -> io::Result<()> {
    let path = data_dir.join(directory);
    for attempt in 1.. {
        match empty_and_remove(disk, &path).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty && attempt < REMOVALS_MAX => {}
            result => {
                result?;
                break;
            }
        }
    }
    disk.sync_dir(data_dir).await
}

/// `NotFound` if the directory is not there.
async fn empty_and_remove<D: Disk>(disk: &D, path: &Path) -> io::Result<()> {
    let entries = disk.list(path).await?;
    let mark = path.join(MARK_FILE);
    if !entries.iter().any(|entry| entry.name == MARK_FILE) {
        // It came from a Kafka: from here on it is a left-over of ours.
        self::mark(disk, path, PartitionId(0)).await?;
    }
    for entry in entries.iter().filter(|entry| entry.name != MARK_FILE && !entry.is_dir) {
        match disk.remove(&path.join(&entry.name)).await {
            // What an earlier write left beside the mark has become the mark.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    disk.sync_dir(path).await?;
    disk.remove(&mark).await?;
    disk.remove_dir(path).await
}
