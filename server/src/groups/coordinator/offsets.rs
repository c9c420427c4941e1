//! Committed offsets: OffsetCommit, OffsetFetch, OffsetDelete.

use super::{
    COMMITTED_MAX, Gate, locate,
    members::{gate, make_group, with_group},
    pass, settle, write,
};
use crate::{
    core::Core,
    groups::{classic::State, records::Committed},
};
use kafka_protocol::ResponseError;
use std::{collections::BTreeMap, rc::Rc};
use uuid::Uuid;

/// Who commits.
#[derive(Clone, Debug)]
pub struct CommitBy {
    /// The group.
    pub group: String,
    /// The member; empty from outside.
    pub member_id: String,
    /// Its `group.instance.id`.
    pub instance: Option<String>,
    /// Its generation; -1 from outside.
    pub generation: i32,
    /// A generation of a group that doesn't exist: version 9 and up says so, older ones call it ILLEGAL_GENERATION.
    pub names_missing_group: bool,
}

/// One offset to be committed, of a partition that exists.
#[derive(Clone, Debug)]
pub struct Commit {
    /// The topic's name.
    pub topic: String,
    /// Its id.
    pub topic_id: Uuid,
    /// The partition's index.
    pub partition: i32,
    /// The next offset to read.
    pub offset: i64,
    /// The leader epoch of the last record that was read, or -1.
    pub leader_epoch: i32,
    /// What the client wants to remember.
    pub metadata: String,
}

/// A partition's committed offset as OffsetFetch tells it; `None` if there is none.
pub type Fetched = Option<Committed>;

/// OffsetCommit: durable when it returns. The result is in the order of `commits`.
pub async fn commit(core: &Rc<Core>, by: CommitBy, commits: Vec<Commit>) -> Vec<Result<(), ResponseError>> {
    let count = commits.len();
    match try_commit(core, by, commits).await {
        Ok(results) => results,
        Err(error) => vec![Err(error); count],
    }
}

async fn try_commit(core: &Rc<Core>, by: CommitBy, commits: Vec<Commit>) -> Result<Vec<Result<(), ResponseError>>, ResponseError> {
    locate(core, &by.group)?;
    core.log.admit(commits.iter().map(|commit| commit.metadata.len() + commit.topic.len() + by.group.len() + 64).sum()).await;
    let shard = locate(core, &by.group)?;
    let coordinator = &core.groups;
    let now = coordinator.now();
    let may = |entry: &mut super::Entry| entry.group.may_commit(now, &by.member_id, by.instance.as_deref(), by.generation);
    match with_group(core, shard, &by.group, may) {
        Some(may) => may?,
        None if by.generation >= 0 && by.names_missing_group => return Err(ResponseError::GroupIdNotFound),
        None if by.generation >= 0 => return Err(ResponseError::IllegalGeneration),
        None => make_group(core, shard, &by.group)?,
    }
    let mut results = vec![Ok(()); commits.len()];
    let (mut accepted, mut fresh) = (Vec::new(), 0);
    let is_near_the_bound = coordinator.committed.get() + commits.len() > COMMITTED_MAX;
    let has_one =
        |commit: &Commit| with_group(core, shard, &by.group, |entry| entry.offsets.get(&commit.topic, commit.partition).is_some());
    for (at, commit) in commits.into_iter().enumerate() {
        let is_fresh = is_near_the_bound && has_one(&commit) != Some(true);
        if commit.metadata.len() > coordinator.offset_metadata_bytes_max {
            results[at] = Err(ResponseError::OffsetMetadataTooLarge);
        } else if is_fresh && coordinator.committed.get() + fresh >= COMMITTED_MAX {
            tracing::warn!("an offset of group {} is refused: this core has {COMMITTED_MAX} already", by.group);
            results[at] = Err(ResponseError::InvalidCommitOffsetSize);
        } else {
            let Commit { topic, topic_id, partition, offset, leader_epoch, metadata } = commit;
            let committed = Committed { offset, leader_epoch, metadata, commit_ms: now.wall_ms, expire_ms: None, topic_id };
            accepted.push((at, topic, partition, committed));
            fresh += usize::from(is_fresh);
        }
    }
    let gate = {
        let mut shards = coordinator.shards.borrow_mut();
        let found = shards.get_mut(&shard).ok_or(ResponseError::CoordinatorLoadInProgress)?;
        let records: Vec<_> = accepted
            .iter()
            .map(|(_, topic, partition, committed)| write::offset_record(&by.group, topic, *partition, Some(committed)))
            .collect();
        let (written, appended) = write::append(core, shard, found, records, now.wall_ms);
        if let Err(error) = &appended {
            accepted[written..].iter().for_each(|(at, ..)| results[*at] = Err(write::answer_to(error)));
        }
        let last = found.appended;
        let entry = found.groups.get_mut(&by.group).ok_or(ResponseError::CoordinatorNotAvailable)?;
        for (_, topic, partition, committed) in accepted.into_iter().take(written) {
            if entry.offsets.set(&topic, partition, committed) {
                coordinator.committed.set(coordinator.committed.get() + 1);
            }
        }
        if written > 0 {
            entry.gate = Some(last);
        }
        (written > 0).then_some(Gate { shard, id: found.id, offset: last })
    };
    // A group that was made for a commit that was refused goes again.
    settle(core, shard, &by.group);
    if let Err(error) = pass(core, gate).await {
        results.iter_mut().filter(|result| result.is_ok()).for_each(|result| *result = Err(error));
    }
    Ok(results)
}

