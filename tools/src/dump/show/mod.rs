//! Printing what is there: a file after the other, one line for each thing.

mod batch;
mod checkpoints;
mod indexes;
mod journal;
mod line;
mod printer;
mod text;

pub(crate) use line::{Line, Value};
pub(crate) use printer::Printer;
pub use text::{Form, Format, Look};
pub(crate) use text::{Shown, size_text};

use super::{
    Outcome, Request,
    inputs::{Known, Listing},
    journal::Journals,
    read::{can_be_skipped, small},
};
use anyhow::{Result, bail};
use engine::segment::FileKind;
use std::{
    collections::VecDeque,
    io::{self, Write},
    path::Path,
};

/// Prints what is at `path`: a file, a partition's directory, the journal's, or a whole data directory.
pub(crate) fn print(path: &Path, request: &Request, journals: &Journals, out: &mut dyn Write) -> Result<Outcome> {
    let mut printer = Printer::new(&request.look, out);
    if path.is_dir() { directory(path, request, journals, &mut printer) } else { file(path, request, journals, &mut printer) }
}

fn directory(directory: &Path, request: &Request, journals: &Journals, out: &mut Printer<'_>) -> Result<Outcome> {
    let listing = Listing::require(directory)?;
    let mut segments = listing.segments();
    let mut worst = Outcome::Clean;
    let mut left = request.select.batches_max;
    *out.last_offset() = None;
    let (mut files, mut floor) = (VecDeque::from(listing.files), None);
    while let Some(file_path) = files.pop_front() {
        let path = &file_path;
        let known = Known::of(path);
        if let Some(Known::Segment(base, kind)) = known {
            let next = segments.iter().find(|other| **other > base).copied();
            let skipped = next.is_some_and(|next| can_be_skipped(next, &request.select));
            // Whoever asks for some records has no use for indexes.
            let is_aside = !request.select.is_all() && kind != FileKind::Log;
            if skipped || is_aside || request.select.is_past(base) || left == Some(0) {
                continue;
            }
        } else if !request.select.is_all() {
            continue;
        }
        let mut of_file = request.clone();
        of_file.select.batches_max = left;
        of_file.select = of_file.select.not_below(floor);
        let before = out.batches();
        let found = file(path, &of_file, journals, out);
        if let Some(Known::Segment(base, FileKind::Log)) = known.filter(|_| is_gone(&found)) {
            // Its records may be in another one by now, of which some were shown before.
            let fresh = Listing::from_gone(directory, base)?;
            floor = floor.max(Some(base)).max(behind(*out.last_offset()));
            (segments, files) = (fresh.segments(), fresh.files.into());
            continue;
        }
        worst = worst.max(or_gone(found)?);
        left = left.map(|left| left.saturating_sub(out.batches() - before));
    }
    for path in &listing.directories {
        worst = worst.max(match self::directory(path, request, journals, out) {
            // A partition that was only just created, or deleted, is no error.
            Err(_) if std::fs::read_dir(path).map_or(true, |mut entries| entries.next().is_none()) => Outcome::Clean,
            other => other?,
        });
    }
    Ok(worst)
}

/// The offset behind the last one that was looked at.
pub(crate) fn behind(last_offset: Option<i64>) -> Option<i64> {
    last_offset.map(|last_offset| last_offset.saturating_add(1))
}

/// A file that was there when its directory was listed may be gone: retention and compaction do that.
pub(crate) fn or_gone<T: Default>(found: Result<T>) -> Result<T> {
    if is_gone(&found) { Ok(T::default()) } else { found }
}

pub(crate) fn is_gone<T>(found: &Result<T>) -> bool {
    let error = found.as_ref().err().and_then(|error| error.downcast_ref::<io::Error>());
    error.is_some_and(|error| error.kind() == io::ErrorKind::NotFound)
}

fn file(path: &Path, request: &Request, journals: &Journals, out: &mut Printer<'_>) -> Result<Outcome> {
    let known = Known::require(path)?;
    if !path.is_file() {
        let error = std::fs::metadata(path).err().unwrap_or_else(|| io::Error::other("it is no file"));
        bail!(anyhow::Error::new(error).context(format!("can't read {}", path.display())));
    }
    out.file(path)?;
    match known {
        Known::Segment(base_offset, FileKind::Log) => return batch::print(path, base_offset, request, journals, out),
        Known::Journal => return journal::print(path, request.records, out),
        _ => {}
    }
    let bytes = small(path)?;
    let sound = match known {
        Known::Segment(base_offset, FileKind::Index) => indexes::offsets(path, base_offset, &bytes, out)?,
        Known::Segment(base_offset, FileKind::TimeIndex) => indexes::times(path, base_offset, &bytes, out)?,
        Known::Segment(_, FileKind::TxnIndex) => indexes::transactions(&bytes, out)?,
        Known::Segment(_, FileKind::Snapshot) => checkpoints::snapshot(&bytes, out)?,
        Known::LeaderEpochs => checkpoints::epochs(&bytes, out)?,
        Known::Metadata => checkpoints::metadata(&bytes, out)?,
        Known::Offsets => checkpoints::offsets(&bytes, out)?,
        Known::Superblock => journal::superblock(&bytes, out)?,
        Known::Segment(_, FileKind::Log) | Known::Journal => true,
    };
    Ok(if sound { Outcome::Clean } else { Outcome::Corrupt })
}
