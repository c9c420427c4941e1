//! What a directory is, the lock that keeps brokers out of it, and the settings of its broker.

use super::Request;
use anyhow::{Context, Result, bail};
use engine::{
    journal::superblock_path,
    log::{LogConfig, catalog_spec},
};
use server::{
    config::kept::{self, Kept},
    journal_owner,
    lock::Lock,
    settings::Settings,
};
use std::{
    fs::File,
    os::fd::{AsRawFd, RawFd},
    path::Path,
};

/// What to do when a broker has the directory.
const RUNNING: &str = "--broker HOST:PORT has it do this now; or stop it first";

/// The data directory of a stopped broker, locked.
pub(crate) struct Home {
    kept: Kept,
    lock: Lock,
    directory: File,
}

impl Home {
    /// Locks the directory and reads its settings.
    pub(crate) fn open(request: &Request) -> Result<Home> {
        let data_dir = &request.data_dir;
        let directory = File::open(data_dir).with_context(|| format!("can't open {}", data_dir.display()))?;
        if !data_dir.join(catalog_spec().directory).is_dir() {
            bail!("{}", no_thalweg(data_dir));
        }
        let lock = Lock::exclusive(data_dir, RUNNING)?;
        let config = request.config.as_deref();
        let Some(kept) = kept::read(data_dir, config, request.journal_dir.as_deref())? else {
            bail!(
                "{} has no {}: the broker that last used it did not keep its settings, and what Kafka's defaults would let go may be what \
                 it was told to keep. Start and stop this version of the broker once, or name its config file with --config",
                data_dir.display(),
                kept::FILE
            );
        };
        journal_owner::check(data_dir, &kept.log.journal_dir)?;
        if !superblock_path(&kept.log.journal_dir).is_file() {
            bail!(
                "{} holds no journal: name the broker's --journal-dir. Without it the end of the data is not known",
                kept.log.journal_dir.display()
            );
        }
        if !request.dry_run {
            lock.sign();
        }
        kept.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        Ok(Home { kept, lock, directory })
    }

    /// The engine's bounds and directories.
    pub(crate) fn log(&self) -> &LogConfig {
        &self.kept.log
    }

    /// What stands behind the settings of topics.
    pub(crate) fn settings(&self) -> &Settings {
        &self.kept.settings
    }

    pub(crate) fn buffered(&self) -> bool {
        self.kept.allow_buffered
    }

    /// What a ring is to hold until its last I/O has ended.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.lock.descriptor().unwrap_or_else(|| self.directory.as_raw_fd())
    }
}

/// Why a directory without our catalog can't be worked on.
fn no_thalweg(data_dir: &Path) -> String {
    let shown = data_dir.display();
    match data_dir.parent() {
        Some(parent) if parent.join(catalog_spec().directory).is_dir() => {
            format!("{shown} is a partition, not a data directory: compact {} --topic TOPIC --partition N", parent.display())
        }
        _ => format!("{shown} is not the data directory of a broker: it has no {}", catalog_spec().directory.display()),
    }
}
