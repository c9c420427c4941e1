//! Claims about sealed segments, on the simulated disk.

use super::*;
use crate::{
    batch::{BatchBuilder, Codec, Header, control_batch},
    disk::{
        Disk, Open, Pace,
        sim::{Executor, SimDisk},
        write_whole,
    },
    ids::PartitionId,
};
use proptest::prelude::*;
use std::{
    cell::Cell,
    path::{Path, PathBuf},
};

const BASE: i64 = 1_000;

/// A batch of a test log.
#[derive(Clone, Debug)]
struct Made {
    position: u64,
    header: Header,
    timestamps: Vec<i64>,
}

/// A log of batches: gap before each, its records' timestamps, size of its values, its codec.
fn log(batches: &[(i64, Vec<i64>, usize, Codec)]) -> (Vec<u8>, Vec<Made>) {
    let (mut bytes, mut made, mut offset) = (Vec::new(), Vec::new(), BASE);
    for (gap, timestamps, size, codec) in batches {
        offset += gap;
        let mut builder = BatchBuilder::new().at(offset, 3).codec(*codec);
        timestamps.iter().for_each(|timestamp| builder.push(*timestamp, Some(b"k"), Some(&vec![7; *size]), &[]));
        let batch = builder.build();
        let header = Header::read(&batch).expect("whole");
        made.push(Made { position: bytes.len() as u64, header, timestamps: timestamps.clone() });
        bytes.extend_from_slice(&batch);
        offset = header.next_offset();
    }
    (bytes, made)
}

fn batches() -> impl Strategy<Value = Vec<(i64, Vec<i64>, usize, Codec)>> {
    let codec = (0i16..5).prop_map(|id| Codec::of_id(id).expect("known"));
    prop::collection::vec((0i64..4, prop::collection::vec(0i64..500, 1..5), 1usize..30_000, codec), 1..40)
}

/// What a test does on a disk that holds `files` in a directory.
fn on_disk<T: 'static>(files: &[(String, Vec<u8>)], run: impl AsyncFnOnce(SimDisk, PathBuf) -> T + 'static) -> T {
    on_disk_of(1, files, run)
}

/// The same, on the disk of a seed.
fn on_disk_of<T: 'static>(seed: u64, files: &[(String, Vec<u8>)], run: impl AsyncFnOnce(SimDisk, PathBuf) -> T + 'static) -> T {
    let directory = PathBuf::from("/data/orders-0");
    let disk = SimDisk::new(seed, &[Path::new("/data"), &directory]);
    let files = files.to_vec();
    let mut executor = Executor::new(&disk, seed);
    let disk = disk.clone();
    executor.block_on(async move {
        for (name, bytes) in files {
            write_whole(&disk, &directory.join(name), &bytes).await.expect("written");
        }
        run(disk, directory).await
    })
}

fn log_file(bytes: Vec<u8>) -> (String, Vec<u8>) {
    (file_name(BASE, FileKind::Log), bytes)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn every_offset_and_time_is_found(batches in batches(), bytes_max in 1u64..200_000, limit in 0usize..40, keep_indexes: bool) {
        let (bytes, made) = log(&batches);
        let total = bytes.len() as u64;
        on_disk(&[log_file(bytes)], async move |disk, directory| {
            let mut sealed = Sealed::open(&disk, &directory, BASE).await.expect("opens");
            assert!(sealed.rebuilt);
            if keep_indexes {
                store_indexes(&disk, &directory, &sealed.indexes).await.expect("stored");
                let again = Sealed::open(&disk, &directory, BASE).await.expect("opens");
                assert!(!again.rebuilt);
                assert_eq!((&again.indexes.offsets, &again.indexes.times), (&sealed.indexes.offsets, &sealed.indexes.times));
                sealed = again;
            }
            let end = made.last().expect("not empty").header.next_offset();
            assert_eq!(sealed.next_offset(&disk).await.expect("walks"), end);
            let limit = made.get(limit).map_or(i64::MAX, |batch| batch.header.base_offset());
            for offset in BASE - 1..=end {
                let expected = made.iter().find(|batch| batch.header.last_offset() >= offset);
                let found = sealed.find(&disk, offset).await.expect("walks");
                assert_eq!(found, expected.map(|batch| (batch.position, batch.header)));
                for at_least_one in [false, true] {
                    let range = sealed.range(&disk, offset, bytes_max, at_least_one, limit).await.expect("walks");
                    check_range(&made, total, (offset, bytes_max, at_least_one, limit), range);
                }
            }
            for timestamp in [0, 100, 250, 499, 500] {
                for offset_min in [BASE, (BASE + end) / 2] {
                    let expected = first_at(&made, timestamp, offset_min);
                    assert_eq!(sealed.find_time(&disk, timestamp, offset_min).await.expect("walks"), expected);
                }
            }
            let newest = made.iter().flat_map(|batch| &batch.timestamps).max().copied();
            assert_eq!(sealed.max_timestamp(), newest);
            assert_eq!(sealed.find_newest(&disk).await.expect("walks"), first_at(&made, newest.expect("some"), BASE));
        });
    }
}

