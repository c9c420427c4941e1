//! Offsets and leader epochs from batch to batch. No CRC covers them, so what says that they are right is the neighbours:
//! offsets rise, epochs don't fall.

/// What a batch says of its place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) position: u64,
    /// Where it ends in the file.
    pub(super) end: u64,
    pub(super) base_offset: i64,
    pub(super) last_offset: i64,
    pub(super) leader_epoch: i32,
}

impl Place {
    fn count(&self) -> i64 {
        self.last_offset - self.base_offset + 1
    }

    fn next_offset(&self) -> i64 {
        self.last_offset + 1
    }
}

/// A batch whose offset or epoch can't be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) place: Place,
    /// The offset that its neighbours leave for it, if it is one.
    pub(super) base_offset: Option<i64>,
    /// The epoch that its neighbours leave for it.
    pub(super) leader_epoch: i32,
    /// It may as well be this one, before it, that is wrong: nothing tells.
    pub(super) rival: Option<Place>,
}

/// The batches of a log so far, in their order in the file. One that breaks the order may itself be wrong, or the one before
/// it: so each waits for the next.
#[derive(Clone, Debug)]
pub(super) struct Sequence {
    /// Behind the batches that are beyond doubt.
    next_offset: i64,
    /// The epoch of these.
    leader_epoch: i32,
    /// No offset of this segment is at or above it.
    limit: i64,
    /// The last batch that fits.
    last: Option<Place>,
    /// One behind it that doesn't.
    doubted: Option<Place>,
    /// Offsets that were passed over.
    missing: u64,
}

impl Sequence {
    /// Batches at or above `next_offset`, below `limit`, of no epoch before `leader_epoch`.
    pub(super) fn new(next_offset: i64, leader_epoch: i32, limit: i64) -> Sequence {
        Sequence { next_offset, leader_epoch, limit, last: None, doubted: None, missing: 0 }
    }

    /// Takes in the next batch. Returns what is now known to be wrong: this one, or one before it.
    pub(super) fn push(&mut self, place: Place) -> Vec<Wrong> {
        let floor = self.end();
        if place.base_offset < floor || place.last_offset >= self.limit {
            let before = self.doubted.take().map(|doubted| self.settle(doubted, Some(place.base_offset), true));
            let mut wrong: Vec<Wrong> = before.into_iter().collect();
            // What was wrong may have been the last one, and then this one fits.
            if self.end() < floor {
                wrong.extend(self.push(place));
            } else {
                self.doubted = Some(place);
            }
            return wrong;
        }
        let mut wrong: Vec<Wrong> =
            self.doubted.take().map(|doubted| self.settle(doubted, Some(place.base_offset), false)).into_iter().collect();
        if let Some(last) = self.last
            && place.leader_epoch < last.leader_epoch
        {
            let is_mine = place.leader_epoch < self.leader_epoch;
            let (liar, leader_epoch) = if is_mine { (place, last.leader_epoch) } else { (last, place.leader_epoch) };
            wrong.push(Wrong { place: liar, base_offset: Some(liar.base_offset), leader_epoch, rival: None });
            let taken = if is_mine { Place { leader_epoch, ..place } } else { place };
            self.last = Some(if is_mine { last } else { Place { leader_epoch, ..last } });
            self.accept(taken);
            return wrong;
        }
        if self.last.is_none() && place.leader_epoch < self.leader_epoch {
            wrong.push(Wrong { place, base_offset: Some(place.base_offset), leader_epoch: self.leader_epoch, rival: None });
            self.accept(Place { leader_epoch: self.leader_epoch, ..place });
            return wrong;
        }
        self.accept(place);
        wrong
    }

    fn accept(&mut self, place: Place) {
        let end = self.end();
        if let Some(last) = self.last {
            (self.next_offset, self.leader_epoch) = (last.last_offset + 1, last.leader_epoch);
        }
        self.missing += place.base_offset.saturating_sub(end).max(0) as u64;
        self.last = Some(place);
    }

