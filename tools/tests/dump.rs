//! What `segment-dump` prints, and what it calls damage.

use engine::{
    batch::{BatchBuilder, Codec, Header, control_batch},
    disk::{
        Chunk,
        sim::{Executor, SimDisk},
    },
    ids::PartitionId,
    journal::{
        FILE_BYTES_MIN, Item, JournalPosition, JournalWriter, Line, Superblock, Which, file_path, prepare_file, superblock_path,
        write_first_head,
    },
    segment::{
        EpochStart, FileKind, Indexes, NO_TRANSACTION, ProducerState, SequencedBatch, encode_epochs, encode_metadata, encode_snapshot,
        file_name,
    },
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use tools::{Options, dump};

fn dumped(path: &Path, options: &Options) -> (String, u64) {
    let mut out = Vec::new();
    let damages = dump(path, options, &mut out).expect("readable");
    (String::from_utf8(out).expect("text"), damages)
}

fn with_records() -> Options {
    Options { records: true, ..Options::default() }
}

struct Partition {
    root: tempfile::TempDir,
}

impl Partition {
    fn new() -> Partition {
        let partition = Partition { root: tempfile::tempdir().expect("a directory") };
        fs::create_dir(partition.directory()).expect("created");
        partition
    }

    fn directory(&self) -> PathBuf {
        self.root.path().join("orders-0")
    }

    fn file(&self, base: i64, kind: FileKind, bytes: &[u8]) -> PathBuf {
        let path = self.directory().join(file_name(base, kind));
        fs::write(&path, bytes).expect("written");
        path
    }
}

fn batches(count: i64, value: &[u8]) -> Vec<u8> {
    (0..count).flat_map(|offset| BatchBuilder::new().at(offset, 2).record(1_000 + offset, Some(b"k"), Some(value)).build()).collect()
}

#[test]
fn a_batch_is_one_line_of_kafkas() {
    let partition = Partition::new();
    let batch = BatchBuilder::new()
        .at(40, 5)
        .producer(9, 1, 7)
        .codec(Codec::Gzip)
        .record_with_headers(1_718, Some(b"user-42"), Some("caf\u{e9}\n".as_bytes()), &[("a", None), ("b", Some(b"x"))])
        .record(1_720, None, Some(&[0xff, 0]))
        .build();
    let header = Header::read(&batch).expect("whole");
    let log = partition.file(40, FileKind::Log, &batch);
    let (text, damages) = dumped(&log, &with_records());
    let expected = format!(
        "Dumping {}\nLog starting offset: 40\nbaseOffset: 40 lastOffset: 41 count: 2 baseSequence: 7 lastSequence: 8 producerId: 9 \
         producerEpoch: 1 partitionLeaderEpoch: 5 isTransactional: false isControl: false deleteHorizonMs: OptionalLong.empty \
         position: 0 CreateTime: 1720 size: {} magic: 2 compresscodec: gzip crc: {} isvalid: true\n\
         | offset: 40 CreateTime: 1718 keySize: 7 valueSize: 6 sequence: 7 headerKeys: [a,b] key: user-42 payload: caf\u{e9}\\n\n\
         | offset: 41 CreateTime: 1720 keySize: -1 valueSize: 2 sequence: 8 headerKeys: [] payload: 0xff00\n",
        log.display(),
        batch.len(),
        header.crc()
    );
    assert_eq!((text, damages), (expected, 0));
}

#[test]
fn control_records_tell_how_the_transaction_ended() {
    let partition = Partition::new();
    let log = partition.file(0, FileKind::Log, &control_batch(0, 0, (4, 0), false, 77));
    let (text, _) = dumped(&log, &with_records());
    assert!(text.contains("isTransactional: true isControl: true"), "{text}");
    assert!(text.contains("headerKeys: [] endTxnMarker: ABORT coordinatorEpoch: 0"), "{text}");
}

#[test]
fn the_unwritten_end_of_a_live_segment_is_no_damage() {
    let partition = Partition::new();
    let whole = batches(3, &[7; 9_000]);
    let mut allocated = whole.clone();
    allocated.resize(1 << 16, 0);
    let (text, damages) = dumped(&partition.file(0, FileKind::Log, &allocated), &Options::default());
    assert!(text.ends_with(&format!("{} bytes from position {} on are allocated and not written\n", (1 << 16) - whole.len(), whole.len())));
    assert_eq!((text.matches("isvalid: true").count(), damages), (3, 0));

    // The last batch's end is in the journal: its segment holds whole blocks only.
    let mut half = whole.clone();
    half[24_576..].fill(0);
    half.resize(1 << 16, 0);
    let (text, damages) = dumped(&partition.file(0, FileKind::Log, &half), &Options::default());
    assert!(text.contains("is not whole here yet: its end is in the journal"), "{text}");
    assert_eq!((text.matches("isvalid: true").count(), damages), (2, 0));
}

#[test]
fn damage_is_shown_and_counted_and_what_follows_still_printed() {
    let partition = Partition::new();
    let bytes = batches(3, b"value");
    let one = bytes.len() / 3;
    let mut flipped = bytes.clone();
    flipped[one + one - 1] ^= 1;
    let (text, damages) = dumped(&partition.file(0, FileKind::Log, &flipped), &Options::default());
    assert_eq!((text.matches("isvalid: true").count(), text.matches("isvalid: false").count(), damages), (2, 1, 1));

    let mut garbled = bytes.clone();
    garbled[one + 16] = 1;
    let (text, damages) = dumped(&partition.file(0, FileKind::Log, &garbled), &Options::default());
    assert!(text.contains(&format!("Found {} invalid bytes at the end", 2 * one)), "{text}");
    assert!(text.contains(&format!("position {one}: magic 1 is not 2")), "{text}");
    assert_eq!(damages, 1);
}

#[test]
fn filters_leave_out_the_rest() {
    let partition = Partition::new();
    let mut bytes = batches(5, b"v");
    bytes.extend(BatchBuilder::new().at(5, 2).producer(8, 0, 0).record(1, None, None).build());
    let log = partition.file(0, FileKind::Log, &bytes);
    let count = |options: &Options| dumped(&log, options).0.matches("baseOffset").count();
    assert_eq!(count(&Options { from_offset: Some(3), ..Options::default() }), 3);
    assert_eq!(count(&Options { from_offset: Some(3), batches_max: Some(2), ..Options::default() }), 2);
    assert_eq!(count(&Options { producer_id: Some(8), ..Options::default() }), 1);
}

#[test]
fn a_partition_directory_is_printed_file_by_file_and_its_indexes_are_verified() {
    let partition = Partition::new();
    let bytes = batches(40, &[1; 9_000]);
    partition.file(0, FileKind::Log, &bytes);
    let mut indexes = Indexes::new(0);
    engine::batch::scan(&bytes, engine::batch::Scanner::new(0, 0, 0), |position, header, _| indexes.push(position, header));
    indexes.seal();
    // An unclean stop leaves preallocated indexes.
    let mut preallocated = indexes.offsets.encode();
    preallocated.resize(4096, 0);
    let index = partition.file(0, FileKind::Index, &preallocated);
    partition.file(0, FileKind::TimeIndex, &indexes.times.encode());
    let batch = SequencedBatch { last_sequence: 4, last_offset: 9, offset_delta: 2, timestamp: 5 };
    let producer = ProducerState {
        producer_id: 3,
        epoch: 1,
        coordinator_epoch: -1,
        last_timestamp: 5,
        transaction_first_offset: NO_TRANSACTION,
        batches: vec![batch],
    };
    partition.file(40, FileKind::Snapshot, &encode_snapshot(&[producer]));
    let epochs = encode_epochs(&[EpochStart { epoch: 2, start_offset: 0 }]);
    fs::write(partition.directory().join("leader-epoch-checkpoint"), epochs).expect("written");
    let id = "0b5b4a83-6e4d-4e2a-9d5e-0123456789ab".parse().expect("an id");
    fs::write(partition.directory().join("partition.metadata"), encode_metadata(id)).expect("written");

    let first = indexes.offsets.entries()[0];
    let verify = Options { verify: true, ..Options::default() };
    let (text, damages) = dumped(partition.root.path(), &verify);
    for line in [
        format!("offset: {} position: {}", first.relative_offset, first.position),
        "timestamp: 1039 offset: 39".to_owned(),
        "producerId: 3 producerEpoch: 1 coordinatorEpoch: -1 currentTxnFirstOffset: OptionalLong.empty lastTimestamp: 5 firstSequence: 2 \
         lastSequence: 4 lastOffset: 9 offsetDelta: 2 timestamp: 5"
            .to_owned(),
        "epoch: 2 startOffset: 0".to_owned(),
        format!("uuid: {id}"),
    ] {
        assert!(text.contains(&line), "{line}\n{text}");
    }
    assert!(text.contains("are allocated and not written"), "{text}");
    assert!(!text.contains("Mismatch"), "{text}");
    assert_eq!(damages, 0);

    let mut shifted = indexes.offsets.encode();
    shifted[7] ^= 1;
    fs::write(&index, shifted).expect("written");
    let (text, damages) = dumped(&index, &verify);
    assert!(text.contains("Mismatch: no batch begins there"), "{text}");
    assert_eq!(damages, 1);
}

#[test]
fn journal_frames_are_read_with_the_brokers_decoder() {
    let root = tempfile::tempdir().expect("a directory");
    let journal = PathBuf::from("/journal");
    let disk = SimDisk::new(5, &[&journal]);
    let mut executor = Executor::new(&disk, 5);
    let position = JournalPosition {
        core: 0,
        start: 4,
        salt: 0xabcd,
        generation: 1,
        current: Which::A,
        next_sequence: 1,
        offset: 0,
        file_bytes: FILE_BYTES_MIN,
    };
    let (write, directory) = (disk.clone(), journal.clone());
    executor.block_on(async move {
        for which in [Which::A, Which::B] {
            prepare_file(&write, &file_path(&directory, 0, which), FILE_BYTES_MIN).await.expect("prepared");
        }
        let line = Line { partition: PartitionId(7), segment_base: 0, flushed: 4096, batch_start: 10, index_end: 0, log_start: 0 };
        let position = write_first_head(&write, &directory, position, &[line], &[]).await.expect("written");
        let mut writer = JournalWriter::open(write.clone(), &directory, position).await.expect("opened");
        let batch = BatchBuilder::new().at(30, 4).record(1, None, Some(b"v")).build();
        let bytes = vec![Chunk::padded(&batch).sub(0, batch.len())];
        let item = Item::Bytes { partition: PartitionId(7), segment_base: 0, position: 4096, bytes };
        writer.frame(&[item, Item::LogStart { partition: PartitionId(7), offset: 3 }]).await.expect("written");
        let block = Superblock { sequence: 2, start: 4, salt: 0xabcd, journals: 1, epoch_floor: 6, clean: false };
        block.write(&write, &directory).await.expect("written");
    });
    for path in [file_path(&journal, 0, Which::A), file_path(&journal, 0, Which::B), superblock_path(&journal)] {
        let bytes = disk.peek(&path).expect("exists");
        fs::write(root.path().join(path.file_name().expect("named")), bytes).expect("copied");
    }
    let (text, damages) = dumped(root.path(), &with_records());
    for line in [
        "position: 0 core: 0 start: 4 salt: 000000000000abcd generation: 1 sequence: 1 size: 40 head: 1/1 items: 1",
        "| line partition: 7 segment: 0 flushed: 4096 batchStart: 10 indexEnd: 0 logStart: 0",
        "generation: 1 sequence: 2 size: ",
        "| bytes partition: 7 segment: 0 position: 4096 size: ",
        " offsets: 30-30",
        "| logStart partition: 7 offset: 3",
        "slot: 0 version: 1 sequence: 2 start: 4 salt: 000000000000abcd journals: 1 epochFloor: 6 clean: false",
        "slot: 1 never written",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert_eq!(damages, 0);
}

#[test]
fn the_program_says_by_its_exit_code_whether_there_is_damage() {
    let partition = Partition::new();
    let mut bytes = batches(2, b"v");
    let log = partition.file(0, FileKind::Log, &bytes);
    let code = |path: &Path| Command::new(env!("CARGO_BIN_EXE_segment-dump")).arg(path).output().expect("runs").status.code();
    assert_eq!(code(&log), Some(0));
    *bytes.last_mut().expect("bytes") ^= 1;
    fs::write(&log, bytes).expect("written");
    assert_eq!(code(&log), Some(1));
    assert_eq!(code(&partition.root.path().join("nothing.log")), Some(2));
}

#[test]
fn the_dump_of_a_kafka_directory_is_kafkas_own_line_by_line() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/fixtures/kafka-4.3.1");
    let expected = fs::read_to_string(fixtures.join("DumpLogSegments.txt")).expect("readable");
    let name = |base, kind| file_name(base, kind);
    let mut text = String::new();
    for name in [
        name(0, FileKind::Log),
        name(0, FileKind::Index),
        name(0, FileKind::TimeIndex),
        name(0, FileKind::TxnIndex),
        name(261, FileKind::Snapshot),
    ] {
        let path = fixtures.join("orders-0").join(name);
        let (dumped, damages) = dumped(&path, &Options { verify: true, ..with_records() });
        assert_eq!(damages, 0);
        text.push_str(&dumped.replace(&format!("{}/", fixtures.display()), ""));
    }
    for (at, (ours, kafkas)) in text.lines().zip(expected.lines()).enumerate() {
        assert_eq!(ours, kafkas, "line {at}");
    }
    assert_eq!(text.lines().count(), expected.lines().count());
}
