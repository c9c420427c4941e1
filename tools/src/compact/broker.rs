//! `--broker`: asks a running broker to do now what is due, and follows it until every partition has come to rest once.
//!
//! A broker does all of this by itself within seconds. Asking helps who wants to know when it is done: after a changed
//! setting, say; and it has what failed tried again at once.

use super::{
    Outcome, Request,
    show::{line, time},
    watch::Watch,
    wire::{Action, Answer, Connection, State},
};
use crate::output::unless_closed;
use anyhow::{Result, bail};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    time::{Duration, Instant},
};

/// Between two looks at how far it has come.
const LOOK: Duration = Duration::from_millis(200);

/// A partition's state when it was asked for, and the last that was seen.
struct Followed {
    before: State,
    now: State,
}

/// Asks the broker, follows it, and shows what it has done.
pub(super) fn run(request: &Request, address: &str, out: &mut dyn Write) -> Result<Outcome> {
    let began = Instant::now();
    let watch = Watch::new(request.progress);
    let mut cores = connect(address)?;
    let ask = |core: &mut Connection, action| core.ask(action, &request.topics, &request.partitions);
    let mut followed = BTreeMap::new();
    for core in &mut cores {
        let answer = ask(core, Action::Look)?;
        check(&answer)?;
        let new = |state: State| Followed { before: state.clone(), now: state };
        followed.extend(answer.partitions.into_iter().map(|(partition, state)| (partition, new(state))));
    }
    for core in &mut cores {
        ask(core, Action::Now)?;
    }
    let mut waiting: BTreeSet<(String, i32)> = followed.keys().cloned().collect();
    while !waiting.is_empty() {
        std::thread::sleep(LOOK);
        let mut there = BTreeSet::new();
        for core in &mut cores {
            for (partition, state) in ask(core, Action::Look)?.partitions {
                if state.progress.1 > 0 {
                    watch.shows(&format!("compacting {}-{}", partition.0, partition.1), state.progress.0, state.progress.1);
                }
                there.insert(partition.clone());
                // What happens after it has come to rest belongs to whatever caused it.
                if waiting.contains(&partition)
                    && let Some(followed) = followed.get_mut(&partition)
                {
                    if !state.is_busy {
                        waiting.remove(&partition);
                    }
                    followed.now = state;
                }
            }
        }
        // A topic may be deleted meanwhile.
        waiting.retain(|partition| there.contains(partition));
    }
    drop(watch);
    let is_whole = followed.values().all(|followed| followed.now.failures <= followed.before.failures);
    let shown = match request.json {
        true => as_json(&followed, began.elapsed(), out),
        false => as_text(request, &followed, began.elapsed(), out),
    };
    unless_closed(shown.and_then(|()| Ok(out.flush()?)))?;
    Ok(if is_whole { Outcome::Done } else { Outcome::Incomplete })
}

/// A connection to each core: every one answers for its own partitions.
fn connect(address: &str) -> Result<Vec<Connection>> {
    let mut first = Connection::open(address)?;
    // No topic is asked for by this name: only the nodes are wanted.
    let Answer { node, nodes, .. } = first.ask(Action::Look, &[String::new()], &[])?;
    let mut cores = Vec::with_capacity(nodes.len());
    let mut first = Some(first);
    for (index, address) in nodes.iter().enumerate() {
        cores.push(match first.take_if(|_| usize::try_from(node) == Ok(index)) {
            Some(first) => first,
            None => Connection::open(address)?,
        });
    }
    Ok(cores)
}

fn check(answer: &Answer) -> Result<()> {
    match answer.missing.first() {
        None => Ok(()),
        Some((topic, -1)) => bail!("there is no topic {topic}"),
        Some((topic, partition)) => bail!("there is no partition {partition} of {topic}"),
    }
}

