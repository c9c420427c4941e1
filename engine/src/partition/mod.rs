//! One partition: its tail in memory, its lanes to the disk, its segments, and what a reader gets.

mod append;
pub mod directory;
mod epochs;
mod error;
mod growth;
pub mod head;
pub mod limits;
pub mod open;
mod plan;
mod producers;
mod progress;
pub mod read;
mod recovered;
pub mod schedule;
pub mod seal;
mod spec;
pub mod state;
pub mod stretch;
pub mod tail;
pub mod waiters;

pub use crate::ids::PartitionId;
pub use append::{Appended, SEGMENT_BYTES_MAX};
pub use epochs::Epochs;
pub use error::{AppendError, ReadError};
pub use plan::{AbortedTransaction, Piece, ReadPlan};
pub use producers::{CARRY_MS, Producers, SequenceError, Verdict};
pub use progress::Run;
pub use recovered::{Damage, Recovered, Scanned};
pub use spec::{PartitionConfig, PartitionSpec, TimestampType};
pub use state::Partition;
pub use stretch::Incoming;
