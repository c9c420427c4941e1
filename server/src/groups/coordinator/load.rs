//! How a partition's groups come into memory: its records from the first to the last, a piece at a time.

use super::{Coordinator, Entry, OFFSETS_TOPIC, Shard, ShardIndex, sweep, timers};
use crate::{
    core::Core,
    groups::{
        classic::Group,
        offsets::Offsets,
        replay::{Damage, Replay},
    },
};
use engine::{log::ReadError, partition::PartitionId};
use kafka_protocol::ResponseError;
use std::{io, rc::Rc, time::Duration};

/// Bytes that are read and applied before others get their turn.
const STEP_BYTES: usize = 512 << 10;

/// How long a load that failed waits before it's tried again; it doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(50);

/// See [`RETRY_MIN`].
const RETRY_MAX: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error("it does not exist here yet")]
    Missing,
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Collect(#[from] io::Error),
    #[error(transparent)]
    Damage(#[from] Damage),
}

/// Begins to load a partition. Until it's done, its groups are answered COORDINATOR_LOAD_IN_PROGRESS.
pub(super) fn begin(core: &Rc<Core>, index: ShardIndex, id: PartitionId) {
    let shard = Shard { id, ready: false, failed: false, groups: Default::default(), appended: -1, watched: false };
    core.groups.shards.borrow_mut().insert(index, shard);
    let core = Rc::clone(core);
    tokio::task::spawn_local(async move {
        let (mut wait, mut said) = (RETRY_MIN, String::new());
        loop {
            match read(&core, id).await {
                Ok(replay) => return ready(&core, index, replay),
                Err(LoadError::Missing) => tracing::debug!("{OFFSETS_TOPIC}-{index} is not there yet"),
                Err(error) => {
                    let error = error.to_string();
                    // A partition that can't be opened stays so: once is enough.
                    if error != said {
                        tracing::error!("the groups of {OFFSETS_TOPIC}-{index} can't be loaded, trying again: {error}");
                        said = error;
                    }
                    failed(&core, index);
                }
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(RETRY_MAX);
        }
    });
}

/// Drops a partition's groups, which are ahead of what is durable, and loads them anew. Whoever waits is told to look for
/// the coordinator again.
pub(super) fn again(core: &Rc<Core>, index: ShardIndex) {
    let coordinator = &core.groups;
    let (id, names) = {
        let mut shards = coordinator.shards.borrow_mut();
        let Some(shard) = shards.get_mut(&index).filter(|shard| shard.ready) else { return };
        shard.ready = false;
        let now = coordinator.now();
        for entry in shard.groups.values_mut() {
            entry.group.kill(now, ResponseError::CoordinatorNotAvailable);
        }
        (shard.id, shard.groups.keys().cloned().collect::<Vec<_>>())
    };
    tracing::warn!("the groups of {OFFSETS_TOPIC}-{index} are loaded again from what is durable");
    for name in &names {
        super::settle(core, index, name);
    }
    let shard = coordinator.shards.borrow_mut().remove(&index);
    for entry in shard.into_iter().flat_map(|shard| shard.groups.into_values()) {
        coordinator.forget(&entry);
    }
    begin(core, index, id);
}

/// Nobody waits for a partition that can't be loaded: it may never be, and when it is, that begins with a look at what has
/// changed since ([`sweep::orphans`]).
pub(super) fn failed(core: &Rc<Core>, index: ShardIndex) {
    if let Some(shard) = core.groups.shards.borrow_mut().get_mut(&index) {
        shard.failed = true;
    }
    core.groups.loaded.notify_waiters();
}

/// Waits until no partition of this core is being loaded, but for those that can't be.
pub(super) async fn all_loaded(core: &Rc<Core>) {
    loop {
        let loaded = core.groups.loaded.notified();
        tokio::pin!(loaded);
        loaded.as_mut().enable();
        if core.groups.shards.borrow().values().all(|shard| shard.ready || shard.failed) {
            return;
        }
        loaded.await;
    }
}

impl Coordinator {
    /// Takes a group that is gone out of the counts.
    pub(super) fn forget(&self, entry: &Entry) {
        self.committed.set(self.committed.get() - entry.offsets.len());
        self.metadata_bytes.set(self.metadata_bytes.get() - entry.metadata_bytes);
    }
}

async fn read(core: &Rc<Core>, id: PartitionId) -> Result<Replay, LoadError> {
    core.log.ready(&[id]).await?;
    let offsets = core.log.offsets(id).ok_or(LoadError::Missing)?;
    // What is on its way to the disk counts if it gets there, and if not there is no more of it.
    let _ = core.log.durable(id, offsets.log_end - 1).await;
    let mut replay = Replay::default();
    let mut at = offsets.log_start;
    loop {
        let end = core.log.offsets(id).ok_or(LoadError::Missing)?.high_watermark;
        if at >= end {
            return Ok(replay);
        }
        let plan = core.log.read(id, at, STEP_BYTES, true, false).await?;
        let bytes = plan.collect(&core.disk).await?;
        at = replay.apply(&bytes, at)?.max(at + 1);
        // Sleeps instead of yielding: the runtime reaches its sockets only when it has nothing to run.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn ready(core: &Rc<Core>, index: ShardIndex, replay: Replay) {
    let coordinator = &core.groups;
    let now = coordinator.now();
    let (groups, offsets) = replay.finish();
    {
        let mut shards = coordinator.shards.borrow_mut();
        let Some(shard) = shards.get_mut(&index) else { return };
        let mut entries: std::collections::BTreeMap<String, Entry> = std::collections::BTreeMap::new();
        for (name, snapshot) in groups {
            entries.insert(name, Entry::of(Group::restore(coordinator.rules, snapshot, now)));
        }
        for (name, committed) in offsets {
            entries.entry(name).or_insert_with(|| Entry::of(Group::new(coordinator.rules, now))).offsets = committed;
        }
        for (name, entry) in &mut entries {
            entry.metadata_bytes = entry.group.metadata_bytes();
            coordinator.metadata_bytes.set(coordinator.metadata_bytes.get() + entry.metadata_bytes);
            coordinator.committed.set(coordinator.committed.get() + entry.offsets.len());
            timers::look_ahead(coordinator, index, name, entry);
        }
        tracing::debug!("{OFFSETS_TOPIC}-{index}: {} groups", entries.len());
        shard.groups = entries;
        (shard.ready, shard.failed) = (true, false);
    }
    // A crash between a topic's deletion and the tombstones of its offsets leaves some behind.
    sweep::orphans(core, index, None);
    coordinator.loaded.notify_waiters();
}

impl Entry {
    pub(super) fn of(group: Group) -> Entry {
        let told_generation = group.generation();
        Entry { group, offsets: Offsets::default(), gate: None, wake_at: None, told_generation, metadata_bytes: 0 }
    }
}
