//! The progress bar: how far the compaction of a partition has come.

use engine::compaction::{CleanError, Cleaned, Job};
use server::progress::Progress;
use std::{
    cell::Cell,
    future::Future,
    time::{Duration, Instant},
};

/// Between two looks at how far it has come.
const LOOK: Duration = Duration::from_millis(100);

/// What comes of a job.
type Round = Result<Option<Cleaned>, CleanError>;

/// Shows how far it has come, on the terminal if it may.
pub(crate) struct Watch {
    bar: Progress,
    read_bytes: Cell<u64>,
    took: Cell<Duration>,
}

impl Watch {
    pub(crate) fn new(wanted: bool) -> Watch {
        Watch { bar: Progress::new(wanted, 0), read_bytes: Cell::new(0), took: Cell::default() }
    }

    /// Something that takes a moment and has no length.
    pub(crate) fn says(&self, what: &str) {
        self.bar.waits(what);
    }

    /// How far something has come, in bytes.
    pub(crate) fn shows(&self, what: &str, done: i64, all: i64) {
        if self.bar.all() != Some(all as u64) {
            self.bar.begin(what, all as u64);
        }
        self.bar.at(done as u64);
    }

    /// Watches a job until `work`, which runs it, has ended.
    pub(crate) async fn on(&self, job: &Job, work: impl Future<Output = Round>) -> Round {
        let name = job.directory.file_name().unwrap_or_default().to_string_lossy();
        self.bar.begin(&format!("compacting {name}"), job.bytes_to_read());
        let began = Instant::now();
        let mut ticks = tokio::time::interval(LOOK);
        let mut work = std::pin::pin!(work);
        let result = loop {
            tokio::select! {
                result = &mut work => break result,
                _ = ticks.tick() => self.bar.at(job.progress.bytes()),
            }
        };
        self.took.set(self.took.get() + began.elapsed());
        // The bar has counted these twice.
        let once = result.as_ref().ok().and_then(Option::as_ref).map_or(0, |cleaned| cleaned.read_once);
        self.read_bytes.set(self.read_bytes.get() + job.progress.bytes() - once);
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
