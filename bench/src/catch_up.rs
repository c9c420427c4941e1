//! `catch-up`: a topic is read from its start while a producer runs beside it, first alone, then with the reader.

use crate::{
    args::{CatchUp, Common},
    cold,
    connection::wait,
    control,
    load::{Consumers, Load, Meter, Pace, Producers, Run},
    produce::{Ledger, TURN_US_MAX, give_up, sleep_us, step, step_with},
    report::{Latency, Report, Shape, Verified},
};
use anyhow::{Result, ensure};
use std::time::{Duration, Instant};

/// Bytes that are read in one turn, between two looks at the producer.
const READ_BYTES_MAX: usize = 128 << 10;
/// The reader ends at the end of its topic; this bounds a broker that hangs.
const READ_SECONDS_MAX: f64 = 3_600.0;

/// The producer with what it is measured by.
struct Beside {
    load: Load,
    producers: Producers,
    ledger: Ledger,
}

impl Beside {
    fn turn(&mut self, meter: &mut Meter, run: &Run, now: Instant) -> Result<()> {
        self.producers.queue(now, usize::MAX);
        step(&mut self.producers, meter, &mut self.ledger, run, &self.load)
    }
}

/// The phase without a reader, which may be over: what was due in it and is answered later still belongs to it.
struct Alone {
    run: Run,
    meter: Meter,
}

impl Alone {
    /// A request was answered, or given up; true if it was one of this phase. A closed loop times by the answer.
    fn time(&mut self, pace: Pace, due: Instant, waited: Duration) -> bool {
        let is_mine = pace != Pace::Closed && self.run.measures(due);
        if is_mine {
            self.meter.time(true, waited);
        }
        is_mine
    }

    fn turn(&mut self, beside: &mut Beside, sent: &mut Meter, run: &Run) -> Result<()> {
        let pace = beside.load.pace;
        step_with(&mut beside.producers, sent, &mut beside.ledger, run, &beside.load, |due, waited| {
            self.time(pace, due, waited);
        })
    }
}

/// Runs it.
///
/// # Errors
/// The broker's, a gap or a wrong checksum, or data that is not where the broker said.
pub fn run(args: &CatchUp) -> Result<()> {
    let old = control::topic(&args.common.broker, &args.common.topic)?;
    let begins = control::offsets(&old, control::EARLIEST)?;
    let ends = control::offsets(&old, control::LATEST)?;
    let expected: u64 = begins.iter().zip(&ends).map(|(begin, end)| (end - begin) as u64).sum();
    ensure!(expected > 0, "topic {} is empty: fill it with `produce`", old.name);
    control::create(&args.common.broker, &args.producer_topic, args.load.partitions)?;
    let topic = control::topic(&args.common.broker, &args.producer_topic)?;
    let load = args.load.load();
    let reading = args.read.reading();

    if let Some(directory) = &args.cold {
        cold::evict(directory)?;
    }
    // Connected now, so that no time passes between the two phases.
    let mut consumers = Consumers::open(&reading, &old, &begins, Some(ends))?;
    let ledger = Ledger::new(&topic)?;
    let run = Run::start("alone", &args.common)?;
    let mut beside = Beside { producers: Producers::open(&load, &topic)?, ledger, load };
    let mut alone = alone(&mut beside, run)?;

    let common = Common { seconds: READ_SECONDS_MAX, ..args.common.clone() };
    let mut run = Run::follow("catch-up", &common, &alone.run)?;
    let (mut sent, mut got) = (Meter::new()?, Meter::new()?);
    let mut batches = 0;
    while run.goes_on(Instant::now()) {
        let now = Instant::now();
        run.turn(now)?;
        beside.producers.queue(now, usize::MAX);
        alone.turn(&mut beside, &mut sent, &run)?;
        // The producer and the readers share this thread: an ack must not wait until all that came for them is read.
        let answers = consumers.step_in_turn(READ_BYTES_MAX, |received| {
            batches += 1;
            got.count(true, 0, received.batch.records, received.batch.bytes);
            Ok(())
        })?;
        got.count(true, answers, 0, 0);
        run.tick(&mut sent, now);
        if let Some(tick) = run.tick(&mut got, now) {
            run.show(&tick);
        }
        if consumers.are_at_end() {
            run.finish(Instant::now())?;
            break;
        }
        let sleep = if consumers.are_waiting() { sleep_us(&beside.producers, &run) } else { 0 };
        wait(beside.producers.connections().chain(consumers.connections()), sleep)?;
    }
    let unsent = drain(&mut beside, &mut alone, &mut sent, &mut run)?;
    beside.ledger.check(&topic)?;
    let wanted = expected * consumers.readers_of_each() as u64;
    ensure!(got.counts.records >= wanted, "{} records came of {wanted}", got.counts.records);

    let (seconds, cost) = run.cost()?;
    let verified = Verified {
        batches_acked: beside.producers.batches(),
        batches_received: batches,
        crc_every: reading.crc_every,
        ..Verified::default()
    };
    let mut report = Report::new("catch-up", seconds, &sent, &cost, verified).with_received(&got, &cost);
    report.timeline = got.timeline;
    report.load = Some(Shape::new(&beside.load, topic.leaders.len(), &sent.counts));
    report.requests_unsent = Some(unsent).filter(|_| beside.load.pace != Pace::Closed);
    report.alone_us = Some(Latency::from(&alone.meter.latency));
    report.print(args.common.json)
}

