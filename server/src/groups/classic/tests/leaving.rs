use super::*;

#[test]
fn the_last_one_leaves_an_empty_group_that_is_written_down() {
    let (mut desk, ids) = Desk::stable(1);
    let persisted = desk.persisted;
    assert_eq!(desk.leave(&ids[0]), None);
    assert_eq!((desk.group.state(), desk.group.generation()), (State::Empty, 2));
    assert_eq!(desk.persisted, persisted + 1);
    assert_eq!(desk.leave(&ids[0]), Some(ResponseError::UnknownMemberId));
    assert_eq!(desk.group.next_deadline(), None, "nothing is left to wait for");
}

#[test]
fn all_leaving_in_one_request_empties_the_group_at_once() {
    let (mut desk, ids) = Desk::stable(3);
    let targets = ids.iter().map(String::as_str).chain(["stranger"]);
    let targets = targets.map(|id| LeaveTarget { member_id: id.to_owned(), instance: None }).collect();
    let done = desk.group.leave(desk.now(), targets).unwrap();
    desk.settle();
    assert_eq!(done.iter().map(|leave| leave.error).collect::<Vec<_>>(), [None, None, None, Some(ResponseError::UnknownMemberId)]);
    assert_eq!(desk.group.state(), State::Empty);
}

#[test]
fn a_member_that_leaves_a_stable_group_rebalances_the_rest() {
    let (mut desk, ids) = Desk::stable(3);
    desk.leave(&ids[0]);
    assert_eq!(desk.group.state(), State::PreparingRebalance);
    let second = desk.join(who(&ids[1]));
    let third = desk.join(who(&ids[2]));
    assert_eq!((desk.join_error(second), desk.join_error(third)), (None, None));
    assert_ne!(desk.joins[&second].leader, ids[0], "somebody else leads");
}

#[test]
fn leaving_during_the_join_phase_can_complete_it() {
    let (mut desk, ids) = Desk::stable(2);
    let token = desk.join(who(&ids[0]));
    assert!(!desk.joins.contains_key(&token));
    desk.leave(&ids[1]);
    assert_eq!((desk.join_error(token), desk.group.size()), (None, 1));
}

#[test]
fn a_member_that_leaves_while_its_join_is_parked_is_answered() {
    let (mut desk, ids) = Desk::stable(2);
    let token = desk.join(who(&ids[0]));
    desk.leave(&ids[0]);
    assert_eq!(desk.join_error(token), Some(ResponseError::UnknownMemberId));
}

#[test]
fn a_member_that_leaves_while_its_sync_is_parked_is_answered() {
    let (mut desk, ids) = Desk::stable(2);
    desk.join(who(&ids[0]));
    desk.join(who(&ids[1]));
    let token = desk.sync(&ids[1], &[]);
    desk.leave(&ids[1]);
    assert_eq!(desk.sync_error(token), Some(ResponseError::UnknownMemberId));
    assert_eq!(desk.group.state(), State::PreparingRebalance);
}

#[test]
fn an_announced_member_can_leave_and_frees_the_join_phase() {
    let (mut desk, ids) = Desk::stable(1);
    let announced = desk.join(Who { id_required: true, ..who("") });
    let id = desk.joins[&announced].member_id.clone();
    let token = desk.join(who(&ids[0]));
    assert_eq!(desk.leave(&id), None);
    assert_eq!(desk.join_error(token), None);
}

#[test]
fn an_operator_removes_static_members_by_their_instance_ids() {
    let mut desk = Desk::new();
    let token = desk.join(Who { instance: Some("a"), ..who("") });
    let id = desk.joins[&token].member_id.clone();
    desk.assign(&[id]);
    let target = |member: &str, instance: &str| LeaveTarget { member_id: member.into(), instance: Some(instance.into()) };
    let done = desk.group.leave(desk.now(), vec![target("", "b"), target("wrong", "a"), target("", "a")]).unwrap();
    desk.settle();
    let errors: Vec<_> = done.iter().map(|leave| leave.error).collect();
    assert_eq!(errors, [Some(ResponseError::UnknownMemberId), Some(ResponseError::FencedInstanceId), None]);
    assert_eq!(desk.group.state(), State::Empty);
}

#[test]
fn the_end_of_a_group_answers_everybody() {
    let (mut desk, ids) = Desk::stable(2);
    let join = desk.join(who(&ids[0]));
    desk.group.kill(desk.now(), ResponseError::NotCoordinator);
    desk.settle();
    assert_eq!((desk.join_error(join), desk.group.state()), (Some(ResponseError::NotCoordinator), State::Dead));
    let token = desk.join(who(&ids[1]));
    assert_eq!(desk.join_error(token), Some(ResponseError::CoordinatorNotAvailable));
    assert_eq!(desk.beat(&ids[1]), Err(ResponseError::CoordinatorNotAvailable));
    assert_eq!(desk.group.next_deadline(), None);
}
