//! The workloads as data: what is run, and what counts.

use super::args::{Compare, Id};
use anyhow::Result;

/// A workload.
pub struct Workload {
    /// W1 to W10.
    pub id: String,
    /// What it is.
    pub title: &'static str,
    /// The load before the measurement, without its topic; a reader's warm-up is a producer's.
    pub warm_up: Vec<String>,
    /// What is measured, one after the other on the same broker.
    pub cases: Vec<Case>,
}

/// One measurement.
pub struct Case {
    /// A short key.
    pub key: String,
    /// What it is.
    pub title: String,
    /// Loads that come before it.
    pub prepare: Vec<Vec<String>>,
    /// How is measured.
    pub measure: Measure,
    /// What counts.
    pub metrics: &'static [Metric],
}

/// How is measured.
pub enum Measure {
    /// A command of this program, without broker and topic.
    Load(Vec<String>),
    /// A command that reads from a cold disk: it gets the data's directory.
    Cold(Vec<String>),
    /// The broker is killed and started; the time until a first produce is acked.
    Restart,
    /// A log of so many GB is compacted; with `cold` out of the page cache.
    Compaction { gb: f64, cold: bool },
}

/// A figure of a run's JSON.
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// Where it stands in the JSON.
    pub pointer: &'static str,
    /// True if more is better.
    pub more_is_better: bool,
    /// The limit of the machine that stands beside it.
    pub limit: Option<&'static str>,
}

const fn more(name: &'static str, unit: &'static str, pointer: &'static str) -> Metric {
    Metric { name, unit, pointer, more_is_better: true, limit: None }
}

const fn less(name: &'static str, unit: &'static str, pointer: &'static str) -> Metric {
    Metric { name, unit, pointer, more_is_better: false, limit: None }
}

const fn beside(metric: Metric, limit: &'static str) -> Metric {
    Metric { limit: Some(limit), ..metric }
}

const MB: Metric = more("throughput", "MB/s", "/mb_per_second");
const CPU_GB: Metric = less("broker CPU", "s/GB", "/broker_cpu_seconds_per_gb");
const CPU_REQUEST: Metric = less("broker CPU a request", "us", "/broker_cpu_us_per_request");
const CORES: Metric = less("broker's core used", "of 1", "/broker_cores_used");
const MEMORY: Metric = less("broker memory, peak", "B", "/broker_memory_bytes_max");
const P50: Metric = less("ack p50", "us", "/latency_us/p50");
const P99: Metric = less("ack p99", "us", "/latency_us/p99");
const P999: Metric = less("ack p99.9", "us", "/latency_us/p999");

const BULK: &[Metric] = &[beside(MB, "disk_fresh_mb_per_second"), CPU_GB, CORES, P50, P99, MEMORY];
const OVER_PARTITIONS: &[Metric] =
    &[beside(MB, "disk_fresh_mb_per_second"), more("relative to 8 partitions", "x", "/relative_to_first"), CPU_GB, CORES, P99, MEMORY];
const SMALL: &[Metric] = &[more("acks", "/s", "/requests_per_second"), beside(P50, "disk_small_p50_us"), P99, P999, CPU_REQUEST, MEMORY];
const END_TO_END: &[Metric] = &[
    less("end to end p50", "us", "/end_to_end_us/p50"),
    less("end to end p99", "us", "/end_to_end_us/p99"),
    less("end to end p99.9", "us", "/end_to_end_us/p999"),
    less("end to end max", "us", "/end_to_end_us/max"),
    P50,
    P99,
    less("requests not sent in time", "", "/requests_unsent"),
    CORES,
    MEMORY,
];
const FAN_OUT: &[Metric] = &[
    beside(more("received", "MB/s", "/received/mb_per_second"), "loopback_send_mb_per_second"),
    CPU_GB,
    CORES,
    less("end to end p99", "us", "/end_to_end_us/p99"),
    MEMORY,
];
const CATCH_UP: &[Metric] = &[
    beside(more("cold read", "MB/s", "/received/mb_per_second"), "disk_cold_sendfile_mb_per_second"),
    less("producer's p99 alone", "us", "/alone_us/p99"),
    less("producer's p99 beside the reader", "us", "/latency_us/p99"),
    less("producer's p99 beside / alone", "x", "/p99_ratio"),
    less("requests not sent in time", "", "/requests_unsent"),
    CPU_GB,
    MEMORY,
];
const RESTART: &[Metric] =
    &[less("first ack after kill -9", "s", "/seconds_until_ack"), less("broker memory", "B", "/broker_memory_bytes")];
