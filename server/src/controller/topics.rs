//! Topics come, grow and go. Every function may be called on any core.

use super::{Refusal, apply, decide, decide::View, decided, partitions, snapshot_if_large, write};
use crate::{
    asker::Asker,
    catalog::{Change, Topic},
    core::Core,
    groups::coordinator,
};
use engine::partition::{PartitionId, PartitionSpec};
use futures_util::future::join_all;
use kafka_protocol::{
    ResponseError,
    messages::{TopicName, create_partitions_request::CreatePartitionsTopic, create_topics_request::CreatableTopic},
    protocol::StrBytes,
};
use std::{collections::BTreeMap, rc::Rc, time::Duration};
use uuid::Uuid;

/// How long a deletion that failed waits before it is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// How long a creation waits for a deleted topic of its name to be gone.
const DELETION_WAIT: Duration = Duration::from_secs(5);

/// Topics with what became of each.
pub type Outcomes<T> = Vec<(String, Result<T, Refusal>)>;

/// Creates topics. Every answer is the finished topic, as it will be seen; with `validate_only` nothing is done.
pub async fn create(core: &Rc<Core>, topics: Vec<CreatableTopic>, timeout_ms: i32, validate_only: bool, asker: Asker) -> Outcomes<Topic> {
    let names: Vec<_> = topics.iter().map(|topic| topic.name.0.to_string()).collect();
    let done = decided(core, timeout_ms, move |core| async move { create_on_core_0(core, topics, validate_only, asker).await });
    done.await.unwrap_or_else(|refusal| names.into_iter().map(|name| (name, Err(refusal.clone()))).collect())
}

async fn create_on_core_0(core: Rc<Core>, topics: Vec<CreatableTopic>, validate_only: bool, asker: Asker) -> Outcomes<Topic> {
    let wanted: Vec<&str> = topics.iter().map(|topic| topic.name.0.as_str()).collect();
    let _ = tokio::time::timeout(DELETION_WAIT, until_gone(&core, &wanted)).await;
    let _turn = core.controller.turn.acquire().await.expect("never closed");
    let view_of = |decide: &dyn Fn(View<'_>) -> Outcomes<Change>| {
        let catalog = core.catalog.borrow();
        decide(View { catalog: &catalog, settings: &core.settings, cores: core.cores() })
    };
    let decided = view_of(&|view| decide::create_topics(view, &topics, Uuid::new_v4));
    grow(&core, decided, validate_only, &asker).await
}

/// Waits until none of the names belongs to a topic that is being deleted.
async fn until_gone(core: &Core, names: &[&str]) {
    loop {
        let deleted = core.controller.deleted.notified();
        if !names.iter().any(|name| core.catalog.borrow().is_deleting(name)) {
            return;
        }
        deleted.await;
    }
}

/// Carries out creations and additions of partitions: each is durable, made and seen by every core, or taken back.
async fn grow(core: &Rc<Core>, decided: Outcomes<Change>, validate_only: bool, asker: &Asker) -> Outcomes<Topic> {
    // The catalog as it will be: it says what the partitions look like.
    let mut future = core.catalog.borrow().clone();
    let mut changes = Vec::new();
    let mut outcomes: Outcomes<Topic> = Vec::new();
    let mut specs = BTreeMap::<String, Vec<PartitionSpec>>::new();
    for (name, result) in decided {
        let outcome = result.and_then(|change| {
            let before = future.topic(&name).map_or(0, |topic| topic.partitions.len());
            future.apply(&change).map_err(|error| Refusal::new(ResponseError::UnknownServerError, error.to_string()))?;
            let topic = future.topic(&name).ok_or_else(Refusal::unknown_topic)?;
            specs.insert(name.clone(), future.specs(topic, &core.settings).skip(before).collect());
            changes.push(change);
            Ok(topic.clone())
        });
        outcomes.push((name, outcome));
    }
    if validate_only || changes.is_empty() {
        return outcomes;
    }
    let failed = match write(core, &changes).await {
        Ok(()) => partitions::make(core, specs.values().flatten().cloned().collect()).await,
        Err(refusal) => Err(refusal),
    };
    let failed = match failed {
        Ok(failed) => failed,
        Err(refusal) => {
            outcomes.iter_mut().filter(|(_, outcome)| outcome.is_ok()).for_each(|(_, outcome)| *outcome = Err(refusal.clone()));
            return outcomes;
        }
    };
    let mut taken_back = Vec::new();
    let mut leftovers = Vec::new();
    for (name, outcome) in &mut outcomes {
        let Ok(topic) = outcome else { continue };
        let made = &specs[name.as_str()];
        let Some(refusal) = made.iter().find_map(|spec| failed.get(&spec.id)).cloned() else { continue };
        leftovers.extend(made.iter().map(|spec| (spec.core, spec.id)));
        let count = topic.partitions.len() - made.len();
        taken_back.push(match count {
            0 => Change::TopicDeleted { id: topic.id },
            _ => Change::PartitionsTakenBack { id: topic.id, count: count as u32 },
        });
        *outcome = Err(refusal);
    }
    let written = write(core, &taken_back).await;
    changes.extend(taken_back.iter().cloned());
    let applied = apply(core, &changes).await;
    // Whatever the client is told: they are in the catalog, and made.
    for topic in outcomes.iter().filter_map(|(_, outcome)| outcome.as_ref().ok()) {
        asker.has_grown(topic, specs[topic.name.as_str()].len());
    }
    if let Err(refusal) = written.and(applied) {
        outcomes.iter_mut().filter(|(_, outcome)| outcome.is_ok()).for_each(|(_, outcome)| *outcome = Err(refusal.clone()));
    }
    if !leftovers.is_empty() {
        tokio::task::spawn_local(clear(Rc::clone(core), leftovers, taken_back));
    }
    snapshot_if_large(core).await;
    outcomes
}

