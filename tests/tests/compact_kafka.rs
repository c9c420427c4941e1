//! `compact` on the directory of a stopped Kafka: what that Kafka serves afterwards is what it served before, but for what had to go,
//! at the same offsets, however often a run was killed on the way.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use serde_json::Value;
use thalweg_tests::admin::Admin;
use thalweg_tests::broker::{Broker, Kind, Options};
use thalweg_tests::compacting::{
    PARTITIONS, TIMEOUT, TOPICS, Written, compact, fill, freed, json, killed, number, path, refused, segments, served, sizes, state,
    summary, without,
};
use thalweg_tests::kafka::{require_kafka, tool};
use thalweg_tests::reader::read_topic;
use thalweg_tests::records::{Record, by_place};
use thalweg_tests::scratch::Scratch;
use thalweg_tests::wire::{Wire, batch, now_ms};
use tools::dump::{Mode, Outcome, Request, run};

/// What the topics have in that Kafka, which so does nothing by itself.
const KEEP: [(&str, &str); 2] = [("retention.ms", "-1"), ("min.cleanable.dirty.ratio", "1.0")];
/// Transactions, aborted ones among them.
const MIXED: &str = "mixed";
/// ListOffsets: the first and the next offset.
const EARLIEST: i64 = -2;
const LATEST: i64 = -1;

#[test]
fn a_run_frees_what_its_dry_run_said_and_that_kafka_goes_on() {
    thalweg_tests::run("compact-kafka", |scratch| {
        require_kafka()?;
        let mut kafka = Broker::start(scratch, Options { kind: Kind::Kafka, ..Options::default() })?;
        let written = fill(&kafka, 7, 400, &KEEP)?;
        mixed(&kafka)?;
        // Of transactions only what was committed is read.
        let (committed, ends) = (read_topic(scratch, &kafka.bootstrap(), MIXED)?, ends(&kafka)?);
        let configs = configs(scratch, &kafka)?;
        let data = kafka.data().to_owned();
        for arguments in [&[path(&data)?, "--configs", path(&configs)?][..], &[path(&data)?, "--dry-run"]] {
            refused(compact(arguments)?, "has to be stopped first")?;
        }
        kafka.stop()?;
        refused(compact(&[path(&data)?, "--config", path(&configs)?])?, "--configs FILE")?;

        let before = state(&data)?;
        let arguments = ["--json", "--all", "--configs", path(&configs)?];
        let said = json(compact(&[&[path(&data)?, "--dry-run"][..], &arguments].concat())?, 0)?;
        ensure!(state(&data)? == before, "a dry run has changed something");
        let as_of = number(summary(&said)?, "asOfMs")?.to_string();
        let done = json(compact(&[&[path(&data)?, "--as-of", &as_of][..], &arguments].concat())?, 0)?;
        let plain = |lines: &[Value]| lines.iter().map(|line| without(line, &["dryRun", "compactionMs", "tookMs"])).collect::<Vec<_>>();
        ensure!(plain(&said) == plain(&done), "said {said:#?}\ndone {done:#?}");
        let after = state(&data)?;
        for line in done.iter().filter(|line| line["type"] == "partition") {
            let directory = format!("{}-{}", line["topic"].as_str().unwrap_or_default(), line["partition"]);
            let size = |sizes: &BTreeMap<String, u64>| sizes.get(&directory).copied().unwrap_or(0) as i64;
            let on_disk = (size(&sizes(&before)), size(&sizes(&after)));
            ensure!((number(line, "bytesBefore")?, number(line, "bytesAfter")?) == on_disk, "{directory} {on_disk:?}: {line}");
        }
        for (topic, reasons) in [
            ("events", &["retention.ms"][..]),
            ("table", &["compaction"]),
            ("both", &["retention.ms", "compaction"]),
            (MIXED, &["compaction"]),
        ] {
            for reason in reasons {
                ensure!(freed(&done, topic, reason)? > 0, "nothing of {topic} went by {reason}: {done:#?}");
            }
        }
        // Nothing of it but its own files has changed, and nothing new is there.
        let new: Vec<&PathBuf> = after.keys().filter(|path| !before.contains_key(*path)).collect();
        ensure!(new.is_empty(), "{new:?}");
        checkpoints(&data)?;
        let again = json(compact(&[&[path(&data)?, "--dry-run", "--as-of", &as_of][..], &arguments].concat())?, 0)?;
        ensure!(number(summary(&again)?, "bytesFreed")? == 0, "{again:#?}");
        clean(&data)?;

        kafka.launch()?;
        served(scratch, &kafka, &written)?;
        same_state(&committed, &read_topic(scratch, &kafka.bootstrap(), MIXED)?)?;
        ensure!(self::ends(&kafka)? == ends, "logs end at {:?}, and did at {ends:?}", self::ends(&kafka)?);
        for (topic, partition) in places() {
            let mut wire = Wire::connect_to_leader(&kafka.bootstrap(), topic, partition, TIMEOUT)?;
            let end = ends[&(topic.to_owned(), partition)];
            ensure!(wire.produce(topic, partition, &batch(&[(Some(b"new"), Some(b"value"))], now_ms()))? == (0, end), "it goes on");
            ensure!(wire.list_offset(topic, partition, EARLIEST)?.1 <= end);
        }
        kafka.stop()?;
        clean(&data)?;
        // A log that says that it was not stopped cleanly is that Kafka's to recover.
        fs::remove_file(data.join(".kafka_cleanshutdown"))?;
        refused(compact(&[path(&data)?, "--configs", path(&configs)?])?, "was not stopped cleanly")
    });
}

