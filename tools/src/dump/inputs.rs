//! What a path is, by its name, and what belongs together.

use anyhow::{Context, Result, bail};
use engine::{
    ids::PartitionId,
    journal::superblock_path,
    kafka::{CLEAN_SHUTDOWN, CLEANER_CHECKPOINT, LOG_START_CHECKPOINT, RECOVERY_POINT_CHECKPOINT, REPLICATION_CHECKPOINT},
    partition::directory::MARK_FILE,
    segment::{
        FileKind, INDEX_ENTRY_BYTES, LEADER_EPOCH_CHECKPOINT, PARTITION_METADATA, TIME_ENTRY_BYTES, parse_directory_name, parse_file_name,
    },
};
use server::lock::{self, Holder};
use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// How long a compacted segment of a running broker may take from its commit to its place. One that takes longer has failed, and
/// waits for a start.
const SWAP_WITHIN: Duration = Duration::from_secs(1);
/// How long a moment between two swaps is waited for.
const SWAPS_WITHIN: Duration = Duration::from_secs(30);
/// How often it is looked for meanwhile.
const SWAP_POLL: Duration = Duration::from_millis(1);

/// Checkpoints of a data directory, all in one format of Kafka's.
const OFFSET_CHECKPOINTS: [&str; 4] = [CLEANER_CHECKPOINT, RECOVERY_POINT_CHECKPOINT, LOG_START_CHECKPOINT, REPLICATION_CHECKPOINT];

/// The files that are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    Segment(i64, FileKind),
    LeaderEpochs,
    Metadata,
    Offsets,
    Superblock,
    Journal,
}

impl Known {
    pub(crate) fn of(path: &Path) -> Option<Known> {
        let name = path.file_name()?.to_str()?;
        if let Some((base_offset, kind)) = parse_file_name(name) {
            return Some(Known::Segment(base_offset, kind));
        }
        match name {
            LEADER_EPOCH_CHECKPOINT => Some(Known::LeaderEpochs),
            PARTITION_METADATA => Some(Known::Metadata),
            "superblock" => Some(Known::Superblock),
            name if OFFSET_CHECKPOINTS.contains(&name) => Some(Known::Offsets),
            _ => {
                let core = name.strip_prefix("core-")?.strip_suffix(".a").or(name.strip_prefix("core-")?.strip_suffix(".b"))?;
                core.parse::<u32>().ok().map(|_| Known::Journal)
            }
        }
    }

    pub(crate) fn require(path: &Path) -> Result<Known> {
        let Some(known) = Known::of(path) else {
            bail!(
                "{} has no name that tells what it is: segment-dump knows 00000000000000000000.log, .index, .timeindex, .txnindex and \
                 .snapshot, leader-epoch-checkpoint, partition.metadata, {}, superblock and core-0.a",
                path.display(),
                OFFSET_CHECKPOINTS.join(", ")
            );
        };
        Ok(known)
    }
}

/// A directory: its own files that are known, and those below that are partitions or a journal.
pub(crate) struct Listing {
    pub(crate) files: Vec<PathBuf>,
    pub(crate) directories: Vec<PathBuf>,
}

impl Listing {
    /// Of a partition that a broker is compacting it is a moment at which no segment is being replaced: between the removal of those
    /// that were merged and the renaming of the one that has their batches, these are in no segment.
    pub(crate) fn of(path: &Path) -> Result<Listing> {
        let until = Instant::now() + SWAPS_WITHIN;
        let mut entries = entries(path)?;
        while entries.iter().any(|entry| is_on_its_way(entry)) && Instant::now() < until && Home::of(path).holder.is_some() {
            std::thread::sleep(SWAP_POLL);
            entries = self::entries(path)?;
        }
        // One that is gone by now stays: whoever comes to it looks for what it held.
        let files: Vec<PathBuf> = entries.iter().filter(|entry| !entry.is_dir() && Known::of(entry).is_some()).cloned().collect();
        let below = |entry: &&PathBuf| entry.is_dir() && (is_partition(entry) || superblock_path(entry).is_file());
        let directories: Vec<PathBuf> = entries.iter().filter(below).cloned().collect();
        Ok(Listing { files, directories })
    }

    /// As [`Listing::of`]; an error if nothing is there that is known.
    pub(crate) fn require(path: &Path) -> Result<Listing> {
        let listing = Listing::of(path)?;
        if listing.files.is_empty() && listing.directories.is_empty() {
            bail!("{} holds no segment, no journal and no partition", path.display());
        }
        Ok(listing)
    }

    /// As [`Listing::of`], of the segments that now hold what was in the one at `gone`, and behind it: compaction makes one of several,
    /// and then it is the first file.
    pub(crate) fn from_gone(path: &Path, gone: i64) -> Result<Listing> {
        let mut listing = Listing::of(path)?;
        let holder = listing.segments().into_iter().rfind(|base| *base <= gone);
        let is_behind = |file: &PathBuf| match Known::of(file) {
            Some(Known::Segment(base, kind)) => base > gone || (Some(base) == holder && kind == FileKind::Log),
            _ => true,
        };
        listing.files.retain(is_behind);
        Ok(listing)
    }

