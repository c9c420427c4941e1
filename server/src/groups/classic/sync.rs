//! SyncGroup and Heartbeat: the assignment's way from the leader to the members, and the signs of life.

use super::{Effect, Group, Now, State, Token};
use bytes::Bytes;
use kafka_protocol::ResponseError;
use std::collections::BTreeMap;

/// A SyncGroup.
#[derive(Clone, Debug, Default)]
pub struct SyncRequest {
    /// The member.
    pub member_id: String,
    /// Its `group.instance.id`.
    pub instance: Option<String>,
    /// The generation that it joined.
    pub generation: i32,
    /// From version 5 on: must be the group's.
    pub protocol_type: Option<String>,
    /// From version 5 on: must be the chosen one.
    pub protocol: Option<String>,
    /// The leader's word: assignments by member id.
    pub assignments: BTreeMap<String, Bytes>,
}

/// The answer to a SyncGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncAnswer {
    /// Why not.
    pub error: Option<ResponseError>,
    /// The group's.
    pub protocol_type: Option<String>,
    /// The chosen assignor.
    pub protocol: Option<String>,
    /// What the member gets.
    pub assignment: Bytes,
}

impl SyncAnswer {
    /// No.
    #[must_use]
    pub fn refused(error: ResponseError) -> SyncAnswer {
        SyncAnswer { error: Some(error), protocol_type: None, protocol: None, assignment: Bytes::new() }
    }
}

impl Group {
    /// SyncGroup. Its answer is an effect under `token`, now or when the leader has assigned.
    pub fn sync(&mut self, now: Now, request: SyncRequest, token: Token) {
        if let Err(error) = self.try_sync(now, request, token) {
            self.out.push(Effect::Sync(token, SyncAnswer::refused(error)));
        }
    }

    fn try_sync(&mut self, now: Now, request: SyncRequest, token: Token) -> Result<(), ResponseError> {
        self.check_member(&request.member_id, request.instance.as_deref())?;
        if request.generation != self.generation {
            return Err(ResponseError::IllegalGeneration);
        }
        let differs = |named: &Option<String>, is: &Option<String>| named.is_some() && named != is;
        if differs(&request.protocol_type, &self.protocol_type) || differs(&request.protocol, &self.protocol) {
            return Err(ResponseError::InconsistentGroupProtocol);
        }
        match self.state {
            State::Empty | State::Dead => return Err(ResponseError::UnknownMemberId),
            State::PreparingRebalance => return Err(ResponseError::RebalanceInProgress),
            State::CompletingRebalance => {
                let leads = self.leader.as_deref() == Some(&request.member_id);
                let member = self.members.get_mut(&request.member_id).expect("checked");
                member.park_sync(token, &mut self.out);
                member.owes_sync = false;
                if leads {
                    self.assign(now, request.assignments);
                }
            }
            State::Stable => {
                let member = self.members.get_mut(&request.member_id).expect("checked");
                member.owes_sync = false;
                member.touch(now);
                let answer = SyncAnswer {
                    error: None,
                    protocol_type: self.protocol_type.clone(),
                    protocol: self.protocol.clone(),
                    assignment: member.assignment.clone(),
                };
                self.out.push(Effect::Sync(token, answer));
            }
        }
        if !self.members.values().any(|member| member.owes_sync) {
            self.sync_deadline = None;
        }
        Ok(())
    }

    /// The leader has spoken: its word is written down, then everybody who waits is told. Who isn't named gets nothing.
    fn assign(&mut self, now: Now, mut assignments: BTreeMap<String, Bytes>) {
        self.enter(State::Stable, now);
        self.out.push(Effect::Persist);
        for member in self.members.values_mut() {
            member.assignment = assignments.remove(&member.id).unwrap_or_default();
            if let Some(token) = member.sync.take() {
                member.touch(now);
                let answer = SyncAnswer {
                    error: None,
                    protocol_type: self.protocol_type.clone(),
                    protocol: self.protocol.clone(),
                    assignment: member.assignment.clone(),
                };
                self.out.push(Effect::Sync(token, answer));
            }
        }
    }

    /// What was to be persisted can't be: assignments are void and the members join anew.
    pub fn persist_failed(&mut self, now: Now) {
        if self.state == State::Stable {
            self.refuse_syncs(now, ResponseError::RebalanceInProgress);
            self.rebalance_or_complete(now);
        }
    }

    /// Heartbeat.
    ///
    /// # Errors
    /// UNKNOWN_MEMBER_ID, FENCED_INSTANCE_ID, ILLEGAL_GENERATION, REBALANCE_IN_PROGRESS, COORDINATOR_NOT_AVAILABLE.
    pub fn heartbeat(&mut self, now: Now, member_id: &str, instance: Option<&str>, generation: i32) -> Result<(), ResponseError> {
        self.check_member(member_id, instance)?;
        if generation != self.generation {
            return Err(ResponseError::IllegalGeneration);
        }
        self.heard_of(now, member_id);
        match self.state {
            State::Empty | State::Dead => Err(ResponseError::UnknownMemberId),
            State::PreparingRebalance => Err(ResponseError::RebalanceInProgress),
            State::CompletingRebalance | State::Stable => Ok(()),
        }
    }

    /// A request came from a member that waits for nothing: its session begins anew.
    fn heard_of(&mut self, now: Now, id: &str) {
        if let Some(member) = self.members.get_mut(id)
            && member.join.is_none()
            && member.sync.is_none()
        {
            member.touch(now);
        }
    }

    /// Whether a member may commit offsets now (OffsetCommit). Generation -1 without a member id is a commit from outside
    /// (a simple consumer, an operator): only while the group has no members.
    ///
    /// # Errors
    /// UNKNOWN_MEMBER_ID, FENCED_INSTANCE_ID, ILLEGAL_GENERATION, REBALANCE_IN_PROGRESS, COORDINATOR_NOT_AVAILABLE.
    pub fn may_commit(&mut self, now: Now, member_id: &str, instance: Option<&str>, generation: i32) -> Result<(), ResponseError> {
        if self.state == State::Dead {
            return Err(ResponseError::CoordinatorNotAvailable);
        }
        if generation < 0 && self.state == State::Empty {
            return Ok(());
        }
        if generation >= 0 || !member_id.is_empty() || instance.is_some() {
            self.check_member(member_id, instance)?;
            if generation != self.generation {
                return Err(ResponseError::IllegalGeneration);
            }
        } else {
            return Err(ResponseError::UnknownMemberId);
        }
        match self.state {
            State::CompletingRebalance => Err(ResponseError::RebalanceInProgress),
            State::Empty | State::Dead => Err(ResponseError::UnknownMemberId),
            State::PreparingRebalance | State::Stable => {
                self.heard_of(now, member_id);
                Ok(())
            }
        }
    }
}
