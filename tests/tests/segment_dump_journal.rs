//! What a broker has in its journal only, as `segment-dump` shows it: all that was acked, and never a wrong byte, while the broker
//! writes, after a kill, and after a clean stop.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use thalweg_tests::admin::Admin;
use thalweg_tests::broker::{Broker, Kind, Options};
use thalweg_tests::clients::{Family, Produce, Session};
use thalweg_tests::reader::read_topic;
use thalweg_tests::records::{Record, all_acked_were_read, by_place, exactly_the_acked_were_read, offsets_rise};
use thalweg_tests::scratch::Scratch;
use thalweg_tests::wire::{Wire, batch, now_ms};
use tools::dump::{Format, Mode, Outcome, Range, Request, run};

const TOPIC: &str = "small";
const PARTITIONS: i32 = 2;
/// Too few for a segment.
const FEW: u64 = 60;
/// The topic that is compacted while it is read.
const TABLE: &str = "table";
/// How often a busy broker's files are read.
const POLLS: usize = 100;
/// Batches of each partition that are acked between two readings, at least and at most, and at most where the whole log is read.
const BATCHES_MIN: usize = 20;
const BATCHES_MAX: usize = 40;
const BATCHES_OF_WHOLE_MAX: usize = 120;
/// Records of a batch, and their keys.
const RECORDS: usize = 8;
const KEYS: usize = 1_000;
/// A bound for a hang.
const WITHIN: Duration = Duration::from_secs(60);

#[test]
fn a_topic_that_is_only_in_the_journal_is_shown_live_killed_and_stopped() {
    thalweg_tests::run("dump-journal", |scratch| {
        let mut broker = Broker::start(scratch, Options { kind: Kind::Thalweg, ..Options::default() })?;
        Admin::new(&broker.bootstrap())?.create(TOPIC, PARTITIONS, &[])?;
        let mut acked = produce(scratch, &broker, "first", FEW, 100)?;
        shown_everywhere(&broker, &acked, true).context("live")?;
        broker.kill()?;
        shown_everywhere(&broker, &acked, true).context("killed")?;
        // What the next start carries on, with what follows it, and killed again.
        broker.launch()?;
        shown_everywhere(&broker, &acked, true).context("after the start")?;
        acked.extend(produce(scratch, &broker, "second", FEW, 100)?);
        shown_everywhere(&broker, &acked, true).context("live again")?;
        broker.kill()?;
        shown_everywhere(&broker, &acked, true).context("killed again")?;
        broker.launch()?;
        exactly_the_acked_were_read(&acked, &read_topic(scratch, &broker.bootstrap(), TOPIC)?)?;
        broker.stop()?;
        shown_everywhere(&broker, &acked, false).context("stopped")
    });
}

