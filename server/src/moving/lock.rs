//! The lock of a source, as Thalweg (flock) and Kafka (a record lock) take it: while it is held neither starts there. It is
//! shared, so that a file opened for reading is enough, and nothing is written.

use super::failed;
use anyhow::{Result, bail};
use rustix::fs::{FlockOperation, fcntl_lock, flock};
use std::{
    fs::File,
    io,
    path::Path,
    time::{Duration, Instant},
};

/// The lock's file, of both brokers.
const LOCK_FILE: &str = ".lock";
/// How long the lock of a process that has ended is waited for: its I/O holds it until the kernel has finished it.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// The lock; it ends when this is dropped.
pub(super) struct Lock {
    _file: Option<File>,
}

impl Lock {
    /// Takes the lock of a directory. One without a lock file was copied: no broker runs on it.
    pub(super) fn take(path: &Path) -> Result<Lock> {
        let file = match File::open(path.join(LOCK_FILE)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Lock { _file: None }),
            Err(error) => return Err(failed("open", &path.join(LOCK_FILE), error)),
        };
        let began = Instant::now();
        while !(flock(&file, FlockOperation::NonBlockingLockShared).is_ok()
            && fcntl_lock(&file, FlockOperation::NonBlockingLockShared).is_ok())
        {
            if began.elapsed() > WAIT_MAX {
                bail!("a broker uses {}: stop it first (SIGTERM), so that all of its data is in that directory", path.display());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Lock { _file: Some(file) })
    }
}