#[test]
fn a_run_that_was_killed_leaves_a_log_that_kafka_serves() {
    thalweg_tests::run("compact-kafka-killed", |scratch| {
        require_kafka()?;
        let mut kafka = Broker::start(scratch, Options { kind: Kind::Kafka, ..Options::default() })?;
        let written: Written = fill(&kafka, 8, 1_000, &KEEP)?;
        let configs = configs(scratch, &kafka)?;
        kafka.stop()?;
        let mut kills = 0;
        for (at, pause_ms) in [5, 15, 30, 45, 60, 80, 100, 130, 160, 200, 250, 300].into_iter().enumerate() {
            let arguments = [path(kafka.data())?, "--configs", path(&configs)?];
            kills += u32::from(killed(scratch, &arguments, Duration::from_millis(pause_ms))?);
            if at % 4 == 3 {
                kafka.launch()?;
                served(scratch, &kafka, &written).with_context(|| format!("after {kills} kills"))?;
                kafka.stop()?;
            }
        }
        ensure!(kills > 3, "{kills} runs were killed");
        json(compact(&[path(kafka.data())?, "--json", "--configs", path(&configs)?])?, 0)?;
        clean(kafka.data())?;
        kafka.launch()?;
        served(scratch, &kafka, &written)?;
        kafka.stop()
    });
}

#[test]
fn without_its_settings_nothing_is_guessed_and_what_if_changes_nothing() {
    thalweg_tests::run("compact-kafka-settings", |scratch| {
        require_kafka()?;
        let mut kafka = Broker::start(scratch, Options { kind: Kind::Kafka, ..Options::default() })?;
        // Its server.properties may say anything of retention.
        fill(&kafka, 3, 150, &[("min.cleanable.dirty.ratio", "1.0")])?;
        kafka.stop()?;
        let data = kafka.data().to_owned();
        let before = state(&data)?;
        let said = compact(&[path(&data)?, "--json"])?;
        let noted = String::from_utf8_lossy(&said.stderr).into_owned();
        let done = json(said, 0)?;
        ensure!(number(summary(&done)?, "bytesFreed")? == 0 && noted.contains("which keeps everything"), "{done:#?}\n{noted}");
        let what_if = ["--topic", "events", "--dry-run", "--set", "retention.ms=21600000"];
        let said = json(compact(&[&[path(&data)?, "--json"][..], &what_if].concat())?, 0)?;
        ensure!(freed(&said, "events", "retention.ms")? > 0 && summary(&said)?["whatIf"] == true, "{said:#?}");
        ensure!(said.iter().all(|line| line["type"] != "partition" || line["bytesFreedAnyway"] == 0), "{said:#?}");
        ensure!(state(&data)? == before, "a question has changed something");
        refused(compact(&[path(&data)?, "--topic", "nobody"])?, "there is no topic nobody")?;
        refused(compact(&[path(&data)?, "--topic", "table", "--partition", "9"])?, "there is no partition 9")
    });
}

