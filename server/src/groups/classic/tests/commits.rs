use super::*;

#[test]
fn who_may_commit() {
    use ResponseError::{IllegalGeneration, RebalanceInProgress, UnknownMemberId};
    let empty = || Desk::new().group;
    let emptied = || {
        let (mut desk, ids) = Desk::stable(1);
        desk.leave(&ids[0]);
        desk.group
    };
    let stable = || Desk::stable(1).0.group;
    let preparing = || {
        let (mut desk, _) = Desk::stable(1);
        desk.join(who(""));
        desk.group
    };
    let completing = || {
        let (mut desk, _) = Desk::stable(1);
        desk.join(who("m1"));
        desk.group
    };
    type Case = (&'static str, Group, &'static str, i32, Result<(), ResponseError>);
    let table: Vec<Case> = vec![
        ("outside, blank", empty(), "", -1, Ok(())),
        ("outside, empty", emptied(), "", -1, Ok(())),
        ("outside, stable", stable(), "", -1, Err(UnknownMemberId)),
        ("outside, preparing", preparing(), "", -1, Err(UnknownMemberId)),
        ("outside, completing", completing(), "", -1, Err(UnknownMemberId)),
        ("member without generation", stable(), "m1", -1, Err(IllegalGeneration)),
        ("member", stable(), "m1", 1, Ok(())),
        ("member, before it rejoins", preparing(), "m1", 1, Ok(())),
        ("member, completing", completing(), "m1", 2, Err(RebalanceInProgress)),
        ("member, old generation, completing", completing(), "m1", 1, Err(IllegalGeneration)),
        ("old generation", stable(), "m1", 0, Err(IllegalGeneration)),
        ("newer generation", stable(), "m1", 2, Err(IllegalGeneration)),
        ("stranger", stable(), "x", 1, Err(UnknownMemberId)),
        ("stranger, empty", emptied(), "m1", 1, Err(UnknownMemberId)),
        ("nobody with a generation", stable(), "", 1, Err(UnknownMemberId)),
    ];
    for (claim, mut group, member, generation, expected) in table {
        assert_eq!(group.may_commit(at(1), member, None, generation), expected, "{claim}");
    }
}
