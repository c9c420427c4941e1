//! A log in one page. Memory is bounded whatever the log: what can't be counted exactly within it is estimated, and says so.

mod chart;
mod counts;
mod distinct;
mod page;
mod top;

use super::{
    Outcome, Request,
    inputs::{Home, Known, Listing, topic_of},
    journal::{Journals, LogEnd, Opened, open},
    progress::Progress,
    read::{Doubt, Seen, Tail, can_be_skipped, small, start, walk},
    show::{Printer, behind, is_gone, or_gone},
    verify::is_in_motion,
};
use anyhow::Result;
use counts::Counts;
use engine::{
    kafka::{CLEANER_CHECKPOINT, decode_offsets},
    segment::{FileKind, file_name, parse_directory_name},
};
use std::{
    collections::VecDeque,
    io::Write,
    path::{Path, PathBuf},
};

/// Prints a page for each partition at `path`, or for one segment.
pub(crate) fn print(path: &Path, request: &Request, journals: &Journals, out: &mut dyn Write) -> Result<Outcome> {
    let mut printer = Printer::new(&request.look, out);
    let logs = logs(path)?;
    let bytes = logs.iter().flat_map(|(directory, bases)| bases.iter().map(|base| directory.join(file_name(*base, FileKind::Log))));
    let progress = Progress::new(request.progress, bytes.filter_map(|log| Some(log.metadata().ok()?.len())).sum());
    let mut worst = Outcome::Clean;
    for (directory, bases) in &logs {
        let follows = path.is_dir();
        let (counts, found) = count(directory, bases, follows, request, journals, &progress)?;
        worst = worst.max(found);
        printer.at(if logs.len() == 1 { path } else { directory });
        page::print(&counts, request.records, &mut printer)?;
    }
    Ok(worst)
}

/// The logs at `path`, by directory.
fn logs(path: &Path) -> Result<Vec<(PathBuf, Vec<i64>)>> {
    if !path.is_dir() {
        let Known::Segment(base, FileKind::Log) = Known::require(path)? else {
            anyhow::bail!("{} is no log: a summary is of a .log, a partition's directory or a data directory", path.display());
        };
        return Ok(vec![(path.parent().unwrap_or(Path::new("")).to_owned(), vec![base])]);
    }
    let listing = Listing::require(path)?;
    let mut found = Vec::new();
    if !listing.segments().is_empty() {
        found.push((path.to_owned(), listing.segments()));
    }
    for directory in &listing.directories {
        let segments = or_gone(Listing::of(directory).map(|listing| listing.segments()))?;
        if !segments.is_empty() {
            found.push((directory.clone(), segments));
        }
    }
    Ok(found)
}

/// Counts these segments of a partition. With `follows` also what is in others by now: compaction merges segments.
fn count(
    directory: &Path,
    bases: &[i64],
    follows: bool,
    request: &Request,
    journals: &Journals,
    progress: &Progress,
) -> Result<(Counts, Outcome)> {
    let active = bases.last().copied().unwrap_or_default();
    let mut counts = Counts::new(first_dirty(directory), active, request.records);
    let (mut worst, mut floor) = (Outcome::Clean, None);
    let mut left = VecDeque::from(bases.to_vec());
    while let Some(base_offset) = left.pop_front() {
        let log = directory.join(file_name(base_offset, FileKind::Log));
        let skipped = left.front().is_some_and(|next| can_be_skipped(*next, &request.select));
        if skipped || request.select.is_past(base_offset) {
            continue;
        }
        progress.on(&log);
        let of_segment = Request { select: request.select.clone().not_below(floor), ..request.clone() };
        let found = segment(&log, base_offset, &of_segment, journals, progress, &mut counts);
        if follows && is_gone(&found) {
            // Its records may be in another one by now, of which some were counted before.
            let fresh = or_gone(Listing::from_gone(directory, base_offset).map(|listing| listing.segments()))?;
            if let Some(holder) = fresh.first().filter(|first| **first < base_offset) {
                counts.merged(*holder, base_offset);
            }
            floor = floor.max(Some(base_offset)).max(behind(counts.offsets.map(|(_, last)| last)));
            left = fresh.into();
            continue;
        }
        worst = worst.max(or_gone(found)?);
    }
    Ok((counts, worst))
}

