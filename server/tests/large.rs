//! Large batches, which are received into memory that becomes the log's: what is read is what was sent, whatever comes
//! between their first byte and their last.
#![allow(missing_docs, clippy::disallowed_types)]

mod support;

use std::io::Write;
use support::*;

/// The value of the record at an offset: of a size that ends anywhere in a block.
fn value(offset: usize) -> Vec<u8> {
    let bytes = if offset.is_multiple_of(3) { 100 + offset } else { 300_000 + offset * 7_919 % 600_000 };
    (0..bytes).map(|at| (at * 31 + offset) as u8).collect()
}

fn read_all(client: &mut Client, topic: &str, end: i64) -> Vec<u8> {
    let (mut offset, mut bytes) = (0, Vec::new());
    while offset < end {
        let what = Fetch { offset, partition_max_bytes: 1 << 20, ..Fetch::default() };
        let (_, error, _, records) = fetched(&client.call(FETCH, 11, &fetch(topic, &[0], what))).remove(0);
        assert_eq!(error, 0);
        let mut rest = &records[..];
        while !rest.is_empty() {
            assert_eq!(i64::from_be_bytes(rest[..8].try_into().unwrap()), offset, "offsets go on");
            let size = 12 + i32::from_be_bytes(rest[8..12].try_into().unwrap()) as usize;
            bytes.extend_from_slice(&rest[12 + 4..size]);
            rest = &rest[size..];
            offset += 1;
        }
    }
    bytes
}

#[test]
fn large_batches_are_read_as_sent_whatever_is_appended_meanwhile() {
    let mut broker = Broker::start(1);
    let (mut large, mut small) = (broker.connect(), broker.connect());
    large.topic("large");
    let mut sent = Vec::new();
    let mut offset = 0;
    let mut keep = |batch: &[u8], base: i64, offset: &mut usize| {
        assert_eq!(base, *offset as i64);
        sent.extend_from_slice(&batch[16..]);
        *offset += 1;
    };
    for round in 0..40 {
        let bytes = batch(&value(offset));
        let request = frame(PRODUCE, 7, round, &produce("large", 0, -1, &bytes));
        if round % 4 == 3 && bytes.len() > 300_000 {
            // Its end has moved when its last byte comes: it can't be where it was received for.
            let (front, back) = request.split_at(request.len() - 1000);
            large.stream.write_all(front).unwrap();
            let between = batch(&value(0));
            let answer = small.call(PRODUCE, 7, &produce("large", 0, -1, &between));
            keep(&between, produced(&answer).1, &mut offset);
            large.stream.write_all(back).unwrap();
        } else {
            large.stream.write_all(&request).unwrap();
        }
        let answer = large.receive().unwrap();
        assert_eq!(produced(&answer).0, 0);
        keep(&bytes, produced(&answer).1, &mut offset);
    }
    // A batch that is refused leaves nothing behind.
    let mut broken = batch(&value(1));
    *broken.last_mut().unwrap() ^= 1;
    assert_eq!(produced(&large.call(PRODUCE, 7, &produce("large", 0, -1, &broken))).0, 2, "CORRUPT_MESSAGE");
    assert!(read_all(&mut small, "large", offset as i64) == sent, "before a kill");
    broker.signal(libc::SIGKILL);
    broker.child.wait().unwrap();
    let data = std::mem::replace(&mut broker.data, data_dir());
    let broker = Broker::start_in(data, &["--cores", "1", "--listen", "127.0.0.1:0", "--log-level", "warn"]);
    assert!(read_all(&mut broker.connect(), "large", offset as i64) == sent, "after a kill");
}

#[test]
fn a_client_that_ends_within_a_large_batch_leaves_nothing_behind() {
    let broker = Broker::start(1);
    let mut client = broker.connect();
    client.topic("cut");
    let request = frame(PRODUCE, 7, 1, &produce("cut", 0, -1, &batch(&vec![1; 800_000])));
    for end in [20_000, 400_000, request.len() - 1] {
        let mut gone = broker.connect();
        gone.stream.write_all(&request[..end]).unwrap();
    }
    assert_eq!(produced(&client.call(PRODUCE, 7, &produce("cut", 0, -1, &batch(b"first")))), (0, 0));
}
