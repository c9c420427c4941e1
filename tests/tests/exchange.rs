//! Moving in from Kafka and out to it by copying files: what one wrote, the other serves, and Kafka's own tool finds nothing wrong.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use thalweg_tests::admin::Admin;
use thalweg_tests::broker::{Broker, Kind, Options};
use thalweg_tests::clients::{Consume, Family, Produce, Session, java};
use thalweg_tests::kafka::{self, require_kafka, tool};
use thalweg_tests::process::output;
use thalweg_tests::records::same_lines;
use thalweg_tests::scratch::Scratch;

const TOPIC: &str = "moved";
const PARTITIONS: i32 = 3;
/// Small segments, so that there are several; it is the smallest that Kafka 4 allows.
const SETTINGS: [(&str, &str); 1] = [("segment.bytes", "1048576")];
const GROUP: &str = "moving";
const GROUPS: &str = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";

/// What `DumpLogSegments` says of a healthy segment that doesn't begin at offset 0 (a false alarm, on Kafka's own files as well).
const FALSE_ALARM: &str = "-1 is followed by";

#[test]
fn kafka_reads_and_serves_what_we_wrote() {
    thalweg_tests::run("to-kafka", |scratch| {
        require_kafka()?;
        to_kafka(scratch)
    });
}

#[test]
fn we_serve_what_a_cleanly_stopped_kafka_wrote() {
    thalweg_tests::run("from-kafka", |scratch| {
        require_kafka()?;
        from_kafka(scratch, Broker::stop)
    });
}

#[test]
fn we_serve_what_a_killed_kafka_wrote() {
    thalweg_tests::run("from-killed-kafka", |scratch| {
        require_kafka()?;
        from_kafka(scratch, Broker::kill)
    });
}

fn options(kind: Kind) -> Options {
    Options { kind, ..Options::default() }
}

fn to_kafka(scratch: &Scratch) -> Result<()> {
    let mut ours = Broker::start(scratch, options(Kind::Thalweg))?;
    Admin::new(&ours.bootstrap())?.create(TOPIC, PARTITIONS, &SETTINGS)?;
    write(&ours, false)?;
    let bulk = Produce { count: Some(30_000), size: 250, ..Produce::new(&ours.bootstrap(), TOPIC, "bulk") };
    Session::produce(scratch, Family::Rdkafka, bulk)?.until("have every record acked", |p| p.done)?;
    write(&ours, false)?;
    let before = dump(&ours, "read_committed")?;
    let total = before.lines().filter(|l| !l.contains(" ends at ")).count();
    ensure!(total == 30_000 + 2 * 5 * 500, "{total} records were read back");
    let member = Consume { bootstrap: ours.bootstrap(), topic: TOPIC.to_owned(), group: GROUP.to_owned(), session_ms: None };
    let mut member = Session::consume(scratch, Family::Rdkafka, member)?;
    member.until("read some records", |m| m.read.len() >= 10_000)?;
    member.stop()?;
    let reset = ["--bootstrap-server", &ours.bootstrap(), "--reset-offsets", "--group", GROUP, "--all-topics"];
    let exported = tool(GROUPS, &[&reset[..], &["--to-current", "--export", "--dry-run"]].concat())?;
    ours.stop()?;

    let files = files_of_kafkas_formats(ours.data());
    let segments = files.iter().filter(|f| f.extension().is_some_and(|e| e == "log") && in_partition_of(f, TOPIC)).count();
    ensure!(segments > PARTITIONS as usize, "only {segments} segments in {}", ours.data().display());
    nothing_is_wrong_with(&files)?;

    let mut kafka = Broker::start(scratch, options(Kind::Kafka))?;
    Admin::new(&kafka.bootstrap())?.create(TOPIC, PARTITIONS, &SETTINGS)?;
    kafka.stop()?;
    for partition in 0..PARTITIONS {
        let to = kafka.data().join(format!("{TOPIC}-{partition}"));
        take_over(&partition_dir(ours.data(), partition)?, &to)?;
    }
    kafka.launch()?;
    same_lines(&before, &dump(&kafka, "read_committed")?)?;

    let csv = scratch.path().join("offsets.csv");
    std::fs::write(&csv, exported.lines().filter(|l| l.contains(TOPIC)).collect::<Vec<_>>().join("\n"))?;
    let csv = csv.to_str().context("a path in UTF-8")?;
    tool(GROUPS, &["--bootstrap-server", &kafka.bootstrap(), "--reset-offsets", "--group", GROUP, "--from-file", csv, "--execute"])?;
    let described = tool(GROUPS, &["--bootstrap-server", &kafka.bootstrap(), "--describe", "--group", GROUP])?;
    for line in exported.lines().filter(|l| l.contains(TOPIC)) {
        let fields: Vec<&str> = line.trim_matches('"').split(',').map(|f| f.trim_matches('"')).collect();
        let [.., partition, offset] = fields[..] else { anyhow::bail!("an exported line {line:?}") };
        let found = described.lines().any(|l| {
            let columns: Vec<&str> = l.split_whitespace().collect();
            columns.get(1..4) == Some(&[TOPIC, partition, offset])
        });
        ensure!(found, "partition {partition} at offset {offset} is missing in:\n{described}");
    }
    kafka.stop()
}

