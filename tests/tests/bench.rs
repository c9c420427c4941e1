//! `thalweg-bench` against a real broker: what it reports must be true. Times and rates are never asserted.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use thalweg_tests::broker::{Broker, Kind, Options};
use thalweg_tests::paths;

/// Two CPUs may be one: the programs are pinned to what the machine has.
fn cpus() -> (usize, usize) {
    let last = std::thread::available_parallelism().map_or(1, |n| n.get()) - 1;
    (0, last)
}

fn bench(words: &str, more: &[&str]) -> Result<std::process::Output> {
    let mut command = Command::new(paths::binary("bench", "thalweg-bench")?);
    command.args(words.split_whitespace()).args(more).stdin(Stdio::null());
    command.output().with_context(|| format!("thalweg-bench {words}"))
}

/// Runs a load command and gives its JSON.
fn run(broker: &Broker, words: &str) -> Result<Value> {
    let (address, pid) = (broker.bootstrap(), broker.pid()?.to_string());
    let output = bench(words, &["--broker", &address, "--broker-pid", &pid, "--json"])?;
    ensure!(output.status.success(), "thalweg-bench {words}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).with_context(|| format!("the JSON of {words}"))
}

fn number(report: &Value, pointer: &str) -> Result<u64> {
    report.pointer(pointer).and_then(Value::as_u64).with_context(|| format!("no number at {pointer} in {report}"))
}

fn thalweg(cores: u16) -> Options {
    Options { kind: Kind::Thalweg, ..Options::cores(cores) }
}

#[test]
fn what_was_produced_is_what_is_consumed_however_it_was_sent() {
    thalweg_tests::run("bench-load", |scratch| {
        let mut broker = Broker::start(scratch, thalweg(2))?;
        let loads = [
            ("closed", "--records 50 --record-bytes 200 --in-flight 3 --clients 2"),
            ("open", "--records 10 --record-bytes 100 --rate 2000 --clients 2"),
            ("keyed", "--record-bytes 100 --keys 500 --compression lz4 --rate 5000 --linger-ms 5 --clients 4 --partitions 12"),
            ("some", "--records 1 --record-bytes 100 --acks 1 --in-flight 16"),
        ];
        for (topic, load) in loads {
            let sent = run(&broker, &format!("produce --topic {topic} --seconds 0.5 --warm-up 0 {load}"))?;
            ensure!(number(&sent, "/records")? > 0 && number(&sent, "/latency_us/max")? > 0, "{topic}: {sent}");
            // Without a warm-up all that was acked in time is counted; what was in flight at the end comes on top.
            let read = run(&broker, &format!("consume --topic {topic} --from-beginning --until-end"))?;
            ensure!(number(&read, "/records")? >= number(&sent, "/records")?, "{topic}: {sent}\n{read}");
            ensure!(
                number(&read, "/verified/batches_received")? == number(&sent, "/verified/batches_acked")?,
                "{topic}: as many batches come back as were acked: {sent}\n{read}"
            );
        }
        let limited = run(&broker, "produce --topic limited --records 100 --record-bytes 1000 --seconds 60 --warm-up 0 --gb-max 0.002")?;
        ensure!((2_000_000..20_000_000).contains(&number(&limited, "/bytes")?), "{limited}");
        broker.stop()
    });
}

#[test]
fn every_acked_batch_reaches_every_consumer_of_its_partition() {
    thalweg_tests::run("bench-end-to-end", |scratch| {
        let mut broker = Broker::start(scratch, thalweg(2))?;
        for (topic, consumers, readers_of_each, load) in [
            ("shared", "--consumers 3 --share", 1, "--rate 2000 --records 5 --clients 2"),
            ("all", "--consumers 3", 3, "--records 20 --in-flight 2"),
        ] {
            let words = format!("end-to-end --topic {topic} --record-bytes 100 --seconds 0.5 --warm-up 0.1 {consumers} {load}");
            let report = run(&broker, &words)?;
            let acked = number(&report, "/verified/batches_acked")?;
            ensure!(acked > 0 && number(&report, "/verified/batches_matched")? == acked, "{report}");
            ensure!(number(&report, "/verified/batches_received")? == acked * readers_of_each, "{report}");
            ensure!(number(&report, "/end_to_end_us/p50")? > 0 && number(&report, "/latency_us/p50")? > 0, "{report}");
        }
        broker.stop()
    });
}

#[test]
fn a_catch_up_reads_the_whole_topic_while_the_producer_goes_on() {
    thalweg_tests::run("bench-catch-up", |scratch| {
        let mut broker = Broker::start(scratch, thalweg(1))?;
        let filled = run(&broker, "produce --topic old --records 100 --seconds 30 --warm-up 0 --gb-max 0.02")?;
        let cold = broker.data().display().to_string();
        let words = format!("catch-up --topic old --records 5 --record-bytes 100 --rate 1000 --seconds 0.5 --warm-up 0 --cold {cold}");
        let report = run(&broker, &words)?;
        ensure!(number(&report, "/received/records")? >= number(&filled, "/records")?, "{filled}\n{report}");
        ensure!(number(&report, "/alone_us/p99")? > 0 && number(&report, "/verified/batches_acked")? > 0, "{report}");
        broker.stop()
    });
}

#[test]
fn a_comparison_leaves_its_facts_in_json_and_a_page_that_needs_nothing_else() {
    thalweg_tests::run("bench-compare", |scratch| {
        let compare = |workload: &str| -> Result<(Value, String)> {
            let (broker, load) = cpus();
            let out = scratch.path().join("out");
            let work = scratch.path().join("work");
            let binary = paths::thalweg()?;
            let path = |path: &Path| path.display().to_string();
            let pins = [broker.to_string(), load.to_string()];
            let output = bench(
                &format!("compare {workload} --quick --no-limits --seconds 0.5 --warm-up 0.2"),
                &[
                    "--out",
                    &path(&out),
                    "--work",
                    &path(&work),
                    "--broker-binary",
                    &path(&binary),
                    "--broker-cpus",
                    &pins[0],
                    "--load-cpu",
                    &pins[1],
                ],
            )?;
            ensure!(output.status.success(), "compare {workload}: {}", String::from_utf8_lossy(&output.stderr));
            ensure!(!work.join("data").exists(), "the data is removed");
            let json = std::fs::read(out.join(format!("{workload}.json")))?;
            Ok((serde_json::from_slice(&json)?, std::fs::read_to_string(out.join(format!("{workload}.html")))?))
        };

        let (report, page) = compare("W2")?;
        ensure!(report["cases"].as_array().map(Vec::len) == Some(4), "1, 64 and 512 in flight, and 64 connections");
        for case in 0..4 {
            let acked = format!("/cases/{case}/runs/0/report/verified/batches_acked");
            ensure!(number(&report, &acked)? > 0, "verified");
        }
        for fact in ["kernel", "filesystem", "commit", "date"] {
            ensure!(report["machine"][fact].as_str().is_some_and(|fact| !fact.is_empty()), "the machine's {fact} is stated");
        }
        ensure!(report["subjects"][0]["ack"].as_str().is_some_and(|ack| ack.contains("durable")), "what an ack promises is stated");
        ensure!(page.contains("<svg") && page.contains("time until an ack"), "the page has charts");
        for outside in ["http:", "https:", "src=", "@import", "<script"] {
            ensure!(!page.contains(outside), "the page needs nothing else, and no {outside}");
        }

        let (report, _) = compare("W8")?;
        ensure!(report["cases"][0]["summary"].as_array().is_some_and(|lines| lines.len() == 2), "CPU and memory of an idle broker");
        Ok(())
    });
}

#[test]
fn what_can_not_be_measured_is_refused_with_its_reason() {
    thalweg_tests::run("bench-refused", |_| {
        for (words, reason) in [("produce --linger-ms 5", "--rate"), ("consume --broker 127.0.0.1:1", "connecting to 127.0.0.1:1")] {
            let output = bench(words, &[])?;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            ensure!(!output.status.success() && said.contains(reason), "{words}: {said}");
        }
        Ok(())
    });
}
