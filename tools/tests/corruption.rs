//! Thousands of damaged copies of sound partitions: `--verify` finds each one that says something else, nothing panics, and
//! `--repair` makes a log of it that verifies clean and has every batch that was not damaged.
//!
//! `SEGMENT_DUMP_CORRUPTIONS` sets how many; a failure names its seed, which `SEGMENT_DUMP_SEED` runs alone.

use engine::{
    batch::{BatchBuilder, Codec, ControlRecord, HEADER_BYTES, Header, MAGIC, Scanner, control_batch, crc, scan},
    segment::{EpochStart, FileKind, Indexes, OpenTransactions, encode_epochs, encode_snapshot, file_name, parse_file_name},
};
use rand::{Rng, SeedableRng, rngs::SmallRng, seq::IndexedRandom};
use std::{
    collections::BTreeMap,
    fs,
    panic::resume_unwind,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    thread,
};
use tools::dump::{Mode, Outcome, Request, run};

/// Files by name.
type Files = BTreeMap<String, Vec<u8>>;

/// Damaged copies by default.
const COPIES: u64 = 3_000;

/// A directory as a clean stop leaves it.
struct Sound {
    files: Files,
}

impl Sound {
    /// Three segments with every codec, transactions and idempotent producers, and gaps if it is compacted.
    fn built(compacted: bool) -> Sound {
        let mut random = SmallRng::seed_from_u64(u64::from(compacted));
        let (mut files, mut offset, mut open) = (Files::new(), 0, OpenTransactions::default());
        let mut sequence = 0;
        for segment in 0..3 {
            let base = offset;
            let (mut log, mut indexes) = (Vec::new(), Indexes::new(base));
            for number in 0..30 {
                if compacted && random.random_ratio(1, 4) {
                    offset += random.random_range(1..20);
                }
                let batch = if number % 7 == 6 {
                    control_batch(offset, segment, (77, 0), number % 2 == 0, 2_000 + offset)
                } else {
                    let codec = Codec::of_id(number % 5).expect("known");
                    let mut builder = BatchBuilder::new().at(offset, segment).codec(codec);
                    builder =
                        if number % 7 > 3 { builder.producer(77, 0, sequence).transactional() } else { builder.producer(5, 0, sequence) };
                    let records = random.random_range(1..5);
                    for record in 0..records {
                        let value: Vec<u8> = (0..random.random_range(0..2_500)).map(|_| random.random()).collect();
                        builder.push(1_000 + offset + record, Some(b"key"), Some(&value), &[]);
                    }
                    sequence += records as i32;
                    builder.build()
                };
                let header = Header::read(&batch).expect("whole");
                indexes.push(log.len() as u64, &header);
                indexes.transactions.extend(open.push(&header, ControlRecord::of_batch(&header, &batch)));
                offset = header.next_offset();
                log.extend(batch);
            }
            indexes.seal();
            files.insert(file_name(base, FileKind::Log), log);
            files.insert(file_name(base, FileKind::Index), indexes.offsets.encode());
            files.insert(file_name(base, FileKind::TimeIndex), indexes.times.encode());
            files.insert(file_name(base, FileKind::TxnIndex), indexes.transactions.encode());
        }
        files.insert(file_name(offset, FileKind::Snapshot), encode_snapshot(&[]));
        let bases: Vec<i64> = logs(&files).keys().copied().collect();
        let epochs: Vec<EpochStart> = bases.iter().zip(0..).map(|(base, epoch)| EpochStart { epoch, start_offset: *base }).collect();
        files.insert("leader-epoch-checkpoint".to_owned(), encode_epochs(&epochs).into_bytes());
        Sound { files }
    }

    /// A partition that a real Kafka wrote.
    fn kafkas(partition: &str) -> Sound {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/kafka-4.3.1").join(partition);
        let entries = fs::read_dir(directory).expect("a corpus").map(|entry| entry.expect("an entry").path());
        let name = |path: &PathBuf| path.file_name().expect("named").to_string_lossy().into_owned();
        Sound { files: entries.map(|path| (name(&path), fs::read(&path).expect("readable"))).collect() }
    }
}

