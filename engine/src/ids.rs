//! Numbers that every layer knows.

/// A partition's number in the catalog. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId(pub u32);

impl PartitionId {
    /// The catalog's own partition: it belongs to core 0 and is recovered before all others.
    pub const CATALOG: PartitionId = PartitionId(0);
}
