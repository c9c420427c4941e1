//! What stays of one batch (Kafka: `Cleaner.cleanInto`, `MemoryRecords.filterTo`). Pure: a batch comes in, a verdict goes out.

use super::{job::LastRecord, key_map::KeyMap, transactions::Transactions};
use crate::{
    batch::{ControlRecord, DECOMPRESSED_BYTES_MAX, HEADER_BYTES, Header, Kept, Record, Records, payload, with_records, without_records},
    segment::AbortedTxn,
};
use std::{collections::BTreeMap, ops::AddAssign};

/// What the round knows besides the batch.
#[derive(Clone, Copy)]
pub(super) struct Filter<'a> {
    /// Keys of the dirty part.
    pub keys: &'a KeyMap,
    /// Their last offsets, in order: of the dirty part these records stay.
    pub live: &'a [i64],
    /// Each record of the dirty part has a key, and an offset within its batch.
    pub is_regular: bool,
    /// The last offsets of the producers that the partition remembers, in order.
    pub last_of_producers: &'a [i64],
    /// Where the dirty part begins.
    pub first_dirty: i64,
    /// The offset behind the dirty part that `keys` knows: what is at or above it stays.
    pub end_offset: i64,
    /// The offset behind everything that this round could clean: the batch that ends there stays, emptied if need be.
    pub round_end: i64,
    /// The producers that the partition remembers.
    pub producers: &'a BTreeMap<i64, LastRecord>,
    /// The clock, in ms.
    pub now_ms: i64,
    /// `delete.retention.ms`.
    pub delete_retention_ms: i64,
}

/// Why records went, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gone {
    /// A later record has their key.
    pub superseded: u64,
    /// Tombstones whose time had passed.
    pub tombstones: u64,
    /// Records without a key.
    pub keyless: u64,
    /// Records of aborted transactions.
    pub aborted: u64,
    /// Markers of transactions of which nothing is left.
    pub markers: u64,
}

impl Gone {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.superseded + self.tombstones + self.keyless + self.aborted + self.markers
    }
}

impl AddAssign for Gone {
    fn add_assign(&mut self, more: Gone) {
        self.superseded += more.superseded;
        self.tombstones += more.tombstones;
        self.keyless += more.keyless;
        self.aborted += more.aborted;
        self.markers += more.markers;
    }
}

/// What becomes of a record.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Stays,
    Superseded,
    Tombstone,
    Keyless,
}

/// What becomes of a batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It stays as it is.
    Same,
    /// This takes its place.
    Rewritten(Vec<u8>),
    /// It goes.
    Gone,
}

