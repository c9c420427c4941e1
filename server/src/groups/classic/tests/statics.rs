use super::*;

fn stat(id: &str, instance: &'static str) -> Who {
    Who { instance: Some(instance), id_required: true, ..who(id) }
}

/// A stable group of two static members `a` (who leads) and `b`.
fn pair() -> (Desk, String, String) {
    let mut desk = Desk::new();
    let a = desk.join(stat("", "a"));
    let a = desk.joins[&a].member_id.clone();
    let b = desk.join(stat("", "b"));
    desk.join(stat(&a, "a"));
    let b = desk.joins[&b].member_id.clone();
    desk.sync(&b, &[]);
    desk.sync(&a, &[(&a, "pa"), (&b, "pb")]);
    (desk, a, b)
}

#[test]
fn a_static_member_needs_no_announcement() {
    let mut desk = Desk::new();
    let token = desk.join(stat("", "a"));
    assert_eq!((desk.join_error(token), desk.group.generation()), (None, 1));
    assert_eq!(desk.joins[&token].members[0].instance.as_deref(), Some("a"));
}

#[test]
fn a_restarted_follower_goes_on_without_a_rebalance_under_a_new_id() {
    let (mut desk, a, b) = pair();
    let (generation, persisted) = (desk.group.generation(), desk.persisted);
    let token = desk.join(stat("", "b"));
    let answer = desk.joins[&token].clone();
    assert_eq!((answer.generation, answer.leader.as_str(), desk.group.state()), (generation, a.as_str(), State::Stable));
    assert_ne!(answer.member_id, b);
    assert_eq!(desk.persisted, persisted + 1, "its new id is written down");
    let sync = desk.sync(&answer.member_id, &[]);
    assert_eq!(desk.syncs[&sync].assignment.as_ref(), b"pb");
}

#[test]
fn the_process_that_was_replaced_is_fenced() {
    let (mut desk, _, b) = pair();
    desk.join(stat("", "b"));
    let generation = desk.group.generation();
    let now = desk.now();
    assert_eq!(desk.group.heartbeat(now, &b, Some("b"), generation), Err(ResponseError::FencedInstanceId));
    assert_eq!(desk.group.may_commit(now, &b, Some("b"), generation), Err(ResponseError::FencedInstanceId));
    let sync = desk.sync_as(SyncRequest { member_id: b.clone(), instance: Some("b".into()), generation, ..SyncRequest::default() });
    assert_eq!(desk.sync_error(sync), Some(ResponseError::FencedInstanceId));
    let join = desk.join(stat(&b, "b"));
    assert_eq!(desk.join_error(join), Some(ResponseError::FencedInstanceId));
    let target = LeaveTarget { member_id: b, instance: Some("b".into()) };
    assert_eq!(desk.group.leave(now, vec![target]).unwrap()[0].error, Some(ResponseError::FencedInstanceId));
}

#[test]
fn a_restarted_leader_leads_on_if_it_understands_skip_assignment() {
    let (mut desk, _, b) = pair();
    let token = desk.join(Who { skip: true, ..stat("", "a") });
    let answer = &desk.joins[&token];
    assert!(answer.skip_assignment);
    assert_eq!((answer.leader.clone(), answer.members.len()), (answer.member_id.clone(), 2));
    assert!(answer.members.iter().any(|member| member.id == b));
}

#[test]
fn a_restarted_leader_of_an_older_client_does_not_think_that_it_leads() {
    let (mut desk, a, _) = pair();
    let token = desk.join(stat("", "a"));
    let answer = &desk.joins[&token];
    assert_eq!((answer.leader.as_str(), answer.members.len(), answer.skip_assignment), (a.as_str(), 0, false));
    assert_ne!(answer.member_id, a);
}

#[test]
fn a_restarted_member_that_needs_another_protocol_rebalances() {
    let mut desk = Desk::new();
    let both = vec![("range", ""), ("sticky", "")];
    let token = desk.join(Who { protocols: both.clone(), ..stat("", "a") });
    let id = desk.joins[&token].member_id.clone();
    desk.sync(&id, &[]);
    desk.join(Who { protocols: vec![("sticky", ""), ("range", "")], ..stat("", "a") });
    assert_eq!((desk.group.state(), desk.group.generation()), (State::CompletingRebalance, 2));
}

#[test]
fn a_restart_while_completing_rebalances() {
    let (mut desk, a, b) = pair();
    desk.join(stat(&a, "a"));
    desk.join(Who { protocols: vec![("range", "new")], ..stat(&b, "b") });
    assert_eq!(desk.group.state(), State::CompletingRebalance);
    let parked = desk.sync_as(SyncRequest {
        member_id: b,
        instance: Some("b".into()),
        generation: desk.group.generation(),
        ..SyncRequest::default()
    });
    desk.join(stat("", "b"));
    assert_eq!(desk.sync_error(parked), Some(ResponseError::FencedInstanceId));
    assert_eq!(desk.group.state(), State::PreparingRebalance);
}

#[test]
fn a_restart_while_preparing_takes_the_place_of_the_parked_join() {
    let (mut desk, a, b) = pair();
    let parked = desk.join(stat(&a, "a"));
    let token = desk.join(stat("", "a"));
    assert_eq!(desk.join_error(parked), Some(ResponseError::FencedInstanceId));
    desk.join(stat(&b, "b"));
    assert_eq!((desk.join_error(token), desk.joins[&token].members.len()), (None, 2));
}

#[test]
fn a_static_member_keeps_its_place_through_a_rebalance_until_its_session_ends() {
    let (mut desk, _, b) = pair();
    let slow = |id: &str, instance| Who { session_ms: 100_000, rebalance_ms: 20_000, ..stat(id, instance) };
    let a = desk.join(slow("", "a"));
    let a = desk.joins[&a].member_id.clone();
    let b2 = desk.join(slow("", "b"));
    let b2 = desk.joins[&b2].member_id.clone();
    assert_ne!(b, b2);
    let token = desk.join(Who { protocols: vec![("range", "changed")], ..slow(&a, "a") });
    desk.pass(20_000);
    assert_eq!((desk.join_error(token), desk.joins[&token].members.len()), (None, 2), "b is away but keeps its place");
}

#[test]
fn a_rebalance_without_anybody_here_waits_on_for_static_members() {
    let mut desk = Desk::new();
    let slow = |id: &str| Who { session_ms: 100_000, rebalance_ms: 20_000, ..stat(id, "a") };
    desk.join(slow(""));
    desk.sync("m1", &[]);
    let newcomer = desk.join(Who { rebalance_ms: 20_000, ..who("") });
    desk.leave("m2");
    assert_eq!(desk.join_error(newcomer), Some(ResponseError::UnknownMemberId));
    desk.pass(50_000);
    assert_eq!((desk.group.state(), desk.group.size()), (State::PreparingRebalance, 1));
    let token = desk.join(slow("m1"));
    assert_eq!(desk.join_error(token), None);
}
