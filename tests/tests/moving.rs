//! `thalweg import` and `thalweg export`, with a real Kafka on the other side: what was there is here, and back, whatever interrupts it.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;
use thalweg_tests::admin::Admin;
use thalweg_tests::broker::{Broker, Kind, Options};
use thalweg_tests::clients::{Consume, Family, Produce, Session, java};
use thalweg_tests::kafka::{require_kafka, tool, tool_script};
use thalweg_tests::paths;
use thalweg_tests::process::{Process, output};
use thalweg_tests::records::same_lines;
use thalweg_tests::scratch::Scratch;
use thalweg_tests::wire::{Wire, batch_of_one};

/// Read by a group.
const PLAIN: &str = "plain";
const PLAIN_RECORDS: u64 = 20_000;
/// All codecs, headers, transactions; older than the seven days that brokers keep records by default.
const MIXED: &str = "mixed";
const MIXED_DAYS: i64 = 20;
/// Some records were deleted.
const MIXED_START: i64 = 300;
const COMPACTED: &str = "compacted";
const COMPACTED_RECORDS: u64 = 20_000;
const GROUP: &str = "billing & more";
const PARTITIONS: i32 = 3;
const READ_AT_FIRST: usize = 7_000;

const CONFIGS: &str = "kafka.admin.ConfigCommand";
const GROUPS: &str = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
const DELETE_RECORDS: &str = "org.apache.kafka.tools.DeleteRecordsCommand";

const ISOLATIONS: [&str; 2] = ["read_committed", "read_uncommitted"];

/// A bound for a hang.
const WITHIN: Duration = Duration::from_secs(120);
/// Runs whose time grows by steps that grow: up to 0.8 s.
const STEPS_MAX: u32 = 40;

#[test]
fn topics_configs_and_groups_move_from_kafka_to_thalweg_and_on_to_another_kafka() {
    thalweg_tests::run("moving", |scratch| {
        require_kafka()?;
        let mut kafka = Broker::start(scratch, options(Kind::Kafka))?;
        fill(scratch, &kafka, true)?;
        let described = scratch.path().join("configs.txt");
        std::fs::write(&described, describe_configs(&kafka, &["--all"])?)?;
        let there = Seen::of(&kafka)?;
        let mut ours = Broker::prepare(scratch, options(Kind::Thalweg))?;
        let running = import(kafka.data(), ours.data(), &[])?.output_of_failure()?;
        ensure!(running.contains("is in use by"), "{running}");
        kafka.stop()?;

        let source = hashes(kafka.data())?;
        let dry = import(kafka.data(), ours.data(), &["--dry-run", "--configs", text(&described)])?.output_of_success()?;
        ensure!(dry.contains("nothing was written"), "{dry}");
        ensure!(std::fs::read_dir(ours.data())?.next().is_none(), "a dry run writes nothing");
        let said = import(kafka.data(), ours.data(), &["--configs", text(&described)])?.output_of_success()?;
        println!("{said}");
        ensure!(!said.contains("note:"), "nothing is to be noted of a clean import with configs:\n{said}");
        ensure!(hashes(kafka.data())? == source, "an import changes nothing of its source");
        let again = import(kafka.data(), ours.data(), &[])?.output_of_failure()?;
        ensure!(again.contains(&format!("has a topic {COMPACTED} already")) && again.contains("Nothing was written"), "{again}");

        ours.launch()?;
        let here = Seen::of(&ours)?;
        here.is_what_was(&there)?;
        goes_on(scratch, &ours, &there, "Thalweg")?;
        let here = Seen::of(&ours)?;
        let refused = export(ours.data(), &scratch.path().join("none"), &[])?.output_of_failure()?;
        ensure!(refused.contains("is in use by"), "{refused}");
        ours.stop()?;

        let source = hashes(ours.data())?;
        let out = scratch.path().join("out");
        killed_until_done(&mut || export_command(ours.data(), &out), "holds an export already")?;
        ensure!(hashes(ours.data())? == source, "an export changes nothing of its source");
        let refused = export(ours.data(), &out, &[])?.output_of_failure()?;
        ensure!(refused.contains("holds an export already"), "{refused}");

        let mut other = Broker::start(scratch, options(Kind::Kafka))?;
        let script = Script::new(scratch, &out)?;
        script.run("create", &other)?;
        let again = script.run("create", &other)?;
        ensure!(names().iter().all(|name| again.contains(&format!("{name} is there already, as it is to be"))), "{again}");
        ensure!(script.run("lay-in", &other).is_err(), "segments are not laid into a running Kafka");
        other.stop()?;
        script.run("lay-in", &other)?;
        other.launch()?;
        script.run("finish", &other)?;
        Seen::of(&other)?.is_what_was(&here)?;
        goes_on(scratch, &other, &here, "another Kafka")?;
        other.stop()?;
        ensure!(script.run("lay-in", &other).is_err(), "records of that Kafka's own are not replaced");
        Ok(())
    });
}

