//! One group of the classic protocol as a pure state machine: requests and time in, answers and "persist me" out.
//!
//! It does no I/O and knows no clock. A JoinGroup or SyncGroup comes with a [`Token`] under which its answer is given later,
//! at once or when the rebalance has come as far. What a call decided is taken with [`Group::effects`].
//!
//! ```text
//!            join                 all have joined, or the rebalance timeout
//!  Empty ----------> PreparingRebalance ----------------> CompletingRebalance
//!    ^                  |     ^   ^                              |
//!    +------------------+     |   +---- join, leave, timeout ----+
//!      nobody has joined      |                                  | the leader's sync
//!                             +----- join, leave, timeout --- Stable
//! ```
//!
//! `Dead` is a group whose last trace is gone. The rules are those of Kafka's `ClassicGroup` and `GroupMetadataManager`.

mod join;
mod leave;
mod member;
mod rebalance;
mod restore;
mod statics;
mod sync;
mod timers;
mod view;

#[cfg(test)]
mod tests;

pub use join::{JoinAnswer, JoinRequest, Joined};
pub use leave::{Leave, LeaveTarget};
pub use member::Member;
pub use restore::{Snapshot, SnapshotMember};
pub use sync::{SyncAnswer, SyncRequest};
pub use view::{Description, MemberDescription};

use crate::settings::GROUP_MEMBERS_MAX;
use kafka_protocol::ResponseError;
use std::collections::{BTreeMap, BTreeSet};

/// What a parked request is answered under.
pub type Token = u64;

/// The clocks of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// A clock that never jumps, in ms: what timeouts are counted on.
    pub steady_ms: i64,
    /// The broker's wall clock, in ms since 1970: what is written down.
    pub wall_ms: i64,
}

/// The bounds of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// `group.min.session.timeout.ms`.
    pub session_timeout_min_ms: i32,
    /// `group.max.session.timeout.ms`.
    pub session_timeout_max_ms: i32,
    /// `group.initial.rebalance.delay.ms`: how long an empty group waits for more members.
    pub initial_rebalance_delay_ms: i32,
    /// `group.max.size`: members of one group, and ids that were handed out to members that have not joined yet.
    pub members_max: usize,
    /// Bytes of protocol metadata that one member may bring.
    pub member_bytes_max: usize,
    /// Assignors that one member may know. The members' are compared with each other in one go, which must not hold up the core:
    /// this many of 10,000 members are some million comparisons. Clients have a handful at most.
    pub member_protocols_max: usize,
    /// How long a new member may wait in its first join, in ms: its client may be gone.
    pub new_member_timeout_ms: i32,
}

impl Default for Rules {
    fn default() -> Self {
        Rules {
            session_timeout_min_ms: 6_000,
            session_timeout_max_ms: 1_800_000,
            initial_rebalance_delay_ms: 0,
            members_max: GROUP_MEMBERS_MAX,
            member_bytes_max: 256 << 10,
            member_protocols_max: 32,
            new_member_timeout_ms: 300_000,
        }
    }
}

/// Where a group stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No members; it may have offsets.
    Empty,
    /// Waits for its members to join.
    PreparingRebalance,
    /// Waits for the leader's assignment.
    CompletingRebalance,
    /// Every member can have its assignment.
    Stable,
    /// Gone.
    Dead,
}

impl State {
    /// Kafka's name of it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            State::Empty => "Empty",
            State::PreparingRebalance => "PreparingRebalance",
            State::CompletingRebalance => "CompletingRebalance",
            State::Stable => "Stable",
            State::Dead => "Dead",
        }
    }
}

/// What a call decided. The order counts: an answer behind a `Persist` must wait for its durability.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The group's [`Snapshot`] has to be written down.
    Persist,
    /// The answer to a JoinGroup.
    Join(Token, Box<JoinAnswer>),
    /// The answer to a SyncGroup.
    Sync(Token, SyncAnswer),
}

