//! From the command line to a broker that serves, and to its end.
//!
//! The start: checks and ports, then the lock, then what the engine recovers for all cores together, then a thread per
//! core. The stop: no more connections, waiting requests answered, logs closed, the clean mark.

pub(crate) mod checks;
mod host;
mod listen;
mod port;
mod screen;
mod signals;

use crate::{
    catalog,
    config::{Cli, Config, kept},
    controller, core, journal_owner,
    keeping::Cleaner,
    metrics::{self, process::About},
    net,
};
use anyhow::{Context, anyhow, bail};
use engine::{
    disk::UringDisk,
    log::{CoreStart, Replay, Start, mark_clean},
};
use host::{Event, Host, Order};
use std::{
    cell::Cell,
    io::IsTerminal,
    os::fd::AsRawFd,
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::{Duration, Instant},
};

/// A stop takes so many seconds at most, whatever clients do. What isn't done by then is recovered by the next start.
pub const STOP_SECONDS_MAX: u64 = 10;

/// Runs the broker until it is told to stop.
///
/// # Errors
/// Why it did not start, or could not go on, with what to do about it.
pub fn run(cli: Cli) -> anyhow::Result<()> {
    let config = Config::resolve(&cli)?;
    init_log(config.log_level.as_deref())?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let limits = checks::raise_limits();
    checks::io_uring()?;
    let sockets = listen::bind(&config.listen_host, &config.ports)?;
    let ports: Vec<u16> = sockets.iter().map(|sockets| sockets.port).collect();
    let scraped = listen::metrics(&config.metrics)?;
    let directory = checks::directories(&config.log, config.allow_buffered)?;
    // Until here, while a port or the lock is waited for, a signal ends the process. Before any thread exists, so that every
    // thread has them blocked.
    signals::block()?;
    let mut settings = config.settings.clone();
    settings.nodes = config.nodes(&ports);
    let mailboxes = core::mesh(config.cpus.len());
    let metrics = match scraped {
        // From here on, so that /health tells a start from a port that nobody listens on.
        Some(listener) => {
            let address = listener.local_addr()?;
            metrics::http::serve(listener, mailboxes[0].remote(), About::now(&config.log.data_dir, &config.log.journal_dir))?;
            Some(address)
        }
        None => None,
    };
    let began = Instant::now();
    let recovered = recover(&config, &settings, directory.lock.as_raw_fd(), !directory.direct)?;
    let recovery = recovered.replay.map(|replay| (replay, began.elapsed()));
    kept::keep(&config.log.data_dir, &config.kept)?;
    journal_owner::claim(&config.log.data_dir, &config.log.journal_dir);
    let found = screen::Found { nodes: &settings.nodes, ports: &ports, metrics, directory: &directory, recovery, limits: &limits };
    screen::show(&config, &found);
    let (events, happened) = channel();
    let cleaner = Cleaner::spawn(directory.lock.as_raw_fd(), !directory.direct)?;
    signals::watch(events.clone());
    for (topic, partitions) in &recovered.prepared.taken_over {
        println!("  taken over     topic {topic}, {partitions} partitions found in the data directory");
    }
    let highest_producer_id = recovered.cores.iter().map(|core| core.highest_producer_id).max().unwrap_or(-1);
    let mut hosts = Vec::with_capacity(config.cpus.len());
    let parts = recovered.cores.into_iter().zip(mailboxes).zip(sockets);
    for (index, ((start, mailbox), sockets)) in parts.enumerate() {
        hosts.push(Host::spawn(
            host::Setup {
                index,
                cpu: config.cpus[index],
                lock: directory.lock.as_raw_fd(),
                buffered: !directory.direct,
                start,
                catalog: recovered.prepared.catalog.clone(),
                catalog_bytes: recovered.prepared.catalog_bytes,
                highest_producer_id,
                settings: settings.clone(),
                mailbox,
                sockets,
                cleaner: cleaner.clone(),
            },
            events.clone(),
        )?);
    }
    let broker = Broker { hosts, happened };
    broker.all(|event| matches!(event, Event::Opened), None)?;
    // Every core serves the others now: the controller may use them, before any of them serves clients.
    broker.order(Order::Begin);
    broker.all(|event| matches!(event, Event::Begun), None)?;
    broker.order(Order::Serve);
    broker.all(|event| matches!(event, Event::Serving), None)?;
    screen::serving(&settings.nodes, began.elapsed());
    let left = broker.until_stopped()?;
    if left == 0 {
        net::run(async {
            let disk = UringDisk::new(directory.lock.as_raw_fd(), !directory.direct)?;
            tokio::task::spawn_local({
                let disk = disk.clone();
                async move { disk.run().await }
            });
            mark_clean(&disk, &config.log).await.map_err(anyhow::Error::from)
        })
        .context("the clean mark")??;
        println!("thalweg has stopped cleanly");
    } else {
        println!(
            "thalweg has stopped. Of {left} offline partitions a part is in the journal only; the log says what to do. The next start recovers"
        );
    }
    Ok(())
}

