//! A member of a group, and the requests of it that wait.

use super::{Effect, JoinAnswer, Now, SyncAnswer, Token};
use bytes::Bytes;
use kafka_protocol::ResponseError;

/// A member.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its id, given by the coordinator.
    pub id: String,
    /// `group.instance.id` of a static member.
    pub instance: Option<String>,
    /// `client.id`.
    pub client_id: String,
    /// Where it comes from, as Kafka writes it: `/10.0.0.7`.
    pub client_host: String,
    /// How long a rebalance waits for it, in ms.
    pub rebalance_timeout_ms: i32,
    /// How long it may be silent, in ms.
    pub session_timeout_ms: i32,
    /// The assignors that it knows, its favourite first, each with the metadata that the leader gets.
    pub protocols: Vec<(String, Bytes)>,
    /// What the leader gave it.
    pub assignment: Bytes,
    pub(super) join: Option<Token>,
    pub(super) sync: Option<Token>,
    /// It has never been answered its join.
    pub(super) new: bool,
    /// It has the generation but did not ask for its assignment yet.
    pub(super) owes_sync: bool,
    /// When its session ends (steady ms); `i64::MAX` while it waits for us.
    pub(super) session_ends: i64,
}

impl Member {
    /// The assignors that it knows, its favourite first.
    pub(super) fn protocol_names(&self) -> impl Iterator<Item = &str> {
        self.protocols.iter().map(|(name, _)| name.as_str())
    }

    /// Whether it knows this assignor.
    pub(super) fn knows(&self, protocol: &str) -> bool {
        self.protocol_names().any(|name| name == protocol)
    }

    /// Its metadata for a protocol.
    #[must_use]
    pub fn metadata(&self, protocol: &str) -> Bytes {
        self.protocols.iter().find(|(name, _)| name == protocol).map(|(_, metadata)| metadata.clone()).unwrap_or_default()
    }

    /// Heard of it: its session begins anew, or when it has its answer if it waits for one.
    pub(super) fn touch(&mut self, now: Now) {
        let waits = self.sync.is_some() || (self.join.is_some() && !self.new);
        self.session_ends = if waits { i64::MAX } else { now.steady_ms.saturating_add(i64::from(self.session_timeout_ms)) };
    }

    /// It waits for the end of the join phase. What it asked before under another token gets an answer too.
    pub(super) fn park_join(&mut self, token: Token, out: &mut Vec<Effect>) {
        self.refuse_join(ResponseError::RebalanceInProgress, out);
        self.join = Some(token);
        if !self.new {
            self.session_ends = i64::MAX;
        }
    }

    /// It waits for the leader's assignment.
    pub(super) fn park_sync(&mut self, token: Token, out: &mut Vec<Effect>) {
        self.refuse_sync(ResponseError::RebalanceInProgress, out);
        self.sync = Some(token);
        self.session_ends = i64::MAX;
    }

    pub(super) fn refuse_join(&mut self, error: ResponseError, out: &mut Vec<Effect>) {
        if let Some(token) = self.join.take() {
            out.push(Effect::Join(token, Box::new(JoinAnswer::refused(error, self.id.clone()))));
        }
    }

    pub(super) fn refuse_sync(&mut self, error: ResponseError, out: &mut Vec<Effect>) {
        if let Some(token) = self.sync.take() {
            out.push(Effect::Sync(token, SyncAnswer::refused(error)));
        }
    }
}
