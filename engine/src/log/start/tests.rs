//! Starts on the simulated disk, the journal written by hand as a core would.

use super::*;
use crate::{
    batch::{BatchBuilder, control_batch},
    disk::{
        Chunk, Open,
        sim::{Executor, SimDisk},
    },
    journal::{Item, JournalWriter},
    log::{CoreStart, Log},
    partition::directory::log_path,
    segment::{FileKind, NO_TRANSACTION, ProducerState, SequencedBatch, TxnIndex, encode_metadata, encode_snapshot, file_name},
};
use std::{collections::BTreeSet, path::PathBuf};
use uuid::Uuid;

fn disk() -> SimDisk {
    SimDisk::new(3, &[Path::new("/data")])
}

fn run<T: 'static>(disk: &SimDisk, program: impl Future<Output = T> + 'static) -> T {
    let mut executor = Executor::new(disk, 11);
    let result = executor.block_on(program);
    drop(executor);
    disk.kill();
    result
}

fn config() -> LogConfig {
    LogConfig { data_dir: "/data".into(), journal_dir: "/data/journal".into(), journal_bytes: 1 << 20, ..LogConfig::default() }
}

fn spec(id: u32, core: usize) -> PartitionSpec {
    PartitionSpec {
        id: PartitionId(id),
        topic_id: Uuid::from_u128(u128::from(id) + 100),
        directory: PathBuf::from(format!("t-{id}")),
        core,
        leader_epoch: 0,
        internal: false,
        config: PartitionConfig::default(),
    }
}

async fn start(disk: &SimDisk, cores: usize, specs: Vec<PartitionSpec>, random: u64) -> Result<Vec<CoreStart>, LogError> {
    Start::read(disk, &config(), random).await?.finish(cores, specs, 0).await
}

fn batch(offset: i64, epoch: i32, value: &[u8]) -> Vec<u8> {
    BatchBuilder::new().at(offset, epoch).producer(7, 0, offset as i32).record(1_000 + offset, Some(b"k"), Some(value)).build()
}

fn entry(id: u32, position: u32, bytes: &[u8]) -> Item {
    let bytes = if bytes.is_empty() { Vec::new() } else { vec![Chunk::padded(bytes).sub(0, bytes.len())] };
    Item::Bytes { partition: PartitionId(id), segment_base: 0, position, bytes }
}

async fn writer(disk: &SimDisk, core: &CoreStart) -> JournalWriter<SimDisk> {
    JournalWriter::open(disk.clone(), &core.config.journal_dir, core.journal).await.expect("opens")
}

/// What a start found of partition `id`: log end, and the segment's bytes below the tail with the tail behind them.
async fn image(disk: &SimDisk, cores: &[CoreStart], id: u32) -> (i64, Vec<u8>) {
    let recovered = cores.iter().flat_map(|core| &core.partitions).find(|found| found.spec.id.0 == id).expect("owned");
    let scanned = recovered.scanned.as_ref().expect("scanned");
    let path = log_path(&Path::new("/data").join(&recovered.spec.directory), recovered.line.segment_base);
    let mut bytes = read_whole(disk, &path).await.expect("reads");
    bytes.truncate((recovered.line.flushed / 4096 * 4096) as usize);
    bytes.extend(&scanned.tail);
    assert_eq!(bytes.len(), scanned.end_position as usize);
    (scanned.log_end, bytes)
}

#[test]
fn the_first_start_creates_everything_and_the_second_finds_it() {
    let disk = disk();
    let program = {
        let disk = disk.clone();
        async move {
            let first = start(&disk, 2, vec![spec(1, 0), spec(2, 1)], 9).await.expect("starts");
            assert_eq!(first.iter().map(|core| core.partitions.len()).collect::<Vec<_>>(), [2, 1]);
            assert_eq!(first[0].leader_epoch, 1);
            first[1].journal.start
        }
    };
    assert_eq!(run(&disk, program), 1);
    disk.crash();
    let again = disk.clone();
    run(&disk, async move {
        let second = start(&again, 2, vec![spec(1, 0), spec(2, 1)], 10).await.expect("starts");
        assert_eq!((second[0].leader_epoch, second[0].journal.start), (2, 2));
        assert!(second.iter().flat_map(|core| &core.partitions).skip(1).all(|found| found.scanned.is_none()));
    });
}

#[test]
fn journaled_batches_survive_crashes_and_changed_core_counts() {
    let disk = disk();
    let mut expected = Vec::new();
    let mut end = 0;
    for (life, cores) in [2usize, 1, 3, 2, 2].into_iter().enumerate() {
        let (mut bytes, from, owner) = (expected.clone(), end, 3 % cores);
        let program = {
            let disk = disk.clone();
            async move {
                let started = start(&disk, cores, vec![spec(1, 0), spec(3, owner)], life as u64).await.expect("starts");
                if life > 0 {
                    let found = image(&disk, &started, 3).await;
                    assert_eq!(found, (from, bytes.clone()), "life {life}");
                }
                let mut writer = writer(&disk, &started[owner]).await;
                let mut next = from;
                for _ in 0..3 {
                    let added = batch(next, started[0].leader_epoch, &vec![life as u8; 3_000]);
                    writer.frame(&[entry(3, bytes.len() as u32, &added)]).await.expect("frame");
                    bytes.extend(added);
                    next += 1;
                }
                (bytes, next)
            }
        };
        (expected, end) = run(&disk, program);
        disk.crash();
    }
}

