//! `compact`: retention and log compaction on demand.
//!
//! ```text
//! args      what is asked for            home      what a directory is, its lock, and the settings of its broker
//! choice    which partitions             session   the broker's own start, keeping and stop, on any disk
//! report    what went of each partition  show      as text or JSON            watch     the progress bar
//! measure   what a partition takes
//! broker    asking a running broker      wire      the request for that     kafka/    a stopped Kafka's directory
//! ```
//! There is one way to do it: `session` runs the broker's code over the directory. A dry run runs the same over an
//! [`engine::disk::Overlay`], which keeps beside what is written; so the two can't differ.

pub mod args;
mod broker;
mod choice;
mod home;
mod kafka;
mod measure;
mod report;
mod session;
mod show;
mod watch;
mod wire;

use crate::output::unless_closed;
use anyhow::{Context, Result, bail};
use choice::Choice;
use engine::{
    disk::{Disk, Overlay, UringDisk},
    log::catalog_spec,
};
use home::Home;
use report::Report;
use server::controller::now_ms;
use std::{
    collections::BTreeMap,
    io::Write,
    path::{Path, PathBuf},
    time::Instant,
};
use watch::Watch;

/// How far back `--as-of` may lie, in ms: tombstones that are compacted now stay for `delete.retention.ms` from then on.
const AS_OF_MS_MAX: i64 = 3_600_000;

/// All that is asked for.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The data directory of a stopped broker.
    pub data_dir: PathBuf,
    /// A running broker that is asked instead: HOST:PORT of any of its cores.
    pub broker: Option<String>,
    /// Only these topics; all if there are none.
    pub topics: Vec<String>,
    /// Only these partitions of them; all if there are none.
    pub partitions: Vec<i32>,
    /// Change nothing.
    pub dry_run: bool,
    /// One object a line.
    pub json: bool,
    /// Settings of topics that hold instead of their own.
    pub set: BTreeMap<String, String>,
    /// Of a Kafka: what its configs are, as `thalweg import` takes it.
    pub configs: Vec<PathBuf>,
    /// The broker's config file, if its own record is not to be used.
    pub config: Option<PathBuf>,
    /// Where the journal is, if neither the record nor the config file says it.
    pub journal_dir: Option<PathBuf>,
    /// Where a dry run keeps what it would write.
    pub scratch_dir: Option<PathBuf>,
    /// The clock of a dry run that is to be repeated, in ms.
    pub as_of_ms: Option<i64>,
    /// Also show partitions of which nothing goes.
    pub all: bool,
    /// A progress bar may be drawn on the terminal.
    pub progress: bool,
}

/// How it ended. The exit code says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All that was due is done.
    Done,
    /// Something could not be done; the report says what.
    Incomplete,
}

impl Outcome {
    /// 0 or 3. (2 says that nothing was done.)
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Outcome::Done => 0,
            Outcome::Incomplete => 3,
        }
    }
}

/// What all partitions of a run have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    /// Nothing was changed.
    pub(crate) dry_run: bool,
    /// There were `--set`s.
    pub(crate) what_if: bool,
    /// The clock that everything was judged by, in ms.
    pub(crate) now_ms: i64,
    /// Bytes of log that compaction has read.
    pub(crate) read_bytes: u64,
    /// How long compaction took, in ms.
    pub(crate) compaction_ms: u64,
    /// How long all of it took, in ms.
    pub(crate) took_ms: u64,
}

