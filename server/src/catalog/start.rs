//! What a start makes of the catalog: the first topics, partition directories that Kafka wrote, another number of cores.
//!
//! All of it is durable exactly if the start is: it goes into the same commit. A start that is cut off decides the same
//! again, since everything here follows from names and numbers alone.

use super::{CONSUMER_OFFSETS, CONSUMER_OFFSETS_PARTITIONS, Catalog, Change, Configs, RecordsError, change::Placed, placement, records};
use crate::settings::Settings;
use engine::{
    disk::Disk,
    log::{Foreign, LogError, Start, find_foreign},
    partition::{PartitionId, PartitionSpec},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};
use uuid::Uuid;

/// The id of `__consumer_offsets`. Always the same: a first start that is cut off after its directories were made, but
/// before the catalog knew them, must find that they are its own.
pub const CONSUMER_OFFSETS_ID: Uuid = Uuid::from_u128(0x5f5f_636f_6e73_4d65_b26f_6666_7365_7473);

/// Directories that can't be taken over.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TakeOverError {
    /// Two ids under one name.
    #[error(
        "the directories of topic {topic} hold partitions of two topics (ids {first} and {second}): \
         move those that don't belong here out of the data directory"
    )]
    TwoIds {
        /// The topic.
        topic: String,
        /// One id.
        first: Uuid,
        /// The other.
        second: Uuid,
    },
    /// One id under two names.
    #[error("topic id {id} is that of {known} and of the directories of {topic}: move one of them out of the data directory")]
    TwoNames {
        /// The id.
        id: Uuid,
        /// The topic that has it.
        known: String,
        /// The topic whose directories have it too.
        topic: String,
    },
}