#[test]
fn what_a_start_found_in_the_segment_between_bytes_of_the_journal_is_vouched_for() {
    let disk = disk();
    let (first, second) = (batch(0, 1, b"in the journal only"), batch(1, 1, &[5; 20_000]));
    let whole = [first, second].concat();
    let program = {
        let (disk, whole) = (disk.clone(), whole.clone());
        async move {
            let started = start(&disk, 1, vec![spec(1, 0)], 1).await.expect("starts");
            let mut writer = writer(&disk, &started[0]).await;
            // A run whose end is in a frame, and of which the crash left all but its first block.
            let block = BLOCK as usize;
            let floor = whole.len() / block * block;
            writer.frame(&[entry(1, 0, &whole[..block])]).await.expect("frame");
            writer.frame(&[entry(1, floor as u32, &whole[floor..])]).await.expect("frame");
            let path = log_path(Path::new("/data/t-1"), 0);
            let file = disk.open(&path, Open::Existing).await.expect("opens");
            disk.write(&file, BLOCK, vec![Chunk::padded(&whole[block..])]).await.expect("writes");

            let started = start(&disk, 1, vec![spec(1, 0)], 2).await.expect("starts");
            assert_eq!(image(&disk, &started, 1).await, (2, whole.clone()));
            // It was served since.
            disk.rot(&path, |bytes| bytes[2 * block] ^= 1);
            for random in 3..5 {
                let started = start(&disk, 1, vec![spec(1, 0)], random).await.expect("starts");
                let damage = started[0].partitions[1].damage.as_ref().expect("is told");
                assert!(damage.what.contains("no batch at byte "), "{}", damage.what);
            }
            disk.rot(&path, |bytes| bytes[2 * block] ^= 1);
            let started = start(&disk, 1, vec![spec(1, 0)], 5).await.expect("starts");
            assert_eq!(image(&disk, &started, 1).await, (2, whole));
        }
    };
    run(&disk, program);
}

#[test]
fn what_is_beyond_a_gap_is_cut_and_never_comes_back() {
    let disk = disk();
    let program = {
        let disk = disk.clone();
        async move {
            let started = start(&disk, 1, vec![spec(1, 0)], 1).await.expect("starts");
            let mut writer = writer(&disk, &started[0]).await;
            let parts: Vec<_> = (0..3).map(|offset| batch(offset, 1, &[5; 6_000])).collect();
            let position = |at: usize| (parts[0].len() * at) as u32;
            // Batch 1 was on its way to the segment, and did not arrive; batch 2 did.
            writer.frame(&[entry(1, 0, &parts[0]), entry(1, position(2), &parts[2])]).await.expect("frame");
            parts
        }
    };
    let parts = run(&disk, program);
    disk.crash();
    for life in 2..4 {
        let program = {
            let (disk, first) = (disk.clone(), parts[0].clone());
            async move {
                let started = start(&disk, 1, vec![spec(1, 0)], life).await.expect("starts");
                assert_eq!(image(&disk, &started, 1).await, (1, first));
                let found = &started[0].partitions[1];
                assert_eq!(found.producers.len(), 1);
                assert_eq!(found.producers[0].batches.len(), 1, "the batch beyond the gap is not known to its producer");
                assert_eq!(found.epochs, [EpochStart { epoch: 1, start_offset: 0 }]);
            }
        };
        run(&disk, program);
        disk.crash();
    }
}

#[test]
fn a_directory_of_a_deleted_topic_gives_nothing_to_a_new_one() {
    let disk = disk();
    let program = {
        let disk = disk.clone();
        async move {
            let started = start(&disk, 1, vec![spec(1, 0)], 1).await.expect("starts");
            let mut writer = writer(&disk, &started[0]).await;
            writer.frame(&[entry(1, 0, &batch(0, 1, b"old"))]).await.expect("frame");
            let file = disk.open(&log_path(Path::new("/data/t-1"), 0), Open::Existing).await.expect("opens");
            disk.write(&file, 0, vec![Chunk::padded(&batch(0, 1, b"old"))]).await.expect("writes");
            disk.sync(&file).await.expect("flushes");
            let again = PartitionSpec { id: PartitionId(2), directory: "t-1".into(), ..spec(2, 0) };
            let started = start(&disk, 1, vec![again], 2).await.expect("starts");
            let found = &started[0].partitions[1];
            assert_eq!((found.scanned.clone(), found.line.flushed), (None, 0));
            assert_eq!(disk.peek(&log_path(Path::new("/data/t-1"), 0)).map(|bytes| bytes.len()), Some(0));
            // And with no topic of that name at all, the directory goes.
            start(&disk, 1, Vec::new(), 3).await.expect("starts");
            assert!(disk.peek(&log_path(Path::new("/data/t-1"), 0)).is_none());
        }
    };
    run(&disk, program);
}

