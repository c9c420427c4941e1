//! What an accepted loss cuts off is kept before, durably, in a file beside: `00000000000000000000.log.removed-2909-3019` are the
//! bytes from 2909 to 3019. `segment-dump --repair` gives the same names ([`removed_paths`]); no broker reads them.

use super::{super::LogError, image::Image, recover::disk_error};
use crate::{
    disk::{BLOCK, CHUNK_BYTES, Chunk, Disk, Open, is_full},
    segment::removed_paths,
};
use std::{
    io,
    ops::Range,
    path::{Path, PathBuf},
};

/// Keeps a range of an image: when this returns, the file and its name are durable. It may be repeated.
///
/// # Errors
/// The disk's; [`LogError::NoRoomToKeep`] if it is full.
pub(super) async fn keep<D: Disk>(disk: &D, image: &mut Image<'_, D>, log: &Path, range: Range<u64>) -> Result<PathBuf, LogError> {
    let mut paths = removed_paths(log, Some(range.clone()));
    let path = loop {
        let path = paths.next().expect("numbers don't end");
        let found = has(disk, image, &path, &range).await.map_err(disk_error(&path))?;
        match found {
            // A start that went no further has written it.
            Some(true) => {
                let directory = parent(&path);
                disk.sync_dir(directory).await.map_err(disk_error(directory))?;
                return Ok(path);
            }
            // Of another loss.
            Some(false) => {}
            None => break path,
        }
    };
    let written = write(disk, image, &path, &range).await;
    match written {
        Ok(()) => Ok(path),
        Err(source) if is_full(&source) => Err(LogError::NoRoomToKeep { path, bytes: range.end - range.start, source }),
        Err(source) => Err(LogError::Disk { path, source }),
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("."))
}

/// True if a file holds the range; `None` if it is not there. Its content is durable then.
async fn has<D: Disk>(disk: &D, image: &mut Image<'_, D>, path: &Path, range: &Range<u64>) -> io::Result<Option<bool>> {
    let file = match disk.open(path, Open::Existing).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    if disk.size(&file).await? != range.end - range.start {
        return Ok(Some(false));
    }
    let mut at = range.start;
    while at < range.end {
        let end = range.end.min(at + CHUNK_BYTES as u64);
        let wanted = image.bytes(at..end).await?;
        let found = disk.read(&file, at - range.start, (end - at).next_multiple_of(BLOCK) as usize).await?;
        if !found.starts_with(&wanted) {
            return Ok(Some(false));
        }
        at = end;
    }
    disk.sync(&file).await?;
    Ok(Some(true))
}

async fn write<D: Disk>(disk: &D, image: &mut Image<'_, D>, path: &Path, range: &Range<u64>) -> io::Result<()> {
    // Under its own name it is whole. What is called so is removed when its partition is opened.
    let mut beside = path.as_os_str().to_owned();
    beside.push(".tmp");
    let beside = PathBuf::from(beside);
    let bytes = range.end - range.start;
    let work = async {
        let file = disk.open(&beside, Open::Create).await?;
        disk.truncate(&file, 0).await?;
        disk.allocate(&file, bytes.next_multiple_of(BLOCK)).await?;
        let mut at = range.start;
        while at < range.end {
            let end = range.end.min(at + CHUNK_BYTES as u64);
            let part = image.bytes(at..end).await?;
            disk.write(&file, at - range.start, vec![Chunk::padded(&part)]).await?;
            at = end;
        }
        disk.truncate(&file, bytes).await?;
        disk.sync(&file).await?;
        disk.rename(&beside, path).await?;
        disk.sync_dir(parent(path)).await
    };
    let result = work.await;
    if result.is_err() {
        // Best effort: what was begun must not keep the space that others need.
        let _ = disk.remove(&beside).await;
    }
    result
}
