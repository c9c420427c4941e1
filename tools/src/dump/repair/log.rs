//! Changes to a `.log`: ranges are taken out, headers are set right. The bytes that are taken out are durable in a file beside
//! before the log is touched.

use super::{place_beside, sync_directory};
use crate::dump::{
    read::{BytesAt, Seen, walk},
    verify::Fix,
};
use anyhow::{Context, Result};
use engine::batch::{BASE_OFFSET_AT, HEADER_BYTES, Header, LEADER_EPOCH_AT};
use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// What is copied at once, in bytes.
const COPY_BYTES: usize = 1 << 20;

/// Walks the batches of a log whose CRC is right.
pub(super) fn headers(path: &Path, base_offset: i64, mut each: impl FnMut(u64, &Header, &[u8])) -> Result<()> {
    let mut file = BytesAt::open_ahead(path, 0)?;
    walk(&mut file, 0, base_offset, |seen| {
        // An offset below 0 is still to be put right.
        if let Seen::Batch(batch) = seen
            && batch.wrong.is_none()
            && batch.header.base_offset() >= 0
        {
            each(batch.position, &batch.header, batch.bytes);
        }
        Ok(true)
    })
    .map(drop)
}

/// Applies the fixes that concern the log itself. Returns the files that keep what was taken out or changed.
pub(super) fn apply(path: &Path, fixes: &[&Fix]) -> Result<Vec<PathBuf>> {
    let mut kept = Vec::new();
    let mut file = BytesAt::open(path)?;
    let size = file.size();
    let failed = || format!("can't repair {}", path.display());
    for fix in fixes {
        if let Fix::Header { position, base_offset, leader_epoch } = fix {
            kept.push(keep(path, &mut file, *position, (*position + HEADER_BYTES as u64).min(size))?);
            let log = File::options().write(true).open(path).with_context(failed)?;
            log.write_all_at(&base_offset.to_be_bytes(), position + BASE_OFFSET_AT as u64).with_context(failed)?;
            log.write_all_at(&leader_epoch.to_be_bytes(), position + LEADER_EPOCH_AT as u64).with_context(failed)?;
            log.sync_all().with_context(failed)?;
        }
    }
    let mut ranges: Vec<(u64, u64)> = fixes
        .iter()
        .filter_map(|fix| match fix {
            Fix::Remove { from, to, .. } => Some((*from, to.unwrap_or(size).min(size))),
            _ => None,
        })
        .collect();
    ranges.sort_unstable();
    ranges.dedup();
    if ranges.is_empty() {
        return Ok(kept);
    }
    let mut file = BytesAt::open(path)?;
    for (from, to) in &ranges {
        kept.push(keep(path, &mut file, *from, *to)?);
    }
    if let [(from, to)] = ranges[..]
        && to == size
    {
        let log = File::options().write(true).open(path).with_context(failed)?;
        log.set_len(from).and_then(|()| log.sync_all()).with_context(failed)?;
        return Ok(kept);
    }
    let tmp = path.with_extension("log.tmp");
    let mut out = BufWriter::new(File::create(&tmp).with_context(failed)?);
    let mut position = 0;
    for (from, to) in ranges.into_iter().chain([(size, size)]) {
        copy(&mut file, position, from.max(position), &mut out)?;
        position = position.max(to);
    }
    out.into_inner().map_err(|error| error.into_error()).and_then(|out| out.sync_all()).with_context(failed)?;
    fs::rename(&tmp, path).with_context(failed)?;
    Ok(kept)
}

/// Writes the bytes from `from` to `to` into a file beside, durably. Returns its name.
fn keep(path: &Path, file: &mut BytesAt, from: u64, to: u64) -> Result<PathBuf> {
    let to_path = place_beside(path, Some(from..to));
    let failed = || format!("can't write {}", to_path.display());
    let mut out = BufWriter::new(File::create(&to_path).with_context(failed)?);
    copy(file, from, to, &mut out)?;
    out.into_inner().map_err(|error| error.into_error()).and_then(|out| out.sync_all()).with_context(failed)?;
    // Its name, too: the log is changed next.
    sync_directory(to_path.parent().unwrap_or(path))?;
    Ok(to_path)
}

fn copy(file: &mut BytesAt, mut from: u64, to: u64, out: &mut impl Write) -> Result<()> {
    while from < to {
        let wanted = (to - from).min(COPY_BYTES as u64) as usize;
        let bytes = file.at(from, wanted)?;
        let bytes = &bytes[..wanted.min(bytes.len())];
        if bytes.is_empty() {
            break;
        }
        out.write_all(bytes)?;
        from += bytes.len() as u64;
    }
    Ok(())
}