#[test]
fn a_killed_kafka_is_imported_however_often_the_import_is_killed() {
    thalweg_tests::run("moving-killed", |scratch| {
        require_kafka()?;
        let mut kafka = Broker::start(scratch, options(Kind::Kafka))?;
        fill(scratch, &kafka, false)?;
        let there = Seen::of(&kafka)?;
        kafka.kill()?;
        tear(kafka.data())?;

        let source = hashes(kafka.data())?;
        let mut ours = Broker::prepare(scratch, options(Kind::Thalweg))?;
        let data = ours.data().to_owned();
        let mut looked = false;
        let mut command = || {
            // Once in between a broker runs on what is there: nothing of the topics, or all.
            if !looked && data.join(".import").exists() {
                looked = true;
                ours.launch()?;
                let topics = topics_of(&ours)?;
                ours.stop()?;
                ensure!(topics.is_empty() || topics == names(), "an import that was cut off shows {topics:?}");
            }
            import_command(kafka.data(), &data, &[])
        };
        killed_until_done(&mut command, "already")?;
        ensure!(hashes(kafka.data())? == source, "an import changes nothing of its source");

        ours.launch()?;
        let here = Seen::of(&ours)?;
        let kept = &here.configs[PLAIN];
        ensure!(kept.get("retention.ms").is_some_and(|ms| ms == "-1"), "while that Kafka's default is not known, nothing goes: {kept:?}");
        here.records_are_what_they_were(&there)?;
        ensure!(here.groups == there.groups, "offsets were {:?}, and are {:?}", there.groups, here.groups);
        goes_on(scratch, &ours, &there, "Thalweg")
    });
}

