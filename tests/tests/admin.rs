//! Topics and what belongs to them, as clients see them: at once on every core, and through kills and other core counts.

// Beside the others, which wait for the disk while this one starts JVMs.
#[path = "admin/console.rs"]
mod console;

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use thalweg_tests::admin::Admin;
use thalweg_tests::broker::{Broker, Options};
use thalweg_tests::scratch::Scratch;
use thalweg_tests::wire::{Wire, batch_of_one};

/// A bound for a hang, not a claim about speed.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Kafka's UNKNOWN_TOPIC_OR_PARTITION.
const UNKNOWN_TOPIC: i16 = 3;

const CREATE_PARTITIONS: i16 = 37;
const DELETE_TOPICS: i16 = 20;
const INIT_PRODUCER_ID: i16 = 22;
const OFFSET_COMMIT: i16 = 8;
const OFFSET_FETCH: i16 = 9;
const FIND_COORDINATOR: i16 = 10;

#[test]
fn an_answered_change_is_seen_on_every_core_at_once() {
    thalweg_tests::run("admin-everywhere", |scratch| {
        let broker = Broker::start(scratch, Options::cores(2))?;
        let (mut one, mut other) = (wire(&broker, 0)?, wire(&broker, 1)?);
        let admin = Admin::new(&broker.bootstrap())?;
        for round in 0..30 {
            let topic = format!("round-{round}");
            admin.create(&topic, 3, &[])?;
            ensure!(partitions(&mut one, &topic)? == Some(3) && partitions(&mut other, &topic)? == Some(3), "{topic} was created");
            add_partitions(if round % 2 == 0 { &mut one } else { &mut other }, &topic, 5)?;
            ensure!(partitions(&mut one, &topic)? == Some(5) && partitions(&mut other, &topic)? == Some(5), "{topic} has grown");
            admin.delete(&topic)?;
            ensure!(partitions(&mut one, &topic)?.is_none() && partitions(&mut other, &topic)?.is_none(), "{topic} was deleted");
            ensure!(directories(&broker, &topic)? == 0, "the files of {topic} are gone");
        }
        Ok(())
    });
}

#[test]
fn topics_survive_kills_and_other_numbers_of_cores() {
    thalweg_tests::run("admin-kills", |scratch| {
        let mut broker = Broker::start(scratch, Options::cores(2))?;
        for (round, cores) in [2, 1, 2, 1, 1, 2].into_iter().enumerate() {
            let admin = Admin::new(&broker.bootstrap())?;
            admin.create(&format!("kept-{round}"), 2, &[("retention.ms", "-1")])?;
            admin.create(&format!("grown-{round}"), 1, &[])?;
            add_partitions(&mut wire(&broker, 0)?, &format!("grown-{round}"), 4)?;
            admin.create(&format!("gone-{round}"), 3, &[])?;
            admin.delete(&format!("gone-{round}"))?;
            let mut leader = Wire::connect_to_leader(&broker.bootstrap(), &format!("kept-{round}"), 1, TIMEOUT)?;
            ensure!(leader.produce(&format!("kept-{round}"), 1, &batch_of_one(b"kept"))? == (0, 0));
            broker.kill()?;
            broker.set_cores(cores);
            broker.launch()?;
            let mut wire = wire(&broker, cores - 1)?;
            for past in 0..=round {
                ensure!(partitions(&mut wire, &format!("kept-{past}"))? == Some(2));
                ensure!(partitions(&mut wire, &format!("grown-{past}"))? == Some(4));
                ensure!(partitions(&mut wire, &format!("gone-{past}"))?.is_none());
                ensure!(directories(&broker, &format!("gone-{past}"))? == 0);
                let mut leader = Wire::connect_to_leader(&broker.bootstrap(), &format!("kept-{past}"), 1, TIMEOUT)?;
                ensure!(leader.list_offset(&format!("kept-{past}"), 1, -1)? == (0, 1), "its record is there");
            }
            ensure!(partitions(&mut wire, "__consumer_offsets")? == Some(50));
        }
        Ok(())
    });
}

