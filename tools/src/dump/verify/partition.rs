//! The files of a partition together, segment after segment.

use super::{
    Finding, Fix, Level, Totals,
    checkpoints::verify_file,
    remedy::Remedy,
    segment::{Ending, Segment, State},
};
use crate::dump::{
    Request,
    inputs::{Home, Known, Listing},
    journal::{Journals, is_clean},
    progress::Progress,
    read::small,
    show::or_gone,
};
use anyhow::Result;
use engine::segment::{EpochStart, FileKind, LEADER_EPOCH_CHECKPOINT, OpenTransactions, decode_epochs, decode_snapshot, file_name};
use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
};

/// A broker may be writing: damage is what is still there when it's read again.
const READS_MAX: usize = 3;

/// What is wrong with the partition in `directory`, or with one segment of it.
pub(crate) fn verify(
    directory: &Path,
    only: Option<i64>,
    request: &Request,
    journals: &Journals,
    progress: &Progress,
    totals: &mut Totals,
) -> Result<Vec<Finding>> {
    let home = Home::of(directory);
    let listing = Listing::of(directory)?;
    let segments = listing.segments();
    let mut found = Vec::new();
    for file in &listing.files {
        let is_checkpoint = matches!(Known::of(file), Some(Known::LeaderEpochs | Known::Metadata | Known::Segment(_, FileKind::Snapshot)));
        if is_checkpoint && only.is_none() && file.is_file() {
            found.extend(or_gone(small(file).map(|bytes| verify_file(file, &bytes)))?);
        }
    }
    let clean = home.clean || (home.holder.is_none() && home.mark.is_some() && is_clean(&home, request));
    let epochs = checkpoint(directory).filter(|_| clean);
    let first = segments.first().copied().unwrap_or_default();
    let begin = before(directory, only.unwrap_or(first));
    let verify = |base_offset, state: &State| settled(directory, base_offset, state, request, journals, progress, epochs.as_deref());
    let verified = match only {
        Some(only) => Vec::from_iter(verify(only, &begin)?.map(|segment| (only, segment))),
        None => in_turn(directory, &segments, &begin, verify)?,
    };
    let state = verified.last().map_or(begin, |(_, segment)| segment.after.clone());
    for (_, segment) in verified {
        totals.segments += segment.totals.segments;
        totals.batches += segment.totals.batches;
        totals.bytes += segment.totals.bytes;
        totals.offsets_missing += segment.totals.offsets_missing;
        found.extend(segment.found);
    }
    totals.partitions += 1;
    if only.is_none() && home.holder.is_none() {
        // The end of a Thalweg's log that was not stopped cleanly is in its journal: the next start knows it.
        if clean || home.mark.is_none() {
            found.extend(against_snapshots(&listing, &state, clean));
        }
        if !found.iter().any(|finding| finding.file == state.last_log && matches!(finding.fix, Some(Fix::Header { .. }))) {
            found.extend(out_of_reach(&state));
        }
        if let Some(epochs) = &epochs {
            found.extend(against_epochs(directory, epochs, &state));
        }
    }
    let active = segments.last().copied();
    let vouched = || active.map_or(0, |base_offset| vouched(&home, base_offset, request, journals));
    let is_copy = !clean && journals.is_copy(directory, &home, request);
    let remedy = Remedy { home: &home, is_clean: clean, is_copy, active, vouched: &vouched };
    found.iter_mut().for_each(|finding| remedy.judge(finding));
    Ok(found)
}

