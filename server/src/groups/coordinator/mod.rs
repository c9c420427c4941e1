//! The group coordinator of one core: the groups whose partition of `__consumer_offsets` this core owns.
//!
//! * `load`: a partition's groups are what its records say, replayed at the start.
//! * `members`: JoinGroup, SyncGroup, Heartbeat, LeaveGroup. * `offsets`: OffsetCommit, OffsetFetch, OffsetDelete.
//! * `admin`: DescribeGroups, ListGroups, DeleteGroups. * `timers`: one task that sleeps until the next deadline.
//! * `sweep`: offsets that expired, and those of deleted topics. * `usage`: what it holds, for the metrics.
//!
//! Memory runs ahead of the disk, answers don't: a change is appended and applied in one step, so the order in memory is
//! that of the log, and every answer that rests on it waits until what was appended for its group is durable (a
//! `Gate`). If that fails, the partition's groups are dropped and replayed from what is durable.

mod admin;
mod load;
mod members;
mod offsets;
mod sweep;
#[cfg(test)]
pub(crate) mod tests;
mod timers;
mod usage;
mod write;

pub use admin::{Listed, delete as delete_group, describe, list};
pub use members::{heartbeat, join, leave, sync};
pub use offsets::{Commit, CommitBy, Fetched, commit, delete as delete_offsets, fetch};
pub use sweep::topics_deleted;
pub use usage::{GroupRow, Place, Usage, groups_from, usage};

use super::classic::{Effect, Group, JoinAnswer, Now, Rules, SyncAnswer, Token};
use super::offsets::Offsets;
use crate::{asker::bounded, catalog::CONSUMER_OFFSETS as OFFSETS_TOPIC, core::Core, settings::Settings};
use engine::partition::PartitionId;
use kafka_protocol::ResponseError;
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};
use tokio::sync::{Notify, oneshot};

/// Groups of one core, so that made-up names can't fill its memory.
pub const GROUPS_MAX: usize = 200_000;

/// Committed offsets of one core.
pub const COMMITTED_MAX: usize = 4_000_000;

/// Protocol metadata of all members of one core, in bytes: new members are refused above.
pub const METADATA_BYTES_MAX: usize = 256 << 20;

/// A partition of `__consumer_offsets`, by its index.
type ShardIndex = usize;

/// The coordinator of one core.
pub struct Coordinator {
    rules: Rules,
    retention_ms: i64,
    offset_metadata_bytes_max: usize,
    began: Instant,
    shards: RefCell<BTreeMap<ShardIndex, Shard>>,
    /// When which group has to be looked at (steady ms): at its next deadline or before.
    deadlines: RefCell<BTreeSet<(i64, ShardIndex, String)>>,
    /// A deadline came before the one that the timer task sleeps for.
    earlier: Notify,
    /// A shard became ready, or could not be loaded.
    loaded: Notify,
    tokens: Cell<Token>,
    joins: RefCell<BTreeMap<Token, oneshot::Sender<Gated<JoinAnswer>>>>,
    syncs: RefCell<BTreeMap<Token, oneshot::Sender<Gated<SyncAnswer>>>>,
    committed: Cell<usize>,
    metadata_bytes: Cell<usize>,
}

/// The groups of one partition of `__consumer_offsets`.
struct Shard {
    id: PartitionId,
    ready: bool,
    /// It could not be loaded; that is tried again and again.
    failed: bool,
    groups: BTreeMap<String, Entry>,
    /// The last offset that was appended.
    appended: i64,
    /// A task waits for the durability of what was appended.
    watched: bool,
}

/// A group with its offsets.
struct Entry {
    group: Group,
    offsets: Offsets,
    /// The last offset that was appended for it.
    gate: Option<i64>,
    wake_at: Option<i64>,
    /// The generation that the log has told of, or that was loaded.
    told_generation: i32,
    metadata_bytes: usize,
}

/// What has to be durable before an answer goes out.
#[derive(Clone, Copy, Debug)]
struct Gate {
    shard: ShardIndex,
    id: PartitionId,
    offset: i64,
}

