//! What a broker has in its journal only, as `segment-dump` shows it: all that was acked, and never a wrong byte, while the broker
//! writes, after a kill, and after a clean stop.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use thalweg_tests::admin::Admin;
use thalweg_tests::broker::{Broker, Kind, Options};
use thalweg_tests::clients::{Family, Produce, Session};
use thalweg_tests::reader::read_topic;
use thalweg_tests::records::{Record, all_acked_were_read, by_place, exactly_the_acked_were_read, offsets_rise};
use thalweg_tests::scratch::Scratch;
use tools::dump::{Format, Mode, Outcome, Range, Request, run};

const TOPIC: &str = "small";
const PARTITIONS: i32 = 2;
/// Too few for a segment.
const FEW: u64 = 60;
/// How often a busy broker's files are read.
const POLLS: usize = 100;

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
        let mut broker = Broker::start(scratch, Options { kind: Kind::Thalweg, ..Options::default() })?;
        let settings = [("segment.bytes", "2097152")];
        Admin::new(&broker.bootstrap())?.create(TOPIC, PARTITIONS, &settings)?;
        // A second topic that is compacted all the time: its segments are replaced.
        let compacted = [("segment.bytes", "1048576"), ("cleanup.policy", "compact"), ("min.cleanable.dirty.ratio", "0.01")];
        Admin::new(&broker.bootstrap())?.create("table", PARTITIONS, &compacted)?;
        let task = |topic: &str, size, per_second| Produce {
            count: None,
            size,
            per_second: Some(per_second),
            ..Produce::new(&broker.bootstrap(), topic, "busy")
        };
        let mut producer = Session::produce(scratch, Family::Rdkafka, task(TOPIC, 700, 5_000))?;
        let mut other = Session::produce(scratch, Family::Rdkafka, task("table", 300, 5_000))?;
        for session in [&mut producer, &mut other] {
            let everywhere =
                |session: &Session| (0..PARTITIONS).all(|partition| session.acked.iter().any(|acked| acked.partition == partition));
            session.until("have records acked in each partition", everywhere)?;
        }
        let (mut from_journal, mut generations) = (0, std::collections::BTreeSet::new());
        for poll in 0..POLLS {
            producer.drain()?;
            other.drain()?;
            let partition = (poll / 2) as i32 % PARTITIONS;
            let (topic, session) = if poll % 2 == 0 { (TOPIC, &producer) } else { ("table", &other) };
            let directory = broker.data().join(format!("{topic}-{partition}"));
            let acked: Vec<Record> = session.acked.iter().filter(|record| record.partition == partition).cloned().collect();
            let last = acked.last().context("acked records")?.offset;
            let from = if poll % 8 < 2 { 0 } else { last - 500 };
            let seen = dump(&directory, Some(from), 0).with_context(|| format!("poll {poll}"))?;
            from_journal += seen.in_journal;
            offsets_rise(&seen.records)?;
            let wanted: Vec<Record> = acked.into_iter().filter(|record| record.offset >= from).collect();
            if topic == TOPIC {
                all_acked_were_read(&wanted, &seen.records).with_context(|| format!("poll {poll} from {from}"))?;
            }
            // Of a compacted topic not all are there any more, but the last one is, and each that is there is what was sent.
            let places = by_place(&seen.records)?;
            for record in &wanted {
                let found = places.get(&(record.partition, record.offset));
                ensure!(found.is_none_or(|found| *found == record), "poll {poll}: {record:?} is shown as {found:?}");
            }
            ensure!(places.contains_key(&(partition, last)), "poll {poll}: {last} of {topic}-{partition} is missing");
            generations.extend(generation(&broker)?);
        }
        let verified = verify(broker.data())?;
        ensure!(verified.0 == Outcome::Clean, "{}", verified.1);
        ensure!(from_journal > 0 && generations.len() > 3, "{from_journal} batches came from the journal, of {generations:?}");
        // The producers go on while the broker is killed: what was acked until then is there.
        broker.kill()?;
        let _ = (producer.drain(), other.drain());
        for partition in 0..PARTITIONS {
            let seen = dump(&broker.data().join(format!("{TOPIC}-{partition}")), None, 0)?;
            let acked: Vec<Record> = producer.acked.iter().filter(|record| record.partition == partition).cloned().collect();
            all_acked_were_read(&acked, &seen.records).context("killed")?;
        }
        let verified = verify(broker.data())?;
        ensure!(verified.0 == Outcome::Clean, "{}", verified.1);
        Ok(())
    });
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
