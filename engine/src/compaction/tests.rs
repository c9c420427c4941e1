//! Claims about a whole round, on the simulated disk.

#![allow(clippy::disallowed_types, reason = "proptest's strategies")]

use super::*;
use crate::{
    batch::{BatchBuilder, Codec, Header, Kept, Records, Scanner, control_batch, payload, scan, with_records, without_records},
    disk::{
        read_whole,
        sim::{Executor, SimDisk},
        write_whole,
    },
    ids::PartitionId,
    segment::{FileKind, file_name, swap::cleaned_name},
};
use proptest::prelude::*;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// The clock of all rounds.
const NOW_MS: i64 = 10;
/// More keys than there are.
const KEYS_MAX: usize = 1_000;

/// What a round has made: its groups, each with the bytes of its new segment, and what it has counted.
#[derive(Debug, PartialEq, Eq)]
struct Made {
    groups: Vec<(Group, Vec<u8>)>,
    cleaned: Cleaned,
}

/// Segments with their base offsets, the last of which ends at `end`.
struct Table {
    segments: Vec<(i64, Vec<u8>)>,
    end: i64,
    first_dirty: i64,
    producers: BTreeMap<i64, LastRecord>,
}

impl Table {
    /// All of it, in one segment.
    fn of_one(batches: &[Vec<u8>], end: i64, producers: BTreeMap<i64, LastRecord>) -> Table {
        Table { segments: vec![(0, batches.concat())], end, first_dirty: 0, producers }
    }

    /// A round with memory for so many keys and bytes. The new segments take nobody's place.
    fn clean(&self, keys_max: usize, kept_bytes_max: u64) -> Made {
        let [data, directory] = ["/data", "/data/table-0"].map(PathBuf::from);
        let disk = SimDisk::new(1, &[Path::new("/data"), &directory]);
        let sources = self.segments.iter().map(|(base_offset, log)| Source {
            base_offset: *base_offset,
            bytes: log.len() as u64,
            has_transactions: false,
        });
        let job = Job {
            partition: PartitionId(1),
            directory,
            scratch: data.join(SCRATCH).join("1"),
            segments: sources.collect(),
            end: self.end,
            first_dirty: self.first_dirty,
            later: Vec::new(),
            aborted: Vec::new(),
            producers: self.producers.clone(),
            segment_bytes: 1 << 10,
            delete_retention_ms: 1_000,
            overdue_ms: None,
            now_ms: NOW_MS,
            keys_max,
            kept_bytes_max,
            secret: (1, 2),
            progress: Progress::default(),
        };
        let segments = self.segments.clone();
        Executor::new(&disk, 1).block_on({
            let disk = disk.clone();
            async move {
                for (base, log) in segments {
                    write_whole(&disk, &job.directory.join(file_name(base, FileKind::Log)), &log).await.expect("writes");
                }
                let mut groups = Vec::new();
                let cleaned = job.run(&disk, async |group: Group| {
                    let path = job.scratch.join(cleaned_name(group.bases[0], FileKind::Log));
                    let bytes = read_whole(&disk, &path).await.expect("is there");
                    assert_eq!(bytes.len() as u64, group.bytes);
                    groups.push((group, bytes));
                    Ok(true)
                });
                let cleaned = cleaned.await.expect("runs").expect("it comes to its end");
                Made { groups, cleaned }
            }
        })
    }

    fn bytes(&self) -> u64 {
        self.segments.iter().map(|(_, log)| log.len() as u64).sum()
    }
}

/// The offsets and record counts of the batches in a segment.
fn batches(base: i64, log: &[u8]) -> Vec<(i64, i32)> {
    let mut found = Vec::new();
    let scanned = scan(log, Scanner::new(0, base, i32::MIN), |_, header, _| found.push((header.base_offset(), header.record_count())));
    assert_eq!(scanned.end.position, log.len() as u64, "{:?}", scanned.stop);
    found
}

/// Read forward and backward.
const KEPT: [u64; 2] = [0, KEPT_BYTES_MAX];

#[test]
fn a_batch_that_an_earlier_round_has_emptied_stays_for_its_producer() {
    // The part that is clean already may count as dirty again: its checkpoint is written last.
    let record = |offset| BatchBuilder::new().at(offset, 0).record(1, Some(b"a"), Some(b"x")).build();
    let of_producer = BatchBuilder::new().at(1, 0).producer(7, 0, 3).record(1, Some(b"a"), Some(b"x")).build();
    let emptied = without_records(&Header::read(&of_producer).expect("whole"));
    let producers = BTreeMap::from([(7, LastRecord { epoch: 0, data_offset: Some(1) })]);
    let table = Table::of_one(&[record(0), emptied, record(2)], 3, producers);
    for kept in KEPT {
        let made = table.clean(100, kept);
        let [(_, log)] = &made.groups[..] else { panic!("{made:?}") };
        assert_eq!(batches(0, log), [(1, 0), (2, 1)]);
        assert_eq!(made.cleaned.read_once, if kept == 0 { 0 } else { table.bytes() });
    }
}