#[test]
fn no_record_is_missing_or_wrong_while_journals_and_segments_change_underneath() {
    thalweg_tests::run("dump-journal-busy", |scratch| {
        // A small journal, so that its files are begun anew all the time.
        let options = Options { kind: Kind::Thalweg, journal_size: "8MiB", ..Options::default() };
        let mut broker = Broker::start(scratch, options)?;
        let admin = Admin::new(&broker.bootstrap())?;
        admin.create(TOPIC, PARTITIONS, &[("segment.bytes", "2097152")])?;
        // A second topic that is compacted all the time: its segments are replaced.
        let compacted = [("segment.bytes", "1048576"), ("cleanup.policy", "compact"), ("min.cleanable.dirty.ratio", "0.01")];
        admin.create(TABLE, PARTITIONS, &compacted)?;
        // An idempotent producer beside them: what heads say of it is passed over.
        admin.create("beside", 1, &[])?;
        let task = Produce { count: Some(30_000), per_second: Some(1_000), ..Produce::new(&broker.bootstrap(), "beside", "beside") };
        let _beside = Session::produce(scratch, Family::Rdkafka, task)?;
        let topics = [(TOPIC, 500), (TABLE, 300)];
        let places = (0..PARTITIONS).flat_map(|partition| topics.map(|(topic, size)| (topic, partition, size)));
        let writers: Vec<Writer> = places.map(|(topic, partition, size)| Writer::start(&broker, topic, partition, size)).collect();
        let (mut from_journal, mut generations, mut allowed) = (0, std::collections::BTreeSet::new(), 0);
        for poll in 0..POLLS {
            let is_whole = poll % 8 < 2;
            allowed += if is_whole { BATCHES_OF_WHOLE_MAX } else { BATCHES_MAX };
            writers.iter().for_each(|writer| writer.allow(allowed));
            writers.iter().try_for_each(|writer| writer.has_acked((poll + 1) * BATCHES_MIN))?;
            let writer = &writers[poll % writers.len()];
            let (topic, partition) = (writer.topic, writer.partition);
            let last = writer.last()?;
            let from = if is_whole { 0 } else { (last.offset - 500).max(0) };
            let wanted = writer.acked_from(from);
            let directory = broker.data().join(format!("{topic}-{partition}"));
            let seen = dump(&directory, Some(from), 0).with_context(|| format!("poll {poll}"))?;
            from_journal += seen.in_journal;
            offsets_rise(&seen.records)?;
            if topic == TOPIC {
                all_acked_were_read(&wanted, &seen.records).with_context(|| format!("poll {poll} from {from}"))?;
            }
            // Of a compacted topic not all are there any more, but the last one is, or a later one of its key, and each that is there
            // is what was sent.
            let places = by_place(&seen.records)?;
            for record in &wanted {
                let found = places.get(&(record.partition, record.offset));
                ensure!(found.is_none_or(|found| *found == record), "poll {poll}: {record:?} is shown as {found:?}");
            }
            let is_known = |record: &Record| record.offset >= last.offset && record.key == last.key;
            ensure!(seen.records.iter().any(is_known), "poll {poll}: {last:?} of {topic}-{partition} is missing");
            generations.extend(generation(&broker)?);
        }
        allowed += BATCHES_OF_WHOLE_MAX;
        writers.iter().for_each(|writer| writer.allow(allowed));
        let verified = verify(broker.data())?;
        ensure!(verified.0 == Outcome::Clean, "{}", verified.1);
        // Two files of each of the two cores are there from the beginning.
        ensure!(from_journal > 0 && generations.len() > 6, "{from_journal} batches came from the journal, of {generations:?}");
        // They go on writing while the broker is killed: what was acked until then is there.
        let begun: Vec<usize> = writers.iter().map(Writer::batches).collect();
        writers.iter().for_each(|writer| writer.allow(usize::MAX));
        writers.iter().zip(begun).try_for_each(|(writer, begun)| writer.has_acked(begun + BATCHES_MIN))?;
        broker.kill()?;
        for writer in writers {
            let (topic, partition) = (writer.topic, writer.partition);
            let acked = writer.end();
            if topic == TOPIC {
                let seen = dump(&broker.data().join(format!("{TOPIC}-{partition}")), None, 0)?;
                all_acked_were_read(&acked, &seen.records).context("killed")?;
            }
        }
        let verified = verify(broker.data())?;
        ensure!(verified.0 == Outcome::Clean, "{}", verified.1);
        Ok(())
    });
}

/// Whoever writes one partition, batch after batch, as far as it is allowed to: so much changes while its files are read, and so much is
/// there to be read, however fast the machine is.
struct Writer {
    topic: &'static str,
    partition: i32,
    shared: Arc<Shared>,
    thread: JoinHandle<Result<()>>,
}

/// What a writer's thread and the test know of each other.
#[derive(Default)]
struct Shared {
    /// Every record that was acked, by offset.
    acked: Mutex<Vec<Record>>,
    /// So many batches may be written.
    allowed: AtomicUsize,
    /// The thread is to end.
    is_over: AtomicBool,
}

impl Writer {
    fn start(broker: &Broker, topic: &'static str, partition: i32, size: usize) -> Writer {
        let shared = Arc::<Shared>::default();
        let (bootstrap, mine) = (broker.bootstrap(), Arc::clone(&shared));
        let thread = std::thread::spawn(move || mine.write(&bootstrap, topic, partition, size));
        Writer { topic, partition, shared, thread }
    }

    fn allow(&self, batches: usize) {
        self.shared.allowed.store(batches, Ordering::Relaxed);
    }

    /// How many batches were acked.
    fn batches(&self) -> usize {
        self.shared.acked().len() / RECORDS
    }

