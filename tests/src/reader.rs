//! Reads a whole topic without a group, and when it hangs, finds out why: the broker is asked by hand, and librdkafka's debug log is kept.

use std::fs::File;
use std::io::Write as _;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::records::Record;
use crate::scratch::Scratch;
use crate::wire::Wire;

/// How long a read may make no progress.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// How long a single request made by hand may take.
const ASK_WITHIN: Duration = Duration::from_secs(10);

/// librdkafka's log goes to a file of its own.
struct LogTo(Mutex<File>);

impl ClientContext for LogTo {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        if let Ok(mut file) = self.0.lock() {
            let _ = writeln!(file, "{facility} {message}");
        }
    }
}

impl ConsumerContext for LogTo {}

/// Reads every partition from its start to the end that it had when the read began, in the order of arrival.
pub fn read_topic(scratch: &Scratch, bootstrap: &str, topic: &str) -> Result<Vec<Record>> {
    let log = File::create(scratch.log(&format!("reader-{topic}"))).context("log of the reader")?;
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("group.id", "unused").set("enable.auto.commit", "false");
    config.set("debug", "fetch,topic,metadata,broker").set("auto.offset.reset", "error").set_log_level(RDKafkaLogLevel::Debug);
    let consumer: BaseConsumer<LogTo> = config.create_with_context(LogTo(Mutex::new(log))).context("reader")?;

    let metadata = consumer.fetch_metadata(Some(topic), SILENCE_MAX).context("metadata")?;
    let partitions = metadata.topics().first().context("the topic")?.partitions().iter().map(|p| p.id());
    let mut assignment = TopicPartitionList::new();
    let mut left = std::collections::BTreeMap::new();
    for partition in partitions {
        let (start, end) = watermarks(&consumer, topic, partition)?;
        if start < end {
            assignment.add_partition_offset(topic, partition, Offset::Offset(start))?;
            left.insert(partition, end);
        }
    }
    consumer.assign(&assignment).context("assign")?;

    let mut read = Vec::new();
    let mut heard = Instant::now();
    while !left.is_empty() {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                heard = Instant::now();
                let (partition, offset) = (message.partition(), message.offset());
                let text = |bytes: Option<&[u8]>| bytes.map(|b| String::from_utf8_lossy(b).into_owned());
                if left.get(&partition).is_some_and(|&end| offset < end) {
                    read.push(Record { partition, offset, key: text(message.key()), value: text(message.payload()) });
                }
                if left.get(&partition).is_some_and(|&end| offset + 1 >= end) {
                    left.remove(&partition);
                }
            }
            Some(Err(error)) => eprintln!("reader of {topic}: {error}"),
            None => {}
        }
        if heard.elapsed() > SILENCE_MAX {
            let states: Vec<String> = left.iter().map(|(&p, &end)| by_hand(bootstrap, topic, p, end, &read)).collect();
            bail!("the reader of {topic} got nothing for {SILENCE_MAX:?}, {} records so far\n  {}", read.len(), states.join("\n  "));
        }
    }
    Ok(read)
}

/// Start and end of a partition, asked again while its broker is still taking it over after a start.
fn watermarks(consumer: &BaseConsumer<LogTo>, topic: &str, partition: i32) -> Result<(i64, i64)> {
    let begin = Instant::now();
    loop {
        match consumer.fetch_watermarks(topic, partition, SILENCE_MAX) {
            Ok(found) => return Ok(found),
            Err(error) if begin.elapsed() > SILENCE_MAX => return Err(error).context("watermarks"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// What the broker says about a partition that a reader hangs on.
fn by_hand(bootstrap: &str, topic: &str, partition: i32, end: i64, read: &[Record]) -> String {
    let next = read.iter().filter(|r| r.partition == partition).map(|r| r.offset + 1).max().unwrap_or(0);
    let asked = (|| {
        let mut wire = Wire::connect_to_leader(bootstrap, topic, partition, ASK_WITHIN)?;
        let offset = wire.list_offset(topic, partition, -1)?;
        let fetched = wire.fetch(topic, partition, next, 1_000)?;
        let batches = crate::wire::batches(&fetched.batches);
        let (error, high_watermark) = (fetched.error, fetched.high_watermark);
        anyhow::Ok(format!("ListOffsets {offset:?}; Fetch error {error}, high watermark {high_watermark}, batches {:?}", batches.first()))
    })();
    format!("partition {partition}: read up to {next} of {end}; by hand: {asked:?}")
}
