//! What time does to a group. Timeouts are looked at only in [`Group::tick`], so a late call is as good as a punctual one.

use super::{Group, Now, State};
use kafka_protocol::ResponseError;

impl Group {
    /// When [`Group::tick`] has something to do (steady ms); `None` if nothing waits for time.
    #[must_use]
    pub fn next_deadline(&self) -> Option<i64> {
        self.members
            .values()
            .map(|member| member.session_ends)
            .chain(self.pending.values().copied())
            .chain(self.joining.map(|timer| timer.at))
            .chain(self.sync_deadline)
            .min()
            .filter(|at| *at != i64::MAX)
    }

    /// Lets the time pass until `now`. Returns the members whose sessions have ended by that: they are out.
    pub fn tick(&mut self, now: Now) -> Vec<String> {
        let due = |at: i64| at <= now.steady_ms;
        let announced = self.pending.len();
        self.pending.retain(|_, lapses| !due(*lapses));
        if self.pending.len() < announced && self.state == State::PreparingRebalance {
            self.rebalance_or_complete(now);
        }
        let silent = self.end_sessions(now);
        if let Some(timer) = self.joining.filter(|timer| due(timer.at)) {
            self.join_timer_fired(now, timer);
        }
        if self.sync_deadline.is_some_and(due) {
            self.sync_timer_fired(now);
        }
        silent
    }

    fn end_sessions(&mut self, now: Now) -> Vec<String> {
        // A removal may end the rebalance, and others get a new session by that: look again at each.
        let silent: Vec<String> =
            self.members.values().filter(|member| member.session_ends <= now.steady_ms).map(|member| member.id.clone()).collect();
        let mut out = Vec::new();
        for id in silent {
            if self.members.get(&id).is_some_and(|member| member.session_ends <= now.steady_ms) {
                self.remove(now, &id);
                out.push(id);
            }
        }
        out
    }

    /// Members that took part in the join but never asked for their assignment are out.
    fn sync_timer_fired(&mut self, now: Now) {
        self.sync_deadline = None;
        if !matches!(self.state, State::CompletingRebalance | State::Stable) {
            return;
        }
        let missing: Vec<String> = self.members.values().filter(|member| member.owes_sync).map(|member| member.id.clone()).collect();
        if missing.is_empty() {
            return;
        }
        for id in &missing {
            self.forget(id, ResponseError::UnknownMemberId);
        }
        self.rebalance_or_complete(now);
    }
}