#[test]
fn a_directory_of_a_kafka_is_found_and_taken_over() {
    let disk = disk();
    let program = {
        let disk = disk.clone();
        async move {
            let id = Uuid::from_u128(4_711);
            for name in ["/data/orders-3", "/data/orders-4.0123-stray", "/data/__cluster_metadata-0"] {
                disk.create_dir(Path::new(name)).await.expect("creates");
                let metadata = crate::segment::encode_metadata(id);
                write_whole(&disk, &Path::new(name).join("partition.metadata"), metadata.as_bytes()).await.expect("writes");
            }
            let dir = Path::new("/data/orders-3");
            let first: Vec<u8> = (10..20).flat_map(|offset| batch(offset, 4, b"sealed")).collect();
            let mut last: Vec<u8> = (20..23).flat_map(|offset| batch(offset, 5, &[1; 4_000])).collect();
            write_whole(&disk, &log_path(dir, 10), &first).await.expect("writes");
            let whole = last.clone();
            last.extend_from_slice(&batch(23, 5, b"torn")[..40]);
            write_whole(&disk, &log_path(dir, 20), &last).await.expect("writes");

            let started = Start::read(&disk, &config(), 1).await.expect("reads");
            let foreign = find_foreign(&disk, Path::new("/data"), &BTreeSet::new()).await.expect("lists");
            assert_eq!(
                foreign.iter().map(|found| (found.topic.as_str(), found.partition, found.topic_id)).collect::<Vec<_>>(),
                [("orders", 3, id)]
            );
            let spec = PartitionSpec { topic_id: id, directory: foreign[0].directory.clone(), ..spec(1, 0) };
            let started = started.finish(1, vec![spec.clone()], 0).await.expect("starts");
            assert_eq!(image(&disk, &started, 1).await, (23, whole.clone()));
            assert_eq!((started[0].partitions[1].line.log_start, started[0].leader_epoch, started[0].highest_producer_id), (10, 6, 7));
            assert!(disk.peek(&dir.join("00000000000000000010.index")).is_some(), "the missing index was rebuilt");

            let started = start(&disk, 1, vec![spec.clone()], 2).await.expect("starts");
            assert_eq!(image(&disk, &started, 1).await, (23, whole));
            let known: BTreeSet<_> = [spec.directory].into();
            assert_eq!(find_foreign(&disk, Path::new("/data"), &known).await.expect("lists"), []);
        }
    };
    run(&disk, program);
}

#[test]
fn transactions_that_a_kafka_left_open_are_ended_by_the_start_that_takes_them_over() {
    let disk = disk();
    let program = {
        let disk = disk.clone();
        async move {
            let data = |offset: i64, producer: i64| {
                let batch = BatchBuilder::new().at(offset, 5).producer(producer, 3, 0).transactional();
                batch.record(1_000 + offset, Some(b"k"), Some(b"v")).build()
            };
            let abort = |offset: i64, producer: i64, time_ms: i64| control_batch(offset, 6, (producer, 3), false, time_ms);
            let (dir, spec) = (Path::new("/data/t-1"), spec(1, 0));
            let log = [data(0, 9), data(1, 8), control_batch(2, 5, (8, 3), true, 1_002), data(3, 7)].concat();
            disk.create_dir(dir).await.expect("creates");
            write_whole(&disk, &dir.join("partition.metadata"), encode_metadata(spec.topic_id).as_bytes()).await.expect("writes");
            write_whole(&disk, &log_path(dir, 0), &log).await.expect("writes");

            let ended = [log, abort(4, 7, 1_003), abort(5, 9, 1_000)].concat();
            for random in 1..4 {
                let started = start(&disk, 1, vec![spec.clone()], random).await.expect("starts");
                assert_eq!(image(&disk, &started, 1).await, (6, ended.clone()));
                let producers = &started[0].partitions[1].producers;
                assert!(producers.iter().all(|state| state.transaction_first_offset == NO_TRANSACTION), "{producers:?}");
                let transactions = disk.peek(&dir.join(file_name(0, FileKind::TxnIndex))).expect("is there");
                let transactions = TxnIndex::decode(&transactions).expect("is whole");
                let aborted = transactions.entries().iter().map(|aborted| (aborted.producer_id, aborted.first_offset, aborted.last_offset));
                assert_eq!(aborted.collect::<Vec<_>>(), [(7, 3, 4), (9, 0, 5)]);
            }
        }
    };
    run(&disk, program);
}

#[test]
fn the_catalog_is_read_before_all_others_and_grows_with_the_commit() {
    let disk = disk();
    let program = {
        let disk = disk.clone();
        async move {
            let mut started = Start::read(&disk, &config(), 1).await.expect("reads");
            assert!(started.catalog().is_empty());
            started.add_to_catalog(&batch(0, 0, b"topic a"));
            started.add_to_catalog(&batch(0, 0, b"topic b"));
            let cores = started.finish(1, Vec::new(), 0).await.expect("starts");
            assert_eq!(image(&disk, &cores, 0).await.0, 2);
            let mut writer = writer(&disk, &cores[0]).await;
            let end = cores[0].partitions[0].scanned.as_ref().expect("scanned").end_position;
            writer.frame(&[entry(0, end, &batch(2, 1, b"topic c"))]).await.expect("frame");
        }
    };
    run(&disk, program);
    disk.crash();
    let again = disk.clone();
    run(&disk, async move {
        let started = Start::read(&again, &config(), 2).await.expect("reads");
        let mut offsets = Vec::new();
        scan(started.catalog(), Scanner::new(0, 0, 0), |_, header, _| offsets.push((header.base_offset(), header.leader_epoch())));
        assert_eq!(offsets, [(0, 1), (1, 1), (2, 1)]);
    });
}

