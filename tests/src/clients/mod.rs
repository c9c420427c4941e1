//! Client programs of six families, each a process that is given one [`Task`] as JSON in its first argument, writes one [`Event`] a
//! line to its standard output, and ends cleanly when it reads a line (or the end) on its standard input.
//!
//! The programs stand in `tests/clients` and `tests/src/bin`. What they need is fetched from its registry at the first use, into
//! `target/thalweg-tests`, in the versions that their manifests pin.

mod programs;
mod session;

use serde::{Deserialize, Serialize};

pub use programs::{Family, java, kafkajs};
pub use session::{SILENCE_MAX, Session, pump};

use crate::records::Record;

/// What a client program is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "cmd", rename_all = "lowercase")]
pub enum Task {
    /// Send records and report the ack of each.
    Produce(Produce),
    /// Read as a member of a group and report each record.
    Consume(Consume),
}

/// Records number `first`, `first + 1`, … with key `key-(n mod keys)` and value `prefix:n:`, padded to `size` bytes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Produce {
    /// Where the broker listens.
    pub bootstrap: String,
    /// The topic, which exists.
    pub topic: String,
    /// The producer's name within the values.
    pub prefix: String,
    /// The first record's number.
    pub first: u64,
    /// How many records; without it the client goes on until it is stopped.
    pub count: Option<u64>,
    /// How many different keys.
    pub keys: u64,
    /// The least size of a value, in bytes.
    pub size: usize,
    /// The codec's Kafka name.
    pub compression: String,
    /// How many records a second; without it as fast as it goes.
    pub per_second: Option<u32>,
    /// Whether the producer is idempotent.
    pub idempotent: bool,
    /// One partition for all records; without it the client's own partitioner chooses.
    pub partition: Option<i32>,
}

impl Produce {
    /// 100,000 keyed idempotent records as fast as it goes.
    pub fn new(bootstrap: &str, topic: &str, prefix: &str) -> Self {
        Produce {
            bootstrap: bootstrap.to_owned(),
            topic: topic.to_owned(),
            prefix: prefix.to_owned(),
            first: 0,
            count: Some(100_000),
            keys: 1_000,
            size: 100,
            compression: "none".to_owned(),
            per_second: None,
            idempotent: true,
            partition: None,
        }
    }

    /// The key of a record.
    pub fn key(&self, n: u64) -> String {
        format!("key-{}", n % self.keys)
    }

    /// The value of a record.
    pub fn value(&self, n: u64) -> String {
        format!("{:.<size$}", format!("{}:{n}:", self.prefix), size = self.size)
    }
}

/// A member of a group that begins at the earliest record.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Consume {
    /// Where the broker listens.
    pub bootstrap: String,
    /// The topic, which exists.
    pub topic: String,
    /// The group.
    pub group: String,
    /// Session timeout in milliseconds; without it the client's own default.
    pub session_ms: Option<u32>,
}

/// What a client program reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "t", rename_all = "lowercase")]
pub enum Event {
    /// It has begun.
    Ready,
    /// A record was acked.
    Ack(Record),
    /// A record was read.
    Rec(Record),
    /// The partitions that it now holds, all of them.
    Assigned {
        /// Partition numbers.
        ps: Vec<i32>,
    },
    /// It failed: a record won't be acked, or the client gave up.
    Error {
        /// The client's words.
        m: String,
    },
    /// Something that the client gets over by itself.
    Note {
        /// The client's words.
        m: String,
    },
    /// It has flushed, committed and left.
    Done,
}