#[test]
fn what_cannot_be_read_backward_is_read_forward() {
    let record = |offset, key: Option<&[u8]>| BatchBuilder::new().at(offset, 0).record(1, key, Some(b"x")).build();
    let keys = || (0..3).map(|offset| record(offset, Some(&[offset as u8])));
    let plain = || keys().chain([record(3, Some(b"a")), record(4, Some(b"a"))]);
    let with = |batch| plain().take(4).chain([batch]).collect::<Vec<_>>();
    let marker = with(control_batch(4, 0, (7, 0), true, 1));
    for (batches, keys_max) in [(with(record(4, None)), 100), (marker, 100), (plain().collect(), 2)] {
        let table = Table::of_one(&batches, 5, BTreeMap::new());
        let [forward, backward] = KEPT.map(|kept| table.clean(keys_max, kept));
        assert_eq!(forward, backward);
        assert_eq!(backward.cleaned.read_once, 0);
    }
    let table = Table::of_one(&plain().collect::<Vec<_>>(), 5, BTreeMap::new());
    // No more keys than there are offsets: they fit.
    assert_eq!(table.clean(5, KEPT_BYTES_MAX).cleaned.read_once, table.bytes());
}

#[derive(Clone, Debug)]
struct Wanted {
    codec: Codec,
    producer: Option<i64>,
    /// Until when its tombstones stay, in ms, if an earlier round has met them.
    horizon_ms: Option<i64>,
    /// Keys, and whether there is a value; `None` is an offset without a record.
    records: Vec<Option<(u8, bool)>>,
    closes: bool,
}

fn wanted() -> impl Strategy<Value = Wanted> {
    let codec = prop_oneof![4 => Just(Codec::None), 1 => Just(Codec::Lz4), 1 => Just(Codec::Gzip)];
    let horizon_ms = prop::option::weighted(0.4, prop_oneof![Just(NOW_MS - 1), Just(NOW_MS + 1)]);
    let record = prop::option::weighted(0.9, (0..24u8, prop::bool::weighted(0.8)));
    (codec, prop::option::of(0..3i64), horizon_ms, prop::collection::vec(record, 1..12), prop::bool::weighted(0.3))
        .prop_map(|(codec, producer, horizon_ms, records, closes)| Wanted { codec, producer, horizon_ms, records, closes })
}

fn with_horizon(batch: &[u8], horizon_ms: i64) -> Vec<u8> {
    let header = Header::read(batch).expect("whole");
    let records = payload(&header, batch, 1 << 20).expect("readable");
    let (mut kept, mut at) = (Vec::new(), 0);
    for record in Records::new(&header, &records) {
        let record = record.expect("readable");
        kept.push(Kept { record, bytes: &records[at..at + record.size] });
        at += record.size;
    }
    with_records(&header, &kept, Some(horizon_ms)).expect("compresses")
}

fn table(wanted: &[Wanted], clean_part: f64) -> Table {
    let (mut segments, mut offset, mut producers) = (vec![(0, Vec::new())], 0, BTreeMap::new());
    for Wanted { codec, producer, horizon_ms, records, closes } in wanted {
        let mut batch = BatchBuilder::new().at(offset, 0).codec(*codec);
        if let Some(producer) = producer {
            batch = batch.producer(*producer, 0, offset as i32);
        }
        for record in records {
            batch = match record {
                Some((key, has_value)) => batch.record(1, Some(&[*key]), has_value.then_some(&[*key; 20][..])),
                None => batch.skip(),
            };
        }
        let batch = match horizon_ms {
            Some(horizon_ms) => with_horizon(&batch.build(), *horizon_ms),
            None => batch.build(),
        };
        segments.last_mut().expect("one").1.extend_from_slice(&batch);
        offset = Header::read(&batch).expect("whole").next_offset();
        producers.extend(producer.map(|producer| (producer, LastRecord { epoch: 0, data_offset: Some(offset - 1) })));
        if *closes {
            segments.push((offset, Vec::new()));
        }
    }
    segments.retain(|(_, log)| !log.is_empty());
    Table { segments, end: offset, first_dirty: (offset as f64 * clean_part) as i64, producers }
}

proptest! {
    #[test]
    fn forward_and_backward_make_the_same(
        wanted in prop::collection::vec(wanted(), 1..40),
        clean_part in prop_oneof![Just(0.0), 0.0..1.0f64],
        keys_max in prop_oneof![Just(KEYS_MAX), 1..30usize],
        kept in prop_oneof![Just(KEPT_BYTES_MAX), 1..4_000u64],
    ) {
        let table = table(&wanted, clean_part);
        let mut backward = table.clean(keys_max, kept);
        // All keys may fit in the one order, and not in the other: each batch asks for as much room as if nobody had its keys.
        let forward = table.clean(if backward.cleaned.is_partial { keys_max } else { KEYS_MAX }, 0);
        let read_once = std::mem::take(&mut backward.cleaned.read_once);
        prop_assert_eq!(forward, backward);
        prop_assert!(read_once <= table.bytes());
        if (table.first_dirty, keys_max, kept) == (0, KEYS_MAX, KEPT_BYTES_MAX) {
            prop_assert_eq!(read_once, table.bytes());
        }
    }
}
