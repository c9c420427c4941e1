//! W9: how fast a broker compacts a log of which a tenth is live, and the memory that it takes.
//!
//! The log is filled while nothing is compacted (no part that is dirty exceeds 1.0). Then the topic's
//! `min.cleanable.dirty.ratio` is lowered, and the clock runs until the broker's own checkpoint says that all is clean but
//! for the active segment.

use super::subject::Server;
use crate::{
    batch::{Compression, encode},
    clock::wall_ms,
    cold::evict,
    control, process,
};
use anyhow::{Context, Result, ensure};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use serde_json::{Value, json};
use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

/// Every key is written so often on average: a tenth of the records is live.
const WRITES_OF_KEY: usize = 10;
const RECORD_BYTES: usize = 1024;
/// Records of a batch, which is a request.
const RECORDS: usize = 1_000;
const SEGMENT_BYTES: &str = "104857600";
/// Between two looks at the checkpoint and at the broker's memory.
const LOOK: Duration = Duration::from_millis(10);
/// A bound for a hang.
const CLEANED_WITHIN: Duration = Duration::from_secs(1_800);
/// What Kafka needs to begin as soon as it may, as Thalweg does: it looks every 15 s as it ships.
pub const KAFKA_PROPERTIES: &str = "log.cleaner.backoff.ms=100\n";

/// Fills `topic`, which has one partition and no data, has it compacted, and reports. With `cold` nothing of it is in the page
/// cache when that begins, as it is of a log that was written over days.
///
/// # Errors
/// The broker's; or its directory is not here.
pub fn run(server: &Server, topic: &str, gb: f64, cold: bool) -> Result<Value> {
    let batches = ((gb * 1e9) as usize / (RECORD_BYTES * RECORDS) / WRITES_OF_KEY).max(1);
    let settings = |ratio| [("cleanup.policy", "compact"), ("segment.bytes", SEGMENT_BYTES), ("min.cleanable.dirty.ratio", ratio)];
    control::alter(&server.address, topic, &settings("1.0"))?;
    let found = control::topic(&server.address, topic)?;
    let leader = found.leaders.first().context("a leader")?;
    let value_bytes = RECORD_BYTES - 24;
    let keys_max = batches * RECORDS;
    // Each record's key is any of them, the same in each run: what is live lies all over the log, more of it towards the end.
    let mut random = SmallRng::seed_from_u64(9);
    for _ in 0..batches * WRITES_OF_KEY {
        let keys: Vec<String> = (0..RECORDS).map(|_| format!("key-{:010}", random.random_range(0..keys_max))).collect();
        let keys: Vec<Option<&[u8]>> = keys.iter().map(|key| Some(key.as_bytes())).collect();
        control::produce(leader, topic, encode(&keys, value_bytes, Compression::None, wall_ms())?)?;
    }
    let directory = server.data.join(format!("{topic}-0"));
    let (bytes_before, active) = log(&directory)?;
    ensure!(first_dirty(&server.data, topic)? == 0, "something was compacted before it was to be");
    if cold {
        evict(&directory)?;
    }
    let usage = || server.pid().map(|pid| process::usage(Some(pid))).transpose();
    let (before, begin) = (usage()?, Instant::now());
    control::alter(&server.address, topic, &settings("0.0001"))?;
    let mut memory = before.map_or(0, |usage| usage.memory_bytes);
    while first_dirty(&server.data, topic)? < active {
        ensure!(begin.elapsed() < CLEANED_WITHIN, "nothing is clean after {} s", CLEANED_WITHIN.as_secs());
        std::thread::sleep(LOOK);
        memory = memory.max(usage()?.map_or(0, |usage| usage.memory_bytes));
    }
    let seconds = begin.elapsed().as_secs_f64();
    let (after, (bytes_after, _)) = (usage()?, log(&directory)?);
    let live = bytes_after as f64 / bytes_before as f64;
    ensure!(live < 0.5, "{bytes_after} of {bytes_before} bytes are left");
    let mb = bytes_before as f64 / 1e6;
    Ok(json!({
        "cleaned_mb_per_second": mb / seconds, "seconds": seconds, "bytes_before": bytes_before, "bytes_after": bytes_after,
        "keys": keys_max, "broker_memory_bytes_max": memory,
        "memory_added_bytes": before.map(|before| memory - before.memory_bytes.min(memory)),
        "broker_cpu_seconds_per_gb": before.zip(after).map(|(before, after)| (after.cpu_seconds - before.cpu_seconds) * 1e3 / mb),
    }))
}

/// The bytes of a log, and where its active segment begins.
fn log(directory: &Path) -> Result<(u64, i64)> {
    let entries = fs::read_dir(directory).with_context(|| format!("W9 needs the broker's data here: {}", directory.display()))?;
    let (mut bytes, mut active) = (0, 0);
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(base) = name.strip_suffix(".log").and_then(|base| base.parse::<i64>().ok()) {
            bytes += entry.metadata().map_or(0, |metadata| metadata.len());
            active = base.max(active);
        }
    }
    Ok((bytes, active))
}

/// Up to where a log is clean: our file in its directory, or Kafka's checkpoint of all logs.
fn first_dirty(data: &Path, topic: &str) -> Result<i64> {
    let of_file = |path: &Path, start: &str| -> Option<i64> {
        let text = fs::read_to_string(path).ok()?;
        text.lines().find_map(|line| line.strip_prefix(start)?.trim().parse().ok())
    };
    let ours = of_file(&data.join(format!("{topic}-0/thalweg.compacted")), "first dirty: ");
    let kafkas = || of_file(&data.join("cleaner-offset-checkpoint"), &format!("{topic} 0 "));
    Ok(ours.or_else(kafkas).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_brokers_checkpoints_are_read() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(first_dirty(directory.path(), "t").unwrap(), 0);
        fs::write(directory.path().join("cleaner-offset-checkpoint"), "0\n2\nt2 0 7\nt 0 4711\n").unwrap();
        assert_eq!(first_dirty(directory.path(), "t").unwrap(), 4_711);
        fs::create_dir(directory.path().join("t-0")).unwrap();
        fs::write(directory.path().join("t-0/thalweg.compacted"), "version: 0\nfirst dirty: 12\n").unwrap();
        assert_eq!(first_dirty(directory.path(), "t").unwrap(), 12);
    }
}