fn first_at(made: &[Made], timestamp: i64, offset_min: i64) -> Option<(i64, i64)> {
    let records = made.iter().flat_map(|batch| (batch.header.base_offset()..).zip(&batch.timestamps));
    records.map(|(offset, time)| (*time, offset)).find(|(time, offset)| *time >= timestamp && *offset >= offset_min)
}

fn check_range(made: &[Made], total: u64, (offset, bytes_max, at_least_one, limit): (i64, u64, bool, i64), range: Option<BatchRange>) {
    let Some(first) = made.iter().position(|batch| batch.header.last_offset() >= offset) else {
        return assert_eq!(range, None);
    };
    let range = range.expect("a batch reaches the offset");
    let start = made[first].position;
    let mut bytes = 0;
    for (at, batch) in made[first..].iter().enumerate() {
        let with = batch.position + batch.header.size() as u64 - start;
        if batch.header.last_offset() >= limit || (with > bytes_max && !(at == 0 && at_least_one)) {
            break;
        }
        bytes = with;
    }
    assert_eq!((range.position, range.bytes), (start, bytes));
    let behind = made.iter().find(|batch| batch.position >= start + bytes);
    assert!(behind.is_none_or(|batch| range.next_offset <= batch.header.base_offset()));
    let within = made[first..].iter().take_while(|batch| batch.position < start + bytes);
    assert!(within.last().is_none_or(|batch| range.next_offset > batch.header.last_offset()));
    assert!(start + bytes <= total);
}

#[test]
fn preallocated_and_foreign_indexes_are_rebuilt() {
    let (bytes, _) = log(&(0..40).map(|n| (0, vec![n], 10_000, Codec::None)).collect::<Vec<_>>());
    let mut shifted = OffsetIndex::new(BASE);
    shifted.push(BASE + 9, 70_001);
    for index in [vec![0; 4096], shifted.encode(), vec![1, 2, 3]] {
        let files =
            [log_file(bytes.clone()), (file_name(BASE, FileKind::Index), index), (file_name(BASE, FileKind::TimeIndex), vec![0; 1_200])];
        on_disk(&files, async |disk, directory| {
            let sealed = Sealed::open(&disk, &directory, BASE).await.expect("opens");
            assert!(sealed.rebuilt);
            assert!(sealed.indexes.offsets.entries().len() > 3);
            assert_eq!(sealed.max_timestamp(), Some(39));
        });
    }
}