trait Extend {
    fn extend(&mut self, found: Option<engine::segment::AbortedTxn>);
}

impl Extend for engine::segment::TxnIndex {
    fn extend(&mut self, found: Option<engine::segment::AbortedTxn>) {
        found.into_iter().for_each(|aborted| self.push(aborted));
    }
}

fn logs(files: &Files) -> BTreeMap<i64, &Vec<u8>> {
    let parsed = files.iter().filter_map(|(name, bytes)| Some((parse_file_name(name)?, bytes)));
    parsed.filter(|((_, kind), _)| *kind == FileKind::Log).map(|((base, _), bytes)| (base, bytes)).collect()
}

/// Every whole valid batch, with its offset and epoch.
fn batches(files: &Files) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for (base, log) in logs(files) {
        scan(log, Scanner::new(0, base, i32::MIN), |_, _, batch| found.push(batch.to_vec()));
    }
    found
}

/// One damage to one file (or two, if they are swapped); what it was, for a message.
fn damage(files: &mut Files, random: &mut SmallRng) -> String {
    let mut names: Vec<String> = files.iter().filter(|(_, bytes)| !bytes.is_empty()).map(|(name, _)| name.clone()).collect();
    // What names the topic's id has nothing that it could be compared with.
    names.retain(|name| name != "partition.metadata");
    let logs: Vec<String> = names.iter().filter(|name| name.ends_with(".log")).cloned().collect();
    let name = if random.random_ratio(2, 3) { logs.choose(random) } else { names.choose(random) }.expect("files").clone();
    let bytes = files.get_mut(&name).expect("there");
    let length = bytes.len();
    match random.random_range(0..5) {
        0 | 1 => {
            let (at, bit) = (random.random_range(0..length), random.random_range(0..8));
            bytes[at] ^= 1 << bit;
            format!("bit {bit} of byte {at} of {name} flipped")
        }
        2 => {
            let to = random.random_range(0..length);
            bytes.truncate(to);
            format!("{name} cut from {length} to {to}")
        }
        3 => {
            let block = random.random_range(0..length.div_ceil(512)) * 512;
            let end = (block + 512 * random.random_range(1..4)).min(length);
            bytes[block..end].fill(0);
            format!("{name} zeroed from {block} to {end}")
        }
        _ => {
            let kind = ["index", "timeindex", "txnindex"].choose(random).expect("kinds");
            let of_kind: Vec<String> = files.keys().filter(|name| name.ends_with(&format!(".{kind}"))).cloned().collect();
            let (one, other) = (of_kind.choose(random).cloned(), of_kind.choose(random).cloned());
            let (Some(one), Some(other)) = (one, other) else { return "nothing".to_owned() };
            let (first, second) = (files[&one].clone(), files[&other].clone());
            files.insert(one.clone(), second);
            files.insert(other.clone(), first);
            format!("{one} and {other} swapped")
        }
    }
}

struct Scratch {
    root: tempfile::TempDir,
}

impl Scratch {
    fn new(files: &Files) -> Scratch {
        // Thousands of small files that are flushed: in memory, where that is possible.
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let scratch = Scratch { root: tempfile::tempdir_in(parent).expect("a directory") };
        fs::create_dir(scratch.directory()).expect("created");
        fs::write(scratch.root.path().join(".kafka_cleanshutdown"), "").expect("written");
        for (name, bytes) in files {
            fs::write(scratch.directory().join(name), bytes).expect("written");
        }
        scratch
    }

    fn directory(&self) -> PathBuf {
        self.root.path().join("orders-0")
    }

    fn files(&self) -> Files {
        let entries = fs::read_dir(self.directory()).expect("listed").map(|entry| entry.expect("an entry").path());
        entries.map(|path| (path.file_name().expect("named").to_string_lossy().into_owned(), fs::read(&path).expect("readable"))).collect()
    }

    fn run(&self, mode: Mode, records: bool) -> (String, Outcome) {
        let mut out = Vec::new();
        let outcome = run(&Request { paths: vec![self.directory()], mode, records, ..Request::default() }, &mut out).expect("readable");
        (String::from_utf8(out).expect("text"), outcome)
    }
}