#[test]
fn a_sealed_segment_of_the_catalog_that_is_missing_is_refused_unless_it_lies_below_the_log_start() {
    let disk = disk();
    let program = {
        let disk = disk.clone();
        async move {
            let started = start(&disk, 1, Vec::new(), 1).await.expect("starts");
            let dir = Path::new("/data/__catalog-0");
            let segments: Vec<_> = (0..3).map(|offset| batch(offset, 1, b"a change")).collect();
            for (base, bytes) in (0..2).zip(&segments) {
                write_whole(&disk, &log_path(dir, base), bytes).await.expect("writes");
            }
            disk.open(&log_path(dir, 2), Open::Create).await.expect("creates");
            let mut writer = writer(&disk, &started[0]).await;
            let mut lines: Vec<_> = started[0].partitions.iter().map(|found| found.line).collect();
            lines[0].segment_base = 2;
            writer.switch(&lines, &[]).await.expect("head");
            let bytes = vec![Chunk::padded(&segments[2]).sub(0, segments[2].len())];
            writer.frame(&[Item::Bytes { partition: PartitionId::CATALOG, segment_base: 2, position: 0, bytes }]).await.expect("frame");
            let read = async |accept_loss| {
                let config = LogConfig { accept_loss, ..config() };
                Start::read(&disk, &config, 2).await.map(|read| read.catalog().to_vec())
            };
            assert_eq!(read(false).await.expect("is whole"), segments.concat());
            for base in 0..2 {
                let log = log_path(dir, base);
                disk.remove(&log).await.expect("removes");
                let refused = read(false).await.expect_err("it is missing");
                assert!(matches!(refused, LogError::MissingSegment { first, last, .. } if (first, last) == (base, base)), "{refused}");
                let others = (0..3).zip(&segments).filter(|(other, _)| *other != base).flat_map(|(_, bytes)| bytes.clone());
                assert_eq!(read(true).await.expect("goes on"), others.collect::<Vec<_>>());
                write_whole(&disk, &log, &segments[base as usize]).await.expect("writes");
            }
            writer.frame(&[Item::LogStart { partition: PartitionId::CATALOG, offset: 1 }]).await.expect("frame");
            disk.remove(&log_path(dir, 0)).await.expect("removes");
            assert_eq!(read(false).await.expect("it is not needed"), segments[1..].concat());
        }
    };
    run(&disk, program);
}

#[test]
fn a_missing_segment_is_refused_unless_loss_is_accepted() {
    let disk = disk();
    let program = {
        let disk = disk.clone();
        async move {
            let started = start(&disk, 1, vec![spec(1, 0)], 1).await.expect("starts");
            let mut writer = writer(&disk, &started[0]).await;
            writer.frame(&[entry(1, 0, &batch(0, 1, b"acked"))]).await.expect("frame");
            disk.remove(&log_path(Path::new("/data/t-1"), 0)).await.expect("removes");
            assert!(matches!(start(&disk, 1, vec![spec(1, 0)], 2).await, Err(LogError::Missing { .. })));
            let accepting = LogConfig { accept_loss: true, ..config() };
            let started = Start::read(&disk, &accepting, 3).await.expect("reads").finish(1, vec![spec(1, 0)], 0).await.expect("starts");
            assert_eq!(started[0].partitions[1].line.flushed, 0);
            assert_eq!(kept(&disk), [batch(0, 1, b"acked")], "what the journal has of it");
        }
    };
    run(&disk, program);
}

/// A start that accepts a loss.
async fn accept(disk: &SimDisk, specs: Vec<PartitionSpec>, random: u64) -> Result<Vec<CoreStart>, LogError> {
    Start::read(disk, &LogConfig { accept_loss: true, ..config() }, random).await?.finish(1, specs, 0).await
}

/// What is kept beside of partition 1.
fn kept(disk: &SimDisk) -> Vec<Vec<u8>> {
    let directory = Path::new("/data/t-1");
    let names = disk.names(directory).into_iter().filter(|name| name.contains(".log.removed-") && !name.ends_with(".tmp"));
    names.map(|name| disk.peek(&directory.join(name)).expect("is there")).collect()
}

