//! A progress bar on the terminal: what was read of what is to be read, and how fast.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Of reading that has a length.
const OF_BYTES: &str = "{wide_bar} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta} {msg}";
/// Of what has none.
const SPINNER: &str = "{spinner} {msg}";
/// Times a second that it is drawn.
const HZ: u8 = 5;

/// How far some work has come; the bar goes when this is dropped. Threads may share it.
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// For `bytes` in all, drawn on stderr if it is to be `shown`.
    #[must_use]
    pub fn new(shown: bool, bytes: u64) -> Progress {
        let target = if shown { ProgressDrawTarget::stderr_with_hz(HZ) } else { ProgressDrawTarget::hidden() };
        let progress = Progress { bar: ProgressBar::with_draw_target(Some(bytes), target) };
        progress.looks(OF_BYTES);
        progress
    }

    fn looks(&self, template: &str) {
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
    }

    /// What is read now.
    pub fn on(&self, what: impl Into<String>) {
        self.bar.set_message(what.into());
    }

    /// So many bytes more were read.
    pub fn add(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    /// So many bytes were read in all.
    pub fn at(&self, bytes: u64) {
        self.bar.set_position(bytes);
    }

    /// Something else, of which there are `bytes` in all.
    pub fn begin(&self, what: &str, bytes: u64) {
        self.looks(OF_BYTES);
        self.bar.reset();
        self.bar.set_length(bytes);
        self.on(what);
    }

    /// How many bytes there are in all.
    #[must_use]
    pub fn all(&self) -> Option<u64> {
        self.bar.length()
    }

    /// Something that takes a moment and has no length.
    pub fn waits(&self, what: &str) {
        self.looks(SPINNER);
        self.on(what);
        self.bar.tick();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
