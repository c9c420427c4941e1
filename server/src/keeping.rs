//! Retention and compaction while the broker runs: a task on each core that does what is due when it is due, and one thread
//! for the whole broker that compacts.
//!
//! Decompressing and compressing take time, so compaction never runs on a core's thread: the core decides and swaps, the
//! thread reads and writes, and waits for the swap of each group before it begins the next one. It has a ring of its own, and
//! yields to everybody else: it runs at the lowest priority.

mod tally;

pub use tally::{Tallies, Tally};

use crate::{controller::now_ms, core::Core, metrics::process::disk_bytes};
use anyhow::Context;
use engine::{
    compaction::{CleanError, Cleaned, Group, Job, KEY_BYTES, Progress, plan},
    disk::{UringDisk, has_producers},
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

/// What came of a round, as `Job::run` returns it.
type Answer = Result<Option<Cleaned>, CleanError>;
/// Whether a group is in its place, as [`engine::log::Log::install_cleaned`] says it.
type Installed = Result<bool, CleanError>;
/// Groups on their way to the core, each with who waits until it is in its place.
type Groups = mpsc::Sender<(Group, oneshot::Sender<Installed>)>;

/// A job for the thread.
struct Order {
    job: Job,
    /// Dropped when the job ends, whatever it ends of.
    groups: Groups,
    reply: oneshot::Sender<Answer>,
}

/// The thread that compacts. Cheap to clone; it ends with its last handle.
#[derive(Clone)]
pub struct Cleaner {
    jobs: mpsc::Sender<Order>,
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

    /// Runs a job; `install` puts its groups in place, on this thread. `None` if the thread that compacts has ended.
    async fn run(&self, job: Job, mut install: impl AsyncFnMut(Group) -> Installed) -> Option<Answer> {
        let (groups, mut cleaned) = mpsc::channel(1);
        let (reply, answer) = oneshot::channel();
        self.jobs.send(Order { job, groups, reply }).await.ok()?;
        while let Some((group, installed)) = cleaned.recv().await {
            let _ = installed.send(install(group).await);
        }
        answer.await.ok()
    }
}

/// Has the core put a group in its place. False if nobody does any more: the broker stops.
async fn hand_over(groups: &Groups, group: Group) -> Installed {
    let (reply, answer) = oneshot::channel();
    if groups.send((group, reply)).await.is_err() {
        return Ok(false);
    }
    answer.await.unwrap_or(Ok(false))
}

fn work(lock: RawFd, buffered: bool, mut jobs: mpsc::Receiver<Order>) -> anyhow::Result<()> {
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
        while let Some(Order { job, groups, reply }) = jobs.recv().await {
            let directory = job.directory.clone();
            let disk = disk.clone();
            let round = async move { job.run(&disk, async |group| hand_over(&groups, group).await).await };
            // Whoever asked has gone only if the broker stops.
            let _ = reply.send(unless_it_panics(directory, round).await);
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
        let Some(mut job) = core.log.next_cleaning(now_ms(), KEYS_BYTES_MAX / KEY_BYTES, secret).await else {
            tokio::select! {
                () = core.log.has_cleaning() => continue,
                () = core.stopping.raised() => return,
            }
        };
        job.progress = Progress::gentle_when(gentle(&job));
        core.tallies.round_begins(&job);
        let install = async |group: Group| core.log.install_cleaned(&job, &group).await;
        let Some(result) = cleaner.run(job.clone(), install).await else { return };
        core.log.finish_cleaning(&job, result, now_ms()).await;
        core.tallies.round_ends();
    }
}

/// Whether a round leaves the disk to producers, asked as often as it reads or writes something. All cores have the same disk.
fn gentle(job: &Job) -> impl Fn() -> bool + Send + Sync + use<> {
    let (directory, overdue_ms, segment_bytes) = (job.directory.clone(), job.overdue_ms, job.segment_bytes);
    move || {
        let now_ms = now_ms();
        let free_bytes = || disk_bytes(&directory).map(|(free, _)| free);
        plan::is_gentle(has_producers(now_ms), now_ms, overdue_ms, segment_bytes, free_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::partition::PartitionId;
    use std::collections::BTreeMap;

    fn job(directory: &str) -> Job {
        Job {
            partition: PartitionId(1),
            directory: directory.into(),
            scratch: PathBuf::new(),
            segments: Vec::new(),
            end: 0,
            first_dirty: 0,
            later: Vec::new(),
            aborted: Vec::new(),
            producers: BTreeMap::new(),
            segment_bytes: 0,
            delete_retention_ms: 0,
            overdue_ms: None,
            now_ms: 0,
            keys_max: 0,
            kept_bytes_max: 0,
            secret: (0, 0),
            progress: Progress::default(),
        }
    }

    /// A round of two groups that panics before the second one.
    async fn broken(groups: Groups) -> Answer {
        let first = Group { bases: vec![0], bytes_before: 2, bytes: 1, has_transactions: false };
        assert!(hand_over(&groups, first).await.expect("it is installed"));
        panic!("a key was not there")
    }

    async fn whole() -> Answer {
        Ok(Some(Cleaned { clean_to: 7, ..Cleaned::default() }))
    }

    #[test]
    fn a_job_that_panics_between_two_groups_is_a_round_that_failed_and_the_next_one_runs() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let (jobs, mut orders) = mpsc::channel(1);
            let cleaner = Cleaner { jobs };
            tokio::task::spawn_local(async move {
                let Order { job, groups, reply } = orders.recv().await.expect("the first job");
                let _ = reply.send(unless_it_panics(job.directory, broken(groups)).await);
                let Order { job, reply, .. } = orders.recv().await.expect("the next one");
                let _ = reply.send(unless_it_panics(job.directory, whole()).await);
            });
            let mut in_place = Vec::new();
            let answer = cleaner.run(job("orders-0"), async |group| {
                in_place.push(group.bases[0]);
                Ok(true)
            });
            let error = answer.await.expect("the thread goes on").expect_err("it has panicked").to_string();
            assert!(error.contains("orders-0") && error.contains("a key was not there"), "{error}");
            assert_eq!(in_place, [0]);
            let next = cleaner.run(job("orders-1"), async |_| Ok(true)).await.expect("the thread goes on");
            assert_eq!(next.expect("the next one runs").expect("to its end").clean_to, 7);
        });
    }
}