/// A whole batch of partition 1, then one that its line vouches for and that is damaged, then one in the journal only. Returns the
/// first, and the bytes of the others.
fn damage(disk: &SimDisk) -> (Vec<u8>, Vec<u8>) {
    let program = {
        let disk = disk.clone();
        async move {
            let started = start(&disk, 1, vec![spec(1, 0)], 1).await.expect("starts");
            let mut writer = writer(&disk, &started[0]).await;
            let [first, mut second, third] = [0, 1, 2].map(|offset| batch(offset, 1, &[offset as u8; 5_000]));
            second[16] ^= 1;
            let segment = [&first[..], &second[..]].concat();
            write_whole(&disk, &log_path(Path::new("/data/t-1"), 0), &segment).await.expect("writes");
            let mut lines: Vec<_> = started[0].partitions.iter().map(|found| found.line).collect();
            (lines[1].flushed, lines[1].batch_start) = (segment.len() as u32, segment.len() as u32);
            writer.switch(&lines, &[]).await.expect("head");
            writer.frame(&[entry(1, segment.len() as u32, &third)]).await.expect("frame");
            (first, [second, third].concat())
        }
    };
    run(disk, program)
}

#[test]
fn what_an_accepted_loss_cuts_off_is_kept_or_the_start_refuses() {
    let disk = disk();
    let (first, lost) = damage(&disk);
    let program = {
        let disk = disk.clone();
        async move {
            let log = log_path(Path::new("/data/t-1"), 0);
            let before = disk.peek(&log);
            disk.set_free_blocks(Some(0));
            assert!(matches!(accept(&disk, vec![spec(1, 0)], 2).await, Err(LogError::NoRoomToKeep { .. })));
            assert!(disk.peek(&log) == before && kept(&disk).is_empty(), "nothing was cut off");
            disk.set_free_blocks(None);
            let started = accept(&disk, vec![spec(1, 0)], 3).await.expect("starts");
            assert_eq!(image(&disk, &started, 1).await, (1, first));
            assert_eq!(kept(&disk), [lost]);
        }
    };
    run(&disk, program);
}

#[test]
fn wherever_a_start_that_accepts_a_loss_is_cut_off_everything_is_there_or_kept() {
    for steps in (1..).step_by(3) {
        let disk = disk();
        let (first, lost) = damage(&disk);
        let mut executor = Executor::new(&disk, 11);
        let accepting = executor.spawn({
            let disk = disk.clone();
            async move { accept(&disk, vec![spec(1, 0)], 2).await.map(drop) }
        });
        for _ in 0..steps {
            if !executor.step() {
                break;
            }
        }
        let done = accepting.take();
        drop(executor);
        disk.crash();
        let program = {
            let disk = disk.clone();
            async move {
                let mut started = start(&disk, 1, vec![spec(1, 0)], 3).await.expect("starts");
                // The damage lies below what a start looks at: if nothing was cut off, all of it is there still, to be refused when it is
                // opened.
                if image(&disk, &started, 1).await.0 == 3 {
                    started = accept(&disk, vec![spec(1, 0)], 4).await.expect("the same again");
                }
                assert_eq!(image(&disk, &started, 1).await, (1, first), "after {steps} steps");
                assert_eq!(kept(&disk), [lost], "after {steps} steps");
            }
        };
        run(&disk, program);
        if done.is_some() {
            break;
        }
    }
}

/// Partition 1 with these batches in its segment, whole by its line, and what is in the journal behind them.
async fn with_segment(disk: &SimDisk, segment: &[u8], behind: &[u8]) {
    let started = start(disk, 1, vec![spec(1, 0)], 1).await.expect("starts");
    let mut writer = writer(disk, &started[0]).await;
    write_whole(disk, &log_path(Path::new("/data/t-1"), 0), segment).await.expect("writes");
    let mut lines: Vec<_> = started[0].partitions.iter().map(|found| found.line).collect();
    (lines[1].flushed, lines[1].batch_start) = (segment.len() as u32, segment.len() as u32);
    writer.switch(&lines, &[]).await.expect("head");
    writer.frame(&[entry(1, segment.len() as u32, behind)]).await.expect("frame");
}

#[test]
fn a_last_batch_that_is_not_what_was_written_is_refused_and_an_accepted_loss_cuts_it_off() {
    // Its last offset, an epoch that was never given, an offset that no segment reaches.
    for (at, bits) in [(26, 1), (12, 0x7f), (0, 0x40)] {
        let disk = disk();
        let program = {
            let disk = disk.clone();
            async move {
                let (first, mut second) = (batch(0, 1, &[1; 5_000]), batch(1, 1, &[2; 5_000]));
                second[at] ^= bits;
                with_segment(&disk, &[&first[..], &second].concat(), &[]).await;
                let started = start(&disk, 1, vec![spec(1, 0)], 2).await.expect("starts");
                assert!(started[0].partitions[1].damage.is_some(), "byte {at}");
                let started = accept(&disk, vec![spec(1, 0)], 3).await.expect("starts");
                assert_eq!(image(&disk, &started, 1).await, (1, first.clone()), "byte {at}");
                assert_eq!((kept(&disk), started[0].leader_epoch), (vec![second], 3));
                let started = start(&disk, 1, vec![spec(1, 0)], 4).await.expect("starts");
                assert_eq!(image(&disk, &started, 1).await, (1, first));
            }
        };
        run(&disk, program);
    }
}

