//! Thalweg's tools for data on disk, as a library: the programs in `bin/` only read their arguments.

pub mod compact;
pub mod dump;
mod output;
