//! `segment-dump` beside real brokers: it reads what is being written without a wrong word, and what it has repaired is served.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use thalweg_tests::admin::Admin;
use thalweg_tests::broker::{Broker, Kind, Options};
use thalweg_tests::clients::{Family, Produce, Session, java};
use thalweg_tests::kafka::require_kafka;
use thalweg_tests::process::output;
use thalweg_tests::reader::read_topic;
use thalweg_tests::scratch::Scratch;
use tools::dump::{Format, Mode, Outcome, Range, Request, run};

const TOPIC: &str = "dumped";
/// Small segments, so that the readers meet rolls.
const SETTINGS: [(&str, &str); 1] = [("segment.bytes", "1048576")];
/// How often a live broker's files are read.
const POLLS: usize = 2_000;
/// What is written meanwhile, in half a minute at least: without an end a slow machine had more to read with each reading.
const LIVE_RECORDS: u64 = 30_000;

#[test]
fn a_live_broker_is_read_thousands_of_times_without_a_wrong_report() {
    thalweg_tests::run("segment-dump-live", |scratch| {
        let mut broker = Broker::start(scratch, Options { kind: Kind::Thalweg, ..Options::default() })?;
        let polls = live(scratch, &broker, POLLS)?;
        ensure!(polls.0 == POLLS && polls.1 > 1, "{polls:?} polls and segments");
        // What a killed broker leaves is not torn: the journal has the rest.
        broker.kill()?;
        clean(broker.data())?;
        broker.launch()?;
        broker.stop()?;
        clean(broker.data())
    });
}

#[test]
fn a_live_kafka_is_read_without_a_wrong_report() {
    thalweg_tests::run("segment-dump-live-kafka", |scratch| {
        require_kafka()?;
        let mut kafka = Broker::start(scratch, Options { kind: Kind::Kafka, ..Options::default() })?;
        live(scratch, &kafka, 500)?;
        kafka.stop()?;
        clean(kafka.data())
    });
}

#[test]
fn a_repaired_log_is_served_by_thalweg() {
    thalweg_tests::run("segment-dump-repair", |scratch| {
        let mut broker = Broker::start(scratch, Options { kind: Kind::Thalweg, ..Options::default() })?;
        Admin::new(&broker.bootstrap())?.create(TOPIC, 2, &SETTINGS)?;
        produce(scratch, &broker, 20_000)?;
        let refused = dump(broker.data(), Mode::Repair { yes: true }).err().map(|error| format!("{error:#}"));
        ensure!(refused.as_deref().is_some_and(|said| said.contains("stop it first")), "a running broker's data: {refused:?}");
        broker.stop()?;
        for partition in 0..2 {
            let logs = logs(&broker.data().join(format!("{TOPIC}-{partition}")))?;
            ensure!(logs.len() > 1, "{logs:?}");
            change(&logs[0], |bytes| bytes[20_000] ^= 4)?;
            change(&logs[0].with_extension("timeindex"), |bytes| bytes[3] ^= 1)?;
        }
        // The journal counts on the active segment's length: such an end is shown, and left alone.
        let active = logs(&broker.data().join(format!("{TOPIC}-0")))?.pop().context("a log")?;
        let whole = fs::read(&active)?;
        change(&active, |bytes| bytes.truncate(bytes.len() - 7))?;
        let torn = fs::read(&active)?;
        let (text, outcome) = dump(broker.data(), Mode::Repair { yes: true })?;
        ensure!(outcome != Outcome::Clean && text.contains("is left as it is") && fs::read(&active)? == torn, "{text}");
        fs::write(&active, whole)?;
        change(&logs(&broker.data().join(format!("{TOPIC}-1")))?[1].with_extension("timeindex"), |bytes| bytes[3] ^= 1)?;
        repair(broker.data())?;
        let kept = records(broker.data())?;
        broker.launch()?;
        let read = read_topic(scratch, &broker.bootstrap(), TOPIC)?;
        ensure!(read.len() as u64 == kept && kept > 10_000 && kept < 20_000, "{} read, {kept} kept", read.len());
        produce(scratch, &broker, 100)?;
        broker.kill()?;
        broker.launch()?;
        ensure!(read_topic(scratch, &broker.bootstrap(), TOPIC)?.len() as u64 == kept + 100, "what was acked after it is there");
        broker.stop()?;
        clean(broker.data())
    });
}