/// A batch that is one block long.
fn of_a_block(offset: i64) -> Vec<u8> {
    let rest = BLOCK as usize - batch(offset, 1, &[1; 3_500]).len();
    let whole = batch(offset, 1, &vec![1; 3_500 + rest]);
    assert_eq!(whole.len() as u64, BLOCK);
    whole
}

#[test]
fn a_last_batch_whose_first_block_became_something_else_is_not_taken_for_the_front_of_one() {
    let disk = disk();
    let program = {
        let disk = disk.clone();
        async move {
            let (first, second) = (of_a_block(0), batch(1, 1, &[2; 14_000]));
            let (whole, block) = ([&first[..], &second].concat(), BLOCK as usize);
            let log = log_path(Path::new("/data/t-1"), 0);
            let started = start(&disk, 1, vec![spec(1, 0)], 1).await.expect("starts");
            let mut writer = writer(&disk, &started[0]).await;
            // A run brought the second one into the segment, and the journal has its last, partial block only.
            let floor = whole.len() / block * block;
            writer.frame(&[entry(1, 0, &first)]).await.expect("frame");
            writer.frame(&[entry(1, floor as u32, &whole[floor..])]).await.expect("frame");
            write_whole(&disk, &log, &whole).await.expect("writes");
            let started = start(&disk, 1, vec![spec(1, 0)], 2).await.expect("starts");
            assert_eq!(u64::from(started[0].partitions[1].line.batch_start), BLOCK, "the second one is the last that its head vouches for");

            let before = disk.peek(&log).expect("is there");
            disk.rot(&log, |bytes| {
                bytes[block..2 * block].fill(0xa5);
                // A length and a magic that the front of a batch may have.
                (bytes[block + 8], bytes[block + 16]) = (0x7f, 2);
            });
            let started = start(&disk, 1, vec![spec(1, 0)], 3).await.expect("starts");
            let damage = started[0].partitions[1].damage.as_ref().expect("is told");
            assert!(damage.what.starts_with("no batch at byte 4096 "), "{}", damage.what);
            disk.rot(&log, |bytes| *bytes = before);
            let started = start(&disk, 1, vec![spec(1, 0)], 4).await.expect("starts");
            assert_eq!(image(&disk, &started, 1).await, (2, whole));
        }
    };
    run(&disk, program);
}

#[test]
fn a_head_takes_nothing_over_from_damaged_headers_so_that_a_restored_segment_is_whole_again() {
    let disk = disk();
    let program = {
        let disk = disk.clone();
        async move {
            let (first, second, third) = (batch(0, 1, b"first"), batch(1, 1, &[1; 14_000]), batch(2, 1, b"in the journal only"));
            with_segment(&disk, &[&first[..], &second].concat(), &third).await;
            let log = log_path(Path::new("/data/t-1"), 0);
            // Its length.
            disk.rot(&log, |bytes| bytes[11] ^= 2);
            for random in 2..4 {
                let started = start(&disk, 1, vec![spec(1, 0)], random).await.expect("starts");
                assert!(started[0].partitions[1].damage.is_some(), "the second batch is not where the headers lead");
            }
            disk.rot(&log, |bytes| bytes[11] ^= 2);
            let started = start(&disk, 1, vec![spec(1, 0)], 4).await.expect("starts");
            assert_eq!(image(&disk, &started, 1).await, (3, [first, second, third].concat()));
        }
    };
    run(&disk, program);
}

#[test]
fn what_an_opening_cuts_off_of_a_batch_that_never_came_whole_is_no_loss() {
    let disk = disk();
    let program = {
        let disk = disk.clone();
        async move {
            let started = start(&disk, 1, vec![spec(1, 0)], 1).await.expect("starts");
            let mut writer = writer(&disk, &started[0]).await;
            let (first, second) = (batch(0, 1, &[1; 3_000]), batch(1, 1, &[2; 14_000]));
            let (log, flushed) = (log_path(Path::new("/data/t-1"), 0), 3 * BLOCK as usize);
            // A run has brought its first blocks, and of the rest there is no entry.
            write_whole(&disk, &log, &[&first[..], &second].concat()[..flushed]).await.expect("writes");
            let mut lines: Vec<_> = started[0].partitions.iter().map(|found| found.line).collect();
            (lines[1].flushed, lines[1].batch_start) = (flushed as u32, first.len() as u32);
            writer.switch(&lines, &[]).await.expect("head");

            let mut started = start(&disk, 1, vec![spec(1, 0)], 2).await.expect("starts");
            let opened = Log::open(disk.clone(), started.remove(0)).await.expect("opens");
            opened.ready(&[PartitionId(1)]).await.expect("is whole");
            drop(opened);
            assert_eq!(disk.peek(&log).map(|bytes| bytes.len() as u64), Some(BLOCK), "it is cut below the line's flushed end");

            let started = accept(&disk, vec![spec(1, 0)], 3).await.expect("starts");
            assert_eq!(image(&disk, &started, 1).await, (1, first));
            assert!(kept(&disk).is_empty(), "nothing was lost");
        }
    };
    run(&disk, program);
}

