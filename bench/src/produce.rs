//! `produce`: closed or open loop, every acked offset checked.

use crate::{
    args::Produce,
    connection::wait,
    control,
    load::{Acked, Load, Meter, Pace, Producers, Run},
    report::{Report, Shape, Verified},
};
use anyhow::{Result, ensure};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// How long a turn of a loop sleeps at most.
pub const TURN_US_MAX: i64 = 100_000;

/// Runs it.
///
/// # Errors
/// The broker's, or data that is not where the broker said.
pub fn run(args: &Produce) -> Result<()> {
    control::create(&args.common.broker, &args.common.topic, args.load.partitions)?;
    let topic = control::topic(&args.common.broker, &args.common.topic)?;
    let load = args.load.load();
    let mut ledger = Ledger::new(&topic)?;
    let mut run = Run::start("produce", &args.common)?;
    let mut producers = Producers::open(&load, &topic)?;
    let mut meter = Meter::new()?;
    let bytes_max = args.gb_max.map_or(u64::MAX, |gb| (gb * 1e9) as u64);
    let mut unsent = None;
    loop {
        let now = Instant::now();
        run.turn(now)?;
        if meter.counts.bytes >= bytes_max {
            run.finish(now)?;
        }
        if run.goes_on(now) {
            producers.queue(now, usize::MAX);
        } else {
            unsent.get_or_insert_with(|| give_up(&mut producers, &mut meter, &run, |_, _, _| ()));
            if producers.is_idle() {
                break;
            }
        }
        step(&mut producers, &mut meter, &mut ledger, &run, &load)?;
        if let Some(tick) = run.tick(&mut meter, now) {
            run.show(&tick);
        }
        wait(producers.connections(), sleep_us(&producers, &run))?;
    }
    ledger.check(&topic)?;
    ensure!(meter.counts.requests > 0, "nothing was acked in the measured time: measure longer");
    let (seconds, cost) = run.cost()?;
    let verified = Verified { batches_acked: producers.batches(), ..Verified::default() };
    let mut report = Report::new("produce", seconds, &meter, &cost, verified);
    report.load = Some(Shape::new(&load, topic.leaders.len(), &meter.counts));
    report.requests_unsent = unsent.filter(|_| load.pace != Pace::Closed);
    report.print(args.common.json)?;
    if !args.common.json {
        let gb = meter.counts.bytes as f64 / 1e9;
        println!(
            "\nTopic {} keeps what was written, {gb:.1} GB in the measured time: delete it when you are done (--gb-max ends a run sooner).",
            topic.name
        );
    }
    Ok(())
}

/// One turn of the producers, with its acks in the ledger and its times in the meter.
///
/// # Errors
/// The network's or the broker's.
pub fn step(producers: &mut Producers, meter: &mut Meter, ledger: &mut Ledger, run: &Run, load: &Load) -> Result<()> {
    step_with(producers, meter, ledger, run, load, |_, _| ())
}

/// As [`step`]; `each` gets when every answered request was due, and how long that is ago.
///
/// # Errors
/// As [`step`].
pub fn step_with(
    producers: &mut Producers,
    meter: &mut Meter,
    ledger: &mut Ledger,
    run: &Run,
    load: &Load,
    mut each: impl FnMut(Instant, Duration),
) -> Result<()> {
    producers.step(
        |acked| {
            ledger.ack(&acked);
            Ok(())
        },
        |answered| {
            let now = Instant::now();
            meter.count(run.measures(now), 1, answered.records, answered.bytes);
            // In an open loop what was due in the measured time counts, however late its answer.
            let timed = if load.pace == Pace::Closed { now } else { answered.due };
            meter.time(run.measures(timed), now - answered.due);
            each(answered.due, now - answered.due);
            Ok(())
        },
    )
}

/// At the end: what was due and never sent counts with the time that it had waited. `each` gets the batches of every such
/// request, when it was due and that time. Returns how many were due in the measured time.
pub fn give_up(producers: &mut Producers, meter: &mut Meter, run: &Run, mut each: impl FnMut(usize, Instant, Duration)) -> u64 {
    let mut unsent = 0;
    for (due, batches) in producers.give_up_late() {
        let waited = run.end().saturating_duration_since(due);
        meter.time(run.measures(due), waited);
        each(batches, due, waited);
        unsent += u64::from(run.measures(due));
    }
    unsent
}

/// How long a turn may sleep: until the next request is due.
#[must_use]
pub fn sleep_us(producers: &Producers, run: &Run) -> i64 {
    let now = Instant::now();
    if !run.goes_on(now) {
        return TURN_US_MAX;
    }
    let until_end = run.end().saturating_duration_since(now);
    let until = match producers.next_due() {
        Some(due) => due.saturating_duration_since(now).min(until_end),
        None if producers.has_room() => Duration::ZERO,
        None => until_end,
    };
    (until.as_micros() as i64).min(TURN_US_MAX)
}

/// What was acked in each partition, to be compared with the log's ends.
pub struct Ledger {
    before: Vec<i64>,
    /// Records acked and the highest end that an ack named.
    acked: BTreeMap<i32, (i64, i64)>,
}

impl Ledger {
    /// Nothing acked yet.
    ///
    /// # Errors
    /// The broker's.
    pub fn new(topic: &control::Topic) -> Result<Ledger> {
        Ok(Ledger { before: control::offsets(topic, control::LATEST)?, acked: BTreeMap::new() })
    }

    /// The ends before the run.
    #[must_use]
    pub fn before(&self) -> &[i64] {
        &self.before
    }

    /// Notes an ack.
    pub fn ack(&mut self, acked: &Acked) {
        let (records, end) = self.acked.entry(acked.partition).or_insert((0, 0));
        *records += i64::from(acked.records);
        *end = (*end).max(acked.base + i64::from(acked.records));
    }

    /// Every acked record lies below the end of its partition, and the log grew by at least what was acked.
    ///
    /// # Errors
    /// It does not, or the broker's.
    pub fn check(&self, topic: &control::Topic) -> Result<()> {
        let after = control::offsets(topic, control::LATEST)?;
        for (partition, (records, end)) in &self.acked {
            let (first, last) = (self.before[*partition as usize], after[*partition as usize]);
            ensure!(*end <= last, "partition {partition}: an ack said {end}, the log ends at {last}");
            ensure!(last - first >= *records, "partition {partition}: {records} records acked, the log grew by {}", last - first);
        }
        Ok(())
    }
}