/// Verifies segments one after the other. Where compaction has merged one into another since they were listed, that one is verified
/// anew, as a whole, and what was known behind it before is forgotten: it may have been read before and after it.
fn in_turn(
    directory: &Path,
    bases: &[i64],
    begin: &State,
    verify: impl Fn(i64, &State) -> Result<Option<Verified>>,
) -> Result<Vec<(i64, Verified)>> {
    let mut done: Vec<(i64, Verified)> = Vec::new();
    let mut left = VecDeque::from(bases.to_vec());
    while let Some(base_offset) = left.pop_front() {
        let state = done.last().map_or(begin, |(_, segment)| &segment.after);
        if let Some(segment) = verify(base_offset, state)? {
            done.push((base_offset, segment));
            continue;
        }
        let fresh = or_gone(Listing::from_gone(directory, base_offset).map(|listing| listing.segments()))?;
        done.retain(|(base, _)| fresh.first().is_none_or(|first| base < first));
        left = fresh.into();
    }
    Ok(done)
}

/// A segment that was verified.
struct Verified {
    found: Vec<Finding>,
    /// What is known behind it.
    after: State,
    totals: Totals,
}

/// A segment's findings that are the same each time it's read; `None` if it is gone: retention and compaction do that.
fn settled(
    directory: &Path,
    base_offset: i64,
    state: &State,
    request: &Request,
    journals: &Journals,
    progress: &Progress,
    epochs: Option<&[EpochStart]>,
) -> Result<Option<Verified>> {
    let mut kept: Option<Vec<Finding>> = None;
    let mut reads = 0;
    loop {
        // Anew each time: by now the segment may be sealed, or gone.
        let home = Home::of(directory);
        let next_base = Listing::of(directory)?.segments().into_iter().find(|base| *base > base_offset);
        let log = directory.join(file_name(base_offset, FileKind::Log));
        let ending = ending(&home, base_offset, next_base, request, journals);
        let segment = Segment { directory, base_offset, next_base, ending, request, journals, epochs, progress };
        let (mut found, after, totals) = match segment.verify(state.clone()) {
            Err(_) if !log.is_file() => return Ok(None),
            result => result?,
        };
        if let Some(kept) = kept {
            found.retain(|finding| kept.iter().any(|other| finding.is_same(other)));
        }
        reads += 1;
        if found.is_empty() || home.holder.is_none() || reads == READS_MAX {
            return Ok(Some(Verified { found, after, totals }));
        }
        kept = Some(found);
    }
}

fn ending(home: &Home, base_offset: i64, next_base: Option<i64>, request: &Request, journals: &Journals) -> Ending {
    if next_base.is_some() {
        return Ending::Sealed;
    }
    match home.mark {
        Some(_) if home.holder.is_some() || !(home.clean || is_clean(home, request)) => {
            Ending::Moving { settled: vouched(home, base_offset, request, journals) }
        }
        None if home.holder.is_some() => Ending::Growing,
        _ => Ending::Still,
    }
}

/// Up to where Thalweg's journal says that batches reach in an active segment, in bytes.
fn vouched(home: &Home, base_offset: i64, request: &Request, journals: &Journals) -> u64 {
    let line = home.mark.and_then(|mark| journals.line(home, request, mark));
    // Before the first batch that is not wholly flushed, all are. In a journal that says nothing of the segment, nothing is.
    line.filter(|line| line.segment_base == base_offset).map_or(0, |line| u64::from(line.batch_start))
}

/// True if nothing can be said yet of what is at `position` of the log at `path`: it is being written, or in the journal.
pub(crate) fn is_in_motion(path: &Path, base_offset: i64, position: u64, request: &Request, journals: &Journals) -> bool {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let next_base = Listing::of(directory).ok().and_then(|listing| listing.segments().into_iter().find(|base| *base > base_offset));
    match ending(&Home::of(directory), base_offset, next_base, request, journals) {
        Ending::Moving { settled } => position >= settled,
        Ending::Growing => true,
        Ending::Sealed | Ending::Still | Ending::Killed | Ending::Copied => false,
    }
}

/// What is known where the walk begins.
fn before(directory: &Path, base_offset: i64) -> State {
    let snapshot = small(&directory.join(file_name(base_offset, FileKind::Snapshot))).ok().and_then(|bytes| decode_snapshot(&bytes).ok());
    State {
        next_offset: base_offset,
        leader_epoch: i32::MIN,
        epochs: Vec::new(),
        exact: base_offset == 0 || snapshot.is_some(),
        open: snapshot.as_deref().map(OpenTransactions::of).unwrap_or_default(),
        last: None,
        last_log: PathBuf::new(),
        other_epochs: (0, None),
    }
}

