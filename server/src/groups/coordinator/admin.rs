//! What operators ask and do: DescribeGroups, ListGroups, DeleteGroups.

use super::{Gate, locate, members::with_group, pass, write};
use crate::{
    core::Core,
    groups::classic::{Description, State},
};
use kafka_protocol::ResponseError;
use std::rc::Rc;

/// A group as ListGroups shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub group: String,
    /// `consumer`, `connect`; empty if it never had members.
    pub protocol_type: String,
    /// See [`State::name`].
    pub state: &'static str,
}

/// DescribeGroups, one group.
///
/// # Errors
/// GROUP_ID_NOT_FOUND, NOT_COORDINATOR, COORDINATOR_LOAD_IN_PROGRESS and the like.
pub fn describe(core: &Rc<Core>, group: &str) -> Result<Description, ResponseError> {
    let shard = locate(core, group)?;
    with_group(core, shard, group, |entry| entry.group.describe()).ok_or(ResponseError::GroupIdNotFound)
}

/// ListGroups: those of this core.
///
/// # Errors
/// COORDINATOR_LOAD_IN_PROGRESS while one of its partitions is being loaded.
pub fn list(core: &Rc<Core>) -> Result<Vec<Listed>, ResponseError> {
    let shards = core.groups.shards.borrow();
    if shards.values().any(|shard| !shard.ready) {
        return Err(ResponseError::CoordinatorLoadInProgress);
    }
    let listed = shards.values().flat_map(|shard| &shard.groups).map(|(name, entry)| Listed {
        group: name.clone(),
        protocol_type: entry.group.protocol_type().unwrap_or_default().to_owned(),
        state: entry.group.state().name(),
    });
    Ok(listed.collect())
}

/// DeleteGroups, one group: with its offsets, durably.
///
/// # Errors
/// GROUP_ID_NOT_FOUND, NON_EMPTY_GROUP, NOT_COORDINATOR and the like.
pub async fn delete(core: &Rc<Core>, group: &str) -> Result<(), ResponseError> {
    let shard = locate(core, group)?;
    let coordinator = &core.groups;
    let gate = {
        let mut shards = coordinator.shards.borrow_mut();
        let found = shards.get_mut(&shard).ok_or(ResponseError::CoordinatorLoadInProgress)?;
        let entry = found.groups.get(group).ok_or(ResponseError::GroupIdNotFound)?;
        match entry.group.state() {
            State::Empty => {}
            State::Dead => return Err(ResponseError::GroupIdNotFound),
            _ => return Err(ResponseError::NonEmptyGroup),
        }
        let mut records: Vec<_> =
            entry.offsets.iter().map(|(topic, partition, _)| write::offset_record(group, topic, partition, None)).collect();
        records.push(write::group_record(group, None));
        let (_, appended) = write::append(core, shard, found, records, coordinator.now().wall_ms);
        appended.map_err(|error| write::answer_to(&error))?;
        if let Some(mut entry) = found.groups.remove(group) {
            entry.group.kill(coordinator.now(), ResponseError::UnknownMemberId);
            coordinator.forget(&entry);
        }
        Gate { shard, id: found.id, offset: found.appended }
    };
    pass(core, Some(gate)).await
}
