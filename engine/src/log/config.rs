//! The engine's bounds: each has a name and a default.

use crate::journal::FRAME_CONTENT_MAX;
use std::path::PathBuf;

/// The bounds of one core's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Where partition directories are.
    pub data_dir: PathBuf,
    /// Where superblock and journal files are.
    pub journal_dir: PathBuf,
    /// The size of a core's two journal files together, in bytes.
    pub journal_bytes: u64,
    /// What one frame of the journal holds at most, in bytes: 64 KiB to [`FRAME_CONTENT_MAX`].
    pub frame_bytes_max: usize,
    /// Whole new blocks of a partition, in bytes, from which on they skip the journal.
    pub bulk_bytes_min: u64,
    /// Bytes of segment writes in flight per core.
    pub bulk_bytes_in_flight_max: u64,
    /// The same while small appends wait.
    pub bulk_bytes_in_flight_busy_max: u64,
    /// Outstanding fdatasyncs of segments per core.
    pub bulk_flushes_max: usize,
    /// Memory for tails per core, in bytes.
    pub tail_bytes_max: u64,
    /// Idempotent producers remembered per partition (`producer.id.expiration.ms` ends them too).
    pub producers_max: usize,
    /// `producer.id.expiration.ms`.
    pub producer_expiration_ms: i64,
    /// Open sealed segments per core.
    pub open_segments_max: usize,
    /// Start although the journal is damaged in its middle, or an active segment below its end, losing what is behind the damage. What
    /// is cut off a segment is kept beside.
    pub accept_loss: bool,
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig {
            data_dir: PathBuf::from("thalweg-data"),
            journal_dir: PathBuf::from("thalweg-data/journal"),
            journal_bytes: 128 << 20,
            frame_bytes_max: FRAME_CONTENT_MAX,
            bulk_bytes_min: 256 << 10,
            bulk_bytes_in_flight_max: 4 << 20,
            bulk_bytes_in_flight_busy_max: 2 << 20,
            bulk_flushes_max: 4,
            tail_bytes_max: 256 << 20,
            producers_max: 100_000,
            producer_expiration_ms: 24 * 3_600_000,
            open_segments_max: 1_000,
            accept_loss: false,
        }
    }
}
