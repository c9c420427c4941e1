//! The traps of the protocol, byte by byte, against a running broker.
#![allow(missing_docs, clippy::disallowed_types)]

mod support;

use support::*;

#[test]
fn a_too_new_api_versions_gets_the_exact_answer_of_version_0() {
    let broker = Broker::start(1);
    let mut client = broker.connect();
    for version in [5, 6, 99, i16::MAX] {
        let body = Body::new().compact_string("java").compact_string("4.4.0").i8(0).0;
        let answer = client.call(API_VERSIONS, version, &body);
        assert_eq!(answer[4..], [0x00, 0x23, 0, 0, 0, 1, 0x00, 0x12, 0, 0, 0, 4], "version {version}");
    }
    assert_eq!(client.call(API_VERSIONS, 0, &[])[4..6], [0, 0], "and the connection goes on");
}

#[test]
fn api_versions_has_no_tagged_field_and_a_plain_header() {
    let broker = Broker::start(1);
    let mut client = broker.connect();
    let apis = server::api::APIS.len();
    for version in [3, 4] {
        let answer = client.call(API_VERSIONS, version, &Body::new().compact_string("kcat").compact_string("1.7").i8(0).0);
        // Header v0, error, compact array of (key, min, max, no tags), throttle time, no tags.
        assert_eq!(answer.len(), 4 + 2 + 1 + 7 * apis + 4 + 1, "version {version}");
        assert_eq!(answer[4..7], [0, 0, apis as u8 + 1]);
        assert_eq!(answer[answer.len() - 5..], [0; 5]);
        assert_eq!(answer[7..14], [0, 0, 0, 0, 0, 13, 0], "Produce from 0: librdkafka before 2.11 needs it for compression");
    }
    let answer = client.call(API_VERSIONS, 3, &Body::new().compact_string("k c a t").compact_string("1").i8(0).0);
    assert_eq!(answer[4..6], [0, 42], "a client's name that KIP-511 does not allow");
}

#[test]
fn a_default_is_never_sent_as_a_tagged_field() {
    let broker = Broker::start(1);
    let mut client = broker.connect();
    client.topic("t");
    let record = batch(b"v");
    let body = Body::new().varint(0).i16(-1).i32(1000).varint(2).compact_string("t").varint(2).i32(0);
    let body = body.varint(record.len() as u32 + 1).raw(&record).i8(0).i8(0).i8(0).0;
    for (count, version) in [9, 10, 11, 12].into_iter().enumerate() {
        let answer = client.call(PRODUCE, version, &body);
        let expected = Body::new().i8(0).varint(2).compact_string("t").varint(2).i32(0).i16(0).i64(count as i64).i64(-1).i64(0);
        // No record errors, no message, no tags of partition, topic and answer, and no throttle time between them.
        assert_eq!(answer[4..], expected.varint(1).varint(0).i8(0).i8(0).i32(0).i8(0).0, "Produce v{version}");
    }
    for version in [12, 15, 16, 17] {
        let mut body = Body::new();
        if version <= 14 {
            body = body.i32(-1);
        }
        body = body.i32(0).i32(1).i32(1 << 20).i8(1).i32(0).i32(-1).varint(if version >= 13 { 1 } else { 2 });
        if version < 13 {
            body = body.compact_string("t").varint(2).i32(0).i32(-1).i64(4).i32(-1).i64(-1).i32(1 << 20).i8(0).i8(0);
        }
        let answer = client.call(FETCH, version, &body.varint(1).compact_string("").i8(0).0);
        let mut expected = Body::new().i8(0).i32(0).i16(0).i32(0);
        expected = match version {
            12 => {
                let topic = expected.varint(2).compact_string("t").varint(2).i32(0).i16(0).i64(4).i64(4).i64(0);
                // No aborted transactions (asked for), no preferred replica, no records: empty ones, not null.
                topic.varint(1).i32(-1).varint(1).i8(0).i8(0).i8(0)
            }
            _ => expected.varint(1).i8(0),
        };
        assert_eq!(answer[4..], expected.0, "Fetch v{version}");
    }
}

#[test]
fn the_first_batch_goes_out_however_large() {
    let broker = Broker::start(1);
    let mut client = broker.connect();
    client.topic("large");
    let large = batch(&vec![7; 300_000]);
    for offset in 0..2 {
        assert_eq!(produced(&client.call(PRODUCE, 7, &produce("large", 0, -1, &large))), (0, offset));
    }
    let bounds = Fetch { max_bytes: 1, partition_max_bytes: 1, ..Fetch::default() };
    let answer = fetched(&client.call(FETCH, 11, &fetch("large", &[0], bounds)));
    assert_eq!((answer[0].1, answer[0].2, answer[0].3.len()), (0, 2, large.len()), "one whole batch");
    let next = fetched(&client.call(FETCH, 11, &fetch("large", &[0], Fetch { offset: 1, ..bounds })));
    assert_eq!(next[0].3[..8], 1i64.to_be_bytes(), "the batch that holds the offset");
}