struct Recovered {
    cores: Vec<CoreStart>,
    prepared: catalog::start::Prepared,
    replay: Option<Replay>,
}

/// What the engine and the catalog make of the data directory. It changes nothing until all of it is known.
fn recover(config: &Config, settings: &crate::settings::Settings, lock: i32, buffered: bool) -> anyhow::Result<Recovered> {
    let cores = config.cpus.len();
    let recovery = async {
        let disk = UringDisk::new(lock, buffered)?;
        tokio::task::spawn_local({
            let disk = disk.clone();
            async move { disk.run().await }
        });
        let mut start = Start::read(&disk, &config.log, rand::random()).await?;
        let replay = start.replay();
        let (data_dir, cluster, now_ms) = (&config.log.data_dir, uuid::Uuid::new_v4(), controller::now_ms());
        let mut prepared = catalog::start::prepare(&mut start, &disk, data_dir, settings, cores, cluster, now_ms).await?;
        let partitions = std::mem::take(&mut prepared.partitions);
        let cores = start.finish(cores, partitions, prepared.catalog.leader_epoch()).await?;
        anyhow::Ok(Recovered { cores, prepared, replay })
    };
    let mut recovered = net::run(recovery).context("io_uring")??;
    let epoch = recovered.cores.first().context("a start has at least one core")?.leader_epoch;
    recovered.prepared.catalog.started(epoch);
    Ok(recovered)
}

/// The running cores, as the main thread sees them.
struct Broker {
    hosts: Vec<Host>,
    happened: Receiver<Event>,
}

impl Broker {
    fn order(&self, order: Order) {
        self.hosts.iter().for_each(|host| host.order(order));
    }

    /// Waits until every core has said what is expected.
    fn all(&self, expected: impl Fn(&Event) -> bool, deadline: Option<Instant>) -> anyhow::Result<()> {
        let mut missing = self.hosts.len();
        while missing > 0 {
            let event = match deadline {
                None => self.happened.recv().map_err(|_| anyhow!("the threads of all cores have ended"))?,
                Some(deadline) => match self.happened.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                    Ok(event) => event,
                    Err(RecvTimeoutError::Timeout) => {
                        bail!("the stop took longer than {STOP_SECONDS_MAX} s: the next start recovers, as after a crash")
                    }
                    Err(RecvTimeoutError::Disconnected) => bail!("the threads of all cores have ended"),
                },
            };
            match event {
                event if expected(&event) => missing -= 1,
                Event::Failed(core, error) => return Err(error.context(format!("core {core}"))),
                Event::Signal(name) if deadline.is_some() => {
                    bail!("a second {name}: stopped at once; the next start recovers, as after a crash")
                }
                Event::Signal(_) => bail!("stopped before it had started"),
                _ => {}
            }
        }
        Ok(())
    }

    /// Waits for a signal or a failure, and stops all cores. Returns how many partitions could not be completed.
    fn until_stopped(&self) -> anyhow::Result<usize> {
        loop {
            match self.happened.recv().map_err(|_| anyhow!("the threads of all cores have ended"))? {
                Event::Failed(core, error) => return Err(error.context(format!("core {core}"))),
                Event::Signal(name) => {
                    tracing::info!("{name}: stopping");
                    break;
                }
                _ => {}
            }
        }
        let deadline = Instant::now() + Duration::from_secs(STOP_SECONDS_MAX);
        self.order(Order::Drain);
        self.all(|event| matches!(event, Event::Drained), Some(deadline))?;
        self.order(Order::Close);
        let left = Cell::new(0);
        let closed = |event: &Event| match event {
            Event::Closed(partitions) => {
                left.set(left.get() + partitions);
                true
            }
            _ => false,
        };
        self.all(closed, Some(deadline))?;
        Ok(left.get())
    }
}

pub(crate) fn init_log(level: Option<&str>) -> anyhow::Result<()> {
    use tracing_subscriber::EnvFilter;
    let filter = match (std::env::var("RUST_LOG"), level) {
        (_, Some(level)) => {
            let known = ["error", "warn", "info", "debug", "trace", "off"];
            if !known.contains(&level.to_ascii_lowercase().as_str()) && !level.contains('=') {
                bail!("log_level = {level:?}: it is one of {}", known.join(", "));
            }
            EnvFilter::try_new(level).with_context(|| format!("log_level = {level:?}"))?
        }
        (Ok(rules), None) => EnvFilter::try_new(&rules).with_context(|| format!("RUST_LOG = {rules:?}"))?,
        (Err(_), None) => EnvFilter::new("info"),
    };
    // A second broker in one process (tests) keeps the first one's.
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_target(false).with_ansi(colours).with_writer(std::io::stderr).try_init();
    Ok(())
}
