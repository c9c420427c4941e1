//! JoinGroup: who may come in, and what it does to the group.

use super::{Effect, Group, Member, Now, State, Token, view::bytes_of};
use bytes::Bytes;
use kafka_protocol::ResponseError;

/// A JoinGroup.
#[derive(Clone, Debug)]
pub struct JoinRequest {
    /// Empty for a member that has no id yet.
    pub member_id: String,
    /// The id that a member without one gets. Unique: the caller puts randomness into it.
    pub fresh_id: String,
    /// `group.instance.id`.
    pub instance: Option<String>,
    /// `client.id`.
    pub client_id: String,
    /// Where it comes from.
    pub client_host: String,
    /// In ms.
    pub session_timeout_ms: i32,
    /// In ms; version 0 has none, its session timeout counts.
    pub rebalance_timeout_ms: i32,
    /// `consumer`, `connect`.
    pub protocol_type: String,
    /// Assignors, favourite first.
    pub protocols: Vec<(String, Bytes)>,
    /// A dynamic member has to come back with the id that it's given (KIP-394, version 4).
    pub id_required: bool,
    /// A static leader that comes back understands `skip_assignment` (KIP-814, version 9).
    pub skip_assignment: bool,
}

/// The answer to a JoinGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinAnswer {
    /// Why not.
    pub error: Option<ResponseError>,
    /// -1 with an error.
    pub generation: i32,
    /// The group's.
    pub protocol_type: Option<String>,
    /// The assignor that all members know.
    pub protocol: Option<String>,
    /// The leader's member id; empty with an error.
    pub leader: String,
    /// The leader needn't assign: the assignment stands.
    pub skip_assignment: bool,
    /// The member's id.
    pub member_id: String,
    /// Every member, for the leader only.
    pub members: Vec<Joined>,
}

/// A member as the leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// Its id.
    pub id: String,
    /// Its `group.instance.id`.
    pub instance: Option<String>,
    /// Its metadata for the chosen protocol.
    pub metadata: Bytes,
}

impl JoinRequest {
    /// What the member brings, in bytes.
    #[must_use]
    pub fn metadata_bytes(&self) -> usize {
        bytes_of(&self.protocols)
    }
}

impl JoinAnswer {
    /// No.
    #[must_use]
    pub fn refused(error: ResponseError, member_id: String) -> JoinAnswer {
        JoinAnswer {
            error: Some(error),
            generation: -1,
            protocol_type: None,
            protocol: None,
            leader: String::new(),
            skip_assignment: false,
            member_id,
            members: Vec::new(),
        }
    }
}

/// What stands against a join, and under which id the member is told so.
pub(super) struct Refused(ResponseError, String);

impl Group {
    /// JoinGroup. Its answer is an effect under `token`, now or at the end of the join phase.
    pub fn join(&mut self, now: Now, request: JoinRequest, token: Token) {
        if let Err(Refused(error, id)) = self.admit(now, request, token) {
            self.out.push(Effect::Join(token, Box::new(JoinAnswer::refused(error, id))));
        }
    }

    /// Whether such session timeouts are allowed (`group.min.session.timeout.ms` to `group.max.session.timeout.ms`).
    #[must_use]
    pub fn session_timeout_is_allowed(rules: &super::Rules, request: &JoinRequest) -> bool {
        (rules.session_timeout_min_ms..=rules.session_timeout_max_ms).contains(&request.session_timeout_ms)
    }

    fn admit(&mut self, now: Now, request: JoinRequest, token: Token) -> Result<(), Refused> {
        let refuse = |error| Err(Refused(error, request.member_id.clone()));
        if self.state == State::Dead {
            return refuse(ResponseError::CoordinatorNotAvailable);
        }
        if !Self::session_timeout_is_allowed(&self.rules, &request) {
            return refuse(ResponseError::InvalidSessionTimeout);
        }
        if !self.has_room_for(&request.member_id) {
            return refuse(ResponseError::GroupMaxSizeReached);
        }
        if request.protocols.len() > self.rules.member_protocols_max || request.metadata_bytes() > self.rules.member_bytes_max {
            return refuse(ResponseError::InvalidRequest);
        }
        if !self.supports(&request) {
            return refuse(ResponseError::InconsistentGroupProtocol);
        }
        if request.member_id.is_empty() { self.admit_without_id(now, request, token) } else { self.admit_known(now, request, token) }
    }

    fn admit_without_id(&mut self, now: Now, request: JoinRequest, token: Token) -> Result<(), Refused> {
        let id = request.fresh_id.clone();
        match &request.instance {
            Some(instance) if self.statics.contains_key(instance) => self.replace_static(now, request, token),
            None if request.id_required => {
                if self.pending.len() >= self.rules.members_max {
                    return Err(Refused(ResponseError::GroupMaxSizeReached, String::new()));
                }
                self.pending.insert(id.clone(), now.steady_ms.saturating_add(i64::from(request.session_timeout_ms)));
                return Err(Refused(ResponseError::MemberIdRequired, id));
            }
            _ => self.add(now, id, request, token),
        }
        Ok(())
    }