/// An answer and what it rests on.
struct Gated<T> {
    answer: T,
    gate: Option<Gate>,
}

impl Coordinator {
    /// A coordinator without groups; [`start`] gives it those of its partitions.
    #[must_use]
    pub fn new(settings: &Settings) -> Coordinator {
        let rules = Rules {
            session_timeout_min_ms: settings.group_session_ms_min,
            session_timeout_max_ms: settings.group_session_ms_max,
            initial_rebalance_delay_ms: settings.group_initial_rebalance_delay_ms,
            members_max: settings.group_members_max,
            ..Rules::default()
        };
        Coordinator {
            rules,
            retention_ms: settings.offsets_retention_minutes.saturating_mul(60_000),
            offset_metadata_bytes_max: settings.offset_metadata_bytes_max,
            began: Instant::now(),
            shards: RefCell::default(),
            deadlines: RefCell::default(),
            earlier: Notify::new(),
            loaded: Notify::new(),
            tokens: Cell::new(0),
            joins: RefCell::default(),
            syncs: RefCell::default(),
            committed: Cell::new(0),
            metadata_bytes: Cell::new(0),
        }
    }

    /// The clocks now.
    fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { steady_ms: self.began.elapsed().as_millis() as i64, wall_ms: wall.as_millis() as i64 }
    }

    fn token(&self) -> Token {
        self.tokens.set(self.tokens.get() + 1);
        self.tokens.get()
    }
}

/// Which partition of `__consumer_offsets` a group belongs to, of `partitions`: Kafka's rule, on Java's `hashCode`.
#[must_use]
pub fn partition_of(group: &str, partitions: usize) -> ShardIndex {
    let hash = group.encode_utf16().fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    (hash & i32::MAX) as usize % partitions.max(1)
}

/// The core that coordinates a group, by this core's copy of the catalog.
///
/// # Errors
/// COORDINATOR_NOT_AVAILABLE while `__consumer_offsets` doesn't exist.
pub fn coordinator_of(core: &Core, group: &str) -> Result<usize, ResponseError> {
    place(core, group).map(|(_, _, owner)| owner)
}

fn place(core: &Core, group: &str) -> Result<(ShardIndex, PartitionId, usize), ResponseError> {
    let catalog = core.catalog.borrow();
    let topic = catalog.topic(OFFSETS_TOPIC).ok_or(ResponseError::CoordinatorNotAvailable)?;
    let index = partition_of(group, topic.partitions.len());
    let partition = topic.partitions.get(index).ok_or(ResponseError::CoordinatorNotAvailable)?;
    Ok((index, partition.id, partition.core))
}

/// Begins to load the groups of this core's partitions, and to keep their time.
pub fn start(core: &Rc<Core>) {
    let own: Vec<(ShardIndex, PartitionId)> = {
        let catalog = core.catalog.borrow();
        let partitions = catalog.topic(OFFSETS_TOPIC).map(|topic| topic.partitions.as_slice()).unwrap_or_default();
        partitions
            .iter()
            .enumerate()
            .filter(|(_, partition)| partition.core == core.index)
            .map(|(at, partition)| (at, partition.id))
            .collect()
    };
    for (shard, id) in own {
        load::begin(core, shard, id);
    }
    timers::spawn(core);
    sweep::spawn(core);
}

/// The shard of a group, if this core coordinates it and has loaded it.
///
/// # Errors
/// NOT_COORDINATOR, COORDINATOR_LOAD_IN_PROGRESS, COORDINATOR_NOT_AVAILABLE.
fn locate(core: &Rc<Core>, group: &str) -> Result<ShardIndex, ResponseError> {
    let (shard, id, owner) = place(core, group)?;
    if owner != core.index {
        return Err(ResponseError::NotCoordinator);
    }
    match core.groups.shards.borrow().get(&shard).map(|shard| shard.ready) {
        Some(true) => return Ok(shard),
        Some(false) => return Err(ResponseError::CoordinatorLoadInProgress),
        None => {}
    }
    // The topic was made after the start.
    load::begin(core, shard, id);
    Err(ResponseError::CoordinatorLoadInProgress)
}

