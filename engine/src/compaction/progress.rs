//! How far a job has come, counted on the thread that runs it and looked at from a core's; and whether it has to read gently, the other
//! way round. Relaxed, moved once a batch or looked at once a window; nothing of a core's data path.

#![allow(clippy::disallowed_types)]

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

/// Bytes of log that a job has read so far, and how it is to read on. Clones share both.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    bytes: AtomicU64,
    gently: AtomicBool,
}

impl Progress {
    /// Counts bytes.
    pub(super) fn add(&self, bytes: usize) {
        self.0.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes counted so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// From now on it reads in small pieces, one after the other, or fast again: appends wait for what is before them on the disk.
    pub fn read_gently(&self, gently: bool) {
        self.0.gently.store(gently, Ordering::Relaxed);
    }

    /// True if it is to read in small pieces.
    pub(super) fn is_gentle(&self) -> bool {
        self.0.gently.load(Ordering::Relaxed)
    }
}