/// A start can't go on because of the catalog.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its log can't be used.
    #[error(transparent)]
    Records(#[from] RecordsError),
    /// Directories that can't be taken over.
    #[error(transparent)]
    TakeOver(#[from] TakeOverError),
    /// The disk's word.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// What the engine's start and the cores are to be given.
#[derive(Debug)]
pub struct Prepared {
    /// The catalog of this start. Give it the start's leader epoch with [`Catalog::started`], then each core a copy.
    pub catalog: Catalog,
    /// Every partition with its owner, for [`Start::finish`].
    pub partitions: Vec<PartitionSpec>,
    /// Topics that were taken over, with their partition counts.
    pub taken_over: Vec<(String, usize)>,
    /// The size of the catalog's log in bytes.
    pub catalog_bytes: u64,
}

/// Reads the catalog of a start that is under way, decides what is new, and adds that to the start's commit. `cluster` is
/// a random id, used at the first start; `now_ms` the broker's clock.
///
/// # Errors
/// [`StartError`], each with what to do.
pub async fn prepare<D: Disk>(
    start: &mut Start<D>,
    disk: &D,
    data_dir: &Path,
    settings: &Settings,
    cores: usize,
    cluster: Uuid,
    now_ms: i64,
) -> Result<Prepared, StartError> {
    let catalog = Catalog::from_what_is_left(start.catalog(), start.accepts_loss())?;
    let known: BTreeSet<PathBuf> = catalog.all_specs(settings).into_iter().map(|spec| spec.directory).collect();
    let foreign = find_foreign(disk, data_dir, &known).await?;
    let Plan { catalog, pending, taken_over } = plan(catalog, cores, foreign, cluster)?;
    let added = records::decision(&pending, now_ms).concat();
    start.add_to_catalog(&added);
    // What was read of a catalog with a loss is written anew, so that the next start finds none.
    let catalog_bytes = if start.accepts_loss() { u64::MAX / 2 } else { (start.catalog().len() + added.len()) as u64 };
    Ok(Prepared { partitions: catalog.all_specs(settings), catalog, taken_over, catalog_bytes })
}

/// The catalog of a start, and the changes that led to it.
#[derive(Debug)]
pub struct Plan {
    /// The state with the changes applied.
    pub catalog: Catalog,
    /// The changes.
    pub pending: Vec<Change>,
    /// Topics that were taken over, with their partition counts.
    pub taken_over: Vec<(String, usize)>,
}

/// Directories that are left of topics whose deletion is durable: to be removed, never taken over.
#[must_use]
pub fn is_leftover(catalog: &Catalog, found: &Foreign) -> bool {
    catalog.deleting().any(|topic| topic.id == found.topic_id)
}

/// Decides what a start with `cores` cores changes. `cluster` is a random id, used only if there is none yet;
/// `producer_id_min` is above every producer id in the data.
///
/// # Errors
/// [`TakeOverError`].
pub fn plan(mut catalog: Catalog, cores: usize, foreign: Vec<Foreign>, cluster: Uuid) -> Result<Plan, TakeOverError> {
    let mut pending = Vec::new();
    let mut decide = |catalog: &mut Catalog, change: Change| {
        catalog.apply(&change).expect("a start decides only what fits its catalog");
        pending.push(change);
    };
    if catalog.cluster_id.is_nil() {
        decide(&mut catalog, Change::Cluster { id: cluster });
    }
    let mut found: BTreeMap<String, (Uuid, usize)> = BTreeMap::new();
    for directory in foreign.into_iter().filter(|directory| !is_leftover(&catalog, directory)) {
        let (id, highest) = found.entry(directory.topic.clone()).or_insert((directory.topic_id, 0));
        if *id != directory.topic_id {
            return Err(TakeOverError::TwoIds { topic: directory.topic, first: *id, second: directory.topic_id });
        }
        *highest = usize::try_from(directory.partition).unwrap_or(0).max(*highest);
    }
    let mut taken_over = Vec::new();
    for (topic, (id, highest)) in found.iter().filter(|(topic, _)| *topic != CONSUMER_OFFSETS) {
        let change = take_over(&catalog, topic, *id, highest + 1, cores)?;
        decide(&mut catalog, change);
        taken_over.push((topic.clone(), highest + 1));
    }
    match (catalog.topic(CONSUMER_OFFSETS), found.get(CONSUMER_OFFSETS)) {
        (Some(_), Some((id, highest))) => {
            let change = take_over(&catalog, CONSUMER_OFFSETS, *id, highest + 1, cores)?;
            decide(&mut catalog, change);
        }
        (None, kafkas) => {
            let (id, count) = kafkas.map_or((CONSUMER_OFFSETS_ID, 0), |(id, highest)| (*id, highest + 1));
            let partitions = new_partitions(&catalog, CONSUMER_OFFSETS, 0, count.max(CONSUMER_OFFSETS_PARTITIONS), cores);
            let setting = |name: &str, value: &str| (name.to_owned(), value.to_owned());
            let configs = Configs::from([
                setting("cleanup.policy", "compact"),
                setting("compression.type", "producer"),
                setting("segment.bytes", "104857600"),
            ]);
            decide(&mut catalog, Change::TopicCreated { name: CONSUMER_OFFSETS.into(), id, internal: true, configs, partitions });
        }
        (Some(_), None) => {}
    }
    for change in placement::replace(&catalog, cores) {
        decide(&mut catalog, change);
    }
    Ok(Plan { catalog, pending, taken_over })
}

fn take_over(catalog: &Catalog, topic: &str, id: Uuid, count: usize, cores: usize) -> Result<Change, TakeOverError> {
    match (catalog.topic(topic), catalog.topic_by_id(&id)) {
        (Some(known), _) if known.id != id => Err(TakeOverError::TwoIds { topic: topic.into(), first: known.id, second: id }),
        (None, Some(known)) => Err(TakeOverError::TwoNames { id, known: known.name.clone(), topic: topic.into() }),
        (Some(known), _) => {
            let first = known.partitions.len();
            let partitions = new_partitions(catalog, topic, first, count.max(first), cores);
            Ok(Change::PartitionsAdded { id, first: first as u32, partitions })
        }
        (None, None) => {
            let partitions = new_partitions(catalog, topic, 0, count, cores);
            Ok(Change::TopicCreated { name: topic.into(), id, internal: false, configs: Configs::new(), partitions })
        }
    }
}

/// The partitions `first..count` of a topic, numbered from the next partition id on and placed by the rule.
#[must_use]
pub fn new_partitions(catalog: &Catalog, topic: &str, first: usize, count: usize, cores: usize) -> Vec<Placed> {
    (catalog.next_partition()..)
        .zip(first..count)
        .map(|(id, index)| (PartitionId(id), placement::rule(topic, index, cores) as u16, None))
        .collect()
}
