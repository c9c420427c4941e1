//! The course of a comparison: each pair starts every broker on fresh data, in turn, warms it up and measures it.

use super::{
    args::Compare,
    bench, compaction, cross_check, interrupt,
    limits::Limits,
    machine::Machine,
    result::{CaseResult, Comparison, RunResult, Settings},
    subject::{Facts, START_WITHIN, Server, Subject, Subjects},
    topics::OwnTopic,
    work::Work,
    workloads::{Case, Measure, Workload},
};
use crate::{cold, control, process};
use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// A slice of the warm-up; two in a row that differ by less than [`STEADY`] mean a steady rate.
const SLICE_SECONDS: f64 = 4.0;
/// A slice ends after so many GB, so that a fast disk is not filled by warming up.
const SLICE_GB_MAX: f64 = 1.0;
/// The relative difference of two slices at a steady rate.
const STEADY: f64 = 0.1;

/// The directory that was asked for: on the disk that is to be measured. Kafka's jars stay there.
fn place(args: &Compare) -> Result<PathBuf> {
    let work = match &args.work {
        Some(work) => work.clone(),
        None => {
            let program = std::env::current_exe()?;
            let directory = program.parent().and_then(Path::parent).context("a program stands in a directory")?;
            directory.join("thalweg-bench")
        }
    };
    std::fs::create_dir_all(&work).with_context(|| format!("{}", work.display()))?;
    Ok(std::fs::canonicalize(work)?)
}

/// Runs all of it.
///
/// # Errors
/// A broker or a measurement fails: a comparison with holes is none.
pub fn run(args: &Compare) -> Result<Comparison> {
    let workload = Workload::find(args)?;
    let pairs = args.pairs.unwrap_or(if args.quick { 1 } else { 3 });
    ensure!(pairs > 0 && !args.broker_cpus.is_empty(), "at least one pair and one CPU");
    interrupt::watch();
    let place = place(args)?;
    let work = Work::take(&place)?;
    let subjects = Subjects::find(args, &place, &work)?;
    let machine = Machine::look(args, work.path());
    let limits = || {
        let receivers = if workload.id == "W4" { 4 } else { 1 };
        let seconds = if args.quick { 2.0 } else { 4.0 };
        let limits = Limits { work: work.path(), broker_cpu: args.broker_cpus[0], load_cpu: args.load_cpu, seconds, receivers };
        if args.no_limits {
            return Ok(Map::new());
        }
        say("the machine's limits");
        limits.measure()
    };
    let limits_before = limits()?;
    let mut cases: Vec<CaseResult> =
        workload.cases.iter().map(|case| CaseResult::new(&case.key, &case.title, command_line(case))).collect();
    let mut warm_ups = Vec::new();
    let mut cross = CaseResult::new("cross-check", cross_check::TITLE, cross_check::command_line());
    for pair in 1..=pairs {
        for subject in &subjects.all {
            let outcome = (|| -> Result<()> {
                say(&format!("pair {pair} of {pairs}: {} starts", subject.facts.name));
                let mut server = subjects.start(subject, &work)?;
                let rates = warm_up(args, &workload, &server)?;
                warm_ups.push(json!({ "pair": pair, "subject": subject.facts.key, "mb_per_second": rates }));
                let mut first = None;
                for (case, result) in workload.cases.iter().zip(&mut cases) {
                    say(&format!("pair {pair} of {pairs}: {}: {}", subject.facts.name, case.title));
                    let mut report = measure(args, &subjects, subject, &mut server, case)?;
                    if let Some(rate) = report["mb_per_second"].as_f64() {
                        report["relative_to_first"] = json!(rate / *first.get_or_insert(rate));
                    }
                    result.runs.push(RunResult { pair, subject: subject.facts.key.clone(), report });
                }
                if args.cross_check {
                    say(&format!("pair {pair} of {pairs}: {}: Kafka's own tools", subject.facts.name));
                    let kafka = subjects.kafka().context("fetched for the cross-check")?;
                    let found = cross_check::run(args, kafka, &server)?;
                    cross.runs.push(RunResult { pair, subject: subject.facts.key.clone(), report: found });
                }
                server.stop()
            })();
            outcome.and_then(|()| work.clear()).with_context(|| format!("pair {pair}, {}", subject.facts.name))?;
        }
    }
    let facts: Vec<Facts> = subjects.all.iter().map(|subject| subject.facts.clone()).collect();
    let limits_after = limits()?;
    for (case, result) in workload.cases.iter().zip(&mut cases) {
        result.summarize(case.metrics, &facts, [&limits_before, &limits_after]);
    }
    if args.cross_check {
        cross.summarize(cross_check::METRICS, &facts, [&limits_before, &limits_after]);
        cases.push(cross);
    }
    Ok(Comparison {
        workload: workload.id,
        title: workload.title.to_owned(),
        settings: Settings { pairs, quick: args.quick, kafka_heap_mib: subjects.kafka_heap() },
        machine,
        subjects: facts,
        limits_before,
        limits_after,
        warm_ups,
        cases,
    })
}

fn say(what: &str) {
    eprintln!("-- {what}");
}

/// What to type to repeat a case against a broker that runs.
fn command_line(case: &Case) -> String {
    let words = match &case.measure {
        Measure::Load(words) | Measure::Cold(words) => words.join(" "),
        Measure::Restart => return "kill -9, start, produce one record".to_owned(),
        Measure::Compaction { gb, .. } => return format!("fill {gb} GB, lower min.cleanable.dirty.ratio, wait for the checkpoint"),
    };
    format!("thalweg-bench {words}")
}

