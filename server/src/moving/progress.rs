//! A progress bar on the terminal: what was read of what is to be moved, and how fast.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, stderr};

/// How far the copying has come. Shared by the threads that copy.
pub(super) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// For `bytes` in all. Nothing is shown if stderr is no terminal.
    pub(super) fn new(bytes: u64) -> Progress {
        let bar = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::hidden());
        let template = "{wide_bar} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta} {msg}";
        if let Ok(style) = ProgressStyle::with_template(template)
            && stderr().is_terminal()
        {
            bar.set_style(style);
            bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(5));
        }
        Progress { bar }
    }

    /// What is copied now.
    pub(super) fn on(&self, partition: &str) {
        self.bar.set_message(partition.to_owned());
    }

    /// So many bytes more were read.
    pub(super) fn add(&self, bytes: u64) {
        self.bar.inc(bytes);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
