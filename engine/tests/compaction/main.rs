//! The proof of compaction: the real engine on the simulated disk, with crashes at any step, each history reproducible
//! from its seed.
//!
//! - `COMPACTION_SEEDS=5000 cargo test --release -p engine --test compaction` runs more of them.
//! - `COMPACTION_SEED=17 …` repeats one.
//!
//! The claims: whoever reads the log from its start knows of every key what the full log says, after every crash and at
//! every moment; each record that is there is the one that was appended at its offset; a reader at any offset gets
//! everything behind it that is there; what was cleaned holds each key once; tombstones go; a producer's state outlives its
//! records; and more keys than fit the memory only take more rounds. A part of the histories has rounds that fail on their way:
//! what they have put in place by then, the next one goes on from. `groups` has the same without chance, and a disk that is nearly full;
//! `transactions` has logs that a Kafka wrote, with transactions.

mod groups;
mod history;
mod transactions;

use std::env;

/// Seeds of the test command.
const SEEDS: u64 = 150;

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is a number, not {value:?}")))
}

#[test]
fn a_compacted_log_tells_of_every_key_what_the_full_log_told() {
    if let Some(seed) = number("COMPACTION_SEED") {
        let counts = history::run(seed).unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
        println!("{counts:?}");
        return;
    }
    let mut total = history::Counts::default();
    for seed in 0..number("COMPACTION_SEEDS").unwrap_or(SEEDS) {
        total.add(&history::run(seed).unwrap_or_else(|failure| panic!("seed {seed}: {failure}")));
    }
    println!("{total:?}");
    assert!(total.crashes_in_swaps > 0, "no crash fell into a swap: {total:?}");
    let on_the_way = [total.crashes_on_the_way, total.failed_on_the_way];
    assert!(on_the_way.iter().all(|count| *count > 0), "no round ended behind one of its groups: {total:?}");
    assert!(0 < total.read_once && total.read_once < total.read_once_of, "all was read twice, or nothing: {total:?}");
    assert!(total.removed > 0 && total.partial > 0 && total.merged > 0, "too little was compacted: {total:?}");
}
