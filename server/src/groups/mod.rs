//! Consumer groups: the classic protocol's state machine, committed offsets, and their records in `__consumer_offsets`.

#![deny(clippy::disallowed_types)]

pub mod classic;
pub mod coordinator;
pub mod offsets;
pub mod records;
pub mod replay;