#[test]
fn a_repaired_log_is_opened_by_kafka() {
    thalweg_tests::run("segment-dump-repair-kafka", |scratch| {
        require_kafka()?;
        let mut kafka = Broker::start(scratch, Options { kind: Kind::Kafka, ..Options::default() })?;
        Admin::new(&kafka.bootstrap())?.create(TOPIC, 3, &SETTINGS)?;
        let mut exchange = java("Exchange")?;
        exchange.arg(json!({"cmd": "write", "bootstrap": kafka.bootstrap(), "topic": TOPIC, "transactions": true}).to_string());
        output(exchange)?;
        produce(scratch, &kafka, 30_000)?;
        kafka.stop()?;
        clean(kafka.data())?;
        let partitions = (0..3).map(|partition| logs(&kafka.data().join(format!("{TOPIC}-{partition}"))));
        let partitions: Vec<Vec<PathBuf>> = partitions.collect::<Result<_>>()?;
        // Sealed segments of some size: timestamps that jump make Kafka roll early.
        let large = |partition: usize| -> Result<Vec<PathBuf>> {
            let (_, sealed) = partitions[partition].split_last().context("a log")?;
            let size = |path: &PathBuf| fs::metadata(path).map_or(0, |metadata| metadata.len());
            let found: Vec<PathBuf> = sealed.iter().filter(|path| size(path) > 40_000).cloned().collect();
            ensure!(found.len() > 1, "{:?}", partitions[partition]);
            Ok(found)
        };
        let [zero, one, two] = [large(0)?, large(1)?, large(2)?];
        // A flipped bit, a torn tail; a bad index, a batch in the wrong place; a zeroed block, swapped indexes.
        change(&zero[0], |bytes| bytes[30_000] ^= 1)?;
        change(&partitions[0][partitions[0].len() - 1], |bytes| bytes.truncate(bytes.len() - 30))?;
        change(&one[0].with_extension("timeindex"), |bytes| bytes[3] ^= 1)?;
        change(&one[1], |bytes| bytes[3] ^= 1)?;
        change(&two[0], |bytes| bytes[8_192..12_288].fill(0))?;
        let indexes = [0, 1].map(|at: usize| two[at].with_extension("index"));
        let [first, second] = indexes.each_ref().map(fs::read);
        fs::write(&indexes[0], second?)?;
        fs::write(&indexes[1], first?)?;

        repair(kafka.data())?;
        let kept = records(kafka.data())?;
        kafka.launch()?;
        let mut exchange = java("Exchange")?;
        exchange.arg(json!({"cmd": "dump", "bootstrap": kafka.bootstrap(), "topic": TOPIC, "isolation": "read_uncommitted"}).to_string());
        let read = output(exchange)?.lines().filter(|line| !line.contains(" ends at ")).count() as u64;
        ensure!(read == kept && kept > 25_000, "{read} read, {kept} kept");
        produce(scratch, &kafka, 100)?;
        kafka.stop()?;
        clean(kafka.data())
    });
}

fn produce(scratch: &Scratch, broker: &Broker, count: u64) -> Result<()> {
    let task = Produce { count: Some(count), size: 300, ..Produce::new(&broker.bootstrap(), TOPIC, "bulk") };
    Session::produce(scratch, Family::Rdkafka, task)?.until("have every record acked", |session| session.done).map(drop)
}

/// Reads what a broker is writing, in every way; how often, and how many segments there are then.
fn live(scratch: &Scratch, broker: &Broker, polls: usize) -> Result<(usize, usize)> {
    Admin::new(&broker.bootstrap())?.create(TOPIC, 2, &SETTINGS)?;
    let (count, per_second) = (Some(LIVE_RECORDS), Some(1_000));
    let task = Produce { count, size: 500, per_second, ..Produce::new(&broker.bootstrap(), TOPIC, "live") };
    let mut producer = Session::produce(scratch, Family::Rdkafka, task)?;
    producer.until("have records acked", |session| session.acked.len() > 1_000)?;
    let mut done = 0;
    for poll in 0..polls {
        let directory = broker.data().join(format!("{TOPIC}-{}", poll % 2));
        let active = logs(&directory)?.pop().context("a log")?;
        let (path, mode) = match poll % 100 {
            99 => (broker.data().to_owned(), Mode::Verify),
            49 => (directory, Mode::Summary),
            24 | 74 => (directory, Mode::Verify),
            number if number % 10 == 5 => (active, Mode::Print),
            _ => (active, Mode::Verify),
        };
        let (text, outcome) = dump(&path, mode)?;
        ensure!(outcome == Outcome::Clean && !text.contains("isvalid: false"), "poll {poll} of {}: {outcome:?}\n{text}", path.display());
        done += 1;
        producer.drain()?;
    }
    let segments = logs(&broker.data().join(format!("{TOPIC}-0")))?.len();
    producer.stop()?;
    Ok((done, segments))
}

fn dump(path: &Path, mode: Mode) -> Result<(String, Outcome)> {
    let mut request = Request { paths: vec![path.to_owned()], mode, records: mode == Mode::Verify, ..Request::default() };
    request.select.offsets = (mode == Mode::Print).then_some(Range { from: Some(0), to: None });
    let mut out = Vec::new();
    let outcome = run(&request, &mut out)?;
    Ok((String::from_utf8_lossy(&out).into_owned(), outcome))
}

fn clean(path: &Path) -> Result<()> {
    let (text, outcome) = dump(path, Mode::Verify)?;
    ensure!(outcome == Outcome::Clean, "{}: {text}", path.display());
    Ok(())
}

fn repair(data: &Path) -> Result<()> {
    ensure!(dump(data, Mode::Verify)?.1 == Outcome::Corrupt, "the damage is found");
    let (text, outcome) = dump(data, Mode::Repair { yes: true })?;
    ensure!(outcome == Outcome::Clean, "{text}");
    Ok(())
}

/// Records of the topic that clients may read.
fn records(data: &Path) -> Result<u64> {
    let mut request = Request { paths: vec![data.to_owned()], mode: Mode::Summary, ..Request::default() };
    request.look.format = Format::Json;
    let mut out = Vec::new();
    run(&request, &mut out)?;
    let mut sum = 0;
    for line in String::from_utf8_lossy(&out).lines() {
        let page: serde_json::Value = serde_json::from_str(line)?;
        if page["file"].as_str().is_some_and(|file| file.contains(&format!("/{TOPIC}-"))) {
            sum += page["records"].as_u64().unwrap_or_default() - page["controlBatches"].as_u64().unwrap_or_default();
        }
    }
    Ok(sum)
}

/// The logs of a partition, oldest first.
fn logs(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> = fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    found.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    found.sort();
    Ok(found)
}

fn change(path: &Path, how: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
    let mut bytes = fs::read(path)?;
    how(&mut bytes);
    Ok(fs::write(path, bytes)?)
}
