//! `end-to-end`: producers and tailing consumers at once. A batch is timed from when it was due to when a consumer has it.

use crate::{
    args::EndToEnd,
    connection::wait,
    control,
    load::{Acked, Consumers, Meter, Pace, Producers, Received, Run},
    produce::{self, Ledger, TURN_US_MAX, sleep_us},
    report::{Report, Shape, Verified},
};
use anyhow::{Result, ensure};
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// Brings acks and receipts of the same batch together: either may come first.
struct Matches {
    under_way: HashMap<(i32, i64), UnderWay>,
    consumers: usize,
    matched: u64,
}

#[derive(Default)]
struct UnderWay {
    /// When it was due; known from the ack on.
    due: Option<Instant>,
    receipts: usize,
    /// Receipts that came before the ack.
    early: Vec<Instant>,
}

impl Matches {
    /// An ack; `each` gets when the batch was due, and when it came to a consumer that had it before.
    fn acked(&mut self, acked: &Acked, mut each: impl FnMut(Instant, Instant)) {
        let key = (acked.partition, acked.base);
        let batch = self.under_way.entry(key).or_default();
        batch.due = Some(acked.due);
        for receipt in batch.early.drain(..) {
            each(acked.due, receipt);
        }
        self.close(key);
    }

    /// A receipt.
    fn received(&mut self, received: &Received, now: Instant, mut each: impl FnMut(Instant, Instant)) {
        let key = (received.partition, received.batch.base);
        let batch = self.under_way.entry(key).or_default();
        batch.receipts += 1;
        match batch.due {
            Some(due) => each(due, now),
            None => batch.early.push(now),
        }
        self.close(key);
    }

    fn close(&mut self, key: (i32, i64)) {
        if self.under_way.get(&key).is_some_and(|batch| batch.due.is_some() && batch.receipts == self.consumers) {
            self.under_way.remove(&key);
            self.matched += 1;
        }
    }
}

/// Runs it.
///
/// # Errors
/// The broker's, a gap, a wrong checksum, or an acked batch that a consumer did not get.
pub fn run(args: &EndToEnd) -> Result<()> {
    control::create(&args.common.broker, &args.common.topic, args.load.partitions)?;
    let topic = control::topic(&args.common.broker, &args.common.topic)?;
    let (load, reading) = (args.load.load(), args.read.reading());
    let mut ledger = Ledger::new(&topic)?;
    let mut consumers = Consumers::open(&reading, &topic, ledger.before(), None)?;
    let mut run = Run::start("end-to-end", &args.common)?;
    let mut producers = Producers::open(&load, &topic)?;
    let (mut sent, mut got) = (Meter::new()?, Meter::new()?);
    let mut matches = Matches { under_way: HashMap::new(), consumers: consumers.readers_of_each(), matched: 0 };
    let (mut received_batches, mut unsent) = (0, None);
    // Closed loop: a request is in flight until every consumer has it, so that consumers stay at the end of the log.
    let batches_max = load.in_flight_max * load.clients * topic.by_leader().len() * producers.batches_per_request();
    loop {
        let now = Instant::now();
        run.turn(now)?;
        if run.goes_on(now) {
            producers.queue(now, batches_max.saturating_sub(matches.under_way.len()).div_ceil(producers.batches_per_request()));
        } else {
            // What was never sent never came: to none of its readers.
            unsent.get_or_insert_with(|| {
                produce::give_up(&mut producers, &mut sent, &run, |batches, due, waited| {
                    never_came(&mut got, run.measures(due), batches * consumers.readers_of_each(), waited);
                })
            });
            if producers.is_idle() && matches.under_way.is_empty() {
                break;
            }
        }
        let timed = |due: Instant, at: Instant| run.measures(if load.pace == Pace::Closed { at } else { due });
        producers.step(
            |acked| {
                ledger.ack(&acked);
                matches.acked(&acked, |due, at| got.time(timed(due, at), at - due));
                Ok(())
            },
            |answered| {
                let now = Instant::now();
                sent.count(run.measures(now), 1, answered.records, answered.bytes);
                sent.time(timed(answered.due, now), now - answered.due);
                Ok(())
            },
        )?;
        let fetches = consumers.step(|received| {
            let now = Instant::now();
            received_batches += 1;
            got.count(run.measures(now), 0, received.batch.records, received.batch.bytes);
            matches.received(&received, now, |due, at| got.time(timed(due, at), at - due));
            Ok(())
        })?;
        got.count(run.measures(now), fetches, 0, 0);
        run.tick(&mut sent, now);
        if let Some(tick) = run.tick(&mut got, now) {
            run.show(&tick);
        }
        let closed_and_full = load.pace == Pace::Closed && matches.under_way.len() >= batches_max;
        let sleep = if !consumers.are_waiting() {
            0
        } else if closed_and_full {
            TURN_US_MAX
        } else {
            sleep_us(&producers, &run)
        };
        wait(producers.connections().chain(consumers.connections()), sleep)?;
    }
    ledger.check(&topic)?;
    ensure!(sent.counts.requests > 0, "nothing was acked in the measured time: measure longer");
    ensure!(
        matches.matched == producers.batches(),
        "{} batches acked, {} of them reached every consumer",
        producers.batches(),
        matches.matched
    );
    let (seconds, cost) = run.cost()?;
    let verified = Verified {
        batches_acked: producers.batches(),
        batches_received: received_batches,
        batches_matched: Some(matches.matched),
        crc_every: reading.crc_every,
    };
    let mut report = Report::new("end-to-end", seconds, &sent, &cost, verified).with_received(&got, &cost);
    report.timeline = got.timeline;
    report.load = Some(Shape::new(&load, topic.leaders.len(), &sent.counts));
    report.requests_unsent = unsent.filter(|_| load.pace != Pace::Closed);
    report.print(args.common.json)
}

/// Times what did not come until the end, once for each batch and reader.
fn never_came(got: &mut Meter, measured: bool, receipts: usize, waited: Duration) {
    for _ in 0..receipts {
        got.time(measured, waited);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Batch;

    #[test]
    fn what_was_never_sent_stands_in_the_percentiles_once_for_each_reader() {
        let mut got = Meter::new().unwrap();
        got.time(true, Duration::from_micros(100));
        never_came(&mut got, true, 3, Duration::from_secs(2));
        assert_eq!(got.latency.len(), 4);
        assert!(got.latency.value_at_quantile(0.5) > 1_900_000, "{}", got.latency.value_at_quantile(0.5));
    }

    #[test]
    fn a_batch_is_timed_once_for_each_consumer_whether_its_ack_or_its_receipt_comes_first() {
        let mut matches = Matches { under_way: HashMap::new(), consumers: 2, matched: 0 };
        let due = Instant::now();
        let acked = Acked { partition: 3, base: 7, records: 1, due };
        let received = Received { partition: 3, batch: Batch { base: 7, records: 1, bytes: 100 } };
        let mut timed = 0;
        matches.received(&received, due, |_, _| timed += 1);
        assert_eq!(timed, 0, "nobody knows yet when it was due");
        matches.acked(&acked, |_, _| timed += 1);
        assert_eq!((timed, matches.matched), (1, 0));
        matches.received(&received, due, |_, _| timed += 1);
        assert_eq!((timed, matches.matched, matches.under_way.len()), (2, 1, 0));
    }
}