#[test]
fn a_damaged_txnindex_is_rebuilt_with_what_the_snapshot_knows() {
    let mut bytes = Vec::new();
    for (offset, producer) in [(BASE, 1), (BASE + 1, 2)] {
        let batch = BatchBuilder::new().at(offset, 0).producer(producer, 0, 0).transactional().record(1, None, None);
        bytes.extend_from_slice(&batch.build());
    }
    for (offset, producer, commit) in [(BASE + 2, 3, false), (BASE + 3, 1, false), (BASE + 4, 2, true)] {
        bytes.extend_from_slice(&control_batch(offset, 0, (producer, 0), commit, 1));
    }
    let open = ProducerState {
        producer_id: 3,
        epoch: 0,
        coordinator_epoch: 0,
        last_timestamp: 1,
        transaction_first_offset: BASE - 10,
        batches: Vec::new(),
    };
    let snapshot = (file_name(BASE, FileKind::Snapshot), encode_snapshot(&[open]));
    let damaged = (file_name(BASE, FileKind::TxnIndex), vec![9; TXN_ENTRY_BYTES]);
    on_disk(&[log_file(bytes), snapshot, damaged], async |disk, directory| {
        let sealed = Sealed::open(&disk, &directory, BASE).await.expect("opens");
        let aborted = [
            AbortedTxn { producer_id: 3, first_offset: BASE - 10, last_offset: BASE + 2, last_stable_offset: BASE },
            AbortedTxn { producer_id: 1, first_offset: BASE, last_offset: BASE + 3, last_stable_offset: BASE + 1 },
        ];
        assert_eq!(sealed.indexes.transactions.entries(), aborted);
        store_indexes(&disk, &directory, &sealed.indexes).await.expect("stored");
        let again = Sealed::open(&disk, &directory, BASE).await.expect("opens");
        assert!(!again.rebuilt);
        let mut found = Vec::new();
        assert!(!again.aborted(BASE + 3, BASE + 10, &mut found));
        assert_eq!(found, aborted[1..]);
    });
}

#[test]
fn what_lies_before_the_damage_goes_out_and_who_reaches_it_is_told() {
    let (mut bytes, made) = log(&(0..4).map(|n| (0, vec![n], 100, Codec::None)).collect::<Vec<_>>());
    bytes[made[2].position as usize + 16] = 9;
    let damage = made[2].position;
    on_disk(&[log_file(bytes)], async move |disk, directory| {
        let sealed = Sealed::open(&disk, &directory, BASE).await.expect("opens");
        let range = sealed.range(&disk, BASE, u64::MAX >> 1, true, i64::MAX).await.expect("whole").expect("some");
        assert_eq!((range.position, range.bytes), (0, damage));
        let error = sealed.find(&disk, BASE + 2).await.expect_err("damaged");
        assert!(matches!(error, SegmentError::Corrupt { position, .. } if position == damage), "{error}");
    });
}

#[test]
fn a_batch_whose_offsets_hide_what_lies_below_the_limit_is_damage() {
    let (whole, made) = log(&(0..4).map(|n| (0, vec![n], 100, Codec::None)).collect::<Vec<_>>());
    let at = made[1].position as usize;
    for (field, value) in [(0..8, BASE + 900), (0..8, BASE + (1 << 40)), (23..27, 900)] {
        let mut bytes = whole.clone();
        let value: [u8; 8] = value.to_be_bytes();
        bytes[at + field.start..at + field.end].copy_from_slice(&value[8 - field.len()..]);
        on_disk(&[log_file(bytes)], async move |disk, directory| {
            let sealed = Sealed::open(&disk, &directory, BASE).await.expect("opens");
            let error = sealed.range(&disk, BASE + 1, u64::MAX >> 1, true, BASE + 4).await.expect_err("it is told");
            assert!(matches!(error, SegmentError::Corrupt { .. }), "{error}");
        });
    }
}

#[test]
fn indexes_of_a_damaged_segment_are_not_kept() {
    let (whole, made) = log(&(0..40).map(|n| (0, vec![n], 10_000, Codec::None)).collect::<Vec<_>>());
    let mut damaged = whole.clone();
    damaged[made[20].position as usize + 16] = 9;
    on_disk(&[log_file(damaged)], async move |disk, directory| {
        let open = OpenSegments::new(2);
        let sealed = open.get(&disk, &directory, PartitionId(1), BASE).await.expect("opens");
        assert_eq!((sealed.rebuilt, sealed.max_timestamp()), (false, Some(19)));
        open.remove(PartitionId(1), BASE);
        write_whole(&disk, &directory.join(file_name(BASE, FileKind::Log)), &whole).await.expect("put back");
        let sealed = open.get(&disk, &directory, PartitionId(1), BASE).await.expect("opens");
        assert_eq!((sealed.rebuilt, sealed.max_timestamp()), (true, Some(39)));
    });
}

