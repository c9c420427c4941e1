//! Where each leader epoch begins in a partition (Kafka: `LeaderEpochFileCache`). Pure.

use crate::segment::EpochStart;

/// A partition's leader epochs: epochs rise, and so do the offsets where they begin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Epochs {
    entries: Vec<EpochStart>,
    /// How many of the first entries `leader-epoch-checkpoint` has, as they are.
    stored: usize,
}

impl Epochs {
    /// Those of a `leader-epoch-checkpoint`.
    #[must_use]
    pub fn stored(entries: &[EpochStart]) -> Epochs {
        let mut epochs = Epochs::default();
        entries.iter().for_each(|entry| {
            epochs.assign(entry.epoch, entry.start_offset);
        });
        epochs.mark_stored();
        epochs
    }

    /// A batch of `epoch` is appended at `start_offset`. True if the epoch is new. One below the latest is no news: the
    /// start of an epoch that is known already stays.
    pub fn assign(&mut self, epoch: i32, start_offset: i64) -> bool {
        if epoch < 0 || start_offset < 0 || self.latest().is_some_and(|latest| epoch <= latest.epoch) {
            return false;
        }
        // An epoch without a batch gives way to the next one at the same offset.
        self.truncate_end(start_offset);
        self.entries.push(EpochStart { epoch, start_offset });
        true
    }

    /// The latest epoch and where it begins.
    #[must_use]
    pub fn latest(&self) -> Option<EpochStart> {
        self.entries.last().copied()
    }

    /// The epoch of the batch at `offset`.
    #[must_use]
    pub fn epoch_at(&self, offset: i64) -> Option<i32> {
        let above = self.entries.partition_point(|entry| entry.start_offset <= offset);
        above.checked_sub(1).map(|at| self.entries[at].epoch)
    }

    /// The largest epoch at or below `epoch` and where it ends, as OffsetForLeaderEpoch answers; `log_end` is the end of
    /// the latest. `None` if `epoch` is above all that are known, or none is.
    #[must_use]
    pub fn end_offset_for(&self, epoch: i32, log_end: i64) -> Option<(i32, i64)> {
        let latest = self.latest().filter(|latest| epoch >= 0 && epoch <= latest.epoch)?;
        if epoch == latest.epoch {
            return Some((epoch, log_end));
        }
        let above = self.entries.partition_point(|entry| entry.epoch <= epoch);
        let end = self.entries[above].start_offset;
        // Below the first known epoch Kafka answers the asked one itself, ending where the first begins.
        Some((above.checked_sub(1).map_or(epoch, |at| self.entries[at].epoch), end))
    }

    /// The log now ends at `offset`: epochs that begin there or later are gone.
    pub fn truncate_end(&mut self, offset: i64) {
        let keep = self.entries.partition_point(|entry| entry.start_offset < offset);
        self.entries.truncate(keep);
        self.stored = self.stored.min(keep);
    }

    /// The log now starts at `offset`: epochs that end there or earlier are gone, and the first of the others begins there.
    pub fn truncate_start(&mut self, offset: i64) {
        let above = self.entries.partition_point(|entry| entry.start_offset <= offset);
        let Some(at) = above.checked_sub(1) else { return };
        if self.entries[at].start_offset == offset && at == 0 {
            return;
        }
        self.entries.drain(..at);
        self.stored = self.stored.saturating_sub(at);
        self.entries[0].start_offset = offset;
    }

    /// All of them, for `leader-epoch-checkpoint`.
    #[must_use]
    pub fn entries(&self) -> &[EpochStart] {
        &self.entries
    }

    /// The checkpoint file now holds them all.
    pub fn mark_stored(&mut self) {
        self.stored = self.entries.len();
    }