    /// The base offsets of the logs, rising.
    pub(crate) fn segments(&self) -> Vec<i64> {
        let logs = self.files.iter().filter_map(|file| match Known::of(file) {
            Some(Known::Segment(base, FileKind::Log)) => Some(base),
            _ => None,
        });
        logs.collect()
    }
}

/// What is in a directory, by name.
fn entries(path: &Path) -> Result<Vec<PathBuf>> {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(path)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect())
        .with_context(|| format!("can't list {}", path.display()))?;
    entries.sort();
    Ok(entries)
}

/// True of the log of a compacted segment that counts, and is about to take its place (`engine/src/segment/swap.rs`). One that has
/// failed to is waited for once, and not at every look at its directory.
fn is_on_its_way(path: &Path) -> bool {
    let is_swap = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.ends_with(".log.swap"));
    is_swap && changed_ago(path).is_none_or(|ago| ago < SWAP_WITHIN)
}

/// How long ago a file was changed or renamed; `None` if it is gone.
fn changed_ago(path: &Path) -> Option<Duration> {
    let metadata = std::fs::metadata(path).ok()?;
    let changed = Duration::new(u64::try_from(metadata.ctime()).ok()?, u32::try_from(metadata.ctime_nsec()).ok()?);
    Some(SystemTime::now().duration_since(UNIX_EPOCH + changed).unwrap_or_default())
}

fn is_partition(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).and_then(parse_directory_name).is_some()
}

/// The topic that a file of a partition belongs to.
pub(crate) fn topic_of(file: &Path) -> Option<String> {
    let directory = std::path::absolute(file).ok()?;
    let name = directory.parent()?.file_name()?.to_str()?.to_owned();
    parse_directory_name(&name).map(|(topic, _)| topic.to_owned())
}

/// Who writes a partition, and how its end is to be judged.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    /// The data directory.
    pub(crate) data_dir: PathBuf,
    /// The data directory as well, where the partition is reached through a symbolic link: a broker may know it by either.
    pub(crate) other_dir: Option<PathBuf>,
    /// The number that Thalweg made the directory for; `None` in one of Kafka's.
    pub(crate) mark: Option<PartitionId>,
    /// Another process that has the data directory's lock.
    pub(crate) holder: Option<Holder>,
    /// The broker was stopped cleanly, and has not been started since.
    pub(crate) clean: bool,
}

impl Home {
    pub(crate) fn of(partition: &Path) -> Home {
        let partition = if partition.as_os_str().is_empty() { Path::new(".") } else { partition };
        let partition = std::path::absolute(partition).unwrap_or_else(|_| partition.to_owned());
        let real = std::fs::canonicalize(&partition).unwrap_or_else(|_| partition.clone());
        let parent = |path: &Path| path.parent().unwrap_or(path).to_owned();
        let (named, found) = (parent(&partition), parent(&real));
        let is_same = std::fs::canonicalize(&named).is_ok_and(|named| named == found);
        // The one that a broker knows comes first.
        let (data_dir, other_dir) = match is_same {
            true => (named, None),
            false if named.join(lock::FILE).is_file() => (named, Some(found)),
            false => (found, Some(named)),
        };
        let text = std::fs::read_to_string(partition.join(MARK_FILE)).unwrap_or_default();
        let mark = text.lines().find_map(|line| line.strip_prefix("partition: ")?.parse().ok()).map(PartitionId);
        let holder = lock::holder(&data_dir).or_else(|| other_dir.as_deref().and_then(lock::holder));
        let clean = holder.is_none() && data_dir.join(CLEAN_SHUTDOWN).is_file();
        Home { data_dir, other_dir, mark, holder, clean }
    }
}

/// True if a broker runs on the data directory that this is, or lies in.
pub(crate) fn is_live(path: &Path) -> bool {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    // A home is found by what lies in it. Of a data directory that is its lock, whether it is there or not.
    path.join(lock::FILE).ancestors().take(3).any(|within| Home::of(within).holder.is_some())
}

/// The entries before the zeros at the end: a broker that did not stop cleanly leaves indexes longer than what they hold.
fn trimmed(bytes: &[u8], entry: usize) -> &[u8] {
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| (last + 1).next_multiple_of(entry));
    &bytes[..end.min(bytes.len())]
}

/// A `.index` without the zeros at its end.
pub(crate) fn trimmed_index(bytes: &[u8]) -> &[u8] {
    trimmed(bytes, INDEX_ENTRY_BYTES)
}

/// A `.timeindex` without the zeros at its end, and without an entry that says nothing at its beginning.
pub(crate) fn trimmed_times(bytes: &[u8]) -> &[u8] {
    trimmed(bytes, TIME_ENTRY_BYTES)
}