#[test]
fn the_least_recently_used_segment_is_closed_first() {
    let segments: Vec<_> =
        (0..4).map(|n| (file_name(n, FileKind::Log), BatchBuilder::new().at(n, 0).record(1, None, None).build())).collect();
    on_disk(&segments, async |disk, directory| {
        let open = OpenSegments::new(2);
        let partition = PartitionId(1);
        let held = open.get(&disk, &directory, partition, 0).await.expect("opens");
        for base in [1, 0, 2, 3] {
            open.get(&disk, &directory, partition, base).await.expect("opens");
            assert!(open.len() <= 2);
        }
        assert!(held.find(&disk, 0).await.expect("still readable").is_some());
        assert!(open.get(&disk, &directory, partition, 9).await.is_err());
        open.remove(partition, 3);
        open.remove_partition(partition);
        assert!(open.is_empty());
    });
}

#[test]
fn readers_that_rebuild_the_same_indexes_do_not_write_them_over_each_other() {
    let (bytes, _) = log(&[(0, vec![1, 2], 20_000, Codec::None), (0, vec![3], 20_000, Codec::None)]);
    let files = [log_file(bytes)];
    // The simulated disk panics at two writes in flight to one block.
    for seed in 0..100 {
        on_disk_of(seed, &files, async |disk, directory| {
            let open = OpenSegments::new(2);
            let reads = (0..8).map(|_| open.get(&disk, &directory, PartitionId(1), BASE));
            for read in futures_util::future::join_all(reads).await {
                read.expect("opens");
            }
            assert!(!Sealed::open(&disk, &directory, BASE).await.expect("opens").rebuilt, "one of them has written the indexes");
        });
    }
}

#[test]
fn a_segment_that_is_replaced_while_it_is_opened_is_opened_again() {
    let (old, _) = log(&[(0, vec![1], 20_000, Codec::None)]);
    let (new, _) = log(&[(0, vec![1], 20_000, Codec::None), (0, vec![2], 20_000, Codec::None)]);
    let files = [log_file(old.clone()), ("new".to_owned(), new)];
    for seed in 0..100 {
        let old_bytes = old.len() as u64;
        on_disk_of(seed, &files, async move |disk, directory| {
            let (open, partition) = (OpenSegments::new(2), PartitionId(1));
            let replaced = async {
                disk.rename(&directory.join("new"), &directory.join(file_name(BASE, FileKind::Log))).await.expect("renamed");
                open.unpin(partition, &[BASE]);
            };
            let (opened, ()) = futures_util::future::join(open.get(&disk, &directory, partition, BASE), replaced).await;
            opened.expect("opens");
            let next = open.get(&disk, &directory, partition, BASE).await.expect("opens");
            assert!(next.find(&disk, BASE + 1).await.expect("whole").is_some(), "seed {seed}: {old_bytes} bytes of before are shown");
        });
    }
}

#[test]
fn a_directory_shows_segments_and_leaves_out_what_was_set_aside() {
    let name = |base, kind| file_name(base, kind);
    let empty = |name: String| (name, Vec::new());
    let files = [
        (name(50, FileKind::Log), vec![1; 10]),
        empty(name(0, FileKind::Log)),
        empty(name(0, FileKind::Index)),
        empty(name(50, FileKind::Snapshot)),
        empty(name(60, FileKind::Snapshot)),
        empty(name(20, FileKind::TimeIndex)),
        empty(format!("{}.deleted", name(7, FileKind::Log))),
        empty(format!("{}.swap", name(8, FileKind::Log))),
        empty(LEADER_EPOCH_CHECKPOINT.to_owned()),
    ];
    on_disk(&files, async |disk, directory| {
        let found = PartitionFiles::list(&disk, &directory).await.expect("listed");
        let segments: Vec<_> = found.segments.iter().map(|segment| (segment.base_offset, segment.log_bytes)).collect();
        assert_eq!(segments, [(0, 0), (50, 10)]);
        assert!(found.segments[0].has(FileKind::Index) && !found.segments[1].has(FileKind::Index));
        assert_eq!(found.snapshots, [50, 60]);
        assert_eq!(found.orphans, [file_name(20, FileKind::TimeIndex)]);
        assert_eq!(found.set_aside.len(), 2);
        assert!(found.has_epochs && !found.has_metadata);
        assert_eq!([found.segment_of(49), found.segment_of(50), found.segment_of(-1)], [Some(0), Some(1), None]);
        assert_eq!([found.snapshot_at(49), found.snapshot_at(55)], [None, Some(50)]);
    });
}

