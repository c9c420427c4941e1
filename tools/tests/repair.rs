//! What `--verify` finds and advises, and what `--repair` does about it.

mod support;

use engine::{
    batch::{BatchBuilder, Codec},
    segment::FileKind,
};
use std::fs;
use support::{Partition, batches, dumped, findings, locked, repair, thalwegs, verify, with_records};
use tools::dump::{Mode, Outcome, Request, run};

/// Batches of as many records as are given, at these offsets.
fn at(places: &[(i64, i64)]) -> Vec<Vec<u8>> {
    let batch = |(offset, count): &(i64, i64)| {
        (0..*count)
            .fold(BatchBuilder::new().at(*offset, 0), |batch, record| batch.record(1_000 + offset + record, Some(b"k"), Some(b"v")))
            .build()
    };
    places.iter().map(batch).collect()
}

#[test]
fn a_repair_puts_the_batch_right_that_is_wrong_and_not_the_one_before_it_behind_a_gap() {
    // The base offset of the third, 25, with a flipped bit: 9.
    let sound = at(&[(0, 5), (20, 5), (25, 3), (28, 3)]);
    let mut damaged = sound.concat();
    damaged[sound[0].len() + sound[1].len() + 7] ^= 16;
    let partition = Partition::new();
    let log = partition.file(0, FileKind::Log, &damaged);
    let (text, outcome) = dumped(&partition.directory(), &repair());
    assert_eq!(outcome, Outcome::Clean, "{text}");
    assert!(text.contains("base offset 9 does not fit between its neighbours: 25 would"), "{text}");
    assert_eq!(fs::read(&log).expect("readable"), sound.concat());
}

#[test]
fn where_nothing_tells_which_of_two_batches_is_wrong_a_repair_takes_out_neither() {
    let sound = at(&[(0, 5), (20, 5), (25, 3), (40, 3)]);
    let mut damaged = sound.concat();
    damaged[sound[0].len() + sound[1].len() + 7] ^= 16;
    let partition = Partition::new();
    let log = partition.file(0, FileKind::Log, &damaged);
    let (text, outcome) = dumped(&partition.directory(), &repair());
    assert_eq!(outcome, Outcome::Corrupt, "{text}");
    assert!(text.contains("one of the two is wrong, and nothing tells which"), "{text}");
    assert_eq!(fs::read(&log).expect("readable"), damaged);
}

#[test]
fn a_base_offset_below_zero_is_put_right_where_the_crc_says_that_the_batch_is_whole() {
    let sound = at(&[(0, 5), (5, 5), (10, 3)]);
    for number in 0..3 {
        let mut damaged = sound.concat();
        let position: usize = sound[..number].iter().map(Vec::len).sum();
        damaged[position] ^= 0x80;
        let partition = Partition::new();
        let log = partition.file(0, FileKind::Log, &damaged);
        dumped(&partition.directory(), &Request { mode: Mode::Summary, ..with_records() });
        let (text, outcome) = dumped(&partition.directory(), &repair());
        assert_eq!((outcome, fs::read(&log).expect("readable")), (Outcome::Clean, sound.concat()), "{number}: {text}");
    }
}

#[test]
fn a_batch_that_grows_beyond_what_is_looked_at_is_left_in_the_log() {
    let value = vec![0; 130 << 20];
    let large = BatchBuilder::new().at(0, 0).codec(Codec::Zstd).record(1, None, Some(&value)).build();
    let partition = Partition::new();
    let log = partition.file(0, FileKind::Log, &large);
    let (text, outcome) = dumped(&log, &Request { records: true, ..verify() });
    assert_eq!(outcome, Outcome::Clean, "{text}");
    assert!(text.starts_with("note: ") && text.contains("its records are not looked at"), "{text}");
    dumped(&log, &Request { records: true, ..repair() });
    assert_eq!(fs::read(&log).expect("readable"), large);
}

#[test]
fn an_index_of_another_segment_is_a_few_findings_and_not_one_for_each_entry() {
    let partition = Partition::new();
    partition.file(0, FileKind::Log, &batches(3, b"v"));
    let entries: Vec<u8> = (1..100_000u32).flat_map(|entry| [entry.to_be_bytes(), (entry * 3).to_be_bytes()].concat()).collect();
    partition.file(0, FileKind::Index, &entries);
    let (text, outcome) = dumped(&partition.directory(), &verify());
    assert_eq!(outcome, Outcome::Corrupt);
    assert!(text.lines().count() < 60 && text.contains("more entries are wrong, the last of them:"), "{text}");
    assert_eq!(dumped(&partition.directory(), &repair()).1, Outcome::Clean);
}