fn checkpoint(directory: &Path) -> Option<Vec<EpochStart>> {
    let bytes = small(&directory.join(LEADER_EPOCH_CHECKPOINT)).ok()?;
    decode_epochs(std::str::from_utf8(&bytes).ok()?).ok().filter(|epochs| !epochs.is_empty())
}

/// The newest snapshot of the producers tells how far the log once went.
fn against_snapshots(listing: &Listing, state: &State, clean: bool) -> Option<Finding> {
    let snapshots = listing.files.iter().filter_map(|file| match Known::of(file) {
        Some(Known::Segment(offset, FileKind::Snapshot)) => Some((offset, file)),
        _ => None,
    });
    let (offset, file) = snapshots.max_by_key(|(offset, _)| *offset)?;
    let active = *listing.segments().last()?;
    if offset > state.next_offset {
        let what = format!("the log ends at offset {}, but was at {offset} when this snapshot was written", state.next_offset);
        let finding = Finding::new(Level::Corrupt, file, what).offset(state.next_offset);
        let finding = finding.action("batches are missing at the end: restore the segment from a copy; --repair puts the snapshot aside");
        return Some(finding.fix(Fix::Aside));
    }
    let (last, floor) = state.last?;
    if !clean || offset <= active || offset >= state.next_offset {
        return None;
    }
    let what = format!("the log ends at offset {}, but a clean stop ended it at {offset}", state.next_offset);
    let base_offset = offset - (last.last_offset - last.base_offset + 1);
    let finding = Finding::new(Level::Corrupt, &state.last_log, what).at(last.position).offset(last.base_offset);
    let finding = finding.action("no CRC covers the base offset of the last batch; --repair sets it");
    let fix = Fix::Header { position: last.position, base_offset, leader_epoch: last.leader_epoch };
    Some(if base_offset >= floor { finding.fix(fix) } else { finding })
}

/// The last batch has none behind it that would tell, but no segment reaches further than its indexes can.
fn out_of_reach(state: &State) -> Option<Finding> {
    let (last, floor) = state.last?;
    let Some(Known::Segment(base_offset, _)) = Known::of(&state.last_log) else { return None };
    if last.last_offset.saturating_sub(base_offset) <= i64::from(i32::MAX) {
        return None;
    }
    let what = format!("base offset {} is too far from the segment's: {floor} would fit behind the batch before", last.base_offset);
    let finding = Finding::new(Level::Corrupt, &state.last_log, what).at(last.position).offset(last.base_offset);
    let fix = Fix::Header { position: last.position, base_offset: floor, leader_epoch: last.leader_epoch };
    Some(finding.action("no CRC covers it; --repair sets what the batch before leaves for it").fix(fix))
}