/// Removes what was made of topics that could not be finished.
async fn clear(core: Rc<Core>, leftovers: Vec<(usize, PartitionId)>, taken_back: Vec<Change>) {
    while let Err(refusal) = partitions::remove(&core, leftovers.clone()).await {
        if refusal == Refusal::stopping() {
            return;
        }
        tokio::time::sleep(RETRY).await;
    }
    let deleted: Vec<_> =
        taken_back.iter().filter_map(|change| if let Change::TopicDeleted { id } = change { Some(*id) } else { None }).collect();
    confirm(&core, &deleted).await;
}

/// Adds partitions to topics.
pub async fn create_partitions(
    core: &Rc<Core>,
    topics: Vec<CreatePartitionsTopic>,
    timeout_ms: i32,
    validate_only: bool,
    asker: Asker,
) -> Outcomes<Topic> {
    let names: Vec<_> = topics.iter().map(|topic| topic.name.0.to_string()).collect();
    let done = decided(core, timeout_ms, move |core| async move {
        let _turn = core.controller.turn.acquire().await.expect("never closed");
        let decided = {
            let catalog = core.catalog.borrow();
            decide::create_partitions(View { catalog: &catalog, settings: &core.settings, cores: core.cores() }, &topics)
        };
        grow(&core, decided, validate_only, &asker).await
    });
    done.await.unwrap_or_else(|refusal| names.into_iter().map(|name| (name, Err(refusal.clone()))).collect())
}

/// Creates the topics of `names` that don't exist, with the broker's defaults, as asking for them does
/// (`auto.create.topics.enable` is the caller's to check). Each answer is the finished topic, also if another request has
/// created it meanwhile.
pub async fn auto_create(core: &Rc<Core>, names: Vec<String>, asker: Asker) -> Outcomes<Topic> {
    let topics = names
        .into_iter()
        .map(|name| {
            let name = TopicName(StrBytes::from_string(name));
            CreatableTopic::default().with_name(name).with_num_partitions(-1).with_replication_factor(-1)
        })
        .collect();
    let mut outcomes = create(core, topics, super::TIMEOUT_MS, false, asker.automatically()).await;
    for (name, outcome) in &mut outcomes {
        if outcome.as_ref().is_err_and(|refusal| refusal.code == ResponseError::TopicAlreadyExists)
            && let Some(topic) = core.catalog.borrow().topic(name)
        {
            *outcome = Ok(topic.clone());
        }
    }
    outcomes
}

/// A topic to be deleted, by what the request names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Doomed {
    /// By name.
    Name(String),
    /// By id.
    Id(Uuid),
}

/// Deletes topics; each answer is the topic as it was. They are gone from every core when this returns.
pub async fn delete(core: &Rc<Core>, doomed: Vec<Doomed>, timeout_ms: i32, asker: Asker) -> Vec<(Doomed, Result<Topic, Refusal>)> {
    let asked = doomed.clone();
    let done = decided(core, timeout_ms, move |core| async move { delete_on_core_0(core, doomed, asker).await });
    done.await.unwrap_or_else(|refusal| asked.into_iter().map(|doomed| (doomed, Err(refusal.clone()))).collect())
}

