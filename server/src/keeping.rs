//! Retention and compaction while the broker runs: a task on each core that does what is due when it is due, and one thread
//! for the whole broker that compacts.
//!
//! Decompressing and compressing take time, so compaction never runs on a core's thread: the core decides and swaps, the
//! thread reads and writes. It has a ring of its own, and yields to everybody else: it runs at the lowest priority.

mod tally;

pub use tally::{Tallies, Tally};

use crate::{controller::now_ms, core::Core};
use anyhow::Context;
use engine::{
    compaction::{CleanError, Cleaned, Job, KEY_BYTES},
    disk::UringDisk,
};
use std::{io, os::fd::RawFd, path::PathBuf, rc::Rc, time::Duration};
use tokio::sync::{mpsc, oneshot};

/// Between two looks of a core at what is due, in ms: so many partitions may be due at once that one look should take
/// several of them.
const PAUSE_MS: u64 = 200;
/// A deadline further away than this, in ms, is looked at again: clocks are set.
const SLEEP_MS_MAX: i64 = 3_600_000;
/// Jobs that wait for the thread: one for each core at most.
const JOBS_MAX: usize = 1_024;
/// The priority of the thread: the lowest.
const NICE: i32 = 19;
/// Memory for the keys of one round, in bytes (Kafka: `log.cleaner.dedupe.buffer.size`).
pub const KEYS_BYTES_MAX: usize = 128 << 20;

type Answer = Result<Cleaned, CleanError>;

/// The thread that compacts. Cheap to clone; it ends with its last handle.
#[derive(Clone)]
pub struct Cleaner {
    jobs: mpsc::Sender<(Job, oneshot::Sender<Answer>)>,
}

impl Cleaner {
    /// Starts the thread.
    ///
    /// # Errors
    /// No more threads.
    pub fn spawn(lock: RawFd, buffered: bool) -> anyhow::Result<Cleaner> {
        let (jobs, waiting) = mpsc::channel(JOBS_MAX);
        let work = move || {
            if let Err(error) = work(lock, buffered, waiting) {
                tracing::error!("compaction is not possible: {error:#}");
            }
        };
        std::thread::Builder::new().name("compaction".into()).spawn(work).context("a thread for compaction")?;
        Ok(Cleaner { jobs })
    }

    /// Runs a job. `None` if the thread has ended.
    async fn run(&self, job: Job) -> Option<Answer> {
        let (reply, answer) = oneshot::channel();
        self.jobs.send((job, reply)).await.ok()?;
        answer.await.ok()
    }
}

fn work(lock: RawFd, buffered: bool, mut jobs: mpsc::Receiver<(Job, oneshot::Sender<Answer>)>) -> anyhow::Result<()> {
    // Of this thread only: on Linux a priority is a thread's.
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::warn!("the priority of compaction can't be lowered: {error}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let disk = UringDisk::new(lock, buffered)?;
        tokio::task::spawn_local({
            let disk = disk.clone();
            async move { disk.run().await }
        });
        while let Some((job, reply)) = jobs.recv().await {
            let directory = job.directory.clone();
            let disk = disk.clone();
            let cleaned = unless_it_panics(directory, async move { job.run(&disk).await }).await;
            // Whoever asked has gone only if the broker stops.
            let _ = reply.send(cleaned);
        }
        Ok(())
    })
}

/// Runs a job in a task of its own: one that panics is a round that failed, and no end to the compaction of all others.
async fn unless_it_panics(directory: PathBuf, job: impl Future<Output = Answer> + 'static) -> Answer {
    tokio::task::spawn_local(job).await.unwrap_or_else(|panic| {
        tracing::error!("the compaction of {} panicked, which is a mistake of the broker: please report it: {panic}", directory.display());
        Err(CleanError::Disk { path: directory, source: io::Error::other(panic) })
    })
}

/// Starts retention and compaction on a core.
pub fn start(core: &Rc<Core>, cleaner: Cleaner) {
    let tallies = Rc::clone(&core.tallies);
    core.log.observe_keeping(Box::new(move |event| tallies.note(event)));
    tokio::task::spawn_local(keep(Rc::clone(core)));
    tokio::task::spawn_local(clean(Rc::clone(core), cleaner));
}

/// Does what is due, when it is due.
async fn keep(core: Rc<Core>) {
    while !core.stopping.is_raised() {
        let next = core.log.keep(now_ms()).await;
        let left = next.map_or(SLEEP_MS_MAX, |at_ms| at_ms.saturating_sub(now_ms()).clamp(0, SLEEP_MS_MAX));
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(left as u64)) => {}
            () = core.log.keep_sooner() => {}
            () = core.stopping.raised() => return,
        }
        tokio::time::sleep(Duration::from_millis(PAUSE_MS)).await;
    }
}

/// Has the thread compact what is worth it, one partition of the core after the other.
async fn clean(core: Rc<Core>, cleaner: Cleaner) {
    while !core.stopping.is_raised() {
        let secret = (rand::random(), rand::random());
        let Some(job) = core.log.next_cleaning(now_ms(), KEYS_BYTES_MAX / KEY_BYTES, secret).await else {
            tokio::select! {
                () = core.log.has_cleaning() => continue,
                () = core.stopping.raised() => return,
            }
        };
        core.tallies.round_begins(&job);
        let Some(result) = cleaner.run(job.clone()).await else { return };
        core.log.finish_cleaning(&job, result, now_ms()).await;
        core.tallies.round_ends();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn broken() -> Answer {
        panic!("a key was not there")
    }

    #[test]
    fn a_job_that_panics_is_a_round_that_failed() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let broken = unless_it_panics("orders-0".into(), broken()).await;
            let error = broken.expect_err("it has panicked").to_string();
            assert!(error.contains("orders-0") && error.contains("a key was not there"), "{error}");
            let cleaned = Cleaned { clean_to: 7, ..Cleaned::default() };
            let next = unless_it_panics("orders-1".into(), async { Ok(cleaned) }).await;
            assert_eq!(next.expect("the next one runs").clean_to, 7);
        });
    }
}
