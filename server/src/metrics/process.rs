//! What the kernel knows of this process and its filesystems.

use rustix::{
    fs::statvfs,
    process::{Resource, getrlimit},
    time::{ClockId, clock_gettime},
};
use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// What does not change while the broker runs.
#[derive(Clone, Debug)]
pub struct About {
    /// Where data is.
    pub data_dir: PathBuf,
    /// Where the journals are.
    pub journal_dir: PathBuf,
    /// When it started, since 1970.
    pub started: Duration,
}

impl About {
    /// A broker that starts now.
    #[must_use]
    pub fn now(data_dir: &Path, journal_dir: &Path) -> About {
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        About { data_dir: data_dir.into(), journal_dir: journal_dir.into(), started }
    }
}

/// CPU time of the process, in s.
#[must_use]
pub fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Resident memory in bytes.
#[must_use]
pub fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// Open descriptors, and how many there may be.
#[must_use]
pub fn files() -> (Option<u64>, Option<u64>) {
    // One of them is the directory that is being read.
    let open = std::fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count().saturating_sub(1) as u64);
    (open, getrlimit(Resource::Nofile).current)
}

/// Free bytes and all bytes of a directory's filesystem.
#[must_use]
pub fn disk_bytes(directory: &Path) -> Option<(u64, u64)> {
    let found = statvfs(directory).ok()?;
    Some((found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize))
}
