//! A killed broker's log, which ends in its journal; and copies that have none of their own.

mod support;

use engine::{batch::BatchBuilder, ids::PartitionId, journal::Line, segment::FileKind};
use std::fs;
use support::{Partition, batches, dumped, findings, journaled, repair, verify, with_records};
use tools::dump::{Mode, Outcome, Request, run};

/// Where a killed broker had got to: three blocks are in the segment, and the rest is in the journal. The fourth batch lies in both.
const IN_SEGMENT: usize = 3 * 4096;

/// Six batches of a killed broker's catalog, a log like any other whose owner needs no other to be known; and one batch's size.
fn killed() -> (Partition, Vec<u8>, usize) {
    let sound = batches(6, &[7; 3_050]);
    let one = sound.len() / 6;
    assert!(3 * one < IN_SEGMENT && IN_SEGMENT < 4 * one);
    let partition = Partition::named("__catalog-0");
    let (first, second) = (&sound[IN_SEGMENT..5 * one], &sound[5 * one..]);
    journaled(&partition, line(3 * one), &[(IN_SEGMENT as u32, first), (5 * one as u32, second)], false);
    (partition, sound, one)
}

fn line(batch_start: usize) -> Line {
    let (flushed, batch_start) = (IN_SEGMENT as u32, batch_start as u32);
    Line { partition: PartitionId::CATALOG, segment_base: 0, flushed, batch_start, index_end: 0, log_start: 0 }
}

/// What the segment of a killed broker holds, with the space behind it.
fn in_segment(bytes: &[u8]) -> Vec<u8> {
    let mut held = bytes[..IN_SEGMENT].to_vec();
    held.resize(1 << 16, 0);
    held
}