/// The producer without a reader; its requests in flight at the end go on into the next phase.
fn alone(beside: &mut Beside, mut run: Run) -> Result<Alone> {
    let mut meter = Meter::new()?;
    while run.goes_on(Instant::now()) {
        let now = Instant::now();
        run.turn(now)?;
        beside.turn(&mut meter, &run, now)?;
        if let Some(tick) = run.tick(&mut meter, now) {
            run.show(&tick);
        }
        wait(beside.producers.connections(), sleep_us(&beside.producers, &run))?;
    }
    Ok(Alone { run, meter })
}

/// Gives up what was due and not sent, and waits for the acks of what was. Returns how many requests of either phase were never
/// sent.
fn drain(beside: &mut Beside, alone: &mut Alone, sent: &mut Meter, run: &mut Run) -> Result<u64> {
    let (pace, end) = (beside.load.pace, run.end());
    let mut of_alone = 0;
    let of_both = give_up(&mut beside.producers, sent, run, |_, due, _| {
        of_alone += u64::from(alone.time(pace, due, end.saturating_duration_since(due)));
    });
    while !beside.producers.is_idle() {
        run.turn(Instant::now())?;
        alone.turn(beside, sent, run)?;
        wait(beside.producers.connections(), TURN_US_MAX)?;
    }
    Ok(of_alone + of_both)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn what_is_due_alone_and_answered_beside_the_reader_counts_alone_and_nothing_falls_between() {
        let args = crate::args::Args::parse_from(["thalweg-bench", "catch-up", "--seconds", "10", "--warm-up", "0"]);
        let crate::args::Command::CatchUp(args) = args.command else { unreachable!() };
        let run = Run::start("alone", &args.common).unwrap();
        let mut alone = Alone { run, meter: Meter::new().unwrap() };
        let next = Run::follow("catch-up", &args.common, &alone.run).unwrap();
        let end = alone.run.end();
        let moment = Duration::from_nanos(1);
        assert!(alone.time(Pace::Open(1.0), end - moment, Duration::from_secs(1)) && !next.measures(end - moment));
        assert!(!alone.time(Pace::Open(1.0), end, Duration::from_secs(1)) && next.measures(end));
        assert!(!alone.time(Pace::Closed, end - moment, Duration::from_secs(1)), "timed by its answer");
        assert_eq!(alone.meter.latency.len(), 1);
    }
}
