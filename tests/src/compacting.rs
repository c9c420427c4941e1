//! `compact` as tests run it, and topics of which something goes.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::admin::Admin;
use crate::broker::Broker;
use crate::paths;
use crate::process::Process;
use crate::reader::read_topic;
use crate::records::Record;
use crate::scratch::Scratch;
use crate::wire::{Wire, batch, now_ms};

/// A bound for a hang.
pub const TIMEOUT: Duration = Duration::from_secs(60);
const HOUR_MS: i64 = 3_600_000;
/// Of each topic.
pub const PARTITIONS: i32 = 3;
/// Each with another policy.
pub const TOPICS: [(&str, &str); 3] = [("events", "delete"), ("table", "compact"), ("both", "compact,delete")];

/// As an argument.
pub fn path(path: &Path) -> Result<&str> {
    path.to_str().context("a path in UTF-8")
}

/// Runs `compact` to its end.
pub fn compact(arguments: &[&str]) -> Result<Output> {
    Command::new(paths::binary("tools", "compact")?).args(arguments).output().context("compact")
}

/// What it printed, after it ended with this code.
pub fn json(output: Output, code: i32) -> Result<Vec<Value>> {
    let text = String::from_utf8(output.stdout)?;
    ensure!(output.status.code() == Some(code), "{:?}: {text}{}", output.status, String::from_utf8_lossy(&output.stderr));
    text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

/// It did nothing, and said why.
pub fn refused(output: Output, why: &str) -> Result<()> {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(2) && said.contains(why), "{:?}: {said}", output.status);
    Ok(())
}

/// The last line.
pub fn summary(lines: &[Value]) -> Result<&Value> {
    lines.last().filter(|line| line["type"] == "summary").context("a summary")
}

/// A field that is a number.
pub fn number(line: &Value, field: &str) -> Result<i64> {
    line[field].as_i64().with_context(|| format!("{field} of {line}"))
}

/// Bytes of all partitions of a topic that went for a reason.
pub fn freed(lines: &[Value], topic: &str, reason: &str) -> Result<i64> {
    let of_topic = lines.iter().filter(|line| line["type"] == "partition" && line["topic"] == topic);
    of_topic.map(|line| number(&line["freed"], reason)).sum()
}

/// A line without some fields.
pub fn without(line: &Value, fields: &[&str]) -> Value {
    let mut line = line.clone();
    if let Some(object) = line.as_object_mut() {
        object.retain(|field, _| !fields.contains(&field.as_str()));
    }
    line
}

/// Every file of a data directory: size, times of change, and content, the lock's owner and the journals' zeros left out.
pub fn state(data: &Path) -> Result<BTreeMap<PathBuf, (u64, i64, i64, u64)>> {
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
pub fn sizes(state: &BTreeMap<PathBuf, (u64, i64, i64, u64)>) -> BTreeMap<String, u64> {
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

/// The base offsets of a partition's segments.
pub fn segments(directory: &Path) -> Result<Vec<i64>> {
    let mut bases = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        bases.extend(name.strip_suffix(".log").and_then(|base| base.parse::<i64>().ok()));
    }
    bases.sort_unstable();
    Ok(bases)
}

/// Runs `compact` and kills it after a while. False if it had ended.
pub fn killed(scratch: &Scratch, arguments: &[&str], after: Duration) -> Result<bool> {
    let mut command = Command::new(paths::binary("tools", "compact")?);
    command.args(arguments).arg("--no-progress");
    let mut process = Process::spawn("compact", command, &scratch.log("compact"))?;
    std::thread::sleep(after);
    let runs = process.exited()?.is_none();
    if runs {
        process.kill()?;
    }
    Ok(runs)
}

/// What was written of a partition, by topic: offset, time, key and value.
pub type Written = BTreeMap<(&'static str, i32), Vec<(i64, Option<String>, Option<String>)>>;

/// Fills the topics, which get these settings, with records of the last day, oldest first; by another history with each seed. All
/// partitions at once: one batch after the other waits for as many flushes as there are batches.
pub fn fill(broker: &Broker, seed: u64, batches: u64, settings: &[(&str, &str)]) -> Result<Written> {
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = move |most: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % most
    };
    let now_ms = now_ms();
    let mut histories = Vec::new();
    for (topic, policy) in TOPICS {
        Admin::new(&broker.bootstrap())?.create(
            topic,
            PARTITIONS,
            &[&[("cleanup.policy", policy), ("segment.bytes", "1048576")], settings].concat(),
        )?;
        for partition in 0..PARTITIONS {
            let mut history: Vec<Sent> = Vec::new();
            for at in 0..batches {
                let time = now_ms - 24 * HOUR_MS + at as i64 * 24 * HOUR_MS / batches as i64;
                let records = (0..1 + next(20))
                    .map(|_| {
                        let value = (next(10) > 0).then(|| "x".repeat(next(4_000) as usize) + &next(1_000_000).to_string());
                        (format!("key-{}", next(50 * (partition as u64 + 1))), value)
                    })
                    .collect();
                history.push((time, records));
            }
            histories.push(((topic, partition), history));
        }
    }
    let bootstrap = &broker.bootstrap();
    std::thread::scope(|scope| {
        let mut sending = Vec::new();
        for ((topic, partition), history) in &histories {
            sending.push(scope.spawn(move || send(bootstrap, topic, *partition, history)));
        }
        sending.into_iter().try_for_each(|sending| sending.join().expect("it does not panic"))
    })?;
    let mut written = Written::new();
    for (place, history) in histories {
        let log = written.entry(place).or_default();
        for (time, records) in history {
            log.extend(records.into_iter().map(|(key, value)| (time, Some(key), value)));
        }
    }
    Ok(written)
}

/// A batch: its time, and the key and value of each record.
type Sent = (i64, Vec<(String, Option<String>)>);

fn send(bootstrap: &str, topic: &str, partition: i32, history: &[Sent]) -> Result<()> {
    let mut wire = Wire::connect_to_leader(bootstrap, topic, partition, TIMEOUT)?;
    for (time, records) in history {
        let fields: Vec<_> = records.iter().map(|(key, value)| (Some(key.as_bytes()), value.as_deref().map(str::as_bytes))).collect();
        ensure!(wire.produce(topic, partition, &batch(&fields, *time))?.0 == 0);
    }
    Ok(())
}

/// What a broker serves is what was written, without what had to go: records that are older than six hours, and of compacted
/// topics those that have a later one of the same key.
pub fn served(scratch: &Scratch, broker: &Broker, written: &Written) -> Result<()> {
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
