//! `compact` beside real brokers: what a dry run says is what a run does, to the byte; a broker serves what is left; a run that
//! was killed loses nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use thalweg_tests::admin::Admin;
use thalweg_tests::broker::{Broker, Kind, Options};
use thalweg_tests::compacting::{
    PARTITIONS, TIMEOUT, TOPICS, compact, fill, freed, json, killed, number, path, refused, segments, served, sizes, state, summary,
    without,
};
use thalweg_tests::scratch::Scratch;
use thalweg_tests::wire::{Wire, batch, now_ms};

/// What the brokers of these tests are told: keep everything as it is.
const KEEP: &str = "log.retention.ms = -1\nlog.cleaner.min.cleanable.ratio = 1.0\n";
/// What `compact` is told then.
const CLEAN: &str = "log.retention.hours = 6\nlog.cleaner.min.cleanable.ratio = 0.01\n";

#[test]
fn a_run_frees_what_its_dry_run_said_and_a_broker_serves_the_rest() {
    thalweg_tests::run("compact-equal", |scratch| {
        for seed in 0..4 {
            let mut broker = broker(scratch, &format!("keep-{seed}"), KEEP)?;
            let written = fill(&broker, seed, 400, &[])?;
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
                    number(line, "bytesBefore")? + number(line, "bytesReserved")? == size(&before)
                        && number(line, "bytesAfter")? == size(&after),
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
        let written = fill(&broker, 9, 1_500, &[])?;
        broker.stop()?;
        let clean = config(scratch, "clean", CLEAN)?;
        let mut kills = 0;
        for pause_ms in [1, 5, 10, 20, 30, 45, 60, 80, 100, 130, 160, 200, 250, 300, 400, 600] {
            let arguments = [path(broker.data())?, "--config", path(&clean)?];
            kills += u32::from(killed(scratch, &arguments, Duration::from_millis(pause_ms))?);
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
        fill(&broker, 3, 150, &[])?;
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
        fill(&broker, 1, 20, &[])?;
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
        refused(compact(&["--broker", "127.0.0.1:1"])?, "can't reach")?;
        refused(compact(&["--broker", "localhost"])?, "HOST:PORT")
    });
}

#[test]
fn what_a_killed_broker_had_in_reserve_is_not_counted_as_freed() {
    thalweg_tests::run("compact-reserve", |scratch| {
        let mut broker = broker(scratch, "keep", KEEP)?;
        fill(&broker, 2, 60, &[])?;
        broker.kill()?;
        let said = json(compact(&[path(broker.data())?, "--dry-run", "--json", "--all"])?, 0)?;
        ensure!(number(summary(&said)?, "bytesFreed")? == 0 && number(summary(&said)?, "changed")? == 0, "{said:#?}");
        let reserved: Vec<i64> =
            said.iter().filter(|line| line["type"] == "partition").map(|line| number(line, "bytesReserved")).collect::<Result<_>>()?;
        ensure!(reserved.iter().any(|bytes| *bytes > 0), "nothing was in reserve: {reserved:?}");
        // After a clean stop nothing is, also where the active segment is closed and compacted.
        broker.launch()?;
        broker.stop()?;
        let what_if = ["--set", "segment.ms=1", "--set", "min.cleanable.dirty.ratio=0.01"];
        let said = json(compact(&[&[path(broker.data())?, "--dry-run", "--json", "--all"][..], &what_if].concat())?, 0)?;
        let partitions: Vec<&Value> = said.iter().filter(|line| line["type"] == "partition").collect();
        ensure!(partitions.iter().any(|line| line["rolled"] != 0 && line["compaction"]["rounds"] != 0), "{said:#?}");
        ensure!(partitions.iter().all(|line| line["bytesReserved"] == 0), "{said:#?}");
        Ok(())
    });
}

#[test]
fn a_partition_that_can_not_be_opened_stops_itself_only() {
    thalweg_tests::run("compact-damaged", |scratch| {
        let mut broker = broker(scratch, "keep", KEEP)?;
        let written = fill(&broker, 6, 400, &[])?;
        broker.stop()?;
        let (clean, data) = (config(scratch, "clean", CLEAN)?, broker.data().to_owned());
        let directory = data.join("table-1");
        let active = directory.join(format!("{:020}.log", segments(&directory)?.last().context("a segment")?));
        let sound = fs::read(&active)?;
        let mut damaged = sound.clone();
        // The length of the last batch: none begins there any more.
        let length_at = last_batch(&sound).context("a batch")? + 8;
        damaged[length_at] = 0xff;
        fs::write(&active, &damaged)?;
        for dry_run in [&["--dry-run"][..], &[]] {
            let output = compact(&[&[path(&data)?, "--json", "--config", path(&clean)?][..], dry_run].concat())?;
            ensure!(!output.stderr.contains(&0x1b), "colours in a pipe: {}", String::from_utf8_lossy(&output.stderr));
            let done = json(output, 3)?;
            ensure!(summary(&done)?["failed"] == 1, "{done:#?}");
            let of = |partition: i32| done.iter().find(|line| line["topic"] == "table" && line["partition"] == partition).context("shown");
            let failures = of(1)?["failures"].as_array().context("failures")?;
            ensure!(failures.len() == 1 && failures[0].as_str().is_some_and(|what| what.contains("--accept-loss")), "{failures:?}");
            ensure!(number(of(1)?, "bytesFreed")? == 0 && number(of(0)?, "bytesFreed")? > 0, "{done:#?}");
            ensure!(fs::read(&active)? == damaged, "the damaged segment was changed");
        }
        fs::write(&active, &sound)?;
        broker.launch()?;
        served(scratch, &broker, &written)?;
        broker.stop()
    });
}

#[test]
fn a_running_broker_does_it_now_under_traffic_and_is_followed_until_it_is_done() {
    thalweg_tests::run("compact-broker", |scratch| {
        let mut broker = broker(scratch, "clean", CLEAN)?;
        let written = fill(&broker, 5, 400, &[])?;
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

/// Where the last batch of a log begins.
fn last_batch(log: &[u8]) -> Option<usize> {
    let (mut last, mut next) = (None, 0);
    while let Some(length) = log.get(next + 8..next + 12) {
        last = Some(next);
        next += 12 + u32::from_be_bytes(length.try_into().ok()?) as usize;
    }
    last
}

/// Up to where a partition is compacted.
fn first_dirty(directory: &Path) -> Result<i64> {
    let text = fs::read_to_string(directory.join("thalweg.compacted")).unwrap_or_default();
    Ok(text.lines().find_map(|line| line.strip_prefix("first dirty: ")?.parse().ok()).unwrap_or(0))
}
