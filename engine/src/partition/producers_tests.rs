//! Claims about producer state.

// What proptest's macros make holds an `Arc`; nothing here is on a data path.
#![allow(clippy::disallowed_types)]

use super::*;
use crate::batch::{BatchBuilder, control_batch};
use proptest::prelude::*;

fn batch(producer: i64, epoch: i16, sequence: i32, count: usize, offset: i64) -> Header {
    let mut builder = BatchBuilder::new().at(offset, 0).producer(producer, epoch, sequence);
    (0..count).for_each(|_| builder.push(1_000 + offset, None, Some(b"v"), &[]));
    Header::read(&builder.build()).expect("whole")
}

/// Appends if the check allows it, at the log end.
fn append(
    producers: &mut Producers,
    log_end: &mut i64,
    producer: i64,
    epoch: i16,
    sequence: i32,
    count: usize,
) -> Result<Verdict, SequenceError> {
    let header = batch(producer, epoch, sequence, count, *log_end);
    let verdict = producers.check(&header)?;
    if verdict == Verdict::Append {
        producers.appended(&header, *log_end);
        *log_end += count as i64;
    }
    Ok(verdict)
}

fn out_of_order(got: i32, expected: i32) -> Result<Verdict, SequenceError> {
    Err(SequenceError::OutOfOrder { producer: 7, got, expected })
}

#[test]
fn the_last_five_batches_are_known_again() {
    let (mut producers, mut end) = (Producers::new(10), 0);
    for sequence in (0..12).step_by(2) {
        assert_eq!(append(&mut producers, &mut end, 7, 0, sequence, 2), Ok(Verdict::Append));
    }
    for sequence in (2..12).step_by(2) {
        let base_offset = i64::from(sequence);
        let known = Verdict::Duplicate { base_offset, last_offset: base_offset + 1, timestamp: 1_000 + base_offset };
        assert_eq!(append(&mut producers, &mut end, 7, 0, sequence, 2), Ok(known));
    }
    assert_eq!(append(&mut producers, &mut end, 7, 0, 0, 2), out_of_order(0, 12));
    assert_eq!(append(&mut producers, &mut end, 7, 0, 10, 1), out_of_order(10, 12));
    assert_eq!(end, 12);
}

#[test]
fn gaps_and_old_epochs_are_refused_and_new_epochs_begin_at_zero() {
    let (mut producers, mut end) = (Producers::new(10), 0);
    assert_eq!(append(&mut producers, &mut end, 7, 3, 500, 1), Ok(Verdict::Append), "an unknown producer begins anywhere");
    assert_eq!(append(&mut producers, &mut end, 7, 3, 502, 1), out_of_order(502, 501));
    assert_eq!(append(&mut producers, &mut end, 7, 2, 501, 1), Err(SequenceError::Epoch { producer: 7, got: 2, current: 3 }));
    assert_eq!(append(&mut producers, &mut end, 7, 4, 501, 1), out_of_order(501, 0));
    assert_eq!(append(&mut producers, &mut end, 7, 4, 0, 1), Ok(Verdict::Append));
    assert_eq!(append(&mut producers, &mut end, 7, 4, 500, 1), out_of_order(500, 1), "batches of the old epoch are forgotten");
    assert_eq!(append(&mut producers, &mut end, -1, -1, -1, 1), Ok(Verdict::Append));
}

#[test]
fn sequences_go_on_at_zero_after_the_highest() {
    let (mut producers, mut end) = (Producers::new(10), 0);
    assert_eq!(append(&mut producers, &mut end, 7, 0, i32::MAX - 1, 4), Ok(Verdict::Append));
    let known = Verdict::Duplicate { base_offset: 0, last_offset: 3, timestamp: 1_000 };
    assert_eq!(append(&mut producers, &mut end, 7, 0, i32::MAX - 1, 4), Ok(known));
    assert_eq!(append(&mut producers, &mut end, 7, 0, 2, 1), Ok(Verdict::Append));
}

#[test]
fn a_retry_of_a_discarded_batch_is_appended_again() {
    let (mut producers, mut end) = (Producers::new(10), 0);
    append(&mut producers, &mut end, 7, 0, 0, 1).expect("first");
    producers.durable_to(1);
    append(&mut producers, &mut end, 7, 0, 1, 1).expect("second");
    append(&mut producers, &mut end, 8, 0, 0, 1).expect("another");
    producers.discard();
    assert_eq!(producers.len(), 1);
    end = 1;
    assert_eq!(append(&mut producers, &mut end, 7, 0, 1, 1), Ok(Verdict::Append));
    assert_eq!(append(&mut producers, &mut end, 8, 0, 0, 1), Ok(Verdict::Append));
}

#[test]
fn a_checkpoint_holds_nothing_that_is_not_durable() {
    let (mut producers, mut end) = (Producers::new(10), 0);
    for sequence in 0..3 {
        append(&mut producers, &mut end, 7, 0, sequence, 1).expect("in order");
    }
    assert_eq!(producers.for_checkpoint(0, 0, 0), []);
    producers.durable_to(2);
    assert_eq!(producers.for_checkpoint(0, 0, 0)[0].batches.len(), 2);
    assert_eq!(producers.for_checkpoint(0, 3, 0)[0].batches.len(), 3, "the flushed end is later");
    assert_eq!(producers.snapshot()[0].batches.len(), 3);
}

