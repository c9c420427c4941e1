//! Retention and compaction of a running broker, as clients see them; and the same records through Kafka's own cleaner.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use thalweg_tests::admin::Admin;
use thalweg_tests::broker::{Broker, Kind, Options};
use thalweg_tests::compacting::segments;
use thalweg_tests::kafka::require_kafka;
use thalweg_tests::reader::read_topic;
use thalweg_tests::records::Record;
use thalweg_tests::wire::{Wire, batch, batch_of_one, now_ms};

/// A bound for a hang, not a claim about speed.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Kafka's cleaner looks every 15 s, and takes its time on a busy machine.
const CLEANED_WITHIN: Duration = Duration::from_secs(180);
const TOPIC: &str = "table";
/// ListOffsets: the first and the next offset.
const EARLIEST: i64 = -2;
const KEYS: u64 = 40;
const BATCHES: u64 = 320;
const RECORDS: u64 = 20;
/// Partitions of which a group commits the offset, bytes of metadata with each, and how often.
const OFFSETS: u64 = 100;
const METADATA_BYTES: u64 = 1_000;
const COMMITS: u64 = 400;
/// Transactions of each of two producers.
const TRANSACTIONS: u64 = 150;

#[test]
fn records_go_when_their_time_has_come_and_their_files_with_them() {
    thalweg_tests::run("retention", |scratch| {
        let broker = Broker::start(scratch, Options { kind: Kind::Thalweg, ..Options::default() })?;
        Admin::new(&broker.bootstrap())?.create(TOPIC, 1, &[("retention.ms", "2000")])?;
        let mut wire = Wire::connect_to_leader(&broker.bootstrap(), TOPIC, 0, TIMEOUT)?;
        for _ in 0..100 {
            ensure!(wire.produce(TOPIC, 0, &batch_of_one(&[7; 10_000]))?.0 == 0);
        }
        until("the log to be empty", || Ok(wire.list_offset(TOPIC, 0, EARLIEST)? == (0, 100)))?;
        until("the first segment to be removed", || Ok(segments(&broker.data().join(format!("{TOPIC}-0")))? == [100]))?;
        // The log goes on where it was.
        ensure!(wire.produce(TOPIC, 0, &batch_of_one(b"new"))? == (0, 100));
        Ok(())
    });
}

#[test]
fn a_compacted_topic_keeps_the_last_record_of_each_key_through_restarts() {
    thalweg_tests::run("compaction", |scratch| {
        let mut broker = Broker::start(scratch, Options { kind: Kind::Thalweg, ..Options::default() })?;
        let expected = fill(&broker)?;
        until("compaction", || Ok(first_dirty(&broker)? > 0))?;
        let after = read_topic(scratch, &broker.bootstrap(), TOPIC)?;
        ensure!(after.len() < (BATCHES * RECORDS) as usize, "nothing was compacted");
        same_state(&expected, &after)?;
        broker.kill()?;
        broker.launch()?;
        same_state(&expected, &read_topic(scratch, &broker.bootstrap(), TOPIC)?)?;
        broker.stop()
    });
}

#[test]
fn what_stays_is_what_kafkas_cleaner_keeps() {
    thalweg_tests::run("compaction-kafka", |scratch| {
        require_kafka()?;
        let ours = Broker::start(scratch, Options { kind: Kind::Thalweg, ..Options::default() })?;
        let kafka = Broker::start(scratch, Options { kind: Kind::Kafka, ..Options::default() })?;
        fill(&ours)?;
        fill(&kafka)?;
        // The same batches make the same segments: both clean up to the active one.
        let directory = |broker: &Broker| broker.data().join(format!("{TOPIC}-0"));
        let end = *segments(&directory(&ours))?.last().context("a segment")?;
        ensure!(*segments(&directory(&kafka))?.last().context("a segment")? == end, "the segments differ");
        until("our cleaner", || Ok(first_dirty(&ours)? == end))?;
        until("Kafka's cleaner", || Ok(kafkas_first_dirty(&kafka)? == end))?;
        let place = |records: Vec<Record>| {
            records.into_iter().filter(|record| record.offset < end).map(|record| (record.offset, record)).collect::<BTreeMap<_, _>>()
        };
        let there = place(read_topic(scratch, &kafka.bootstrap(), TOPIC)?);
        let here = place(read_topic(scratch, &ours.bootstrap(), TOPIC)?);
        ensure!(!there.is_empty() && there.len() < (BATCHES * RECORDS) as usize, "Kafka kept {} records", there.len());
        for (offset, record) in &there {
            ensure!(here.get(offset) == Some(record), "Kafka keeps {record:?}, we have {:?}", here.get(offset));
        }
        ensure!(here.len() == there.len(), "we keep {} records, Kafka {}", here.len(), there.len());
        Ok(())
    });
}