/// Does what `request` asks for, or has a broker do it.
///
/// # Errors
/// Why it can't be done, with what to do. What was done before stays done, and the next run or start goes on from there.
pub fn run(request: &Request, out: &mut dyn Write) -> Result<Outcome> {
    if let Some(address) = &request.broker {
        return broker::run(request, address, out);
    }
    let now_ms = clock(request.as_of_ms)?;
    let place = Place::open(request)?;
    let choice = Choice { topics: &request.topics, partitions: &request.partitions, set: &request.set };
    let watch = Watch::new(request.progress);
    let began = Instant::now();
    let mut reports = on_a_ring(&place, async |disk| match request.dry_run {
        true => dry(disk, request, &place, &choice, now_ms, &watch).await,
        false => place.keep(disk, &choice, now_ms, &watch).await,
    })??;
    if !request.set.is_empty() {
        // What goes of it anyway.
        let in_force = Choice { set: &BTreeMap::new(), ..choice };
        let anyway = on_a_ring(&place, async |disk| dry(disk, request, &place, &in_force, now_ms, &watch).await)??;
        for (report, anyway) in reports.iter_mut().zip(anyway) {
            report.freed_anyway = Some(anyway.freed());
        }
    }
    let run = Run {
        dry_run: request.dry_run,
        what_if: !request.set.is_empty(),
        now_ms,
        read_bytes: watch.read_bytes(),
        compaction_ms: watch.took().as_millis() as u64,
        took_ms: began.elapsed().as_millis() as u64,
    };
    drop(watch);
    unless_closed(show::show(request, &run, &reports, out).and_then(|()| Ok(out.flush()?)))?;
    let is_whole = reports.iter().all(|report| report.failures.is_empty());
    Ok(if is_whole { Outcome::Done } else { Outcome::Incomplete })
}

/// Whose directory it is.
enum Place {
    Thalweg(Box<Home>),
    Kafka(Box<kafka::Home>),
}

impl Place {
    fn open(request: &Request) -> Result<Place> {
        let is_ours = request.data_dir.join(catalog_spec().directory).is_dir();
        if !is_ours && kafka::is_kafkas(&request.data_dir) {
            return Ok(Place::Kafka(Box::new(kafka::Home::open(request)?)));
        }
        if !request.configs.is_empty() {
            bail!("--configs is for the directory of a Kafka: Thalweg's settings are in it, or in what --config names");
        }
        Ok(Place::Thalweg(Box::new(Home::open(request)?)))
    }

    async fn keep<D: Disk>(&self, disk: D, choice: &Choice<'_>, now_ms: i64, watch: &Watch) -> Result<Vec<Report>> {
        match self {
            Place::Thalweg(home) => session::run(disk, home, choice, now_ms, watch).await,
            Place::Kafka(home) => kafka::run(disk, home, choice, now_ms, watch).await,
        }
    }

    /// A disk whose ring holds the directory's lock.
    fn disk(&self) -> Result<UringDisk> {
        Ok(match self {
            Place::Thalweg(home) => UringDisk::new(home.descriptor(), home.buffered())?,
            Place::Kafka(home) => UringDisk::new(home.descriptor(), true)?,
        })
    }
}

/// The same on an overlay.
async fn dry(disk: UringDisk, request: &Request, place: &Place, choice: &Choice<'_>, now_ms: i64, watch: &Watch) -> Result<Vec<Report>> {
    let directory = request.scratch_dir.clone().unwrap_or_else(scratch_dir);
    let overlay = Overlay::new(disk, &directory)
        .with_context(|| format!("no temporary file can be made in {}: --scratch-dir names another directory", directory.display()))?;
    place.keep(overlay, choice, now_ms, watch).await
}

/// The clock, or the one of the dry run that is to be repeated.
fn clock(as_of_ms: Option<i64>) -> Result<i64> {
    let now_ms = now_ms();
    match as_of_ms {
        None => Ok(now_ms),
        Some(as_of_ms) if as_of_ms > now_ms => bail!("--as-of {as_of_ms} is still to come: what is not due yet doesn't go"),
        Some(as_of_ms) if as_of_ms < now_ms - AS_OF_MS_MAX => {
            bail!("--as-of {as_of_ms} is more than an hour ago: make a new dry run")
        }
        Some(as_of_ms) => Ok(as_of_ms),
    }
}

/// `TMPDIR`, else where large temporary files belong: `/tmp` may be memory.
fn scratch_dir() -> PathBuf {
    std::env::var_os("TMPDIR").filter(|directory| !directory.is_empty()).map_or_else(|| Path::new("/var/tmp").into(), PathBuf::from)
}

/// Runs `work` with a disk whose ring holds the directory's lock.
fn on_a_ring<T>(place: &Place, work: impl AsyncFnOnce(UringDisk) -> T) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let disk = place.disk()?;
        let driver = tokio::task::spawn_local({
            let disk = disk.clone();
            async move { disk.run().await }
        });
        let result = work(disk).await;
        driver.abort();
        Ok(result)
    })
}
