//! Whether a copy fits, before anything is written.

use super::failed;
use crate::config::size;
use anyhow::{Result, bail};
use rustix::fs::statvfs;
use std::path::Path;

/// What is left free beside the copy, in bytes: indexes, the journal's head, and whoever else uses that filesystem.
const MARGIN_BYTES: u64 = 64 << 20;

/// Checks that `bytes` more fit on the filesystem of `path`, or of the nearest directory above that exists.
pub(super) fn check(path: &Path, bytes: u64) -> Result<()> {
    let absolute = std::path::absolute(path).map_err(|error| failed("look at", path, error))?;
    let there = absolute.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let found = statvfs(there).map_err(|error| failed("look at", there, error.into()))?;
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    let needed = bytes.saturating_add(MARGIN_BYTES);
    if free < needed {
        bail!(
            "{} has {} free, and {} are needed: make room, choose another directory, or move fewer topics at a time with --topics. Nothing \
             was written",
            there.display(),
            size::show(free),
            size::show(needed)
        );
    }
    Ok(())
}
