//! The command line.

use clap::{Args as Flags, Parser, Subcommand};

/// Load for any broker that speaks the Kafka protocol.
#[derive(Parser)]
#[command(name = "thalweg-bench", version, about)]
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
    /// Consume with one or more consumers, each reading all partitions, and check offsets and checksums.
    Consume(Consume),
    /// The machine's limit for a consumer: the same bytes through a loopback socket, without a broker.
    PlainSend(PlainSend),
}

/// What every run against a broker shares.
#[derive(Flags)]
pub struct Common {
    /// Address of the broker.
    #[arg(long, default_value = "127.0.0.1:9092")]
    pub broker: String,
    /// Topic to use. `produce` creates it if it does not exist.
    #[arg(long, default_value = "bench")]
    pub topic: String,
    /// Seconds to measure.
    #[arg(long, default_value_t = 10.0)]
    pub seconds: f64,
    /// Seconds to run before the measurement begins.
    #[arg(long, default_value_t = 1.0)]
    pub warm_up: f64,
    /// Pin the load to this CPU.
    #[arg(long)]
    pub cpu: Option<usize>,
    /// The broker's process: its CPU time and peak memory go into the report.
    #[arg(long)]
    pub broker_pid: Option<u32>,
    /// One JSON object instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// `produce`.
#[derive(Flags)]
pub struct Produce {
    /// What every run shares.
    #[command(flatten)]
    pub common: Common,
    /// Partitions of the topic if it is created here.
    #[arg(long, default_value_t = 8)]
    pub partitions: i32,
    /// Bytes of a record's value.
    #[arg(long, default_value_t = 1024)]
    pub record_bytes: usize,
    /// Records in a request, all for one partition.
    #[arg(long, default_value_t = 1000)]
    pub records: usize,
    /// Clients; each has a connection of its own to every leader.
    #[arg(long, default_value_t = 1)]
    pub clients: usize,
    /// Requests in flight on each client's connection to each leader, closed loop.
    #[arg(long, default_value_t = 4)]
    pub in_flight: usize,
    /// Requests a second of all clients together, open loop: latency counts from the scheduled time.
    #[arg(long)]
    pub rate: Option<f64>,
    /// What an ack promises: -1 (all) or 1. 0 is refused: it is not answered, so there is nothing to measure.
    #[arg(long, default_value_t = -1, allow_hyphen_values = true, value_parser = clap::value_parser!(i16).range(-1..=1))]
    pub acks: i16,
}

/// `consume`.
#[derive(Flags)]
pub struct Consume {
    /// What every run shares.
    #[command(flatten)]
    pub common: Common,
    /// Consumers; each reads every partition.
    #[arg(long, default_value_t = 1)]
    pub clients: usize,
    /// Begin at the first offset instead of at the end.
    #[arg(long)]
    pub from_beginning: bool,
    /// Bytes of a fetch, and per partition in it.
    #[arg(long, default_value_t = 1 << 20)]
    pub fetch_bytes: i32,
    /// End at the end of the log as it was at the beginning, instead of after --seconds.
    #[arg(long)]
    pub until_end: bool,
    /// Do not check the CRC of each batch (offsets are always checked).
    #[arg(long)]
    pub no_crc: bool,
}

/// `plain-send`.
#[derive(Flags)]
pub struct PlainSend {
    /// Seconds to measure.
    #[arg(long, default_value_t = 3.0)]
    pub seconds: f64,
    /// Bytes of each send.
    #[arg(long, default_value_t = 1 << 20)]
    pub send_bytes: usize,
    /// CPU of the sender.
    #[arg(long)]
    pub cpu: Option<usize>,
    /// CPU of the receiver.
    #[arg(long)]
    pub receiver_cpu: Option<usize>,
    /// Receivers, each with a connection of its own; every byte goes to all.
    #[arg(long, default_value_t = 1)]
    pub receivers: usize,
    /// Send this file's bytes with sendfile instead of memory.
    #[arg(long)]
    pub file: Option<std::path::PathBuf>,
    /// One JSON object instead of a table.
    #[arg(long)]
    pub json: bool,
}
