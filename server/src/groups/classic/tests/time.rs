use super::*;

#[test]
fn a_silent_member_is_out_after_its_session_timeout() {
    let (mut desk, ids) = Desk::stable(2);
    desk.pass(9_999);
    assert_eq!(desk.beat(&ids[0]), Ok(()));
    desk.pass(1);
    assert_eq!((desk.group.state(), desk.group.size()), (State::PreparingRebalance, 1));
    assert_eq!(desk.beat(&ids[1]), Err(ResponseError::UnknownMemberId));
    let token = desk.join(who(&ids[0]));
    assert_eq!((desk.join_error(token), desk.joins[&token].members.len()), (None, 1));
}

#[test]
fn a_group_whose_members_all_die_becomes_empty() {
    let (mut desk, _) = Desk::stable(3);
    desk.pass(10_000);
    assert_eq!((desk.group.state(), desk.group.size()), (State::Empty, 0));
    assert!(desk.group.is_empty());
}

#[test]
fn commits_and_heartbeats_keep_a_member_alive() {
    let (mut desk, ids) = Desk::stable(1);
    for _ in 0..5 {
        desk.pass(9_000);
        assert_eq!(desk.beat(&ids[0]), Ok(()));
        desk.pass(9_000);
        assert_eq!(desk.group.may_commit(desk.now(), &ids[0], None, desk.group.generation()), Ok(()));
    }
}

#[test]
fn the_leader_dying_before_its_sync_makes_another_one_lead() {
    let (mut desk, ids) = Desk::stable(3);
    for id in &ids {
        desk.join(Who { rebalance_ms: 20_000, ..who(id) });
    }
    let parked = [desk.sync(&ids[1], &[]), desk.sync(&ids[2], &[])];
    desk.pass(10_000);
    for token in parked {
        assert_eq!(desk.sync_error(token), Some(ResponseError::RebalanceInProgress));
    }
    let second = desk.join(who(&ids[1]));
    let third = desk.join(who(&ids[2]));
    assert_eq!((desk.join_error(second), desk.join_error(third)), (None, None));
    let leader = desk.joins[&second].leader.clone();
    assert_ne!(leader, ids[0]);
    desk.assign(&if leader == ids[1] { vec![ids[1].clone(), ids[2].clone()] } else { vec![ids[2].clone(), ids[1].clone()] });
    assert_eq!(desk.group.state(), State::Stable);
}

#[test]
fn a_member_that_misses_the_join_phase_is_out_when_the_rebalance_timeout_ends() {
    let (mut desk, ids) = Desk::stable(2);
    let token = desk.join(who(&ids[0]));
    for _ in 0..11 {
        desk.pass(5_000);
        assert_eq!(desk.beat(&ids[1]), Err(ResponseError::RebalanceInProgress), "alive, but it does not join");
    }
    assert!(!desk.joins.contains_key(&token));
    desk.pass(5_000);
    assert_eq!((desk.join_error(token), desk.group.size()), (None, 1));
    assert_eq!(desk.beat(&ids[1]), Err(ResponseError::UnknownMemberId));
}

#[test]
fn a_member_that_dies_in_the_join_phase_ends_it_with_its_session() {
    let (mut desk, ids) = Desk::stable(2);
    let token = desk.join(who(&ids[0]));
    desk.pass(10_000);
    assert_eq!((desk.join_error(token), desk.group.size()), (None, 1));
}

#[test]
fn whoever_waits_in_a_join_or_sync_does_not_lose_its_session() {
    let (mut desk, ids) = Desk::stable(2);
    let join = desk.join(Who { rebalance_ms: 300_000, ..who(&ids[0]) });
    for _ in 0..8 {
        desk.pass(6_000);
        let _ = desk.beat(&ids[1]);
    }
    assert!(!desk.joins.contains_key(&join), "48 s in a join with a session of 10 s");
    desk.join(Who { rebalance_ms: 300_000, ..who(&ids[1]) });
    assert_eq!(desk.join_error(join), None);
    let sync = desk.sync(&ids[1], &[]);
    for _ in 0..8 {
        desk.pass(6_000);
        assert_eq!(desk.beat(&ids[0]), Ok(()));
    }
    desk.sync(&ids[0], &[(&ids[1], "b")]);
    assert_eq!(desk.syncs[&sync].assignment.as_ref(), b"b");
    desk.pass(9_999);
    assert_eq!(desk.beat(&ids[1]), Ok(()), "its session began with the answer");
}

