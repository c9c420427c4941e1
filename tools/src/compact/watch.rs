//! The progress bar: how far the compaction of a partition has come.

use engine::compaction::Job;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::{
    cell::Cell,
    future::Future,
    time::{Duration, Instant},
};

/// Between two looks at how far it has come.
const LOOK: Duration = Duration::from_millis(100);

/// Shows how far it has come, on the terminal if it may.
pub(crate) struct Watch {
    bar: ProgressBar,
    read_bytes: Cell<u64>,
    took: Cell<Duration>,
}

impl Watch {
    pub(crate) fn new(wanted: bool) -> Watch {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        if wanted {
            bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(5));
        }
        Watch { bar, read_bytes: Cell::new(0), took: Cell::default() }
    }

    /// Something that takes a moment and has no length.
    pub(crate) fn says(&self, what: &str) {
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            self.bar.set_style(style);
        }
        self.bar.set_message(what.to_owned());
        self.bar.tick();
    }

    /// How far something has come, in bytes.
    pub(crate) fn shows(&self, what: &str, done: i64, all: i64) {
        if self.bar.length() != Some(all as u64) {
            self.measures(what, all as u64);
        }
        self.bar.set_position(done as u64);
    }

    fn measures(&self, what: &str, all: u64) {
        if let Ok(style) = ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta} {msg}") {
            self.bar.set_style(style);
        }
        self.bar.reset();
        self.bar.set_length(all);
        self.bar.set_message(what.to_owned());
    }

    /// Watches a job until `work`, which runs it, has ended.
    pub(crate) async fn on<T>(&self, job: &Job, work: impl Future<Output = T>) -> T {
        let name = job.directory.file_name().unwrap_or_default().to_string_lossy();
        self.measures(&format!("compacting {name}"), job.bytes_to_read());
        let began = Instant::now();
        let mut ticks = tokio::time::interval(LOOK);
        let mut work = std::pin::pin!(work);
        let result = loop {
            tokio::select! {
                result = &mut work => break result,
                _ = ticks.tick() => self.bar.set_position(job.progress.bytes()),
            }
        };
        self.took.set(self.took.get() + began.elapsed());
        self.read_bytes.set(self.read_bytes.get() + job.progress.bytes());
        result
    }

    /// How long all jobs so far have taken.
    pub(crate) fn took(&self) -> Duration {
        self.took.get()
    }

    /// Bytes of log that were read by all jobs so far.
    pub(crate) fn read_bytes(&self) -> u64 {
        self.read_bytes.get()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
