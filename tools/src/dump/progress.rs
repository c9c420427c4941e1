//! The progress bar of a log that takes a while to read.

use std::path::Path;

/// Below so many bytes no bar is worth its while.
const BYTES_MIN: u64 = 256 << 20;

/// How far some reading has come.
pub(crate) struct Progress(server::progress::Progress);

impl Progress {
    /// For `bytes` in all.
    pub(crate) fn new(wanted: bool, bytes: u64) -> Progress {
        Progress(server::progress::Progress::new(wanted && bytes >= BYTES_MIN, bytes))
    }

    /// What is read now.
    pub(crate) fn on(&self, path: &Path) {
        self.0.on(path.file_name().unwrap_or_default().to_string_lossy());
    }

    pub(crate) fn add(&self, bytes: u64) {
        self.0.add(bytes);
    }
}
