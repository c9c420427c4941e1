//! Kafka's own ProducerPerformance and ConsumerPerformance beside this program at the same shape, against the same broker:
//! if the two clients see different ratios between brokers, one of them measures itself.

use super::{args::Compare, bench, child::output, kafka::Kafka, subject::Server, topics::OwnTopic, workloads::Metric};
use crate::{control, process};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// What the case is called.
pub const TITLE: &str = "cross-check: Kafka's perf tools and thalweg-bench, 1 KiB records, 8 batches of about 15 KiB a request, acks=all";
/// The figures.
pub const METRICS: &[Metric] = &[
    figure("ProducerPerformance", "MB/s", "/tool_producer/mb_per_second", true),
    figure("thalweg-bench produce", "MB/s", "/bench_producer/mb_per_second", true),
    figure("broker CPU under ProducerPerformance", "s/GB", "/tool_producer/broker_cpu_seconds_per_gb", false),
    figure("broker CPU under thalweg-bench produce", "s/GB", "/bench_producer/broker_cpu_seconds_per_gb", false),
    figure("ConsumerPerformance", "MB/s", "/tool_consumer/mb_per_second", true),
    figure("thalweg-bench consume", "MB/s", "/bench_consumer/mb_per_second", true),
    figure("broker CPU under ConsumerPerformance", "s/GB", "/tool_consumer/broker_cpu_seconds_per_gb", false),
    figure("broker CPU under thalweg-bench consume", "s/GB", "/bench_consumer/broker_cpu_seconds_per_gb", false),
];
const RECORD_BYTES: u64 = 1024;
/// What a Java producer sends at once: a batch for each partition, each with as many records as fit into 16 KiB.
const REQUEST_RECORDS: u64 = 15 * PARTITIONS as u64;
const PARTITIONS: i32 = 8;

const fn figure(name: &'static str, unit: &'static str, pointer: &'static str, more_is_better: bool) -> Metric {
    Metric { name, unit, pointer, more_is_better, limit: None }
}

/// How to repeat our half.
#[must_use]
pub fn command_line() -> String {
    format!("thalweg-bench {}", produce(1.0).join(" "))
}

fn produce(gb: f64) -> Vec<String> {
    let text = format!(
        "produce --record-bytes {RECORD_BYTES} --records {REQUEST_RECORDS} --keys 100000 --partitions {PARTITIONS} --in-flight 5 --warm-up 0 --seconds 120 --gb-max {gb}"
    );
    text.split(' ').map(str::to_owned).collect()
}

/// Runs both clients.
///
/// # Errors
/// A tool fails, or prints what can't be understood.
pub fn run(args: &Compare, kafka: &Kafka, server: &Server) -> Result<Value> {
    let records: u64 = if args.quick { 200_000 } else { 1_000_000 };
    let (address, cpus) = (&server.address, &[args.load_cpu]);
    let topic = OwnTopic::create(address, "tools", PARTITIONS)?;
    control::topic(address, topic.name())?;

    let mut tool = kafka.tool(cpus, "org.apache.kafka.tools.ProducerPerformance");
    tool.args(["--topic", topic.name(), "--throughput", "-1", "--num-records", &records.to_string()]);
    tool.args(["--record-size", &RECORD_BYTES.to_string(), "--producer-props", &format!("bootstrap.servers={address}"), "acks=all"]);
    let (text, cpu) = costing(server, || output(tool))?;
    let rate = producer_rate(&text).with_context(|| format!("the last line of ProducerPerformance:\n{text}"))?;
    let tool_producer = figures(rate, cpu, records);

    let mut tool = kafka.tool(cpus, "org.apache.kafka.tools.ConsumerPerformance");
    tool.args(["--bootstrap-server", address, "--topic", topic.name(), "--num-records", &records.to_string(), "--timeout", "60000"]);
    let (text, cpu) = costing(server, || output(tool))?;
    let (consumed, rate) = consumer_rate(&text).with_context(|| format!("the table of ConsumerPerformance:\n{text}"))?;
    ensure!(consumed >= records, "ConsumerPerformance read {consumed} of {records} records");
    let tool_consumer = figures(rate, cpu, records);
    topic.delete()?;

    let topic = OwnTopic::create(address, "cross-check", PARTITIONS)?;
    let bench_producer = bench::load(&produce((records * RECORD_BYTES) as f64 / 1e9), server, topic.name(), args.load_cpu)?;
    let consume: Vec<String> = ["consume", "--from-beginning", "--until-end"].map(str::to_owned).into();
    let bench_consumer = bench::load(&consume, server, topic.name(), args.load_cpu)?;
    topic.delete()?;
    Ok(json!({
        "tool_producer": tool_producer, "tool_consumer": tool_consumer,
        "bench_producer": bench_producer, "bench_consumer": bench_consumer,
    }))
}