impl Filter<'_> {
    /// True if no record of a batch can stay, which the offsets alone say: nobody has to look at its records. One that has none any
    /// more is not meant.
    pub fn is_superseded(&self, header: &Header) -> bool {
        let (first, last) = (header.base_offset(), header.last_offset());
        let is_known = self.is_regular && first >= self.first_dirty && last < self.end_offset && !header.is_control();
        is_known && header.record_count() > 0 && !has_any(self.live, first, last + 1)
    }

    /// True if nothing at all is left of the batches with offsets from `first` up to `next`, if they are of the dirty part and none
    /// of them is transactional.
    pub fn leaves_nothing_of(&self, first: i64, next: i64) -> bool {
        let is_known = self.is_regular && first >= self.first_dirty && next <= self.end_offset && next < self.round_end;
        is_known && !has_any(self.live, first, next) && !has_any(self.last_of_producers, first, next)
    }

    /// Judges one batch; batches come in the order of the log. One that [`Filter::is_superseded`] comes without its bytes. Also
    /// returns the aborted transaction whose marker this is, if it is still needed. `gone` counts the records that go.
    ///
    /// # Errors
    /// What is wrong with its records.
    pub fn judge(
        &self,
        header: &Header,
        batch: Option<&[u8]>,
        transactions: &mut Transactions,
        gone: &mut Gone,
    ) -> Result<(Outcome, Option<AbortedTxn>), String> {
        let is_control = header.is_control();
        let (discard, is_idle_marker, aborted) = if is_control {
            let marker = transactions.marker(header, batch.and_then(|batch| ControlRecord::of_batch(header, batch)));
            let had_its_time = header.delete_horizon().is_some_and(|horizon| horizon <= self.now_ms);
            (marker.is_idle && had_its_time, marker.is_idle, marker.aborted)
        } else {
            (transactions.is_aborted(header), false, None)
        };
        let Some(batch) = batch.filter(|_| !discard) else {
            let count = match (discard, is_control) {
                (true, true) => &mut gone.markers,
                (true, false) => &mut gone.aborted,
                (false, _) => &mut gone.superseded,
            };
            *count += header.record_count().max(0) as u64;
            return Ok((self.without_records(header), aborted));
        };
        let records = payload(header, batch, DECOMPRESSED_BYTES_MAX).map_err(|error| error.to_string())?;
        Ok((self.judge_records(header, (&records, Records::new(header, &records)), is_idle_marker, gone)?, aborted))
    }

    /// Judges what is left of a batch of data when some of its records are known to go: so many records, decompressed. `gone` counts those of
    /// them that go.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn judge_part(&self, header: &Header, records: &[u8], count: usize, gone: &mut Gone) -> Result<Outcome, String> {
        self.judge_records(header, (records, Records::of_part(count, records)), false, gone)
    }

    fn judge_records(
        &self,
        header: &Header,
        (bytes_of_all, records): (&[u8], Records<'_>),
        is_idle_marker: bool,
        gone: &mut Gone,
    ) -> Result<Outcome, String> {
        let is_control = header.is_control();
        let (mut kept, mut has_tombstone, mut at) = (Vec::new(), false, 0);
        for record in records {
            let record = record.map_err(|error| error.to_string())?;
            let bytes = &bytes_of_all[at..at + record.size];
            at += record.size;
            match if is_control { Fate::Stays } else { self.fate(header, &record) } {
                Fate::Stays => {
                    has_tombstone |= record.value.is_none();
                    kept.push(Kept { record, bytes });
                }
                Fate::Superseded => gone.superseded += 1,
                Fate::Tombstone => gone.tombstones += 1,
                Fate::Keyless => gone.keyless += 1,
            }
        }
        if kept.is_empty() {
            return Ok(self.without_records(header));
        }
        let needs_horizon = (has_tombstone || is_idle_marker) && header.delete_horizon().is_none();
        if kept.len() == header.record_count().max(0) as usize && !needs_horizon {
            return Ok(Outcome::Same);
        }
        let horizon = needs_horizon.then(|| self.now_ms.saturating_add(self.delete_retention_ms));
        let batch = with_records(header, &kept, horizon).map_err(|error| error.to_string())?;
        Ok(Outcome::Rewritten(batch))
    }

    fn without_records(&self, header: &Header) -> Outcome {
        if stays_empty(header, self.producers, self.round_end) { emptied(header) } else { Outcome::Gone }
    }

    fn fate(&self, header: &Header, record: &Record<'_>) -> Fate {
        let offset = record.offset(header);
        if offset >= self.end_offset {
            return Fate::Stays;
        }
        // A record without a key has no place in a compacted log; a topic that was not compacted before may hold some.
        let Some(key) = record.key else { return Fate::Keyless };
        let is_last = if offset < self.first_dirty { self.keys.get(key).is_none() } else { self.live.binary_search(&offset).is_ok() };
        if !is_last {
            return Fate::Superseded;
        }
        let may_be_tombstone = || header.delete_horizon().is_none_or(|horizon| self.now_ms < horizon);
        if record.value.is_some() || may_be_tombstone() { Fate::Stays } else { Fate::Tombstone }
    }
}