#[test]
fn with_loss_accepted_a_directory_that_the_catalog_does_not_know_is_set_aside() {
    let disk = disk();
    damage(&disk);
    let program = {
        let disk = disk.clone();
        async move {
            let before = disk.peek(&log_path(Path::new("/data/t-1"), 0));
            accept(&disk, Vec::new(), 2).await.expect("starts");
            let names = disk.names(Path::new("/data"));
            let stray = names.iter().find(|name| name.starts_with("t-1.") && name.ends_with("-stray")).expect("is there");
            assert_eq!(disk.peek(&log_path(&Path::new("/data").join(stray), 0)), before);
            assert!(!names.iter().any(|name| name == "t-1"));
        }
    };
    run(&disk, program);
}

#[test]
fn a_superblock_that_is_gone_is_refused_once_there_is_data() {
    let disk = disk();
    let program = {
        let disk = disk.clone();
        async move {
            let mut started = Start::read(&disk, &config(), 1).await.expect("reads");
            started.add_to_catalog(&batch(0, 0, b"topic a"));
            started.finish(1, Vec::new(), 0).await.expect("starts");
            disk.remove(&superblock_path(Path::new("/data/journal"))).await.expect("removes");
            assert!(matches!(Start::read(&disk, &config(), 2).await, Err(LogError::NoSuperblock { .. })));
        }
    };
    run(&disk, program);
}

#[test]
fn without_a_superblock_nothing_that_holds_data_is_removed_although_no_catalog_knows_it() {
    let disk = disk();
    let program = {
        let disk = disk.clone();
        async move {
            let started = start(&disk, 1, vec![spec(1, 0)], 1).await.expect("starts");
            // As behind a full disk: all that there is of the catalog is in the journal, and its segment has no bytes.
            let mut writer = writer(&disk, &started[0]).await;
            writer.frame(&[entry(0, 0, &batch(0, 1, b"topic"))]).await.expect("frame");
            let acked = batch(0, 1, b"acked");
            write_whole(&disk, &log_path(Path::new("/data/t-1"), 0), &acked).await.expect("writes");
            disk.rot(&superblock_path(Path::new("/data/journal")), |bytes| bytes.fill(0xa5));
            let refused = start(&disk, 1, Vec::new(), 2).await.expect_err("it is not the first start");
            assert!(matches!(&refused, LogError::NoSuperblock { data, .. } if data == Path::new("/data/t-1")), "{refused}");
            assert_eq!(disk.peek(&log_path(Path::new("/data/t-1"), 0)).as_ref(), Some(&acked));

            accept(&disk, Vec::new(), 3).await.expect("starts");
            let names = disk.names(Path::new("/data"));
            let stray = names.iter().find(|name| name.starts_with("t-1.") && name.ends_with("-stray")).expect("is kept");
            assert_eq!(disk.peek(&log_path(&Path::new("/data").join(stray), 0)), Some(acked));
        }
    };
    run(&disk, program);
}

#[test]
fn a_slot_of_the_superblock_that_rots_or_cannot_be_read_takes_no_start_back() {
    for (slot, is_readable) in [(0, true), (1, true), (0, false), (1, false)] {
        let disk = disk();
        let program = {
            let disk = disk.clone();
            async move {
                start(&disk, 1, vec![spec(1, 0)], 1).await.expect("starts");
                let started = start(&disk, 1, vec![spec(1, 0)], 2).await.expect("starts");
                let acked = batch(0, started[0].leader_epoch, b"acked");
                let mut writer = writer(&disk, &started[0]).await;
                writer.frame(&[entry(1, 0, &acked)]).await.expect("frame");
                let path = superblock_path(Path::new("/data/journal"));
                if is_readable {
                    disk.rot(&path, |bytes| bytes[slot * BLOCK as usize + 40] ^= 1);
                } else {
                    disk.set_unreadable(&path, slot as u64);
                }
                let started = start(&disk, 1, vec![spec(1, 0)], 3).await.expect("starts");
                assert_eq!(image(&disk, &started, 1).await, (1, acked), "slot {slot}");
                assert_eq!((started[0].leader_epoch, started[0].journal.start), (3, 3), "slot {slot}");
            }
        };
        run(&disk, program);
    }
}

#[test]
fn segments_below_the_log_start_may_be_gone() {
    let disk = disk();
    let program = {
        let disk = disk.clone();
        async move {
            let started = start(&disk, 1, vec![spec(1, 0)], 1).await.expect("starts");
            let mut writer = writer(&disk, &started[0]).await;
            let dir = Path::new("/data/t-1");
            writer.frame(&[entry(1, 0, &batch(0, 1, b"first"))]).await.expect("frame");
            let snapshot = known_producer();
            write_whole(&disk, &dir.join("00000000000000000001.snapshot"), &encode_snapshot(&[snapshot])).await.expect("writes");
            disk.open(&log_path(dir, 1), Open::Create).await.expect("creates");
            let bytes = Chunk::padded(&batch(1, 1, b"second"));
            let bytes = vec![bytes.sub(0, batch(1, 1, b"second").len())];
            let named = Item::Bytes { partition: PartitionId(1), segment_base: 1, position: 0, bytes };
            writer.frame(&[named, Item::LogStart { partition: PartitionId(1), offset: 1 }]).await.expect("frame");
            disk.remove(&log_path(dir, 0)).await.expect("removes");

            let started = start(&disk, 1, vec![spec(1, 0)], 2).await.expect("starts");
            assert_eq!(image(&disk, &started, 1).await, (2, batch(1, 1, b"second")));
            let found = &started[0].partitions[1];
            assert_eq!((found.line.segment_base, found.line.log_start), (1, 1));
            let offsets: Vec<_> = found.producers[0].batches.iter().map(|batch| batch.last_offset).collect();
            assert_eq!(offsets, [0, 1], "from the snapshot, and from the scan");
        }
    };
    run(&disk, program);
}

