//! Replays the corpora of the fuzz targets with the targets' own assertions, on the stable compiler.
//!
//! `THALWEG_WRITE_SEEDS=1 cargo test --release -p server --test fuzz_corpora` writes the seeds anew.

#[path = "../fuzz/src/checks.rs"]
mod checks;
#[path = "../../engine/tests/support/corpora.rs"]
mod corpora;

use bytes::Bytes;
use corpora::{Seeds, Target, replay, seed};
use engine::partition::PartitionId;
use server::{
    api::{
        APIS,
        keep::{self, State},
    },
    catalog::{Change, Configs},
    groups::{
        classic::{Snapshot, SnapshotMember},
        records::{Committed, Key, encode_group, encode_offset},
    },
    walk::{Field, Kind, schema},
};
use uuid::Uuid;

#[test]
fn every_input_of_the_corpora_holds_what_the_targets_assert() {
    replay(&[
        Target { name: "change", check: checks::change, seeds: change_seeds },
        Target { name: "keep", check: checks::keep, seeds: keep_seeds },
        Target { name: "records", check: checks::records, seeds: record_seeds },
        Target { name: "request", check: checks::request, seeds: request_seeds },
    ]);
}

#[test]
fn a_request_of_every_api_and_version_gets_through() {
    for (api, version, request) in requests() {
        let parsed = server::api::parse(request.into(), ([127, 0, 0, 1], 1).into());
        let (walked, decoded) = parsed.unwrap_or_else(|error| panic!("{api} v{version}: {error}")).expect("a known version");
        assert_eq!(walked, decoded, "{api} v{version}");
    }
}

/// A request of every API in every version, with one element in every array.
fn requests() -> Vec<(String, i16, Vec<u8>)> {
    let mut requests = vec![("Keep".to_owned(), keep::VERSION, request(keep::KEY, keep::VERSION, keep::FIELDS, false))];
    for api in APIS {
        let message = schema(api.key as i16).expect("every API has a schema");
        for version in api.min..=api.max {
            let bytes = request(api.key as i16, version, message.fields, version >= message.flexible);
            requests.push((format!("{:?}", api.key), version, bytes));
        }
    }
    requests
}

fn request(key: i16, version: i16, fields: &'static [Field], flexible: bool) -> Vec<u8> {
    let mut bytes = [key.to_be_bytes(), version.to_be_bytes()].concat();
    bytes.extend([0, 0, 0, 7, 0, 4]);
    bytes.extend(b"seed");
    if flexible {
        bytes.push(0);
    }
    structure(fields, version, flexible, &mut bytes);
    bytes
}

fn structure(fields: &'static [Field], version: i16, flexible: bool, out: &mut Vec<u8>) {
    let string = |out: &mut Vec<u8>| if flexible { out.extend([2, b'x']) } else { out.extend([0, 1, b'x']) };
    for field in fields.iter().filter(|field| field.tag.is_none() && field.is_in(version)) {
        if matches!(field.kind, Kind::Array(_) | Kind::Strings | Kind::Fixeds(_)) {
            out.extend(if flexible { &[2][..] } else { &[0, 0, 0, 1] });
        }
        match field.kind {
            Kind::Fixed(bytes) | Kind::Fixeds(bytes) => out.extend(vec![0; bytes]),
            Kind::String | Kind::Strings => string(out),
            Kind::Bytes => out.extend(if flexible { &[2, b'x'][..] } else { &[0, 0, 0, 1, b'x'] }),
            Kind::Array(fields) | Kind::Structure(fields) => structure(fields, version, flexible, out),
        }
    }
    if flexible {
        out.push(0);
    }
}

/// The lowest and the highest version of every API, and the first flexible one.
fn request_seeds() -> Seeds {
    let mut seeds = Seeds::new();
    for (name, version, bytes) in requests() {
        let line = APIS.iter().find(|line| format!("{:?}", line.key) == name);
        let chosen = line.is_none_or(|line| {
            let flexible = schema(line.key as i16).expect("known").flexible;
            [line.min, line.max, flexible].contains(&version)
        });
        if chosen {
            seeds.push((format!("{}-v{version}", name.to_lowercase()), bytes));
        }
    }
    seeds
}

