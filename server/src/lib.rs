//! The broker: cores, connections, one file per Kafka API family, groups, catalog.

// The data path is barred from them, module by module; the start and the stop are not.
#![allow(clippy::disallowed_types)]

pub mod api;
pub mod asker;
pub mod catalog;
pub mod cold_reads;
pub mod config;
pub mod connection;
pub mod connections;
pub mod controller;
pub mod core;
pub mod errors;
pub mod failed_reads;
pub mod groups;
pub mod journal_owner;
pub mod keeping;
pub mod large_produce;
pub mod lock;
pub mod metrics;
pub mod moving;
pub mod net;
pub mod one_batch;
pub mod outbox;
pub mod progress;
pub mod settings;
pub mod signal;
pub mod start;
pub mod stranger;
pub mod walk;
