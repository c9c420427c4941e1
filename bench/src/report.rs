//! What a run found, as a table or as JSON.

use crate::{
    load::{Counts, Load, Meter, Pace, Tick},
    process::Usage,
};
use hdrhistogram::Histogram;
use serde::Serialize;

/// A run's result. Rates count what was acked (or received) within the measured time.
#[derive(Serialize)]
pub struct Report {
    /// The command.
    pub command: &'static str,
    /// Measured time in seconds.
    pub seconds: f64,
    /// What was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load: Option<Shape>,
    /// What was acked, or sent by `plain-send`.
    #[serde(flatten)]
    pub moved: Moved,
    /// Time until an ack, in microseconds. Absent where nothing is timed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_us: Option<Latency>,
    /// Requests that were due in the measured time and not sent until its end, since the broker was behind. They count in
    /// the latencies with the time that they had waited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_unsent: Option<u64>,
    /// What consumers received beside the producers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub received: Option<Moved>,
    /// Time until a consumer had a batch, in microseconds, from when it was due to be sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_to_end_us: Option<Latency>,
    /// The producer's time until an ack before the reader began (`catch-up`), in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alone_us: Option<Latency>,
    /// What was checked.
    pub verified: Verified,
    /// The processes' cost.
    #[serde(flatten)]
    pub cost: Costs,
    /// Second by second: what was acked, or received where nothing was sent.
    pub timeline: Vec<Tick>,
}

/// The shape of a load.
#[derive(Serialize)]
pub struct Shape {
    /// Bytes of a record's value.
    pub record_bytes: usize,
    /// Records in a request.
    pub records_per_request: usize,
    /// Bytes of a request's batches, on average.
    pub batch_bytes_per_request: f64,
    /// Different keys, if records have keys.
    pub keys: Option<u64>,
    /// The codec.
    pub compression: crate::batch::Compression,
    /// Partitions of the topic.
    pub partitions: usize,
    /// Producers.
    pub clients: usize,
    /// Bound of requests in flight on a connection.
    pub in_flight_max: usize,
    /// Records a second that were due; absent in a closed loop.
    pub records_per_second_due: Option<f64>,
    /// What an ack was asked to promise: -1 (all) or 1.
    pub acks: i16,
}

impl Shape {
    /// The shape of a load that moved these counts.
    #[must_use]
    pub fn new(load: &Load, partitions: usize, counts: &Counts) -> Shape {
        Shape {
            record_bytes: load.record_bytes,
            records_per_request: load.records,
            batch_bytes_per_request: counts.bytes as f64 / counts.requests.max(1) as f64,
            keys: load.keys,
            compression: load.compression,
            partitions,
            clients: load.clients,
            in_flight_max: load.in_flight_max,
            records_per_second_due: match load.pace {
                Pace::Closed => None,
                Pace::Open(rate) => Some(rate * load.records as f64),
            },
            acks: load.acks,
        }
    }
}

/// Counts and rates.
#[derive(Serialize)]
pub struct Moved {
    /// Requests (or fetches) answered.
    pub requests: u64,
    /// Records moved.
    pub records: u64,
    /// Bytes of batches moved.
    pub bytes: u64,
    /// Requests per second.
    pub requests_per_second: f64,
    /// Records per second.
    pub records_per_second: f64,
    /// 10^6 bytes per second.
    pub mb_per_second: f64,
}

impl Moved {
    /// Counts over a time.
    #[must_use]
    pub fn new(counts: &Counts, seconds: f64) -> Moved {
        Moved {
            requests: counts.requests,
            records: counts.records,
            bytes: counts.bytes,
            requests_per_second: counts.requests as f64 / seconds,
            records_per_second: counts.records as f64 / seconds,
            mb_per_second: counts.bytes as f64 / seconds / 1e6,
        }
    }
}