const IDLE: &[Metric] = &[CORES, less("broker memory", "B", "/broker_memory_bytes")];
const COMPACTION: &[Metric] = &[
    beside(more("compacted", "MB/s", "/cleaned_mb_per_second"), "disk_read_mb_per_second"),
    CPU_GB,
    MEMORY,
    less("memory added meanwhile", "B", "/memory_added_bytes"),
];
const KEYED: &[Metric] = &[
    more("records", "/s", "/records_per_second"),
    P50,
    P99,
    less("broker CPU a record", "us", "/broker_cpu_us_per_record"),
    less("requests not sent in time", "", "/requests_unsent"),
    CORES,
    MEMORY,
];

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn case(key: impl ToString, title: impl ToString, load: &str, metrics: &'static [Metric]) -> Case {
    Case { key: key.to_string(), title: title.to_string(), prepare: Vec::new(), measure: Measure::Load(words(load)), metrics }
}

impl Workload {
    /// The workload of a command line.
    ///
    /// # Errors
    /// It does not exist yet.
    pub fn find(args: &Compare) -> Result<Workload> {
        let quick = args.quick;
        let seconds = |short: f64, long: f64| args.seconds.unwrap_or(if quick { short } else { long });
        let bulk = |seconds: f64| format!("produce --record-bytes 1024 --records 1000 --in-flight 4 --gb-max 12 --seconds {seconds}");
        let (title, warm_up, cases) = match args.workload {
            Id::W1 => {
                let load = format!("{} --partitions 8", bulk(seconds(4.0, 10.0)));
                (
                    "produce, 1 KiB records, 1 MiB requests, 8 partitions, acks=all",
                    load.clone(),
                    vec![case("bulk", "4 in flight", &load, BULK)],
                )
            }
            Id::W2 => {
                let load = |clients: usize, in_flight: usize| {
                    let seconds = seconds(4.0, 10.0);
                    let load = "produce --record-bytes 100 --records 1 --partitions 8";
                    format!("{load} --clients {clients} --in-flight {in_flight} --seconds {seconds}")
                };
                let on_one =
                    |in_flight: usize| case(in_flight, format!("{in_flight} in flight on one connection"), &load(1, in_flight), SMALL);
                // Kafka serves one request of a connection at a time; over many it can work on all of them.
                let on_many = case("64-connections", "64 connections, one in flight on each", &load(64, 1), SMALL);
                let cases = vec![on_one(1), on_one(64), on_one(512), on_many];
                ("produce, one 100 B record a request, 8 partitions, acks=all", load(1, 64), cases)
            }
            Id::W3 => {
                let load = "--record-bytes 1024 --records 10 --partitions 8 --clients 4";
                let measure = format!("end-to-end {load} --rate 50000 --consumers 4 --share --seconds {}", seconds(10.0, 60.0));
                let case = case("steady", "50,000 records/s in 5,000 requests/s, 4 producers, 4 consumers", &measure, END_TO_END);
                ("end to end at a fixed rate, 8 partitions, acks=all", format!("produce {load}"), vec![case])
            }
            Id::W4 => {
                let load = "--record-bytes 1024 --records 1000 --partitions 8";
                let cases = [1, 4, 16].map(|consumers| {
                    let seconds = seconds(4.0, 10.0);
                    let measure = format!("end-to-end {load} --in-flight 4 --consumers {consumers} --crc-every 16 --seconds {seconds}");
                    case(consumers, format!("{consumers} consumers at the end of the log, each reads all"), &measure, FAN_OUT)
                });
                ("one producer and tailing consumers, 8 partitions, acks=all", format!("produce {load}"), cases.into())
            }
            Id::W5 => {
                let gb = if quick { 2.0 } else { 10.0 };
                let mut case =
                    case("cold", format!("{gb} GB read from a cold disk beside 15,000 records/s in 1,500 requests/s"), "", CATCH_UP);
                case.prepare = vec![words(&format!("produce --partitions 8 --warm-up 0 --seconds 600 --gb-max {gb}"))];
                case.measure = Measure::Cold(words(&format!(
                    "catch-up --record-bytes 1024 --records 10 --rate 15000 --clients 4 --partitions 8 --consumers 4 --share --crc-every 16 --seconds {}",
                    seconds(10.0, 30.0)
                )));
                let load = "produce --record-bytes 1024 --records 10 --partitions 8 --clients 4";
                ("cold catch-up read beside a producer, acks=all", load.to_owned(), vec![case])
            }
            Id::W6 => {
                let partitions: &[usize] = if quick { &[8, 1000] } else { &[8, 1, 100, 1000, 5000] };
                let mut cases = Vec::new();
                for partitions in partitions {
                    let load = format!("{} --partitions {partitions}", bulk(seconds(3.0, 8.0)));
                    cases.push(case(partitions, format!("1 MiB requests over {partitions} partitions"), &load, OVER_PARTITIONS));
                }
                let load = bulk(seconds(3.0, 8.0)).replace("--records 1000", "--records 100") + " --partitions 1000";
                cases.push(case("1000-small", "100 KiB requests over 1000 partitions", &load, OVER_PARTITIONS));
                let load = format!("{} --partitions 8", bulk(1.0));
                ("produce, 1 KiB records, over more partitions, acks=all", load, cases)
            }
            Id::W7 => {
                let sizes: &[f64] = if quick { &[1.0] } else { &[10.0, 20.0] };
                let cases = sizes.iter().map(|gb| Case {
                    key: format!("{gb}"),
                    title: format!("1,000 partitions, {gb} GB, killed after its last ack, cold cache"),
                    prepare: vec![words(&format!("produce --partitions 1000 --records 1000 --warm-up 0 --seconds 1200 --gb-max {gb}"))],
                    measure: Measure::Restart,
                    metrics: RESTART,
                });
                ("start after kill -9", String::new(), cases.collect())
            }
            Id::W8 => {
                let measure = format!("consume --consumers 100 --share --warm-up 15 --seconds {}", seconds(10.0, 30.0));
                let mut case = case("idle", "1,000 partitions, 100 idle consumers with 10 partitions each", &measure, IDLE);
                let fill = "produce --partitions 1000 --records 1 --record-bytes 100 --in-flight 64 --warm-up 0 --seconds 3";
                case.prepare = vec![words(fill)];
                ("an idle broker", String::new(), vec![case])
            }
            Id::W9 => {
                let gb = if quick { 1.0 } else { 5.0 };
                let case = |key: &str, title, cold| Case {
                    key: key.to_owned(),
                    title: format!("{gb} GB of 1 KiB records, random keys, each written ten times on average; {title}"),
                    prepare: Vec::new(),
                    measure: Measure::Compaction { gb, cold },
                    metrics: COMPACTION,
                };
                let cases = vec![case("clean", "just written", false), case("cold", "not in the page cache", true)];
                let load = "produce --record-bytes 1024 --records 1000 --partitions 1 --keys 1000000";
                ("compaction of a log of which a tenth is live", load.to_owned(), cases)
            }
            Id::W10 => {
                let load = "produce --record-bytes 100 --keys 100000 --compression lz4 --partitions 100 --clients 50";
                // One in flight: Kafka answers what 50 clients have in flight at about the same time, which must be well within a run.
                let closed = |records| format!("{load} --in-flight 1 --records {records} --seconds {}", seconds(8.0, 20.0));
                let paced = format!("{load} --in-flight 5 --rate 200000 --linger-ms 5 --seconds {}", seconds(5.0, 15.0));
                let cases = vec![
                    case("full", "as fast as acks come: 10,000 records a request, 100 in a batch", &closed(10_000), KEYED),
                    case("thin", "as fast as acks come: 200 records a request, 2 or 3 in a batch", &closed(200), KEYED),
                    case("paced", "200,000 records/s due, a request holds what 5 ms bring", &paced, KEYED),
                ];
                (
                    "small keyed records: 50 producers, 100 B, 100 partitions, lz4, acks=all",
                    format!("{load} --in-flight 1 --records 1000"),
                    cases,
                )
            }
        };
        Ok(Workload { id: format!("{:?}", args.workload), title, warm_up: words(&warm_up), cases })
    }
}