    /// A batch didn't fit behind the last one, or beyond the segment: one of the two is wrong. What comes `next` tells which, and
    /// whether there is room for it; one that `is_doubted` itself tells only the first.
    fn settle(&mut self, doubted: Place, next: Option<i64>, is_doubted: bool) -> Wrong {
        match self.last.filter(|last| self.left_a_gap_for(&doubted, last)) {
            Some(last) => self.settle_two(last, doubted, next),
            None => self.settle_one(doubted, next.filter(|_| !is_doubted)),
        }
    }

    /// True if the last batch jumped over offsets among which the doubted one fits: then it may be the last one that is wrong.
    fn left_a_gap_for(&self, doubted: &Place, last: &Place) -> bool {
        last.base_offset > self.next_offset
            && (self.next_offset..last.next_offset()).contains(&doubted.base_offset)
            && doubted.last_offset < self.limit
    }

    /// ```text
    /// 0..4  1029..1031  8..9    10..12     the last one is wrong: 5..7 is just what the doubted one leaves for it
    /// 0..4  20..24      9..11   28..30     the doubted one is wrong: 25..27 is just what lies between the last one and the next
    /// 0..4  20..24      9..11   40..42     compaction left gaps: either may be wrong
    /// ```
    fn settle_two(&mut self, last: Place, doubted: Place, next: Option<i64>) -> Wrong {
        let next = next.or(Some(self.limit).filter(|limit| *limit < i64::MAX));
        let fills_the_gap = doubted.base_offset - self.next_offset == last.count();
        let last_is_wrong = fills_the_gap
            || next.is_some_and(|next| next == doubted.next_offset() || (doubted.next_offset()..last.next_offset()).contains(&next));
        let doubted_is_wrong = next == Some(last.next_offset().saturating_add(doubted.count()));
        if last_is_wrong == doubted_is_wrong {
            return Wrong { place: doubted, base_offset: None, leader_epoch: doubted.leader_epoch, rival: Some(last) };
        }
        if doubted_is_wrong {
            return self.settle_one(doubted, next);
        }
        let base_offset = fills_the_gap.then_some(self.next_offset);
        self.missing = self.missing.saturating_sub((last.base_offset - self.next_offset) as u64);
        self.last = None;
        if let Some(base_offset) = base_offset {
            self.next_offset = base_offset + last.count();
        }
        self.accept(doubted);
        Wrong { place: last, base_offset, leader_epoch: last.leader_epoch, rival: None }
    }

    /// The doubted batch is wrong.
    fn settle_one(&mut self, doubted: Place, next: Option<i64>) -> Wrong {
        let end = self.end();
        let leader_epoch = self.epoch().max(doubted.leader_epoch);
        let behind = end.saturating_add(doubted.count());
        let room = next.is_none_or(|next| next == behind) && behind <= self.limit;
        if room {
            self.accept(Place { base_offset: end, last_offset: behind - 1, leader_epoch, ..doubted });
        }
        Wrong { place: doubted, base_offset: room.then_some(end), leader_epoch, rival: None }
    }

    /// The end of the segment: a batch that was in doubt is wrong.
    pub(super) fn finish(&mut self) -> Option<Wrong> {
        let doubted = self.doubted.take()?;
        Some(self.settle(doubted, None, false))
    }

    /// Behind the last batch that fits.
    pub(super) fn end(&self) -> i64 {
        self.last.map_or(self.next_offset, |last| last.last_offset + 1)
    }

    /// Its epoch.
    pub(super) fn epoch(&self) -> i32 {
        self.last.map_or(self.leader_epoch, |last| last.leader_epoch)
    }

    /// The last batch that fits, and where the one before it ends.
    pub(super) fn last(&self) -> Option<(Place, i64)> {
        self.last.map(|last| (last, self.next_offset))
    }

