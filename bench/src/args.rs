//! The command line of the load commands.

use crate::{
    batch::Compression,
    compare::Compare,
    load::{Load, Pace, Reading},
    numbers,
    wire::FetchBytes,
};
use clap::{Args as Flags, Parser, Subcommand};

const AFTER_HELP: &str = "\
Examples:
  thalweg-bench produce --records 1000 --in-flight 4
      closed loop: as fast as the broker acks
  thalweg-bench produce --rate 50000 --records 10 --clients 4
      open loop: latency counts from when a request was due
  thalweg-bench end-to-end --rate 50000 --records 10
      what a consumer at the end of the log sees
  thalweg-bench catch-up --topic old --rate 15000 --records 10
      a reader from the start beside a producer
  thalweg-bench compare W3 --against kafka
      the whole comparison, with a report page";

/// Load for any broker that speaks the Kafka protocol.
#[derive(Parser)]
#[command(name = "thalweg-bench", version, about, after_help = AFTER_HELP)]
pub struct Args {
    /// What to run.
    #[command(subcommand)]
    pub command: Command,
}

/// What to run.
#[derive(Subcommand)]
pub enum Command {
    /// Produce for some seconds, closed loop (--in-flight) or open loop (--rate), and check every acked offset.
    Produce(Produce),
    /// Consume with one or more consumers, and check offsets and checksums.
    Consume(Consume),
    /// Produce and consume at once: the time until an ack, and until a consumer has the record. Every acked batch must
    /// reach every consumer of its partition.
    EndToEnd(EndToEnd),
    /// Read a topic from its start while a producer runs on another: the reader's rate, and the producer's latency with
    /// and without it.
    CatchUp(CatchUp),
    /// The machine's limit for a consumer: the same bytes through a loopback socket, without a broker.
    PlainSend(PlainSend),
    /// Run a workload against Thalweg and other brokers in turn, and write a report.
    Compare(Compare),
}

/// What every run against a broker shares.
#[derive(Clone, Debug, Flags)]
pub struct Common {
    /// Address of the broker.
    #[arg(long, default_value = "127.0.0.1:9092")]
    pub broker: String,
    /// Topic to use. Producers create it if it does not exist.
    #[arg(long, default_value = "bench")]
    pub topic: String,
    /// Seconds to measure.
    #[arg(long, visible_alias = "duration", default_value_t = 10.0, value_parser = numbers::seconds, allow_negative_numbers = true)]
    pub seconds: f64,
    /// Seconds to run before the measurement begins.
    #[arg(long, default_value_t = 1.0, value_parser = numbers::seconds_or_none, allow_negative_numbers = true)]
    pub warm_up: f64,
    /// Pin the load to this CPU.
    #[arg(long)]
    pub cpu: Option<usize>,
    /// The broker's process: its CPU time and memory go into the report.
    #[arg(long)]
    pub broker_pid: Option<u32>,
    /// One JSON object instead of a table.
    #[arg(long)]
    pub json: bool,
    /// No progress line.
    #[arg(long)]
    pub quiet: bool,
}

/// What producers send, and when.
#[derive(Clone, Debug, Flags)]
pub struct LoadFlags {
    /// Partitions of the topic if it is created here.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(i32).range(1..))]
    pub partitions: i32,
    /// Bytes of a record's value.
    #[arg(long, default_value_t = 1024)]
    pub record_bytes: usize,
    /// Records in a request: one batch for one partition, or with --keys one batch for each partition that they fall into.
    #[arg(long, visible_alias = "batch", default_value_t = 1000, value_parser = numbers::count)]
    pub records: usize,
    /// Records have keys, drawn from so many; a key's partition is the one that Kafka's clients would choose.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub keys: Option<u64>,
    /// The codec of the batches, which are compressed before the run.
    #[arg(long, value_enum, default_value = "none")]
    pub compression: Compression,
    /// Producers; each has a connection of its own to every leader.
    #[arg(long, visible_alias = "producers", default_value_t = 1, value_parser = numbers::count)]
    pub clients: usize,
    /// Requests in flight on each producer's connection to each leader [default: 4 without --rate, 1000 with it].
    #[arg(long, value_parser = numbers::count)]
    pub in_flight: Option<usize>,
    /// Records a second of all producers together, open loop: latency counts from when a request was due.
    #[arg(long, value_parser = numbers::rate, allow_negative_numbers = true)]
    pub rate: Option<f64>,
    /// A request holds what --rate brings a producer in so many milliseconds (instead of --records).
    #[arg(long, requires = "rate", conflicts_with = "records", value_parser = numbers::linger_ms, allow_negative_numbers = true)]
    pub linger_ms: Option<f64>,
    /// What an ack promises: -1 (all) or 1. 0 is refused: it is not answered, so there is nothing to measure.
    #[arg(long, default_value_t = -1, allow_hyphen_values = true, value_parser = clap::value_parser!(i16).range(-1..=1))]
    pub acks: i16,
}

impl LoadFlags {
    /// The load that the flags mean.
    #[must_use]
    pub fn load(&self) -> Load {
        let clients = self.clients.max(1) as f64;
        let records = match (self.linger_ms, self.rate) {
            (Some(linger_ms), Some(rate)) => (rate * linger_ms / 1e3 / clients).round().max(1.0) as usize,
            _ => self.records,
        };
        Load {
            records,
            record_bytes: self.record_bytes,
            keys: self.keys,
            compression: self.compression,
            acks: self.acks,
            clients: self.clients,
            in_flight_max: self.in_flight.unwrap_or(if self.rate.is_some() { 1000 } else { 4 }),
            pace: self.rate.map_or(Pace::Closed, |rate| Pace::Open(rate / records.max(1) as f64)),
        }
    }
}

