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
}

/// A batch whose offset or epoch can't be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) place: Place,
    /// The offset that its neighbours leave for it, if it is one.
    pub(super) base_offset: Option<i64>,
    /// The epoch that its neighbours leave for it.
    pub(super) leader_epoch: i32,
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
            return self.doubt(place, floor).into_iter().collect();
        }
        let mut wrong: Vec<Wrong> = self.doubted.take().map(|doubted| self.settle(doubted, Some(place.base_offset))).into_iter().collect();
        if let Some(last) = self.last
            && place.leader_epoch < last.leader_epoch
        {
            let is_mine = place.leader_epoch < self.leader_epoch;
            let (liar, leader_epoch) = if is_mine { (place, last.leader_epoch) } else { (last, place.leader_epoch) };
            wrong.push(Wrong { place: liar, base_offset: Some(liar.base_offset), leader_epoch });
            let taken = if is_mine { Place { leader_epoch, ..place } } else { place };
            self.last = Some(if is_mine { last } else { Place { leader_epoch, ..last } });
            self.accept(taken);
            return wrong;
        }
        if self.last.is_none() && place.leader_epoch < self.leader_epoch {
            wrong.push(Wrong { place, base_offset: Some(place.base_offset), leader_epoch: self.leader_epoch });
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

    /// A batch that doesn't fit behind the last one, or beyond the segment: one of the two is wrong.
    fn doubt(&mut self, place: Place, floor: i64) -> Option<Wrong> {
        let fits_without_last = place.base_offset >= self.next_offset && place.last_offset < self.limit;
        let jumped = self.last.filter(|last| last.base_offset > self.next_offset && fits_without_last && place.base_offset < floor);
        if let Some(last) = jumped {
            // The last one left a gap that this one fits into: the last one is wrong.
            let hole = place.base_offset - self.next_offset;
            let base_offset = (hole == last.count()).then_some(self.next_offset);
            self.missing = self.missing.saturating_sub((last.base_offset - self.next_offset) as u64);
            let wrong = Wrong { place: last, base_offset, leader_epoch: last.leader_epoch };
            self.last = None;
            if let Some(base_offset) = base_offset {
                self.next_offset = base_offset + last.count();
            }
            self.accept(place);
            return Some(wrong);
        }
        let before = self.doubted.replace(place);
        before.map(|doubted| self.settle(doubted, None))
    }

    /// A doubted batch is wrong. What comes next tells whether there is room for it.
    fn settle(&mut self, doubted: Place, next: Option<i64>) -> Wrong {
        let end = self.end();
        let room = next.is_none_or(|next| next == end + doubted.count()) && end + doubted.count() <= self.limit;
        if room {
            self.accept(Place { base_offset: end, last_offset: end + doubted.count() - 1, ..doubted });
        }
        Wrong {
            place: doubted,
            base_offset: room.then_some(end),
            leader_epoch: self.last.map_or(self.leader_epoch, |last| last.leader_epoch),
        }
    }

    /// The end of the segment: a batch that was in doubt is wrong.
    pub(super) fn finish(&mut self) -> Option<Wrong> {
        let doubted = self.doubted.take()?;
        Some(self.settle(doubted, None))
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

    /// Offsets that are missing between batches.
    pub(super) fn missing(&self) -> u64 {
        self.missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(places: &[(i64, i64, i32)]) -> Vec<(u64, Option<i64>, i32)> {
        let mut sequence = Sequence::new(0, i32::MIN, i64::MAX);
        let mut found = Vec::new();
        for (at, (base_offset, last_offset, leader_epoch)) in places.iter().copied().enumerate() {
            found.extend(sequence.push(Place { position: at as u64, end: at as u64 + 1, base_offset, last_offset, leader_epoch }));
        }
        found.extend(sequence.finish());
        found.into_iter().map(|wrong| (wrong.place.position, wrong.base_offset, wrong.leader_epoch)).collect()
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
