//! A partition directory that Apache Kafka 4.3.1 wrote, read by the engine: every index, snapshot and checkpoint of it is
//! what the engine makes of the log. `fixtures/kafka-4.3.1/README.md` says what is in it.

use engine::{
    batch::{BatchBuilder, Codec, ControlRecord, Header, Records, Scanner, Stop, payload, scan},
    disk::{
        sim::{Executor, SimDisk, Spawner},
        write_whole,
    },
    log::{Log, LogConfig, Start, mark_clean},
    partition::{Epochs, PartitionConfig, PartitionId, PartitionSpec, Producers},
    segment::{
        FileKind, Indexes, OpenTransactions, PartitionFiles, Sealed, TimeIndex, TxnIndex, decode_epochs, decode_metadata, decode_snapshot,
        encode_epochs, encode_metadata, encode_snapshot, file_name,
    },
};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Where Kafka's log ended.
const LOG_END: i64 = 261;

fn fixture(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/kafka-4.3.1/orders-0").join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn segment_file(kind: FileKind) -> Vec<u8> {
    fixture(&file_name(0, kind))
}

/// Every batch of the log, with what a control batch says.
fn batches() -> Vec<(Header, Vec<u8>, Option<ControlRecord>)> {
    let mut all = Vec::new();
    let end = scan(&segment_file(FileKind::Log), Scanner::new(0, 0, 0), |_, header, batch| {
        all.push((*header, batch.to_vec(), ControlRecord::of_batch(header, batch)));
    });
    assert_eq!((end.stop, end.end.next_offset), (Stop::End, LOG_END));
    all
}

#[test]
fn every_record_of_every_codec_is_read() {
    let mut records: BTreeMap<&str, usize> = BTreeMap::new();
    let (mut tombstones, mut keyless, mut headers, mut next) = (0, 0, 0, 0);
    for (header, batch, control) in batches() {
        let payload = payload(&header, &batch, 1 << 20).expect("decompresses");
        for record in Records::new(&header, &payload) {
            let record = record.expect("well-formed");
            assert_eq!(record.offset(&header), next);
            next += 1;
            if control.is_none() {
                *records.entry(header.codec().expect("known").name()).or_default() += 1;
                tombstones += usize::from(record.value.is_none());
                keyless += usize::from(record.key.is_none());
                headers += record.headers.iter().count();
            }
        }
    }
    assert_eq!(next, LOG_END);
    // 40 of each codec; the transactional producers add 24 with lz4 and 25 without.
    let expected = [("gzip", 40), ("lz4", 64), ("none", 65), ("snappy", 40), ("zstd", 40)];
    assert_eq!(records, BTreeMap::from(expected));
    assert_eq!((tombstones, keyless, headers), (5 * 4, 5 * 6, 5 * 8 * 2));
    assert_eq!(Codec::of_id(4).map(Codec::name), Some("zstd"));
}

#[test]
fn a_replay_gives_kafkas_snapshot_and_aborted_transactions() {
    let (mut producers, mut open) = (Producers::new(100), OpenTransactions::default());
    let mut aborted = TxnIndex::default();
    for (header, _, control) in batches() {
        let found = producers.replay(&header, control, header.max_timestamp());
        assert_eq!(open.push(&header, control), found);
        found.into_iter().for_each(|transaction| aborted.push(transaction));
    }
    assert_eq!(aborted.encode(), segment_file(FileKind::TxnIndex));
    let snapshot = fixture(&file_name(LOG_END, FileKind::Snapshot));
    // Kafka orders the producers by hash.
    let sorted = |bytes: &[u8]| {
        let mut states = decode_snapshot(bytes).expect("valid");
        states.sort_by_key(|state| state.producer_id);
        states
    };
    assert_eq!(sorted(&encode_snapshot(&producers.snapshot())), sorted(&snapshot));
    assert_eq!(encode_snapshot(&decode_snapshot(&snapshot).expect("valid")), snapshot);
    assert_eq!(producers.first_unstable(), Some(LOG_END - 1), "one transaction was left open");

    let mut imported = Producers::new(100);
    sorted(&snapshot).iter().for_each(|state| imported.import(state, LOG_END - 1));
    assert_eq!(imported.first_unstable(), Some(LOG_END - 1));
}

