//! A progress bar on the terminal, for work that takes a while.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::path::Path;

/// Below so many bytes no bar is worth its while.
const BYTES_MIN: u64 = 256 << 20;

/// How far some reading has come.
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// For `bytes` in all.
    pub(crate) fn new(wanted: bool, bytes: u64) -> Progress {
        let bar = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::hidden());
        let template = "{wide_bar} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta} {msg}";
        if let Ok(style) = ProgressStyle::with_template(template)
            && wanted
            && bytes >= BYTES_MIN
        {
            bar.set_style(style);
            bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(5));
        }
        Progress { bar }
    }

    /// What is read now.
    pub(crate) fn on(&self, path: &Path) {
        self.bar.set_message(path.file_name().unwrap_or_default().to_string_lossy().into_owned());
    }

    pub(crate) fn add(&self, bytes: u64) {
        self.bar.inc(bytes);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
