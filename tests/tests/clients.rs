//! Six families of real clients: what is acked is read back exactly, in every codec, and no change of a group's members loses a record.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use thalweg_tests::admin::Admin;
use thalweg_tests::broker::{Broker, Options};
use thalweg_tests::clients::{Consume, Family, Produce, Session, pump};
use thalweg_tests::reader::read_topic;
use thalweg_tests::records::{Record, all_acked_were_read, exactly_the_acked_were_read, in_the_order_sent, offsets_rise};
use thalweg_tests::scratch::Scratch;
use thalweg_tests::wire::{Wire, batches};

const PARTITIONS: i32 = 8;

/// The number that a record batch's attributes give to each codec.
const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

/// One test a family, so that each says for itself whether it holds.
macro_rules! claims {
    ($($family:ident $name:ident),*) => {$(
        mod $name {
            use super::*;

            #[test]
            fn a_group_reads_back_exactly_what_was_acked() {
                thalweg_tests::run(concat!("exact-", stringify!($name)), |s| super::a_group_reads_back_exactly_what_was_acked(s, Family::$family));
            }

            #[test]
            fn every_codec_is_stored_as_sent_and_read_back() {
                thalweg_tests::run(concat!("codecs-", stringify!($name)), |s| super::every_codec_is_stored_as_sent_and_read_back(s, Family::$family));
            }

            #[test]
            fn members_join_leave_and_die_and_nothing_is_lost() {
                thalweg_tests::run(concat!("members-", stringify!($name)), |s| super::members_join_leave_and_die_and_nothing_is_lost(s, Family::$family));
            }
        }
    )*};
}

claims!(Rdkafka rdkafka, Python python, Kafkajs kafkajs, Java java, Franz franz, Kcat kcat);

/// Whether the first `members` of these hold every partition once, each at least one of them.
fn is_shared(sessions: &[&mut Session], members: usize) -> bool {
    let held: Vec<Vec<i32>> = sessions[..members].iter().map(|m| m.assigned.clone().unwrap_or_default()).collect();
    let mut all = held.concat();
    all.sort_unstable();
    all == (0..PARTITIONS).collect::<Vec<i32>>() && held.iter().all(|h| !h.is_empty())
}

/// `session_ms` is the client's own where no member is to be given up: a busy machine must not look like a dead one.
fn consumer(scratch: &Scratch, broker: &Broker, family: Family, topic: &str, session_ms: Option<u32>) -> Result<Session> {
    let task = Consume { bootstrap: broker.bootstrap(), topic: topic.to_owned(), group: format!("{topic}-readers"), session_ms };
    Session::consume(scratch, family, task)
}

fn a_group_reads_back_exactly_what_was_acked(scratch: &Scratch, family: Family) -> Result<()> {
    family.command()?;
    let broker = Broker::start(scratch, Options::default())?;
    Admin::new(&broker.bootstrap())?.create("exact", PARTITIONS, &[])?;
    let mut members = (0..3).map(|_| consumer(scratch, &broker, family, "exact", None)).collect::<Result<Vec<Session>>>()?;
    let mut all: Vec<&mut Session> = members.iter_mut().collect();
    pump(&mut all, "share the partitions", |m| is_shared(m, 3))?;

    let mut producer = Session::produce(scratch, family, Produce::new(&broker.bootstrap(), "exact", family.name()))?;
    producer.until("have every record acked", |p| p.done)?;
    ensure!(producer.acked.len() == 100_000, "{} records were acked", producer.acked.len());
    pump(&mut all, "read every acked record", |m| m.iter().map(|s| s.read.len()).sum::<usize>() >= 100_000)?;

    let mut read = Vec::new();
    for mut member in members {
        member.stop()?;
        offsets_rise(&member.read)?;
        read.append(&mut member.read);
    }
    exactly_the_acked_were_read(&producer.acked, &read)?;
    in_the_order_sent(&read)
}

fn every_codec_is_stored_as_sent_and_read_back(scratch: &Scratch, family: Family) -> Result<()> {
    family.command()?;
    let broker = Broker::start(scratch, Options::default())?;
    let admin = Admin::new(&broker.bootstrap())?;
    let topics: Vec<String> = family.codecs().iter().map(|codec| format!("codec-{codec}")).collect();
    // All at once, first the producers, then the readers: each has to start, and a member waits for its group.
    let mut producers = Vec::new();
    for (codec, topic) in family.codecs().iter().zip(&topics) {
        admin.create(topic, PARTITIONS, &[])?;
        let task = Produce { compression: (*codec).to_owned(), count: Some(5_000), ..Produce::new(&broker.bootstrap(), topic, codec) };
        producers.push(Session::produce(scratch, family, task)?);
    }
    producers.iter_mut().try_for_each(|producer| producer.until("have every record acked", |p| p.done))?;
    let readers = topics.iter().map(|topic| consumer(scratch, &broker, family, topic, None));
    let mut readers = readers.collect::<Result<Vec<Session>>>()?;
    for (codec, ((topic, producer), reader)) in family.codecs().iter().zip(topics.iter().zip(&producers).zip(&mut readers)) {
        reader.until("read every record", |r| r.read.len() >= 5_000)?;
        reader.stop()?;
        exactly_the_acked_were_read(&producer.acked, &reader.read)?;
        // A client that misjudges the broker's versions falls back to no compression without a word.
        let stored = codecs_stored(&broker, topic)?;
        ensure!(stored.iter().all(|c| c == codec), "{family:?} was asked for {codec}, the log holds {stored:?}");
    }
    Ok(())
}