/// Whether the damage says something else: zeros that were cut off an index, or bytes that were zero already, do not.
fn changes_meaning(before: &Files, after: &Files, what: &str) -> bool {
    let differing: Vec<&String> = before.keys().filter(|name| before[*name] != after[*name]).collect();
    differing.iter().any(|name| {
        let (was, is) = (&before[*name], &after[*name]);
        match name.rsplit('.').next() {
            // Fewer entries are an index that is as right: it only leads to a longer scan.
            Some("index") => !was.starts_with(is.trim_ascii_end_zeros(8)),
            // That it ends with the newest timestamp matters only in a sealed segment.
            Some("timeindex") => {
                let is_last = before.keys().rfind(|name| name.ends_with(".timeindex")) == Some(name);
                !(is_last && was.starts_with(is.trim_ascii_end_zeros(12)))
            }
            Some("leader-epoch-checkpoint") => String::from_utf8_lossy(was).trim_end() != String::from_utf8_lossy(is).trim_end(),
            // Where offsets are missing, entries may know more than the log.
            Some("txnindex") => batches(before).windows(2).all(|pair| follows(&pair[0], &pair[1])),
            // Between whole batches nothing tells that one is missing, but what the files beside it know.
            Some("log") if is.len() < was.len() => !(what.contains(" cut ") && ends_whole(is, name)),
            _ => true,
        }
    })
}

/// True if no offset is missing between two batches.
fn follows(before: &[u8], after: &[u8]) -> bool {
    let header = |bytes| Header::read(bytes).expect("whole");
    header(before).next_offset() == header(after).base_offset()
}

trait Zeros {
    fn trim_ascii_end_zeros(&self, entry: usize) -> &[u8];
}

impl Zeros for Vec<u8> {
    fn trim_ascii_end_zeros(&self, entry: usize) -> &[u8] {
        let end = self.iter().rposition(|byte| *byte != 0).map_or(0, |last| (last + 1).next_multiple_of(entry));
        &self[..end.min(self.len())]
    }
}

fn ends_whole(log: &[u8], name: &str) -> bool {
    let base = parse_file_name(name).expect("a segment's").0;
    scan(log, Scanner::new(0, base, i32::MIN), |_, _, _| ()).end.position == log.len() as u64
}

#[test]
fn each_damage_is_found_and_repaired() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let copies = number("SEGMENT_DUMP_CORRUPTIONS").unwrap_or(COPIES);
    let seeds = number("SEGMENT_DUMP_SEED").map_or(0..copies, |seed| seed..seed + 1);
    let sound =
        [Sound::built(false), Sound::built(true), Sound::kafkas("codecs-0"), Sound::kafkas("transactions-0"), Sound::kafkas("compacted-0")];
    for (at, sound) in sound.iter().enumerate() {
        let (text, outcome) = Scratch::new(&sound.files).run(Mode::Verify, true);
        assert_eq!(outcome, Outcome::Clean, "{at}: {text}");
    }
    // On every core: these threads share nothing but what is sound.
    let next = AtomicU64::new(seeds.start);
    let work = || {
        let (mut repaired, mut open) = (0u64, 0u64);
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return (repaired, open);
            }
            if let Some(is_open) = found_and_repaired(&sound, seed) {
                repaired += 1;
                open += u64::from(is_open);
            }
        }
    };
    let (repaired, open) = thread::scope(|scope| {
        let threads = thread::available_parallelism().map_or(2, usize::from);
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let done = workers.into_iter().map(|worker| worker.join().unwrap_or_else(|panic| resume_unwind(panic)));
        done.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    });
    assert!(repaired * 2 > copies || copies < 100, "{repaired} of {copies} copies were damaged");
    assert!(open * 20 < repaired || copies < 100, "{open} of {repaired} were left as they were");
}

