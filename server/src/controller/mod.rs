//! The controller: the single writer of the catalog, on core 0.
//!
//! Every core takes admin requests and hands them to core 0. There one decision is made at a time:
//!
//! ```text
//! validate -> append to the catalog's log -> durable -> partitions made on their cores -> every core's copy -> answer
//! ```
//!
//! So a client that has its answer sees the change on every core, and a change that a crash cuts off is finished by the
//! next start, which makes what the catalog says. What can't be made (a full disk) is taken back by a further change.
//! A deletion is durable first, then gone from every copy, then from the disks and from the groups; until that is
//! confirmed by all cores its name stays taken.

#![deny(clippy::disallowed_types)]

pub mod configs;
pub mod decide;
pub mod names;
mod partitions;
pub mod producer_ids;
mod refusal;
#[cfg(test)]
mod tests;
pub mod topics;

pub use refusal::Refusal;

use crate::{
    catalog::{Catalog, Change, Topic, records},
    core::Core,
};
use engine::{log::AppendError, partition::PartitionId};
use futures_util::future::join_all;
use kafka_protocol::ResponseError;
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::sync::{Notify, Semaphore};

/// Bytes of catalog records since the last snapshot, from which on a new one is written.
pub const SNAPSHOT_BYTES_MIN: u64 = 1 << 20;

/// How long a request waits if it does not say, in ms.
pub const TIMEOUT_MS: i32 = 30_000;

/// What a core keeps for the controller. Core 0 is the one that decides; every core leases producer ids.
pub struct Controller {
    /// One decision at a time.
    turn: Semaphore,
    /// A deletion was confirmed by all cores.
    deleted: Notify,
    /// A decision is in the log in part, and in no copy: every further one would give its numbers out a second time.
    cut_off: Cell<bool>,
    /// Bytes of records since the last snapshot.
    unsnapshot_bytes: Cell<u64>,
    /// Producer ids of this core.
    lease: RefCell<producer_ids::Lease>,
    /// One core asks for one block at a time.
    leasing: Semaphore,
}

impl Default for Controller {
    fn default() -> Self {
        Controller {
            turn: Semaphore::new(1),
            deleted: Notify::new(),
            cut_off: Cell::new(false),
            unsnapshot_bytes: Cell::new(0),
            lease: RefCell::default(),
            leasing: Semaphore::new(1),
        }
    }
}

/// The broker's clock in ms since 1970.
#[must_use]
pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// Makes sure that no producer id in the data is given out again, and goes on with deletions that the last run did not
/// finish. To be called on core 0 when every core serves the others, before any of them serves clients.
/// `highest_producer_id` is that of the data ([`engine::log::CoreStart`]), `catalog_bytes` the size of the catalog's log.
///
/// # Errors
/// The log's: the broker can't serve then.
pub async fn start(core: &Rc<Core>, highest_producer_id: i64, catalog_bytes: u64) -> Result<(), Refusal> {
    core.controller.unsnapshot_bytes.set(catalog_bytes);
    if highest_producer_id >= core.catalog.borrow().next_producer_id() {
        let above = [Change::ProducerIds { next: highest_producer_id.saturating_add(1) }];
        write(core, &above).await?;
        apply_here(core, &above);
    }
    snapshot_if_large(core).await;
    let unfinished: Vec<_> = core.catalog.borrow().deleting().cloned().collect();
    for topic in unfinished {
        tracing::info!("topic {} was deleted before the stop; finishing that", topic.name);
        tokio::task::spawn_local(topics::finish_deletion(Rc::clone(core), vec![topic]));
    }
    Ok(())
}

/// Appends a decision to the catalog's log and waits until it is durable. Core 0, within its turn.
///
/// One that fails when a part of it is in the log is the last one: the copies don't know it, the next start does.
async fn write(core: &Rc<Core>, changes: &[Change]) -> Result<(), Refusal> {
    if changes.is_empty() {
        return Ok(());
    }
    let controller = &core.controller;
    if controller.cut_off.get() {
        let why = "The catalog takes no changes until the broker is restarted: an earlier one could be written only in part (see its log).";
        return Err(Refusal::new(ResponseError::KafkaStorageError, why));
    }
    let batches = records::decision(changes, now_ms());
    let bytes: usize = batches.iter().map(Vec::len).sum();
    append(core, &batches).await.map_err(|Unwritten { error, in_part }| {
        tracing::error!("the catalog can't be written: {error}");
        if in_part {
            controller.cut_off.set(true);
            tracing::error!(
                "a part of that change may be in the catalog's log, and comes into force with the next start. Until then no topic, \
                 partition, setting or block of producer ids is created, changed or deleted: mend the disk and restart the broker"
            );
        }
        Refusal::new(ResponseError::KafkaStorageError, format!("The catalog could not be written: {error}"))
    })?;
    controller.unsnapshot_bytes.set(controller.unsnapshot_bytes.get() + bytes as u64);
    Ok(())
}

/// Batches that were not written, or of which that isn't known.
struct Unwritten {
    error: AppendError,
    /// Some of them are in the log, or may be.
    in_part: bool,
}

