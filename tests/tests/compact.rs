//! `compact` beside real brokers: what a dry run says is what a run does, to the byte; a broker serves what is left; a run that
//! was killed loses nothing.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use thalweg_tests::admin::Admin;
use thalweg_tests::broker::{Broker, Kind, Options};
use thalweg_tests::paths;
use thalweg_tests::process::Process;
use thalweg_tests::reader::read_topic;
use thalweg_tests::records::Record;
use thalweg_tests::scratch::Scratch;
use thalweg_tests::wire::{Wire, batch, now_ms};

const TIMEOUT: Duration = Duration::from_secs(60);
const HOUR_MS: i64 = 3_600_000;
const PARTITIONS: i32 = 3;
/// Each with another policy.
const TOPICS: [(&str, &str); 3] = [("events", "delete"), ("table", "compact"), ("both", "compact,delete")];
/// What the brokers of these tests are told: keep everything as it is.
const KEEP: &str = "log.retention.ms = -1\nlog.cleaner.min.cleanable.ratio = 1.0\n";
/// What `compact` is told then.
const CLEAN: &str = "log.retention.hours = 6\nlog.cleaner.min.cleanable.ratio = 0.01\n";

#[test]
fn a_run_frees_what_its_dry_run_said_and_a_broker_serves_the_rest() {
    thalweg_tests::run("compact-equal", |scratch| {
        for seed in 0..4 {
            let mut broker = broker(scratch, &format!("keep-{seed}"), KEEP)?;
            let written = fill(&broker, seed, 400)?;
            // What a killed broker leaves is recovered first, by both.
            if seed % 2 == 0 {
                broker.stop()?
            } else {
                broker.kill()?
            };
            let clean = config(scratch, &format!("clean-{seed}"), CLEAN)?;
            let (data, clean) = (broker.data().to_owned(), clean.to_str().context("UTF-8")?.to_owned());

            let before = state(&data)?;
            let said = json(compact(&[path(&data)?, "--dry-run", "--json", "--all", "--config", &clean])?, 0)?;
            ensure!(state(&data)? == before, "seed {seed}: a dry run has changed something");
            let as_of = number(summary(&said)?, "asOfMs")?.to_string();
            let done = json(compact(&[path(&data)?, "--json", "--all", "--config", &clean, "--as-of", &as_of])?, 0)?;

            let plain = |lines: &[Value]| lines.iter().map(|line| without(line, &["dryRun", "compactionMs", "tookMs"])).collect::<Vec<_>>();
            ensure!(plain(&said) == plain(&done), "seed {seed}: said {said:#?}\ndone {done:#?}");
            // And both are what the filesystem says.
            let (before, after) = (sizes(&before), sizes(&state(&data)?));
            for line in done.iter().filter(|line| line["type"] == "partition") {
                let directory = format!("{}-{}", line["topic"].as_str().unwrap_or_default(), line["partition"]);
                let size = |sizes: &BTreeMap<String, u64>| sizes.get(&directory).copied().unwrap_or(0) as i64;
                ensure!(
                    number(line, "bytesBefore")? == size(&before) && number(line, "bytesAfter")? == size(&after),
                    "{directory}: {line}"
                );
            }
            for (topic, reasons) in
                [("events", &["retention.ms"][..]), ("table", &["compaction"]), ("both", &["retention.ms", "compaction"])]
            {
                for reason in reasons {
                    ensure!(freed(&done, topic, reason)? > 0, "seed {seed}: nothing of {topic} went by {reason}: {done:#?}");
                }
            }
            // Nothing is due any more.
            let again = json(compact(&[path(&data)?, "--dry-run", "--json", "--config", &clean, "--as-of", &as_of])?, 0)?;
            ensure!(number(summary(&again)?, "bytesFreed")? == 0, "seed {seed}: {again:#?}");
            broker.launch()?;
            served(scratch, &broker, &written)?;
            broker.stop()?;
        }
        Ok(())
    });
}

#[test]
fn a_run_that_was_killed_is_repeated_and_nothing_is_lost() {
    thalweg_tests::run("compact-killed", |scratch| {
        let mut broker = broker(scratch, "keep", KEEP)?;
        let written = fill(&broker, 9, 1_500)?;
        broker.stop()?;
        let clean = config(scratch, "clean", CLEAN)?;
        let mut kills = 0;
        for pause_ms in [1, 5, 10, 20, 30, 45, 60, 80, 100, 130, 160, 200, 250, 300, 400, 600] {
            let mut command = Command::new(paths::binary("tools", "compact")?);
            command.arg(broker.data()).args(["--no-progress", "--config"]).arg(&clean);
            let mut process = Process::spawn("compact", command, &scratch.log("compact"))?;
            std::thread::sleep(Duration::from_millis(pause_ms));
            if process.exited()?.is_none() {
                process.kill()?;
                kills += 1;
            }
        }
        ensure!(kills > 3, "{kills} runs were killed");
        json(compact(&[path(broker.data())?, "--json", "--config", path(&clean)?])?, 0)?;
        ensure!(!broker.data().join("cleaning").exists(), "what the killed runs had begun is still there");
        broker.launch()?;
        served(scratch, &broker, &written)?;
        broker.stop()
    });
}