/// OffsetFetch: the partitions of `topics`, or all that the group has. Only what is durable.
///
/// # Errors
/// NOT_COORDINATOR, COORDINATOR_LOAD_IN_PROGRESS and the like. An unknown group has no offsets, that's all.
pub async fn fetch(
    core: &Rc<Core>,
    group: &str,
    topics: Option<Vec<(String, Vec<i32>)>>,
) -> Result<Vec<(String, Vec<(i32, Fetched)>)>, ResponseError> {
    let shard = locate(core, group)?;
    let fetched = with_group(core, shard, group, |entry| match &topics {
        Some(topics) => {
            let of_topic = |(topic, partitions): &(String, Vec<i32>)| {
                let offsets = partitions.iter().map(|partition| (*partition, entry.offsets.get(topic, *partition).cloned()));
                (topic.clone(), offsets.collect())
            };
            topics.iter().map(of_topic).collect()
        }
        None => {
            let mut all: BTreeMap<String, Vec<(i32, Fetched)>> = BTreeMap::new();
            for (topic, partition, committed) in entry.offsets.iter() {
                all.entry(topic.to_owned()).or_default().push((partition, Some(committed.clone())));
            }
            all.into_iter().collect::<Vec<_>>()
        }
    });
    let gate = gate(core, shard, group);
    let fetched = fetched.unwrap_or_else(|| {
        let none = |(topic, partitions): (String, Vec<i32>)| (topic, partitions.into_iter().map(|partition| (partition, None)).collect());
        topics.unwrap_or_default().into_iter().map(none).collect()
    });
    pass(core, gate).await?;
    Ok(fetched.into_iter().map(|(topic, offsets)| present(core, topic, offsets)).collect())
}

/// What a client may see of committed offsets: none of an earlier topic of the name, and no leader epoch that is not
/// there (yet): a consumer would wait for it in vain.
fn present(core: &Core, topic: String, mut offsets: Vec<(i32, Fetched)>) -> (String, Vec<(i32, Fetched)>) {
    let catalog = core.catalog.borrow();
    let current = catalog.topic(&topic);
    for (partition, fetched) in &mut offsets {
        let Some(committed) = fetched else { continue };
        let epoch = current
            .filter(|topic| committed.topic_id.is_nil() || topic.id == committed.topic_id)
            .and_then(|topic| topic.partitions.get(usize::try_from(*partition).ok()?))
            .map(|partition| partition.leader_epoch);
        match epoch {
            None => *fetched = None,
            Some(epoch) if committed.leader_epoch > epoch => committed.leader_epoch = -1,
            Some(_) => {}
        }
    }
    (topic, offsets)
}

/// OffsetDelete: durable when it returns. Every partition is one that exists; the result is in their order.
///
/// # Errors
/// GROUP_ID_NOT_FOUND, NON_EMPTY_GROUP (members that are no consumers), NOT_COORDINATOR and the like. A topic that the
/// group reads is GROUP_SUBSCRIBED_TO_TOPIC in its place.
pub async fn delete(core: &Rc<Core>, group: &str, offsets: Vec<(String, i32)>) -> Result<Vec<Result<(), ResponseError>>, ResponseError> {
    let shard = locate(core, group)?;
    let wall_ms = core.groups.now().wall_ms;
    let (results, gate) = {
        let mut shards = core.groups.shards.borrow_mut();
        let found = shards.get_mut(&shard).ok_or(ResponseError::CoordinatorLoadInProgress)?;
        let entry = found.groups.get(group).ok_or(ResponseError::GroupIdNotFound)?;
        match entry.group.state() {
            State::Dead => return Err(ResponseError::GroupIdNotFound),
            State::Empty => {}
            _ if entry.group.is_consumer_group() => {}
            _ => return Err(ResponseError::NonEmptyGroup),
        }
        let read = |topic: &str| entry.group.subscribed().is_some_and(|topics| topics.contains(topic));
        let mut results: Vec<Result<(), ResponseError>> =
            offsets.iter().map(|(topic, _)| if read(topic) { Err(ResponseError::GroupSubscribedToTopic) } else { Ok(()) }).collect();
        let doomed: Vec<usize> =
            (0..offsets.len()).filter(|at| results[*at].is_ok() && entry.offsets.get(&offsets[*at].0, offsets[*at].1).is_some()).collect();
        let records: Vec<_> = doomed.iter().map(|at| write::offset_record(group, &offsets[*at].0, offsets[*at].1, None)).collect();
        let (written, appended) = write::append(core, shard, found, records, wall_ms);
        if let Err(error) = &appended {
            doomed[written..].iter().for_each(|at| results[*at] = Err(write::answer_to(error)));
        }
        let (last, id) = (found.appended, found.id);
        let entry = found.groups.get_mut(group).ok_or(ResponseError::GroupIdNotFound)?;
        for at in &doomed[..written] {
            if entry.offsets.remove(&offsets[*at].0, offsets[*at].1) {
                core.groups.committed.set(core.groups.committed.get() - 1);
            }
        }
        if written > 0 {
            entry.gate = Some(last);
        }
        (results, entry.gate.map(|offset| Gate { shard, id, offset }))
    };
    pass(core, gate).await?;
    Ok(results)
}
