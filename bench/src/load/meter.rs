//! What is counted and timed while a run goes on: totals, a histogram, and both second by second.

use anyhow::Result;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::time::{Duration, Instant};

/// Latencies are recorded up to so much, in microseconds.
const LATENCY_US_MAX: u64 = 120_000_000;

/// What was moved.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Requests (or fetches) answered.
    pub requests: u64,
    /// Records moved.
    pub records: u64,
    /// Bytes of batches moved.
    pub bytes: u64,
}

/// One second of a run.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Tick {
    /// Seconds since the measurement began.
    pub second: f64,
    /// 10^6 bytes per second.
    pub mb_per_second: f64,
    /// Records per second.
    pub records_per_second: f64,
    /// The 99th percentile of what was timed in this second, in microseconds.
    pub p99_us: u64,
}

/// Counts and times one direction of a run.
pub struct Meter {
    /// Everything measured.
    pub counts: Counts,
    /// Everything timed and measured, in microseconds.
    pub latency: Histogram<u64>,
    /// Second by second.
    pub timeline: Vec<Tick>,
    second: Counts,
    second_latency: Histogram<u64>,
    second_begin: Instant,
}

impl Meter {
    /// Nothing yet.
    ///
    /// # Errors
    /// None in practice: the histogram's bounds are constants.
    pub fn new() -> Result<Meter> {
        Ok(Meter {
            counts: Counts::default(),
            latency: Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)?,
            timeline: Vec::new(),
            second: Counts::default(),
            second_latency: Histogram::new_with_bounds(1, LATENCY_US_MAX, 2)?,
            second_begin: Instant::now(),
        })
    }

    /// Counts what was moved; `measured` says whether it lies in the measured time.
    pub fn count(&mut self, measured: bool, requests: u64, records: u64, bytes: u64) {
        let totals = [Some(&mut self.second), measured.then_some(&mut self.counts)];
        for counts in totals.into_iter().flatten() {
            counts.requests += requests;
            counts.records += records;
            counts.bytes += bytes;
        }
    }

    /// Records a latency.
    pub fn time(&mut self, measured: bool, latency: Duration) {
        let us = latency.as_micros() as u64;
        self.second_latency.saturating_record(us);
        if measured {
            self.latency.saturating_record(us);
        }
    }

    /// Closes the current second if it is over. `since` is the time since the measurement began, if it has begun and
    /// not ended: only such seconds stand in the timeline.
    pub fn tick(&mut self, now: Instant, since: Option<Duration>) -> Option<Tick> {
        let elapsed = now.saturating_duration_since(self.second_begin).as_secs_f64();
        if elapsed < 1.0 {
            return None;
        }
        let tick = Tick {
            second: since.map_or(0.0, |since| since.as_secs_f64()),
            mb_per_second: self.second.bytes as f64 / elapsed / 1e6,
            records_per_second: self.second.records as f64 / elapsed,
            p99_us: self.second_latency.value_at_quantile(0.99),
        };
        if since.is_some() {
            self.timeline.push(tick);
        }
        self.begin_second(now);
        Some(tick)
    }

    /// Begins a second now and forgets the current one.
    pub fn begin_second(&mut self, now: Instant) {
        self.second = Counts::default();
        self.second_latency.reset();
        self.second_begin = now;
    }
}