/// The checkpoint and the batches must say the same. One batch alone that says something else is itself wrong: no CRC covers
/// its epoch. More of them, and it is the checkpoint.
fn against_epochs(directory: &Path, epochs: &[EpochStart], state: &State) -> Option<Finding> {
    let path = directory.join(LEADER_EPOCH_CHECKPOINT);
    let anew =
        |what: String| Some(Finding::new(Level::Corrupt, &path, what).action("--repair writes it anew from the batches").fix(Fix::Epochs));
    if let Some(beyond) = epochs.iter().find(|entry| entry.start_offset > state.next_offset) {
        return anew(format!("epoch {} begins at offset {}, the log ends at {}", beyond.epoch, beyond.start_offset, state.next_offset));
    }
    let (count, first) = &state.other_epochs;
    let other = first.as_ref()?;
    let place = &other.place;
    match other.right.filter(|_| *count == 1) {
        Some(leader_epoch) => {
            let what = format!("its leader epoch is {}, the checkpoint says {leader_epoch}", place.leader_epoch);
            let finding = Finding::new(Level::Corrupt, &other.log, what).at(place.position).offset(place.base_offset);
            let fix = Fix::Header { position: place.position, base_offset: place.base_offset, leader_epoch };
            Some(finding.action("no CRC covers it; --repair sets what the checkpoint says").fix(fix))
        }
        None => anew(format!("{count} batches have another epoch than it says, the first at offset {}", place.base_offset)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::batch::BatchBuilder;
    use std::{cell::Cell, fs, ops::Range};

    fn write(directory: &Path, base_offset: i64, offsets: Range<i64>) {
        let bytes = offsets.flat_map(|offset| BatchBuilder::new().at(offset, 0).record(1_000, None, Some(b"v")).build());
        fs::write(directory.join(file_name(base_offset, FileKind::Log)), bytes.collect::<Vec<u8>>()).expect("written");
    }

    #[test]
    fn offsets_are_missing_between_batches_and_segments_and_in_front_of_the_first_one() {
        let missing = |logs: &[(i64, Range<i64>)]| {
            let root = tempfile::tempdir().expect("a directory");
            logs.iter().for_each(|(base_offset, offsets)| write(root.path(), *base_offset, offsets.clone()));
            let (request, journals, progress) = (Request::default(), Journals::default(), Progress::new(false, 0));
            let mut totals = Totals::default();
            let found = verify(root.path(), None, &request, &journals, &progress, &mut totals).expect("readable");
            assert!(found.is_empty(), "{found:?}");
            totals.offsets_missing
        };
        assert_eq!(missing(&[(0, 0..3), (3, 3..6)]), 0);
        assert_eq!(missing(&[(7, 7..9)]), 0, "retention took what was before");
        assert_eq!(missing(&[(7, 8..9), (9, 9..11)]), 1, "in front of the first one");
        assert_eq!(missing(&[(0, 0..3), (3, 5..6)]), 2, "at the beginning of a segment");
        assert_eq!(missing(&[(0, 0..2), (3, 3..6)]), 1, "at the end of a segment");
        assert_eq!(missing(&[(0, 0..3), (6, 7..9)]), 4, "a segment is not there, and a batch behind it");
    }

    #[test]
    fn what_compaction_has_merged_is_verified_in_its_new_place_whenever_that_was() {
        // Since they were listed, but before the first was read; while the first is read; and while the last is.
        for merged_at in [None, Some(0), Some(6)] {
            let root = tempfile::tempdir().expect("a directory");
            let directory = root.path();
            let merge = || {
                write(directory, 0, 0..6);
                let _ = fs::remove_file(directory.join(file_name(3, FileKind::Log)));
            };
            write(directory, 0, 0..3);
            write(directory, 3, 3..6);
            write(directory, 6, 6..8);
            let is_merged = Cell::new(merged_at.is_none());
            if is_merged.get() {
                merge();
            }
            let (request, journals, progress) = (Request::default(), Journals::default(), Progress::new(false, 0));
            let verified = in_turn(directory, &[0, 3, 6], &before(directory, 0), |base_offset, state| {
                let verified = settled(directory, base_offset, state, &request, &journals, &progress, None);
                if merged_at == Some(base_offset) && !is_merged.replace(true) {
                    merge();
                }
                verified
            });
            let verified = verified.expect("readable");
            let batches: u64 = verified.iter().map(|(_, segment)| segment.totals.batches).sum();
            let missing: u64 = verified.iter().map(|(_, segment)| segment.totals.offsets_missing).sum();
            let bases: Vec<i64> = verified.iter().map(|(base, _)| *base).collect();
            let expected = if merged_at == Some(6) { vec![0, 3, 6] } else { vec![0, 6] };
            assert_eq!((batches, missing, bases), (8, 0, expected), "{merged_at:?}");
            assert!(verified.iter().all(|(_, segment)| segment.found.is_empty()), "{merged_at:?}");
        }
    }
}
