//! One core of the broker: its log, its copy of the catalog, its groups, and the way to the other cores.

#![deny(clippy::disallowed_types)]

use crate::{
    catalog::Catalog,
    cold_reads::ColdReads,
    connections::Connections,
    controller::Controller,
    failed_reads::FailedReads,
    groups::coordinator::{self, Coordinator},
    keeping::Tallies,
    metrics::Counters,
    settings::Settings,
    signal::Signal,
};
use engine::{disk::UringDisk, log::Log};
use futures_util::future::LocalBoxFuture;
use std::{
    cell::{Cell, RefCell},
    future::Future,
    rc::Rc,
};
use tokio::sync::{mpsc, oneshot};

/// What one core asks another to do: run on its thread, with its [`Core`].
type Job = Box<dyn FnOnce(Rc<Core>) -> LocalBoxFuture<'static, ()> + Send>;

/// Requests between two cores that wait at most; the sender then waits too.
pub const MESH_QUEUE_MAX: usize = 1024;

/// Everything that one core's thread works with. `Rc`, `RefCell`, `Cell`: it never leaves the thread.
pub struct Core {
    /// Its index among the cores used, which is its node id.
    pub index: usize,
    /// The log of its partitions.
    pub log: Log<UringDisk>,
    /// The disk, for readers inside the broker.
    pub disk: UringDisk,
    /// What its cold readers may ask of the disk.
    pub cold_reads: ColdReads,
    /// Its copy of the catalog. Core 0 is the single writer of changes; every core applies them in order.
    pub catalog: RefCell<Catalog>,
    /// What the operator decided.
    pub settings: Rc<Settings>,
    /// The leader epoch of this start: that of every partition that existed at the start.
    pub start_epoch: i32,
    /// What it keeps for the controller, which is core 0's.
    pub controller: Controller,
    /// The groups that it coordinates.
    pub groups: Rc<Coordinator>,
    /// Its open connections.
    pub connections: Rc<Connections>,
    /// What it has counted.
    pub counters: Counters,
    /// Where reads have failed.
    pub failed_reads: FailedReads,
    /// What retention and compaction have done.
    pub tallies: Rc<Tallies>,
    /// Raised when the broker stops: whoever waits for something that may not come answers with what there is.
    pub stopping: Signal,
    /// Counts fetches, so that each begins at another partition.
    pub fetches: Cell<usize>,
    peers: Vec<mpsc::Sender<Job>>,
}

/// What other cores ask of this one; made on the main thread for all cores, given to each core's thread.
pub struct Mailbox {
    jobs: mpsc::Receiver<Job>,
    peers: Vec<mpsc::Sender<Job>>,
}

/// The queues between `cores` cores.
#[must_use]
pub fn mesh(cores: usize) -> Vec<Mailbox> {
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..cores).map(|_| mpsc::channel(MESH_QUEUE_MAX)).unzip();
    receivers.into_iter().map(|jobs| Mailbox { jobs, peers: senders.clone() }).collect()
}

impl Mailbox {
    /// A way to all cores for a thread that is none of them.
    #[must_use]
    pub fn remote(&self) -> Remote {
        Remote { peers: self.peers.clone() }
    }
}

/// The way to all cores from a thread that is none of them.
#[derive(Clone)]
pub struct Remote {
    peers: Vec<mpsc::Sender<Job>>,
}

impl Remote {
    /// How many cores there are.
    #[must_use]
    pub fn cores(&self) -> usize {
        self.peers.len()
    }

    /// As [`Core::ask`].
    ///
    /// # Errors
    /// [`Stopping`].
    pub async fn ask<T, J, F>(&self, target: usize, job: J) -> Result<T, Stopping>
    where
        T: Send + 'static,
        J: FnOnce(Rc<Core>) -> F + Send + 'static,
        F: Future<Output = T> + 'static,
    {
        hop(&self.peers[target], job).await
    }
}

/// Runs `job` on the thread of another core.
async fn hop<T, J, F>(target: &mpsc::Sender<Job>, job: J) -> Result<T, Stopping>
where
    T: Send + 'static,
    J: FnOnce(Rc<Core>) -> F + Send + 'static,
    F: Future<Output = T> + 'static,
{
    let (reply, answer) = oneshot::channel();
    let job: Job = Box::new(move |core| {
        let work = job(core);
        Box::pin(async move {
            let _ = reply.send(work.await);
        })
    });
    target.send(job).await.map_err(|_| Stopping)?;
    answer.await.map_err(|_| Stopping)
}

/// The core that was asked has stopped.
#[derive(Debug, thiserror::Error)]
#[error("the broker is stopping")]
pub struct Stopping;

impl Core {
    /// A core on its thread, already serving the other cores' jobs: they run concurrently, and begin in order.
    #[must_use]
    pub fn new(
        index: usize,
        log: Log<UringDisk>,
        disk: UringDisk,
        catalog: Catalog,
        settings: Settings,
        start_epoch: i32,
        mailbox: Mailbox,
    ) -> Rc<Core> {
        let Mailbox { mut jobs, peers } = mailbox;
        let groups = Rc::new(Coordinator::new(&settings));
        let (catalog, settings) = (RefCell::new(catalog), Rc::new(settings));
        let core = Rc::new(Core {
            index,
            cold_reads: ColdReads::new(log.clone()),
            log,
            disk,
            catalog,
            settings,
            start_epoch,
            controller: Controller::default(),
            groups,
            connections: Rc::default(),
            counters: Counters::default(),
            failed_reads: FailedReads::default(),
            tallies: Rc::default(),
            stopping: Signal::default(),
            fetches: Cell::new(0),
            peers,
        });
        let serving = Rc::downgrade(&core);
        tokio::task::spawn_local(async move {
            while let Some(job) = jobs.recv().await {
                let Some(core) = serving.upgrade() else { break };
                // Tasks are first polled in the order in which they were spawned.
                tokio::task::spawn_local(job(core));
            }
        });
        coordinator::start(&core);
        core
    }

    /// How many cores there are.
    #[must_use]
    pub fn cores(&self) -> usize {
        self.peers.len()
    }

    /// Runs `job` on the thread of core `target` (this one included, without a hop) and brings back its result. Jobs of
    /// one core to another *begin* in order.
    ///
    /// # Errors
    /// [`Stopping`].
    pub async fn ask<T, J, F>(self: &Rc<Self>, target: usize, job: J) -> Result<T, Stopping>
    where
        T: Send + 'static,
        J: FnOnce(Rc<Core>) -> F + Send + 'static,
        F: Future<Output = T> + 'static,
    {
        if target == self.index {
            return Ok(job(Rc::clone(self)).await);
        }
        hop(&self.peers[target], job).await
    }
}