/// Returns the offset of the first.
async fn append(core: &Rc<Core>, batches: &[Vec<u8>]) -> Result<i64, Unwritten> {
    let (mut first, mut last) = (None, 0);
    for batch in batches {
        core.log.admit(batch.len()).await;
        let appended = core.log.append(PartitionId::CATALOG, batch, now_ms());
        let appended = appended.map_err(|error| Unwritten { error, in_part: first.is_some() })?;
        first.get_or_insert(appended.base_offset);
        last = appended.last_offset;
    }
    let first = first.unwrap_or(0);
    core.log.durable(PartitionId::CATALOG, last).await.map_err(|error| {
        // A full disk makes the log drop what it can't write: then it ends where it did before.
        let in_part = core.log.offsets(PartitionId::CATALOG).is_none_or(|offsets| offsets.log_end > first);
        Unwritten { error, in_part }
    })?;
    Ok(first)
}

/// Writes a snapshot if the log has grown much beyond the last one, and lets go of what is before it. Core 0, within its
/// turn, after the copies have been changed.
async fn snapshot_if_large(core: &Rc<Core>) {
    let grown = core.controller.unsnapshot_bytes.get();
    if grown < SNAPSHOT_BYTES_MIN {
        return;
    }
    let batches = records::snapshot(&core.catalog.borrow(), now_ms());
    let bytes: usize = batches.iter().map(Vec::len).sum();
    if grown < 2 * bytes as u64 {
        return;
    }
    core.controller.unsnapshot_bytes.set(0);
    match append(core, &batches).await {
        Ok(first) => {
            if let Err(error) = core.log.delete_records(PartitionId::CATALOG, first).await {
                tracing::warn!("the catalog's old records stay: {error}");
            }
        }
        // One that was cut off is skipped by the start that finds it.
        Err(Unwritten { error, .. }) => tracing::warn!("no snapshot of the catalog: {error}"),
    }
}

/// Runs `job` on all cores at once and waits for all.
async fn on_all<T, J, F>(core: &Rc<Core>, job: J) -> Result<Vec<T>, Refusal>
where
    T: Send + 'static,
    J: Fn(Rc<Core>) -> F + Clone + Send + 'static,
    F: Future<Output = T> + 'static,
{
    let answers = join_all((0..core.cores()).map(|target| core.ask(target, job.clone()))).await;
    answers.into_iter().collect::<Result<_, _>>().map_err(|_| Refusal::stopping())
}

/// Applies a decision to every core's copy, and tells the engine of settings that changed.
async fn apply(core: &Rc<Core>, changes: &[Change]) -> Result<(), Refusal> {
    let changes = changes.to_vec();
    on_all(core, move |core| {
        let changes = changes.clone();
        async move {
            apply_here(&core, &changes);
        }
    })
    .await
    .map(drop)
}

fn apply_here(core: &Core, changes: &[Change]) {
    let mut catalog = core.catalog.borrow_mut();
    for change in changes {
        if let Err(error) = catalog.apply(change) {
            // All copies are equal and the decision was checked against one of them.
            tracing::error!("core {}: {error}", core.index);
        }
        match change {
            Change::TopicConfigs { id, .. } => configure(core, &catalog, |topic| topic.id == *id),
            Change::BrokerConfigs { .. } => configure(core, &catalog, |_| true),
            _ => {}
        }
    }
}

fn configure(core: &Core, catalog: &Catalog, which: impl Fn(&Topic) -> bool) {
    for topic in catalog.topics().filter(|topic| which(topic)) {
        let config = catalog.partition_config(&topic.configs, &core.settings);
        for partition in topic.partitions.iter().filter(|partition| partition.core == core.index) {
            core.log.configure(partition.id, config.clone());
        }
    }
}

/// Runs a decision on core 0 on behalf of any core, for at most `timeout_ms`. It goes on when the time is over.
///
/// # Errors
/// REQUEST_TIMED_OUT, or that the broker is stopping.
async fn decided<T, J, F>(core: &Rc<Core>, timeout_ms: i32, job: J) -> Result<T, Refusal>
where
    T: Send + 'static,
    J: FnOnce(Rc<Core>) -> F + Send + 'static,
    F: Future<Output = T> + 'static,
{
    let timeout = Duration::from_millis(if timeout_ms > 0 { timeout_ms } else { TIMEOUT_MS } as u64);
    let on_core_0 = core.ask(0, move |core| async move {
        // A task of its own: what has begun is finished, whoever still waits for it.
        let running = tokio::task::spawn_local(job(core));
        tokio::time::timeout(timeout, running).await
    });
    match on_core_0.await {
        Ok(Ok(Ok(answer))) => Ok(answer),
        Ok(Err(_)) => Err(Refusal::timed_out()),
        Ok(Ok(Err(error))) => {
            tracing::error!("an admin request failed: {error}");
            Err(Refusal::new(ResponseError::UnknownServerError, "The request failed inside the broker; see its log."))
        }
        Err(_) => Err(Refusal::stopping()),
    }
}
