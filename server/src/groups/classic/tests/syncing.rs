use super::*;

#[test]
fn everybody_waits_for_the_leader_and_gets_its_word() {
    let (mut desk, ids) = Desk::stable(3);
    for id in &ids {
        desk.join(Who { protocols: vec![("range", "new")], ..who(id) });
    }
    let follower = desk.sync(&ids[1], &[]);
    assert!(!desk.syncs.contains_key(&follower));
    let leader = desk.sync(&ids[0], &[(&ids[0], "a"), (&ids[1], "b"), ("stranger", "z")]);
    assert_eq!((desk.syncs[&leader].assignment.as_ref(), desk.syncs[&follower].assignment.as_ref()), (&b"a"[..], &b"b"[..]));
    let late = desk.sync(&ids[2], &[]);
    assert_eq!((desk.sync_error(late), desk.syncs[&late].assignment.len()), (None, 0), "not named: nothing");
    assert_eq!(desk.syncs[&late].protocol.as_deref(), Some("range"));
}

#[test]
fn what_a_follower_says_of_assignments_is_ignored() {
    let mut desk = Desk::stable(1).0;
    let newcomer = desk.join(who(""));
    desk.join(who("m1"));
    let id = desk.joins[&newcomer].member_id.clone();
    desk.sync(&id, &[("m1", "evil")]);
    assert_eq!(desk.group.state(), State::CompletingRebalance);
    let leader = desk.sync("m1", &[("m1", "good")]);
    assert_eq!(desk.syncs[&leader].assignment.as_ref(), b"good");
}

#[test]
fn the_assignment_is_written_down_before_anybody_is_told() {
    let (desk, _) = Desk::stable(2);
    let persist = desk.log.iter().rposition(|effect| *effect == Effect::Persist).unwrap();
    let generation = desk.group.generation();
    let told = desk.log.iter().enumerate().filter(|(_, effect)| matches!(effect, Effect::Sync(_, answer) if answer.error.is_none()));
    // The last generation's two syncs stand behind its persist (the first generation had one, behind its own).
    assert_eq!((generation, told.filter(|(at, _)| *at > persist).count()), (2, 2));
}

#[test]
fn syncs_that_do_not_belong_are_told_why() {
    let request = |id: &str, generation| SyncRequest { member_id: id.into(), generation, ..SyncRequest::default() };
    let named = |kind: Option<&str>, name: Option<&str>| SyncRequest {
        protocol_type: kind.map(str::to_owned),
        protocol: name.map(str::to_owned),
        ..request("m1", 2)
    };
    let table = [
        (request("stranger", 2), Some(ResponseError::UnknownMemberId)),
        (request("m1", 1), Some(ResponseError::IllegalGeneration)),
        (request("m1", 3), Some(ResponseError::IllegalGeneration)),
        (named(Some("connect"), None), Some(ResponseError::InconsistentGroupProtocol)),
        (named(None, Some("sticky")), Some(ResponseError::InconsistentGroupProtocol)),
        (named(Some("consumer"), Some("range")), None),
        (SyncRequest { instance: Some("i".into()), ..request("m1", 2) }, Some(ResponseError::UnknownMemberId)),
    ];
    for (request, error) in table {
        let (mut desk, _) = Desk::stable(2);
        let claim = format!("{request:?}");
        let token = desk.sync_as(request);
        assert_eq!(desk.sync_error(token), error, "{claim}");
    }
}

#[test]
fn a_sync_during_the_join_phase_is_told_to_join() {
    let (mut desk, ids) = Desk::stable(2);
    desk.join(who(""));
    let token = desk.sync(&ids[0], &[]);
    assert_eq!(desk.sync_error(token), Some(ResponseError::RebalanceInProgress));
}

#[test]
fn a_repeated_sync_answers_the_one_before() {
    let mut desk = Desk::stable(1).0;
    let newcomer = desk.join(who(""));
    desk.join(who("m1"));
    let id = desk.joins[&newcomer].member_id.clone();
    let first = desk.sync(&id, &[]);
    let second = desk.sync(&id, &[]);
    assert_eq!(desk.sync_error(first), Some(ResponseError::RebalanceInProgress));
    desk.sync("m1", &[(&id, "b")]);
    assert_eq!(desk.syncs[&second].assignment.as_ref(), b"b");
}

#[test]
fn heartbeats_say_what_the_group_does() {
    let (mut desk, ids) = Desk::stable(2);
    assert_eq!(desk.beat(&ids[0]), Ok(()));
    assert_eq!(desk.group.heartbeat(desk.now(), &ids[0], None, 1), Err(ResponseError::IllegalGeneration));
    assert_eq!(desk.group.heartbeat(desk.now(), "stranger", None, 2), Err(ResponseError::UnknownMemberId));
    desk.join(who(&ids[0]));
    assert_eq!(desk.beat(&ids[1]), Err(ResponseError::RebalanceInProgress));
    desk.join(who(&ids[1]));
    assert_eq!(desk.beat(&ids[1]), Ok(()), "while completing, a heartbeat is just a sign of life");
}

#[test]
fn an_assignment_that_cannot_be_persisted_is_void() {
    let (mut desk, ids) = Desk::stable(2);
    desk.group.persist_failed(desk.now());
    desk.settle();
    assert_eq!(desk.group.state(), State::PreparingRebalance);
    for id in &ids {
        desk.join(who(id));
    }
    assert_eq!((desk.group.state(), desk.group.generation()), (State::CompletingRebalance, 3));
}