#[test]
fn checkpoints_are_read_and_written_as_kafka_does() {
    let text = String::from_utf8(fixture("leader-epoch-checkpoint")).expect("text");
    let epochs = decode_epochs(&text).expect("valid");
    assert_eq!(encode_epochs(&epochs), text);
    let mut followed = Epochs::default();
    batches().iter().for_each(|(header, _, _)| {
        followed.assign(header.leader_epoch(), header.base_offset());
    });
    assert_eq!(followed.entries(), epochs);
    let text = String::from_utf8(fixture("partition.metadata")).expect("text");
    assert_eq!(encode_metadata(decode_metadata(&text).expect("valid")), text);
}

#[test]
fn its_time_index_ends_as_ours() {
    let mut indexes = Indexes::new(0);
    scan(&segment_file(FileKind::Log), Scanner::new(0, 0, 0), |position, header, _| indexes.push(position, header));
    indexes.seal();
    let kafkas = TimeIndex::decode(0, &segment_file(FileKind::TimeIndex)).expect("valid");
    assert_eq!(kafkas.newest(), indexes.newest());
}

/// What a lookup by time finds must not depend on whose indexes are used, be they missing, Kafka's, or preallocated.
#[test]
fn lookups_are_the_same_with_kafkas_indexes_and_with_rebuilt_ones() {
    let kinds = FileKind::INDEXES;
    let mut answers = Vec::new();
    for (way, rebuilt) in [("missing", true), ("kafka's", false), ("preallocated", true)] {
        let directory = PathBuf::from("/data/orders-0");
        let disk = SimDisk::new(1, &[Path::new("/data"), &directory]);
        let mut executor = Executor::new(&disk, 1);
        let disk = disk.clone();
        answers.push(executor.block_on(async move {
            let log = directory.join(file_name(0, FileKind::Log));
            write_whole(&disk, &log, &segment_file(FileKind::Log)).await.expect("written");
            for kind in kinds.into_iter().filter(|kind| way != "missing" || *kind == FileKind::TxnIndex) {
                let mut bytes = segment_file(kind);
                if way == "preallocated" && kind != FileKind::TxnIndex {
                    bytes.resize((10 << 20) / 8 * 8 / 12 * 12, 0);
                }
                write_whole(&disk, &directory.join(file_name(0, kind)), &bytes).await.expect("written");
            }
            let files = PartitionFiles::list(&disk, &directory).await.expect("listed");
            assert_eq!(files.segments.len(), 1);
            let sealed = Sealed::open(&disk, &directory, 0).await.expect("opens");
            assert_eq!(sealed.rebuilt, rebuilt, "{way}");
            let newest = sealed.max_timestamp().expect("some");
            let mut found = Vec::new();
            for timestamp in (newest - 2_000..=newest + 1).step_by(3) {
                found.push(sealed.find_time(&disk, timestamp, 0).await.expect("walks"));
            }
            for offset in 0..=LOG_END {
                found.push(
                    sealed.find(&disk, offset).await.expect("walks").map(|(position, header)| (position as i64, header.base_offset())),
                );
            }
            let mut aborted = Vec::new();
            sealed.aborted(0, LOG_END, &mut aborted);
            (found, aborted, sealed.next_offset(&disk).await.expect("walks"))
        }));
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!((answers[0].1.len(), answers[0].2), (5, LOG_END));
}

/// What librdkafka's and kafkajs's consumers get by default: the records of committed transactions only, with the list of
/// aborted ones as Kafka's `.txnindex` has it, plus the one that was open when Kafka stopped, and which the takeover has ended.
#[test]
fn a_taken_over_partition_serves_its_aborted_transactions() {
    let disk = SimDisk::new(3, &[Path::new("/data"), Path::new("/data/orders-0")]);
    let config =
        LogConfig { data_dir: "/data".into(), journal_dir: "/data/journal".into(), journal_bytes: 1 << 20, ..LogConfig::default() };
    let files = disk.clone();
    Executor::new(&disk, 3).block_on(async move {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/kafka-4.3.1/orders-0");
        for entry in fs::read_dir(directory).expect("a fixture").map(|entry| entry.expect("an entry")) {
            let bytes = fs::read(entry.path()).expect("readable");
            write_whole(&files, &Path::new("/data/orders-0").join(entry.file_name()), &bytes).await.expect("written");
        }
    });
    // The second life finds a partition of its own, the third one after a crash.
    for life in 0..3 {
        let (disk_of_life, config) = (disk.clone(), config.clone());
        let mut executor = Executor::new(&disk, life);
        let spawner = executor.spawner();
        executor.block_on(async move { read_committed(disk_of_life, config, life, spawner).await });
        drop(executor);
        disk.kill();
    }
}

async fn read_committed(disk: SimDisk, config: LogConfig, life: u64, spawner: Spawner) {
    let id = PartitionId(5);
    let spec = PartitionSpec {
        id,
        topic_id: decode_metadata(&String::from_utf8(fixture("partition.metadata")).expect("text")).expect("valid"),
        directory: "orders-0".into(),
        core: 0,
        leader_epoch: 0,
        internal: false,
        config: PartitionConfig { segment_bytes: 14_000, ..PartitionConfig::default() },
    };
    let start = Start::read(&disk, &config, life).await.expect("reads");
    let mut cores = start.finish(1, vec![spec], 0).await.expect("starts");
    let log = Log::open(disk.clone(), cores.remove(0)).await.expect("opens");
    let running = log.clone();
    let lanes = spawner.spawn(async move { running.run().await.expect("the journal works") });
    log.ready(&[id]).await.expect("opens");

    // New batches make the log roll: Kafka's transactions must be found in a sealed segment too.
    let batch = BatchBuilder::new().record(1_000, Some(b"k"), Some(&[b'v'; 600])).build();
    let first = log.offsets(id).expect("owned").log_end;
    for _ in 0..4 {
        log.admit(batch.len()).await;
        let appended = log.append(id, &batch, 1_000).expect("appended");
        log.durable(id, appended.last_offset).await.expect("durable");
    }
    let offsets = log.offsets(id).expect("owned");
    assert_eq!((offsets.log_start, offsets.last_stable, first), (0, offsets.log_end, LOG_END + 1 + 4 * life as i64));
    let marker = log.read(id, LOG_END, 1, true, false).await.expect("reads").collect(&disk).await.expect("reads");
    let header = Header::read(&marker).expect("a batch");
    let control = ControlRecord::of_batch(&header, &marker[..header.size()]);
    assert_eq!((header.base_offset(), header.producer_id()), (LOG_END, 6));
    assert!(matches!(control, Some(ControlRecord::Abort { .. })), "{control:?}");

    let kafkas = TxnIndex::decode(&segment_file(FileKind::TxnIndex)).expect("valid");
    let mut expected: Vec<_> = kafkas.entries().iter().map(|aborted| (aborted.producer_id, aborted.first_offset)).collect();
    expected.push((6, LOG_END - 1));
    for bytes_max in [500, 3_000, 1 << 20] {
        let (mut offset, mut found) = (0, BTreeMap::new());
        while offset < offsets.log_end {
            let plan = log.read(id, offset, bytes_max, true, true).await.expect("reads");
            let bytes = plan.collect(&disk).await.expect("reads");
            let next = scan(&bytes, Scanner::new(0, 0, 0), |_, _, _| ()).end.next_offset;
            // Each read names all that overlap it.
            for (producer, first) in &expected {
                let last =
                    kafkas.entries().iter().find(|aborted| aborted.first_offset == *first).map_or(*first, |aborted| aborted.last_offset);
                if *first < next && last >= offset {
                    assert!(plan.aborted.iter().any(|aborted| (aborted.producer_id, aborted.first_offset) == (*producer, *first)));
                }
            }
            found.extend(plan.aborted.iter().map(|aborted| ((aborted.producer_id, aborted.first_offset), ())));
            offset = next;
        }
        assert_eq!(found.into_keys().collect::<Vec<_>>(), sorted(expected.clone()), "{bytes_max} bytes at once");
    }
    let plan = log.read(id, 0, 1 << 20, true, false).await.expect("reads");
    assert_eq!(plan.aborted, [], "read_uncommitted asks for none");
    if life == 0 {
        log.close().await.expect("closes");
        mark_clean(&disk, &config).await.expect("marked");
    }
    drop(lanes);
}

fn sorted<T: Ord>(mut values: Vec<T>) -> Vec<T> {
    values.sort();
    values
}
