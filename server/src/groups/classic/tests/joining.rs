use super::*;

#[test]
fn the_first_member_leads_generation_one() {
    let mut desk = Desk::new();
    let token = desk.join(who(""));
    let answer = &desk.joins[&token];
    assert_eq!((answer.error, answer.generation, answer.member_id.as_str()), (None, 1, "m1"));
    assert_eq!((answer.leader.as_str(), answer.protocol.as_deref()), ("m1", Some("range")));
    assert_eq!(answer.members, vec![Joined { id: "m1".into(), instance: None, metadata: Bytes::from_static(b"meta") }]);
    assert_eq!(desk.group.state(), State::CompletingRebalance);
}

#[test]
fn from_version_4_on_a_dynamic_member_has_to_come_back_with_its_id() {
    let mut desk = Desk::new();
    let token = desk.join(Who { id_required: true, ..who("") });
    let answer = desk.joins[&token].clone();
    assert_eq!((answer.error, answer.member_id.as_str()), (Some(ResponseError::MemberIdRequired), "m1"));
    assert_eq!(desk.group.state(), State::Empty, "announced is not joined");
    let token = desk.join(Who { id_required: true, ..who("m1") });
    assert_eq!((desk.join_error(token), desk.group.generation()), (None, 1));
}

#[test]
fn an_announced_member_that_never_comes_lapses() {
    let mut desk = Desk::new();
    desk.join(Who { id_required: true, ..who("") });
    assert!(!desk.group.is_blank());
    desk.pass(10_000);
    assert!(desk.group.is_blank());
    let token = desk.join(who("m1"));
    assert_eq!(desk.join_error(token), Some(ResponseError::UnknownMemberId));
}

#[test]
fn a_rebalance_waits_for_announced_members_until_they_lapse() {
    let (mut desk, ids) = Desk::stable(1);
    desk.join(Who { id_required: true, session_ms: 7_000, ..who("") });
    assert_eq!(desk.group.state(), State::Stable, "an announcement starts no rebalance");
    let token = desk.join(who(&ids[0]));
    assert!(!desk.joins.contains_key(&token), "the leader's rejoin waits for the announced one");
    desk.pass(7_000);
    assert_eq!(desk.join_error(token), None);
    assert_eq!(desk.group.size(), 1);
}

#[test]
fn what_cannot_join_is_told_why() {
    let table: &[(&str, Who, ResponseError)] = &[
        ("session below the minimum", Who { session_ms: 5_999, ..who("") }, ResponseError::InvalidSessionTimeout),
        ("session above the maximum", Who { session_ms: 1_800_001, ..who("") }, ResponseError::InvalidSessionTimeout),
        ("unknown id", who("stranger"), ResponseError::UnknownMemberId),
        ("other protocol type", Who { kind: "connect", ..who("") }, ResponseError::InconsistentGroupProtocol),
        ("no protocol type", Who { kind: "", ..who("") }, ResponseError::InconsistentGroupProtocol),
        ("no protocols", Who { protocols: vec![], ..who("") }, ResponseError::InconsistentGroupProtocol),
        ("no common protocol", Who { protocols: vec![("sticky", "")], ..who("") }, ResponseError::InconsistentGroupProtocol),
        ("unknown id with instance", Who { instance: Some("i"), ..who("m1") }, ResponseError::UnknownMemberId),
    ];
    for (claim, who, error) in table {
        let (mut desk, _) = Desk::stable(2);
        let before = desk.group.snapshot();
        let token = desk.join(who.clone());
        assert_eq!(desk.join_error(token), Some(*error), "{claim}");
        assert_eq!((desk.joins[&token].generation, &desk.joins[&token].member_id), (-1, &who.id), "{claim}");
        assert_eq!(desk.group.snapshot(), before, "{claim}: nothing changed");
    }
}

#[test]
fn too_much_metadata_is_refused() {
    let mut desk = Desk::with(Rules { member_bytes_max: 8, ..Rules::default() });
    let token = desk.join(Who { protocols: vec![("range", "meta")], ..who("") });
    assert_eq!(desk.join_error(token), Some(ResponseError::InvalidRequest));
    assert!(desk.group.is_blank());
}

#[test]
fn protocols_without_a_name_take_room_too() {
    let mut desk = Desk::with(Rules { member_bytes_max: 256, ..Rules::default() });
    let token = desk.join(Who { protocols: vec![("", ""); 5], ..who("") });
    assert_eq!(desk.join_error(token), Some(ResponseError::InvalidRequest));
    let token = desk.join(Who { protocols: vec![("", ""); 4], ..who("") });
    assert_eq!(desk.join_error(token), None);
    assert_eq!(desk.group.metadata_bytes(), 256);
}

#[test]
fn a_member_with_more_protocols_than_may_be_compared_is_refused() {
    let mut desk = Desk::new();
    let most = desk.group.rules.member_protocols_max;
    let token = desk.join(Who { protocols: vec![("range", ""); most + 1], ..who("") });
    assert_eq!(desk.join_error(token), Some(ResponseError::InvalidRequest));
    assert!(desk.group.is_blank());
    let token = desk.join(Who { protocols: vec![("range", ""); most], ..who("") });
    assert_eq!(desk.join_error(token), None);
}

