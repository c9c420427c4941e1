//! LeaveGroup: members that go, or that an operator sends away.

use super::{Group, Now, State};
use kafka_protocol::ResponseError;

/// Who is to leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaveTarget {
    /// Its id; may be empty if the instance id names it (an operator removes a static member).
    pub member_id: String,
    /// Its `group.instance.id`.
    pub instance: Option<String>,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leave {
    /// As it was asked.
    pub target: LeaveTarget,
    /// Why not.
    pub error: Option<ResponseError>,
}

impl Group {
    /// LeaveGroup, one after the other (version 3 and up brings several).
    ///
    /// # Errors
    /// COORDINATOR_NOT_AVAILABLE of a dead group; what stands against one member is in its [`Leave`].
    pub fn leave(&mut self, now: Now, targets: Vec<LeaveTarget>) -> Result<Vec<Leave>, ResponseError> {
        if self.state == State::Dead {
            return Err(ResponseError::CoordinatorNotAvailable);
        }
        Ok(targets.into_iter().map(|target| Leave { error: self.leave_one(now, &target).err(), target }).collect())
    }

    fn leave_one(&mut self, now: Now, target: &LeaveTarget) -> Result<(), ResponseError> {
        let id = match (&target.instance, target.member_id.as_str()) {
            (Some(instance), "") => self.statics.get(instance).cloned().ok_or(ResponseError::UnknownMemberId)?,
            (_, id) => id.to_owned(),
        };
        if target.instance.is_none() && self.pending.remove(&id).is_some() {
            if self.state == State::PreparingRebalance {
                self.rebalance_or_complete(now);
            }
            return Ok(());
        }
        self.check_member(&id, target.instance.as_deref())?;
        self.remove(now, &id);
        Ok(())
    }
}
