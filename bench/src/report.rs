//! What a run found, as a table or as JSON.

use crate::process::Usage;
use hdrhistogram::Histogram;
use serde::Serialize;

/// A run's result. Rates count what was acked (or received) within the measured time.
#[derive(Serialize)]
pub struct Report {
    /// The command.
    pub command: &'static str,
    /// Measured time in seconds.
    pub seconds: f64,
    /// Requests (or fetches) answered.
    pub requests: u64,
    /// Records moved.
    pub records: u64,
    /// Bytes of batches moved.
    pub bytes: u64,
    /// Requests per second.
    pub requests_per_second: f64,
    /// 10^6 bytes per second.
    pub mb_per_second: f64,
    /// Latency in microseconds: p50, p99, p99.9, max. Absent where nothing is timed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_us: Option<Latency>,
    /// The broker's CPU seconds per 10^9 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker_cpu_seconds_per_gb: Option<f64>,
    /// The broker's CPU microseconds per request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker_cpu_us_per_request: Option<f64>,
    /// The share of one core that the broker used, 1.0 being a whole one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker_cores_used: Option<f64>,
    /// The broker's largest resident size so far, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker_memory_bytes_max: Option<u64>,
    /// Our own CPU microseconds per request.
    pub own_cpu_us_per_request: f64,
}

/// Percentiles in microseconds.
#[derive(Serialize)]
pub struct Latency {
    /// Median.
    pub p50: u64,
    /// 99 of 100.
    pub p99: u64,
    /// 999 of 1,000.
    pub p999: u64,
    /// The largest.
    pub max: u64,
}

/// What was counted in a run.
#[derive(Default)]
pub struct Counts {
    /// Requests (or fetches) answered.
    pub requests: u64,
    /// Records moved.
    pub records: u64,
    /// Bytes of batches moved.
    pub bytes: u64,
}

/// The processes before and after the measured time.
pub struct Cost {
    /// The broker before and after.
    pub broker: Option<(Usage, Usage)>,
    /// This process before and after.
    pub own: (Usage, Usage),
}

impl Report {
    /// Puts the figures of a run together.
    #[must_use]
    pub fn new(command: &'static str, seconds: f64, counts: &Counts, latency: Option<&Histogram<u64>>, cost: &Cost) -> Report {
        let used = |(before, after): &(Usage, Usage)| after.cpu_seconds - before.cpu_seconds;
        let requests = counts.requests.max(1) as f64;
        Report {
            command,
            seconds,
            requests: counts.requests,
            records: counts.records,
            bytes: counts.bytes,
            requests_per_second: counts.requests as f64 / seconds,
            mb_per_second: counts.bytes as f64 / seconds / 1e6,
            latency_us: latency.map(|histogram| Latency {
                p50: histogram.value_at_quantile(0.5),
                p99: histogram.value_at_quantile(0.99),
                p999: histogram.value_at_quantile(0.999),
                max: histogram.max(),
            }),
            broker_cpu_seconds_per_gb: cost.broker.as_ref().map(|both| used(both) / (counts.bytes.max(1) as f64 / 1e9)),
            broker_cpu_us_per_request: cost.broker.as_ref().map(|both| used(both) * 1e6 / requests),
            broker_cores_used: cost.broker.as_ref().map(|both| used(both) / seconds),
            broker_memory_bytes_max: cost.broker.as_ref().map(|(_, after)| after.memory_bytes_max),
            own_cpu_us_per_request: used(&cost.own) * 1e6 / requests,
        }
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
        println!("{:<24}{:>14.1} MB/s", self.command, self.mb_per_second);
        println!("{:<24}{:>14.0} /s", "requests", self.requests_per_second);
        println!("{:<24}{:>14.0} /s", "records", self.records as f64 / self.seconds);
        if let Some(latency) = &self.latency_us {
            println!("{:<24}{:>14} us p50, {} p99, {} p99.9, {} max", "latency", latency.p50, latency.p99, latency.p999, latency.max);
        }
        if let (Some(per_gb), Some(per_request), Some(cores)) =
            (self.broker_cpu_seconds_per_gb, self.broker_cpu_us_per_request, self.broker_cores_used)
        {
            println!("{:<24}{per_gb:>14.3} s/GB, {per_request:.2} us a request, {:.0}% of a core", "broker's CPU", cores * 100.0);
        }
        if let Some(bytes) = self.broker_memory_bytes_max {
            println!("{:<24}{:>14.1} MB peak", "broker's memory", bytes as f64 / 1e6);
        }
        println!("{:<24}{:>14.2} us a request", "own CPU", self.own_cpu_us_per_request);
        Ok(())
    }
}
