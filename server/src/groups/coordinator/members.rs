//! The members' requests, from the handler to the state machine and back.

use super::{Entry, GROUPS_MAX, Gate, METADATA_BYTES_MAX, ShardIndex, locate, pass, settle};
use crate::{
    core::Core,
    groups::classic::{Group, JoinAnswer, JoinRequest, Leave, LeaveTarget, SyncAnswer, SyncRequest},
};
use kafka_protocol::ResponseError;
use std::{collections::btree_map, rc::Rc};
use tokio::sync::oneshot;

/// Groups with members have a name; offsets may be kept without one (as in Kafka, for old clients).
fn named(name: &str) -> Result<(), ResponseError> {
    if name.is_empty() { Err(ResponseError::InvalidGroupId) } else { Ok(()) }
}

/// Runs `act` on a group; `None` if there is no such group.
pub(super) fn with_group<T>(core: &Rc<Core>, shard: ShardIndex, name: &str, act: impl FnOnce(&mut Entry) -> T) -> Option<T> {
    core.groups.shards.borrow_mut().get_mut(&shard)?.groups.get_mut(name).map(act)
}

/// What the group's last record needs before an answer goes out.
pub(super) fn gate(core: &Rc<Core>, shard: ShardIndex, name: &str) -> Option<Gate> {
    let shards = core.groups.shards.borrow();
    let found = shards.get(&shard)?;
    found.groups.get(name)?.gate.map(|offset| Gate { shard, id: found.id, offset })
}

/// Makes a group if there is none.
///
/// # Errors
/// COORDINATOR_NOT_AVAILABLE at [`GROUPS_MAX`].
pub(super) fn make_group(core: &Rc<Core>, shard: ShardIndex, name: &str) -> Result<(), ResponseError> {
    let coordinator = &core.groups;
    let mut shards = coordinator.shards.borrow_mut();
    let groups: usize = shards.values().map(|shard| shard.groups.len()).sum();
    let shard = shards.get_mut(&shard).ok_or(ResponseError::CoordinatorLoadInProgress)?;
    if let btree_map::Entry::Vacant(vacant) = shard.groups.entry(name.to_owned()) {
        if groups >= GROUPS_MAX {
            tracing::warn!("group {name} is refused: this core has {groups} groups already");
            return Err(ResponseError::CoordinatorNotAvailable);
        }
        vacant.insert(Entry::of(Group::new(coordinator.rules, coordinator.now())));
    }
    Ok(())
}

/// JoinGroup. It waits for the group.
pub async fn join(core: &Rc<Core>, name: &str, request: JoinRequest) -> JoinAnswer {
    let member = request.member_id.clone();
    match try_join(core, name, request).await {
        Ok(answer) => answer,
        Err(error) => JoinAnswer::refused(error, member),
    }
}

async fn try_join(core: &Rc<Core>, name: &str, request: JoinRequest) -> Result<JoinAnswer, ResponseError> {
    let coordinator = &core.groups;
    named(name)?;
    let shard = locate(core, name)?;
    if !Group::session_timeout_is_allowed(&coordinator.rules, &request) {
        return Err(ResponseError::InvalidSessionTimeout);
    }
    // What a member that is there has brought already is counted; it may come back, but not with more.
    let has = with_group(core, shard, name, |entry| entry.group.member_bytes(&request.member_id)).flatten();
    let more = request.metadata_bytes().saturating_sub(has.unwrap_or(0));
    if (has.is_none() || more > 0) && coordinator.metadata_bytes.get() + more > METADATA_BYTES_MAX {
        tracing::warn!("a member of group {name} is refused: members' metadata of this core would be above {METADATA_BYTES_MAX} bytes");
        return Err(ResponseError::CoordinatorNotAvailable);
    }
    if request.member_id.is_empty() {
        make_group(core, shard, name)?;
    }
    let (sender, answer) = oneshot::channel();
    let token = coordinator.token();
    coordinator.joins.borrow_mut().insert(token, sender);
    let asked = with_group(core, shard, name, |entry| entry.group.join(coordinator.now(), request, token));
    if asked.is_none() {
        coordinator.joins.borrow_mut().remove(&token);
        return Err(ResponseError::UnknownMemberId);
    }
    settle(core, shard, name);
    let gated = answer.await.map_err(|_| ResponseError::CoordinatorNotAvailable)?;
    pass(core, gated.gate).await?;
    Ok(gated.answer)
}

/// SyncGroup. It waits for the leader, and for the assignment's durability.
pub async fn sync(core: &Rc<Core>, name: &str, request: SyncRequest) -> SyncAnswer {
    match try_sync(core, name, request).await {
        Ok(answer) => answer,
        Err(error) => SyncAnswer::refused(error),
    }
}

async fn try_sync(core: &Rc<Core>, name: &str, request: SyncRequest) -> Result<SyncAnswer, ResponseError> {
    named(name)?;
    // The members of a group that is being loaded keep their generation; this one has to join again (as in Kafka).
    locate(core, name).map_err(|error| match error {
        ResponseError::CoordinatorLoadInProgress => ResponseError::RebalanceInProgress,
        other => other,
    })?;
    let bytes = request.assignments.values().map(bytes::Bytes::len).sum();
    core.log.admit(bytes).await;
    let shard = locate(core, name)?;
    let coordinator = &core.groups;
    let (sender, answer) = oneshot::channel();
    let token = coordinator.token();
    coordinator.syncs.borrow_mut().insert(token, sender);
    let asked = with_group(core, shard, name, |entry| entry.group.sync(coordinator.now(), request, token));
    if asked.is_none() {
        coordinator.syncs.borrow_mut().remove(&token);
        return Err(ResponseError::UnknownMemberId);
    }
    settle(core, shard, name);
    let gated = answer.await.map_err(|_| ResponseError::CoordinatorNotAvailable)?;
    pass(core, gated.gate).await?;
    Ok(gated.answer)
}

/// Heartbeat.
///
/// # Errors
/// What the group says; while it's being loaded a member is simply kept.
pub fn heartbeat(core: &Rc<Core>, name: &str, member: &str, instance: Option<&str>, generation: i32) -> Result<(), ResponseError> {
    named(name)?;
    let shard = match locate(core, name) {
        Err(ResponseError::CoordinatorLoadInProgress) => return Ok(()),
        located => located?,
    };
    let now = core.groups.now();
    with_group(core, shard, name, |entry| entry.group.heartbeat(now, member, instance, generation))
        .unwrap_or(Err(ResponseError::UnknownMemberId))
}

/// LeaveGroup.
///
/// # Errors
/// NOT_COORDINATOR and the like; what stands against one member is in its [`Leave`].
pub fn leave(core: &Rc<Core>, name: &str, targets: Vec<LeaveTarget>) -> Result<Vec<Leave>, ResponseError> {
    named(name)?;
    let shard = locate(core, name)?;
    let now = core.groups.now();
    let left = with_group(core, shard, name, |entry| entry.group.leave(now, targets.clone()));
    settle(core, shard, name);
    left.unwrap_or_else(|| {
        let unknown = |target| Leave { target, error: Some(ResponseError::UnknownMemberId) };
        Ok(targets.into_iter().map(unknown).collect())
    })
}
