use super::*;

#[test]
fn members_go_on_under_their_ids_after_a_restart() {
    let (mut desk, ids) = Desk::stable(2);
    let snapshot = desk.group.snapshot();
    desk.group = Group::restore(Rules::default(), snapshot.clone(), desk.now());
    assert_eq!(desk.group.snapshot(), snapshot);
    assert_eq!(desk.group.state(), State::Stable);
    assert_eq!(desk.beat(&ids[0]), Ok(()));
    assert_eq!(desk.group.may_commit(desk.now(), &ids[1], None, snapshot.generation), Ok(()));
    let sync = desk.sync(&ids[1], &[]);
    assert_eq!(desk.syncs[&sync].assignment.as_ref(), b"part");
    let rejoin = desk.join(who(&ids[1]));
    assert_eq!((desk.join_error(rejoin), desk.joins[&rejoin].generation), (None, snapshot.generation));
}

#[test]
fn members_that_died_with_the_broker_lose_their_sessions() {
    let (mut desk, ids) = Desk::stable(2);
    desk.group = Group::restore(Rules::default(), desk.group.snapshot(), desk.now());
    desk.pass(9_000);
    assert_eq!(desk.beat(&ids[0]), Ok(()));
    desk.pass(1_000);
    assert_eq!((desk.group.state(), desk.group.size()), (State::PreparingRebalance, 1));
}

#[test]
fn static_members_are_known_after_a_restart() {
    let mut desk = Desk::new();
    desk.join(Who { instance: Some("a"), ..who("") });
    desk.sync("m1", &[("m1", "pa")]);
    desk.group = Group::restore(Rules::default(), desk.group.snapshot(), desk.now());
    let token = desk.join(Who { instance: Some("a"), ..who("") });
    let id = desk.joins[&token].member_id.clone();
    let sync = desk.sync(&id, &[]);
    assert_eq!(desk.syncs[&sync].assignment.as_ref(), b"pa");
}

#[test]
fn an_empty_group_keeps_its_generation_and_the_time_since_when_it_is_empty() {
    let (mut desk, ids) = Desk::stable(1);
    desk.now = 500;
    desk.leave(&ids[0]);
    let snapshot = desk.group.snapshot();
    let group = Group::restore(Rules::default(), snapshot, at(99_000));
    assert_eq!((group.state(), group.generation(), group.state_since_wall_ms()), (State::Empty, 2, 1_000_500));
}

#[test]
fn a_description_shows_metadata_and_assignments_of_stable_groups_only() {
    let (mut desk, ids) = Desk::stable(1);
    let described = desk.group.describe();
    assert_eq!((described.state, described.protocol.as_str(), described.members[0].assignment.as_ref()), ("Stable", "range", &b"part"[..]));
    desk.join(who(&ids[0]));
    let described = desk.group.describe();
    assert_eq!((described.state, described.protocol.as_str(), described.members[0].metadata.len()), ("CompletingRebalance", "", 0));
}

#[test]
fn what_a_consumer_group_reads_is_known() {
    let mut desk = Desk::new();
    desk.join(Who { protocols: vec![("range", "\0\x01\0\0\0\x01\0\x06orders")], ..who("") });
    assert!(desk.group.subscribed().unwrap().contains("orders"));
    desk.leave("m1");
    assert!(desk.group.subscribed().unwrap().is_empty());
    desk.join(Who { kind: "connect", ..who("") });
    assert_eq!(desk.group.subscribed(), None);
}
