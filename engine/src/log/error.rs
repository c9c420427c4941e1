//! What keeps a log from starting or going on, each with where and what to do.

use crate::{journal::JournalError, partition::open::MEND_DAMAGE};
use std::{io, path::PathBuf};

/// The log can't start or go on.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A file operation failed.
    #[error("{path}: {source}")]
    Disk {
        /// The file.
        path: PathBuf,
        /// The disk's word.
        source: io::Error,
    },
    /// The journal failed: nothing more may be acked by this process.
    #[error("the journal {path} failed ({source}); nothing that was not acked is safe: check the disk, then start again")]
    Journal {
        /// The file.
        path: PathBuf,
        /// The disk's word.
        source: io::Error,
    },
    /// The journal is damaged.
    #[error("{path} is damaged: {what}. {MEND_DAMAGE}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A newer version wrote this.
    #[error("{path} has format version {found}, this build knows up to {known}: use the newer build")]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// A partition that must have data has no file.
    #[error("{path} is missing although the journal says it held data: restore it, or start with --accept-loss")]
    Missing {
        /// The segment or directory.
        path: PathBuf,
    },
    /// The catalog's segments don't follow one another.
    #[error(
        "the segment with the offsets {first} to {last} is missing in {path}, and what it says of topics would be forgotten: restore it, or \
         start with --accept-loss to go on without it"
    )]
    MissingSegment {
        /// The partition's directory.
        path: PathBuf,
        /// The first offset that no segment has.
        first: i64,
        /// The last one.
        last: i64,
    },
    /// There is no superblock, and there is data that no first start finds.
    #[error(
        "{path} is missing, or neither of its slots is whole, but {data} holds data: a start without it would begin anew, and remove that. \
         Restore it with the journal beside it, or say where that is (--journal-dir). --accept-loss goes on with what is in the segments, \
         without what is in the journal only; directories that the catalog does not know are kept as ….ID-stray then"
    )]
    NoSuperblock {
        /// The superblock.
        path: PathBuf,
        /// A partition's directory.
        data: PathBuf,
    },
    /// What an accepted loss would cut off has no place beside.
    #[error(
        "there is no room for {path}, where the {bytes} bytes that --accept-loss cuts off are to be kept ({source}): nothing was cut off. Make \
         room on its filesystem, and start again"
    )]
    NoRoomToKeep {
        /// The file that was to hold them.
        path: PathBuf,
        /// How many they are.
        bytes: u64,
        /// The disk's word.
        source: io::Error,
    },
    /// What a Kafka left has the highest leader epoch that there is.
    #[error("{path} has leader epoch 2147483647, and a start needs a higher one: it is damaged. Restore it, or move it away")]
    NoEpochLeft {
        /// The partition's directory.
        path: PathBuf,
    },
    /// What a Kafka left has open transactions, and no position that is left to end them at.
    #[error(
        "{path} has no room for the end of an open transaction: it is full. Start that Kafka once more until its transactions have ended, stop it \
         and copy the directory again, or move it away"
    )]
    NoRoomForMarkers {
        /// The last segment.
        path: PathBuf,
    },
    /// More partitions than the journal can checkpoint.
    #[error("{partitions} partitions on one core need --journal-size {needed_bytes} or more")]
    JournalTooSmall {
        /// Partitions of the core.
        partitions: usize,
        /// The size that is needed, in bytes.
        needed_bytes: u64,
    },
}

impl From<JournalError> for LogError {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::Failed { path, source } => LogError::Journal { path, source },
            JournalError::Damaged { path, what } => LogError::Damaged { path, what },
            JournalError::NewerFormat { path, found, known } => LogError::NewerFormat { path, found, known },
            JournalError::HeadTooLarge { ref path, .. } => LogError::Journal { path: path.clone(), source: io::Error::other(error) },
        }
    }
}