#[test]
fn committed_offsets_stay_small_under_constant_commits() {
    thalweg_tests::run("offsets-small", |scratch| {
        let mut broker = Broker::start(scratch, Options { kind: Kind::Thalweg, ..Options::default() })?;
        let admin = Admin::new(&broker.bootstrap())?;
        admin.create(TOPIC, OFFSETS as i32, &[])?;
        let settings = [("cleanup.policy", "compact"), ("compression.type", "producer"), ("segment.bytes", "1048576")];
        admin.alter("__consumer_offsets", &settings)?;
        let metadata = "m".repeat(METADATA_BYTES as usize);
        let mut coordinator = Wire::connect_to_coordinator(&broker.bootstrap(), "group", TIMEOUT)?;
        for offset in 1..=COMMITS {
            coordinator.commit("group", TOPIC, OFFSETS as i32, offset as i64, &metadata)?;
        }
        let written = COMMITS * OFFSETS * METADATA_BYTES;
        let bytes = || -> Result<u64> {
            let mut bytes = 0;
            for partition in 0..50 {
                let directory = broker.data().join(format!("__consumer_offsets-{partition}"));
                for entry in std::fs::read_dir(directory)? {
                    // What is being swapped may be gone before it is looked at.
                    bytes += entry?.metadata().map_or(0, |metadata| metadata.len());
                }
            }
            Ok(bytes)
        };
        // One closed segment at most is as dirty as it may be; the active one, with what it has in reserve, comes on top.
        until("the offsets to be compacted", || Ok(bytes()? < written / 5))?;
        ensure!(written > 30 << 20, "only {written} bytes were written");
        broker.kill()?;
        broker.launch()?;
        for partition in [0, OFFSETS as i32 - 1] {
            // Until the coordinator has read its partition it says so.
            let committed = || Wire::committed(&broker.bootstrap(), "group", TOPIC, partition, TIMEOUT);
            until("the coordinator", || Ok(committed().is_ok()))?;
            ensure!(committed()? == COMMITS as i64, "partition {partition}");
        }
        broker.stop()
    });
}

