//! Taking files out of the page cache, so that a read comes from the disk.

use anyhow::{Context, Result};
use rustix::fs::{Advice, fadvise};
use std::{fs, path::Path};

/// Flushes every file at or below `path` and asks the kernel to forget its pages. Mapped pages stay (Kafka's indexes).
///
/// # Errors
/// A directory can't be read, or a file can't be flushed.
pub fn evict(path: &Path) -> Result<()> {
    let kind = fs::metadata(path).with_context(|| format!("{}", path.display()))?;
    if kind.is_dir() {
        for entry in fs::read_dir(path).with_context(|| format!("{}", path.display()))? {
            let entry = entry?.path();
            // A running broker removes files of its own.
            match evict(&entry) {
                Err(_) if !entry.exists() => {}
                outcome => outcome?,
            }
        }
        return Ok(());
    }
    if !kind.is_file() {
        return Ok(());
    }
    let file = fs::File::open(path).with_context(|| format!("{}", path.display()))?;
    // Only clean pages are forgotten.
    file.sync_data()?;
    fadvise(&file, 0, None, Advice::DontNeed)?;
    Ok(())
}
