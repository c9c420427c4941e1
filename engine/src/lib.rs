//! The log engine of Thalweg: a journal for latency, segments for bandwidth, and a disk that is a trait.
//!
//! A lower module never imports a higher one: `measure`, `disk` < `batch` < `journal`, `segment`, `retention` < `partition` <
//! `compaction` < `log`.
//! No sockets and no Kafka requests in here; time and randomness are passed in.

// No locks, no atomics: a core shares nothing with another (engine/clippy.toml names the types).
#![deny(clippy::disallowed_types)]

pub mod batch;
pub mod bugs;
pub mod compaction;
pub mod disk;
pub mod ids;
pub mod journal;
pub mod kafka;
pub mod log;
pub mod measure;
pub mod partition;
pub mod retention;
pub mod segment;