#[test]
fn a_walk_ends_where_the_file_does_even_if_it_was_thought_longer() {
    let (bytes, made) = log(&[(0, vec![1], 70_000, Codec::None), (0, vec![2], 70_000, Codec::None)]);
    on_disk(&[log_file(bytes)], async move |disk, directory| {
        let path = directory.join(file_name(BASE, FileKind::Log));
        let file = disk.open(&path, Open::Existing).await.expect("opens");
        disk.truncate(&file, made[1].position + 100).await.expect("cut");
        let reader = disk.open_reader(&path).await.expect("opens");
        let mut walk = Walk::new(&disk, &reader, crate::batch::Scanner::new(0, 0, 0), 1 << 30);
        assert!(walk.next_batch().await.expect("reads").is_ok());
        let stop = walk.next_batch().await.expect("reads").map(|_| ()).expect_err("cut");
        assert!(matches!(stop, crate::batch::Stop::Truncated { left: 100, .. }), "{stop}");
    });
}

/// What a stream finds: positions and bytes, every batch or only those that `wanted` says. It is the same beside producers that come and go.
async fn streamed(
    disk: &SimDisk,
    path: &Path,
    bytes: u64,
    passes: Vec<Pass>,
    wanted: impl Fn(usize) -> bool,
) -> (Vec<(u64, Vec<u8>)>, crate::batch::Stop) {
    let looks = Cell::new(0);
    let comes_and_goes = Pace::gentle_when(move || looks.replace(looks.get() + 1) % 3 > 0);
    let found = streamed_at(Pace::fast(), (disk, path), bytes, passes.clone(), &wanted).await;
    let beside_producers = streamed_at(comes_and_goes, (disk, path), bytes, passes, &wanted).await;
    assert_eq!(format!("{:?}", found.1), format!("{:?}", beside_producers.1));
    assert!(found.0 == beside_producers.0, "other batches");
    found
}

async fn streamed_at(
    pace: Pace,
    (disk, path): (&SimDisk, &Path),
    bytes: u64,
    passes: Vec<Pass>,
    wanted: &impl Fn(usize) -> bool,
) -> (Vec<(u64, Vec<u8>)>, crate::batch::Stop) {
    let mut stream = BatchStream::open(disk, path, BASE, bytes, passes).await.expect("opens").paced(pace);
    let mut found = Vec::new();
    for index in 0.. {
        let header = match stream.next_header().await.expect("reads") {
            Ok(header) => header,
            Err(stop) => return (found, stop),
        };
        if wanted(index) {
            match stream.batch(&header).await.expect("reads") {
                Ok(batch) => {
                    let batch = batch.to_vec();
                    found.push((stream.position() - batch.len() as u64, batch));
                }
                Err(stop) => return (found, stop),
            }
        }
    }
    unreachable!("it has no end")
}

