//! The `rdkafka` crate (librdkafka) as a test client: one JSON task in, JSON lines out (see `thalweg_tests::clients`).

use std::io::{BufRead, BufWriter, Stdout, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use serde_json::json;
use thalweg_tests::clients::{Consume, Produce, Task};

/// Standard output, shared by the callback threads of librdkafka and the main loop.
#[derive(Clone)]
struct Out(Arc<Mutex<BufWriter<Stdout>>>);

impl Out {
    fn new() -> Self {
        Out(Arc::new(Mutex::new(BufWriter::with_capacity(1 << 16, std::io::stdout()))))
    }

    /// A line that may wait in the buffer until the next [`Out::flush`].
    fn line(&self, value: &serde_json::Value) {
        // The harness may have closed the pipe first, which is no failure of the client.
        let _ = writeln!(self.0.lock().expect("no panic under the lock"), "{value}");
    }

    fn flush(&self) {
        let _ = self.0.lock().expect("no panic under the lock").flush();
    }
}

struct Acks {
    out: Out,
    open: AtomicU64,
}

impl ClientContext for Acks {}

impl ProducerContext for Acks {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, _: ()) {
        match result {
            Ok(m) => self.out.line(&json!({"t": "ack", "p": m.partition(), "o": m.offset(), "k": text(m.key()), "v": text(m.payload())})),
            Err((error, _)) => self.out.line(&json!({"t": "error", "m": error.to_string()})),
        }
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Assignments {
    out: Out,
}

impl ClientContext for Assignments {}

impl ConsumerContext for Assignments {
    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let partitions = match rebalance {
            Rebalance::Assign(list) => list.elements().iter().map(|e| e.partition()).collect(),
            Rebalance::Revoke(_) => Vec::new(),
            Rebalance::Error(error) => return self.out.line(&json!({"t": "note", "m": error.to_string()})),
        };
        self.out.line(&json!({"t": "assigned", "ps": partitions}));
        self.out.flush();
    }
}

fn text(bytes: Option<&[u8]>) -> Option<String> {
    bytes.map(|b| String::from_utf8_lossy(b).into_owned())
}

/// Set as soon as the harness writes `stop` or closes the pipe.
fn stop_flag() -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    let setter = flag.clone();
    std::thread::spawn(move || {
        let mut line = String::new();
        let _ = std::io::stdin().lock().read_line(&mut line);
        setter.store(true, Ordering::Relaxed);
    });
    flag
}

fn produce(task: &Produce) -> Result<()> {
    let out = Out::new();
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &task.bootstrap).set("compression.type", &task.compression);
    config.set("enable.idempotence", task.idempotent.to_string()).set("reconnect.backoff.max.ms", "500");
    let context = Acks { out: out.clone(), open: AtomicU64::new(0) };
    let producer: ThreadedProducer<Acks> = config.create_with_context(context).context("producer")?;
    out.line(&json!({"t": "ready"}));
    out.flush();
    let stop = stop_flag();
    let start = Instant::now();
    for n in task.first..task.count.map_or(u64::MAX, |c| task.first + c) {
        if let Some(rate) = task.per_second {
            let due = start + Duration::from_secs_f64((n - task.first) as f64 / f64::from(rate));
            if let Some(early) = due.checked_duration_since(Instant::now()) {
                out.flush();
                std::thread::sleep(early);
            }
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let (key, value) = (task.key(n), task.value(n));
        producer.context().open.fetch_add(1, Ordering::Relaxed);
        let mut record = BaseRecord::to(&task.topic).key(&key).payload(&value);
        if let Some(partition) = task.partition {
            record = record.partition(partition);
        }
        loop {
            match producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    out.flush();
                    std::thread::sleep(Duration::from_millis(5));
                    if stop.load(Ordering::Relaxed) {
                        producer.context().open.fetch_sub(1, Ordering::Relaxed);
                        break;
                    }
                }
                Err((error, _)) => return Err(error).context("send"),
            }
        }
    }
    producer.flush(Duration::from_secs(120)).context("flush")?;
    while producer.context().open.load(Ordering::Relaxed) > 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    out.line(&json!({"t": "done"}));
    out.flush();
    Ok(())
}

fn consume(task: &Consume) -> Result<()> {
    let out = Out::new();
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &task.bootstrap).set("group.id", &task.group);
    config.set("auto.offset.reset", "earliest").set("reconnect.backoff.max.ms", "500");
    if let Some(ms) = task.session_ms {
        config.set("session.timeout.ms", ms.to_string());
    }
    let consumer: BaseConsumer<Assignments> = config.create_with_context(Assignments { out: out.clone() }).context("consumer")?;
    consumer.subscribe(&[&task.topic]).context("subscribe")?;
    out.line(&json!({"t": "ready"}));
    out.flush();
    let stop = stop_flag();
    while !stop.load(Ordering::Relaxed) {
        match consumer.poll(Duration::from_millis(50)) {
            None => out.flush(),
            Some(Err(error)) => {
                out.line(&json!({"t": "note", "m": error.to_string()}));
                out.flush();
            }
            Some(Ok(m)) => {
                out.line(&json!({"t": "rec", "p": m.partition(), "o": m.offset(), "k": text(m.key()), "v": text(m.payload())}));
                // It counts as handled from here on, and is committed in the background: a SIGKILL must not find it in a buffer.
                out.flush();
            }
        }
    }
    // Nothing stored yet is the only way for this to fail without a broken broker, and then there is nothing to lose.
    if let Err(error) = consumer.commit_consumer_state(CommitMode::Sync) {
        out.line(&json!({"t": "note", "m": error.to_string()}));
    }
    drop(consumer);
    out.line(&json!({"t": "done"}));
    out.flush();
    Ok(())
}

fn main() -> Result<()> {
    let task = std::env::args().nth(1).context("usage: client-rdkafka '<task as JSON>'")?;
    match serde_json::from_str(&task).context("task")? {
        Task::Produce(task) => produce(&task),
        Task::Consume(task) => consume(&task),
    }
}