#[test]
fn acks_0_has_no_answer_and_a_failure_closes_the_connection() {
    let broker = Broker::start(1);
    let mut client = broker.connect();
    client.topic("silent");
    for _ in 0..3 {
        client.send(PRODUCE, 7, &produce("silent", 0, 0, &batch(b"v")));
    }
    client.call(API_VERSIONS, 0, &[]);
    let wait = Fetch { offset: 2, max_wait_ms: 30_000, ..Fetch::default() };
    assert_eq!(fetched(&client.call(FETCH, 11, &fetch("silent", &[0], wait)))[0].3[..8], 2i64.to_be_bytes(), "all three arrived");
    let mut corrupt = batch(b"v");
    *corrupt.last_mut().unwrap() ^= 1;
    client.send(PRODUCE, 7, &produce("silent", 0, 0, &corrupt));
    assert_eq!(client.receive(), None);
}

#[test]
fn bad_batches_get_kafkas_errors() {
    let broker = Broker::start(1);
    let mut client = broker.connect();
    client.topic("t");
    let good = batch(b"value");
    let damaged = |at: usize, value: u8| {
        let mut batch = good.clone();
        batch[at] = value;
        batch
    };
    let twice = [good.clone(), good.clone()].concat();
    let cases: [(&str, Vec<u8>, &[i16]); 6] = [
        ("a wrong checksum", damaged(good.len() - 1, 0xff), &[2]),
        ("format 1", damaged(16, 1), &[43, 87, 2]),
        ("a length beyond the end", damaged(9, 0x7f), &[2, 10]),
        ("nothing", Vec::new(), &[87, 2]),
        ("less than a header", good[..40].to_vec(), &[2]),
        ("two batches", twice, &[87]),
    ];
    for (what, batch, errors) in cases {
        let (error, _) = produced(&client.call(PRODUCE, 7, &produce("t", 0, -1, &batch)));
        assert!(errors.contains(&error), "{what}: {error}");
    }
    assert_eq!(produced(&client.call(PRODUCE, 7, &produce("t", 0, 7, &good))).0, 21, "acks 7");
    assert_eq!(produced(&client.call(PRODUCE, 7, &produce("t", 9, -1, &good))).0, 3, "partition 9");
    assert_eq!(produced(&client.call(PRODUCE, 7, &produce("unknown", 0, -1, &good))).0, 3, "unknown topic");
    assert_eq!(produced(&client.call(PRODUCE, 7, &produce("t", 0, -1, &good))), (0, 0), "and a good one is the first");
}

#[test]
fn answers_come_in_order_however_many_requests_are_on_their_way() {
    let broker = Broker::start(1);
    let mut client = broker.connect();
    client.topic("piped");
    let sent: Vec<(i32, bool)> = (0..300)
        .map(|count| match count % 3 {
            0 => (client.send(API_VERSIONS, 0, &[]), false),
            _ => (client.send(PRODUCE, 7, &produce("piped", 0, -1, &batch(&[count as u8; 900]))), true),
        })
        .collect();
    let mut offset = 0;
    for (correlation_id, is_produce) in sent {
        let answer = client.receive().unwrap();
        assert_eq!(answer[..4], correlation_id.to_be_bytes());
        if is_produce {
            assert_eq!(produced(&answer), (0, offset), "appends in the order of the requests");
            offset += 1;
        }
    }
}

#[test]
fn what_is_not_served_closes_the_connection_and_nothing_else() {
    let broker = Broker::start(1);
    let mut other = broker.connect();
    for (key, version) in [(PRODUCE, 2), (PRODUCE, 14), (FETCH, 3), (77, 0), (-1, 0), (4, 0), (METADATA, 14), (METADATA, -1)] {
        let mut client = broker.connect();
        client.send(key, version, &[0; 64]);
        assert_eq!(client.receive(), None, "API {key} version {version}");
        other.call(API_VERSIONS, 0, &[]);
    }
}

