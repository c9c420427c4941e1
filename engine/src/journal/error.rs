//! What can go wrong with the journal; each is fatal to the process or to the start.

use std::{io, path::PathBuf};

/// The journal can't be read, or can't go on.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// A write, flush or read failed: nothing more may be acked by this process.
    #[error("{path}: {source}")]
    Failed {
        /// The file.
        path: PathBuf,
        /// The disk's word.
        source: io::Error,
    },
    /// Frames are invalid that once were valid, or a file that must be there isn't.
    #[error("{path} is damaged: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A newer version wrote it.
    #[error("{path} has format version {found}, this build knows up to {known}")]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// A head does not fit into a file.
    #[error("a head of {needed} bytes does not fit into {path} of {bytes} bytes")]
    HeadTooLarge {
        /// The file.
        path: PathBuf,
        /// Bytes of the head.
        needed: u64,
        /// Bytes of the file.
        bytes: u64,
    },
}
