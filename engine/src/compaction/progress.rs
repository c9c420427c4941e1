//! How far a job has come: counted on the thread that runs it, looked at from a core's. One relaxed counter, moved once a
//! batch; nothing of a core's data path.

#![allow(clippy::disallowed_types)]

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Bytes of log that a job has read so far. Clones share the count.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<AtomicU64>);

impl Progress {
    /// Counts bytes.
    pub(super) fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes counted so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