#[test]
fn what_stays_of_transactions_is_what_kafkas_cleaner_keeps() {
    thalweg_tests::run("compaction-transactions", |scratch| {
        require_kafka()?;
        let mut kafka = Broker::start(scratch, Options { kind: Kind::Kafka, ..Options::default() })?;
        let settings = |ratio| [("cleanup.policy", "compact"), ("segment.bytes", "1048576"), ("min.cleanable.dirty.ratio", ratio)];
        Admin::new(&kafka.bootstrap())?.create(TOPIC, 1, &settings("1.0"))?;
        transact(&kafka)?;
        kafka.stop()?;
        let config = scratch.path().join("ours.toml");
        let defaults = "log.cleanup.policy = \"compact\"\nlog.segment.bytes = 1048576\nlog.cleaner.min.cleanable.ratio = 0.01\n";
        std::fs::write(&config, defaults)?;
        let arguments = vec!["--config".into(), config.display().to_string()];
        let mut ours = Broker::prepare(scratch, Options { kind: Kind::Thalweg, arguments, ..Options::default() })?;
        let directory = |broker: &Broker| broker.data().join(format!("{TOPIC}-0"));
        std::fs::create_dir_all(directory(&ours))?;
        for entry in std::fs::read_dir(directory(&kafka))? {
            let entry = entry?;
            std::fs::copy(entry.path(), directory(&ours).join(entry.file_name()))?;
        }
        let end = *segments(&directory(&ours))?.last().context("a segment")?;
        ensure!(end > 0, "there is one segment only");
        let before = batches_below(&directory(&ours), end)?;
        ours.launch()?;
        kafka.launch()?;
        Admin::new(&kafka.bootstrap())?.alter(TOPIC, &settings("0.01"))?;
        until("our cleaner", || Ok(first_dirty(&ours)? >= end))?;
        until("Kafka's cleaner", || Ok(kafkas_first_dirty(&kafka)? >= end))?;
        let records = |broker: &Broker| -> Result<Vec<Record>> {
            let mut records = read_topic(scratch, &broker.bootstrap(), TOPIC)?;
            records.retain(|record| record.offset < end);
            Ok(records)
        };
        let (here, there) = (records(&ours)?, records(&kafka)?);
        ensure!(here == there, "we keep {} records, Kafka {}", here.len(), there.len());
        ours.stop()?;
        kafka.stop()?;
        // Also what no consumer sees: markers, emptied batches, and nothing of what was aborted.
        let (here, there) = (batches_below(&directory(&ours), end)?, batches_below(&directory(&kafka), end)?);
        ensure!(here == there, "we keep {} batches, Kafka {}: {:?}", here.len(), there.len(), first_difference(&here, &there));
        // The markers stay until their horizon, so more than half of the batches do.
        ensure!(!here.is_empty() && here.len() < before.len(), "{} of {} batches are left", here.len(), before.len());
        Ok(())
    });
}

/// Fills a compacted topic with transactions of two producers, one in each other; every third one is aborted.
fn transact(broker: &Broker) -> Result<()> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker.bootstrap()).set("linger.ms", "0");
    let producer = |id: &str| -> Result<BaseProducer> {
        let producer: BaseProducer = config.clone().set("transactional.id", id).create()?;
        producer.init_transactions(TIMEOUT)?;
        Ok(producer)
    };
    let (first, second) = (producer("first")?, producer("second")?);
    let value = "v".repeat(700);
    let send = |producer: &BaseProducer, round: u64| -> Result<()> {
        for at in 0..RECORDS {
            let number = round * RECORDS + at;
            let key = if number.is_multiple_of(97) { format!("rare-{number}") } else { format!("key-{}", number * number % KEYS) };
            let record = BaseRecord::to(TOPIC).key(&key);
            let sent = if number.is_multiple_of(11) { producer.send(record) } else { producer.send(record.payload(&value)) };
            sent.map_err(|(error, _)| error)?;
        }
        Ok(producer.flush(TIMEOUT)?)
    };
    let end = |producer: &BaseProducer, round: u64| match round.is_multiple_of(3) {
        true => producer.abort_transaction(TIMEOUT),
        false => producer.commit_transaction(TIMEOUT),
    };
    for round in 0..TRANSACTIONS {
        first.begin_transaction()?;
        send(&first, 2 * round)?;
        second.begin_transaction()?;
        send(&second, 2 * round + 1)?;
        end(&first, round)?;
        end(&second, round + 1)?;
    }
    // Behind the last marker: whoever reads to the end meets a record there.
    let plain: BaseProducer = config.create()?;
    plain.send(BaseRecord::to(TOPIC).key("end").payload("of the log")).map_err(|(error, _)| error)?;
    Ok(plain.flush(TIMEOUT)?)
}