/// True if a batch stays even without a record: the last one of a producer that the partition remembers, and of the round.
pub(super) fn stays_empty(header: &Header, producers: &BTreeMap<i64, LastRecord>, round_end: i64) -> bool {
    if header.next_offset() == round_end {
        return true;
    }
    let Some(last) = producers.get(&header.producer_id()).filter(|_| header.has_producer()) else { return false };
    match last.data_offset {
        Some(offset) => header.last_offset() == offset,
        // Only its epoch is known, by a marker.
        None => header.is_control() && header.producer_epoch() == last.epoch,
    }
}

/// True if one of these offsets, which are in order, is in `first..next`.
fn has_any(offsets: &[i64], first: i64, next: i64) -> bool {
    offsets.get(offsets.partition_point(|offset| *offset < first)).is_some_and(|offset| *offset < next)
}

fn emptied(header: &Header) -> Outcome {
    if header.record_count() == 0 && header.size() == HEADER_BYTES {
        return Outcome::Same;
    }
    Outcome::Rewritten(without_records(header))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchBuilder, control_batch};

    fn judge(filter: &Filter<'_>, batch: &[u8], transactions: &mut Transactions) -> Option<(Header, Vec<i64>)> {
        let header = Header::read(batch).expect("whole");
        let batch = match filter.judge(&header, Some(batch), transactions, &mut Gone::default()).expect("readable").0 {
            Outcome::Same => batch.to_vec(),
            Outcome::Rewritten(batch) => batch,
            Outcome::Gone => return None,
        };
        let header = Header::read(&batch).expect("whole");
        let records = payload(&header, &batch, 1 << 20).expect("readable");
        let offsets = Records::new(&header, &records).map(|record| record.expect("readable").offset(&header)).collect();
        Some((header, offsets))
    }

    fn keys(known: &[(&[u8], i64)]) -> (KeyMap, Vec<i64>) {
        let mut keys = KeyMap::new(10, (0, 0));
        known.iter().for_each(|(key, offset)| keys.put(key, *offset));
        let live = keys.last_offsets();
        (keys, live)
    }

    fn filter<'a>((keys, live): &'a (KeyMap, Vec<i64>), producers: &'a BTreeMap<i64, LastRecord>, now_ms: i64) -> Filter<'a> {
        Filter {
            keys,
            live,
            is_regular: true,
            last_of_producers: &[],
            first_dirty: 0,
            end_offset: 100,
            round_end: 100,
            producers,
            now_ms,
            delete_retention_ms: 50,
        }
    }

    #[test]
    fn only_the_last_record_of_a_key_stays_and_what_is_not_clean_yet() {
        let (keys, producers) = (keys(&[(b"a", 12), (b"b", 11)]), BTreeMap::new());
        let filter = Filter { end_offset: 14, is_regular: false, ..filter(&keys, &producers, 0) };
        let batch = BatchBuilder::new()
            .at(10, 0)
            .record(1, Some(b"a"), Some(b"old"))
            .record(1, Some(b"b"), Some(b"last"))
            .record(1, Some(b"a"), Some(b"last"))
            .record(1, None, Some(b"without a key"))
            .record(1, Some(b"a"), Some(b"behind the end"))
            .build();
        let (header, offsets) = judge(&filter, &batch, &mut Transactions::default()).expect("stays");
        assert_eq!((offsets, header.base_offset(), header.last_offset()), (vec![11, 12, 14], 10, 14));
    }

    #[test]
    fn of_the_part_that_is_clean_what_the_dirty_part_has_no_key_of_stays() {
        let (keys, producers) = (keys(&[(b"a", 20), (b"b", 21)]), BTreeMap::new());
        let filter = Filter { first_dirty: 15, ..filter(&keys, &producers, 0) };
        let batch = |offset| BatchBuilder::new().at(offset, 0).record(1, Some(b"a"), Some(b"x")).record(1, Some(b"c"), Some(b"y")).build();
        assert_eq!(judge(&filter, &batch(10), &mut Transactions::default()).expect("stays").1, [11]);
        // The dirty part was looked at: what is not the last of its key there goes, and the offsets say so.
        for (first, is_superseded) in [(10, false), (15, true), (18, true), (19, false), (21, false), (22, true), (99, false)] {
            let header = Header::read(&batch(first)).expect("whole");
            assert_eq!(filter.is_superseded(&header), is_superseded, "{first}");
            assert!(!Filter { is_regular: false, ..filter }.is_superseded(&header));
        }
    }

    #[test]
    fn a_tombstone_stays_until_the_horizon_that_its_first_cleaning_set() {
        let (keys, producers) = (keys(&[(b"a", 10)]), BTreeMap::new());
        let batch = BatchBuilder::new().at(10, 0).record(1, Some(b"a"), None).build();
        let first = filter(&keys, &producers, 1_000);
        let header = Header::read(&batch).expect("whole");
        let (outcome, _) = first.judge(&header, Some(&batch), &mut Transactions::default(), &mut Gone::default()).expect("readable");
        let Outcome::Rewritten(batch) = outcome else { panic!("{outcome:?}") };
        assert_eq!(Header::read(&batch).expect("whole").delete_horizon(), Some(1_050));
        for (now_ms, stays) in [(1_049, true), (1_050, false)] {
            assert_eq!(judge(&filter(&keys, &producers, now_ms), &batch, &mut Transactions::default()).is_some(), stays);
        }
    }

    #[test]
    fn the_last_batch_of_a_producer_and_of_the_round_stays_if_only_its_header() {
        let keys = keys(&[(b"a", 99)]);
        let producers = BTreeMap::from([(7, LastRecord { epoch: 0, data_offset: Some(10) })]);
        let filter = filter(&keys, &producers, 0);
        let batch = |offset, producer| BatchBuilder::new().at(offset, 0).producer(producer, 0, 3).record(1, Some(b"a"), Some(b"x")).build();
        let (header, offsets) = judge(&filter, &batch(10, 7), &mut Transactions::default()).expect("stays");
        assert_eq!((offsets.len(), header.last_sequence(), header.producer_id()), (0, 3, 7));
        assert!(judge(&filter, &batch(11, 7), &mut Transactions::default()).is_none());
        assert!(judge(&filter, &batch(10, 8), &mut Transactions::default()).is_none());
        let last = BatchBuilder::new().at(98, 0).record(1, Some(b"a"), Some(b"x")).skip().build();
        assert_eq!(judge(&filter, &last, &mut Transactions::default()).expect("stays").1, Vec::<i64>::new());
    }

    #[test]
    fn data_of_an_aborted_transaction_goes_at_once_and_its_marker_when_it_had_its_time() {
        let (keys, producers) = (keys(&[]), BTreeMap::new());
        let aborted = AbortedTxn { producer_id: 7, first_offset: 10, last_offset: 11, last_stable_offset: 12 };
        let data = BatchBuilder::new().at(10, 0).producer(7, 0, 0).transactional().record(1, Some(b"a"), Some(b"x")).build();
        let marker = control_batch(11, 0, (7, 0), false, 1);
        let mut transactions = Transactions::new(vec![aborted]);
        assert!(judge(&filter(&keys, &producers, 0), &data, &mut transactions).is_none());
        let header = Header::read(&marker).expect("whole");
        let verdict =
            filter(&keys, &producers, 0).judge(&header, Some(&marker), &mut transactions, &mut Gone::default()).expect("readable");
        assert_eq!(verdict, (Outcome::Same, Some(aborted)));
        // The next round finds no data: the marker gets its horizon, and goes with the round after that.
        let (outcome, _) = filter(&keys, &producers, 0)
            .judge(&header, Some(&marker), &mut Transactions::default(), &mut Gone::default())
            .expect("readable");
        let Outcome::Rewritten(marker) = outcome else { panic!("{outcome:?}") };
        assert!(judge(&filter(&keys, &producers, 49), &marker, &mut Transactions::default()).is_some());
        assert!(judge(&filter(&keys, &producers, 50), &marker, &mut Transactions::default()).is_none());
    }
}
