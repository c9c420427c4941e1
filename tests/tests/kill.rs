//! The broker is killed under load, again and again, and nothing that it acked is lost, doubled or out of order.
//!
//! `THALWEG_KILL_ROUNDS` sets the number of rounds (50), `THALWEG_KILL_SEED` repeats the pauses of a run.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use thalweg_tests::admin::Admin;
use thalweg_tests::broker::{Broker, Options};
use thalweg_tests::clients::{Family, Produce, Session, pump};
use thalweg_tests::reader::read_topic;
use thalweg_tests::records::{all_acked_were_read, in_the_order_sent};
use thalweg_tests::scratch::Scratch;

const TOPIC: &str = "killed";
const PARTITIONS: i32 = 8;

/// Each with a process of its own; one family twice, so that two processes share a partitioner and with it every partition.
const PRODUCERS: [Family; 5] = [Family::Rdkafka, Family::Python, Family::Java, Family::Franz, Family::Rdkafka];

/// How many cores the broker is started with, round by round.
const CORES: [u16; 7] = [2, 2, 1, 2, 2, 2, 1];

/// How many acks a round waits for before its kill, and how many producers they must come from.
const ACKS_MIN: usize = 200;
const PRODUCERS_MIN: usize = 2;

/// The longest pause between those acks and the kill, in milliseconds.
const PAUSE_MS_MAX: u64 = 400;

#[test]
fn acked_records_survive_every_kill_once_and_in_order() {
    thalweg_tests::run("kill", acked_records_survive);
}

fn acked_records_survive(scratch: &Scratch) -> Result<()> {
    let rounds: usize = variable("THALWEG_KILL_ROUNDS", 50)?;
    let mut random = Random(variable("THALWEG_KILL_SEED", u64::from(std::process::id()))?);
    eprintln!("{rounds} rounds, THALWEG_KILL_SEED={}", random.0);

    // Fetched and built before the clock of any client runs.
    for family in PRODUCERS {
        family.command()?;
    }
    let mut broker = Broker::start(scratch, Options::cores(CORES[0]))?;
    Admin::new(&broker.bootstrap())?.create(TOPIC, PARTITIONS, &[("segment.bytes", "4194304")])?;
    let mut producers = Vec::new();
    for (i, family) in PRODUCERS.into_iter().enumerate() {
        let prefix = format!("{}-{i}", family.name());
        let task = Produce { count: None, per_second: Some(1_000), size: 200, ..Produce::new(&broker.bootstrap(), TOPIC, &prefix) };
        producers.push(Session::produce(scratch, family, task)?);
    }
    let mut all: Vec<&mut Session> = producers.iter_mut().collect();

    let begin = Instant::now();
    let mut slowest_start = Duration::ZERO;
    for round in 1..=rounds {
        let before: Vec<usize> = all.iter().map(|p| p.acked.len()).collect();
        let gained = |now: &[&mut Session]| now.iter().zip(&before).map(|(p, b)| p.acked.len() - b).collect::<Vec<usize>>();
        pump(&mut all, &format!("have records acked in round {round}"), |now| {
            let gained = gained(now);
            gained.iter().sum::<usize>() >= ACKS_MIN && gained.iter().filter(|&&g| g > 0).count() >= PRODUCERS_MIN
        })?;
        let pause = Instant::now() + Duration::from_millis(random.below(PAUSE_MS_MAX));
        while Instant::now() < pause {
            all.iter_mut().try_for_each(|p| p.drain())?;
            std::thread::sleep(Duration::from_millis(1));
        }
        broker.kill().with_context(|| format!("round {round}"))?;
        broker.set_cores(CORES[round % CORES.len()]);
        let start = Instant::now();
        broker.launch().with_context(|| format!("start after the kill of round {round}"))?;
        slowest_start = slowest_start.max(start.elapsed());
    }
    eprintln!("{rounds} rounds in {:?}, the slowest start took {slowest_start:?}", begin.elapsed());

    all.iter_mut().for_each(|p| p.ask_to_stop());
    pump(&mut all, "flush and end", |now| now.iter().all(|p| p.done))?;
    let acked: Vec<_> = producers.iter_mut().flat_map(|p| std::mem::take(&mut p.acked)).collect();
    let log = read_topic(scratch, &broker.bootstrap(), TOPIC)?;
    eprintln!("{} records acked, {} in the log", acked.len(), log.len());
    all_acked_were_read(&acked, &log)?;
    in_the_order_sent(&log)?;

    // A clean stop and another start change nothing.
    broker.stop()?;
    broker.launch()?;
    let again = read_topic(scratch, &broker.bootstrap(), TOPIC)?;
    ensure!(again.len() == log.len(), "{} records before a clean stop, {} after", log.len(), again.len());
    all_acked_were_read(&log, &again)
}

fn variable<T: std::str::FromStr>(name: &str, default: T) -> Result<T> {
    match std::env::var(name) {
        Ok(text) => text.parse().ok().with_context(|| format!("{name}={text}")),
        Err(_) => Ok(default),
    }
}

/// A small generator (splitmix64), so that a run's pauses can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}
