//! How far a job has come, counted on the thread that runs it and looked at from a core's; and how it knows whether to go gently. Relaxed, and
//! moved once a batch; nothing of a core's data path.

#![allow(clippy::disallowed_types)]

use crate::disk::Pace;
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Bytes of log that a job has read so far, and how it goes on. Clones share them.
#[derive(Clone)]
pub struct Progress {
    bytes: Arc<AtomicU64>,
    is_gentle: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Progress").field(&self.bytes()).finish()
    }
}

impl Default for Progress {
    fn default() -> Self {
        Progress::gentle_when(|| false)
    }
}

impl Progress {
    /// That of a job that has still to begin. While this is true it reads and writes in small pieces with pauses: appends wait for what is
    /// before them on the disk.
    #[must_use]
    pub fn gentle_when(is_gentle: impl Fn() -> bool + Send + Sync + 'static) -> Progress {
        Progress { bytes: Arc::default(), is_gentle: Arc::new(is_gentle) }
    }

    /// Counts bytes.
    pub(super) fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Takes back what was counted: it has to be read again.
    pub(super) fn take_back(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes counted so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The pace that it goes at.
    pub(super) fn pace(&self) -> Pace {
        let is_gentle = Arc::clone(&self.is_gentle);
        Pace::gentle_when(move || is_gentle())
    }
}