#[test]
fn a_deletion_that_a_kill_cuts_off_is_done_or_undone_and_a_new_topic_is_empty() {
    thalweg_tests::run("admin-cut-off", |scratch| {
        let mut broker = Broker::start(scratch, Options::cores(2))?;
        for round in 0..8 {
            let (topic, partitions_max) = (format!("cut-{round}"), 40);
            let admin = Admin::new(&broker.bootstrap())?;
            admin.create(&topic, partitions_max, &[])?;
            for partition in [0, 1] {
                let mut leader = Wire::connect_to_leader(&broker.bootstrap(), &topic, partition, TIMEOUT)?;
                ensure!(leader.produce(&topic, partition, &batch_of_one(b"old"))?.0 == 0);
            }
            let address = broker.address(0);
            let doomed = topic.clone();
            let deleting = std::thread::spawn(move || {
                let mut body = 1_i32.to_be_bytes().to_vec();
                put(&mut body, &doomed);
                body.extend(30_000_i32.to_be_bytes());
                // The kill may come before the answer.
                Wire::connect(&address, TIMEOUT)?.call(DELETE_TOPICS, 1, &body)
            });
            std::thread::sleep(Duration::from_millis(3 * round));
            broker.kill()?;
            let _ = deleting.join();
            broker.launch()?;
            match partitions(&mut wire(&broker, 1)?, &topic)? {
                Some(count) => {
                    ensure!(count == partitions_max as usize, "all of it is there");
                    let mut leader = Wire::connect_to_leader(&broker.bootstrap(), &topic, 1, TIMEOUT)?;
                    ensure!(leader.list_offset(&topic, 1, -1)? == (0, 1), "with its records");
                }
                None => {
                    Admin::new(&broker.bootstrap())?.create(&topic, 2, &[])?;
                    let mut leader = Wire::connect_to_leader(&broker.bootstrap(), &topic, 1, TIMEOUT)?;
                    ensure!(leader.list_offset(&topic, 1, -1)? == (0, 0), "nothing of the deleted one is in the new one");
                    ensure!(directories(&broker, &topic)? == 2);
                }
            }
        }
        Ok(())
    });
}

#[test]
fn producer_ids_are_never_given_out_twice() {
    thalweg_tests::run("admin-producer-ids", |scratch| {
        let mut broker = Broker::start(scratch, Options::cores(2))?;
        let mut seen = BTreeSet::new();
        for cores in [2, 1, 2] {
            for core in 0..broker_cores(&broker)? {
                let mut wire = wire(&broker, core)?;
                for _ in 0..1_200 {
                    let answer = wire.call(INIT_PRODUCER_ID, 0, &[0xff, 0xff, 0, 0, 0, 0])?;
                    let id = i64::from_be_bytes(answer[6..14].try_into()?);
                    ensure!(answer[4..6] == [0, 0] && seen.insert(id), "producer id {id}");
                }
            }
            broker.kill()?;
            broker.set_cores(cores);
            broker.launch()?;
        }
        Ok(())
    });
}

#[test]
fn offsets_of_a_deleted_topic_are_gone_for_good() {
    thalweg_tests::run("admin-offsets", |scratch| {
        let mut broker = Broker::start(scratch, Options::cores(2))?;
        let groups: Vec<String> = (0..6).map(|number| format!("group-{number}")).collect();
        Admin::new(&broker.bootstrap())?.create("orders", 1, &[])?;
        for group in &groups {
            ensure!(commit(&broker, group, 7)? == 0);
            ensure!(committed(&broker, group)? == 7);
        }
        Admin::new(&broker.bootstrap())?.delete("orders")?;
        Admin::new(&broker.bootstrap())?.create("orders", 1, &[])?;
        for group in &groups {
            ensure!(committed(&broker, group)? == -1, "{group} has no offset in the new topic");
        }
        broker.kill()?;
        broker.launch()?;
        for group in &groups {
            ensure!(committed(&broker, group)? == -1, "nor after a crash");
        }
        Ok(())
    });
}

#[test]
fn a_thousand_partitions_are_made_and_removed_in_one_request() {
    thalweg_tests::run("admin-thousand", |scratch: &Scratch| {
        let broker = Broker::start(scratch, Options { journal_size: "64MiB", ..Options::cores(2) })?;
        let admin = Admin::new(&broker.bootstrap())?;
        admin.create("wide", 1_000, &[])?;
        ensure!(partitions(&mut wire(&broker, 1)?, "wide")? == Some(1_000));
        ensure!(directories(&broker, "wide")? == 1_000);
        admin.delete("wide")?;
        ensure!(directories(&broker, "wide")? == 0);
        Ok(())
    });
}

