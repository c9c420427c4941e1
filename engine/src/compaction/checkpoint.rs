//! How far a log is compacted: `thalweg.cleaned` in its directory, so that it goes when the partition goes, and each core
//! writes its own. A start goes on from there. It may be missing or too low: then more is cleaned again than need be.

use crate::{
    disk::{Disk, write_whole},
    partition::directory::read_text,
};
use std::{io, path::Path};

/// The file's name.
const FILE: &str = "thalweg.cleaned";

/// The first offset that was not compacted yet; `None` if none was.
///
/// # Errors
/// The disk's.
pub async fn read_first_dirty<D: Disk>(disk: &D, directory: &Path) -> io::Result<Option<i64>> {
    let text = read_text(disk, &directory.join(FILE)).await?.unwrap_or_default();
    let mut lines = text.lines();
    if lines.next() != Some("version: 0") {
        return Ok(None);
    }
    Ok(lines.next().and_then(|line| line.strip_prefix("first dirty: ")?.parse().ok()))
}

/// Notes it, durably.
///
/// # Errors
/// The disk's.
pub async fn write_first_dirty<D: Disk>(disk: &D, directory: &Path, offset: i64) -> io::Result<()> {
    write_whole(disk, &directory.join(FILE), format!("version: 0\nfirst dirty: {offset}\n").as_bytes()).await
}
