//! What is wrong with data on disk: each finding with its place and what to do, and an exit code that scripts can go by.
//!
//! ```text
//! partition  the files of a partition together, segment after segment      sequence  which of two batches has the wrong offset
//! segment    one log and its indexes, in one pass                          indexes   an index against the batches that go by
//! journal    superblock and frames                                         finding   what was found
//! remedy     what repair leaves as it is, and what works instead
//! ```

mod checkpoints;
mod finding;
mod indexes;
mod journal;
mod partition;
mod remedy;
mod segment;
mod sequence;
mod transactions;

pub(crate) use finding::{Finding, Fix, Level};
pub(crate) use partition::{is_in_motion, verify as verify_partition};
pub(crate) use remedy::Refusal;

use super::{
    Outcome, Request,
    inputs::{Known, Listing},
    journal::{Journals, journal_dir},
    progress::Progress,
    read::small,
    show::{Line, Printer, or_gone, size_text},
};
use anyhow::{Context, Result};
use engine::{
    journal::superblock_path,
    log::catalog_spec,
    segment::{FileKind, file_name},
};
use std::{
    io::Write,
    path::{Path, PathBuf},
};

/// What was looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) partitions: u64,
    pub(crate) segments: u64,
    pub(crate) batches: u64,
    pub(crate) bytes: u64,
    /// Offsets that are missing between the batches of a partition, or between the base offset of its first segment and its first batch:
    /// compaction does that, and damage, and a segment that was lost.
    pub(crate) offsets_missing: u64,
}

/// Verifies what is at `path` and prints what was found.
pub(crate) fn print(path: &Path, request: &Request, journals: &Journals, out: &mut dyn Write) -> Result<Outcome> {
    let (mut totals, mut findings) = (Totals::default(), Vec::new());
    let progress = Progress::new(request.progress, log_bytes(path));
    let mut parts = parts(path)?;
    // A journal elsewhere belongs to its data directory.
    let journal = journal_dir(path, request);
    if path.join(catalog_spec().directory).is_dir() && !journal.starts_with(path) && superblock_path(&journal).is_file() {
        parts.push(Part::Journal(journal));
    }
    for part in parts {
        findings.extend(part.verify(request, journals, &progress, &mut totals)?);
    }
    drop(progress);
    let mut printer = Printer::new(&request.look, out);
    findings.iter().try_for_each(|finding| finding.print(&mut printer))?;
    let worst = findings.iter().map(|finding| finding.level.outcome()).max().unwrap_or_default();
    printer.at(path);
    print_totals(&totals, findings.iter().filter(|finding| finding.level != Level::Note).count(), worst, &mut printer)?;
    Ok(worst)
}

fn print_totals(totals: &Totals, findings: usize, worst: Outcome, out: &mut Printer<'_>) -> Result<()> {
    let verdict = match worst {
        Outcome::Clean => "clean",
        Outcome::TornTail => "torn tail",
        Outcome::Corrupt => "corrupt",
    };
    if out.is_json() {
        let line = Line::new("verified").text("verdict", verdict).count("findings", findings as u64).count("partitions", totals.partitions);
        let line = line.count("segments", totals.segments).count("batches", totals.batches).count("bytes", totals.bytes);
        return out.line(&line.count("offsetsMissing", totals.offsets_missing));
    }
    let gaps = match totals.offsets_missing {
        0 => String::new(),
        count => format!("; {count} offsets are missing between batches, or in front of the first one"),
    };
    let text = format!(
        "{verdict}: {findings} findings in {} partitions, {} segments, {} batches, {}{gaps}",
        totals.partitions,
        totals.segments,
        totals.batches,
        size_text(totals.bytes)
    );
    out.painted(worst, &text)
}

/// Something that is verified by itself.
pub(crate) enum Part {
    /// A partition, or one segment of it.
    Partition { directory: PathBuf, only: Option<i64> },
    /// A journal's directory.
    Journal(PathBuf),
    /// A file whose content says by itself whether it is sound.
    Checkpoint(PathBuf),
}

impl Part {
    fn verify(&self, request: &Request, journals: &Journals, progress: &Progress, totals: &mut Totals) -> Result<Vec<Finding>> {
        match self {
            // A partition that was deleted since it was listed is no error.
            Part::Partition { directory, only } => or_gone(partition::verify(directory, *only, request, journals, progress, totals)),
            Part::Journal(directory) => journal::verify(directory),
            Part::Checkpoint(path) => Ok(checkpoints::verify_file(path, &small(path)?).into_iter().map(remedy::alone).collect()),
        }
    }
}

/// What there is to verify at `path`. The indexes of a segment are verified with it: they mean nothing alone.
pub(crate) fn parts(path: &Path) -> Result<Vec<Part>> {
    if !path.is_dir() {
        std::fs::metadata(path).with_context(|| format!("can't read {}", path.display()))?;
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        return Ok(vec![match Known::require(path)? {
            Known::Segment(base, kind) if kind != FileKind::Snapshot && directory.join(file_name(base, FileKind::Log)).is_file() => {
                Part::Partition { directory, only: Some(base) }
            }
            Known::Superblock | Known::Journal => Part::Journal(directory),
            _ => Part::Checkpoint(path.to_owned()),
        }]);
    }
    let listing = Listing::require(path)?;
    let mut parts = Vec::new();
    if superblock_path(path).is_file() {
        parts.push(Part::Journal(path.to_owned()));
    } else if listing.files.iter().any(|file| !matches!(Known::of(file), Some(Known::Offsets))) {
        parts.push(Part::Partition { directory: path.to_owned(), only: None });
    }
    parts.extend(listing.files.iter().filter(|file| Known::of(file) == Some(Known::Offsets)).cloned().map(Part::Checkpoint));
    for directory in listing.directories {
        // A partition that was only just created, or deleted, is no error.
        if Listing::of(&directory).is_ok_and(|below| !below.files.is_empty()) {
            parts.extend(self::parts(&directory)?);
        }
    }
    Ok(parts)
}

fn log_bytes(path: &Path) -> u64 {
    let own = |file: &PathBuf| match Known::of(file) {
        Some(Known::Segment(_, FileKind::Log)) => std::fs::metadata(file).map_or(0, |metadata| metadata.len()),
        _ => 0,
    };
    match Listing::of(path) {
        Ok(listing) => listing.files.iter().map(own).sum::<u64>() + listing.directories.iter().map(|below| log_bytes(below)).sum::<u64>(),
        Err(_) => own(&path.to_owned()),
    }
}