/// The codec of each batch at the start of every partition.
fn codecs_stored(broker: &Broker, topic: &str) -> Result<Vec<&'static str>> {
    let mut found = Vec::new();
    for partition in 0..PARTITIONS {
        let mut wire = Wire::connect_to_leader(&broker.bootstrap(), topic, partition, Duration::from_secs(30))?;
        let fetched = wire.fetch(topic, partition, 0, 100)?;
        ensure!(fetched.error == 0, "fetch: error {}", fetched.error);
        found.extend(batches(&fetched.batches).into_iter().map(|(_, _, codec)| CODECS[usize::from(codec)]));
    }
    Ok(found)
}

fn members_join_leave_and_die_and_nothing_is_lost(scratch: &Scratch, family: Family) -> Result<()> {
    family.command()?;
    let broker = Broker::start(scratch, Options::default())?;
    Admin::new(&broker.bootstrap())?.create("members", PARTITIONS, &[])?;
    // kcat tells of its acks only at its end, and any producer will do here.
    let producing = if family == Family::Kcat { Family::Rdkafka } else { family };
    let task = Produce { count: None, per_second: Some(500), ..Produce::new(&broker.bootstrap(), "members", "live") };
    let mut producer = Session::produce(scratch, producing, task)?;
    let mut first = consumer(scratch, &broker, family, "members", Some(10_000))?;
    let mut second = consumer(scratch, &broker, family, "members", Some(10_000))?;
    let mut third = consumer(scratch, &broker, family, "members", Some(10_000))?;
    pump(&mut [&mut first, &mut second, &mut third, &mut producer], "share the partitions", |m| is_shared(m, 3))?;
    read_on(&mut [&mut first, &mut second, &mut third, &mut producer])?;

    let mut fourth = consumer(scratch, &broker, family, "members", Some(10_000))?;
    pump(&mut [&mut first, &mut second, &mut third, &mut fourth, &mut producer], "take the fourth in", |m| is_shared(m, 4))?;
    read_on(&mut [&mut first, &mut second, &mut third, &mut fourth, &mut producer])?;

    first.stop()?;
    pump(&mut [&mut second, &mut third, &mut fourth, &mut producer], "share what the first left", |m| is_shared(m, 3))?;
    read_on(&mut [&mut second, &mut third, &mut fourth, &mut producer])?;

    second.kill()?;
    pump(&mut [&mut third, &mut fourth, &mut producer], "share what the dead one held", |m| is_shared(m, 2))?;
    read_on(&mut [&mut third, &mut fourth, &mut producer])?;

    producer.stop()?;
    let acked = std::mem::take(&mut producer.acked);
    // What the dead one had read but not committed is read again by another, so only the union counts.
    let mut early: Vec<_> = first.read.iter().chain(&second.read).cloned().collect();
    if family == Family::Kcat {
        early.extend(forgotten_by_kcat(&first, &acked));
    }
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        third.step(Duration::from_millis(20))?;
        third.drain()?;
        fourth.drain()?;
        let read: Vec<_> = early.iter().chain(&third.read).chain(&fourth.read).cloned().collect();
        match all_acked_were_read(&acked, &read) {
            Ok(()) => break,
            Err(error) => ensure!(Instant::now() < deadline, "{error:#}"),
        }
    }
    third.stop()?;
    fourth.stop()?;
    let log = read_topic(scratch, &broker.bootstrap(), "members")?;
    exactly_the_acked_were_read(&acked, &log)?;
    in_the_order_sent(&log)
}

/// kcat commits the record that it holds when it is told to stop, and does not print it: before a real Kafka, too.
fn forgotten_by_kcat(leaver: &Session, acked: &[Record]) -> Vec<Record> {
    let last = |partition: i32| leaver.read.iter().filter(|r| r.partition == partition).map(|r| r.offset).max();
    acked.iter().filter(|a| last(a.partition).is_some_and(|last| a.offset == last + 1)).cloned().collect()
}

/// Lets every consumer of these (all but the last, the producer) read some more.
fn read_on(sessions: &mut [&mut Session]) -> Result<()> {
    let (_, consumers) = sessions.split_last().expect("a producer");
    let before: Vec<usize> = consumers.iter().map(|c| c.read.len()).collect();
    pump(sessions, "read on", |now| before.iter().zip(now).all(|(&before, now)| now.read.len() >= before + 20))
}