/// How consumers read.
#[derive(Clone, Debug, Flags)]
pub struct ReadFlags {
    /// Consumers.
    #[arg(long, default_value_t = 1, value_parser = numbers::count)]
    pub consumers: usize,
    /// The consumers share the partitions, as a group's members do, instead of each reading all.
    #[arg(long)]
    pub share: bool,
    /// Bytes of one partition in a fetch.
    #[arg(long, default_value_t = 1 << 20, value_parser = clap::value_parser!(i32).range(1..))]
    pub fetch_bytes: i32,
    /// Bytes of a whole fetch.
    #[arg(long, default_value_t = 8 << 20, value_parser = clap::value_parser!(i32).range(1..))]
    pub fetch_bytes_max: i32,
    /// Compute the checksum of every Nth batch (offsets are checked for all); 0 means never.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub crc_every: u64,
}

impl ReadFlags {
    /// The reading that the flags mean.
    #[must_use]
    pub fn reading(&self) -> Reading {
        let bytes = FetchBytes { whole_max: self.fetch_bytes_max, partition_max: self.fetch_bytes };
        Reading { clients: self.consumers.max(1), share: self.share, bytes, crc_every: self.crc_every }
    }
}

/// `produce`.
#[derive(Clone, Debug, Flags)]
pub struct Produce {
    /// What every run shares.
    #[command(flatten)]
    pub common: Common,
    /// What is sent.
    #[command(flatten)]
    pub load: LoadFlags,
    /// End after so many GB (10^9 bytes of batches), if that comes before --seconds.
    #[arg(long, value_parser = numbers::gb, allow_negative_numbers = true)]
    pub gb_max: Option<f64>,
}

/// `consume`.
#[derive(Clone, Debug, Flags)]
pub struct Consume {
    /// What every run shares.
    #[command(flatten)]
    pub common: Common,
    /// How is read.
    #[command(flatten)]
    pub read: ReadFlags,
    /// Begin at the first offset instead of at the end.
    #[arg(long)]
    pub from_beginning: bool,
    /// End at the end of the log as it was at the beginning, instead of after --seconds.
    #[arg(long)]
    pub until_end: bool,
    /// Take the files below this directory (the broker's data) out of the page cache first.
    #[arg(long, value_name = "DIR")]
    pub cold: Option<std::path::PathBuf>,
}

/// `end-to-end`.
#[derive(Clone, Debug, Flags)]
pub struct EndToEnd {
    /// What every run shares.
    #[command(flatten)]
    pub common: Common,
    /// What is sent. Without --rate, --in-flight counts the requests of a producer that not all consumers have yet.
    #[command(flatten)]
    pub load: LoadFlags,
    /// How is read.
    #[command(flatten)]
    pub read: ReadFlags,
}

/// `catch-up`.
#[derive(Clone, Debug, Flags)]
pub struct CatchUp {
    /// What every run shares: the topic is the one that is read, the seconds are those of the producer alone.
    #[command(flatten)]
    pub common: Common,
    /// What the producer beside it sends.
    #[command(flatten)]
    pub load: LoadFlags,
    /// How is read.
    #[command(flatten)]
    pub read: ReadFlags,
    /// The topic of the producer.
    #[arg(long, default_value = "beside")]
    pub producer_topic: String,
    /// Take the files below this directory (the broker's data) out of the page cache first.
    #[arg(long, value_name = "DIR")]
    pub cold: Option<std::path::PathBuf>,
}

/// `plain-send`.
#[derive(Clone, Debug, Flags)]
pub struct PlainSend {
    /// Seconds to measure.
    #[arg(long, default_value_t = 3.0, value_parser = numbers::seconds, allow_negative_numbers = true)]
    pub seconds: f64,
    /// Bytes of each send.
    #[arg(long, default_value_t = 1 << 20, value_parser = numbers::count)]
    pub send_bytes: usize,
    /// CPU of the sender.
    #[arg(long)]
    pub cpu: Option<usize>,
    /// CPU of the receiver.
    #[arg(long)]
    pub receiver_cpu: Option<usize>,
    /// Receivers, each with a connection of its own; every byte goes to all.
    #[arg(long, default_value_t = 1, value_parser = numbers::count)]
    pub receivers: usize,
    /// Send this file's bytes with sendfile instead of memory, again and again.
    #[arg(long)]
    pub file: Option<std::path::PathBuf>,
    /// Take the file out of the page cache first, and send it once.
    #[arg(long, requires = "file")]
    pub cold: bool,
    /// One JSON object instead of a table.
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_refused_and_not_run() {
        for words in [
            "produce --seconds=-1",
            "produce --seconds -1",
            "produce --warm-up inf",
            "produce --keys 0",
            "produce --records 0",
            "produce --rate 0",
            "produce --rate 1e30",
            "produce --rate 100 --linger-ms NaN",
            "produce --partitions 0",
            "consume --fetch-bytes 0",
            "plain-send --send-bytes 0",
            "compare W1 --seconds inf",
            "compare W1 --warm-up=-3",
        ] {
            let parsed = Args::try_parse_from(["thalweg-bench"].into_iter().chain(words.split(' ')));
            assert!(parsed.is_err(), "{words}");
        }
        for words in ["produce --rate 50000 --records 10", "compare W3 --warm-up 0", "produce --acks -1"] {
            let parsed = Args::try_parse_from(["thalweg-bench"].into_iter().chain(words.split(' ')));
            assert!(parsed.is_ok(), "{words}");
        }
    }
}