#[test]
fn the_settings_of_the_broker_count_and_what_if_changes_nothing() {
    thalweg_tests::run("compact-settings", |scratch| {
        let mut broker = broker(scratch, "keep", KEEP)?;
        fill(&broker, 3, 150)?;
        broker.stop()?;
        let data = broker.data().to_owned();
        // By Kafka's defaults all of it would be too old or dirty.
        let done = json(compact(&[path(&data)?, "--json"])?, 0)?;
        ensure!(number(summary(&done)?, "bytesFreed")? == 0, "{done:#?}");
        let before = state(&data)?;
        let what_if = ["--topic", "events", "--set", "retention.ms=21600000"];
        let said = json(compact(&[&[path(&data)?, "--dry-run", "--json"][..], &what_if].concat())?, 0)?;
        ensure!(freed(&said, "events", "retention.ms")? > 0 && summary(&said)?["whatIf"] == true, "{said:#?}");
        ensure!(said.iter().all(|line| line["type"] != "partition" || line["bytesFreedAnyway"] == 0), "{said:#?}");
        let by_itself: Vec<_> = said.iter().filter(|line| line["type"] == "segment").map(|line| &line["byItself"]).collect();
        ensure!(!by_itself.is_empty() && by_itself.iter().all(|when| **when == "never"), "{said:#?}");
        ensure!(said.iter().all(|line| line["type"] == "summary" || line["topic"] == "events"), "{said:#?}");
        ensure!(state(&data)? == before, "a question has changed something");
        // One partition, and no other.
        let clean = config(scratch, "clean", CLEAN)?;
        json(compact(&[path(&data)?, "--json", "--config", path(&clean)?, "--topic", "table", "--partition", "1"])?, 0)?;
        let changed: Vec<String> = {
            let (before, after) = (sizes(&before), sizes(&state(&data)?));
            before.into_iter().filter(|(directory, bytes)| after.get(directory) != Some(bytes)).map(|(directory, _)| directory).collect()
        };
        ensure!(changed.iter().all(|directory| ["table-1", "__catalog-0", ""].contains(&directory.as_str())), "{changed:?}");
        ensure!(changed.contains(&"table-1".to_owned()), "{changed:?}");
        // Without its record it is not guessed.
        fs::remove_file(data.join("thalweg.settings"))?;
        refused(compact(&[path(&data)?])?, "--config")
    });
}

#[test]
fn a_directory_that_is_in_use_or_none_is_refused() {
    thalweg_tests::run("compact-refused", |scratch| {
        let mut broker = broker(scratch, "keep", KEEP)?;
        fill(&broker, 1, 20)?;
        let data = broker.data().to_owned();
        for arguments in [&[path(&data)?][..], &[path(&data)?, "--dry-run"]] {
            refused(compact(arguments)?, "--broker HOST:PORT")?;
        }
        broker.stop()?;
        refused(compact(&[path(&data)?, "--topic", "nobody"])?, "there is no topic nobody")?;
        refused(compact(&[path(&data)?, "--topic", "table", "--partition", "3"])?, "there is no partition 3")?;
        refused(compact(&[path(&data)?, "--set", "retention.ms=5"])?, "--dry-run")?;
        refused(compact(&[path(&data)?, "--dry-run", "--set", "retention.hours=5"])?, "no topic setting")?;
        refused(compact(&[path(&data)?, "--as-of", "5"])?, "more than an hour ago")?;
        refused(compact(&[path(&data)?, "--as-of", "9999999999999"])?, "still to come")?;
        refused(compact(&[path(&data.join("table-0"))?])?, "is a partition")?;
        refused(compact(&[path(scratch.path())?])?, "is not the data directory")?;
        refused(compact(&["/nowhere"])?, "can't open")?;
        refused(compact(&[path(&data)?, "--journal-dir", path(scratch.path())?])?, "holds no journal")?;
        refused(compact(&["--broker", "127.0.0.1:1"])?, "can't reach")
    });
}