#[test]
fn what_can_t_be_moved_is_refused_before_anything_is_written() {
    thalweg_tests::run("moving-refused", |scratch| {
        let mut ours = Broker::start(scratch, options(Kind::Thalweg))?;
        Admin::new(&ours.bootstrap())?.create(PLAIN, 1, &[])?;
        let to = scratch.path().join("out");
        let refused = |arguments: &[&str], expected: &str| -> Result<()> {
            let said = export(ours.data(), &to, arguments)?.output_of_failure()?;
            ensure!(said.contains(expected), "{expected:?} is not in: {said}");
            ensure!(!to.exists(), "nothing is written");
            Ok(())
        };
        refused(&[], "is in use by")?;
        let mut killed = Broker::start(scratch, options(Kind::Thalweg))?;
        killed.kill()?;
        let said = export(killed.data(), &to, &[])?.output_of_failure()?;
        ensure!(said.contains("was not stopped cleanly") && said.contains("stop it with SIGTERM"), "{said}");
        ours.stop()?;
        let refused = |arguments: &[&str], expected: &str| -> Result<()> {
            let said = export(ours.data(), &to, arguments)?.output_of_failure()?;
            ensure!(said.contains(expected) && !to.exists(), "{expected:?} is not in: {said}");
            Ok(())
        };
        refused(&["--topics", "nobody"], "there is no topic nobody")?;
        refused(&["--topics", "__consumer_offsets"], "the broker's own")?;
        let dry = export(ours.data(), &to, &["--dry-run"])?.output_of_success()?;
        ensure!(dry.contains(PLAIN) && !to.exists(), "{dry}");
        let config = scratch.path().join("thalweg.toml");
        std::fs::write(&config, "num.partition = 3\n")?;
        let (warned, known) = (["--dry-run", "--config", text(&config)], "did you mean num.partitions?");
        let dry = export(ours.data(), &to, &warned)?.output_of_success()?;
        ensure!(dry.contains(known), "{dry}");

        let target = scratch.path().join("target");
        let said = import(ours.data(), &target, &[])?.output_of_failure()?;
        ensure!(said.contains("is a data directory of Thalweg") && !target.exists(), "{said}");
        let said = import(scratch.path(), &target, &[])?.output_of_failure()?;
        ensure!(said.contains("is no log directory of a Kafka") && !target.exists(), "{said}");
        // A directory that Kafka wrote, with a flipped bit below its recovery point.
        let fixture = paths::workspace().join("tools/tests/fixtures/kafka-4.3.1");
        let copy = scratch.path().join("kafka-data");
        copy_dir(&fixture, &copy)?;
        let log = copy.join("codecs-0/00000000000000000000.log");
        let mut bytes = std::fs::read(&log)?;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        std::fs::write(&log, &bytes)?;
        let said = import(&copy, &target, &["--topics", "codecs"])?.output_of_failure()?;
        ensure!(said.contains("is damaged at byte") && said.contains("--repair"), "{said}");
        let dry = import(&copy, &target, &[&["--topics", "stamped"][..], &warned].concat())?.output_of_success()?;
        ensure!(dry.contains(known), "{dry}");
        let said = import(&copy, &target, &["--topics", "stamped,compacted"])?.output_of_success()?;
        ensure!(said.contains("imported into"), "{said}");
        Ok(())
    });
}

#[test]
fn a_partition_that_is_not_whole_in_its_segments_is_not_exported_in_part() {
    thalweg_tests::run("moving-offline", |scratch| {
        let mut ours = Broker::start(scratch, Options { cores: 1, ..options(Kind::Thalweg) })?;
        let send = |ours: &Broker, topic: &str, value: &[u8]| -> Result<()> {
            let (error, _) = Wire::connect_to_leader(&ours.bootstrap(), topic, 0, WITHIN)?.produce(topic, 0, &batch_of_one(value))?;
            ensure!(error == 0, "{topic}: error {error}");
            Ok(())
        };
        for topic in [PLAIN, MIXED] {
            Admin::new(&ours.bootstrap())?.create(topic, 1, &[])?;
            send(&ours, topic, &[7; 40_000])?;
        }
        ours.stop()?;
        ours.launch()?;
        send(&ours, PLAIN, b"in the journal only")?;
        ours.kill()?;
        let log = |topic: &str| ours.data().join(format!("{topic}-0/00000000000000000000.log"));
        let (plain, mixed) = (log(PLAIN), log(MIXED));
        let whole = std::fs::read(&plain)?;
        let mut bytes = whole.clone();
        bytes[..4_096].fill(0);
        std::fs::write(&plain, &bytes)?;
        // The partition can't be opened, and a part of it stays in the journal.
        ours.launch()?;
        ours.stop()?;
        let to = scratch.path().join("out");
        let said = export(ours.data(), &to, &[])?.output_of_failure()?;
        ensure!(said.contains("was not stopped cleanly") && said.contains("which partition is offline"), "{said}");
        ensure!(said.contains("--accept-loss") && !to.exists(), "nothing is written: {said}");
        std::fs::write(&plain, &whole)?;
        ours.launch()?;
        ours.stop()?;
        let said = export(ours.data(), &to, &["--dry-run"])?.output_of_success()?;
        ensure!(said.contains(PLAIN) && said.contains(MIXED), "{said}");
        // Cut at a batch's end a log is whole by itself: only the journal knows that there was more.
        std::fs::File::options().write(true).open(&mixed)?.set_len(0)?;
        let said = export(ours.data(), &to, &[])?.output_of_failure()?;
        ensure!(said.contains("has no batch at byte 0") && said.contains("--accept-loss") && !to.exists(), "{said}");
        ensure!(said.contains(&format!("{MIXED}-0: ")) && said.contains(&format!("--topics {PLAIN}")), "{said}");
        let said = export(ours.data(), &to, &["--topics", PLAIN, "--dry-run"])?.output_of_success()?;
        ensure!(said.contains(PLAIN), "{said}");
        Ok(())
    });
}