#[test]
fn a_checkpoint_goes_on_carrying_what_a_snapshot_has_no_room_for() {
    let (mut producers, mut end) = (Producers::new(10), 0);
    append(&mut producers, &mut end, 7, 0, 0, 1).expect("first");
    append(&mut producers, &mut end, 7, 0, 1, 1).expect("second");
    append(&mut producers, &mut end, 8, 0, 0, 1).expect("alone");
    producers.durable_to(end);
    let ids = |states: Vec<ProducerState>| states.into_iter().map(|state| state.producer_id).collect::<Vec<_>>();
    assert_eq!(ids(producers.for_checkpoint(0, end, 0)), [7, 8]);
    assert_eq!(ids(producers.for_checkpoint(end, end, CARRY_MS)), [7]);
    assert_eq!(ids(producers.for_checkpoint(end, end, CARRY_MS + 1)), [0i64; 0]);
}

#[test]
fn the_idle_make_room_and_those_in_flight_stay() {
    let (mut producers, mut end) = (Producers::new(4), 0);
    for producer in 0..4 {
        append(&mut producers, &mut end, producer, 0, 0, 1).expect("first");
    }
    producers.durable_to(3);
    append(&mut producers, &mut end, 9, 0, 0, 1).expect("first");
    assert_eq!(producers.len(), 4);
    assert_eq!(append(&mut producers, &mut end, 0, 0, 77, 1), Ok(Verdict::Append), "the oldest was forgotten");
    assert_eq!(producers.expire(1_000_000, 10), 1, "all but 2 are in flight");
    producers.durable_to(end);
    assert_eq!(producers.expire(1_000_000, 10), 3);
    assert!(producers.is_empty());
}

#[test]
fn transactions_hold_the_last_stable_offset_until_their_marker() {
    let mut producers = Producers::new(10);
    let data = BatchBuilder::new().at(5, 0).producer(7, 0, 0).transactional().record(1, None, None).build();
    assert_eq!(producers.replay(&Header::read(&data).expect("whole"), None, 0), None);
    assert_eq!(producers.first_unstable(), Some(5));
    assert_eq!(producers.expire(i64::MAX, 1), 0);
    let imported = {
        let mut imported = Producers::new(10);
        producers.snapshot().iter().for_each(|state| imported.import(state, 0));
        imported
    };
    for mut producers in [producers, imported] {
        let marker = control_batch(6, 0, (7, 1), false, 2);
        let header = Header::read(&marker).expect("whole");
        let aborted = producers.replay(&header, ControlRecord::of_batch(&header, &marker), 0);
        assert_eq!(aborted, Some(AbortedTxn { producer_id: 7, first_offset: 5, last_offset: 6, last_stable_offset: 7 }));
        assert_eq!(producers.first_unstable(), None);
        assert_eq!(producers.check(&batch(7, 1, 0, 1, 7)), Ok(Verdict::Append), "the marker raised the epoch");
        assert!(producers.check(&batch(7, 1, 1, 1, 7)).is_err());
    }
}

#[derive(Clone, Debug)]
enum Op {
    Append { producer: i64, bump: bool, count: usize },
    Durable(u8),
    Discard,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0i64..4, prop::bool::weighted(0.1), 1usize..4).prop_map(|(producer, bump, count)| Op::Append { producer, bump, count }),
        3 => any::<u8>().prop_map(Op::Durable),
        1 => Just(Op::Discard),
    ]
}

proptest! {
    /// Whatever happens, each view is what a replay of the batches below its end gives.
    #[test]
    fn each_view_is_what_a_replay_up_to_its_end_gives(ops in prop::collection::vec(op(), 1..80), flushed in 0i64..100) {
        let replayed = |log: &[Header], end: i64| {
            let mut fresh = Producers::new(100);
            log.iter().filter(|header| header.last_offset() < end).for_each(|header| { fresh.replay(header, None, header.base_offset()); });
            fresh.snapshot()
        };
        let mut producers = Producers::new(100);
        let mut log: Vec<Header> = Vec::new();
        let mut durable = 0;
        for op in ops {
            let end = log.last().map_or(0, Header::next_offset);
            match op {
                Op::Append { producer, bump, count } => {
                    let last = log.iter().rev().find(|header| header.producer_id() == producer);
                    let (epoch, sequence) = match last {
                        Some(last) if bump => (last.producer_epoch() + 1, 0),
                        Some(last) => (last.producer_epoch(), last.last_sequence() + 1),
                        None => (0, 0),
                    };
                    let header = batch(producer, epoch, sequence, count, end);
                    prop_assert_eq!(producers.check(&header), Ok(Verdict::Append));
                    producers.appended(&header, end);
                    let retried = matches!(producers.check(&header), Ok(Verdict::Duplicate { base_offset, .. }) if base_offset == end);
 prop_assert!(retried);
                    log.push(header);
                }
                Op::Durable(part) => {
                    let ends: Vec<i64> = log.iter().map(Header::next_offset).filter(|end| *end > durable).collect();
                    if let Some(end) = ends.get(usize::from(part) % ends.len().max(1)) {
                        durable = *end;
                        producers.durable_to(durable);
                    }
                }
                Op::Discard => {
                    log.retain(|header| header.last_offset() < durable);
                    producers.discard();
                }
            }
            prop_assert_eq!(producers.snapshot(), replayed(&log, i64::MAX));
            prop_assert_eq!(producers.for_checkpoint(0, 0, 0), replayed(&log, durable));
            prop_assert_eq!(producers.for_checkpoint(0, flushed, 0), replayed(&log, durable.max(flushed)));
        }
    }
}