#[test]
fn the_snapshot_of_a_roll_that_was_cut_off_hides_no_batch_of_the_scan() {
    let disk = disk();
    let program = {
        let disk = disk.clone();
        async move {
            let started = start(&disk, 1, vec![spec(1, 0)], 1).await.expect("starts");
            let mut writer = writer(&disk, &started[0]).await;
            let dir = Path::new("/data/t-1");
            let first = BatchBuilder::new().at(0, 1).record(1_000, None, Some(b"of no producer")).build();
            let second = batch(1, 1, b"second");
            // The head knows the first segment as whole and flushed: the scan begins at its end.
            write_whole(&disk, &log_path(dir, 0), &first).await.expect("writes");
            let mut lines: Vec<_> = started[0].partitions.iter().map(|found| found.line).collect();
            (lines[1].flushed, lines[1].batch_start) = (first.len() as u32, first.len() as u32);
            writer.switch(&lines, &[]).await.expect("head");
            disk.open(&log_path(dir, 1), Open::Create).await.expect("creates");
            let bytes = vec![Chunk::padded(&second).sub(0, second.len())];
            writer.frame(&[Item::Bytes { partition: PartitionId(1), segment_base: 1, position: 0, bytes }]).await.expect("frame");
            // The second segment was sealed, its producer's snapshot written, but no frame names the third one yet.
            let mut producer = known_producer();
            (producer.batches[0].last_sequence, producer.batches[0].last_offset) = (1, 1);
            for (offset, producers) in [(1, Vec::new()), (2, vec![producer])] {
                let path = dir.join(format!("{offset:020}.snapshot"));
                write_whole(&disk, &path, &encode_snapshot(&producers)).await.expect("writes");
            }

            let started = start(&disk, 1, vec![spec(1, 0)], 2).await.expect("starts");
            let found = &started[0].partitions[1];
            assert_eq!((found.line.segment_base, found.scanned.as_ref().expect("scanned").log_end), (1, 2));
            let newest = found.producers.first().and_then(|state| state.batches.last()).map(|batch| batch.last_offset);
            assert_eq!(newest, Some(1), "the snapshot that the partition is opened with does not tell the second batch");
        }
    };
    run(&disk, program);
}

fn known_producer() -> ProducerState {
    let batch = SequencedBatch { last_sequence: 0, last_offset: 0, offset_delta: 0, timestamp: 1_000 };
    let state = ProducerState {
        producer_id: 7,
        epoch: 0,
        coordinator_epoch: -1,
        last_timestamp: 1_000,
        transaction_first_offset: -1,
        batches: Vec::new(),
    };
    ProducerState { batches: vec![batch], ..state }
}

#[test]
fn with_loss_accepted_a_destroyed_journal_leaves_what_is_in_the_segments() {
    let disk = disk();
    let program = {
        let disk = disk.clone();
        async move {
            let started = start(&disk, 1, vec![spec(1, 0)], 1).await.expect("starts");
            let mut writer = writer(&disk, &started[0]).await;
            let (first, second) = (batch(0, 1, &[1; 5_000]), batch(1, 1, b"in the journal only"));
            let file = disk.open(&log_path(Path::new("/data/t-1"), 0), Open::Existing).await.expect("opens");
            disk.write(&file, 0, vec![Chunk::padded(&first)]).await.expect("writes");
            disk.sync(&file).await.expect("flushes");
            writer.frame(&[entry(1, first.len() as u32, &second)]).await.expect("frame");
            for name in ["core-0.a", "core-0.b"] {
                let file = disk.open(&Path::new("/data/journal").join(name), Open::Existing).await.expect("opens");
                disk.write(&file, 0, vec![Chunk::padded(b"destroyed")]).await.expect("writes");
            }
            assert!(matches!(start(&disk, 1, vec![spec(1, 0)], 2).await, Err(LogError::Damaged { .. })));
            let accepting = LogConfig { accept_loss: true, ..config() };
            let started = Start::read(&disk, &accepting, 3).await.expect("reads").finish(1, vec![spec(1, 0)], 0).await.expect("starts");
            assert_eq!(image(&disk, &started, 1).await, (1, first.clone()));
            assert!(started[0].leader_epoch > 1);
            let started = start(&disk, 1, vec![spec(1, 0)], 4).await.expect("and from then on without accepting");
            assert_eq!(image(&disk, &started, 1).await, (1, first));
        }
    };
    run(&disk, program);
}
