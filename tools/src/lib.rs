//! What `segment-dump` does, as a library: it prints what is in segments, indexes, snapshots and the journal, in the
//! lines of Kafka's own dump tool where Kafka has one.
//!
//! It only reads, one bounded window at a time, and is safe on files that a broker is writing: zeros behind the last
//! batch are allocated space, and a last batch that is only half there has its end in the journal.

mod checkpoints;
mod file;
mod indexes;
mod journal;
mod log;
mod text;

pub use file::BytesAt;

use anyhow::{Context, Result, bail};
use engine::{
    journal::superblock_path,
    segment::{FileKind, parse_directory_name, parse_file_name},
};
use std::{
    io::Write,
    path::{Path, PathBuf},
};

/// What to print.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Also the records of each batch, and what is in each journal frame.
    pub records: bool,
    /// Check the indexes against the log beside them.
    pub verify: bool,
    /// Batches that end below this offset are left out.
    pub from_offset: Option<i64>,
    /// Only batches of this producer.
    pub producer_id: Option<i64>,
    /// At most so many batches of each log.
    pub batches_max: Option<u64>,
}

/// Prints what is at `path`: a file, a partition's directory, the journal's, or a whole data directory. Returns how many
/// damaged places were found.
///
/// # Errors
/// A file that can't be read, or is none that is known; the sink's.
pub fn dump(path: &Path, options: &Options, out: &mut dyn Write) -> Result<u64> {
    if path.is_dir() { dump_directory(path, options, out) } else { dump_file(path, options, out) }
}

fn dump_directory(path: &Path, options: &Options, out: &mut dyn Write) -> Result<u64> {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(path)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect())
        .with_context(|| format!("can't list {}", path.display()))?;
    entries.sort();
    let files: Vec<&PathBuf> = entries.iter().filter(|entry| entry.is_file() && Known::of(entry).is_some()).collect();
    let directories = entries.iter().filter(|entry| entry.is_dir() && (is_partition(entry) || superblock_path(entry).is_file()));
    let directories: Vec<&PathBuf> = directories.collect();
    if files.is_empty() && directories.is_empty() {
        bail!("{} holds no segment, no journal and no partition", path.display());
    }
    let mut damages = 0;
    for file in files {
        damages += dump_file(file, options, out)?;
    }
    for directory in directories {
        damages += match dump_directory(directory, options, out) {
            // A partition that was only just created is no error.
            Err(_) if std::fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_none()) => 0,
            other => other?,
        };
    }
    Ok(damages)
}

fn is_partition(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).and_then(parse_directory_name).is_some()
}

/// The files that can be printed.
enum Known {
    Segment(i64, FileKind),
    LeaderEpochs,
    Metadata,
    Superblock,
    Journal,
}

impl Known {
    fn of(path: &Path) -> Option<Known> {
        let name = path.file_name()?.to_str()?;
        if let Some((base_offset, kind)) = parse_file_name(name) {
            return Some(Known::Segment(base_offset, kind));
        }
        match name {
            engine::segment::LEADER_EPOCH_CHECKPOINT => Some(Known::LeaderEpochs),
            engine::segment::PARTITION_METADATA => Some(Known::Metadata),
            "superblock" => Some(Known::Superblock),
            _ => {
                let core = name.strip_prefix("core-")?.strip_suffix(".a").or(name.strip_prefix("core-")?.strip_suffix(".b"))?;
                core.parse::<u32>().ok().map(|_| Known::Journal)
            }
        }
    }
}

fn dump_file(path: &Path, options: &Options, out: &mut dyn Write) -> Result<u64> {
    let Some(known) = Known::of(path) else {
        bail!(
            "{} has no name that tells what it is: segment-dump knows 00000000000000000000.log, .index, .timeindex, .txnindex and \
             .snapshot, leader-epoch-checkpoint, partition.metadata, superblock and core-0.a",
            path.display()
        );
    };
    writeln!(out, "Dumping {}", path.display())?;
    let read = || std::fs::read(path).with_context(|| format!("can't read {}", path.display()));
    match known {
        Known::Segment(base_offset, FileKind::Log) => log::dump(path, base_offset, options, out),
        Known::Segment(base_offset, FileKind::Index) => indexes::dump_offsets(path, base_offset, &read()?, options, out),
        Known::Segment(base_offset, FileKind::TimeIndex) => indexes::dump_times(path, base_offset, &read()?, options, out),
        Known::Segment(_, FileKind::TxnIndex) => indexes::dump_transactions(&read()?, out),
        Known::Segment(_, FileKind::Snapshot) => checkpoints::dump_snapshot(&read()?, out),
        Known::LeaderEpochs => checkpoints::dump_epochs(&read()?, out),
        Known::Metadata => checkpoints::dump_metadata(&read()?, out),
        Known::Superblock => journal::dump_superblock(&read()?, out),
        Known::Journal => journal::dump_file(path, options, out),
    }
}
