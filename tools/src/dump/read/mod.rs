//! Reading: files in bounded windows, and a walk over the batches of a log.

mod ahead;
mod file;
mod resync;
mod seek;
mod walk;

pub use file::BytesAt;
pub(crate) use seek::{can_be_skipped, start};
pub(crate) use walk::{Batch, End, Seen, Tail, walk};

use anyhow::{Context, Result, ensure};
use std::path::Path;

/// The largest batch that is read, in bytes: a larger length is taken for damage. Kafka's default for a batch is 1 MiB.
pub(crate) const BATCH_BYTES_MAX: usize = 256 << 20;
/// The largest index, checkpoint or snapshot that is read, in bytes. Kafka's indexes have 10 MiB by default.
const SMALL_BYTES_MAX: u64 = 256 << 20;

/// A whole file that is small: anything but a log or a journal.
pub(crate) fn small(path: &Path) -> Result<Vec<u8>> {
    let what = || format!("can't read {}", path.display());
    let bytes = std::fs::metadata(path).with_context(what)?.len();
    ensure!(bytes <= SMALL_BYTES_MAX, "{} has {bytes} bytes: files of this kind are read up to {SMALL_BYTES_MAX}", path.display());
    std::fs::read(path).with_context(what)
}
