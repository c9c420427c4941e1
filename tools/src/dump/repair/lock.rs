//! The lock of a data directory, as Thalweg (flock) and Kafka (a record lock) take it, so that neither starts meanwhile.

use crate::dump::live::{self, LOCK_FILE};
use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, fcntl_lock, flock};
use std::{fs::File, path::Path};

/// The lock; it ends when this is dropped.
pub(super) struct Lock {
    _file: Option<File>,
}

impl Lock {
    /// Takes the lock of `data_dir`. A directory without one belongs to no broker.
    pub(super) fn take(data_dir: &Path) -> Result<Lock> {
        let path = data_dir.join(LOCK_FILE);
        if !path.is_file() {
            return Ok(Lock { _file: None });
        }
        let file = File::options().read(true).write(true).open(&path).with_context(|| format!("can't open {}", path.display()))?;
        for lock in [flock(&file, FlockOperation::NonBlockingLockExclusive), fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive)] {
            if lock.is_err() {
                let holder = live::holder(data_dir).map(|holder| format!(" (process {})", holder.pid)).unwrap_or_default();
                bail!("a broker{holder} uses {}: stop it first", data_dir.display());
            }
        }
        Ok(Lock { _file: Some(file) })
    }
}