/// What a run has checked, warm-up and drain included. Something that does not hold is an error, not a number here.
#[derive(Default, Serialize)]
pub struct Verified {
    /// Batches whose ack named their partition and offset.
    pub batches_acked: u64,
    /// Batches received in order, without a gap.
    pub batches_received: u64,
    /// Acked batches that reached every consumer of their partition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batches_matched: Option<u64>,
    /// Every so many received batches had its checksum computed; 0 means none.
    pub crc_every: u64,
}

/// Percentiles in microseconds.
#[derive(Clone, Serialize)]
pub struct Latency {
    /// Median.
    pub p50: u64,
    /// 9 of 10.
    pub p90: u64,
    /// 99 of 100.
    pub p99: u64,
    /// 999 of 1,000.
    pub p999: u64,
    /// 9,999 of 10,000.
    pub p9999: u64,
    /// The largest.
    pub max: u64,
}

impl From<&Histogram<u64>> for Latency {
    fn from(histogram: &Histogram<u64>) -> Latency {
        let at = |quantile| histogram.value_at_quantile(quantile);
        Latency { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), p9999: at(0.9999), max: histogram.max() }
    }
}

/// The processes before and after the measured time.
pub struct Cost {
    /// The broker before and after.
    pub broker: Option<(Usage, Usage)>,
    /// This process before and after.
    pub own: (Usage, Usage),
}

/// What the processes used in the measured time.
#[derive(Serialize)]
pub struct Costs {
    /// The broker's CPU seconds per 10^9 bytes moved (acked and received).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker_cpu_seconds_per_gb: Option<f64>,
    /// The broker's CPU microseconds per request (acked, or fetched where nothing was sent).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker_cpu_us_per_request: Option<f64>,
    /// The broker's CPU microseconds per record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker_cpu_us_per_record: Option<f64>,
    /// The share of one core that the broker used, 1.0 being a whole one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker_cores_used: Option<f64>,
    /// The broker's resident size at the end, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker_memory_bytes: Option<u64>,
    /// The broker's largest resident size so far, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker_memory_bytes_max: Option<u64>,
    /// Our own CPU microseconds per request.
    pub own_cpu_us_per_request: f64,
    /// Our own CPU microseconds per record.
    pub own_cpu_us_per_record: f64,
    /// The share of one core that we used.
    pub own_cores_used: f64,
}

impl Costs {
    fn new(cost: &Cost, seconds: f64, counts: &Counts, bytes_moved: u64) -> Costs {
        let used = |(before, after): &(Usage, Usage)| after.cpu_seconds - before.cpu_seconds;
        let (requests, records) = (counts.requests.max(1) as f64, counts.records.max(1) as f64);
        let (broker, own) = (cost.broker.as_ref().map(used), used(&cost.own));
        let after = cost.broker.as_ref().map(|(_, after)| after);
        Costs {
            broker_cpu_seconds_per_gb: broker.filter(|_| bytes_moved > 0).map(|cpu| cpu / (bytes_moved as f64 / 1e9)),
            broker_cpu_us_per_request: broker.map(|cpu| cpu * 1e6 / requests),
            broker_cpu_us_per_record: broker.map(|cpu| cpu * 1e6 / records),
            broker_cores_used: broker.map(|cpu| cpu / seconds),
            broker_memory_bytes: after.map(|usage| usage.memory_bytes),
            broker_memory_bytes_max: after.map(|usage| usage.memory_bytes_max),
            own_cpu_us_per_request: own * 1e6 / requests,
            own_cpu_us_per_record: own * 1e6 / records,
            own_cores_used: own / seconds,
        }
    }
}

