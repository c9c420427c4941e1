//! `produce`: closed or open loop, every acked offset checked.

use crate::{
    args::Produce,
    batch,
    clock::{Clock, wall_ms},
    connection::{Connection, wait},
    control, process,
    report::{Cost, Counts, Report},
    wire,
};
use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use std::{
    collections::{BTreeMap, VecDeque},
    rc::Rc,
    time::{Duration, Instant},
};

/// One connection's share of the load.
struct Lane {
    /// Its partitions, used in turn.
    partitions: Vec<i32>,
    next: usize,
    /// When each request in flight was due, and its partition. Answers come in this order.
    in_flight: VecDeque<(Instant, i32)>,
}

/// What has been acked, and what it took.
struct Tally {
    records_per_request: u64,
    batch_bytes: u64,
    /// Lowest and highest end acked per partition, and how many requests.
    acked: BTreeMap<i32, (u64, i64)>,
    latency: Histogram<u64>,
    counts: Counts,
}

impl Tally {
    fn answer(&mut self, clock: &Clock, due: Instant, expected: i32, body: &[u8]) -> Result<()> {
        let (partition, base) = wire::produced(body)?;
        ensure!(partition == expected, "an answer for partition {partition} came in place of {expected}");
        let now = Instant::now();
        let entry = self.acked.entry(partition).or_insert((0, 0));
        let end = base + self.records_per_request as i64;
        entry.0 += 1;
        entry.1 = entry.1.max(end);
        if clock.measures(now) {
            self.counts.requests += 1;
            self.counts.records += self.records_per_request;
            self.counts.bytes += self.batch_bytes;
            self.latency.saturating_record((now - due).as_micros() as u64);
        }
        Ok(())
    }
}

/// Runs it.
///
/// # Errors
/// The broker's, or data that is not where the broker said.
pub fn run(args: &Produce) -> Result<()> {
    ensure!(args.acks != 0, "acks=0 is not answered, so there is nothing to measure");
    ensure!(args.records > 0 && args.in_flight > 0 && args.clients > 0, "records, in-flight and clients are at least 1");
    process::pin(args.common.cpu)?;
    control::create(&args.common.broker, &args.common.topic, args.partitions)?;
    let topic = control::topic(&args.common.broker, &args.common.topic)?;
    let before = control::offsets(&topic, control::LATEST)?;

    let bytes: Rc<[u8]> = batch::encode(args.records, args.record_bytes, wall_ms()).into();
    let prefixes: Vec<Vec<u8>> =
        (0..topic.leaders.len()).map(|partition| wire::produce_prefix(&topic.name, partition as i32, args.acks, bytes.len())).collect();
    let (mut connections, mut lanes) = open(args, &topic)?;
    let mut tally = Tally {
        records_per_request: args.records as u64,
        batch_bytes: bytes.len() as u64,
        acked: BTreeMap::new(),
        latency: Histogram::new_with_bounds(1, 60_000_000, 3)?,
        counts: Counts::default(),
    };

    let clock = Clock::start(args.common.warm_up, args.common.seconds);
    let mut schedule = args.rate.map(|rate| (Instant::now(), Duration::from_secs_f64(1.0 / rate), 0usize));
    let mut usage_before = None;
    let deadline = clock.end + Duration::from_secs(60);
    let usages = || -> Result<_> { Ok((args.common.broker_pid.map(|pid| process::usage(Some(pid))).transpose()?, process::usage(None)?)) };
    let mut usage_after = None;
    loop {
        let now = Instant::now();
        if usage_before.is_none() && now >= clock.begin {
            usage_before = Some(usages()?);
        }
        if usage_after.is_none() && now >= clock.end {
            usage_after = Some(usages()?);
        }
        let sending = now < clock.end;
        if sending {
            match &mut schedule {
                Some((due, interval, lane)) => {
                    while *due <= now {
                        enqueue(&mut connections[*lane], &mut lanes[*lane], &prefixes, &bytes, *due);
                        *lane = (*lane + 1) % lanes.len();
                        *due += *interval;
                    }
                }
                None => {
                    for (connection, lane) in connections.iter_mut().zip(&mut lanes) {
                        while lane.in_flight.len() < args.in_flight {
                            enqueue(connection, lane, &prefixes, &bytes, now);
                        }
                    }
                }
            }
        } else if lanes.iter().all(|lane| lane.in_flight.is_empty()) {
            break;
        }
        ensure!(now < deadline, "requests were not answered within 60 s");
        for (connection, lane) in connections.iter_mut().zip(&mut lanes) {
            connection.send()?;
            connection.receive(|_, body| {
                let (due, partition) = lane.in_flight.pop_front().context("an answer without a request")?;
                tally.answer(&clock, due, partition, body)
            })?;
        }
        let until = match &schedule {
            Some((due, ..)) if sending => due.saturating_duration_since(Instant::now()).as_micros() as i64,
            _ => 100_000,
        };
        let refill = sending && schedule.is_none() && lanes.iter().any(|lane| lane.in_flight.len() < args.in_flight);
        if !refill && until > 0 {
            wait(&connections, until)?;
        }
    }
    check(&topic, &before, &tally)?;
    let (broker_before, own_before) = usage_before.context("the run was too short")?;
    let (broker_after, own_after) = usage_after.context("the run was too short")?;
    let cost = Cost { broker: broker_before.zip(broker_after), own: (own_before, own_after) };
    Report::new("produce", args.common.seconds, &tally.counts, Some(&tally.latency), &cost).print(args.common.json)
}

fn open(args: &Produce, topic: &control::Topic) -> Result<(Vec<Connection>, Vec<Lane>)> {
    let mut by_leader: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for (partition, leader) in topic.leaders.iter().enumerate() {
        by_leader.entry(leader).or_default().push(partition as i32);
    }
    let (mut connections, mut lanes) = (Vec::new(), Vec::new());
    for client in 0..args.clients {
        for (leader, partitions) in &by_leader {
            connections.push(Connection::open(leader)?);
            lanes.push(Lane { partitions: partitions.clone(), next: client % partitions.len(), in_flight: VecDeque::new() });
        }
    }
    Ok((connections, lanes))
}

fn enqueue(connection: &mut Connection, lane: &mut Lane, prefixes: &[Vec<u8>], bytes: &Rc<[u8]>, due: Instant) {
    let partition = lane.partitions[lane.next];
    lane.next = (lane.next + 1) % lane.partitions.len();
    let mut first = connection.buffer();
    first.clear();
    first.extend_from_slice(&prefixes[partition as usize]);
    wire::set_correlation(&mut first, lane.in_flight.len() as i32);
    connection.queue(first, Some(Rc::clone(bytes)));
    lane.in_flight.push_back((due, partition));
}

/// Every acked record lies below the end of its partition, and the log grew by at least what was acked.
fn check(topic: &control::Topic, before: &[i64], tally: &Tally) -> Result<()> {
    let after = control::offsets(topic, control::LATEST)?;
    for (partition, (requests, end)) in &tally.acked {
        let (first, last) = (before[*partition as usize], after[*partition as usize]);
        let records = (requests * tally.records_per_request) as i64;
        ensure!(*end <= last, "partition {partition}: an ack said {end}, the log ends at {last}");
        ensure!(last - first >= records, "partition {partition}: {records} records acked, the log grew by {}", last - first);
    }
    Ok(())
}