impl Followed {
    /// Bytes of log that went by `retention.ms`, by `retention.bytes`, below the log start, and by compaction.
    fn freed(&self) -> [i64; 4] {
        let (before, now) = (&self.before, &self.now);
        let by = |reason: usize| now.by[reason] - before.by[reason];
        let compacted = |state: &State| state.compacted.0 - state.compacted.1;
        [by(0), by(1), by(2), compacted(now) - compacted(before)]
    }

    fn has_changed(&self) -> bool {
        self.freed() != [0; 4] || self.now.rounds > self.before.rounds || self.now.segments > self.before.segments
    }

    fn failure(&self) -> Option<&str> {
        let has_failed = self.now.failures > self.before.failures;
        self.now.last_failure.as_deref().filter(|_| has_failed)
    }
}

const REASONS: [&str; 4] = ["retention.ms", "retention.bytes", "log start", "compaction"];

fn as_text(request: &Request, all: &BTreeMap<(String, i32), Followed>, took: Duration, out: &mut dyn Write) -> Result<()> {
    let mut quiet = 0;
    for ((topic, partition), followed) in all {
        if !(followed.has_changed() || followed.failure().is_some() || request.all) {
            quiet += 1;
            continue;
        }
        let freed = followed.freed();
        writeln!(out, "{topic}-{partition}  {} bytes are gone", freed.iter().sum::<i64>())?;
        for (reason, bytes) in REASONS.iter().zip(freed).filter(|(_, bytes)| *bytes != 0) {
            writeln!(out, "  {reason:<18} {bytes} bytes")?;
        }
        let records = followed.now.records - followed.before.records;
        if records > 0 {
            writeln!(out, "  {:<18} {records}", "records that went")?;
        }
        if let Some(next_ms) = followed.now.next_ms {
            writeln!(out, "  {:<18} {}", "due next", time(next_ms))?;
        }
        if let Some(failure) = followed.failure() {
            writeln!(out, "  {:<18} {failure}", "FAILED")?;
        }
    }
    let freed: i64 = all.values().map(|followed| followed.freed().iter().sum::<i64>()).sum();
    let changed = all.values().filter(|followed| followed.has_changed()).count();
    writeln!(out, "{freed} bytes are gone, of {changed} of {} partitions, in {:.1} s", all.len(), took.as_secs_f64())?;
    if quiet > 0 {
        writeln!(out, "nothing was due of {quiet} partitions (--all shows them)")?;
    }
    Ok(())
}

fn as_json(all: &BTreeMap<(String, i32), Followed>, took: Duration, out: &mut dyn Write) -> Result<()> {
    for ((topic, partition), followed) in all {
        let freed = followed.freed();
        let by: serde_json::Map<String, Value> =
            REASONS.iter().zip(freed).map(|(reason, bytes)| ((*reason).to_owned(), json!(bytes))).collect();
        let (before, now) = (&followed.before, &followed.now);
        line(
            out,
            &json!({
                "type": "partition", "topic": topic, "partition": partition, "dryRun": false, "bytesBefore": before.bytes,
                "bytesAfter": now.bytes, "bytesFreed": freed.iter().sum::<i64>(), "freed": by, "segmentsRemoved": now.segments - before.segments,
                "rounds": now.rounds - before.rounds, "records": now.records - before.records, "nextMs": now.next_ms,
                "failures": followed.failure().into_iter().collect::<Vec<_>>(),
            }),
        )?;
    }
    let freed: i64 = all.values().map(|followed| followed.freed().iter().sum::<i64>()).sum();
    let (changed, failed) = (
        all.values().filter(|followed| followed.has_changed()).count(),
        all.values().filter(|followed| followed.failure().is_some()).count(),
    );
    line(
        out,
        &json!({
            "type": "summary", "dryRun": false, "whatIf": false, "partitions": all.len(), "changed": changed, "failed": failed,
            "bytesFreed": freed, "tookMs": took.as_millis() as u64,
        }),
    )
}
