//! The lock of a data directory, as Thalweg (flock) and Kafka (a record lock) take it, so that neither starts meanwhile.

use crate::live::{self, LOCK_FILE};
use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, fcntl_lock, flock};
use std::{
    fs::File,
    io::{Seek, Write},
    os::fd::{AsRawFd, RawFd},
    path::Path,
    time::{Duration, Instant},
};

/// How long the lock of a process that has ended is waited for: its I/O holds it until the kernel has finished it.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// The lock; it ends when this is dropped.
pub(crate) struct Lock {
    file: Option<File>,
}

impl Lock {
    /// Takes the lock of `data_dir`. A directory without one belongs to no broker. `remedy` is what to do if it is taken.
    pub(crate) fn take(data_dir: &Path, remedy: &str) -> Result<Lock> {
        let path = data_dir.join(LOCK_FILE);
        if !path.is_file() {
            return Ok(Lock { file: None });
        }
        let file = File::options().read(true).write(true).open(&path).with_context(|| format!("can't open {}", path.display()))?;
        let began = Instant::now();
        while !try_lock(&file) {
            let holder = live::holder(data_dir);
            if holder.is_some_and(|holder| holder.is_running()) || began.elapsed() > WAIT_MAX {
                let holder = holder.map(|holder| format!(" (process {})", holder.pid)).unwrap_or_default();
                bail!("a broker{holder} uses {}: {remedy}", data_dir.display());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Lock { file: Some(file) })
    }

    /// Says in the file whose it is, as a broker does, for whoever finds it locked.
    pub(crate) fn sign(&self) {
        if let Some(mut file) = self.file.as_ref() {
            let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
        }
    }

    /// The locked file, for a ring that is to hold it until its last I/O has ended. `None` where there is none.
    pub(crate) fn descriptor(&self) -> Option<RawFd> {
        self.file.as_ref().map(File::as_raw_fd)
    }
}

/// Both locks or neither counts: the caller tries again, or closes the file.
fn try_lock(file: &File) -> bool {
    flock(file, FlockOperation::NonBlockingLockExclusive).is_ok() && fcntl_lock(file, FlockOperation::NonBlockingLockExclusive).is_ok()
}
