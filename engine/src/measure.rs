//! What a core measures while it works: plain cells of one thread, given away as copies.

use hdrhistogram::Histogram;
use std::cell::{Cell, RefCell};

/// Times above this one, in µs, count as it: no operation that ends takes so long.
pub const TIME_US_MAX: u64 = 600_000_000;
/// Significant digits of a time that is kept: 1%.
const DIGITS: u8 = 2;

/// How long something took, time after time.
#[derive(Debug)]
pub struct Latency {
    times: RefCell<Histogram<u64>>,
    sum_us: Cell<u64>,
}

impl Default for Latency {
    fn default() -> Self {
        // It grows to the longest time that it has seen.
        Latency { times: RefCell::new(Histogram::new(DIGITS).expect("a histogram of so many digits")), sum_us: Cell::new(0) }
    }
}

impl Latency {
    /// It took `us` µs once more.
    pub fn record_us(&self, us: u64) {
        let us = us.min(TIME_US_MAX);
        self.times.borrow_mut().record(us).expect("it grows up to the bound");
        self.sum_us.set(self.sum_us.get() + us);
    }

    /// All times so far.
    #[must_use]
    pub fn times(&self) -> Times {
        Times { histogram: self.times.borrow().clone(), sum_us: self.sum_us.get() }
    }
}

/// A copy of a [`Latency`].
#[derive(Clone, Debug)]
pub struct Times {
    histogram: Histogram<u64>,
    /// All of them together, in µs.
    pub sum_us: u64,
}

impl Times {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// How many took at most `us` µs, to 1%.
    #[must_use]
    pub fn at_most(&self, us: u64) -> u64 {
        self.histogram.count_between(0, us)
    }
}

/// What a lane has written.
#[derive(Debug, Default)]
pub struct Lane {
    writes: Cell<u64>,
    bytes: Cell<u64>,
    switches: Cell<u64>,
    in_flight_bytes: Cell<u64>,
    write: Latency,
    flush: Latency,
}

impl Lane {
    /// A write of `bytes` has begun.
    pub fn begin(&self, bytes: u64) {
        self.in_flight_bytes.set(self.in_flight_bytes.get() + bytes);
    }

    /// It has ended, flushed or failed.
    pub fn end(&self, bytes: u64) {
        self.in_flight_bytes.set(self.in_flight_bytes.get() - bytes);
    }

    /// It is durable: it took `write_us` to write, and then `flush_us` to flush.
    pub fn durable(&self, bytes: u64, write_us: u64, flush_us: u64) {
        self.writes.set(self.writes.get() + 1);
        self.bytes.set(self.bytes.get() + bytes);
        self.write.record_us(write_us);
        self.flush.record_us(flush_us);
    }

    /// The journal has begun its other file.
    pub fn switched(&self) {
        self.switches.set(self.switches.get() + 1);
    }

    /// All of it so far.
    #[must_use]
    pub fn stats(&self) -> LaneStats {
        LaneStats {
            writes: self.writes.get(),
            bytes: self.bytes.get(),
            switches: self.switches.get(),
            in_flight_bytes: self.in_flight_bytes.get(),
            write: self.write.times(),
            flush: self.flush.times(),
        }
    }
}

/// A copy of a [`Lane`].
#[derive(Clone, Debug)]
pub struct LaneStats {
    /// Durable writes: the journal's frames, the bulk lane's runs.
    pub writes: u64,
    /// Their bytes, with headers and padding.
    pub bytes: u64,
    /// How often the journal has changed over to its other file.
    pub switches: u64,
    /// Bytes that are being written or flushed now.
    pub in_flight_bytes: u64,
    /// The writes.
    pub write: Times,
    /// The fdatasyncs behind them.
    pub flush: Times,
}

/// What went into a log and out of it.
#[derive(Debug, Default)]
pub struct Traffic {
    batches: Cell<u64>,
    records: Cell<u64>,
    bytes_in: Cell<u64>,
    bytes_out: Cell<u64>,
}

impl Traffic {
    /// A batch was appended.
    pub fn appended(&self, bytes: u64, records: u64) {
        self.batches.set(self.batches.get() + 1);
        self.records.set(self.records.get() + records);
        self.bytes_in.set(self.bytes_in.get() + bytes);
    }

    /// Batches of so many bytes were given to a reader.
    pub fn fetched(&self, bytes: u64) {
        self.bytes_out.set(self.bytes_out.get() + bytes);
    }

    /// All of it so far.
    #[must_use]
    pub fn stats(&self) -> TrafficStats {
        TrafficStats {
            batches: self.batches.get(),
            records: self.records.get(),
            bytes_in: self.bytes_in.get(),
            bytes_out: self.bytes_out.get(),
        }
    }
}

/// A copy of a [`Traffic`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrafficStats {
    /// Batches that were appended.
    pub batches: u64,
    /// Their records.
    pub records: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Bytes of batches that readers were given.
    pub bytes_out: u64,
}

impl std::ops::AddAssign for TrafficStats {
    fn add_assign(&mut self, other: TrafficStats) {
        self.batches += other.batches;
        self.records += other.records;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_kept_to_one_percent() {
        let latency = Latency::default();
        for us in [0, 90, 250, 4_000, 5 * TIME_US_MAX] {
            latency.record_us(us);
        }
        let times = latency.times();
        assert_eq!([0, 100, 250, 5_000, TIME_US_MAX].map(|us| times.at_most(us)), [1, 2, 3, 4, 5]);
        assert_eq!((times.count(), times.sum_us), (5, 4_340 + TIME_US_MAX));
    }

    #[test]
    fn a_write_is_in_flight_until_it_ends() {
        let lane = Lane::default();
        lane.begin(10);
        lane.begin(5);
        lane.durable(10, 1, 2);
        lane.end(10);
        let stats = lane.stats();
        assert_eq!((stats.in_flight_bytes, stats.writes, stats.bytes, stats.flush.sum_us), (5, 1, 10, 2));
    }
}
