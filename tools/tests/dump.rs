//! What `segment-dump` prints and sums up, and what of it is chosen.

mod support;

use engine::{
    batch::{BatchBuilder, Codec, Header, control_batch},
    disk::Chunk,
    ids::PartitionId,
    journal::{Item, Line},
    segment::{EpochStart, FileKind, NO_TRANSACTION, ProducerState, SequencedBatch, encode_epochs, encode_metadata, encode_snapshot},
};
use std::{fs, path::Path, process::Command};
use support::{Partition, batches, dumped, indexes_of, locked, verify, with_records, write_journal};
use tools::dump::{Mode, Outcome, Range, Request, Select};

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
    let (text, outcome) = dumped(&log, &with_records());
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
    assert_eq!((text, outcome), (expected, Outcome::Clean));
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
    let (text, outcome) = dumped(&partition.file(0, FileKind::Log, &allocated), &Request::default());
    assert!(text.ends_with(&format!("{} bytes from position {} on are allocated and not written\n", (1 << 16) - whole.len(), whole.len())));
    assert_eq!((text.matches("isvalid: true").count(), outcome), (3, Outcome::Clean));

    // The last batch's end is in the journal: its segment holds whole blocks only.
    let mut half = whole.clone();
    half[24_576..].fill(0);
    half.resize(1 << 16, 0);
    let (text, outcome) = dumped(&partition.file(0, FileKind::Log, &half), &Request::default());
    assert!(text.contains("is not whole here yet: its end is in the journal"), "{text}");
    assert_eq!((text.matches("isvalid: true").count(), outcome), (2, Outcome::Clean));
}

#[test]
fn damage_is_shown_and_what_follows_still_printed() {
    let partition = Partition::new();
    let bytes = batches(3, b"value");
    let one = bytes.len() / 3;
    let mut flipped = bytes.clone();
    flipped[one + one - 1] ^= 1;
    let (text, outcome) = dumped(&partition.file(0, FileKind::Log, &flipped), &Request::default());
    assert_eq!((text.matches("isvalid: true").count(), text.matches("isvalid: false").count(), outcome), (2, 1, Outcome::Corrupt));

    let mut garbled = bytes.clone();
    garbled[one + 16] = 1;
    let (text, outcome) = dumped(&partition.file(0, FileKind::Log, &garbled), &Request::default());
    assert!(text.contains(&format!("Found {one} invalid bytes: position {one}: magic 1 is not 2")), "{text}");
    assert_eq!((text.matches("isvalid: true").count(), outcome), (2, Outcome::Corrupt));
}

#[test]
fn filters_leave_out_the_rest() {
    let partition = Partition::new();
    let mut bytes = batches(5, b"v");
    bytes.extend(BatchBuilder::new().at(5, 2).producer(8, 0, 0).record(1, Some(b"other"), None).build());
    let log = partition.file(0, FileKind::Log, &bytes);
    let range = |text: &str| Some(text.parse::<Range>().expect("a range"));
    let count = |select: Select| dumped(&log, &Request { select, ..Request::default() }).0.matches("baseOffset").count();
    assert_eq!(count(Select { offsets: range("3.."), ..Select::default() }), 3);
    assert_eq!(count(Select { offsets: range("1..2"), ..Select::default() }), 2);
    assert_eq!(count(Select { offsets: range("3.."), batches_max: Some(2), ..Select::default() }), 2);
    assert_eq!(count(Select { producers: range("8"), ..Select::default() }), 1);
    assert_eq!(count(Select { timestamps: range("1002..1003"), ..Select::default() }), 2);
    assert_eq!(count(Select { keys: Some("other".parse().expect("a key")), ..Select::default() }), 1);
    assert_eq!(count(Select { keys: Some("a..l".parse().expect("keys")), ..Select::default() }), 5);
}