/// All batches below an offset.
fn batches_below(directory: &Path, end: i64) -> Result<Vec<Batch>> {
    let mut found = Vec::new();
    for base in segments(directory)?.into_iter().filter(|base| *base < end) {
        let bytes = std::fs::read(directory.join(format!("{base:020}.log")))?;
        let mut rest = &bytes[..];
        while rest.len() >= 61 {
            let size = 12 + u32::from_be_bytes(rest[8..12].try_into()?) as usize;
            let base = i64::from_be_bytes(rest[..8].try_into()?);
            let delta = i32::from_be_bytes(rest[23..27].try_into()?);
            found.push((base, base + i64::from(delta), rest[22]));
            rest = rest.get(size..).context("a whole batch")?;
        }
    }
    Ok(found)
}

/// Base offset, last offset and attributes of a batch.
type Batch = (i64, i64, u8);

/// Where two lists part.
fn first_difference(here: &[Batch], there: &[Batch]) -> Option<(Option<Batch>, Option<Batch>)> {
    let at = (0..here.len().max(there.len())).find(|at| here.get(*at) != there.get(*at))?;
    Some((here.get(at).copied(), there.get(at).copied()))
}

/// Fills a compacted topic with small segments. Returns the last value of each key.
fn fill(broker: &Broker) -> Result<BTreeMap<String, Option<String>>> {
    let settings = [("cleanup.policy", "compact"), ("segment.bytes", "1048576"), ("min.cleanable.dirty.ratio", "0.01")];
    Admin::new(&broker.bootstrap())?.create(TOPIC, 1, &settings)?;
    let mut wire = Wire::connect_to_leader(&broker.bootstrap(), TOPIC, 0, TIMEOUT)?;
    let mut last = BTreeMap::new();
    for round in 0..BATCHES {
        let records: Vec<(String, Option<String>)> = (0..RECORDS)
            .map(|at| {
                // Some keys come often, some once; one in eleven records is a tombstone.
                let number = round * RECORDS + at;
                let key = if number.is_multiple_of(97) { format!("rare-{number}") } else { format!("key-{}", number * number % KEYS) };
                let value = (!number.is_multiple_of(11)).then(|| format!("{number}:{}", "x".repeat((number % 1_000) as usize)));
                (key, value)
            })
            .collect();
        let fields: Vec<_> = records.iter().map(|(key, value)| (Some(key.as_bytes()), value.as_deref().map(str::as_bytes))).collect();
        ensure!(wire.produce(TOPIC, 0, &batch(&fields, now_ms()))?.0 == 0);
        last.extend(records);
    }
    Ok(last)
}

fn same_state(expected: &BTreeMap<String, Option<String>>, read: &[Record]) -> Result<()> {
    let mut state: BTreeMap<&str, Option<&str>> = BTreeMap::new();
    for record in read {
        state.insert(record.key.as_deref().context("a key")?, record.value.as_deref());
    }
    for (key, value) in expected {
        ensure!(
            state.get(key.as_str()).copied().flatten() == value.as_deref(),
            "{key}: {value:?} was last, {:?} is",
            state.get(key.as_str())
        );
    }
    Ok(())
}

/// Up to where we have compacted.
fn first_dirty(broker: &Broker) -> Result<i64> {
    let text = std::fs::read_to_string(broker.data().join(format!("{TOPIC}-0/thalweg.compacted"))).unwrap_or_default();
    Ok(text.lines().find_map(|line| line.strip_prefix("first dirty: ")?.parse().ok()).unwrap_or(0))
}

/// Up to where Kafka has: its checkpoint, a line per partition.
fn kafkas_first_dirty(broker: &Broker) -> Result<i64> {
    let text = std::fs::read_to_string(broker.data().join("cleaner-offset-checkpoint")).unwrap_or_default();
    Ok(text.lines().find_map(|line| line.strip_prefix(&format!("{TOPIC} 0 "))?.parse().ok()).unwrap_or(0))
}

fn until(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let begin = Instant::now();
    while !holds()? {
        ensure!(begin.elapsed() < CLEANED_WITHIN, "waited {CLEANED_WITHIN:?} for {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