#[test]
fn what_may_not_be_on_all_replicas_stays() {
    thalweg_tests::run("compact-kafka-high-watermark", |scratch| {
        require_kafka()?;
        let mut kafka = Broker::start(scratch, Options { kind: Kind::Kafka, ..Options::default() })?;
        fill(&kafka, 7, 400, &KEEP)?;
        let configs = configs(scratch, &kafka)?;
        kafka.stop()?;
        // As a follower that had fetched no more of one topic, and that knows nothing of another.
        let checkpoint = kafka.data().join("replication-offset-checkpoint");
        let text = fs::read_to_string(&checkpoint)?;
        let lines = text.lines().skip(2).filter(|line| !line.starts_with("events "));
        let lines = lines.map(|line| match line.strip_prefix("table ").and_then(|rest| rest.split_once(' ')) {
            Some((partition, _)) => format!("table {partition} 1\n"),
            None => format!("{line}\n"),
        });
        let lines: Vec<String> = lines.collect();
        ensure!(text.contains("events 0 ") && lines.contains(&"table 0 1\n".to_owned()), "{text}");
        fs::write(&checkpoint, format!("0\n{}\n{}", lines.len(), lines.concat()))?;
        let said = compact(&[path(kafka.data())?, "--json", "--configs", path(&configs)?])?;
        let noted = String::from_utf8_lossy(&said.stderr).into_owned();
        let done = json(said, 0)?;
        ensure!(freed(&done, "events", "retention.ms")? == 0 && freed(&done, "table", "compaction")? == 0, "{done:#?}");
        ensure!(freed(&done, "both", "retention.ms")? > 0 && freed(&done, "both", "compaction")? > 0, "{done:#?}");
        ensure!(noted.contains("events-0, events-1, events-2") && !noted.contains("table-"), "{noted}");
        Ok(())
    });
}

/// That Kafka's configs, as it prints them, with what is to go now.
fn configs(scratch: &Scratch, kafka: &Broker) -> Result<PathBuf> {
    let arguments = ["--bootstrap-server", &kafka.bootstrap(), "--describe", "--all", "--entity-type", "topics"];
    let text = tool("kafka.admin.ConfigCommand", &arguments)?;
    let text = text
        .replace("retention.ms=-1 ", "retention.ms=21600000 ")
        .replace("min.cleanable.dirty.ratio=1.0 ", "min.cleanable.dirty.ratio=0.01 ");
    let path = scratch.path().join("configs.txt");
    fs::write(&path, text)?;
    Ok(path)
}