    /// Waits until so many batches are acked.
    fn has_acked(&self, batches: usize) -> Result<()> {
        let began = Instant::now();
        while self.batches() < batches {
            let (count, of) = (self.batches(), format!("{}-{}", self.topic, self.partition));
            ensure!(!self.thread.is_finished(), "whoever writes {of} has ended after {count} batches");
            ensure!(began.elapsed() < WITHIN, "{of} has {count} batches, and not {batches}, after {WITHIN:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn last(&self) -> Result<Record> {
        self.shared.acked().last().cloned().context("acked records")
    }

    fn acked_from(&self, offset: i64) -> Vec<Record> {
        self.shared.acked().iter().filter(|record| record.offset >= offset).cloned().collect()
    }

    /// Everything that was acked, now that the broker is gone.
    fn end(self) -> Vec<Record> {
        self.shared.is_over.store(true, Ordering::Relaxed);
        // It ends with the error of a connection that was cut off.
        let _ = self.thread.join();
        std::mem::take(&mut *self.shared.acked())
    }
}

impl Shared {
    fn acked(&self) -> MutexGuard<'_, Vec<Record>> {
        self.acked.lock().expect("no panic under the lock")
    }

    fn write(&self, bootstrap: &str, topic: &str, partition: i32, size: usize) -> Result<()> {
        let mut wire = Wire::connect_to_leader(bootstrap, topic, partition, WITHIN)?;
        for number in 0.. {
            while number >= self.allowed.load(Ordering::Relaxed) {
                if self.is_over.load(Ordering::Relaxed) {
                    return Ok(());
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            let record = |at: usize| {
                let n = number * RECORDS + at;
                (format!("key-{}", n % KEYS), format!("{:.<size$}", format!("busy-{partition}:{n}:")))
            };
            let records: Vec<(String, String)> = (0..RECORDS).map(record).collect();
            let fields: Vec<_> = records.iter().map(|(key, value)| (Some(key.as_bytes()), Some(value.as_bytes()))).collect();
            let (error, base) = wire.produce(topic, partition, &batch(&fields, now_ms()))?;
            ensure!(error == 0, "produce to {topic}-{partition}: error {error}");
            let acked = |(offset, (key, value))| Record { partition, offset, key: Some(key), value: Some(value) };
            self.acked().extend((base..).zip(records).map(acked));
            // Where an ack takes no time, too, it goes on for as long as a reading lasts.
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

#[test]
fn a_directory_that_is_a_copy_of_a_partition_gets_no_bytes_of_another() {
    thalweg_tests::run("dump-journal-copy", |scratch| {
        let mut broker = Broker::start(scratch, Options { kind: Kind::Thalweg, ..Options::default() })?;
        let admin = Admin::new(&broker.bootstrap())?;
        admin.create(TOPIC, PARTITIONS, &[])?;
        let acked = produce(scratch, &broker, "first", FEW, 100)?;
        broker.kill()?;
        // As an import leaves it until it has handed it over, and as somebody puts it there to look at it.
        let mine = broker.data().join(format!("{TOPIC}-0"));
        let copy = broker.data().join("copy-0");
        fs::create_dir(&copy)?;
        for entry in fs::read_dir(&mine)? {
            let path = entry?.path();
            fs::copy(&path, copy.join(path.file_name().context("a name")?))?;
        }
        ensure!(dump(&copy, None, 0)?.records.is_empty(), "the copy shows what is not in it");
        fs::write(copy.join("thalweg.partition"), "version: 0\npartition: 0\nflushed: true\n")?;
        ensure!(dump(&copy, None, 0)?.records.is_empty(), "the copy shows what is the catalog's");
        let seen = dump(&mine, None, 0)?.records;
        exactly_the_acked_were_read(&acked.into_iter().filter(|record| record.partition == 0).collect::<Vec<_>>(), &seen)
    });
}

#[test]
fn an_unclean_directory_is_to_be_started_before_it_is_repaired() {
    thalweg_tests::run("dump-journal-repair", |scratch| {
        let mut broker = Broker::start(scratch, Options { kind: Kind::Thalweg, ..Options::default() })?;
        Admin::new(&broker.bootstrap())?.create(TOPIC, 1, &[])?;
        produce(scratch, &broker, "first", 5_000, 1_000)?;
        broker.stop()?;
        broker.launch()?;
        broker.kill()?;
        // In the active segment, below what the journal says is whole.
        let log = broker.data().join(format!("{TOPIC}-0/00000000000000000000.log"));
        let mut bytes = fs::read(&log)?;
        bytes[20_000] ^= 1;
        fs::write(&log, &bytes)?;
        let request = Request { paths: vec![broker.data().to_owned()], mode: Mode::Repair { yes: true }, ..Request::default() };
        let mut out = Vec::new();
        let refused = run(&request, &mut out).err().map(|error| format!("{error:#}")).unwrap_or_default();
        ensure!(refused.contains("Start the broker once") && !refused.contains("from a copy"), "{refused:?}");
        ensure!(out.is_empty() && fs::read(&log)? == bytes, "{}", String::from_utf8_lossy(&out));
        Ok(())
    });
}

#[test]
fn damage_behind_the_last_head_of_a_killed_broker_is_told_with_its_position() {
    thalweg_tests::run("dump-journal-damage", |scratch| {
        let mut broker = Broker::start(scratch, Options { kind: Kind::Thalweg, ..Options::default() })?;
        Admin::new(&broker.bootstrap())?.create(TOPIC, 1, &[])?;
        // Runs to the segment, and small batches behind them that are in the journal.
        produce(scratch, &broker, "first", 5_000, 1_000)?;
        produce(scratch, &broker, "second", FEW, 100)?;
        broker.kill()?;
        let directory = broker.data().join(format!("{TOPIC}-0"));
        let verified = verify(broker.data())?;
        ensure!(verified.0 == Outcome::Clean, "{}", verified.1);
        let batches = batches(&directory)?;
        let first = batches.iter().position(|(_, in_journal)| *in_journal).context("batches in the journal")?;
        let (position, _) = batches[first.checked_sub(1).context("batches in the segment")?];
        let log = directory.join("00000000000000000000.log");
        let sound = fs::read(&log)?;
        // The length, and magic.
        for at in [8, 16] {
            let mut bytes = sound.clone();
            bytes[position + at] ^= 1;
            fs::write(&log, &bytes)?;
            let (outcome, text) = verify(&directory)?;
            ensure!(outcome.exit_code() == 4 && text.contains(&format!("position {position} ")), "byte {at}: {outcome:?}\n{text}");
            let left = self::batches(&directory)?;
            let expected: Vec<_> = batches.iter().copied().filter(|(other, _)| *other != position).collect();
            ensure!(left == expected, "byte {at}: {} batches of {} are shown", left.len(), batches.len());
        }
        fs::write(&log, sound)?;
        Ok(())
    });
}

/// Where the batches of a log begin, and whether they are in the journal.
fn batches(directory: &Path) -> Result<Vec<(usize, bool)>> {
    let mut request = Request { paths: vec![directory.to_owned()], ..Request::default() };
    request.look.format = Format::Json;
    let mut out = Vec::new();
    run(&request, &mut out)?;
    let mut found = Vec::new();
    for line in String::from_utf8_lossy(&out).lines() {
        let line: Value = serde_json::from_str(line)?;
        if line["type"] == "batch" {
            found.push((line["position"].as_u64().context("a position")? as usize, line["inJournal"] == true));
        }
    }
    Ok(found)
}

fn produce(scratch: &Scratch, broker: &Broker, name: &str, count: u64, size: usize) -> Result<Vec<Record>> {
    let task = Produce { count: Some(count), size, ..Produce::new(&broker.bootstrap(), TOPIC, name) };
    let mut session = Session::produce(scratch, Family::Rdkafka, task)?;
    session.until("have every record acked", |session| session.done)?;
    Ok(session.acked)
}

/// Every way of looking shows what was acked, and where it is.
fn shown_everywhere(broker: &Broker, acked: &[Record], in_journal: bool) -> Result<()> {
    let mut of_partitions = Vec::new();
    for partition in 0..PARTITIONS {
        let mine: Vec<Record> = acked.iter().filter(|record| record.partition == partition).cloned().collect();
        let directory = broker.data().join(format!("{TOPIC}-{partition}"));
        let log = directory.join("00000000000000000000.log");
        for path in [&directory, &log] {
            let seen = dump(path, None, partition)?;
            exactly_the_acked_were_read(&mine, &seen.records).with_context(|| format!("{}", path.display()))?;
            ensure!((seen.in_journal > 0) == in_journal, "{} batches of {} are in the journal", seen.in_journal, path.display());
        }
        let middle = mine[mine.len() / 2].offset;
        let part: Vec<Record> = mine.iter().filter(|record| record.offset >= middle).cloned().collect();
        exactly_the_acked_were_read(&part, &dump(&directory, Some(middle), partition)?.records).context("from the middle on")?;
        let page = summary(&directory)?;
        ensure!(page["records"] == mine.len() && page["inJournal"]["known"] == true, "{page}");
        ensure!((page["inJournal"]["batches"].as_u64() > Some(0)) == in_journal, "{page}");
        of_partitions.extend(mine);
    }
    let all = dump(broker.data(), None, 0)?;
    let found: Vec<Record> =
        all.records.into_iter().filter(|record| record.value.as_deref().is_some_and(|value| value.contains(':'))).collect();
    ensure!(found.len() == of_partitions.len(), "the data directory shows {} records of {}", found.len(), of_partitions.len());
    let verified = verify(broker.data())?;
    ensure!(verified.0 == Outcome::Clean, "{}", verified.1);
    Ok(())
}

/// What is shown of a log.
struct Seen {
    records: Vec<Record>,
    /// Batches that are said to be in the journal.
    in_journal: usize,
}

/// All batches must be valid.
fn dump(path: &Path, from: Option<i64>, partition: i32) -> Result<Seen> {
    let mut request = Request { paths: vec![path.to_owned()], records: true, ..Request::default() };
    request.look.format = Format::Json;
    request.select.offsets = from.map(|from| Range { from: Some(from), to: None });
    let mut out = Vec::new();
    let outcome = run(&request, &mut out)?;
    let text = String::from_utf8_lossy(&out);
    ensure!(outcome == Outcome::Clean, "{}: {outcome:?}\n{text}", path.display());
    let partition = path.file_name().and_then(|name| name.to_str()?.rsplit_once('-')?.1.parse().ok()).unwrap_or(partition);
    let mut seen = Seen { records: Vec::new(), in_journal: 0 };
    for line in text.lines() {
        let line: Value = serde_json::from_str(line)?;
        let text = |name: &str| line[name].as_str().map(str::to_owned);
        match line["type"].as_str() {
            Some("batch") => {
                ensure!(line["isvalid"] == true, "{line}");
                seen.in_journal += usize::from(line["inJournal"] == true);
            }
            Some("record") => {
                let offset = line["offset"].as_i64().context("an offset")?;
                seen.records.push(Record { partition, offset, key: text("key"), value: text("payload") });
            }
            Some("damage") => ensure!(false, "{line}"),
            _ => {}
        }
    }
    Ok(seen)
}

fn summary(directory: &Path) -> Result<Value> {
    let mut request = Request { paths: vec![directory.to_owned()], mode: Mode::Summary, ..Request::default() };
    request.look.format = Format::Json;
    let mut out = Vec::new();
    run(&request, &mut out)?;
    Ok(serde_json::from_slice(&out)?)
}

fn verify(path: &Path) -> Result<(Outcome, String)> {
    let request = Request { paths: vec![path.to_owned()], mode: Mode::Verify, records: true, ..Request::default() };
    let mut out = Vec::new();
    let outcome = run(&request, &mut out)?;
    Ok((outcome, String::from_utf8_lossy(&out).into_owned()))
}

/// Generations of the journal's heads, by file.
fn generation(broker: &Broker) -> Result<Vec<(PathBuf, u64)>> {
    let mut found = Vec::new();
    for name in ["core-0.a", "core-0.b", "core-1.a", "core-1.b"] {
        let path = broker.data().join("journal").join(name);
        let bytes = {
            use std::io::Read as _;
            let mut front = [0; 64];
            fs::File::open(&path)?.read_exact(&mut front)?;
            front
        };
        found.push((path, u64::from_le_bytes(bytes[24..32].try_into()?)));
    }
    Ok(found)
}