/// A search that goes through the indexes finds what a scan finds; and an index that is wrong hides nothing.
#[test]
fn seeking_finds_what_scanning_finds() {
    let partition = Partition::new();
    let bytes = batches(60, &[3; 5_000]);
    let log = partition.file(0, FileKind::Log, &bytes);
    let found = |request: &Request| dumped(&log, request).0;
    let mut requests = Vec::new();
    for from in 0..60 {
        let range = Some(Range { from: Some(from), to: Some(from + 2) });
        requests.push(Request { select: Select { offsets: range, ..Select::default() }, ..with_records() });
        let range = Some(Range { from: Some(1_000 + from), to: None });
        requests.push(Request { select: Select { timestamps: range, ..Select::default() }, ..with_records() });
    }
    let scanned: Vec<String> = requests.iter().map(found).collect();
    let indexes = indexes_of(&bytes);
    assert!(indexes.offsets.entries().len() > 2);
    partition.file(0, FileKind::Index, &indexes.offsets.encode());
    partition.file(0, FileKind::TimeIndex, &indexes.times.encode());
    assert_eq!(requests.iter().map(found).collect::<Vec<_>>(), scanned);
    let mut shifted = indexes.offsets.encode();
    shifted[7] ^= 1;
    partition.file(0, FileKind::Index, &shifted);
    assert_eq!(requests.iter().map(found).collect::<Vec<_>>(), scanned);
}

#[test]
fn a_partition_directory_is_printed_file_by_file_and_its_indexes_are_verified() {
    let partition = Partition::new();
    let bytes = batches(40, &[1; 9_000]);
    partition.file(0, FileKind::Log, &bytes);
    let indexes = indexes_of(&bytes);
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
    let (text, outcome) = dumped(partition.root.path(), &Request::default());
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
    assert_eq!(outcome, Outcome::Clean);
    assert_eq!(dumped(partition.root.path(), &verify()).1, Outcome::Clean);

    let mut shifted = indexes.offsets.encode();
    shifted[7] ^= 1;
    fs::write(&index, shifted).expect("written");
    let (text, outcome) = dumped(&index, &verify());
    assert!(text.contains("no batch begins at position"), "{text}");
    assert_eq!(outcome, Outcome::Corrupt);
}

#[test]
fn journal_frames_are_read_with_the_brokers_decoder() {
    let root = tempfile::tempdir().expect("a directory");
    let line = Line { partition: PartitionId(7), segment_base: 0, flushed: 4096, batch_start: 10, index_end: 0, log_start: 0 };
    let batch = BatchBuilder::new().at(30, 4).record(1, None, Some(b"v")).build();
    let bytes = vec![Chunk::padded(&batch).sub(0, batch.len())];
    let item = Item::Bytes { partition: PartitionId(7), segment_base: 0, position: 4096, bytes };
    let log_start = |offset| Item::LogStart { partition: PartitionId(7), offset };
    write_journal(root.path(), line, vec![vec![item, log_start(3)], vec![log_start(4)]], false);
    let (text, outcome) = dumped(root.path(), &with_records());
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
    assert_eq!(outcome, Outcome::Clean);
    assert_eq!(dumped(root.path(), &verify()).1, Outcome::Clean);

    // The last frame may be torn: it was in flight. One before it may not, and no file may be missing.
    let file = root.path().join("core-0.a");
    let sound = fs::read(&file).expect("readable");
    for (at, expected) in [(2 * 4096 + 70, Outcome::Clean), (4096 + 70, Outcome::Corrupt), (70, Outcome::Corrupt)] {
        let mut bytes = sound.clone();
        bytes[at] ^= 1;
        fs::write(&file, bytes).expect("written");
        let (text, outcome) = dumped(root.path(), &verify());
        assert_eq!(outcome, expected, "byte {at}: {text}");
    }
    fs::remove_file(&file).expect("removed");
    assert_eq!(dumped(root.path(), &verify()).1, Outcome::Corrupt);
}