    /// Offsets that are missing between batches, or in front of the first one.
    pub(super) fn missing(&self) -> u64 {
        self.missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(places: &[(i64, i64, i32)]) -> Vec<(u64, Option<i64>, i32)> {
        let settled = |wrong: Wrong| {
            assert_eq!(wrong.rival, None);
            (wrong.place.position, wrong.base_offset, wrong.leader_epoch)
        };
        found(places).into_iter().map(settled).collect()
    }

    fn found(places: &[(i64, i64, i32)]) -> Vec<Wrong> {
        let mut sequence = Sequence::new(0, i32::MIN, i64::MAX);
        let mut found = Vec::new();
        for (at, (base_offset, last_offset, leader_epoch)) in places.iter().copied().enumerate() {
            found.extend(sequence.push(Place { position: at as u64, end: at as u64 + 1, base_offset, last_offset, leader_epoch }));
        }
        found.extend(sequence.finish());
        found
    }

    #[test]
    fn rising_offsets_with_gaps_and_epochs_that_dont_fall_are_right() {
        assert_eq!(wrong(&[(0, 4, 0), (5, 5, 0), (9, 12, 3), (13, 13, 3)]), []);
    }

    #[test]
    fn an_offset_that_is_too_high_is_told_from_one_that_is_too_low() {
        assert_eq!(wrong(&[(0, 4, 0), (1029, 1031, 0), (8, 9, 0)]), [(1, Some(5), 0)]);
        assert_eq!(wrong(&[(0, 4, 0), (5, 7, 0), (0, 1, 0), (10, 11, 0)]), [(2, Some(8), 0)]);
        assert_eq!(wrong(&[(0, 4, 0), (5, 7, 0), (0, 1, 0)]), [(2, Some(8), 0)]);
        // There is no room for it: a stale batch.
        assert_eq!(wrong(&[(0, 4, 0), (5, 7, 0), (0, 1, 0), (8, 11, 0)]), [(2, None, 0)]);
    }

    #[test]
    fn a_gap_of_compaction_doesnt_make_the_batch_behind_it_the_wrong_one() {
        // 25..27 with a flipped bit, and what follows it.
        assert_eq!(wrong(&[(0, 4, 0), (20, 24, 0), (9, 11, 0), (28, 30, 0)]), [(2, Some(25), 0)]);
        // The same where it is the batch before that has a flipped bit.
        assert_eq!(wrong(&[(0, 4, 0), (21, 22, 0), (8, 11, 0), (12, 12, 0)]), [(1, None, 0)]);
        assert_eq!(wrong(&[(0, 4, 0), (1029, 1031, 0), (8, 9, 0), (2000, 2001, 0)]), [(1, Some(5), 0)]);
        let mut sequence = Sequence::new(0, 0, 28);
        for (position, base_offset) in [(0, 0), (1, 20), (2, 9)] {
            let place = Place { position, end: position + 1, base_offset, last_offset: base_offset + 3, leader_epoch: 0 };
            assert_eq!(sequence.push(place), []);
        }
        // The next segment begins where it would end.
        assert_eq!(sequence.finish().map(|wrong| (wrong.place.position, wrong.base_offset)), Some((2, Some(24))));
    }

    #[test]
    fn where_nothing_tells_which_of_two_is_wrong_neither_is_named() {
        for behind in [&[][..], &[(40, 42, 0)], &[(2, 3, 0), (40, 42, 0)]] {
            let places = [&[(0, 4, 0), (20, 24, 0), (9, 11, 0)], behind].concat();
            let first = found(&places)[0];
            assert_eq!(
                (first.place.position, first.base_offset, first.rival.map(|rival| rival.position)),
                (2, None, Some(1)),
                "{behind:?}"
            );
        }
    }

    #[test]
    fn an_epoch_that_is_too_high_is_told_from_one_that_is_too_low() {
        assert_eq!(wrong(&[(0, 0, 3), (1, 1, 7), (2, 2, 3), (3, 3, 3)]), [(1, Some(1), 3)]);
        assert_eq!(wrong(&[(0, 0, 3), (1, 1, 3), (2, 2, 2), (3, 3, 3)]), [(2, Some(2), 3)]);
        assert_eq!(wrong(&[(0, 0, 259), (1, 1, 3), (2, 2, 3)]), [(0, Some(0), 3)]);
    }

    #[test]
    fn no_offset_reaches_into_the_next_segment() {
        let mut sequence = Sequence::new(10, 0, 20);
        assert!(sequence.push(Place { position: 0, end: 1, base_offset: 10, last_offset: 14, leader_epoch: 0 }).is_empty());
        assert!(sequence.push(Place { position: 1, end: 2, base_offset: 143, last_offset: 147, leader_epoch: 0 }).is_empty());
        assert_eq!(sequence.finish().and_then(|wrong| wrong.base_offset), Some(15));
    }
}
