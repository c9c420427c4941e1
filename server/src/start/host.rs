//! The thread of one core: its runtime, its log, its listeners.

use super::listen::Sockets;
use crate::{
    catalog::Catalog,
    connection, controller,
    core::{Core, Mailbox},
    keeping::{self, Cleaner},
    net::{self, Listener},
    settings::Settings,
};
use anyhow::Context;
use core_affinity::CoreId;
use engine::{
    disk::UringDisk,
    log::{CoreStart, Log},
};
use std::{net::SocketAddr, os::fd::RawFd, rc::Rc, sync::mpsc::Sender, time::Duration};
use tokio::sync::mpsc;

/// How long answers under way may take to go out when the broker stops.
const DRAIN_MS_MAX: u64 = 3_000;
/// The pause after a failed accept (too many open files), in ms.
const ACCEPT_PAUSE_MS: u64 = 100;

/// What has happened, for the main thread.
pub enum Event {
    /// A core's log is open.
    Opened,
    /// A core is ready for clients.
    Begun,
    /// A core takes connections.
    Serving,
    /// A core has no connections any more.
    Drained,
    /// A core's log is closed, with so many partitions of which a part is in the journal only.
    Closed(usize),
    /// A core can't go on.
    Failed(usize, anyhow::Error),
    /// A signal came.
    Signal(&'static str),
}

/// What the main thread wants of a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Finish what the last run left, with the other cores' help.
    Begin,
    /// Take connections.
    Serve,
    /// End all connections.
    Drain,
    /// Close the log.
    Close,
}

/// What a core begins with.
pub struct Setup {
    pub index: usize,
    pub cpu: CoreId,
    pub lock: RawFd,
    pub buffered: bool,
    pub start: CoreStart,
    pub catalog: Catalog,
    /// The size of the catalog's log.
    pub catalog_bytes: u64,
    /// The highest producer id in the data of all cores.
    pub highest_producer_id: i64,
    pub settings: Settings,
    pub mailbox: Mailbox,
    pub sockets: Sockets,
    /// Who compacts for all cores.
    pub cleaner: Cleaner,
}

/// A running core.
pub struct Host {
    orders: mpsc::UnboundedSender<Order>,
}

impl Host {
    /// Starts a core's thread.
    ///
    /// # Errors
    /// No more threads.
    pub fn spawn(setup: Setup, events: Sender<Event>) -> anyhow::Result<Host> {
        let (orders, ordered) = mpsc::unbounded_channel();
        let index = setup.index;
        let work = move || {
            if !core_affinity::set_for_current(setup.cpu) {
                tracing::warn!(core = index, cpu = setup.cpu.id, "the thread can't be pinned to its CPU");
            }
            let events_of_run = events.clone();
            // Nothing that the panic may have left half done is used afterwards: the process ends.
            let run = std::panic::AssertUnwindSafe(|| net::run_for_good(run(setup, ordered, events_of_run)));
            let _ = events.send(match std::panic::catch_unwind(run) {
                Ok(Ok(Ok(left))) => Event::Closed(left),
                Ok(Ok(Err(error))) => Event::Failed(index, error),
                Ok(Err(error)) => Event::Failed(index, anyhow::Error::from(error).context("io_uring")),
                Err(_) => Event::Failed(index, anyhow::anyhow!("its thread panicked; please report it")),
            });
        };
        std::thread::Builder::new().name(format!("core-{index}")).spawn(work).context("a thread per core")?;
        Ok(Host { orders })
    }

    /// Tells the core what to do next.
    pub fn order(&self, order: Order) {
        let _ = self.orders.send(order);
    }
}

async fn run(setup: Setup, mut orders: mpsc::UnboundedReceiver<Order>, events: Sender<Event>) -> anyhow::Result<usize> {
    let index = setup.index;
    let disk = UringDisk::new(setup.lock, setup.buffered)?;
    vital(index, "the disk", &events, {
        let disk = disk.clone();
        async move {
            disk.run().await;
            Ok(())
        }
    });
    let epoch = setup.start.leader_epoch;
    let log = Log::open(disk.clone(), setup.start).await?;
    vital(index, "the log", &events, {
        let log = log.clone();
        async move { log.run().await.map_err(anyhow::Error::from) }
    });
    let core = Core::new(index, log, disk, setup.catalog, setup.settings, epoch, setup.mailbox);
    let _ = events.send(Event::Opened);
    expect(&mut orders, Order::Begin).await?;
    if index == 0 {
        controller::start(&core, setup.highest_producer_id, setup.catalog_bytes).await?;
    }
    let _ = events.send(Event::Begun);
    expect(&mut orders, Order::Serve).await?;
    let listeners = setup.sockets.listen()?;
    for listener in &listeners {
        tokio::task::spawn_local(accept(Rc::clone(&core), listener.clone()));
    }
    tokio::task::spawn_local({
        let core = Rc::clone(&core);
        async move { core.connections.sweep(core.settings.connection_idle_ms_max).await }
    });
    keeping::start(&core, setup.cleaner);
    let _ = events.send(Event::Serving);
    expect(&mut orders, Order::Drain).await?;
    core.stopping.raise();
    listeners.iter().for_each(Listener::close);
    core.connections.close(Duration::from_millis(DRAIN_MS_MAX)).await;
    let _ = events.send(Event::Drained);
    expect(&mut orders, Order::Close).await?;
    Ok(core.log.close().await?)
}

/// Runs what a core can't go on without: if it fails, or panics, the broker says so and ends.
fn vital(index: usize, what: &'static str, events: &Sender<Event>, work: impl Future<Output = anyhow::Result<()>> + 'static) {
    let events = events.clone();
    tokio::task::spawn_local(async move {
        let error = match tokio::task::spawn_local(work).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(panic) => anyhow::anyhow!("{what} panicked: {panic}; please report it"),
        };
        let _ = events.send(Event::Failed(index, error));
    });
}

async fn expect(orders: &mut mpsc::UnboundedReceiver<Order>, expected: Order) -> anyhow::Result<()> {
    // The main thread is gone only when the process is about to end.
    let order = orders.recv().await.context("the main thread has ended")?;
    assert_eq!(order, expected, "orders come in their order");
    Ok(())
}

async fn accept(core: Rc<Core>, listener: Listener) {
    loop {
        let (socket, peer): (_, SocketAddr) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(_) if core.stopping.is_raised() => return,
            Err(error) => {
                // Too many open files, or a client that was gone before it was taken.
                tracing::warn!(core = core.index, "accept: {error}");
                tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
                continue;
            }
        };
        if core.connections.count() >= core.settings.connections_max {
            core.counters.refused_connection();
            tracing::warn!(%peer, "refused: max.connections ({}) is reached on core {}", core.settings.connections_max, core.index);
            continue;
        }
        tokio::task::spawn_local(connection::serve(Rc::clone(&core), socket, peer));
    }
}