/// Carries out what a group has decided: writes it down, answers whoever waits, and looks to the next deadline.
fn settle(core: &Rc<Core>, index: ShardIndex, name: &str) {
    let coordinator = &core.groups;
    let now = coordinator.now();
    let mut shards = coordinator.shards.borrow_mut();
    let Some(shard) = shards.get_mut(&index) else { return };
    loop {
        let Some(entry) = shard.groups.get_mut(name) else { return };
        let effects = entry.group.effects();
        if effects.is_empty() {
            break;
        }
        let mut failed = false;
        for effect in effects {
            let Some(entry) = shard.groups.get_mut(name) else { return };
            let gate = entry.gate.map(|offset| Gate { shard: index, id: shard.id, offset });
            match effect {
                Effect::Persist => {
                    let record = write::group_record(name, Some(&entry.group.snapshot()));
                    let (_, appended) = write::append(core, index, shard, [record], now.wall_ms);
                    let entry = shard.groups.get_mut(name).expect("nothing was removed");
                    match appended {
                        Ok(offset) => entry.gate = offset.or(entry.gate),
                        Err(_) => {
                            failed = true;
                            entry.group.persist_failed(now);
                        }
                    }
                }
                Effect::Join(token, answer) => {
                    let member = answer.member_id.clone();
                    let refused = failed && answer.error.is_none();
                    let answer = if refused { JoinAnswer::refused(ResponseError::CoordinatorNotAvailable, member) } else { *answer };
                    if let Some(waiter) = coordinator.joins.borrow_mut().remove(&token) {
                        let _ = waiter.send(Gated { answer, gate });
                    }
                }
                Effect::Sync(token, answer) => {
                    let refused = failed && answer.error.is_none();
                    let answer = if refused { SyncAnswer::refused(ResponseError::CoordinatorNotAvailable) } else { answer };
                    if let Some(waiter) = coordinator.syncs.borrow_mut().remove(&token) {
                        let _ = waiter.send(Gated { answer, gate });
                    }
                }
            }
        }
    }
    let Some(entry) = shard.groups.get_mut(name) else { return };
    entry.tell_of_generation(name);
    let bytes = entry.group.metadata_bytes();
    coordinator.metadata_bytes.set(coordinator.metadata_bytes.get() + bytes - entry.metadata_bytes);
    entry.metadata_bytes = bytes;
    if entry.group.is_blank() && entry.offsets.is_empty() {
        shard.groups.remove(name);
        return;
    }
    timers::look_ahead(coordinator, index, name, entry);
}

impl Entry {
    /// A rebalance whose joins are complete is told in the log, once.
    fn tell_of_generation(&mut self, name: &str) {
        let generation = self.group.generation();
        if std::mem::replace(&mut self.told_generation, generation) == generation {
            return;
        }
        let name = bounded(name);
        match self.group.size() {
            0 => tracing::info!("group {name:?} has no members in generation {generation}"),
            1 => tracing::info!("group {name:?} has 1 member in generation {generation}"),
            members => tracing::info!("group {name:?} has {members} members in generation {generation}"),
        }
    }
}

/// Waits for what an answer rests on.
///
/// # Errors
/// COORDINATOR_NOT_AVAILABLE if it never will be durable; the groups are then replayed.
async fn pass(core: &Rc<Core>, gate: Option<Gate>) -> Result<(), ResponseError> {
    let Some(gate) = gate else { return Ok(()) };
    match core.log.durable(gate.id, gate.offset).await {
        Ok(()) => Ok(()),
        Err(error) => {
            tracing::warn!("a record of {OFFSETS_TOPIC}-{} is lost: {error}", gate.shard);
            load::again(core, gate.shard);
            Err(ResponseError::CoordinatorNotAvailable)
        }
    }
}