/// Transactions of one producer, every third of them aborted, over a few keys and three segments of each partition.
fn mixed(kafka: &Broker) -> Result<()> {
    let settings = [("cleanup.policy", "compact"), ("segment.bytes", "1048576"), KEEP[1]];
    Admin::new(&kafka.bootstrap())?.create(MIXED, PARTITIONS, &settings)?;
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka.bootstrap()).set("transactional.id", "mixed").set("compression.type", "lz4");
    let producer: BaseProducer = config.create()?;
    producer.init_transactions(TIMEOUT)?;
    // Of digits that don't compress to nothing.
    let mut random = 1u64;
    let mut payload = || {
        let mut digits = String::new();
        while digits.len() < 8_000 {
            random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            digits += &format!("{random:016x}");
        }
        digits
    };
    for number in 0..240u32 {
        producer.begin_transaction()?;
        for at in 0..10 {
            let (key, value) = (format!("key-{}", (number * 7 + at) % 30), payload());
            let record = BaseRecord::to(MIXED).partition(number as i32 % PARTITIONS).key(&key).payload(&value);
            producer.send(record).map_err(|(error, _)| error)?;
        }
        // It also takes in what was delivered: an abort waits for that.
        producer.flush(TIMEOUT)?;
        match number % 9 < 3 {
            true => producer.abort_transaction(TIMEOUT)?,
            false => producer.commit_transaction(TIMEOUT)?,
        }
    }
    // Behind the last markers: whoever reads to the end meets a record there.
    for partition in 0..PARTITIONS {
        let mut wire = Wire::connect_to_leader(&kafka.bootstrap(), MIXED, partition, TIMEOUT)?;
        ensure!(wire.produce(MIXED, partition, &batch(&[(Some(b"end"), Some(b"of the log"))], now_ms()))?.0 == 0);
    }
    Ok(())
}

/// What is read now was there before, in the same place, less of it, and of each key the last record is what it was.
fn same_state(before: &[Record], after: &[Record]) -> Result<()> {
    let known = by_place(before)?;
    for record in after {
        ensure!(known.get(&(record.partition, record.offset)) == Some(&record), "{record:?} was not there");
    }
    let last = |records: &[Record]| {
        let mut sorted: Vec<&Record> = records.iter().collect();
        sorted.sort_by_key(|record| record.offset);
        sorted.into_iter().map(|record| ((record.partition, record.key.clone()), record.clone())).collect::<BTreeMap<_, _>>()
    };
    ensure!(last(before) == last(after), "the last records of some keys are others");
    ensure!(after.len() < before.len(), "{} of {} records are left", after.len(), before.len());
    Ok(())
}

fn places() -> impl Iterator<Item = (&'static str, i32)> {
    TOPICS.into_iter().flat_map(|(topic, _)| (0..PARTITIONS).map(move |partition| (topic, partition)))
}

/// The next offset of every partition.
fn ends(kafka: &Broker) -> Result<BTreeMap<(String, i32), i64>> {
    let mut ends = BTreeMap::new();
    for (topic, partition) in places().chain((0..PARTITIONS).map(|partition| (MIXED, partition))) {
        let mut wire = Wire::connect_to_leader(&kafka.bootstrap(), topic, partition, TIMEOUT)?;
        ends.insert((topic.to_owned(), partition), wire.list_offset(topic, partition, LATEST)?.1);
    }
    Ok(ends)
}

/// Kafka's checkpoint of its cleaner says how far each compacted partition is clean.
fn checkpoints(data: &Path) -> Result<()> {
    let text = fs::read_to_string(data.join("cleaner-offset-checkpoint"))?;
    let mut lines = text.lines();
    ensure!(lines.next() == Some("0") && lines.next() == Some(&(text.lines().count() - 2).to_string()), "{text}");
    for topic in ["table", "both"] {
        for partition in 0..PARTITIONS {
            let active = segments(&data.join(format!("{topic}-{partition}")))?.pop().context("a segment")?;
            ensure!(text.contains(&format!("{topic} {partition} {active}\n")), "{topic}-{partition} is active from {active} on:\n{text}");
        }
    }
    Ok(())
}

fn clean(data: &Path) -> Result<()> {
    let request = Request { paths: vec![data.to_owned()], mode: Mode::Verify, records: true, ..Request::default() };
    let mut out = Vec::new();
    let outcome = run(&request, &mut out)?;
    ensure!(outcome == Outcome::Clean, "{}", String::from_utf8_lossy(&out));
    Ok(())
}