fn wire(broker: &Broker, core: u16) -> Result<Wire> {
    Wire::connect(&broker.address(core), TIMEOUT)
}

/// How many nodes the broker names.
fn broker_cores(broker: &Broker) -> Result<u16> {
    Ok(wire(broker, 0)?.metadata("__consumer_offsets")?.nodes.len() as u16)
}

/// How many partitions a core says that a topic has; none if it doesn't know it.
fn partitions(wire: &mut Wire, topic: &str) -> Result<Option<usize>> {
    let metadata = wire.metadata(topic)?;
    match metadata.error {
        0 => Ok(Some(metadata.partitions.len())),
        UNKNOWN_TOPIC => Ok(None),
        error => anyhow::bail!("Metadata of {topic}: error {error}"),
    }
}

/// How many directories a topic has on disk.
fn directories(broker: &Broker, topic: &str) -> Result<usize> {
    let mut count = 0;
    for entry in std::fs::read_dir(broker.data())? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(topic)?.strip_prefix('-'));
        count += usize::from(number.is_some_and(|number| number.parse::<u32>().is_ok()));
    }
    Ok(count)
}

fn add_partitions(wire: &mut Wire, topic: &str, count: i32) -> Result<()> {
    let mut body = 1_i32.to_be_bytes().to_vec();
    put(&mut body, topic);
    body.extend(count.to_be_bytes());
    body.extend((-1_i32).to_be_bytes());
    body.extend(30_000_i32.to_be_bytes());
    body.push(0);
    let answer = wire.call(CREATE_PARTITIONS, 0, &body)?;
    let error = answer.get(10 + topic.len()..12 + topic.len()).context("an answer for one topic")?;
    ensure!(error == [0, 0], "CreatePartitions of {topic}: error {error:?}");
    Ok(())
}

/// A connection to the core that coordinates a group.
fn coordinator(broker: &Broker, group: &str) -> Result<Wire> {
    let mut body = Vec::new();
    put(&mut body, group);
    let answer = wire(broker, 0)?.call(FIND_COORDINATOR, 0, &body)?;
    ensure!(answer[..2] == [0, 0], "FindCoordinator of {group}");
    wire(broker, i32::from_be_bytes(answer[2..6].try_into()?) as u16)
}

/// Commits an offset of `orders` 0 for a group without members; gives Kafka's error code.
fn commit(broker: &Broker, group: &str, offset: i64) -> Result<i16> {
    let mut body = Vec::new();
    put(&mut body, group);
    body.extend((-1_i32).to_be_bytes());
    put(&mut body, "");
    body.extend((-1_i64).to_be_bytes());
    body.extend(1_i32.to_be_bytes());
    put(&mut body, "orders");
    body.extend(1_i32.to_be_bytes());
    body.extend(0_i32.to_be_bytes());
    body.extend(offset.to_be_bytes());
    put(&mut body, "");
    let answer = coordinator(broker, group)?.call(OFFSET_COMMIT, 2, &body)?;
    Ok(i16::from_be_bytes(answer[answer.len() - 2..].try_into()?))
}

/// What a group has committed of `orders` 0, -1 for nothing.
fn committed(broker: &Broker, group: &str) -> Result<i64> {
    let mut body = Vec::new();
    put(&mut body, group);
    body.extend(1_i32.to_be_bytes());
    put(&mut body, "orders");
    body.extend(1_i32.to_be_bytes());
    body.extend(0_i32.to_be_bytes());
    let answer = coordinator(broker, group)?.call(OFFSET_FETCH, 1, &body)?;
    // count, name, count, partition
    let at = 4 + 2 + "orders".len() + 4 + 4;
    Ok(i64::from_be_bytes(answer.get(at..at + 8).context("an offset")?.try_into()?))
}

fn put(body: &mut Vec<u8>, text: &str) {
    body.extend((text.len() as i16).to_be_bytes());
    body.extend(text.as_bytes());
}
