//! Segments on disk: their names, their indexes, and reading the sealed ones.

mod cache;
mod directory;
mod index;
pub mod kafka_swap;
mod names;
mod sealed;
mod snapshot;
mod stream;
pub mod swap;
#[cfg(test)]
mod tests;
mod transactions;
mod walk;

pub use cache::OpenSegments;
pub use directory::{PartitionFiles, SegmentFiles, remove_segment};
pub use index::{
    INDEX_ENTRY_BYTES, INDEX_INTERVAL_BYTES, IndexEntry, IndexError, Indexes, OffsetIndex, TIME_ENTRY_BYTES, TimeEntry, TimeIndex,
};
pub use names::{
    FileKind, LEADER_EPOCH_CHECKPOINT, PARTITION_METADATA, directory_name, file_name, parse_directory_name, parse_file_name, removed_paths,
    stray_names,
};
pub use sealed::{BatchRange, Sealed, SegmentError, first_at_or_after, first_timestamp, store_indexes};
pub use snapshot::{
    EpochStart, FormatError, NO_TRANSACTION, PRODUCER_BATCHES_MAX, ProducerState, SequencedBatch, decode_epochs, decode_metadata,
    decode_snapshot, encode_epochs, encode_metadata, encode_snapshot,
};
pub(crate) use stream::WINDOW_BYTES as STREAM_WINDOW_BYTES;
pub use stream::{BatchStream, Pass};
pub use transactions::{AbortedTxn, OpenTransactions, TXN_ENTRY_BYTES, TxnIndex};
pub use walk::{WINDOW_BYTES, Walk};
