//! `catch-up`: a topic is read from its start while a producer runs beside it, first alone, then with the reader.

use crate::{
    args::CatchUp,
    cold,
    connection::wait,
    control,
    load::{Consumers, Load, Meter, Pace, Producers, Run},
    produce::{Ledger, TURN_US_MAX, sleep_us, step},
    report::{Latency, Report, Shape, Verified},
};
use anyhow::{Result, ensure};
use std::time::Instant;

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
    let mut run = Run::start("alone", &args.common)?;
    let mut beside = Beside { producers: Producers::open(&load, &topic)?, ledger: Ledger::new(&topic)?, load };
    let alone = alone(&mut beside, &mut run)?;

    let mut common = args.common.clone();
    (common.warm_up, common.seconds) = (0.0, READ_SECONDS_MAX);
    let mut consumers = Consumers::open(&reading, &old, &begins, Some(ends))?;
    let mut run = Run::start("catch-up", &common)?;
    let (mut sent, mut got) = (Meter::new()?, Meter::new()?);
    let mut batches = 0;
    while run.goes_on(Instant::now()) {
        let now = Instant::now();
        run.turn(now)?;
        beside.turn(&mut sent, &run, now)?;
        let answers = consumers.step(|received| {
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
    drain(&mut beside, &mut sent, &mut run)?;
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
    report.alone_us = Some(Latency::from(&alone.latency));
    report.print(args.common.json)
}

/// The producer without a reader; its requests in flight at the end go on into the next phase.
fn alone(beside: &mut Beside, run: &mut Run) -> Result<Meter> {
    let mut meter = Meter::new()?;
    while run.goes_on(Instant::now()) {
        let now = Instant::now();
        run.turn(now)?;
        beside.turn(&mut meter, run, now)?;
        if let Some(tick) = run.tick(&mut meter, now) {
            run.show(&tick);
        }
        wait(beside.producers.connections(), sleep_us(&beside.producers, run))?;
    }
    Ok(meter)
}

/// Waits for the acks of what was sent.
fn drain(beside: &mut Beside, meter: &mut Meter, run: &mut Run) -> Result<()> {
    for due in beside.producers.give_up_late() {
        if beside.load.pace != Pace::Closed {
            meter.time(run.measures(due), run.end().saturating_duration_since(due));
        }
    }
    while !beside.producers.is_idle() {
        run.turn(Instant::now())?;
        step(&mut beside.producers, meter, &mut beside.ledger, run, &beside.load)?;
        wait(beside.producers.connections(), TURN_US_MAX)?;
    }
    Ok(())
}
