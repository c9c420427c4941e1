//! What a core tells when it is asked, on its thread: copies of cells, in steps that are short.

#![deny(clippy::disallowed_types)]

use super::{counters::CounterStats, health::CoreHealth};
use crate::{
    connections::{PINNED_BYTES_MAX, RECEIVING_BYTES_MAX},
    core::Core,
    groups::coordinator::{self, COMMITTED_MAX, GROUPS_MAX, METADATA_BYTES_MAX, Usage},
    keeping::Tally,
};
use engine::{
    log::{LogStats, PartitionStats, Use},
    partition::PartitionId,
};
use rustix::time::{ClockId, clock_gettime};
use std::rc::Rc;

/// Partitions that are looked at in one step: some 100 µs.
pub const PARTITIONS_A_STEP: usize = 512;

/// A core at one moment. Plain data.
pub struct CoreSnapshot {
    /// CPU time of its thread, in s.
    pub cpu_seconds: f64,
    /// Its log.
    pub log: LogStats,
    /// What its connections counted.
    pub counters: CounterStats,
    /// Open connections.
    pub connections: Use,
    /// Connections that were taken since the start.
    pub accepted: u64,
    /// Memory for large requests, in bytes.
    pub receiving: Use,
    /// Memory of tails that answers on their way hold, in bytes.
    pub pinned: Use,
    /// Groups.
    pub groups: Use,
    /// Committed offsets.
    pub committed: Use,
    /// Metadata of members, in bytes.
    pub group_metadata: Use,
    /// `group.max.size`.
    pub group_members_max: u64,
    /// What retention and compaction have done.
    pub kept: Tally,
}

fn of(used: usize, max: usize) -> Use {
    Use { used: used as u64, max: max as u64 }
}

/// The core now, on its thread.
#[must_use]
pub fn take(core: &Core) -> CoreSnapshot {
    let cpu = clock_gettime(ClockId::ThreadCPUTime);
    let Usage { groups, committed, metadata_bytes } = coordinator::usage(core);
    CoreSnapshot {
        cpu_seconds: cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9,
        log: core.log.stats(),
        counters: core.counters.stats(),
        connections: of(core.connections.count(), core.settings.connections_max),
        accepted: core.connections.accepted(),
        receiving: of(core.connections.receiving_bytes(), RECEIVING_BYTES_MAX),
        pinned: of(core.connections.pinned_bytes(), PINNED_BYTES_MAX),
        groups: of(groups, GROUPS_MAX),
        committed: of(committed, COMMITTED_MAX),
        group_metadata: of(metadata_bytes, METADATA_BYTES_MAX),
        group_members_max: core.settings.group_members_max as u64,
        kept: core.tallies.all(),
    }
}

/// Whether the core is well, on its thread.
#[must_use]
pub fn health(core: &Core) -> CoreHealth {
    CoreHealth { is_stopping: core.stopping.is_raised(), journal_failed: core.log.has_failed(), offline: core.log.offline() }
}

/// A partition of the core that was asked.
#[derive(Clone, Copy, Debug)]
pub struct PartitionRow {
    /// Its number in the engine.
    pub id: PartitionId,
    /// The core that owns it.
    pub core: usize,
    /// It, at one moment.
    pub stats: PartitionStats,
}

/// A topic's partitions that are the core's, by index.
pub type TopicRows = (String, Vec<(i32, PartitionRow)>);

/// Where a walk over all partitions goes on: a topic's name, and an index.
pub type Place = (String, usize);

/// The core's partitions from `place` on, in a step, on its thread. `None` behind them at the end.
#[must_use]
pub fn partitions_from(core: &Core, place: &Place) -> (Vec<TopicRows>, Option<Place>) {
    let catalog = core.catalog.borrow();
    let (mut topics, mut looked_at) = (Vec::new(), 0);
    for topic in catalog.topics_from(&place.0) {
        let first = if topic.name == place.0 { place.1 } else { 0 };
        let mut rows = Vec::new();
        for (index, partition) in topic.partitions.iter().enumerate().skip(first) {
            if looked_at == PARTITIONS_A_STEP {
                topics.push((topic.name.clone(), rows));
                return (topics, Some((topic.name.clone(), index)));
            }
            looked_at += 1;
            let stats = if partition.core == core.index { core.log.partition_stats(partition.id) } else { None };
            rows.extend(stats.map(|stats| (index as i32, PartitionRow { id: partition.id, core: core.index, stats })));
        }
        topics.push((topic.name.clone(), rows));
    }
    (topics, None)
}

/// Opens partitions that were not used since the start, since only then their ends are known, on their core's thread.
pub async fn open(core: Rc<Core>, ids: Vec<PartitionId>) -> Vec<(PartitionId, Option<PartitionStats>)> {
    // What one has against it, its readers learn from it.
    let _ = core.log.ready(&ids).await;
    ids.into_iter().map(|id| (id, core.log.partition_stats(id))).collect()
}