fn options(kind: Kind) -> Options {
    Options { kind, ..Options::default() }
}

fn names() -> BTreeSet<String> {
    [PLAIN, MIXED, COMPACTED].map(str::to_owned).into()
}

/// One of everything: topics with configs of their own, some with a broker's, a group half-way, a log start within a segment.
fn fill(scratch: &Scratch, kafka: &Broker, with_deleted: bool) -> Result<()> {
    let admin = Admin::new(&kafka.bootstrap())?;
    admin.create(PLAIN, PARTITIONS, &[("segment.bytes", "1048576")])?;
    admin.create(MIXED, PARTITIONS, &[("segment.bytes", "1048576"), ("retention.ms", "8640000000")])?;
    let compact = [("cleanup.policy", "compact"), ("segment.bytes", "1048576"), ("min.cleanable.dirty.ratio", "0.01")];
    admin.create(COMPACTED, 1, &compact)?;
    let plain = Produce { count: Some(PLAIN_RECORDS), size: 250, ..Produce::new(&kafka.bootstrap(), PLAIN, "plain") };
    let keyed = Produce { count: Some(COMPACTED_RECORDS), keys: 50, size: 250, ..Produce::new(&kafka.bootstrap(), COMPACTED, "keyed") };
    for task in [plain, keyed] {
        Session::produce(scratch, Family::Java, task)?.until("have every record acked", |p| p.done)?;
    }
    write(kafka)?;
    let member = Consume { bootstrap: kafka.bootstrap(), topic: PLAIN.to_owned(), group: GROUP.to_owned(), session_ms: None };
    let mut member = Session::consume(scratch, Family::Java, member)?;
    member.until("read some records", |m| m.read.len() >= READ_AT_FIRST)?;
    member.stop()?;
    if with_deleted {
        let file = scratch.path().join("delete.json");
        std::fs::write(&file, json!({"partitions": [{"topic": MIXED, "partition": 1, "offset": MIXED_START}], "version": 1}).to_string())?;
        tool(DELETE_RECORDS, &["--bootstrap-server", &kafka.bootstrap(), "--offset-json-file", text(&file)])?;
    }
    let began = Instant::now();
    while !is_compacted(kafka) {
        ensure!(began.elapsed() < WITHIN, "Kafka has not compacted anything");
        std::thread::sleep(Duration::from_millis(100));
    }
    let left = records(&dump(kafka, COMPACTED, "read_committed")?);
    ensure!((left as u64) < COMPACTED_RECORDS, "{left} records are left");
    Ok(())
}

/// Whether Kafka's cleaner has been at work, by its checkpoint: a line for each partition.
fn is_compacted(kafka: &Broker) -> bool {
    let text = std::fs::read_to_string(kafka.data().join("cleaner-offset-checkpoint")).unwrap_or_default();
    let first_dirty = text.lines().find_map(|line| line.strip_prefix(&format!("{COMPACTED} 0 "))?.parse::<i64>().ok());
    first_dirty.is_some_and(|offset| offset > 0)
}

fn write(broker: &Broker) -> Result<()> {
    let mut command = java("Exchange")?;
    let task = json!({"cmd": "write", "bootstrap": broker.bootstrap(), "topic": MIXED, "transactions": true, "days": MIXED_DAYS});
    command.arg(task.to_string());
    output(command).map(drop)
}

/// Everything that a Java consumer is served: offsets, timestamps, keys, values, headers, and where each partition ends.
fn dump(broker: &Broker, topic: &str, isolation: &str) -> Result<String> {
    let mut command = java("Exchange")?;
    command.arg(json!({"cmd": "dump", "bootstrap": broker.bootstrap(), "topic": topic, "isolation": isolation}).to_string());
    output(command)
}

fn records(dump: &str) -> usize {
    dump.lines().filter(|line| !line.contains(" ends at ")).count()
}

