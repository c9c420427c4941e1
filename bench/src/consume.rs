//! `consume`: offsets and checksums checked, nothing missing up to the end.

use crate::{
    args::Consume,
    cold,
    connection::wait,
    control,
    load::{Consumers, Meter, Run},
    produce::TURN_US_MAX,
    report::{Report, Verified},
};
use anyhow::{Result, ensure};
use std::time::Instant;

/// With --until-end there is no time to measure, but a bound for a broker that hangs.
const UNTIL_END_SECONDS_MAX: f64 = 3_600.0;

/// Runs it.
///
/// # Errors
/// The broker's, a gap, or a wrong checksum.
pub fn run(args: &Consume) -> Result<()> {
    let topic = control::topic(&args.common.broker, &args.common.topic)?;
    let ends = control::offsets(&topic, control::LATEST)?;
    let begins = if args.from_beginning { control::offsets(&topic, control::EARLIEST)? } else { ends.clone() };
    let expected: u64 = begins.iter().zip(&ends).map(|(begin, end)| (end - begin) as u64).sum();
    if let Some(directory) = &args.cold {
        cold::evict(directory)?;
    }
    let reading = args.read.reading();
    let mut common = args.common.clone();
    if args.until_end {
        (common.warm_up, common.seconds) = (0.0, UNTIL_END_SECONDS_MAX);
    }
    let mut consumers = Consumers::open(&reading, &topic, &begins, args.until_end.then_some(ends))?;
    let mut run = Run::start("consume", &common)?;
    let mut meter = Meter::new()?;
    let mut batches = 0;
    loop {
        let now = Instant::now();
        run.turn(now)?;
        if args.until_end && consumers.are_at_end() {
            run.finish(now)?;
        }
        if !run.goes_on(now) {
            break;
        }
        // In one reading to the end all counts, the last answer too.
        let measured = run.measures(now);
        let answers = consumers.step(|received| {
            batches += 1;
            meter.count(measured, 0, received.batch.records, received.batch.bytes);
            Ok(())
        })?;
        meter.count(measured, answers, 0, 0);
        if let Some(tick) = run.tick(&mut meter, now) {
            run.show(&tick);
        }
        let left_us = run.end().saturating_duration_since(Instant::now()).as_micros() as i64;
        wait(consumers.connections(), if consumers.are_waiting() { left_us.min(TURN_US_MAX) } else { 0 })?;
    }
    if args.until_end {
        // Records above the end as it was may have come along in the last answers.
        let wanted = expected * consumers.readers_of_each() as u64;
        ensure!(meter.counts.records >= wanted, "{} records came of {wanted}", meter.counts.records);
    }
    let (seconds, cost) = run.cost()?;
    let verified = Verified { batches_received: batches, crc_every: reading.crc_every, ..Verified::default() };
    Report::new("consume", seconds, &meter, &cost, verified).print(args.common.json)
}