impl Report {
    /// A report of what one meter saw; commands add what else they know.
    #[must_use]
    pub fn new(command: &'static str, seconds: f64, meter: &Meter, cost: &Cost, verified: Verified) -> Report {
        Report {
            command,
            seconds,
            load: None,
            moved: Moved::new(&meter.counts, seconds),
            latency_us: (!meter.latency.is_empty()).then(|| Latency::from(&meter.latency)),
            requests_unsent: None,
            received: None,
            end_to_end_us: None,
            alone_us: None,
            verified,
            cost: Costs::new(cost, seconds, &meter.counts, meter.counts.bytes),
            timeline: meter.timeline.clone(),
        }
    }

    /// Adds what consumers received beside the producers.
    #[must_use]
    pub fn with_received(mut self, meter: &Meter, cost: &Cost) -> Report {
        self.received = Some(Moved::new(&meter.counts, self.seconds));
        self.end_to_end_us = (!meter.latency.is_empty()).then(|| Latency::from(&meter.latency));
        let counts = Counts { requests: self.moved.requests, records: self.moved.records, bytes: self.moved.bytes };
        self.cost = Costs::new(cost, self.seconds, &counts, counts.bytes + meter.counts.bytes);
        self
    }

    /// Prints it.
    ///
    /// # Errors
    /// Encoding.
    pub fn print(&self, json: bool) -> anyhow::Result<()> {
        if json {
            println!("{}", serde_json::to_string(self)?);
            return Ok(());
        }
        let rates = |name: &str, moved: &Moved| {
            println!("{name:<24}{:>14.1} MB/s", moved.mb_per_second);
            println!("{:<24}{:>14.0} /s", "  requests", moved.requests_per_second);
            println!("{:<24}{:>14.0} /s", "  records", moved.records_per_second);
        };
        let latency = |name: &str, latency: &Option<Latency>| {
            if let Some(Latency { p50, p99, p999, max, .. }) = latency {
                println!("{name:<24}{p50:>14} us p50, {p99} p99, {p999} p99.9, {max} max");
            }
        };
        rates(self.command, &self.moved);
        if let Some(received) = &self.received {
            rates("received", received);
        }
        latency("alone, until the ack", &self.alone_us);
        latency("until the ack", &self.latency_us);
        latency("until a consumer has it", &self.end_to_end_us);
        if let Some(unsent) = self.requests_unsent.filter(|unsent| *unsent > 0) {
            println!("{:<24}{unsent:>14} requests were due and never sent: the broker was behind", "unsent");
        }
        let cost = &self.cost;
        if let (Some(per_request), Some(per_record), Some(cores)) =
            (cost.broker_cpu_us_per_request, cost.broker_cpu_us_per_record, cost.broker_cores_used)
        {
            let per_gb = cost.broker_cpu_seconds_per_gb.map_or_else(|| "-".to_owned(), |per_gb| format!("{per_gb:.3}"));
            let percent = cores * 100.0;
            println!(
                "{:<24}{per_gb:>14} s/GB, {per_request:.2} us a request, {per_record:.3} us a record, {percent:.0}% of a core",
                "broker's CPU"
            );
        }
        if let Some(bytes) = cost.broker_memory_bytes_max {
            println!("{:<24}{:>14.1} MB peak", "broker's memory", bytes as f64 / 1e6);
        }
        let percent = cost.own_cores_used * 100.0;
        println!(
            "{:<24}{:>14.2} us a request, {:.3} us a record, {percent:.0}% of a core",
            "own CPU", cost.own_cpu_us_per_request, cost.own_cpu_us_per_record
        );
        let Verified { batches_acked, batches_received, batches_matched, crc_every } = &self.verified;
        let matched = batches_matched.map_or_else(String::new, |matched| format!(", {matched} matched"));
        let received = match (batches_received, crc_every) {
            (0, _) => String::new(),
            (received, 0) => format!(", {received} received{matched}, no checksums"),
            (received, 1) => format!(", {received} received{matched}, each one's checksum"),
            (received, every) => format!(", {received} received{matched}, the checksum of every {every}th"),
        };
        println!("{:<24}{batches_acked:>14} batches acked{received}", "verified");
        Ok(())
    }
}
