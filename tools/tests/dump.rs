//! What `segment-dump` prints, and what it calls damage.

mod support;

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
    },
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use support::{Partition, dumped, locked};
use tools::dump::{Format, Look, Mode, Outcome, Range, Request, Select, run};

fn with_records() -> Request {
    Request { records: true, ..Request::default() }
}

fn verify() -> Request {
    Request { mode: Mode::Verify, ..Request::default() }
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

fn indexes_of(bytes: &[u8]) -> Indexes {
    let mut indexes = Indexes::new(0);
    engine::batch::scan(bytes, engine::batch::Scanner::new(0, 0, 0), |position, header, _| indexes.push(position, header));
    indexes.seal();
    indexes
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

/// Batches of as many records as are given, at these offsets.
fn at(places: &[(i64, i64)]) -> Vec<Vec<u8>> {
    let batch = |(offset, count): &(i64, i64)| {
        (0..*count)
            .fold(BatchBuilder::new().at(*offset, 0), |batch, record| batch.record(1_000 + offset + record, Some(b"k"), Some(b"v")))
            .build()
    };
    places.iter().map(batch).collect()
}

fn repair() -> Request {
    Request { mode: Mode::Repair { yes: true }, ..Request::default() }
}

#[test]
fn a_repair_puts_the_batch_right_that_is_wrong_and_not_the_one_before_it_behind_a_gap() {
    // The base offset of the third, 25, with a flipped bit: 9.
    let sound = at(&[(0, 5), (20, 5), (25, 3), (28, 3)]);
    let mut damaged = sound.concat();
    damaged[sound[0].len() + sound[1].len() + 7] ^= 16;
    let partition = Partition::new();
    let log = partition.file(0, FileKind::Log, &damaged);
    let (text, outcome) = dumped(&partition.directory(), &repair());
    assert_eq!(outcome, Outcome::Clean, "{text}");
    assert!(text.contains("base offset 9 does not fit between its neighbours: 25 would"), "{text}");
    assert_eq!(fs::read(&log).expect("readable"), sound.concat());
}

#[test]
fn where_nothing_tells_which_of_two_batches_is_wrong_a_repair_takes_out_neither() {
    let sound = at(&[(0, 5), (20, 5), (25, 3), (40, 3)]);
    let mut damaged = sound.concat();
    damaged[sound[0].len() + sound[1].len() + 7] ^= 16;
    let partition = Partition::new();
    let log = partition.file(0, FileKind::Log, &damaged);
    let (text, outcome) = dumped(&partition.directory(), &repair());
    assert_eq!(outcome, Outcome::Corrupt, "{text}");
    assert!(text.contains("one of the two is wrong, and nothing tells which"), "{text}");
    assert_eq!(fs::read(&log).expect("readable"), damaged);
}

#[test]
fn a_base_offset_below_zero_is_put_right_where_the_crc_says_that_the_batch_is_whole() {
    let sound = at(&[(0, 5), (5, 5), (10, 3)]);
    for number in 0..3 {
        let mut damaged = sound.concat();
        let position: usize = sound[..number].iter().map(Vec::len).sum();
        damaged[position] ^= 0x80;
        let partition = Partition::new();
        let log = partition.file(0, FileKind::Log, &damaged);
        dumped(&partition.directory(), &Request { mode: Mode::Summary, ..with_records() });
        let (text, outcome) = dumped(&partition.directory(), &repair());
        assert_eq!((outcome, fs::read(&log).expect("readable")), (Outcome::Clean, sound.concat()), "{number}: {text}");
    }
}

#[test]
fn a_batch_that_grows_beyond_what_is_looked_at_is_left_in_the_log() {
    let value = vec![0; 130 << 20];
    let large = BatchBuilder::new().at(0, 0).codec(Codec::Zstd).record(1, None, Some(&value)).build();
    let partition = Partition::new();
    let log = partition.file(0, FileKind::Log, &large);
    let (text, outcome) = dumped(&log, &Request { records: true, ..verify() });
    assert_eq!(outcome, Outcome::Clean, "{text}");
    assert!(text.starts_with("note: ") && text.contains("its records are not looked at"), "{text}");
    dumped(&log, &Request { records: true, ..repair() });
    assert_eq!(fs::read(&log).expect("readable"), large);
}

#[test]
fn an_index_of_another_segment_is_a_few_findings_and_not_one_for_each_entry() {
    let partition = Partition::new();
    partition.file(0, FileKind::Log, &batches(3, b"v"));
    let entries: Vec<u8> = (1..100_000u32).flat_map(|entry| [entry.to_be_bytes(), (entry * 3).to_be_bytes()].concat()).collect();
    partition.file(0, FileKind::Index, &entries);
    let (text, outcome) = dumped(&partition.directory(), &verify());
    assert_eq!(outcome, Outcome::Corrupt);
    assert!(text.lines().count() < 60 && text.contains("more entries are wrong, the last of them:"), "{text}");
    assert_eq!(dumped(&partition.directory(), &repair()).1, Outcome::Clean);
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

#[test]
fn a_symbolic_link_does_not_lead_around_the_lock_of_a_running_broker() {
    let partition = Partition::new();
    let mut bytes = batches(3, b"v");
    let end = bytes.len() - 1;
    bytes[end] ^= 1;
    let log = partition.file(0, FileKind::Log, &bytes);
    let elsewhere = tempfile::tempdir().expect("a directory");
    let link = elsewhere.path().join("orders-0");
    std::os::unix::fs::symlink(partition.directory(), &link).expect("linked");
    let mut holder = locked(partition.root.path());
    let mut out = Vec::new();
    let refused = run(&Request { paths: vec![link], ..repair() }, &mut out).err().map(|error| format!("{error:#}"));
    holder.kill().expect("ended");
    holder.wait().expect("ended");
    assert!(refused.as_deref().is_some_and(|said| said.contains("stop it first")), "{refused:?}");
    assert_eq!(fs::read(&log).expect("readable"), bytes);
}

/// Makes the partition one of Thalweg's, stopped cleanly or not: its journal has one line of it.
fn thalwegs(partition: &Partition, segment_base: i64, end: usize, clean: bool) {
    let end = u32::try_from(end).expect("small");
    let line = Line { partition: PartitionId(7), segment_base, flushed: end, batch_start: end, index_end: 0, log_start: 0 };
    journaled(partition, line, &[], clean);
}

/// Makes the partition one of Thalweg's with this line in its journal, and these bytes in frames behind it.
fn journaled(partition: &Partition, line: Line, frames: &[(u32, &[u8])], clean: bool) {
    let mark = format!("version: 0\npartition: {}\n", line.partition.0);
    fs::write(partition.directory().join("thalweg.partition"), mark).expect("written");
    let item = |(position, bytes): &(u32, &[u8])| {
        let bytes = if bytes.is_empty() { Vec::new() } else { vec![Chunk::padded(bytes).sub(0, bytes.len())] };
        Item::Bytes { partition: line.partition, segment_base: line.segment_base, position: *position, bytes }
    };
    let to = partition.root.path().join("journal");
    fs::create_dir_all(&to).expect("created");
    write_journal(&to, line, frames.iter().map(|frame| vec![item(frame)]).collect(), clean);
}

/// Writes the journal of one core into `to`: a head with this line, and frames with these items.
fn write_journal(to: &Path, line: Line, frames: Vec<Vec<Item>>, clean: bool) {
    let journal = PathBuf::from("/journal");
    let disk = SimDisk::new(5, &[&journal]);
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
    Executor::new(&disk, 5).block_on(async move {
        for which in [Which::A, Which::B] {
            prepare_file(&write, &file_path(&directory, 0, which), FILE_BYTES_MIN).await.expect("prepared");
        }
        let position = write_first_head(&write, &directory, position, &[line], &[]).await.expect("written");
        let mut writer = JournalWriter::open(write.clone(), &directory, position).await.expect("opened");
        for items in frames {
            writer.frame(&items).await.expect("written");
        }
        let block = Superblock { sequence: 2, start: 4, salt: 0xabcd, journals: 1, epoch_floor: 6, clean };
        block.write(&write, &directory).await.expect("written");
    });
    for path in [file_path(&journal, 0, Which::A), file_path(&journal, 0, Which::B), superblock_path(&journal)] {
        fs::write(to.join(path.file_name().expect("named")), disk.peek(&path).expect("exists")).expect("copied");
    }
}

/// The findings, as JSON.
fn findings(path: &Path) -> String {
    let look = Look { format: Format::Json, ..Look::default() };
    let (text, _) = dumped(path, &Request { look, ..verify() });
    text.lines().filter(|line| line.contains(r#""type":"finding""#)).collect::<Vec<_>>().join("\n")
}

#[test]
fn of_an_active_segment_that_the_journal_vouches_for_the_advice_is_what_works() {
    let sound = batches(3, b"v");
    let one = sound.len() / 3;
    let (mut no_batch, mut flipped, mut longer) = (sound.clone(), sound.clone(), sound.clone());
    no_batch[one + 8] = 0xff;
    flipped[2 * one - 1] ^= 1;
    longer.extend([7; 100]);
    let cut = sound[..sound.len() - 3].to_vec();
    for (damaged, advice) in [
        (no_batch, "--accept-loss goes on with what lies before"),
        (cut, "--accept-loss goes on with what lies before"),
        (flipped, "once it has begun a later segment"),
        (longer, "start the broker: when it opens the partition it cuts off"),
    ] {
        let partition = Partition::new();
        let log = partition.file(0, FileKind::Log, &damaged);
        thalwegs(&partition, 0, sound.len(), true);
        let found = findings(&partition.directory());
        assert!(found.lines().count() == 1 && found.contains(advice) && found.contains(r#""repairable":false"#), "{advice}: {found}");
        let (text, _) = dumped(&partition.directory(), &repair());
        assert!(text.contains("is left as it is") && text.contains(advice), "{text}");
        assert_eq!(fs::read(&log).expect("readable"), damaged);
    }
}

#[test]
fn a_repair_that_would_be_refused_is_not_advised_without_what_must_come_first() {
    let mut damaged = batches(3, b"v");
    damaged[20] ^= 1;
    let last = BatchBuilder::new().at(3, 2).record(5_000, None, Some(b"v")).build();
    let partition = Partition::new();
    partition.file(0, FileKind::Log, &damaged);
    partition.file(3, FileKind::Log, &last);
    assert!(findings(&partition.directory()).contains(r#""repairable":true"#));
    let mut holder = locked(partition.root.path());
    let found = findings(&partition.directory());
    holder.kill().expect("ended");
    holder.wait().expect("ended");
    assert!(found.contains("; stop the broker first") && found.contains(r#""repairable":false"#), "{found}");

    thalwegs(&partition, 3, last.len(), false);
    let found = findings(&partition.directory());
    assert!(found.contains("first start the broker once") && found.contains(r#""repairable":false"#), "{found}");
    let refused = run(&Request { paths: vec![partition.directory()], ..repair() }, &mut Vec::new()).err().map(|error| format!("{error:#}"));
    assert!(refused.as_deref().is_some_and(|said| said.contains("was not stopped cleanly")), "{refused:?}");
    thalwegs(&partition, 3, last.len(), true);
    assert!(findings(&partition.directory()).contains(r#""repairable":true"#));
    assert_eq!(dumped(&partition.directory(), &repair()).1, Outcome::Clean);

    let snapshot = partition.file(4, FileKind::Snapshot, b"none");
    let found = findings(&snapshot);
    assert!(found.contains("name the partition's directory") && found.contains(r#""repairable":false"#), "{found}");
    assert_eq!(dumped(&partition.directory(), &repair()).1, Outcome::Clean);
}

/// Where a killed broker had got to: three blocks are in the segment, and the rest is in the journal. The fourth batch lies in both.
const IN_SEGMENT: usize = 3 * 4096;

/// Six batches of a killed broker's catalog, a log like any other whose owner needs no other to be known; and one batch's size.
fn killed() -> (Partition, Vec<u8>, usize) {
    let sound = batches(6, &[7; 3_050]);
    let one = sound.len() / 6;
    assert!(3 * one < IN_SEGMENT && IN_SEGMENT < 4 * one);
    let partition = Partition::named("__catalog-0");
    let (first, second) = (&sound[IN_SEGMENT..5 * one], &sound[5 * one..]);
    journaled(&partition, line(3 * one), &[(IN_SEGMENT as u32, first), (5 * one as u32, second)], false);
    (partition, sound, one)
}

fn line(batch_start: usize) -> Line {
    let (flushed, batch_start) = (IN_SEGMENT as u32, batch_start as u32);
    Line { partition: PartitionId::CATALOG, segment_base: 0, flushed, batch_start, index_end: 0, log_start: 0 }
}

/// What the segment of a killed broker holds, with the space behind it.
fn in_segment(bytes: &[u8]) -> Vec<u8> {
    let mut held = bytes[..IN_SEGMENT].to_vec();
    held.resize(1 << 16, 0);
    held
}

#[test]
fn of_a_killed_broker_damage_below_what_the_journal_vouches_for_is_told_and_what_follows_is_shown() {
    let (partition, sound, one) = killed();
    let log = partition.file(0, FileKind::Log, &in_segment(&sound));
    let (text, outcome) = dumped(&partition.directory(), &verify());
    assert!(outcome == Outcome::Clean && text.contains("6 batches"), "{text}");
    // The length, magic, and a byte of the payload: in a batch that is flushed, and in the one whose end is in the journal.
    for (batch, at) in [(1, 8), (1, 16), (1, 100), (3, 8), (3, 16), (3, 100)] {
        let position = batch * one;
        let mut damaged = in_segment(&sound);
        damaged[position + at] ^= 1;
        fs::write(&log, damaged).expect("written");
        let found = findings(&partition.directory());
        let is_told = found.lines().count() == 1
            && found.contains(&format!(r#""position":{position}"#))
            && found.contains(&format!(r#""offset":{batch}"#))
            && found.contains("--accept-loss")
            && found.contains(r#""repairable":false"#);
        assert!(is_told, "{batch}, {at}: {found}");
        for request in [with_records(), Request { mode: Mode::Summary, ..Request::default() }, verify()] {
            assert_eq!(dumped(&log, &request).1, Outcome::Corrupt, "{batch}, {at}");
        }
        let (text, _) = dumped(&log, &Request::default());
        assert_eq!(text.matches("isvalid: true").count(), 5, "{batch}, {at}: {text}");
        let refused = run(&Request { paths: vec![partition.directory()], ..repair() }, &mut Vec::new()).err();
        assert!(refused.is_some_and(|error| format!("{error:#}").contains("was not stopped cleanly")), "{batch}, {at}");
    }
}

#[test]
fn of_a_killed_broker_a_base_offset_is_compared_with_those_behind_it() {
    let (partition, sound, one) = killed();
    for batch in [1, 3] {
        let mut damaged = in_segment(&sound);
        damaged[batch * one] ^= 0x40;
        partition.file(0, FileKind::Log, &damaged);
        let (text, outcome) = dumped(&partition.directory(), &verify());
        let expected = format!("position {} offset {}: base offset", batch * one, (1i64 << 62) + batch as i64);
        assert!(outcome == Outcome::Corrupt && text.contains(&expected) && text.contains(&format!(": {batch} would")), "{text}");
    }
}

#[test]
fn of_a_killed_broker_a_batch_whose_rest_never_came_is_no_damage() {
    let (partition, sound, one) = killed();
    // A run ended within the fourth batch, and its entry is empty.
    journaled(&partition, line(3 * one), &[(IN_SEGMENT as u32, &[][..])], false);
    let log = partition.file(0, FileKind::Log, &in_segment(&sound));
    let (text, outcome) = dumped(&partition.directory(), &verify());
    assert!(outcome == Outcome::Clean && text.contains("3 batches"), "{text}");
    assert_eq!(dumped(&log, &Request::default()).1, Outcome::Clean);
    // That it ends before a batch that was flushed is.
    fs::write(&log, &sound[..2 * one]).expect("written");
    assert!(findings(&partition.directory()).contains(&format!(r#""position":{}"#, 2 * one)));
}

#[test]
fn of_a_copy_without_its_journal_damage_is_what_a_batch_follows() {
    let sound = batches(6, &[7; 3_050]);
    let one = sound.len() / 6;
    let partition = Partition::new();
    fs::write(partition.directory().join("thalweg.partition"), "version: 0\npartition: 7\n").expect("written");
    let log = partition.file(0, FileKind::Log, &in_segment(&sound));
    let (text, outcome) = dumped(&partition.directory(), &verify());
    assert!(outcome == Outcome::Clean && text.starts_with("note: ") && text.contains("in a journal that is not here"), "{text}");
    for at in [8, 16, 100] {
        let mut damaged = in_segment(&sound);
        damaged[one + at] ^= 1;
        fs::write(&log, damaged).expect("written");
        let (text, outcome) = dumped(&partition.directory(), &verify());
        let is_told = text.contains(&format!("position {one} offset 1: ")) && text.contains("thalweg.partition");
        assert!(outcome == Outcome::Corrupt && is_told, "{at}: {text}");
        assert_eq!(dumped(&log, &Request::default()).1, Outcome::Corrupt, "{at}");
    }
}

#[test]
fn a_copy_whose_settings_name_the_journal_of_the_first_is_told_so_and_gets_nothing_of_it() {
    let (partition, sound, _) = killed();
    let log = partition.file(0, FileKind::Log, &in_segment(&sound));
    fs::write(partition.root.path().join(".lock"), "").expect("written");
    let journal = partition.root.path().join("journal");
    let copy = Partition::named("__catalog-0");
    copy.file(0, FileKind::Log, &fs::read(&log).expect("readable"));
    fs::copy(partition.directory().join("thalweg.partition"), copy.directory().join("thalweg.partition")).expect("copied");
    fs::write(copy.root.path().join("thalweg.settings"), format!("journal_dir = \"{}\"\n", journal.display())).expect("written");
    let (text, outcome) = dumped(&copy.directory(), &verify());
    assert!(outcome == Outcome::Clean && text.contains("3 batches") && text.contains("is the journal of"), "{text}");
    let (text, _) = dumped(&copy.directory(), &Request::default());
    assert!(text.matches("isvalid: true").count() == 3 && text.contains("is the journal of"), "{text}");
    let (text, outcome) = dumped(&partition.directory(), &verify());
    assert!(outcome == Outcome::Clean && text.contains("6 batches"), "{text}");
}

#[test]
fn a_base_offset_that_no_index_can_hold_is_found_where_no_batch_follows() {
    let sound = batches(3, b"v");
    let mut damaged = sound.clone();
    damaged[2 * (sound.len() / 3)] ^= 0x40;
    let partition = Partition::new();
    let log = partition.file(0, FileKind::Log, &damaged);
    let (text, outcome) = dumped(&partition.directory(), &verify());
    assert!(outcome == Outcome::Corrupt && text.contains("is too far from the segment's: 2 would fit"), "{text}");
    let (text, outcome) = dumped(&partition.directory(), &repair());
    assert_eq!((outcome, fs::read(&log).expect("readable")), (Outcome::Clean, sound), "{text}");
}