/// Counts a segment. What looks like damage and may be in motion, or in the journal, is not counted.
fn segment(
    log: &Path,
    base_offset: i64,
    request: &Request,
    journals: &Journals,
    progress: &Progress,
    counts: &mut Counts,
) -> Result<Outcome> {
    let mut from = start(log, base_offset, &request.select)?;
    let (mut doubt, mut worst) = (Doubt::of(log), Outcome::Clean);
    loop {
        let mut again = false;
        let Opened { mut file, unknown, end: log_end } = open(log, base_offset, Some(from), request, journals)?;
        counts.segment(base_offset);
        counts.unknown = unknown;
        let end = walk(&mut file, from, base_offset, |seen| {
            let position = seen.position();
            if seen.is_bad() {
                (again, from) = (doubt.again(position), position);
                if again {
                    return Ok(false);
                }
            }
            let bad = log_end.is_damage(&seen, || is_in_motion(log, base_offset, position, request, journals));
            worst = worst.max(if bad { Outcome::Corrupt } else { Outcome::Clean });
            match seen {
                Seen::Batch(batch) if request.select.is_past(batch.header.base_offset()) => return Ok(false),
                Seen::Batch(batch) => {
                    progress.add(batch.bytes.len() as u64);
                    if bad {
                        counts.damaged(batch.bytes.len() as u64);
                    } else if batch.wrong.is_none() && request.select.batch(&batch.header) {
                        counts.batch(&batch.header, batch.bytes, |header, record| request.select.record(header, record));
                        counts.place_of(&batch);
                    }
                }
                Seen::Damage { from, to, .. } if bad => counts.damaged(to - from),
                Seen::Damage { .. } => {}
            }
            Ok(true)
        })?;
        if again {
            continue;
        }
        if let Some(end) = end.filter(|end| end.position < end.size) {
            let found = match (log_end, end.tail) {
                (LogEnd::Final, _) => Outcome::Corrupt,
                (LogEnd::Plain, Tail::Garbage(_)) if !is_in_motion(log, base_offset, end.position, request, journals) => Outcome::TornTail,
                _ => return Ok(worst),
            };
            counts.damaged(end.size - end.position);
            worst = worst.max(found);
        }
        return Ok(worst);
    }
}

/// Where Kafka's cleaner has got to.
fn first_dirty(directory: &Path) -> Option<i64> {
    let topic = topic_of(&directory.join("x"))?;
    let (_, partition) = parse_directory_name(directory.file_name()?.to_str()?)?;
    let bytes = small(&Home::of(directory).data_dir.join(CLEANER_CHECKPOINT)).ok()?;
    let entries = decode_offsets(&bytes).ok()?;
    entries.into_iter().find(|entry| (entry.0, entry.1) == (topic.as_str(), partition)).map(|entry| entry.2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::batch::BatchBuilder;
    use std::fs;

    fn batches(offsets: std::ops::Range<i64>) -> Vec<u8> {
        offsets.flat_map(|offset| BatchBuilder::new().at(offset, 0).record(1_000, Some(b"k"), Some(b"v")).build()).collect()
    }

    #[test]
    fn segments_that_were_merged_since_they_were_listed_are_counted_once_and_so_are_their_batches() {
        let root = tempfile::tempdir().expect("a directory");
        let write = |base, offsets| fs::write(root.path().join(file_name(base, FileKind::Log)), batches(offsets)).expect("written");
        write(0, 0..6);
        write(6, 6..8);
        let request = Request { records: true, ..Request::default() };
        let counted = |bases: &[i64]| {
            let (counts, outcome) =
                count(root.path(), bases, true, &request, &Journals::default(), &Progress::new(false, 0)).expect("readable");
            assert_eq!(outcome, Outcome::Clean);
            (counts.segments(), counts.batches, counts.records, counts.offsets)
        };
        let expected = (2, 8, 8, Some((0, 7)));
        assert_eq!(counted(&[0, 6]), expected);
        assert_eq!(counted(&[0, 3, 6]), expected);
        assert_eq!(counted(&[3, 5, 6]), (2, 5, 5, Some((3, 7))), "what lies below was not asked for");
        // All of them: the log began anew, and nothing holds what they had.
        fs::remove_file(root.path().join(file_name(0, FileKind::Log))).expect("removed");
        assert_eq!(counted(&[0, 3, 6]), (1, 2, 2, Some((6, 7))));
    }
}