async fn delete_on_core_0(core: Rc<Core>, doomed: Vec<Doomed>, asker: Asker) -> Vec<(Doomed, Result<Topic, Refusal>)> {
    let turn = core.controller.turn.acquire().await.expect("never closed");
    let mut outcomes: Vec<_> = {
        let catalog = core.catalog.borrow();
        let find = |doomed: &Doomed| {
            let topic = match doomed {
                Doomed::Name(name) => catalog.topic(name).ok_or_else(Refusal::unknown_topic)?,
                Doomed::Id(id) => catalog.topic_by_id(id).ok_or_else(Refusal::unknown_topic_id)?,
            };
            if topic.internal {
                let why = format!("The internal topic {} can't be deleted: it holds the offsets of all groups.", topic.name);
                return Err(Refusal::new(ResponseError::InvalidRequest, why));
            }
            Ok(topic.clone())
        };
        doomed.into_iter().map(|doomed| (doomed.clone(), find(&doomed))).collect()
    };
    let mut topics: Vec<Topic> = outcomes.iter().filter_map(|(_, outcome)| outcome.as_ref().ok().cloned()).collect();
    topics.sort_by(|left, right| left.name.cmp(&right.name));
    topics.dedup_by(|left, right| left.id == right.id);
    if topics.is_empty() {
        return outcomes;
    }
    let changes: Vec<_> = topics.iter().map(|topic| Change::TopicDeleted { id: topic.id }).collect();
    let done = match write(&core, &changes).await {
        Ok(()) => {
            topics.iter().for_each(|topic| asker.has_deleted(topic));
            apply(&core, &changes).await
        }
        Err(refusal) => Err(refusal),
    };
    drop(turn);
    match done {
        Ok(()) => finish_deletion(Rc::clone(&core), topics).await,
        Err(refusal) => {
            outcomes.iter_mut().filter(|(_, outcome)| outcome.is_ok()).for_each(|(_, outcome)| *outcome = Err(refusal.clone()));
        }
    }
    outcomes
}

/// Removes what the cores still have of deleted topics and their offsets in groups, however often it takes, and then
/// frees their names.
pub(super) async fn finish_deletion(core: Rc<Core>, topics: Vec<Topic>) {
    let owned: Vec<_> = topics.iter().flat_map(|topic| &topic.partitions).map(|partition| (partition.core, partition.id)).collect();
    let names: Vec<_> = topics.iter().map(|topic| topic.name.clone()).collect();
    loop {
        // Partitions of cores that are gone were never opened: the start has removed their directories.
        let removed = partitions::remove(&core, owned.clone()).await;
        let forgotten = join_all((0..core.cores()).map(|target| {
            let names = names.clone();
            core.ask(target, move |core| async move { forget_offsets(&core, names).await })
        }));
        let forgotten = forgotten.await.into_iter().try_for_each(|done| done.unwrap_or_else(|_| Err(Refusal::stopping())));
        match removed.and(forgotten) {
            Ok(()) => break,
            Err(refusal) if refusal == Refusal::stopping() => return,
            Err(refusal) => tracing::warn!("deleting {}: {refusal}; trying again", names.join(", ")),
        }
        tokio::time::sleep(RETRY).await;
    }
    confirm(&core, &topics.iter().map(|topic| topic.id).collect::<Vec<_>>()).await;
}

/// Writes down that all cores are done with deleted topics, and frees their names.
async fn confirm(core: &Rc<Core>, ids: &[Uuid]) {
    let _turn = core.controller.turn.acquire().await.expect("never closed");
    let changes: Vec<_> = ids.iter().map(|id| Change::DeletionFinished { id: *id }).collect();
    // If it can't be written, the next start repeats the deletion, which finds nothing to do.
    let done = match write(core, &changes).await {
        Ok(()) => apply(core, &changes).await,
        Err(refusal) => Err(refusal),
    };
    if let Err(refusal) = done {
        tracing::warn!("deleted topics stay in the catalog until the next start: {refusal}");
    }
    core.controller.deleted.notify_waiters();
    snapshot_if_large(core).await;
}

/// Tombstones the committed offsets of deleted topics in the groups of this core.
async fn forget_offsets(core: &Rc<Core>, names: Vec<String>) -> Result<(), Refusal> {
    coordinator::topics_deleted(core, names).await.map_err(|code| Refusal::new(code, "offsets of deleted topics could not be removed"))
}
