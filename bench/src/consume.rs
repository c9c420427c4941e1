//! `consume`: consumers that read every partition, offsets and checksums checked.

use crate::{
    args::Consume,
    batch,
    clock::Clock,
    connection::{Connection, wait},
    control, process,
    report::{Cost, Counts, Report},
    wire,
};
use anyhow::{Context, Result, ensure};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// One consumer's connection to one leader, with its positions there.
struct Reader {
    positions: Vec<(i32, i64)>,
    ends: BTreeMap<i32, i64>,
    waiting: bool,
}

impl Reader {
    fn at_end(&self) -> bool {
        self.positions.iter().all(|(partition, offset)| *offset >= self.ends[partition])
    }
}

/// Runs it.
///
/// # Errors
/// The broker's, a gap, or a wrong checksum.
pub fn run(args: &Consume) -> Result<()> {
    process::pin(args.common.cpu)?;
    let topic = control::topic(&args.common.broker, &args.common.topic)?;
    let ends = control::offsets(&topic, control::LATEST)?;
    let begins = if args.from_beginning { control::offsets(&topic, control::EARLIEST)? } else { ends.clone() };
    let (mut connections, mut readers) = (Vec::new(), Vec::new());
    for _ in 0..args.clients {
        let mut by_leader: BTreeMap<&str, Vec<(i32, i64)>> = BTreeMap::new();
        for (partition, leader) in topic.leaders.iter().enumerate() {
            by_leader.entry(leader).or_default().push((partition as i32, begins[partition]));
        }
        for (leader, positions) in by_leader {
            connections.push(Connection::open(leader)?);
            let ends = positions.iter().map(|(partition, _)| (*partition, ends[*partition as usize])).collect();
            readers.push(Reader { positions, ends, waiting: false });
        }
    }

    let warm_up = if args.until_end { 0.0 } else { args.common.warm_up };
    let seconds = if args.until_end { 3_600.0 } else { args.common.seconds };
    let clock = Clock::start(warm_up, seconds);
    let mut counts = Counts::default();
    let usages = || -> Result<_> { Ok((args.common.broker_pid.map(|pid| process::usage(Some(pid))).transpose()?, process::usage(None)?)) };
    let mut usage_before = None;
    let deadline = clock.end + Duration::from_secs(60);
    let finished = loop {
        let now = Instant::now();
        if usage_before.is_none() && now >= clock.begin {
            usage_before = Some(usages()?);
        }
        if now >= clock.end || (args.until_end && readers.iter().all(Reader::at_end)) {
            break now;
        }
        ensure!(now < deadline, "fetches were not answered within 60 s");
        for (connection, reader) in connections.iter_mut().zip(&mut readers) {
            if !(reader.waiting || args.until_end && reader.at_end()) {
                let mut request = connection.buffer();
                wire::fetch(&mut request, &topic.name, &reader.positions, args.fetch_bytes, 0);
                connection.queue(request, None);
                reader.waiting = true;
            }
            connection.send()?;
            connection.receive(|_, body| {
                reader.waiting = false;
                let measured = clock.measures(Instant::now());
                counts.requests += u64::from(measured);
                wire::fetched(body, |partition, records| {
                    let position =
                        reader.positions.iter_mut().find(|position| position.0 == partition).context("a partition not asked for")?;
                    let walked = batch::walk(records, position.1, !args.no_crc)?;
                    position.1 = walked.next;
                    if measured {
                        counts.records += walked.records;
                        counts.bytes += walked.bytes;
                    }
                    Ok(())
                })?;
                // What was read in full goes to the end of the next request, so that no partition starves.
                reader.positions.rotate_left(1);
                Ok(())
            })?;
        }
        if readers.iter().all(|reader| reader.waiting) {
            wait(&connections, 100_000)?;
        }
    };
    let (broker_before, own_before) = usage_before.context("the run was too short")?;
    let (broker_after, own_after) = usages()?;
    let cost = Cost { broker: broker_before.zip(broker_after), own: (own_before, own_after) };
    let seconds = (finished - clock.begin).as_secs_f64();
    Report::new("consume", seconds, &counts, None, &cost).print(args.common.json)
}
