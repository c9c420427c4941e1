//! Which bytes of the segment that is written to are where: appended, given to a lane, in the journal, in the segment.
//!
//! Positions only. The order that makes it simple: the segment is filled strictly from front to back by one run at a
//! time, and while a run carries bytes that no frame holds, the journal takes only the run's end entry. So the durable
//! end is one number, and no two writes of one block are ever in flight.

use super::tail::{block_ceiling, block_floor};
use crate::disk::BLOCK;
use std::collections::VecDeque;

/// The entry that a run with new bytes leaves in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EndEntry {
    /// Nothing new in the run: its bytes are acked by entries of their own.
    None,
    Waiting,
    InFrame,
    Durable,
}

/// One write to the segment, then its flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Where it begins: the block floor of the flushed end.
    pub start: u64,
    /// Where the bytes end that it brings into the segment.
    pub segment_end: u64,
    /// Where the bytes end that it makes durable: the end entry holds those behind `segment_end`.
    pub end: u64,
    entry: EndEntry,
    is_flushed: bool,
}

impl Run {
    /// Bytes that it writes, in whole blocks.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        block_ceiling(self.segment_end) - self.start
    }
}

/// The bookkeeping of one segment.
#[derive(Debug)]
pub struct Progress {
    end: u64,
    taken: u64,
    durable: u64,
    flushed: u64,
    /// Ranges that live in the journal's current file and are needed there, in order.
    journaled: VecDeque<(u64, u64)>,
    frame: Option<(u64, u64)>,
    run: Option<Run>,
    /// Blocks below this may hold bytes of discarded batches: new ones go through the journal until they are covered, durably. The
    /// journal's head may vouch for what was there before, and a start goes by that until an entry says otherwise.
    stale_until: u64,
    /// The journal vouches for bytes above the end, those of a batch whose rest was dropped or never came, and perhaps only the segment
    /// has them: until an entry or a head says otherwise, a start that doesn't find them there takes that for damage.
    is_vouched_above: bool,
}

impl Progress {
    /// A segment whose bytes below `flushed` are in it. Of those up to `end`, all durable, `unmoved` are in the journal
    /// only: ranges in order, the first one with the flushed end's block. Above `end` the journal's head vouches for bytes up to
    /// `stale_until`: those of a batch whose rest never came.
    #[must_use]
    pub fn new(flushed: u64, end: u64, unmoved: impl IntoIterator<Item = (u64, u64)>, stale_until: u64) -> Progress {
        assert!(flushed <= end, "flushed {flushed} of {end}");
        let journaled: VecDeque<_> = unmoved.into_iter().map(|(start, end)| (block_floor(start), end)).collect();
        let stale_until = if stale_until > end { stale_until } else { 0 };
        let is_vouched_above = stale_until > end;
        Progress { end, taken: end, durable: end, flushed, journaled, frame: None, run: None, stale_until, is_vouched_above }
    }

    /// Behind the last appended byte.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Behind the last byte that a lane has taken.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Behind the last durable byte: all before it are durable too.
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// Behind the last byte that is in the segment, flushed, without a gap. Never above the durable end.
    #[must_use]
    pub fn flushed(&self) -> u64 {
        self.flushed
    }

    /// The run in flight.
    #[must_use]
    pub fn run(&self) -> Option<Run> {
        self.run
    }

    /// Bytes that are in no segment yet.
    #[must_use]
    pub fn unmoved(&self) -> u64 {
        self.end - self.flushed
    }