/// The damage of a seed is found and repaired. `None` if it says nothing else than what was there, else whether nothing tells how.
fn found_and_repaired(sound: &[Sound], seed: u64) -> Option<bool> {
    let mut random = SmallRng::seed_from_u64(seed);
    let sound = sound.choose(&mut random).expect("some");
    let mut files = sound.files.clone();
    let what = damage(&mut files, &mut random);
    let scratch = Scratch::new(&files);
    for mode in [Mode::Print, Mode::Summary] {
        scratch.run(mode, true);
    }
    let (text, outcome) = scratch.run(Mode::Verify, false);
    let expected = changes_meaning(&sound.files, &files, &what);
    assert!(!expected || outcome != Outcome::Clean, "seed {seed}: {what}: not found\n{text}");
    if outcome == Outcome::Clean {
        return None;
    }
    let (text, outcome) = scratch.run(Mode::Repair { yes: true }, false);
    // Where gaps of a compaction leave it open which of two batches is wrong, neither is touched.
    let is_open = text.contains("nothing tells which");
    assert_eq!(outcome == Outcome::Clean, !is_open, "seed {seed}: {what}: not repaired\n{text}");
    nothing_is_lost(&files, &scratch.files(), &format!("seed {seed}: {what}\n{text}"));
    whole_batches_stay(&sound.files, &files, &scratch.files(), &format!("seed {seed}: {what}\n{text}"));
    Some(is_open)
}

/// Each batch that the damage did not touch is still there with its offset, before the damage and behind it. Of those whose own
/// offset was damaged one may go, where the gaps of a compaction leave no single place for it.
fn whole_batches_stay(sound: &Files, damaged: &Files, repaired: &Files, what: &str) {
    // What follows the offset and the length, with the length: that is all that a search behind damage needs.
    let kept = walked(repaired);
    let is_there = |batch: &[u8]| kept.iter().any(|other| same_content(other, batch));
    let with_offset = |batch: &[u8]| kept.iter().any(|other| same_content(other, batch) && other[..8] == batch[..8]);
    for (base, log) in logs(sound) {
        let now = damaged.get(&file_name(base, FileKind::Log)).expect("there");
        scan(log, Scanner::new(0, base, i32::MIN), |position, _, batch| {
            let position = position as usize;
            let Some(found) = now.get(position..position + batch.len()).filter(|found| same_content(found, batch)) else { return };
            if found[..8] == batch[..8] {
                assert!(with_offset(batch), "{what}: the batch at {position} of {base} was whole and is gone");
            } else {
                let may_go = what.contains(&format!("position {position} ")) && what.contains("neighbours: none would");
                assert!(is_there(batch) || may_go, "{what}: the batch at {position} of {base} is gone");
            }
        });
    }
}

/// The same but for what no CRC covers.
fn same_content(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one[8..12] == other[8..12] && one[16..] == other[16..]
}

/// Every batch whose CRC is right, by its own length, also where its offset is not: from byte to byte behind damage.
fn walked(files: &Files) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for log in logs(files).into_values() {
        let mut position = 0;
        while let Some(header) = log.get(position..).and_then(Header::read) {
            let batch = log.get(position..position.saturating_add(header.size())).unwrap_or_default();
            let is_one = header.magic() == MAGIC && batch.len() >= HEADER_BYTES && crc(batch) == header.crc();
            if is_one {
                found.push(batch.to_vec());
            }
            position += if is_one { batch.len() } else { 1 };
        }
    }
    found
}

/// Each batch that was whole is still there, and what is in no file any more lies beside.
fn nothing_is_lost(before: &Files, after: &Files, what: &str) {
    let kept = batches(after);
    let mut lost = 0;
    for (base, log) in logs(before) {
        scan(log, Scanner::new(0, base, i32::MIN), |_, _, batch| {
            let same = |other: &Vec<u8>| other.len() == batch.len() && other[16..] == batch[16..];
            lost += usize::from(!kept.iter().any(same));
        });
    }
    // One whose offset was damaged, and that compaction's gaps leave more than one place for, is taken out.
    let allowed = what.matches("neighbours: none would").count();
    assert!(lost <= allowed, "{lost} lost: {what}");
    for (name, _) in before.iter().filter(|(name, bytes)| !bytes.is_empty() && after.get(*name) != Some(bytes)) {
        let beside = after.keys().any(|other| other.starts_with(&format!("{name}.removed")));
        assert!(beside, "{what}: {name} was changed, and nothing is kept");
    }
}
