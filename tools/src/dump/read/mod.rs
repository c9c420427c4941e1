//! Reading: files in bounded windows, and a walk over the batches of a log.

mod ahead;
mod direct;
mod file;
mod pace;
mod resync;
mod seek;
mod walk;

pub(crate) use direct::{Chunk, Direct};
pub use file::BytesAt;
pub(crate) use pace::{beside_a_broker, may_yield};
pub(crate) use resync::{is_valid, resync};
pub(crate) use seek::{can_be_skipped, start};
pub(crate) use walk::{Batch, End, Seen, Tail, walk};

use super::inputs::Home;
use anyhow::{Context, Result, ensure};
use std::path::Path;

/// The largest batch that is read, in bytes: a larger length is taken for damage. Kafka's default for a batch is 1 MiB.
pub(crate) const BATCH_BYTES_MAX: usize = 256 << 20;
/// The largest index, checkpoint or snapshot that is read, in bytes. Kafka's indexes have 10 MiB by default.
const SMALL_BYTES_MAX: u64 = 256 << 20;

/// Where a broker may be writing, damage is what is still there after so many readings.
const READS_MAX: u32 = 3;

/// Damage that is seen in a log that is being written is looked at anew, from a file that is opened anew.
pub(crate) struct Doubt {
    is_live: bool,
    position: u64,
    reads: u32,
}

impl Doubt {
    /// None yet in the log at `path`.
    pub(crate) fn of(path: &Path) -> Doubt {
        let is_live = Home::of(path.parent().unwrap_or(path)).holder.is_some();
        Doubt { is_live, position: u64::MAX, reads: 0 }
    }

    /// Damage at `position`; true if it has to be read again.
    pub(crate) fn again(&mut self, position: u64) -> bool {
        self.reads = if self.position == position { self.reads + 1 } else { 1 };
        self.position = position;
        self.is_live && self.reads < READS_MAX
    }
}

/// A whole file that is small: anything but a log or a journal.
pub(crate) fn small(path: &Path) -> Result<Vec<u8>> {
    let what = || format!("can't read {}", path.display());
    let bytes = std::fs::metadata(path).with_context(what)?.len();
    ensure!(bytes <= SMALL_BYTES_MAX, "{} has {bytes} bytes: files of this kind are read up to {SMALL_BYTES_MAX}", path.display());
    std::fs::read(path).with_context(what)
}