#[test]
fn a_stream_finds_every_batch_of_a_segment_also_across_windows() {
    // Windows of 4 MiB: batches that lie across one end, across two, and that end on one; and small ones between.
    let sizes = [3 << 20, 900, (1 << 20) + 4_000, 10 << 20, 17, 70_000, 5 << 20, 1];
    let mut batches: Vec<_> = sizes.iter().map(|size| (1, vec![1], *size, Codec::None)).collect();
    let to_the_end = (24 << 20) - log(&batches).0.len() % (4 << 20);
    batches.push((0, vec![1], to_the_end - 80, Codec::None));
    batches.push((0, vec![1], 40, Codec::None));
    let (bytes, made) = log(&batches);
    on_disk(&[log_file(bytes.clone())], async move |disk, directory| {
        let path = directory.join(file_name(BASE, FileKind::Log));
        for step in [1, 2, 3] {
            let (found, stop) = streamed(&disk, &path, bytes.len() as u64, Vec::new(), |index| index % step == 0).await;
            assert_eq!(stop, crate::batch::Stop::End);
            let expected: Vec<_> = made.iter().step_by(step).map(|made| (made.position, made.header.size())).collect();
            assert_eq!(found.iter().map(|(at, batch)| (*at, batch.len())).collect::<Vec<_>>(), expected);
            assert!(found.iter().all(|(at, batch)| bytes[*at as usize..][..batch.len()] == batch[..]));
        }
    });
}

#[test]
fn a_stream_ends_at_damage_and_where_the_file_does() {
    let (mut bytes, made) = log(&[(0, vec![1], 6 << 20, Codec::None), (0, vec![2], 70_000, Codec::None), (0, vec![3], 9, Codec::None)]);
    let cut = made[1].position + 100;
    on_disk(&[log_file(bytes.clone())], async move |disk, directory| {
        let path = directory.join(file_name(BASE, FileKind::Log));
        let file = disk.open(&path, Open::Existing).await.expect("opens");
        disk.truncate(&file, cut).await.expect("cut");
        let (found, stop) = streamed(&disk, &path, 1 << 30, Vec::new(), |_| true).await;
        assert_eq!(found.len(), 1);
        assert!(matches!(stop, crate::batch::Stop::Truncated { left: 100, .. }), "{stop}");
    });
    bytes[made[1].position as usize + 5_000] ^= 1;
    on_disk(&[log_file(bytes.clone())], async move |disk, directory| {
        let path = directory.join(file_name(BASE, FileKind::Log));
        let (found, stop) = streamed(&disk, &path, bytes.len() as u64, Vec::new(), |_| true).await;
        assert_eq!(found.len(), 1);
        assert!(matches!(stop, crate::batch::Stop::Crc { .. }), "{stop}");
        assert_eq!(
            streamed(&disk, &path, bytes.len() as u64, Vec::new(), |index| index != 1).await.0.len(),
            2,
            "what nobody wants is not looked at"
        );
    });
}

#[test]
fn a_stream_passes_over_what_nobody_needs() {
    let batches: Vec<_> = (0..60).map(|at| (1, vec![at], 700_000, Codec::None)).collect();
    let (bytes, made) = log(&batches);
    on_disk(&[log_file(bytes.clone())], async move |disk, directory| {
        let path = directory.join(file_name(BASE, FileKind::Log));
        // From the first batch on, one right behind the other, within a window, over many of them, and up to the end.
        for ranges in [&[(0, 1)][..], &[(0, 30), (31, 32)], &[(2, 4), (5, 25), (26, 59)], &[(1, 60)], &[(0, 60)]] {
            let end = made[59].position + made[59].header.size() as u64;
            let at = |index: usize| {
                made.get(index).map_or((end, made[59].header.next_offset()), |made| (made.position, made.header.base_offset()))
            };
            let pass = |(from, to): &(usize, usize)| Pass { from: at(*from).0, to: at(*to).0, next_offset: at(*to).1 };
            let passes: Vec<Pass> = ranges.iter().map(pass).collect();
            let (found, stop) = streamed(&disk, &path, bytes.len() as u64, passes, |_| true).await;
            assert_eq!(stop, crate::batch::Stop::End);
            let left = (0..60).filter(|index| !ranges.iter().any(|(from, to)| (*from..*to).contains(index)));
            let expected: Vec<_> = left.map(|index| made[index].position).collect();
            assert_eq!(found.iter().map(|(at, _)| *at).collect::<Vec<_>>(), expected, "{ranges:?}");
            assert!(found.iter().all(|(at, batch)| bytes[*at as usize..][..batch.len()] == batch[..]));
        }
    });
}