/// The broker's CPU seconds while something ran.
fn costing<T>(server: &Server, run: impl FnOnce() -> Result<T>) -> Result<(T, Option<f64>)> {
    let cpu = || server.pid().map(|pid| process::usage(Some(pid))).transpose();
    let before = cpu()?;
    let value = run()?;
    Ok((value, before.zip(cpu()?).map(|(before, after)| after.cpu_seconds - before.cpu_seconds)))
}

fn figures(records_per_second: f64, cpu_seconds: Option<f64>, records: u64) -> Value {
    let gb = (records * RECORD_BYTES) as f64 / 1e9;
    json!({
        "records_per_second": records_per_second,
        "mb_per_second": records_per_second * RECORD_BYTES as f64 / 1e6,
        "broker_cpu_seconds_per_gb": cpu_seconds.map(|cpu| cpu / gb),
    })
}

/// Records a second in the last line: `500000 records sent, 152346.1 records/sec (148.78 MB/sec), …`.
fn producer_rate(text: &str) -> Option<f64> {
    let line = text.lines().rfind(|line| line.contains("percentile") || line.contains("99.9th"))?;
    line.split(", ").find_map(|part| part.split_once(" records/sec"))?.0.trim().parse().ok()
}

/// Records and records a second of the table with a heading; `fetch.nMsg.sec` leaves out the time to join a group.
fn consumer_rate(text: &str) -> Option<(u64, f64)> {
    let lines: Vec<&str> = text.lines().collect();
    let heading = lines.iter().position(|line| line.starts_with("start.time"))?;
    let names: Vec<&str> = lines[heading].split(',').map(str::trim).collect();
    let values: Vec<&str> = lines.get(heading + 1)?.split(',').map(str::trim).collect();
    let value = |name: &str| values.get(names.iter().position(|found| *found == name)?).copied();
    Some((value("data.consumed.in.nMsg")?.parse().ok()?, value("fetch.nMsg.sec")?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tools_output_is_understood() {
        let text = "100 records sent, 20.0 records/sec (0.02 MB/sec), 1.0 ms avg latency, 2.0 ms max latency.\n\
                    500000 records sent, 152346.1 records/sec (148.78 MB/sec), 12.3 ms avg latency, 300.00 ms max latency, 9 ms 50th, \
                    20 ms 95th, 30 ms 99th, 40 ms 99.9th.\n";
        assert_eq!(producer_rate(text), Some(152_346.1));
        let text = "start.time, end.time, data.consumed.in.MB, MB.sec, data.consumed.in.nMsg, nMsg.sec, rebalance.time.ms, fetch.time.ms, fetch.MB.sec, fetch.nMsg.sec\n\
                    2026-01-01 00:00:00:000, 2026-01-01 00:00:05:000, 488.2, 97.6, 500000, 100000.0, 3000, 2000, 244.1, 250000.0\n";
        assert_eq!(consumer_rate(text), Some((500_000, 250_000.0)));
    }
}