#[test]
fn the_program_says_by_its_exit_code_what_it_found() {
    let partition = Partition::new();
    let mut bytes = batches(2, b"v");
    let log = partition.file(0, FileKind::Log, &bytes);
    let code = |arguments: &[&str], path: &Path| {
        Command::new(env!("CARGO_BIN_EXE_segment-dump")).args(arguments).arg(path).output().expect("runs").status.code()
    };
    assert_eq!((code(&[], &log), code(&["--verify"], &log)), (Some(0), Some(0)));
    fs::write(&log, &bytes[..bytes.len() - 3]).expect("written");
    assert_eq!((code(&[], &log), code(&["--verify"], &log)), (Some(0), Some(3)));
    bytes[65] ^= 1;
    fs::write(&log, bytes).expect("written");
    assert_eq!((code(&[], &log), code(&["--verify"], &log)), (Some(4), Some(4)));
    let missing = partition.root.path().join("nothing");
    for mode in [None, Some("--summary"), Some("--verify"), Some("--repair")] {
        let output = Command::new(env!("CARGO_BIN_EXE_segment-dump")).args(mode).arg(&missing).output().expect("runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let expected = format!("segment-dump: can't read {}: No such file or directory", missing.display());
        assert!(said.starts_with(&expected) && output.status.code() == Some(2), "{mode:?}: {said}");
    }
    assert_eq!(code(&["--offset", "9..1"], &log), Some(2));
}

#[test]
fn many_damages_before_an_allocated_end_are_read_once() {
    // 20,000 damages, and 64 MiB of zeros behind them: looked through anew for each they would be 1.3 TB.
    let mut bytes = batches(40_000, b"value");
    let one = bytes.len() / 40_000;
    for batch in (0..40_000).step_by(2) {
        bytes[batch * one + one - 1] ^= 1;
    }
    bytes.resize(bytes.len() + (64 << 20), 0);
    let partition = Partition::new();
    let (text, outcome) = dumped(&partition.file(0, FileKind::Log, &bytes), &Request::default());
    assert_eq!((text.matches("isvalid: false").count(), outcome), (20_000, Outcome::Corrupt));
}

#[test]
fn no_batches_are_none() {
    let partition = Partition::new();
    let log = partition.file(0, FileKind::Log, &batches(3, b"v"));
    for path in [&log, &partition.directory()] {
        let none = Request { select: Select { batches_max: Some(0), ..Select::default() }, ..Request::default() };
        assert!(!dumped(path, &none).0.contains("baseOffset"));
    }
}

#[test]
fn a_time_index_that_was_cut_between_two_entries_hides_nothing() {
    let partition = Partition::new();
    let bytes = batches(60, &[3; 5_000]);
    partition.file(0, FileKind::Log, &bytes);
    partition.file(60, FileKind::Log, &BatchBuilder::new().at(60, 2).record(5_000, None, Some(b"v")).build());
    let indexes = indexes_of(&bytes);
    partition.file(0, FileKind::Index, &indexes.offsets.encode());
    let times = indexes.times.encode();
    let select = Select { timestamps: Some("1055..".parse().expect("a range")), ..Select::default() };
    for entries in (0..=times.len() / 12).rev() {
        partition.file(0, FileKind::TimeIndex, &times[..entries * 12]);
        let (text, _) = dumped(&partition.directory(), &Request { select: select.clone(), ..Request::default() });
        assert_eq!(text.matches("baseOffset").count(), 6, "{entries} entries: {text}");
    }
}

#[test]
fn a_summary_says_by_its_outcome_that_something_is_damaged_and_forgives_what_is_in_motion() {
    let summary = Request { mode: Mode::Summary, ..Request::default() };
    let partition = Partition::new();
    let sound = batches(3, b"v");
    let (one, mut torn) = (sound.len() / 3, sound.clone());
    let log = partition.file(0, FileKind::Log, &sound);
    assert_eq!(dumped(&log, &summary).1, Outcome::Clean);
    torn.extend([7; 100]);
    fs::write(&log, &torn).expect("written");
    assert_eq!(dumped(&log, &summary).1, Outcome::TornTail);
    let mut flipped = sound.clone();
    flipped[2 * one - 1] ^= 1;
    fs::write(&log, &flipped).expect("written");
    assert_eq!(dumped(&log, &summary).1, Outcome::Corrupt);
    // Another process has the lock, as a broker would: what does not look whole is being written.
    let mut holder = locked(partition.root.path());
    let (text, outcome) = dumped(&log, &summary);
    holder.kill().expect("ended");
    holder.wait().expect("ended");
    assert_eq!(outcome, Outcome::Clean, "{text}");
    assert!(text.contains("damaged        0 places"), "{text}");
}
