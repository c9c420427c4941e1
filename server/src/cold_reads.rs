//! What cold readers may ask of the disk while producers wait for it.
//!
//! A disk serves what was asked for first. The kernel reads up to `read_ahead_kb` (8 MiB on some machines) ahead of whoever reads a
//! file from front to back: a few readers put tens of MB before every write and flush that an ack waits for. And reads that are asked for
//! while a frame of the journal is on its way make that one slower: they wait for its end.

#![deny(clippy::disallowed_types)]

use crate::controller::now_ms;
use engine::{disk::UringDisk, log::Log};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Ranges (of one turn of [`crate::net::send_file`]) that are read at the same time beside producers. With two the producers waited three
/// times as long, and the readers were no faster; with ranges of half the size the core was busy with asking (docs/benchmarks.md).
const BESIDE_PRODUCERS_MAX: usize = 1;

/// The share of a core's disk that its cold readers have.
pub struct ColdReads {
    log: Log<UringDisk>,
    places: Semaphore,
}

impl ColdReads {
    /// Beside the producers of `log`.
    #[must_use]
    pub fn new(log: Log<UringDisk>) -> ColdReads {
        ColdReads { log, places: Semaphore::new(BESIDE_PRODUCERS_MAX) }
    }

    /// Waits for a place to read one range; `None` at once if there are no producers to be held up.
    pub async fn place(&self) -> Option<SemaphorePermit<'_>> {
        if !self.log.has_producers(now_ms()) {
            return None;
        }
        let place = self.places.acquire().await.ok();
        // For one frame at most: where they follow each other without a pause a range goes beside the next one.
        self.log.small_frame_ended().await;
        place
    }
}
