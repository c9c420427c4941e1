//! The state machine of a consumer group: `cargo bench -p bench --bench groups`.

// criterion_group! makes a public function without a word of documentation.
#![allow(missing_docs)]

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use server::groups::classic::{Effect, Group, JoinRequest, Now, Rules, State, SyncRequest};

fn at(ms: i64) -> Now {
    Now { steady_ms: ms, wall_ms: 1_700_000_000_000 + ms }
}

fn join(member: usize) -> JoinRequest {
    JoinRequest {
        member_id: String::new(),
        fresh_id: format!("member-{member}"),
        instance: None,
        client_id: "client".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        session_timeout_ms: 45_000,
        rebalance_timeout_ms: 300_000,
        protocol_type: "consumer".to_owned(),
        protocols: vec![("range".to_owned(), Bytes::from_static(b"topics"))],
        id_required: false,
        skip_assignment: false,
    }
}

/// From an empty group to a stable one: all join within the first phase, time ends it, the leader and all others sync.
fn form(members: usize) -> Group {
    let rules = Rules { initial_rebalance_delay_ms: 3_000, ..Rules::default() };
    let mut group = Group::new(rules, at(0));
    for member in 0..members {
        group.join(at(0), join(member), member as u64);
    }
    while let Some(deadline) = group.next_deadline().filter(|_| group.state() == State::PreparingRebalance) {
        group.tick(at(deadline));
    }
    let mut leader = String::new();
    for effect in group.effects() {
        if let Effect::Join(_, answer) = effect {
            leader = answer.leader;
        }
    }
    let ids: Vec<String> = (0..members).map(|member| format!("member-{member}")).collect();
    let generation = group.generation();
    for (token, id) in ids.iter().enumerate() {
        let assignments =
            if *id == leader { ids.iter().map(|id| (id.clone(), Bytes::from_static(b"part"))).collect() } else { Default::default() };
        group.sync(at(6_000), SyncRequest { member_id: id.clone(), generation, assignments, ..SyncRequest::default() }, token as u64);
    }
    let _ = group.effects();
    assert_eq!(group.state(), State::Stable);
    group
}

fn rebalance(c: &mut Criterion) {
    let mut benches = c.benchmark_group("group: from empty to stable");
    for members in [3, 100] {
        benches
            .bench_with_input(BenchmarkId::from_parameter(format!("{members} members")), &members, |b, members| b.iter(|| form(*members)));
    }
    benches.finish();
}

fn heartbeat(c: &mut Criterion) {
    let mut benches = c.benchmark_group("group: heartbeat");
    for members in [3, 100] {
        let mut group = form(members);
        let generation = group.generation();
        let id = format!("member-{}", members / 2);
        benches.bench_function(format!("{members} members"), |b| {
            b.iter(|| group.heartbeat(at(6_000), &id, None, generation).expect("a member"));
        });
    }
    benches.finish();
}

criterion_group!(benches, rebalance, heartbeat);
criterion_main!(benches);