fn from_kafka(scratch: &Scratch, end: fn(&mut Broker) -> Result<()>) -> Result<()> {
    let mut kafka = Broker::start(scratch, options(Kind::Kafka))?;
    Admin::new(&kafka.bootstrap())?.create(TOPIC, PARTITIONS, &SETTINGS)?;
    write(&kafka, true)?;
    let bulk = Produce { count: Some(20_000), size: 250, ..Produce::new(&kafka.bootstrap(), TOPIC, "bulk") };
    Session::produce(scratch, Family::Rdkafka, bulk)?.until("have every record acked", |p| p.done)?;
    write(&kafka, true)?;
    let committed = dump(&kafka, "read_committed")?;
    let uncommitted = dump(&kafka, "read_uncommitted")?;
    ensure!(committed.lines().count() < uncommitted.lines().count(), "there are aborted records");
    end(&mut kafka)?;

    let mut ours = Broker::prepare(scratch, options(Kind::Thalweg))?;
    for partition in 0..PARTITIONS {
        let name = format!("{TOPIC}-{partition}");
        let to = ours.data().join(&name);
        std::fs::create_dir_all(&to)?;
        for file in std::fs::read_dir(kafka.data().join(&name))? {
            let file = file?;
            std::fs::copy(file.path(), to.join(file.file_name()))?;
        }
    }
    ours.launch()?;
    same_lines(&committed, &dump(&ours, "read_committed")?)?;
    same_lines(&uncommitted, &dump(&ours, "read_uncommitted")?)?;

    // It is a topic like any other from now on: it grows, and survives a kill.
    let more = Produce { count: Some(1_000), ..Produce::new(&ours.bootstrap(), TOPIC, "more") };
    Session::produce(scratch, Family::Java, more)?.until("have every record acked", |p| p.done)?;
    let grown = dump(&ours, "read_committed")?;
    ensure!(grown.lines().count() == committed.lines().count() + 1_000, "1,000 records more were acked");
    ours.kill()?;
    ours.launch()?;
    same_lines(&grown, &dump(&ours, "read_committed")?)
}

fn write(broker: &Broker, transactions: bool) -> Result<()> {
    let mut command = java("Exchange")?;
    command.arg(json!({"cmd": "write", "bootstrap": broker.bootstrap(), "topic": TOPIC, "transactions": transactions}).to_string());
    output(command).map(drop)
}

/// Everything that a Java consumer is served: offsets, timestamps, keys, values, headers, and where each partition ends.
fn dump(broker: &Broker, isolation: &str) -> Result<String> {
    let mut command = java("Exchange")?;
    command.arg(json!({"cmd": "dump", "bootstrap": broker.bootstrap(), "topic": TOPIC, "isolation": isolation}).to_string());
    output(command)
}

