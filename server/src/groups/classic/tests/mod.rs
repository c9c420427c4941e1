//! The rules of the classic protocol as claims.

mod commits;
mod joining;
mod leaving;
mod persistence;
mod random;
mod statics;
mod syncing;
mod time;

use super::*;
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};

/// Milliseconds after the beginning.
pub(super) fn at(ms: i64) -> Now {
    Now { steady_ms: ms, wall_ms: 1_000_000 + ms }
}

/// A group under test with a clock, and everything that it has answered.
pub(super) struct Desk {
    pub group: Group,
    pub now: i64,
    pub joins: BTreeMap<Token, JoinAnswer>,
    pub syncs: BTreeMap<Token, SyncAnswer>,
    pub persisted: usize,
    pub log: VecDeque<Effect>,
    tokens: Token,
    ids: u32,
}

/// What a test varies of a join.
#[derive(Clone)]
pub(super) struct Who {
    pub id: String,
    pub instance: Option<&'static str>,
    pub session_ms: i32,
    pub rebalance_ms: i32,
    pub kind: &'static str,
    pub protocols: Vec<(&'static str, &'static str)>,
    pub id_required: bool,
    pub skip: bool,
}

pub(super) fn who(id: &str) -> Who {
    Who {
        id: id.to_owned(),
        instance: None,
        session_ms: 10_000,
        rebalance_ms: 60_000,
        kind: "consumer",
        protocols: vec![("range", "meta")],
        id_required: false,
        skip: false,
    }
}

impl Desk {
    pub fn new() -> Desk {
        Desk::with(Rules { members_max: 4, ..Rules::default() })
    }

    pub fn with(rules: Rules) -> Desk {
        Desk {
            group: Group::new(rules, at(0)),
            now: 0,
            joins: BTreeMap::new(),
            syncs: BTreeMap::new(),
            persisted: 0,
            log: VecDeque::new(),
            tokens: 0,
            ids: 0,
        }
    }

    pub fn now(&self) -> Now {
        at(self.now)
    }

    /// Takes what the group decided; nobody is ever answered twice.
    pub fn settle(&mut self) {
        for effect in self.group.effects() {
            self.log.push_back(effect.clone());
            match effect {
                Effect::Persist => self.persisted += 1,
                Effect::Join(token, answer) => assert!(self.joins.insert(token, *answer).is_none(), "join {token} answered twice"),
                Effect::Sync(token, answer) => assert!(self.syncs.insert(token, answer).is_none(), "sync {token} answered twice"),
            }
        }
    }

    pub fn join(&mut self, who: Who) -> Token {
        self.tokens += 1;
        self.ids += 1;
        let request = JoinRequest {
            member_id: who.id,
            fresh_id: format!("m{}", self.ids),
            instance: who.instance.map(str::to_owned),
            client_id: "client".into(),
            client_host: "/127.0.0.1".into(),
            session_timeout_ms: who.session_ms,
            rebalance_timeout_ms: who.rebalance_ms,
            protocol_type: who.kind.into(),
            protocols: who.protocols.iter().map(|(name, meta)| ((*name).to_owned(), Bytes::from_static(meta.as_bytes()))).collect(),
            id_required: who.id_required,
            skip_assignment: who.skip,
        };
        self.group.join(self.now(), request, self.tokens);
        self.settle();
        self.tokens
    }

    pub fn sync_as(&mut self, request: SyncRequest) -> Token {
        self.tokens += 1;
        self.group.sync(self.now(), request, self.tokens);
        self.settle();
        self.tokens
    }

    pub fn sync(&mut self, id: &str, assignments: &[(&str, &'static str)]) -> Token {
        let generation = self.group.generation();
        let assignments = assignments.iter().map(|(id, bytes)| ((*id).to_owned(), Bytes::from_static(bytes.as_bytes()))).collect();
        self.sync_as(SyncRequest { member_id: id.into(), generation, assignments, ..SyncRequest::default() })
    }

    pub fn beat(&mut self, id: &str) -> Result<(), ResponseError> {
        let generation = self.group.generation();
        let done = self.group.heartbeat(self.now(), id, None, generation);
        self.settle();
        done
    }

    pub fn leave(&mut self, id: &str) -> Option<ResponseError> {
        let done = self.group.leave(self.now(), vec![LeaveTarget { member_id: id.into(), instance: None }]).unwrap();
        self.settle();
        done[0].error
    }

    /// Lets time pass, waking the group at each of its deadlines as the coordinator does.
    pub fn pass(&mut self, ms: i64) {
        let end = self.now + ms;
        while let Some(deadline) = self.group.next_deadline().filter(|deadline| *deadline <= end) {
            self.now = self.now.max(deadline);
            self.group.tick(self.now());
            self.settle();
        }
        self.now = end;
    }

    pub fn join_error(&self, token: Token) -> Option<ResponseError> {
        self.joins.get(&token).expect("join is answered").error
    }

    pub fn sync_error(&self, token: Token) -> Option<ResponseError> {
        self.syncs.get(&token).expect("sync is answered").error
    }

    /// A stable group of `n` dynamic members; returns their ids, the leader first.
    pub fn stable(n: usize) -> (Desk, Vec<String>) {
        let mut desk = Desk::new();
        let mut ids: Vec<String> = Vec::new();
        for _ in 0..n {
            let newcomer = desk.join(who(""));
            let rejoins: Vec<Token> = ids.iter().map(|id| desk.join(who(id))).collect();
            assert!(rejoins.iter().all(|token| desk.join_error(*token).is_none()));
            ids.push(desk.joins[&newcomer].member_id.clone());
        }
        let leader = desk.joins.values().last().unwrap().leader.clone();
        ids.sort_by_key(|id| *id != leader);
        desk.assign(&ids);
        assert_eq!(desk.group.state(), State::Stable);
        (desk, ids)
    }

    /// Everybody syncs, the leader (the first) last.
    pub fn assign(&mut self, ids: &[String]) -> Vec<Token> {
        let mut tokens: Vec<Token> = ids[1..].iter().map(|id| self.sync(id, &[])).collect();
        let assignments: Vec<(&str, &'static str)> = ids.iter().map(|id| (id.as_str(), "part")).collect();
        tokens.push(self.sync(&ids[0], &assignments));
        tokens
    }
}
