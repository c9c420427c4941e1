//! Static members (KIP-345): a restarted process takes the place of the old one, without a rebalance if it can.

use super::{Effect, Group, JoinAnswer, JoinRequest, Now, State, Token};
use kafka_protocol::ResponseError;

impl Group {
    /// A member with a known `group.instance.id` and no id: it takes the place of the one that has it, which is fenced.
    pub(super) fn replace_static(&mut self, now: Now, request: JoinRequest, token: Token) {
        let instance = request.instance.clone().expect("asked for by instance id");
        let old = self.statics.insert(instance, request.fresh_id.clone()).expect("looked up by the caller");
        let leader_before = self.leader.clone().unwrap_or_default();
        let id = request.fresh_id.clone();
        let skip = request.skip_assignment;

        let mut member = self.members.remove(&old).expect("statics name members");
        member.refuse_join(ResponseError::FencedInstanceId, &mut self.out);
        member.refuse_sync(ResponseError::FencedInstanceId, &mut self.out);
        member.id.clone_from(&id);
        member.touch(now);
        self.members.insert(id.clone(), member);
        if leader_before == old {
            self.leader = Some(id.clone());
        }
        self.update(&id, request, token);

        // In CompletingRebalance the leader may already assign to the old id, and the new one would get nothing.
        if self.state == State::Stable && self.protocol == self.select_protocol() {
            self.keep_generation(now, &id, &leader_before, skip);
        } else {
            self.rebalance_or_complete(now);
        }
    }

    /// The replaced member goes on in the generation as it stands; its new id is written down first.
    fn keep_generation(&mut self, now: Now, id: &str, leader_before: &str, skip: bool) {
        let leads = self.leader.as_deref() == Some(id);
        let answer = JoinAnswer {
            skip_assignment: skip && leads,
            // Without `skip_assignment` a leader that comes back must not think that it leads: it would assign anew
            // without a rebalance. It's told its old id as the leader's.
            leader: if skip { self.leader.clone().unwrap_or_default() } else { leader_before.to_owned() },
            members: if skip && leads { self.joined() } else { Vec::new() },
            ..self.generation_for(id)
        };
        self.out.push(Effect::Persist);
        let member = self.members.get_mut(id).expect("just put there");
        member.new = false;
        if let Some(token) = member.join.take() {
            self.out.push(Effect::Join(token, Box::new(answer)));
        }
        member.touch(now);
    }
}