/// Every file under a data directory that is in one of Kafka's formats.
fn files_of_kafkas_formats(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_numbered = name.split_once('.').is_some_and(|(stem, _)| stem.len() == 20 && stem.bytes().all(|b| b.is_ascii_digit()));
            if path.is_dir() {
                dirs.push(path);
            } else if is_numbered && [".log", ".index", ".timeindex", ".txnindex", ".snapshot"].iter().any(|e| name.ends_with(e)) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn in_partition_of(file: &Path, topic: &str) -> bool {
    let dir = file.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
    dir.strip_prefix(topic).is_some_and(|rest| rest.starts_with('-'))
}

fn partition_dir(data: &Path, partition: i32) -> Result<PathBuf> {
    let name = format!("{TOPIC}-{partition}");
    let mut dirs = vec![data.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten().filter(|e| e.path().is_dir()) {
            if entry.file_name().to_string_lossy() == name {
                return Ok(entry.path());
            }
            dirs.push(entry.path());
        }
    }
    anyhow::bail!("no directory {name} under {}", data.display())
}

/// Kafka's own tool reads every file and complains of nothing.
fn nothing_is_wrong_with(files: &[PathBuf]) -> Result<()> {
    let of = |extensions: &[&str]| -> String {
        let chosen = files.iter().filter(|f| f.extension().is_some_and(|e| extensions.contains(&&*e.to_string_lossy())));
        chosen.map(|f| f.display().to_string()).collect::<Vec<_>>().join(",")
    };
    let checks: [(&[&str], &[&str]); 4] = [
        (&["log"], &["--deep-iteration"]),
        (&["index", "timeindex"], &["--index-sanity-check"]),
        (&["index", "timeindex"], &["--verify-index-only"]),
        (&["txnindex", "snapshot"], &[]),
    ];
    for (extensions, flags) in checks {
        let list = of(extensions);
        if list.is_empty() {
            continue;
        }
        let mut command = kafka::java("org.apache.kafka.tools.DumpLogSegments", 512)?;
        command.args(flags).args(["--files", &list]);
        let result = command.output().context("DumpLogSegments")?;
        let said = format!("{}{}", String::from_utf8_lossy(&result.stdout), String::from_utf8_lossy(&result.stderr));
        let signs = ["isvalid: false", "invalid bytes", "ismatch", "out of order", "is followed by", "Exception", "orrupt"];
        let wrong: Vec<&str> = said.lines().filter(|l| signs.iter().any(|s| l.contains(s)) && !l.contains(FALSE_ALARM)).take(10).collect();
        ensure!(result.status.success(), "DumpLogSegments {flags:?}: {}\n{said}", result.status);
        ensure!(wrong.is_empty(), "DumpLogSegments {flags:?} says:\n  {}", wrong.join("\n  "));
    }
    Ok(())
}

/// The procedure of the documents: segments and indexes without snapshots, and leader epoch 0 in every batch, which its CRC doesn't cover.
fn take_over(from: &Path, to: &Path) -> Result<()> {
    for entry in std::fs::read_dir(to)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with('0') {
            std::fs::remove_file(entry.path())?;
        }
    }
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".log") {
            let mut bytes = std::fs::read(entry.path())?;
            let mut at = 0;
            while at + 61 <= bytes.len() {
                bytes[at + 12..at + 16].fill(0);
                at += 12 + u32::from_be_bytes(bytes[at + 8..at + 12].try_into()?) as usize;
            }
            ensure!(at == bytes.len(), "{name} does not end with a batch");
            std::fs::write(to.join(&name), bytes)?;
        } else if name.ends_with(".index") || name.ends_with(".timeindex") {
            std::fs::copy(entry.path(), to.join(&name))?;
        }
    }
    Ok(())
}
