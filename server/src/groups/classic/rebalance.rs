//! The join phase: how it begins, when it ends, and who is in the next generation.

use super::{Effect, Group, JoinTimer, Now, State};
use kafka_protocol::ResponseError;
use std::collections::{BTreeMap, BTreeSet};

impl Group {
    /// Something changed that needs a new generation, or that was the last thing a join phase waited for.
    pub(super) fn rebalance_or_complete(&mut self, now: Now) {
        match self.state {
            State::Empty | State::CompletingRebalance | State::Stable => self.begin_rebalance(now),
            State::PreparingRebalance => self.complete_if_all_joined(now),
            State::Dead => {}
        }
    }

    fn begin_rebalance(&mut self, now: Now) {
        if self.state == State::CompletingRebalance {
            self.refuse_syncs(now, ResponseError::RebalanceInProgress);
        }
        self.sync_deadline = None;
        let timeout_ms = self.rebalance_timeout_ms();
        let initial = self.state == State::Empty;
        self.enter(State::PreparingRebalance, now);
        let wait_ms = if initial { i64::from(self.rules.initial_rebalance_delay_ms) } else { timeout_ms };
        self.joining = Some(JoinTimer {
            at: now.steady_ms.saturating_add(wait_ms),
            initial,
            remaining_ms: (timeout_ms - wait_ms).max(0),
            newcomer: false,
        });
        if initial && wait_ms <= 0 {
            self.complete_join(now);
        } else {
            self.complete_if_all_joined(now);
        }
    }

    fn complete_if_all_joined(&mut self, now: Now) {
        let initial = self.joining.is_some_and(|timer| timer.initial);
        if !initial && self.pending.is_empty() && self.members.values().all(|member| member.join.is_some()) {
            self.complete_join(now);
        }
    }

    /// The join phase's time is over.
    pub(super) fn join_timer_fired(&mut self, now: Now, timer: JoinTimer) {
        if timer.initial && timer.newcomer && timer.remaining_ms > 0 {
            let wait_ms = i64::from(self.rules.initial_rebalance_delay_ms).min(timer.remaining_ms);
            self.joining = Some(JoinTimer {
                at: now.steady_ms.saturating_add(wait_ms),
                initial: true,
                remaining_ms: timer.remaining_ms - wait_ms,
                newcomer: false,
            });
        } else {
            self.complete_join(now);
        }
    }

    fn complete_join(&mut self, now: Now) {
        // Static members keep their place while their process is away; the session timeout ends that.
        let gone: Vec<String> = self
            .members
            .values()
            .filter(|member| member.join.is_none() && member.instance.is_none())
            .map(|member| member.id.clone())
            .collect();
        for id in gone {
            self.forget(&id, ResponseError::UnknownMemberId);
        }
        if !self.members.is_empty() && !self.elect_leader() {
            // Only static members are left, and none of them is here: nobody could lead.
            let at = now.steady_ms.saturating_add(self.rebalance_timeout_ms());
            self.joining = Some(JoinTimer { at, initial: false, remaining_ms: 0, newcomer: false });
            return;
        }
        self.joining = None;
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        self.subscribed = Some(BTreeSet::new());
        if self.members.is_empty() {
            self.protocol = None;
            self.leader = None;
            self.enter(State::Empty, now);
            self.out.push(Effect::Persist);
            return;
        }
        self.protocol = self.select_protocol();
        self.subscribed = self.subscriptions();
        self.enter(State::CompletingRebalance, now);
        self.sync_deadline = Some(now.steady_ms.saturating_add(self.rebalance_timeout_ms()));
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            let answer = self.generation_for(&id);
            let member = self.members.get_mut(&id).expect("a key of the map");
            member.new = false;
            member.owes_sync = true;
            if let Some(token) = member.join.take() {
                self.out.push(Effect::Join(token, Box::new(answer)));
            }
            member.touch(now);
        }
    }

    /// The leader stays if it has joined; else the first who has. False if nobody has.
    fn elect_leader(&mut self) -> bool {
        let joined = |id: &String| self.members.get(id).is_some_and(|member| member.join.is_some());
        if self.leader.as_ref().is_some_and(joined) {
            return true;
        }
        let next = self.members.values().find(|member| member.join.is_some()).map(|member| member.id.clone());
        let found = next.is_some();
        if found {
            self.leader = next;
        }
        found
    }

    /// The protocol that all know and most prefer; on a tie the one that comes first by name.
    pub(super) fn select_protocol(&self) -> Option<String> {
        let common = self.common_protocols();
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            if let Some(favourite) = member.protocol_names().find(|name| common.contains(name)) {
                *votes.entry(favourite).or_default() += 1;
            }
        }
        let most = votes.values().max()?;
        votes.iter().find(|(_, count)| *count == most).map(|(name, _)| (*name).to_owned())
    }

    /// What all members know.
    fn common_protocols(&self) -> BTreeSet<&str> {
        let mut members = self.members.values();
        let mut common: BTreeSet<&str> = members.next().map(|first| first.protocol_names().collect()).unwrap_or_default();
        for member in members {
            common.retain(|name| member.knows(name));
        }
        common
    }

    /// Takes a member out of the maps; what it waits for is answered with `error`.
    pub(super) fn forget(&mut self, id: &str, error: ResponseError) {
        let Some(mut member) = self.members.remove(id) else { return };
        member.refuse_join(error, &mut self.out);
        member.refuse_sync(error, &mut self.out);
        if let Some(instance) = &member.instance {
            self.statics.remove(instance);
        }
        if self.leader.as_deref() == Some(id) {
            self.leader = self.members.keys().next().cloned();
        }
    }

    /// Takes a member out and lets the group react.
    pub(super) fn remove(&mut self, now: Now, id: &str) {
        self.forget(id, ResponseError::UnknownMemberId);
        self.rebalance_or_complete(now);
    }

    /// Assignments are void; whoever waits for one is told so.
    pub(super) fn refuse_syncs(&mut self, now: Now, error: ResponseError) {
        for member in self.members.values_mut() {
            member.assignment = bytes::Bytes::new();
            if member.sync.is_some() {
                member.refuse_sync(error, &mut self.out);
                member.touch(now);
            }
        }
    }
}