#[test]
fn a_symbolic_link_does_not_lead_around_the_lock_of_a_running_broker() {
    let partition = Partition::new();
    let mut bytes = batches(3, b"v");
    let end = bytes.len() - 1;
    bytes[end] ^= 1;
    let log = partition.file(0, FileKind::Log, &bytes);
    let elsewhere = tempfile::tempdir().expect("a directory");
    let link = elsewhere.path().join("orders-0");
    std::os::unix::fs::symlink(partition.directory(), &link).expect("linked");
    let mut holder = locked(partition.root.path());
    let mut out = Vec::new();
    let refused = run(&Request { paths: vec![link], ..repair() }, &mut out).err().map(|error| format!("{error:#}"));
    holder.kill().expect("ended");
    holder.wait().expect("ended");
    assert!(refused.as_deref().is_some_and(|said| said.contains("stop it first")), "{refused:?}");
    assert_eq!(fs::read(&log).expect("readable"), bytes);
}

#[test]
fn of_an_active_segment_that_the_journal_vouches_for_the_advice_is_what_works() {
    let sound = batches(3, b"v");
    let one = sound.len() / 3;
    let (mut no_batch, mut flipped, mut last, mut longer) = (sound.clone(), sound.clone(), sound.clone(), sound.clone());
    no_batch[one + 8] = 0xff;
    flipped[2 * one - 1] ^= 1;
    last[3 * one - 1] ^= 1;
    longer.extend([7; 100]);
    let cut = sound[..sound.len() - 3].to_vec();
    for (damaged, advice) in [
        (no_batch, "--accept-loss goes on with what lies before"),
        (cut, "--accept-loss goes on with what lies before"),
        (flipped, "once it has begun a later segment"),
        (last, "--accept-loss goes on with what lies before"),
        (longer, "start the broker: when it opens the partition it cuts off"),
    ] {
        let partition = Partition::new();
        let log = partition.file(0, FileKind::Log, &damaged);
        thalwegs(&partition, 0, sound.len(), true);
        let found = findings(&partition.directory());
        assert!(found.lines().count() == 1 && found.contains(advice) && found.contains(r#""repairable":false"#), "{advice}: {found}");
        let (text, _) = dumped(&partition.directory(), &repair());
        assert!(text.contains("is left as it is") && text.contains(advice), "{text}");
        assert_eq!(fs::read(&log).expect("readable"), damaged);
    }
}

#[test]
fn a_repair_that_would_be_refused_is_not_advised_without_what_must_come_first() {
    let mut damaged = batches(3, b"v");
    damaged[20] ^= 1;
    let last = BatchBuilder::new().at(3, 2).record(5_000, None, Some(b"v")).build();
    let partition = Partition::new();
    partition.file(0, FileKind::Log, &damaged);
    partition.file(3, FileKind::Log, &last);
    assert!(findings(&partition.directory()).contains(r#""repairable":true"#));
    let mut holder = locked(partition.root.path());
    let found = findings(&partition.directory());
    holder.kill().expect("ended");
    holder.wait().expect("ended");
    assert!(found.contains("; stop the broker first") && found.contains(r#""repairable":false"#), "{found}");

    thalwegs(&partition, 3, last.len(), false);
    let found = findings(&partition.directory());
    assert!(found.contains("first start the broker once") && found.contains(r#""repairable":false"#), "{found}");
    let refused = run(&Request { paths: vec![partition.directory()], ..repair() }, &mut Vec::new()).err().map(|error| format!("{error:#}"));
    assert!(refused.as_deref().is_some_and(|said| said.contains("was not stopped cleanly")), "{refused:?}");
    thalwegs(&partition, 3, last.len(), true);
    assert!(findings(&partition.directory()).contains(r#""repairable":true"#));
    assert_eq!(dumped(&partition.directory(), &repair()).1, Outcome::Clean);

    let snapshot = partition.file(4, FileKind::Snapshot, b"none");
    let found = findings(&snapshot);
    assert!(found.contains("name the partition's directory") && found.contains(r#""repairable":false"#), "{found}");
    assert_eq!(dumped(&partition.directory(), &repair()).1, Outcome::Clean);
}

#[test]
fn a_base_offset_that_no_index_can_hold_is_found_where_no_batch_follows() {
    let sound = batches(3, b"v");
    let mut damaged = sound.clone();
    damaged[2 * (sound.len() / 3)] ^= 0x40;
    let partition = Partition::new();
    let log = partition.file(0, FileKind::Log, &damaged);
    let (text, outcome) = dumped(&partition.directory(), &verify());
    assert!(outcome == Outcome::Corrupt && text.contains("is too far from the segment's: 2 would fit"), "{text}");
    let (text, outcome) = dumped(&partition.directory(), &repair());
    assert_eq!((outcome, fs::read(&log).expect("readable")), (Outcome::Clean, sound), "{text}");
}
