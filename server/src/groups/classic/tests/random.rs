//! Random calls in random order: whatever happens, the group stays consistent and everybody is answered once.

use super::*;
use rand::{Rng, SeedableRng, rngs::SmallRng, seq::IndexedRandom};

fn check(desk: &Desk) {
    let group = &desk.group;
    for (instance, id) in &group.statics {
        assert_eq!(group.members[id].instance.as_deref(), Some(instance.as_str()));
    }
    assert_eq!(group.statics.len(), group.members.values().filter(|member| member.instance.is_some()).count());
    let leads = group.leader.as_ref().is_some_and(|id| group.members.contains_key(id));
    assert_eq!(leads, !group.members.is_empty(), "a group with members has a leader among them");
    assert_eq!(group.state == State::Empty, group.members.is_empty() && group.state != State::PreparingRebalance);
    assert_eq!(group.joining.is_some(), group.state == State::PreparingRebalance);
    for member in group.members.values() {
        assert!(member.sync.is_none() || group.state == State::CompletingRebalance, "a sync waits only for the leader");
        assert!(member.join.is_none() || group.state == State::PreparingRebalance, "a join waits only for the join phase");
        assert!(member.session_ends < i64::MAX || member.join.is_some() || member.sync.is_some(), "nobody lives for ever");
    }
    assert!(group.pending.len() <= group.rules.members_max);
}

#[test]
fn whatever_happens_the_group_is_consistent_and_everybody_is_answered_once() {
    for seed in 0..400 {
        let mut random = SmallRng::seed_from_u64(seed);
        let delay = if seed % 3 == 0 { 3_000 } else { 0 };
        let mut desk = Desk::with(Rules { members_max: 5, initial_rebalance_delay_ms: delay, ..Rules::default() });
        let mut joins = Vec::new();
        let mut syncs = Vec::new();
        for _ in 0..300 {
            let mut known: Vec<String> = desk.group.members.keys().chain(desk.group.pending.keys()).cloned().collect();
            known.push(String::new());
            known.push("stranger".into());
            let id = known.choose(&mut random).unwrap().clone();
            let instance = match desk.group.members.get(&id).map(|member| member.instance.clone()) {
                Some(Some(instance)) => Some(if instance == "a" { "a" } else { "b" }),
                Some(None) => None,
                None => *[None, None, Some("a"), Some("b")].choose(&mut random).unwrap(),
            };
            match random.random_range(0..10) {
                0..=3 => joins.push(desk.join(Who {
                    instance,
                    session_ms: random.random_range(6_000..60_000),
                    rebalance_ms: random.random_range(1_000..60_000),
                    protocols: vec![("range", *["x", "y"].choose(&mut random).unwrap()), ("sticky", "")],
                    id_required: random.random(),
                    skip: random.random(),
                    ..who(&id)
                })),
                4..=6 => syncs.push(desk.sync(&id, &[(&id, "part")])),
                7 => drop(desk.leave(&id)),
                8 => drop(desk.beat(&id)),
                _ => {
                    let ms = random.random_range(0..15_000);
                    desk.pass(ms);
                }
            }
            check(&desk);
        }
        // Silence: everybody's time runs out.
        desk.pass(10_000_000);
        check(&desk);
        assert!(desk.group.is_empty(), "seed {seed}: {:?}", desk.group);
        assert_eq!(desk.joins.len(), joins.len(), "seed {seed}");
        assert_eq!(desk.syncs.len(), syncs.len(), "seed {seed}");
    }
}