    /// Those that the checkpoint file lacks: a head of the journal carries them.
    #[must_use]
    pub fn unstored(&self) -> &[EpochStart] {
        &self.entries[self.stored..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(entries: &[(i32, i64)]) -> Epochs {
        let mut epochs = Epochs::default();
        entries.iter().for_each(|(epoch, offset)| assert!(epochs.assign(*epoch, *offset)));
        epochs
    }

    #[test]
    fn an_epoch_ends_where_the_next_one_begins() {
        let epochs = of(&[(2, 0), (4, 10), (5, 30)]);
        assert_eq!(epochs.end_offset_for(5, 44), Some((5, 44)));
        assert_eq!(epochs.end_offset_for(4, 44), Some((4, 30)));
        assert_eq!(epochs.end_offset_for(3, 44), Some((2, 10)));
        assert_eq!(epochs.end_offset_for(1, 44), Some((1, 0)));
        assert_eq!(epochs.end_offset_for(6, 44), None);
        assert_eq!(epochs.end_offset_for(-1, 44), None);
        assert_eq!(Epochs::default().end_offset_for(0, 0), None);
        assert_eq!([0, 9, 10, 99].map(|offset| epochs.epoch_at(offset)), [Some(2), Some(2), Some(4), Some(5)]);
    }

    #[test]
    fn known_and_older_epochs_are_no_news() {
        let mut epochs = of(&[(2, 5)]);
        assert!(!epochs.assign(2, 9));
        assert!(!epochs.assign(1, 9));
        assert!(epochs.assign(3, 5));
        assert_eq!(epochs.entries(), [EpochStart { epoch: 3, start_offset: 5 }]);
    }

    #[test]
    fn a_shorter_log_forgets_what_it_lost() {
        let mut epochs = Epochs::stored(of(&[(1, 0), (2, 10), (3, 20)]).entries());
        epochs.truncate_end(20);
        assert_eq!(epochs.latest(), Some(EpochStart { epoch: 2, start_offset: 10 }));
        assert!(epochs.assign(4, 15));
        assert_eq!(epochs.unstored(), [EpochStart { epoch: 4, start_offset: 15 }]);
        epochs.truncate_start(12);
        assert_eq!(epochs.entries(), [EpochStart { epoch: 2, start_offset: 12 }, EpochStart { epoch: 4, start_offset: 15 }]);
        epochs.truncate_start(100);
        assert_eq!(epochs.entries(), [EpochStart { epoch: 4, start_offset: 100 }]);
    }

    proptest! {
        #[test]
        fn entries_rise_whatever_happens(steps in prop::collection::vec((0u8..3, 0i32..20, 0i64..100), 0..60)) {
            let mut epochs = Epochs::default();
            for (what, epoch, offset) in steps {
                match what {
                    0 => { epochs.assign(epoch, offset); }
                    1 => epochs.truncate_end(offset),
                    _ => epochs.truncate_start(offset),
                }
                prop_assert!(epochs.entries().windows(2).all(|pair| pair[0].epoch < pair[1].epoch && pair[0].start_offset < pair[1].start_offset));
                prop_assert!(epochs.unstored().len() <= epochs.entries().len());
            }
        }

        #[test]
        fn the_answer_is_kafkas_for_every_epoch(starts in prop::collection::btree_map(0i32..30, 1i64..5, 1..10), asked in 0i32..32) {
            let mut offset = 0;
            let entries: Vec<(i32, i64)> = starts.iter().map(|(epoch, gap)| { offset += gap; (*epoch, offset) }).collect();
            let epochs = of(&entries);
            let end = offset + 7;
            let higher = entries.iter().find(|entry| entry.0 > asked);
            let floor = entries.iter().rev().find(|entry| entry.0 <= asked);
            let last = entries.last().expect("not empty").0;
            let expected = match (higher, floor) {
                _ if asked == last => Some((asked, end)),
                (None, _) => None,
                (Some(higher), None) => Some((asked, higher.1)),
                (Some(higher), Some(floor)) => Some((floor.0, higher.1)),
            };
            prop_assert_eq!(epochs.end_offset_for(asked, end), expected);
        }
    }
}
