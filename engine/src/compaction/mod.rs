//! Compaction: of each key only the last record stays (Kafka: `LogCleaner`, `Cleaner`; KIP-534 for tombstones).
//!
//! ```text
//! core's thread     decides (`plan`), hands out a [`Job`]                                   swaps it in (`segment::swap`)
//! another thread                    [`Job::run`]: reads, filters, writes a new segment into `cleaning/`     the next one
//! ```
//! A job is plain data and touches nothing of the log: it reads sealed segments, which change only when it has read them, and
//! writes into a directory of its own. So decompression never holds up a core. A job that fails or is forgotten leaves the groups
//! in place that it has come to, and the next one goes on from there.
//!
//! What stays, in the cleaned part of a log (`filter`): the last record of each key; a tombstone until its horizon; the
//! last batch of each active producer and of the round, emptied if need be; markers until the data of their transaction is
//! gone and their horizon has passed. Offsets, sequences and timestamps of what stays never change.

mod backward;
mod checkpoint;
mod dirty;
mod filter;
mod job;
mod key_map;
pub mod plan;
mod progress;
mod source;
#[cfg(test)]
mod tests;
mod transactions;
mod writer;

pub use checkpoint::{read_first_dirty, write_first_dirty};
pub use filter::Gone;
pub use job::{CleanError, Cleaned, Group, Job, KEPT_BYTES_MAX, LastRecord, SCRATCH, discard};
pub use key_map::KEY_BYTES;
pub use progress::Progress;
pub use source::Source;