/// Keys, offsets and groups as they are written, as Kafka's other versions have them, and broken; the first byte says which
/// of the three it is.
fn record_seeds() -> Seeds {
    let offset_key = Key::Offset { group: "g".into(), topic: "orders".into(), partition: 7 }.encode();
    let committed = Committed {
        offset: 42,
        leader_epoch: 3,
        metadata: "note".into(),
        commit_ms: 1_700_000_000_000,
        expire_ms: None,
        topic_id: Uuid::from_u128(15),
    };
    let offset = encode_offset(&committed);
    let plain = b"\0\0\0\0\0\0\0\x2a\0\x04note\0\0\x01\x8b\xcf\xe5\x68\x00";
    let member = SnapshotMember {
        id: "m1".into(),
        instance: Some("i".into()),
        client_id: "c".into(),
        client_host: "/h".into(),
        rebalance_timeout_ms: 300_000,
        session_timeout_ms: 45_000,
        subscription: Bytes::from_static(b"sub"),
        assignment: Bytes::from_static(b"as"),
    };
    let group = Snapshot {
        protocol_type: "consumer".into(),
        generation: 5,
        protocol: Some("range".into()),
        leader: Some("m1".into()),
        state_since_ms: 77,
        members: vec![member],
    };
    let empty = Snapshot { protocol: None, leader: None, members: Vec::new(), ..group.clone() };
    let group = encode_group(&group);
    let oldest = b"\0\0\0\x08consumer\0\0\0\x05\0\x05range\0\x02m1\0\0\0\x01\0\x02m1\0\x01c\0\x02/h\0\0\xaf\xc8\0\0\0\x03sub\0\0\0\x02as";
    let flexible =
        b"\0\x04\x09consumer\0\0\0\x05\x06range\x03m1\0\0\0\0\0\0\0\x4d\x02\x03m1\0\x02c\x03/h\0\x04\x93\xe0\0\0\xaf\xc8\x04sub\x03as\0\0";
    let cut = |bytes: &[u8]| bytes[..bytes.len() - 3].to_vec();
    let seeds = [
        ("key-offset", 0, offset_key.clone()),
        ("key-offset-cut", 0, cut(&offset_key)),
        ("key-group", 0, Key::Group("fulfillment".into()).encode()),
        ("key-group-null", 0, b"\0\x02\xff\xff".to_vec()),
        ("key-consumer-protocol", 0, b"\0\x03\0\x01g".to_vec()),
        ("offset", 1, offset.clone()),
        ("offset-cut", 1, cut(&offset)),
        ("offset-v0", 1, [&[0, 0][..], plain].concat()),
        ("offset-v1", 1, [&[0, 1][..], plain, &[0, 0, 0, 0, 0, 0, 0, 9]].concat()),
        ("offset-v3", 1, [&[0, 3][..], &plain[..8], &[0, 0, 0, 3], &plain[8..]].concat()),
        ("offset-tags", 1, [&offset[..offset.len() - 19], &[0xff, 0xff, 0xff, 0xff, 0x0f, 1, 1, 0]].concat()),
        ("group", 2, group.clone()),
        ("group-cut", 2, cut(&group)),
        ("group-empty", 2, encode_group(&empty)),
        ("group-v0", 2, oldest.to_vec()),
        ("group-v4", 2, flexible.to_vec()),
        ("group-many", 2, [&flexible[..32], &[0xff, 0xff, 0xff, 0xff, 0x0f], &flexible[33..]].concat()),
    ];
    seeds.into_iter().map(|(name, way, bytes)| seed(name, way, &bytes)).collect()
}

/// One of every change, and of those with a count or a length also one that is broken.
fn change_seeds() -> Seeds {
    let id = Uuid::from_u128(0x0b5b_4a83);
    let configs = [("cleanup.policy", "compact"), ("retention.ms", "-1")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    let configs = Configs::from(configs);
    let partitions = vec![(PartitionId(7), 0, None), (PartitionId(8), 1, Some(1))];
    let changes = [
        ("cluster", Change::Cluster { id }),
        (
            "topic-created",
            Change::TopicCreated { name: "orders".into(), id, internal: true, configs: configs.clone(), partitions: partitions.clone() },
        ),
        ("partitions-added", Change::PartitionsAdded { id, first: 2, partitions }),
        ("partitions-taken-back", Change::PartitionsTakenBack { id, count: 2 }),
        ("topic-deleted", Change::TopicDeleted { id }),
        ("deletion-finished", Change::DeletionFinished { id }),
        ("topic-configs", Change::TopicConfigs { id, configs: configs.clone() }),
        ("broker-configs", Change::BrokerConfigs { configs }),
        ("producer-ids", Change::ProducerIds { next: 1_000 }),
        ("placed", Change::Placed { id, cores: vec![0, 1] }),
        ("cores", Change::Cores { count: 2 }),
        ("epoch", Change::Epoch { epoch: 9 }),
        ("next-partition", Change::NextPartition { id: 9 }),
    ];
    let mut seeds: Seeds = changes.iter().map(|(name, change)| ((*name).to_owned(), change.encode())).collect();
    let placed = [&[10, 0][..], id.as_bytes(), &[0xff; 4], &[0; 8]].concat();
    let broken = [
        ("newer-version", vec![12, 1, 0, 0, 0, 9]),
        ("newer-type", vec![14, 0]),
        ("epoch-long", vec![12, 0, 0, 0, 0, 9, 0]),
        ("epoch-cut", vec![12, 0, 0, 0]),
        ("placed-many", placed),
        ("broker-configs-many", b"\x08\0\xff\xff\0\x01a\xff\xff\xff\xff".to_vec()),
        ("broker-configs-twice", b"\x08\0\0\x02\0\x01a\0\0\0\x01x\0\x01a\0\0\0\x01y".to_vec()),
    ];
    seeds.extend(broken.map(|(name, bytes)| (name.to_owned(), bytes)));
    seeds
}

/// Rows of an answer, whole, cut off, and with a failure that is no text.
fn keep_seeds() -> Seeds {
    let state = State {
        is_busy: true,
        next_ms: Some(1_700_000_000_000),
        bytes: 2,
        segments: 3,
        by: [4, 5, 6],
        rounds: 7,
        compacted: (8, 9),
        records: 10,
        progress: (11, 12),
        failures: 13,
        last_failure: Some("a disk".into()),
    };
    let row = |state: &State| {
        let mut bytes = b"\0\x06orders\0\0\0\x03\0\0".to_vec();
        state.put(&mut bytes);
        bytes
    };
    let (whole, idle) = (row(&state), row(&State::default()));
    let failure_at = whole.len() - "a disk".len();
    vec![
        ("busy".to_owned(), whole.clone()),
        ("idle".to_owned(), idle.clone()),
        ("rows".to_owned(), [&whole[..], &idle, &whole].concat()),
        ("cut".to_owned(), whole[..whole.len() - 3].to_vec()),
        ("no-text".to_owned(), [&whole[..failure_at], &[0xff; 6]].concat()),
        ("no-text-long".to_owned(), [&whole[..failure_at - 2], &[0x2b, 0], &[0xff; 0x2b00]].concat()),
    ]
}