    fn admit_known(&mut self, now: Now, request: JoinRequest, token: Token) -> Result<(), Refused> {
        let id = request.member_id.clone();
        if request.instance.is_none() && self.pending.remove(&id).is_some() {
            self.add(now, id, request, token);
            return Ok(());
        }
        if let Err(error) = self.check_member(&id, request.instance.as_deref()) {
            return Err(Refused(error, id));
        }
        let same = self.members[&id].protocols == request.protocols;
        match self.state {
            // It may have missed the answer: it gets the same again.
            State::CompletingRebalance if same => self.answer_again(now, &id, token),
            // A follower that comes back unchanged: the same. A leader that comes back wants a rebalance, since what
            // it assigns may have changed (new partitions of a topic).
            State::Stable if same && self.leader.as_deref() != Some(&id) => self.answer_again(now, &id, token),
            State::PreparingRebalance | State::CompletingRebalance | State::Stable => {
                self.update(&id, request, token);
                self.rebalance_or_complete(now);
            }
            State::Empty | State::Dead => return Err(Refused(ResponseError::UnknownMemberId, id)),
        }
        Ok(())
    }

    /// `group.max.size`: a group that is too large already shrinks with its next rebalance.
    fn has_room_for(&self, id: &str) -> bool {
        let member = self.members.get(id);
        match self.state {
            State::Empty | State::Dead => true,
            State::PreparingRebalance => {
                member.is_some_and(|member| member.join.is_some())
                    || self.members.values().filter(|member| member.join.is_some()).count() < self.rules.members_max
            }
            State::CompletingRebalance | State::Stable => member.is_some() || self.members.len() < self.rules.members_max,
        }
    }

    /// Whether the group still has a protocol in common with this member in it.
    fn supports(&self, request: &JoinRequest) -> bool {
        if request.protocol_type.is_empty() || request.protocols.is_empty() {
            return false;
        }
        if self.members.is_empty() {
            return true;
        }
        self.protocol_type.as_deref() == Some(&request.protocol_type)
            && request.protocols.iter().any(|(name, _)| self.members.values().all(|member| member.knows(name)))
    }

    fn add(&mut self, now: Now, id: String, request: JoinRequest, token: Token) {
        if self.members.is_empty() {
            self.protocol_type = Some(request.protocol_type);
        }
        if self.leader.is_none() {
            self.leader = Some(id.clone());
        }
        if let Some(instance) = &request.instance {
            self.statics.insert(instance.clone(), id.clone());
        }
        let member = Member {
            id: id.clone(),
            instance: request.instance,
            client_id: request.client_id,
            client_host: request.client_host,
            rebalance_timeout_ms: request.rebalance_timeout_ms,
            session_timeout_ms: request.session_timeout_ms,
            protocols: request.protocols,
            assignment: Bytes::new(),
            join: Some(token),
            sync: None,
            new: true,
            owes_sync: false,
            session_ends: now.steady_ms.saturating_add(i64::from(self.rules.new_member_timeout_ms)),
        };
        self.members.insert(id, member);
        if let Some(timer) = &mut self.joining {
            timer.newcomer = true;
        }
        self.rebalance_or_complete(now);
    }

    /// A member's new metadata; it waits from now on.
    pub(super) fn update(&mut self, id: &str, request: JoinRequest, token: Token) {
        let member = self.members.get_mut(id).expect("checked by the caller");
        member.protocols = request.protocols;
        member.rebalance_timeout_ms = request.rebalance_timeout_ms;
        member.session_timeout_ms = request.session_timeout_ms;
        member.client_id = request.client_id;
        member.client_host = request.client_host;
        member.park_join(token, &mut self.out);
    }

    fn answer_again(&mut self, now: Now, id: &str, token: Token) {
        let answer = self.generation_for(id);
        self.members.get_mut(id).expect("checked by the caller").touch(now);
        self.out.push(Effect::Join(token, Box::new(answer)));
    }

    /// The current generation as member `id` is told it.
    pub(super) fn generation_for(&self, id: &str) -> JoinAnswer {
        let leads = self.leader.as_deref() == Some(id);
        JoinAnswer {
            error: None,
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            skip_assignment: false,
            member_id: id.to_owned(),
            members: if leads { self.joined() } else { Vec::new() },
        }
    }

    /// Every member as the leader sees it.
    pub(super) fn joined(&self) -> Vec<Joined> {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        self.members
            .values()
            .map(|member| Joined { id: member.id.clone(), instance: member.instance.clone(), metadata: member.metadata(protocol) })
            .collect()
    }
}