#[test]
fn a_full_group_takes_nobody_but_its_own() {
    let (mut desk, ids) = Desk::stable(4);
    let token = desk.join(who(""));
    assert_eq!(desk.join_error(token), Some(ResponseError::GroupMaxSizeReached));
    let token = desk.join(who(&ids[1]));
    assert_eq!(desk.join_error(token), None);
}

#[test]
fn announced_ids_are_bounded() {
    let mut desk = Desk::new();
    for _ in 0..4 {
        let token = desk.join(Who { id_required: true, ..who("") });
        assert_eq!(desk.join_error(token), Some(ResponseError::MemberIdRequired));
    }
    let token = desk.join(Who { id_required: true, ..who("") });
    assert_eq!(desk.join_error(token), Some(ResponseError::GroupMaxSizeReached));
}

#[test]
fn only_the_leader_learns_who_is_in_the_group() {
    let mut desk = Desk::stable(1).0;
    let newcomer = desk.join(who(""));
    assert!(!desk.joins.contains_key(&newcomer), "it waits for the leader");
    assert_eq!(desk.beat("m1"), Err(ResponseError::RebalanceInProgress));
    let leader = desk.join(who("m1"));
    assert_eq!(desk.joins[&leader].members.len(), 2);
    assert_eq!(desk.joins[&newcomer].members.len(), 0);
    assert_eq!((desk.joins[&newcomer].leader.as_str(), desk.joins[&newcomer].generation), ("m1", 2));
}

#[test]
fn the_protocol_is_what_all_know_and_most_prefer() {
    let mut desk = Desk::new();
    desk.join(Who { protocols: vec![("range", "r1"), ("sticky", "s1")], ..who("") });
    let second = desk.join(Who { protocols: vec![("own", ""), ("sticky", "s2"), ("range", "r2")], ..who("") });
    let third = desk.join(Who { protocols: vec![("sticky", "s3"), ("range", "r3")], ..who("") });
    let first = desk.join(Who { protocols: vec![("range", "r1"), ("sticky", "s1")], ..who("m1") });
    for token in [first, second, third] {
        assert_eq!(desk.joins[&token].protocol.as_deref(), Some("sticky"));
    }
    let metadata: Vec<_> = desk.joins[&first].members.iter().map(|member| member.metadata.clone()).collect();
    assert_eq!(metadata, ["s1", "s2", "s3"]);
}

#[test]
fn a_stable_follower_that_comes_back_unchanged_gets_the_same_generation() {
    let (mut desk, ids) = Desk::stable(2);
    let generation = desk.group.generation();
    let token = desk.join(who(&ids[1]));
    assert_eq!((desk.joins[&token].generation, desk.group.state()), (generation, State::Stable));
}

#[test]
fn a_stable_leader_that_comes_back_rebalances_even_unchanged() {
    let (mut desk, ids) = Desk::stable(2);
    desk.join(who(&ids[0]));
    assert_eq!(desk.group.state(), State::PreparingRebalance);
}

#[test]
fn changed_metadata_rebalances() {
    let (mut desk, ids) = Desk::stable(2);
    desk.join(Who { protocols: vec![("range", "other")], ..who(&ids[1]) });
    assert_eq!(desk.group.state(), State::PreparingRebalance);
}

#[test]
fn whoever_missed_the_answer_of_a_join_gets_it_again() {
    let mut desk = Desk::stable(1).0;
    let newcomer = desk.join(who(""));
    desk.join(who("m1"));
    assert_eq!(desk.group.state(), State::CompletingRebalance);
    let id = desk.joins[&newcomer].member_id.clone();
    let again = desk.join(who(&id));
    assert_eq!(desk.joins[&again], desk.joins[&newcomer]);
    let again = desk.join(who("m1"));
    assert_eq!(desk.joins[&again].members.len(), 2, "the leader gets the members again");
}

#[test]
fn changed_metadata_while_completing_rebalances_and_frees_parked_syncs() {
    let mut desk = Desk::stable(1).0;
    let newcomer = desk.join(who(""));
    desk.join(who("m1"));
    let id = desk.joins[&newcomer].member_id.clone();
    let parked = desk.sync(&id, &[]);
    desk.join(Who { protocols: vec![("range", "other")], ..who("m1") });
    assert_eq!(desk.sync_error(parked), Some(ResponseError::RebalanceInProgress));
    assert_eq!(desk.group.state(), State::PreparingRebalance);
}

#[test]
fn a_repeated_join_answers_the_one_before() {
    let (mut desk, ids) = Desk::stable(2);
    let first = desk.join(who(&ids[0]));
    let second = desk.join(who(&ids[0]));
    assert_eq!(desk.join_error(first), Some(ResponseError::RebalanceInProgress));
    assert!(!desk.joins.contains_key(&second));
}

#[test]
fn an_empty_group_takes_another_protocol_type() {
    let (mut desk, ids) = Desk::stable(1);
    desk.leave(&ids[0]);
    assert_eq!(desk.group.state(), State::Empty);
    let token = desk.join(Who { kind: "connect", ..who("") });
    assert_eq!(desk.join_error(token), None);
    assert_eq!(desk.group.protocol_type(), Some("connect"));
}