#[test]
fn a_rejoin_beside_a_parked_sync_does_not_start_a_session() {
    let (mut desk, ids) = Desk::stable(2);
    desk.join(who(&ids[0]));
    desk.join(who(&ids[1]));
    desk.sync(&ids[1], &[]);
    desk.join(who(&ids[1]));
    for _ in 0..4 {
        desk.pass(6_000);
        assert_eq!(desk.beat(&ids[0]), Ok(()));
    }
    assert_eq!(desk.group.size(), 2);
}

#[test]
fn a_new_member_whose_client_is_gone_does_not_wait_for_ever() {
    let mut desk = Desk::with(Rules { new_member_timeout_ms: 30_000, ..Rules::default() });
    desk.join(Who { instance: Some("s"), session_ms: 1_000_000, rebalance_ms: 1_000_000, ..who("") });
    desk.sync("m1", &[]);
    let newcomer = desk.join(Who { rebalance_ms: 1_000_000, ..who("") });
    desk.pass(29_999);
    assert!(!desk.joins.contains_key(&newcomer));
    desk.pass(1);
    assert_eq!(desk.join_error(newcomer), Some(ResponseError::UnknownMemberId));
}

#[test]
fn members_that_never_sync_are_out_after_the_rebalance_timeout() {
    let (mut desk, ids) = Desk::stable(3);
    for id in &ids {
        desk.join(Who { session_ms: 200_000, ..who(id) });
    }
    let parked = desk.sync(&ids[1], &[]);
    desk.pass(60_000);
    assert_eq!(desk.sync_error(parked), Some(ResponseError::RebalanceInProgress));
    assert_eq!((desk.group.state(), desk.group.size()), (State::PreparingRebalance, 1));
}

#[test]
fn a_follower_that_never_syncs_is_out_even_when_the_group_is_stable() {
    let (mut desk, ids) = Desk::stable(2);
    for id in &ids {
        desk.join(Who { session_ms: 200_000, ..who(id) });
    }
    desk.sync(&ids[0], &[]);
    assert_eq!(desk.group.state(), State::Stable);
    desk.pass(60_000);
    assert_eq!((desk.group.state(), desk.group.size()), (State::PreparingRebalance, 1));
}

#[test]
fn the_initial_delay_gathers_members_into_one_generation() {
    let mut desk = Desk::with(Rules { initial_rebalance_delay_ms: 3_000, ..Rules::default() });
    let first = desk.join(who(""));
    desk.pass(2_000);
    let second = desk.join(who(""));
    desk.pass(1_000);
    assert!(!desk.joins.contains_key(&first), "a newcomer prolongs it");
    desk.pass(3_000);
    assert_eq!((desk.joins[&first].generation, desk.joins[&second].generation, desk.joins[&first].members.len()), (1, 1, 2));
}

#[test]
fn the_initial_delay_never_exceeds_the_rebalance_timeout() {
    let mut desk = Desk::with(Rules { initial_rebalance_delay_ms: 3_000, ..Rules::default() });
    let first = desk.join(Who { rebalance_ms: 8_000, ..who("") });
    for _ in 0..7 {
        desk.pass(1_000);
        desk.join(Who { rebalance_ms: 8_000, ..who("") });
    }
    assert!(!desk.joins.contains_key(&first));
    desk.pass(1_000);
    assert_eq!(desk.join_error(first), None);
}

#[test]
fn everybody_leaving_during_the_initial_delay_leaves_it_empty() {
    let mut desk = Desk::with(Rules { initial_rebalance_delay_ms: 3_000, ..Rules::default() });
    let token = desk.join(who(""));
    desk.leave("m1");
    assert_eq!(desk.join_error(token), Some(ResponseError::UnknownMemberId));
    desk.pass(3_000);
    assert_eq!(desk.group.state(), State::Empty);
    assert_eq!(desk.group.next_deadline(), None);
}

#[test]
fn a_late_tick_is_as_good_as_a_punctual_one() {
    let (mut desk, _) = Desk::stable(3);
    desk.now = 1_000_000;
    let silent = desk.group.tick(desk.now());
    assert_eq!(silent.len(), 3, "{silent:?}");
    desk.settle();
    desk.pass(60_000);
    assert_eq!((desk.group.state(), desk.group.size()), (State::Empty, 0));
}