/// A group of the classic protocol.
#[derive(Debug)]
pub struct Group {
    rules: Rules,
    state: State,
    state_since_wall_ms: i64,
    generation: i32,
    protocol_type: Option<String>,
    protocol: Option<String>,
    leader: Option<String>,
    members: BTreeMap<String, Member>,
    /// Member ids of static members, by their instance ids.
    statics: BTreeMap<String, String>,
    /// Ids that were handed out with MEMBER_ID_REQUIRED, and when they lapse (steady ms).
    pending: BTreeMap<String, i64>,
    /// What a consumer group is subscribed to since its last rebalance; `None` if that can't be known.
    subscribed: Option<BTreeSet<String>>,
    joining: Option<JoinTimer>,
    /// When members that did not sync are removed (steady ms).
    sync_deadline: Option<i64>,
    out: Vec<Effect>,
}

/// When a join phase ends whoever is missing.
#[derive(Clone, Copy, Debug)]
struct JoinTimer {
    /// Steady ms.
    at: i64,
    /// An empty group's first phase ends by time alone, not when all have joined.
    initial: bool,
    /// How much longer the first phase may become, in ms.
    remaining_ms: i64,
    /// Somebody joined since `at` was set.
    newcomer: bool,
}

impl Group {
    /// A group that nobody has joined.
    #[must_use]
    pub fn new(rules: Rules, now: Now) -> Group {
        Group {
            rules,
            state: State::Empty,
            state_since_wall_ms: now.wall_ms,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            statics: BTreeMap::new(),
            pending: BTreeMap::new(),
            subscribed: None,
            joining: None,
            sync_deadline: None,
            out: Vec::new(),
        }
    }

    /// What the calls since the last one of this decided, in order.
    #[must_use]
    pub fn effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.out)
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Its generation: one more with each rebalance.
    #[must_use]
    pub fn generation(&self) -> i32 {
        self.generation
    }

    /// The protocol type of its members (`consumer`, `connect`); `None` if nobody ever joined.
    #[must_use]
    pub fn protocol_type(&self) -> Option<&str> {
        self.protocol_type.as_deref()
    }

    /// Since when it is in its state (wall ms).
    #[must_use]
    pub fn state_since_wall_ms(&self) -> i64 {
        self.state_since_wall_ms
    }

    /// Nothing of it is worth keeping: no member, none announced, no generation.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        self.state == State::Empty && self.pending.is_empty() && self.generation == 0
    }

    /// No member and none announced.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.state == State::Empty && self.pending.is_empty()
    }

    /// How many members it has.
    #[must_use]
    pub fn size(&self) -> usize {
        self.members.len()
    }

    /// Ends it: whoever waits is answered with `error`.
    pub fn kill(&mut self, now: Now, error: ResponseError) {
        for member in self.members.values_mut() {
            member.refuse_join(error, &mut self.out);
            member.refuse_sync(error, &mut self.out);
        }
        self.members.clear();
        self.statics.clear();
        self.pending.clear();
        self.joining = None;
        self.sync_deadline = None;
        self.leader = None;
        self.enter(State::Dead, now);
    }

    fn enter(&mut self, state: State, now: Now) {
        self.state = state;
        self.state_since_wall_ms = now.wall_ms;
    }

    /// The member of a request that names one by its id and perhaps by its instance id.
    fn check_member(&self, id: &str, instance: Option<&str>) -> Result<(), ResponseError> {
        if self.state == State::Dead {
            return Err(ResponseError::CoordinatorNotAvailable);
        }
        if let Some(instance) = instance {
            match self.statics.get(instance) {
                None => return Err(ResponseError::UnknownMemberId),
                Some(current) if current != id => return Err(ResponseError::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.members.contains_key(id) { Ok(()) } else { Err(ResponseError::UnknownMemberId) }
    }

    /// The time of a rebalance: its slowest member's.
    fn rebalance_timeout_ms(&self) -> i64 {
        self.members.values().map(|member| i64::from(member.rebalance_timeout_ms)).max().unwrap_or(0)
    }
}