#[test]
fn a_parked_fetch_gets_what_comes_and_answers_empty_when_nothing_does() {
    let broker = Broker::start(1);
    let (mut consumer, mut producer) = (broker.connect(), broker.connect());
    consumer.topic("parked");
    let empty = fetched(&consumer.call(FETCH, 11, &fetch("parked", &[0], Fetch { max_wait_ms: 50, ..Fetch::default() })));
    assert_eq!((empty[0].1, empty[0].3.len()), (0, 0));
    for offset in 0..20 {
        consumer.send(FETCH, 11, &fetch("parked", &[0], Fetch { offset, max_wait_ms: 50_000, ..Fetch::default() }));
        if offset % 2 == 0 {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert_eq!(produced(&producer.call(PRODUCE, 7, &produce("parked", 0, -1, &batch(b"v")))), (0, offset));
        let answer = fetched(&consumer.receive().expect("answered"));
        assert_eq!(answer[0].3[..8], offset.to_be_bytes(), "what was produced while it waited");
    }
}

#[test]
fn leader_epochs_and_offsets_are_checked() {
    let broker = Broker::start(1);
    let mut client = broker.connect();
    client.topic("t");
    client.call(PRODUCE, 7, &produce("t", 0, -1, &batch(b"v")));
    let mut error = |what: Fetch| fetched(&client.call(FETCH, 11, &fetch("t", &[0], what)))[0].1;
    assert_eq!(error(Fetch { epoch: 0, ..Fetch::default() }), 74, "an older epoch");
    assert_eq!(error(Fetch { epoch: 1_000_000, ..Fetch::default() }), 75, "a newer epoch");
    assert_eq!(error(Fetch { offset: 2, max_wait_ms: 50_000, ..Fetch::default() }), 1, "beyond the end");
    assert_eq!(error(Fetch { offset: -1, ..Fetch::default() }), 1, "before the start");
    assert_eq!(error(Fetch { offset: 1, ..Fetch::default() }), 0, "at the end");
}

#[test]
fn a_request_on_the_wrong_core_is_told_the_right_one() {
    let broker = Broker::start(2);
    let mut client = broker.connect();
    let leader = client.topic("placed")[0] as usize;
    let mut wrong = broker.connect_to(1 - leader);
    let record = batch(b"v");
    assert_eq!(produced(&wrong.call(PRODUCE, 7, &produce("placed", 0, -1, &record))).0, 6);
    let body = Body::new().varint(0).i16(-1).i32(1000).varint(2).compact_string("placed").varint(2).i32(0);
    let answer = wrong.call(PRODUCE, 10, &body.varint(record.len() as u32 + 1).raw(&record).i8(0).i8(0).i8(0).0);
    let mut rest = Reader(&answer[5..]);
    rest.skip(1 + 7 + 1 + 4);
    assert_eq!((rest.i16(), rest.i64(), rest.i64(), rest.i64()), (6, -1, -1, -1));
    // No record errors, no message, one tag: the leader.
    assert_eq!(rest.skip(5), [1, 0, 1, 0, 9]);
    assert_eq!(rest.i32() as usize, leader);
    assert!(rest.i32() > 0, "its epoch");
    assert_eq!(rest.skip(2), [0, 0]);
    assert_eq!(rest.i32(), 0, "throttle time");
    // One tag: where the leader is reached.
    let port = broker.ports[leader];
    let endpoint = Body::new().varint(2).i32(leader as i32).compact_string("127.0.0.1").i32(i32::from(port)).varint(0).i8(0).0;
    assert_eq!(rest.0, Body::new().varint(1).varint(0).varint(endpoint.len() as u32).raw(&endpoint).0);
    let answer = fetched(&wrong.call(FETCH, 11, &fetch("placed", &[0], Fetch::default())));
    assert_eq!(answer[0].1, 6);
}

#[test]
fn a_partition_that_fills_the_limits_does_not_starve_the_others() {
    let broker = Broker::start_in(
        data_dir(),
        &["--cores", "1", "--listen", "127.0.0.1:0", "--config", &{
            let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("rotation-{}.toml", std::process::id()));
            std::fs::write(&path, "num.partitions = 3\n").unwrap();
            path.display().to_string()
        }],
    );
    let mut client = broker.connect();
    assert_eq!(client.topic("turns").len(), 3);
    for partition in 0..3 {
        client.call(PRODUCE, 7, &produce("turns", partition, -1, &batch(&[1; 1000])));
    }
    let bounds = Fetch { max_bytes: 1, ..Fetch::default() };
    let mut first = [0; 3];
    for _ in 0..9 {
        let answer = fetched(&client.call(FETCH, 11, &fetch("turns", &[0, 1, 2], bounds)));
        let full: Vec<usize> = (0..3).filter(|index| !answer[*index].3.is_empty()).collect();
        assert_eq!(full.len(), 1, "one batch per answer");
        first[full[0]] += 1;
    }
    assert_eq!(first, [3, 3, 3]);
}

#[test]
fn clients_do_not_write_what_the_groups_are_read_from() {
    const INVALID_TOPIC: i16 = 17;
    let broker = Broker::start(2);
    let mut client = broker.connect();
    for partition in [0, 1, 49] {
        let answer = client.call(PRODUCE, 7, &produce("__consumer_offsets", partition, -1, &batch(b"v")));
        assert_eq!(produced(&answer).0, INVALID_TOPIC, "on every core, whichever leads partition {partition}");
    }
}

#[test]
fn what_is_asked_for_a_million_times_is_told_once() {
    let broker = Broker::start(1);
    let mut client = broker.connect();
    let before = broker.rss();
    let times = 1_000_000;
    let mut body = Body::new().i32(times);
    for _ in 0..times {
        body = body.string("__consumer_offsets");
    }
    let answer = client.call(METADATA, 0, &body.0);
    assert!(answer.len() < 10_000, "50 partitions once: {} bytes", answer.len());
    assert!(broker.rss() < before + (1 << 30), "{} MiB more than before", (broker.rss() - before) >> 20);
}