    /// True if neither lane has anything of it in flight.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.frame.is_none() && self.run.is_none()
    }

    /// True if every appended byte is durable and nothing is in flight.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.is_idle() && self.durable == self.end
    }

    /// True if nothing behind the end may be cut off the segment before a head is written.
    #[must_use]
    pub fn is_vouched_above(&self) -> bool {
        self.is_vouched_above
    }

    /// A head that was made of this state is durable: it vouches for nothing above the end.
    pub fn head_is_durable(&mut self) {
        self.is_vouched_above = false;
    }

    /// Bytes were appended.
    pub fn append(&mut self, bytes: u64) {
        self.end += bytes;
    }

    /// Whole blocks of bytes that no lane has taken.
    #[must_use]
    pub fn new_blocks(&self) -> u64 {
        block_floor(self.end).saturating_sub(self.taken)
    }

    /// A block that is partly in the segment is rewritten only while the journal's current file holds it whole.
    fn may_rewrite(&self) -> bool {
        self.flushed.is_multiple_of(BLOCK) || self.journaled.front().is_some_and(|(start, _)| *start <= block_floor(self.flushed))
    }

    /// True if a run of at least `bytes_min` new bytes could begin now.
    #[must_use]
    pub fn bulk_is_due(&self, bytes_min: u64) -> bool {
        self.run.is_none() && self.durable >= self.stale_until && self.may_rewrite() && self.new_blocks() >= bytes_min.max(BLOCK)
    }

    /// True if new bytes would go to a run, but the partial block in front of them must be journaled first.
    fn bulk_waits_for_block(&self, bytes_min: u64) -> bool {
        self.run.is_none() && self.durable >= self.stale_until && !self.may_rewrite() && self.new_blocks() >= bytes_min.max(BLOCK)
    }

    /// True if at least `bytes_min` of journaled bytes, in whole blocks, could be moved into the segment now.
    #[must_use]
    pub fn move_is_due(&self, bytes_min: u64) -> bool {
        self.run.is_none()
            && self.may_rewrite()
            && block_floor(self.durable).saturating_sub(block_floor(self.flushed)) >= bytes_min.max(BLOCK)
    }

    /// True if the last partial block is all that keeps it in the journal, and it could be written to the segment now.
    #[must_use]
    pub fn park_is_due(&self) -> bool {
        self.is_settled() && self.flushed < self.end && self.may_rewrite()
    }

    /// Begins a run of new bytes (and the journaled ones before them), of at most `bytes_max` and at least one block.
    pub fn begin_bulk(&mut self, bytes_max: u64) -> Run {
        assert!(self.run.is_none() && self.may_rewrite() && self.new_blocks() > 0, "no run can begin: {self:?}");
        let start = block_floor(self.flushed);
        let whole = block_floor(self.end);
        // Always beyond what is taken, or it would carry nothing new.
        let most = (start + block_floor(bytes_max)).max(block_floor(self.taken) + BLOCK);
        let segment_end = whole.min(most);
        let end = if segment_end == whole { self.end } else { segment_end };
        let run = Run { start, segment_end, end, entry: EndEntry::Waiting, is_flushed: false };
        self.taken = end;
        *self.run.insert(run)
    }

    /// Begins a run of journaled whole blocks, at most `bytes_max`.
    pub fn begin_move(&mut self, bytes_max: u64) -> Run {
        assert!(self.move_is_due(BLOCK), "no move can begin: {self:?}");
        let start = block_floor(self.flushed);
        let segment_end = block_floor(self.durable).min(start + block_floor(bytes_max).max(BLOCK));
        *self.run.insert(Run { start, segment_end, end: segment_end, entry: EndEntry::None, is_flushed: false })
    }

    /// Begins a run of everything that is left, the last block padded.
    pub fn begin_park(&mut self) -> Run {
        assert!(self.park_is_due(), "no parking: {self:?}");
        let start = block_floor(self.flushed);
        *self.run.insert(Run { start, segment_end: self.end, end: self.end, entry: EndEntry::None, is_flushed: false })
    }

    /// What the next frame is to hold, at most `bytes_max`: an empty range is the empty entry of a run. `None` if there is
    /// nothing for the journal. `bulk_bytes_min` says which new bytes are left to the bulk lane.
    pub fn take_for_journal(&mut self, bytes_max: u64, bulk_bytes_min: u64) -> Option<(u64, u64)> {
        let range = self.journal_range(bytes_max, bulk_bytes_min)?;
        match &mut self.run {
            Some(run) if run.entry == EndEntry::Waiting => run.entry = EndEntry::InFrame,
            _ => self.taken = range.1,
        }
        self.frame = Some(range);
        Some(range)
    }

    fn journal_range(&self, bytes_max: u64, bulk_bytes_min: u64) -> Option<(u64, u64)> {
        if self.frame.is_some() {
            return None;
        }
        match self.run {
            Some(run) if run.entry == EndEntry::Waiting => {
                return (run.end - run.segment_end <= bytes_max).then_some((run.segment_end, run.end));
            }
            Some(run) if run.entry != EndEntry::None => return None,
            _ => {}
        }
        if self.taken == self.end || self.bulk_is_due(bulk_bytes_min) {
            return None;
        }
        // The first entry since the partition was flushed begins at the block floor, so that a block that will be
        // rewritten is whole in the journal.
        let start = if self.journaled.is_empty() { block_floor(self.flushed) } else { self.taken };
        let mut end = self.end.min(start + bytes_max);
        if self.bulk_waits_for_block(bulk_bytes_min) {
            end = end.min(block_floor(self.flushed) + BLOCK);
        }
        (end > self.taken).then_some((start, end))
    }

    /// True if the journal lane has something to take.
    #[must_use]
    pub fn wants_journal(&self, bulk_bytes_min: u64) -> bool {
        self.journal_range(u64::MAX / 2, bulk_bytes_min).is_some()
    }

    /// True if a run can't end before its end entry is in a frame.
    #[must_use]
    pub fn run_waits_for_entry(&self) -> bool {
        self.run.is_some_and(|run| run.entry == EndEntry::Waiting)
    }

    /// True if bytes of it are in the frame in flight.
    #[must_use]
    pub fn is_in_frame(&self) -> bool {
        self.frame.is_some()
    }

    /// The frame that holds the last taken range is durable.
    pub fn frame_is_durable(&mut self) {
        let (start, end) = self.frame.take().expect("a frame was in flight");
        match self.journaled.back_mut() {
            Some(last) if last.1 == start => last.1 = end,
            _ => self.journaled.push_back((start, end)),
        }
        match &mut self.run {
            Some(run) if run.entry == EndEntry::InFrame => {
                run.entry = EndEntry::Durable;
                self.finish_run();
            }
            _ => {
                self.durable = self.durable.max(end);
                // It begins at or below where the dropped ones began, and takes their place.
                self.is_vouched_above = false;
            }
        }
    }

    /// The run's write and flush have completed.
    pub fn run_is_flushed(&mut self) {
        self.run.as_mut().expect("a run was in flight").is_flushed = true;
        self.finish_run();
    }

    fn finish_run(&mut self) {
        let Some(run) = self.run else { return };
        if !run.is_flushed || !matches!(run.entry, EndEntry::None | EndEntry::Durable) {
            return;
        }
        self.run = None;
        self.flushed = self.flushed.max(run.segment_end);
        self.durable = self.durable.max(run.end);
        self.prune();
    }

    /// Forgets what the journal is no longer needed for.
    fn prune(&mut self) {
        if self.flushed == self.end.min(self.taken) {
            self.journaled.clear();
            return;
        }
        let floor = block_floor(self.flushed);
        while self.journaled.front().is_some_and(|(_, end)| *end < floor || (*end == floor && self.journaled.len() > 1)) {
            self.journaled.pop_front();
        }
        if let Some(first) = self.journaled.front_mut() {
            first.0 = first.0.max(floor).min(first.1);
        }
    }

    /// What the next head carries: ranges of the journal's current file at or above the block floor of the flushed end,
    /// also those beyond a gap that a run is filling.
    pub fn carried(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.journaled.iter().copied()
    }

    /// Bytes that the next head carries.
    #[must_use]
    pub fn carried_bytes(&self) -> u64 {
        self.journaled.iter().map(|(start, end)| end - start).sum()
    }

    /// Forgets everything from `end` on, a batch boundary at or below what was taken. `submitted` is how far the segment
    /// was ever written. Nothing may be in flight.
    pub fn discard(&mut self, end: u64, submitted: u64) {
        assert!(self.is_idle() && end <= self.taken, "no discard to {end}: {self:?}");
        self.stale_until = self.stale_until.max(self.taken).max(submitted);
        self.is_vouched_above |= self.taken > end;
        if self.stale_until <= end {
            self.stale_until = 0;
        }
        self.cut(end);
    }

    /// It failed: what isn't durable is forgotten, whatever is in flight. Nothing is appended any more.
    pub fn go_offline(&mut self, end: u64) {
        (self.frame, self.run) = (None, None);
        self.cut(end);
    }

    fn cut(&mut self, end: u64) {
        (self.end, self.taken, self.durable) = (end, end, end);
        // A run may have ended within a batch: of that one nothing is left.
        self.flushed = self.flushed.min(end);
        self.journaled.retain(|(start, _)| *start < end);
        if let Some(last) = self.journaled.back_mut() {
            last.1 = last.1.min(end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BULK: u64 = 64 << 10;

    fn fresh() -> Progress {
        Progress::new(0, 0, [], 0)
    }

    fn journal(progress: &mut Progress) -> Option<(u64, u64)> {
        let range = progress.take_for_journal(1 << 20, BULK);
        if range.is_some() {
            progress.frame_is_durable();
        }
        range
    }

    #[test]
    fn where_the_head_vouches_for_a_batch_that_never_came_no_run_goes_first() {
        let mut progress = Progress::new(0, 0, [], 3 * BLOCK);
        assert!(progress.is_vouched_above());
        progress.append(8 * BLOCK);
        assert!(!progress.bulk_is_due(BLOCK));
        assert_eq!(progress.take_for_journal(2 * BLOCK, BLOCK), Some((0, 2 * BLOCK)));
        progress.frame_is_durable();
        assert!(!progress.bulk_is_due(BLOCK));
        assert_eq!(progress.take_for_journal(BLOCK, BLOCK), Some((2 * BLOCK, 3 * BLOCK)));
        assert!(!progress.bulk_is_due(BLOCK), "the entry is not durable");
        progress.frame_is_durable();
        assert!(progress.bulk_is_due(BLOCK));
    }

    #[test]
    fn small_appends_are_durable_with_their_frame() {
        let mut progress = fresh();
        progress.append(100);
        assert_eq!(progress.take_for_journal(1 << 20, BULK), Some((0, 100)));
        progress.append(50);
        assert!(!progress.wants_journal(BULK), "one frame is in flight at a time");
        progress.frame_is_durable();
        assert_eq!((progress.durable(), progress.flushed(), progress.unmoved()), (100, 0, 150));
        assert_eq!(journal(&mut progress), Some((100, 150)));
        assert_eq!(progress.carried().collect::<Vec<_>>(), [(0, 150)]);
    }

    #[test]
    fn a_run_of_new_bytes_is_durable_with_its_flush_and_its_end_entry() {
        for entry_first in [true, false] {
            let mut progress = fresh();
            progress.append(100_000);
            assert!(progress.bulk_is_due(BULK) && !progress.wants_journal(BULK));
            let run = progress.begin_bulk(1 << 20);
            assert_eq!((run.start, run.segment_end, run.end), (0, 98_304, 100_000));
            progress.append(10);
            assert_eq!(progress.take_for_journal(1 << 20, BULK), Some((98_304, 100_000)));
            if entry_first {
                progress.frame_is_durable();
                assert_eq!(progress.durable(), 0);
                assert_eq!(progress.carried().collect::<Vec<_>>(), [(98_304, 100_000)], "beyond the gap that the run fills");
                assert_eq!(journal(&mut progress), None, "what comes behind waits for the run");
                progress.run_is_flushed();
            } else {
                progress.run_is_flushed();
                assert_eq!((progress.durable(), progress.flushed()), (0, 0));
                progress.frame_is_durable();
            }
            assert_eq!((progress.durable(), progress.flushed()), (100_000, 98_304));
            assert_eq!(journal(&mut progress), Some((100_000, 100_010)));
        }
    }

    #[test]
    fn a_run_that_ends_on_a_block_leaves_an_empty_entry() {
        let mut progress = fresh();
        progress.append(1 << 20);
        let run = progress.begin_bulk(BULK);
        assert_eq!((run.segment_end, run.end), (BULK, BULK));
        assert_eq!(progress.take_for_journal(1 << 20, BULK), Some((BULK, BULK)));
        progress.frame_is_durable();
        progress.run_is_flushed();
        assert_eq!((progress.durable(), progress.flushed()), (BULK, BULK));
    }

    #[test]
    fn a_parked_block_is_journaled_whole_before_it_is_rewritten() {
        let mut progress = fresh();
        progress.append(5_000);
        journal(&mut progress);
        progress.begin_park();
        progress.run_is_flushed();
        assert_eq!((progress.flushed(), progress.carried_bytes()), (5_000, 0));
        progress.append(200_000);
        assert!(!progress.bulk_is_due(BULK), "the block in front is not in the journal");
        assert_eq!(journal(&mut progress), Some((4_096, 8_192)));
        assert!(progress.bulk_is_due(BULK));
        assert_eq!(progress.begin_bulk(1 << 20).start, 4_096);
    }

    #[test]
    fn moved_bytes_leave_the_journal_but_for_the_partial_block() {
        let mut progress = fresh();
        progress.append(10_000);
        journal(&mut progress);
        assert!(progress.move_is_due(BLOCK));
        progress.begin_move(1 << 20);
        progress.append(10);
        assert_eq!(journal(&mut progress), Some((10_000, 10_010)), "small appends go on while bytes are moved");
        progress.run_is_flushed();
        assert_eq!((progress.flushed(), progress.durable()), (8_192, 10_010));
        assert_eq!(progress.carried().collect::<Vec<_>>(), [(8_192, 10_010)]);
    }

    #[test]
    fn new_bytes_go_through_the_journal_until_they_cover_discarded_ones() {
        let mut progress = fresh();
        progress.append(300_000);
        progress.begin_bulk(128 << 10);
        journal(&mut progress);
        progress.run_is_flushed();
        assert_eq!(progress.durable(), 131_072);
        // The batch that the run cut began at 100,000.
        progress.discard(100_000, 131_072);
        assert_eq!((progress.end(), progress.durable(), progress.flushed()), (100_000, 100_000, 100_000));
        assert!(progress.is_vouched_above(), "half of a batch was durable");
        progress.append(100_000);
        assert!(!progress.bulk_is_due(BULK));
        assert_eq!(journal(&mut progress), Some((98_304, 200_000)));
        assert!(!progress.is_vouched_above(), "the entry takes its place");
        progress.append(100_000);
        assert!(progress.bulk_is_due(BULK));
    }
}