fn topics_of(broker: &Broker) -> Result<BTreeSet<String>> {
    let list = tool("org.apache.kafka.tools.TopicCommand", &["--bootstrap-server", &broker.bootstrap(), "--list", "--exclude-internal"])?;
    Ok(list.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

fn describe_configs(broker: &Broker, more: &[&str]) -> Result<String> {
    tool(CONFIGS, &[&["--bootstrap-server", &broker.bootstrap(), "--describe", "--entity-type", "topics"], more].concat())
}

/// What clients see of a broker's topics and groups.
struct Seen {
    dumps: BTreeMap<(String, &'static str), String>,
    /// What is set on each topic.
    configs: BTreeMap<String, BTreeMap<String, String>>,
    /// Committed offsets of the group by partition.
    groups: BTreeMap<i32, i64>,
}

impl Seen {
    fn of(broker: &Broker) -> Result<Seen> {
        // All in one: each program takes a JVM.
        let mut command = java("Exchange")?;
        command.arg(json!({"cmd": "dumps", "bootstrap": broker.bootstrap(), "topics": names(), "isolations": ISOLATIONS}).to_string());
        let text = output(command)?;
        let mut dumps = BTreeMap::new();
        for topic in names() {
            for isolation in ISOLATIONS {
                let head = format!("== {topic} {isolation}");
                let lines = text.lines().skip_while(|line| *line != head).skip(1).take_while(|line| !line.starts_with("== "));
                dumps.insert((topic.clone(), isolation), lines.map(|line| line.to_owned() + "\n").collect::<String>());
            }
        }
        ensure!(dumps.values().all(|dump| !dump.is_empty()), "topics are missing in:\n{text}");
        let (mut configs, mut topic) = (BTreeMap::<String, BTreeMap<String, String>>::new(), String::new());
        for line in describe_configs(broker, &[])?.lines() {
            if let Some(name) = line.strip_prefix("Dynamic configs for topic ").and_then(|rest| rest.strip_suffix(" are:")) {
                name.clone_into(&mut topic);
                configs.entry(topic.clone()).or_default();
            } else if let Some((setting, _)) = line.trim().split_once(" sensitive=")
                && let Some((name, value)) = setting.split_once('=')
            {
                configs.entry(topic.clone()).or_default().insert(name.to_owned(), value.to_owned());
            }
        }
        configs.retain(|topic, _| names().contains(topic));
        Ok(Seen { dumps, configs, groups: offsets(broker)? })
    }

    fn is_what_was(&self, before: &Seen) -> Result<()> {
        self.records_are_what_they_were(before)?;
        ensure!(self.configs == before.configs, "configs were {:?}, and are {:?}", before.configs, self.configs);
        ensure!(self.groups == before.groups, "offsets were {:?}, and are {:?}", before.groups, self.groups);
        Ok(())
    }

    fn records_are_what_they_were(&self, before: &Seen) -> Result<()> {
        for (which, before) in &before.dumps {
            let now = &self.dumps[which];
            if which.0 == COMPACTED { same_but_for_compaction(before, now) } else { same_lines(before, now) }
                .with_context(|| format!("{} of {}", which.1, which.0))?;
        }
        ensure!(records(&self.dumps[&(MIXED.to_owned(), "read_committed")]) > 0, "records from {MIXED_DAYS} days ago are kept");
        Ok(())
    }
}

fn offsets(broker: &Broker) -> Result<BTreeMap<i32, i64>> {
    let described = tool(GROUPS, &["--bootstrap-server", &broker.bootstrap(), "--describe", "--group", GROUP])?;
    let mut offsets = BTreeMap::new();
    for line in described.lines() {
        // The group's name has blanks: count from the topic on.
        let columns: Vec<&str> = line.split_whitespace().skip_while(|column| *column != PLAIN).collect();
        if let [_, partition, offset, ..] = columns[..] {
            offsets.insert(partition.parse()?, offset.parse()?);
        }
    }
    ensure!(offsets.len() == PARTITIONS as usize, "offsets are missing in:\n{described}");
    Ok(offsets)
}

/// A broker may compact further: what is still there is what was there, and the last record of each key is.
fn same_but_for_compaction(before: &str, after: &str) -> Result<()> {
    let all: BTreeSet<&str> = before.lines().collect();
    if let Some(stranger) = after.lines().find(|line| !all.contains(line)) {
        bail!("{stranger} was not there before");
    }
    let last = |dump: &str| -> BTreeMap<String, String> {
        let keyed = dump.lines().map(|line| {
            let key = line.split_whitespace().find(|word| word.starts_with("key=")).unwrap_or("the end");
            (key.to_owned(), line.to_owned())
        });
        keyed.collect()
    };
    let (before, after) = (last(before), last(after));
    ensure!(before.len() == 51, "50 keys and an end are expected, not {}", before.len());
    ensure!(before == after, "the last records of keys differ");
    Ok(())
}

/// A new idempotent producer loses nothing, a Java group goes on exactly where it was, and all of it survives a kill.
fn goes_on(scratch: &Scratch, broker: &Broker, before: &Seen, place: &str) -> Result<()> {
    let more = Produce { count: Some(2_000), size: 250, ..Produce::new(&broker.bootstrap(), PLAIN, &place.replace(' ', "-")) };
    let mut producer = Session::produce(scratch, Family::Java, more)?;
    producer.until("have every record acked", |p| p.done)?;
    ensure!(producer.acked.len() == 2_000, "{} records were acked", producer.acked.len());
    let before_lines: BTreeSet<&str> =
        before.dumps[&(PLAIN.to_owned(), "read_committed")].lines().filter(|l| !l.contains(" ends at ")).collect();
    let dumped = dump(broker, PLAIN, "read_committed")?;
    let added: Vec<&str> = dumped.lines().filter(|l| !l.contains(" ends at ") && !before_lines.contains(l)).collect();
    ensure!(added.len() == 2_000, "2,000 records were acked at {place}, {} were added", added.len());
    for record in &producer.acked {
        let start = format!("{} {} ", record.partition, record.offset);
        ensure!(added.iter().any(|line| line.starts_with(&start)), "the record acked at {start}is not there");
    }
    let member = Consume { bootstrap: broker.bootstrap(), topic: PLAIN.to_owned(), group: GROUP.to_owned(), session_ms: None };
    let mut member = Session::consume(scratch, Family::Java, member)?;
    let (all, read): (i64, i64) = (records(&dumped) as i64, before.groups.values().sum());
    member.until("read the rest", |m| m.read.len() as i64 >= all - read)?;
    member.stop()?;
    ensure!(member.read.len() as i64 == all - read, "{} records were read, {} were left", member.read.len(), all - read);
    for record in &member.read {
        ensure!(record.offset >= before.groups[&record.partition], "{}-{} was read twice", record.partition, record.offset);
    }
    Ok(())
}

/// Half a batch behind the end of every active segment, as a power cut may leave it.
fn tear(data: &Path) -> Result<()> {
    for name in [format!("{PLAIN}-0"), format!("{MIXED}-1")] {
        let mut logs: Vec<PathBuf> = std::fs::read_dir(data.join(name))?.map(|e| Ok(e?.path())).collect::<Result<_>>()?;
        logs.retain(|path| path.extension().is_some_and(|e| e == "log"));
        let last = logs.iter().max().context("a segment")?;
        let mut bytes = std::fs::read(last)?;
        bytes.extend_from_within(..bytes.len().min(100));
        std::fs::write(last, bytes)?;
    }
    Ok(())
}

/// What a command has ended with.
struct Ended(std::process::Output);

impl Ended {
    fn of(mut command: Command) -> Result<Ended> {
        Ok(Ended(command.output().with_context(|| format!("{command:?}"))?))
    }

    fn text(&self) -> String {
        format!("{}{}", String::from_utf8_lossy(&self.0.stdout), String::from_utf8_lossy(&self.0.stderr))
    }

    fn output_of_success(&self) -> Result<String> {
        ensure!(self.0.status.success(), "it failed: {}", self.text());
        Ok(self.text())
    }

    fn output_of_failure(&self) -> Result<String> {
        ensure!(!self.0.status.success(), "it should have failed: {}", self.text());
        Ok(self.text())
    }
}

fn import_command(from: &Path, to: &Path, more: &[&str]) -> Result<Command> {
    let mut command = Command::new(paths::thalweg()?);
    command.arg("import").arg(from).arg("--data-dir").arg(to).args(["--cores", "2", "--journal-size", "16MiB"]).args(more);
    Ok(command)
}

fn import(from: &Path, to: &Path, more: &[&str]) -> Result<Ended> {
    Ended::of(import_command(from, to, more)?)
}

fn export_command(from: &Path, to: &Path) -> Result<Command> {
    let mut command = Command::new(paths::thalweg()?);
    command.arg("export").arg(from).arg("--to").arg(to);
    Ok(command)
}

fn export(from: &Path, to: &Path, more: &[&str]) -> Result<Ended> {
    let mut command = export_command(from, to)?;
    command.args(more);
    Ended::of(command)
}

/// How long a run may go on before it is killed: longer by more and more, and then by a tenth, so that all runs together take ten times
/// as long as the last one at most, however slow the machine is.
fn killed_after(run: u32) -> Duration {
    let (slow, after) = (run.min(STEPS_MAX), run.saturating_sub(STEPS_MAX));
    (Duration::from_millis(2) * slow * slow.div_ceil(4)).mul_f64(1.1_f64.powi(after as i32))
}

/// Runs a command again and again, each time for a little longer before it is killed, until it ends by itself; `done` is what it says if
/// the run before was killed after its last step.
fn killed_until_done(command: &mut dyn FnMut() -> Result<Command>, done: &str) -> Result<()> {
    let log = tempfile::NamedTempFile::new()?;
    for run in 0u32.. {
        let mut process = Process::spawn("a run that is killed", command()?, log.path())?;
        let deadline = Instant::now() + killed_after(run);
        while Instant::now() < deadline && process.exited()?.is_none() {
            std::thread::sleep(Duration::from_micros(500));
        }
        match process.exited()? {
            None => process.kill()?,
            Some(status) => {
                let said = std::fs::read_to_string(log.path())?;
                ensure!(status.success() || said.trim_end().lines().last().is_some_and(|line| line.contains(done)), "run {run}: {said}");
                eprintln!(
                    "{run} runs were killed, {} by its own end",
                    if status.success() { "the last came" } else { "one was killed after its last step, not" }
                );
                return Ok(());
            }
        }
    }
    unreachable!("it counts on for ever")
}

/// The script of an export, with Kafka's tools where it looks for them.
struct Script {
    path: PathBuf,
    bin: PathBuf,
}

impl Script {
    fn new(scratch: &Scratch, out: &Path) -> Result<Script> {
        let bin = scratch.path().join("bin");
        std::fs::create_dir(&bin)?;
        let tools = [
            ("kafka-topics.sh", "org.apache.kafka.tools.TopicCommand"),
            ("kafka-consumer-groups.sh", GROUPS),
            ("kafka-delete-records.sh", DELETE_RECORDS),
        ];
        for (name, class) in tools {
            let path = bin.join(name);
            std::fs::write(&path, tool_script(class)?)?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
        }
        Ok(Script { path: out.join("to-kafka.sh"), bin })
    }

    fn run(&self, step: &str, kafka: &Broker) -> Result<String> {
        let mut command = Command::new("sh");
        command.arg(&self.path).arg(step).env("BOOTSTRAP", kafka.bootstrap()).env("LOG_DIR", kafka.data()).env("KAFKA_BIN", &self.bin);
        output(command)
    }
}

fn copy_dir(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        if entry.path().is_dir() {
            copy_dir(&entry.path(), &to.join(entry.file_name()))?;
        } else {
            std::fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// A checksum of every file under a directory, with its name.
fn hashes(dir: &Path) -> Result<BTreeMap<PathBuf, (u64, u32)>> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir)? {
            let path = entry?.path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                let bytes = std::fs::read(&path)?;
                found.insert(path, (bytes.len() as u64, crc32c::crc32c(&bytes)));
            }
        }
    }
    Ok(found)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a scratch directory's path is UTF-8")
}
