//! The proof of recovery: the real engine on the simulated disk, thousands of histories, each reproducible from its seed.
//!
//! - `SIM_SEEDS=100000 cargo test --release -p engine --test simulation` runs more of them.
//! - `SIM_KEEPING=1` with the next one repeats a history with retention at work.
//! - `SIM_SEED=4711 cargo test --release -p engine --test simulation histories -- --nocapture` repeats one, with a trace.
//! - `SIM_MARGIN=BeyondGapNotCarried` counts how many seeds catch that deliberate bug, instead of one being enough.
//!
//! The claims: what was acked with `all` survives any crash; what survives of the rest is a prefix; nothing is reordered;
//! no idempotent batch is there twice; no byte of a deleted topic comes into a new one of its name; the high watermark
//! never falls below what a consumer has seen; a crash during recovery changes nothing; and every client gets an answer.
//! Each batch has the leader epoch that its partition had when it was appended, that of the start or, created behind deletions, a
//! higher one; no start gives one again, nor refuses what has it.
//! Where acked bytes rot in a segment, that partition is refused, or each of its records is there, or its readers can tell; all
//! others know nothing of it; and when the bytes are put back, everything is. One slot of the superblock may rot, or be unreadable:
//! nothing is missed.

// The histories run on every core: these threads are the test's, none of them shares an engine.
#![allow(clippy::disallowed_types)]

mod admin;
mod append;
mod catalog;
mod consumer;
mod counters;
mod damage;
mod examine;
mod history;
mod kinds;
mod life;
mod model;
mod producer;
mod rot;
mod start;

use counters::Counters;
use engine::bugs::{self, Bug};
use std::{
    cell::Cell,
    env,
    panic::{self, AssertUnwindSafe},
    sync::{
        Mutex, Once,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

/// Seeds of the test command.
const SEEDS: u64 = 10_000;
/// Within how many seeds each deliberate bug must be caught.
const BUG_SEEDS: u64 = 1_000;
/// Seeds that found a real bug once.
const REGRESSIONS: [u64; 25] = [
    5633, 219, 2706, 2833, 4658, 405, 693, 847, 848, 1080, 1160, 1236, 1500, 1646, 1723, 3349, 3565, 3646, 5838, 13475, 16079, 16211,
    34589, 34643, 1582,
];

thread_local! {
    /// Panics of this thread are expected by the hundred.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

fn quiet() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let loud = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                loud(info);
            }
        }));
    });
    QUIET.set(true);
}

/// A history, with panics of the engine as failures.
fn run(seed: u64, trace: bool, keeping: bool) -> Result<Counters, String> {
    panic::catch_unwind(AssertUnwindSafe(|| history::run(seed, trace, keeping))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("seed {seed}: panic: {}", text.unwrap_or_default()))
    })
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is a number, not {value:?}")))
}

#[test]
fn histories_keep_every_promise() {
    if let Some(seed) = number("SIM_SEED") {
        let counters = run(seed, true, env::var("SIM_KEEPING").is_ok()).unwrap_or_else(|failure| panic!("{failure}"));
        eprintln!("{counters}");
        return;
    }
    let seeds = number("SIM_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(0);
    let total = Mutex::new(Counters::default());
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                let mut sum: Option<Counters> = None;
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let regressions = REGRESSIONS.len() as u64;
                    let seed = if number < regressions { REGRESSIONS[number as usize] } else { number - regressions };
                    if seed >= seeds && number >= regressions || failures.lock().unwrap().len() >= 20 {
                        break;
                    }
                    match run(seed, false, false) {
                        Ok(counters) => sum.get_or_insert_default().add(&counters),
                        Err(failure) => failures.lock().unwrap().push(failure),
                    }
                }
                if let Some(sum) = sum {
                    total.lock().unwrap().add(&sum);
                }
            });
        }
    });
    let (total, failures) = (total.into_inner().unwrap(), failures.into_inner().unwrap());
    println!("{total}");
    assert!(failures.is_empty(), "{} failures, at least:\n{}", failures.len(), failures.join("\n"));
    if seeds >= SEEDS {
        assert!(total.missed().is_empty(), "no seed hit: {:?}", total.missed());
    }
}

/// Seeds of the histories with retention at work.
const KEEPING_SEEDS: u64 = 200;

#[test]
fn histories_with_retention_keep_every_promise() {
    let seeds = number("SIM_SEEDS").unwrap_or(KEEPING_SEEDS);
    let next = AtomicU64::new(0);
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds || failures.lock().unwrap().len() >= 20 {
                        break;
                    }
                    if let Err(failure) = run(seed, false, true) {
                        failures.lock().unwrap().push(failure);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} failures, at least:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn every_deliberate_bug_is_caught() {
    let seeds = number("SIM_SEEDS").map_or(BUG_SEEDS, |seeds| seeds.min(BUG_SEEDS));
    let mut missed = Vec::new();
    if let Ok(name) = env::var("SIM_MARGIN") {
        let bug = Bug::ALL.into_iter().find(|bug| format!("{bug:?}") == name);
        let caught = caught(bug.unwrap_or_else(|| panic!("SIM_MARGIN names a bug, not {name:?}")), seeds, true);
        caught.iter().for_each(|(_, failure)| println!("{failure}"));
        println!("{name}: caught by {} of {seeds} seeds", caught.len());
        return;
    }
    for bug in Bug::ALL {
        let caught = caught(bug, seeds, false);
        match caught.first() {
            Some((seed, failure)) => println!("{bug:?}: caught after {} seeds: {failure}", seed + 1),
            None => missed.push(bug),
        }
    }
    if seeds == BUG_SEEDS {
        assert!(missed.is_empty(), "not caught within {seeds} seeds: {missed:?}");
    }
}

/// The seeds that catch a bug, and how: the first one that does, or all.
fn caught(bug: Bug, seeds: u64, all: bool) -> Vec<(u64, String)> {
    let (next, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let found = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                quiet();
                bugs::switch(Some(bug));
                while !done.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        break;
                    }
                    if let Err(failure) = run(seed, false, false) {
                        done.store(!all, Ordering::Relaxed);
                        found.lock().unwrap().push((seed, failure));
                    }
                }
            });
        }
    });
    let mut found = found.into_inner().unwrap();
    found.sort();
    found
}