#[test]
fn of_a_killed_broker_damage_below_what_the_journal_vouches_for_is_told_and_what_follows_is_shown() {
    let (partition, sound, one) = killed();
    let log = partition.file(0, FileKind::Log, &in_segment(&sound));
    let (text, outcome) = dumped(&partition.directory(), &verify());
    assert!(outcome == Outcome::Clean && text.contains("6 batches"), "{text}");
    // The length, magic, and a byte of the payload: in a batch that is flushed, and in the one whose end is in the journal.
    for (batch, at) in [(1, 8), (1, 16), (1, 100), (3, 8), (3, 16), (3, 100)] {
        let position = batch * one;
        let mut damaged = in_segment(&sound);
        damaged[position + at] ^= 1;
        fs::write(&log, damaged).expect("written");
        let found = findings(&partition.directory());
        let is_told = found.lines().count() == 1
            && found.contains(&format!(r#""position":{position}"#))
            && found.contains(&format!(r#""offset":{batch}"#))
            && found.contains("--accept-loss")
            && found.contains(r#""repairable":false"#);
        assert!(is_told, "{batch}, {at}: {found}");
        for request in [with_records(), Request { mode: Mode::Summary, ..Request::default() }, verify()] {
            assert_eq!(dumped(&log, &request).1, Outcome::Corrupt, "{batch}, {at}");
        }
        let (text, _) = dumped(&log, &Request::default());
        assert_eq!(text.matches("isvalid: true").count(), 5, "{batch}, {at}: {text}");
        let refused = run(&Request { paths: vec![partition.directory()], ..repair() }, &mut Vec::new()).err();
        assert!(refused.is_some_and(|error| format!("{error:#}").contains("was not stopped cleanly")), "{batch}, {at}");
    }
}

#[test]
fn of_a_killed_broker_a_base_offset_is_compared_with_those_behind_it() {
    let (partition, sound, one) = killed();
    for batch in [1, 3] {
        let mut damaged = in_segment(&sound);
        damaged[batch * one] ^= 0x40;
        partition.file(0, FileKind::Log, &damaged);
        let (text, outcome) = dumped(&partition.directory(), &verify());
        let expected = format!("position {} offset {}: base offset", batch * one, (1i64 << 62) + batch as i64);
        assert!(outcome == Outcome::Corrupt && text.contains(&expected) && text.contains(&format!(": {batch} would")), "{text}");
    }
}

#[test]
fn of_a_killed_broker_a_batch_whose_rest_never_came_is_no_damage() {
    let (partition, sound, one) = killed();
    // A run ended within the fourth batch, and its entry is empty.
    journaled(&partition, line(3 * one), &[(IN_SEGMENT as u32, &[][..])], false);
    let log = partition.file(0, FileKind::Log, &in_segment(&sound));
    let (text, outcome) = dumped(&partition.directory(), &verify());
    assert!(outcome == Outcome::Clean && text.contains("3 batches"), "{text}");
    assert_eq!(dumped(&log, &Request::default()).1, Outcome::Clean);
    // One that was not appended there is: its offset is not the next one.
    let mut other = in_segment(&sound);
    other[3 * one + 7] ^= 1;
    fs::write(&log, other).expect("written");
    assert!(findings(&partition.directory()).contains(&format!(r#""position":{}"#, 3 * one)));
    // That it ends before a batch that was flushed is.
    fs::write(&log, &sound[..2 * one]).expect("written");
    assert!(findings(&partition.directory()).contains(&format!(r#""position":{}"#, 2 * one)));
}

#[test]
fn of_a_copy_without_its_journal_damage_is_what_a_batch_follows() {
    let sound = batches(6, &[7; 3_050]);
    let one = sound.len() / 6;
    let partition = Partition::new();
    fs::write(partition.directory().join("thalweg.partition"), "version: 0\npartition: 7\n").expect("written");
    let log = partition.file(0, FileKind::Log, &in_segment(&sound));
    let (text, outcome) = dumped(&partition.directory(), &verify());
    assert!(outcome == Outcome::Clean && text.starts_with("note: ") && text.contains("in a journal that is not here"), "{text}");
    for at in [8, 16, 100] {
        let mut damaged = in_segment(&sound);
        damaged[one + at] ^= 1;
        fs::write(&log, damaged).expect("written");
        let (text, outcome) = dumped(&partition.directory(), &verify());
        let is_told = text.contains(&format!("position {one} offset 1: ")) && text.contains("thalweg.partition");
        assert!(outcome == Outcome::Corrupt && is_told, "{at}: {text}");
        assert_eq!(dumped(&log, &Request::default()).1, Outcome::Corrupt, "{at}");
    }
}

#[test]
fn a_copy_whose_settings_name_the_journal_of_the_first_is_told_so_and_gets_nothing_of_it() {
    let (partition, sound, _) = killed();
    let log = partition.file(0, FileKind::Log, &in_segment(&sound));
    fs::write(partition.root.path().join(".lock"), "").expect("written");
    let journal = partition.root.path().join("journal");
    let copy = Partition::named("__catalog-0");
    copy.file(0, FileKind::Log, &fs::read(&log).expect("readable"));
    fs::copy(partition.directory().join("thalweg.partition"), copy.directory().join("thalweg.partition")).expect("copied");
    fs::write(copy.root.path().join("thalweg.settings"), format!("journal_dir = \"{}\"\n", journal.display())).expect("written");
    let (text, outcome) = dumped(&copy.directory(), &verify());
    assert!(outcome == Outcome::Clean && text.contains("3 batches") && text.contains("is the journal of"), "{text}");
    let (text, _) = dumped(&copy.directory(), &Request::default());
    assert!(text.matches("isvalid: true").count() == 3 && text.contains("is the journal of"), "{text}");
    let (text, outcome) = dumped(&partition.directory(), &verify());
    assert!(outcome == Outcome::Clean && text.contains("6 batches"), "{text}");
}

#[test]
fn of_a_copy_without_its_journal_no_repair_and_no_start_is_advised_that_would_be_refused() {
    let (first, _, _) = killed();
    let journal = first.root.path().join("journal");
    let mut damaged = batches(3, b"v");
    damaged[20] ^= 1;
    let last = BatchBuilder::new().at(3, 2).record(5_000, None, Some(b"v")).build();
    // With the settings of the first, and with no journal at all.
    for settings in [format!("journal_dir = \"{}\"\n", journal.display()), String::new()] {
        let copy = Partition::named("__catalog-0");
        let log = copy.file(0, FileKind::Log, &damaged);
        copy.file(3, FileKind::Log, &last);
        let mark = copy.directory().join("thalweg.partition");
        fs::copy(first.directory().join("thalweg.partition"), &mark).expect("copied");
        fs::write(copy.root.path().join("thalweg.settings"), settings).expect("written");
        let (text, outcome) = dumped(&copy.directory(), &repair());
        let is_told = text.contains("position 0 offset 0: ") && text.contains("without thalweg.partition");
        assert!(outcome == Outcome::Corrupt && is_told && !text.contains("start the broker"), "{text}");
        assert_eq!(fs::read(&log).expect("readable"), damaged);
        fs::remove_file(&mark).expect("removed");
        let (text, outcome) = dumped(&copy.directory(), &repair());
        assert_eq!(outcome, Outcome::Clean, "{text}");
    }
}