#[test]
fn a_running_broker_does_it_now_under_traffic_and_is_followed_until_it_is_done() {
    thalweg_tests::run("compact-broker", |scratch| {
        let mut broker = broker(scratch, "clean", CLEAN)?;
        let written = fill(&broker, 5, 400)?;
        Admin::new(&broker.bootstrap())?.create("traffic", 1, &[("cleanup.policy", "compact")])?;
        let (bootstrap, is_over) = (broker.bootstrap(), AtomicBool::new(false));
        let sent = std::thread::scope(|scope| {
            let traffic = scope.spawn(|| -> Result<usize> {
                let mut wire = Wire::connect_to_leader(&bootstrap, "traffic", 0, TIMEOUT)?;
                let mut sent = 0;
                while !is_over.load(Ordering::Relaxed) {
                    ensure!(wire.produce("traffic", 0, &batch(&[(Some(b"key"), Some(&[7; 500]))], now_ms()))?.0 == 0);
                    sent += 1;
                }
                Ok(sent)
            });
            let asked = compact(&["--broker", &broker.address(1), "--json"]).and_then(|output| json(output, 0));
            is_over.store(true, Ordering::Relaxed);
            let sent = traffic.join().expect("it does not panic")?;
            let done = asked?;
            ensure!(summary(&done)?["failed"] == 0, "{done:#?}");
            ensure!(number(summary(&done)?, "partitions")? as i32 == 50 + 1 + PARTITIONS * TOPICS.len() as i32, "{done:#?}");
            Ok(sent)
        })?;
        ensure!(sent > 0, "there was no traffic");
        // When it returns nothing that was due is left.
        for partition in 0..PARTITIONS {
            let directory = broker.data().join(format!("table-{partition}"));
            let active = segments(&directory)?.last().copied().context("a segment")?;
            ensure!(first_dirty(&directory)? == active, "table-{partition}: clean below {}, active {active}", first_dirty(&directory)?);
        }
        let one = json(compact(&["--broker", &broker.bootstrap(), "--json", "--topic", "table", "--partition", "2"])?, 0)?;
        ensure!(one.len() == 2 && one[0]["partition"] == 2, "{one:#?}");
        refused(compact(&["--broker", &broker.bootstrap(), "--topic", "nobody"])?, "there is no topic nobody")?;
        served(scratch, &broker, &written)?;
        broker.stop()
    });
}

/// A broker with these settings.
fn broker(scratch: &Scratch, name: &str, settings: &str) -> Result<Broker> {
    let arguments = vec!["--config".into(), path(&config(scratch, name, settings)?)?.into()];
    Broker::start(scratch, Options { kind: Kind::Thalweg, arguments, ..Options::default() })
}

fn config(scratch: &Scratch, name: &str, settings: &str) -> Result<PathBuf> {
    let path = scratch.path().join(format!("{name}.toml"));
    fs::write(&path, settings)?;
    Ok(path)
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().context("a path in UTF-8")
}

fn compact(arguments: &[&str]) -> Result<Output> {
    Command::new(paths::binary("tools", "compact")?).args(arguments).output().context("compact")
}

/// What it printed, after it ended with this code.
fn json(output: Output, code: i32) -> Result<Vec<Value>> {
    let text = String::from_utf8(output.stdout)?;
    ensure!(output.status.code() == Some(code), "{:?}: {text}{}", output.status, String::from_utf8_lossy(&output.stderr));
    text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

fn refused(output: Output, why: &str) -> Result<()> {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(2) && said.contains(why), "{:?}: {said}", output.status);
    Ok(())
}

fn summary(lines: &[Value]) -> Result<&Value> {
    lines.last().filter(|line| line["type"] == "summary").context("a summary")
}

fn number(line: &Value, field: &str) -> Result<i64> {
    line[field].as_i64().with_context(|| format!("{field} of {line}"))
}

/// Bytes of all partitions of a topic that went for a reason.
fn freed(lines: &[Value], topic: &str, reason: &str) -> Result<i64> {
    let of_topic = lines.iter().filter(|line| line["type"] == "partition" && line["topic"] == topic);
    of_topic.map(|line| number(&line["freed"], reason)).sum()
}

fn without(line: &Value, fields: &[&str]) -> Value {
    let mut line = line.clone();
    if let Some(object) = line.as_object_mut() {
        object.retain(|field, _| !fields.contains(&field.as_str()));
    }
    line
}

/// Every file of a data directory: size, times of change, and content, the lock's owner and the journals' zeros left out.
fn state(data: &Path) -> Result<BTreeMap<PathBuf, (u64, i64, i64, u64)>> {
    let mut files = BTreeMap::new();
    let mut directories = vec![data.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let metadata = fs::metadata(&path)?;
            let sum = u64::from(crc32c::crc32c(&fs::read(&path)?));
            files.insert(path.strip_prefix(data)?.to_owned(), (metadata.len(), metadata.ctime(), metadata.ctime_nsec(), sum));
        }
    }
    Ok(files)
}

