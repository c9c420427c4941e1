//! The data directory that an import goes into. It is changed by starts of the engine, as a broker's: what a start decides is
//! durable all at once, or not at all.

use crate::{
    catalog::{Catalog, Change, RecordsError, records::decision, start as catalog_start},
    config::Config,
    controller::now_ms,
    moving::files,
    net,
    start::checks::{self, Directory},
};
use anyhow::{Context, Result, bail};
use engine::{
    disk::UringDisk,
    log::{Log, Start, catalog_spec, mark_clean},
    partition::directory::MARK_FILE,
    segment::{PARTITION_METADATA, parse_directory_name},
};
use std::os::fd::AsRawFd;

/// A stopped data directory, whose lock is held.
pub(super) struct Target {
    pub(super) config: Config,
    /// As it was found; empty for a new directory.
    pub(super) catalog: Catalog,
    directory: Directory,
    cores: usize,
}

/// An engine that runs for a moment: a log for each core, all on this thread.
pub(super) struct Running {
    pub(super) disk: UringDisk,
    pub(super) catalog: Catalog,
    logs: Vec<Log<UringDisk>>,
}

/// True if a broker has run on this directory.
pub(super) fn exists(config: &Config) -> bool {
    config.log.data_dir.join(catalog_spec().directory).is_dir()
}

/// Directories of partitions that were copied in by hand: a start would take them over without their configs.
pub(super) fn check_foreign(config: &Config) -> Result<()> {
    let path = &config.log.data_dir;
    if !path.is_dir() {
        return Ok(());
    }
    for name in files::names(path)? {
        let directory = path.join(&name);
        let is_partition = parse_directory_name(&name).is_some() && directory.join(PARTITION_METADATA).exists();
        if is_partition && !directory.join(MARK_FILE).exists() {
            bail!(
                "{} was copied in from a Kafka, and no start has taken it over: start thalweg once, or move it away. Nothing was written",
                directory.display()
            );
        }
    }
    Ok(())
}

impl Target {
    /// Makes the directory if it is new, and takes its lock.
    pub(super) fn open(config: Config) -> Result<Target> {
        checks::raise_limits();
        checks::io_uring()?;
        let existed = exists(&config);
        let directory = checks::directories(&config.log, config.allow_buffered)?;
        let mut target = Target { cores: config.cpus.len(), catalog: Catalog::default(), directory, config };
        if existed {
            target.catalog = target.on_ring(async |disk| {
                let start = Start::read(&disk, &target.config.log, rand::random()).await?;
                Catalog::from_what_is_left(start.catalog(), start.accepts_loss()).map_err(|error: RecordsError| error.into())
            })?;
            // Owners stay what they are: the broker's next start decides for its own number of cores.
            target.cores = target.catalog.cores().max(1);
        }
        Ok(target)
    }

    fn on_ring<T>(&self, work: impl AsyncFnOnce(UringDisk) -> Result<T>) -> Result<T> {
        let (lock, buffered) = (self.directory.lock.as_raw_fd(), !self.directory.direct);
        net::run(async {
            let disk = UringDisk::new(lock, buffered)?;
            tokio::task::spawn_local({
                let disk = disk.clone();
                async move { disk.run().await }
            });
            work(disk).await
        })
        .context("io_uring")?
    }

    /// One start with what `decide` adds to the catalog, then `work`, then a clean stop. The leader epoch of the start is
    /// above `epoch`.
    pub(super) fn run(
        &self,
        epoch: i32,
        decide: impl FnOnce(&Catalog, usize) -> Vec<Change>,
        work: impl AsyncFnOnce(&Running) -> Result<()>,
    ) -> Result<()> {
        self.on_ring(async |disk| {
            let log = &self.config.log;
            let mut start = Start::read(&disk, log, rand::random()).await?;
            let catalog = Catalog::from_what_is_left(start.catalog(), start.accepts_loss())?;
            let catalog_start::Plan { mut catalog, mut pending, .. } =
                catalog_start::plan(catalog, self.cores, Vec::new(), uuid::Uuid::new_v4())?;
            for change in decide(&catalog, self.cores) {
                catalog.apply(&change)?;
                pending.push(change);
            }
            start.add_to_catalog(&decision(&pending, now_ms()).concat());
            let specs = catalog.all_specs(&self.config.settings);
            let starts = start.finish(self.cores, specs, catalog.leader_epoch().max(epoch)).await?;
            catalog.started(starts.first().context("a start has at least one core")?.leader_epoch);
            let mut logs = Vec::new();
            for start in starts {
                let log = Log::open(disk.clone(), start).await?;
                tokio::task::spawn_local({
                    let log = log.clone();
                    async move {
                        if let Err(error) = log.run().await {
                            tracing::error!("{error}");
                        }
                    }
                });
                logs.push(log);
            }
            let running = Running { disk, catalog, logs };
            work(&running).await?;
            let mut left = 0;
            for log in &running.logs {
                left += log.close().await?;
            }
            if left == 0 {
                mark_clean(&running.disk, log).await?;
            }
            Ok(())
        })
    }
}

impl Running {
    /// The log of a core.
    pub(super) fn log(&self, core: usize) -> &Log<UringDisk> {
        &self.logs[core]
    }
}