/// Warms a broker up until its rate is steady, and gives the rates of the slices in MB/s. Every broker alike: a JIT needs it.
fn warm_up(args: &Compare, workload: &Workload, server: &Server) -> Result<Vec<f64>> {
    let mut rates: Vec<f64> = Vec::new();
    if workload.warm_up.is_empty() {
        return Ok(rates);
    }
    let at_least = Duration::from_secs_f64(args.warm_up.unwrap_or(if args.quick { 8.0 } else { 20.0 }));
    let begin = Instant::now();
    let mut words: Vec<String> = Vec::new();
    let mut given = workload.warm_up.iter();
    while let Some(word) = given.next() {
        // The slice has bounds of its own.
        if word == "--seconds" || word == "--gb-max" {
            given.next();
        } else {
            words.push(word.clone());
        }
    }
    let slice = SLICE_SECONDS.min(at_least.as_secs_f64().max(0.2));
    for (name, value) in [("--seconds", slice), ("--gb-max", SLICE_GB_MAX), ("--warm-up", 0.0)] {
        words.extend([name.to_owned(), value.to_string()]);
    }
    loop {
        // A name of its own each time: a broker may take a while to forget a deleted topic.
        let topic = OwnTopic::for_load(&server.address, "warm-up", &words)?;
        let report = bench::load(&words, server, topic.name(), args.load_cpu)?;
        let rate = report["mb_per_second"].as_f64().context("a rate")?;
        topic.delete()?;
        let is_steady = rates.last().is_some_and(|last| (rate - last).abs() < STEADY * last.max(rate));
        rates.push(rate);
        let elapsed = begin.elapsed();
        if elapsed >= at_least && (is_steady || elapsed >= at_least * 2) {
            return Ok(rates);
        }
    }
}

fn measure(args: &Compare, subjects: &Subjects, subject: &Subject, server: &mut Server, case: &Case) -> Result<Value> {
    let load = match &case.measure {
        Measure::Load(words) | Measure::Cold(words) => words.as_slice(),
        Measure::Restart | Measure::Compaction { .. } => &[],
    };
    let first = case.prepare.first().map_or(load, Vec::as_slice);
    let mut topic = match &case.measure {
        Measure::Compaction { .. } => OwnTopic::create(&server.address, &case.key, 1)?,
        _ => OwnTopic::for_load(&server.address, &case.key, first)?,
    };
    for words in &case.prepare {
        bench::load(words, server, topic.name(), args.load_cpu)?;
    }
    let mut report = match &case.measure {
        Measure::Load(words) => bench::load(words, server, topic.name(), args.load_cpu)?,
        Measure::Cold(words) => {
            let beside = OwnTopic::for_load(&server.address, "beside", words)?;
            let mut words = words.clone();
            words.extend(["--producer-topic".to_owned(), beside.name().to_owned()]);
            if subject.is_ours() {
                words.extend(["--cold".to_owned(), server.data.display().to_string()]);
            }
            let report = bench::load(&words, server, topic.name(), args.load_cpu)?;
            beside.delete()?;
            report
        }
        Measure::Restart => restart(subjects, subject, server, &mut topic)?,
        Measure::Compaction { gb, cold } => compaction::run(server, topic.name(), *gb, *cold)?,
    };
    if let (Some(alone), Some(beside)) = (report["alone_us"]["p99"].as_f64(), report["latency_us"]["p99"].as_f64()) {
        report["p99_ratio"] = json!(beside / alone.max(1.0));
    }
    topic.delete()?;
    Ok(report)
}

/// Kills the broker, empties the cache, starts it, and times the first ack from the start of its process. Every record that
/// was acked before must be there afterwards.
fn restart(subjects: &Subjects, subject: &Subject, server: &mut Server, topic: &mut OwnTopic) -> Result<Value> {
    let ends = |server: &Server, topic: &OwnTopic| control::offsets(&control::topic(&server.address, topic.name())?, control::LATEST);
    ensure!(subject.is_ours(), "{}: a broker elsewhere is not ours to kill", subject.facts.name);
    let before = ends(server, topic)?;
    server.kill()?;
    cold::evict(&server.data)?;
    let begin = Instant::now();
    subjects.spawn(subject, server)?;
    topic.moved(&server.address);
    while let Err(error) = control::produce_one(&server.address, topic.name()) {
        interrupt::check()?;
        ensure!(begin.elapsed() < START_WITHIN, "no ack within {} s: {error:#}", START_WITHIN.as_secs());
        std::thread::sleep(Duration::from_millis(2));
    }
    let seconds = begin.elapsed().as_secs_f64();
    let memory = server.pid().map(|pid| process::usage(Some(pid))).transpose()?.map(|usage| usage.memory_bytes);
    let records = survived(&before, &ends(server, topic)?)?;
    Ok(json!({ "seconds_until_ack": seconds, "broker_memory_bytes": memory, "records_verified": records }))
}

/// The records of all partitions before the kill, if their ends are the same afterwards; partition 0 has got at least one more.
fn survived(before: &[i64], after: &[i64]) -> Result<i64> {
    ensure!(before.len() == after.len(), "{} partitions before the kill, {} after it", before.len(), after.len());
    for (partition, (before, after)) in before.iter().zip(after).enumerate() {
        let is_whole = if partition == 0 { after > before } else { after == before };
        ensure!(is_whole, "partition {partition} ended at {before} before the kill, and at {after} after it");
    }
    Ok(before.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_that_lost_acked_records_is_no_result() {
        assert_eq!(survived(&[10, 20], &[11, 20]).unwrap(), 30);
        for after in [[10, 20], [11, 19], [11, 21]] {
            assert!(survived(&[10, 20], &after).is_err(), "{after:?}");
        }
        assert!(survived(&[10, 20], &[11]).is_err());
    }
}