/// Bytes of segments and their indexes, by directory.
fn sizes(state: &BTreeMap<PathBuf, (u64, i64, i64, u64)>) -> BTreeMap<String, u64> {
    let mut sizes = BTreeMap::new();
    for (path, (bytes, ..)) in state {
        let directory = path.parent().map(|directory| directory.display().to_string()).unwrap_or_default();
        let kind = path.extension().and_then(|kind| kind.to_str());
        if kind.is_some_and(|kind| ["log", "index", "timeindex", "txnindex"].contains(&kind)) {
            *sizes.entry(directory).or_default() += bytes;
        }
    }
    sizes
}

/// What was written of a partition, by topic: offset, time, key and value.
type Written = BTreeMap<(&'static str, i32), Vec<(i64, Option<String>, Option<String>)>>;

/// Fills the topics with records of the last day, oldest first; by another history with each seed.
fn fill(broker: &Broker, seed: u64, batches: u64) -> Result<Written> {
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = move |most: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % most
    };
    let now_ms = now_ms();
    let mut written = Written::new();
    for (topic, policy) in TOPICS {
        Admin::new(&broker.bootstrap())?.create(topic, PARTITIONS, &[("cleanup.policy", policy), ("segment.bytes", "1048576")])?;
        for partition in 0..PARTITIONS {
            let mut wire = Wire::connect_to_leader(&broker.bootstrap(), topic, partition, TIMEOUT)?;
            let log = written.entry((topic, partition)).or_default();
            for at in 0..batches {
                let time = now_ms - 24 * HOUR_MS + at as i64 * 24 * HOUR_MS / batches as i64;
                let records: Vec<(String, Option<String>)> = (0..1 + next(20))
                    .map(|_| {
                        let value = (next(10) > 0).then(|| "x".repeat(next(4_000) as usize) + &next(1_000_000).to_string());
                        (format!("key-{}", next(50 * (partition as u64 + 1))), value)
                    })
                    .collect();
                let fields: Vec<_> =
                    records.iter().map(|(key, value)| (Some(key.as_bytes()), value.as_deref().map(str::as_bytes))).collect();
                ensure!(wire.produce(topic, partition, &batch(&fields, time))?.0 == 0);
                log.extend(records.into_iter().map(|(key, value)| (time, Some(key), value)));
            }
        }
    }
    Ok(written)
}

/// What a broker serves is what was written, without what had to go: records that are older than six hours, and of compacted
/// topics those that have a later one of the same key.
fn served(scratch: &Scratch, broker: &Broker, written: &Written) -> Result<()> {
    for (topic, policy) in TOPICS {
        let mut read = BTreeMap::<i32, BTreeMap<i64, Record>>::new();
        for record in read_topic(scratch, &broker.bootstrap(), topic)? {
            read.entry(record.partition).or_default().insert(record.offset, record);
        }
        for partition in 0..PARTITIONS {
            let (written, read) = (&written[&(topic, partition)], &read[&partition]);
            let mut last = BTreeMap::new();
            for (offset, (_, key, _)) in (0i64..).zip(written) {
                last.insert(key, offset);
            }
            for (offset, record) in read {
                let (_, key, value) = &written[*offset as usize];
                ensure!(record.key == *key && record.value == *value, "{topic}-{partition}: {record:?} was {key:?}: {value:?}");
            }
            for (offset, (time, key, value)) in (0i64..).zip(written) {
                let is_young = *time > now_ms() - 6 * HOUR_MS + 60_000 || !policy.contains("delete");
                let is_needed = last[key] == offset && value.is_some() || !policy.contains("compact");
                ensure!(
                    !is_young || !is_needed || read.contains_key(&offset),
                    "{topic}-{partition}: offset {offset} ({key:?}) is lost; {} of {} are left",
                    read.len(),
                    written.len()
                );
            }
        }
    }
    Ok(())
}

/// The base offsets of a partition's segments.
fn segments(directory: &Path) -> Result<Vec<i64>> {
    let mut bases = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        bases.extend(name.strip_suffix(".log").and_then(|base| base.parse::<i64>().ok()));
    }
    bases.sort_unstable();
    Ok(bases)
}

/// Up to where a partition is compacted.
fn first_dirty(directory: &Path) -> Result<i64> {
    let text = fs::read_to_string(directory.join("thalweg.compacted")).unwrap_or_default();
    Ok(text.lines().find_map(|line| line.strip_prefix("first dirty: ")?.parse().ok()).unwrap_or(0))
}
