//! The command line of `compare`.

use crate::numbers;
use clap::{Args as Flags, ValueEnum};
use std::path::PathBuf;

/// The workloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "UPPER")]
pub enum Id {
    /// Produce: 1 KiB records, 1 MiB requests, 8 partitions.
    W1,
    /// Produce: one 100 B record a request; 1, 64 and 512 in flight on one connection, and one on each of 64.
    W2,
    /// End to end at a fixed rate: 50,000 x 1 KiB/s in 5,000 requests.
    W3,
    /// One producer; 1, 4 and 16 consumers at the end of the log.
    W4,
    /// A cold read from the start beside a producer.
    W5,
    /// W1's bytes over more partitions.
    W6,
    /// Start after kill -9 with 1,000 partitions.
    W7,
    /// An idle broker with 1,000 partitions and 100 consumers.
    W8,
    /// Compaction of a log of which a tenth is live.
    W9,
    /// Small keyed records: 50 producers, 100 partitions, linger 5 ms, lz4.
    W10,
}

/// `compare`.
#[derive(Clone, Debug, Flags)]
pub struct Compare {
    /// The workload.
    #[arg(value_enum, ignore_case = true)]
    pub workload: Id,
    /// What Thalweg is compared with: `kafka` (Apache Kafka from Maven Central, as it ships and with flush.messages=1), or the
    /// host:port of a broker that runs already. May be given more than once.
    #[arg(long, value_name = "kafka|HOST:PORT")]
    pub against: Vec<String>,
    /// How often each broker is measured, in turn, instead of three times (once with --quick).
    #[arg(long, value_parser = numbers::count)]
    pub pairs: Option<usize>,
    /// Short measurements on less data: one pair within five minutes.
    #[arg(long)]
    pub quick: bool,
    /// Seconds of each measurement, instead of the workload's own.
    #[arg(long, value_parser = numbers::seconds, allow_negative_numbers = true)]
    pub seconds: Option<f64>,
    /// Seconds of warm-up at least, instead of 20 (8 with --quick); it goes on up to twice as long until the rate is steady.
    #[arg(long, value_parser = numbers::seconds_or_none, allow_negative_numbers = true)]
    pub warm_up: Option<f64>,
    /// Kafka's own ProducerPerformance and ConsumerPerformance against every broker, too.
    #[arg(long)]
    pub cross_check: bool,
    /// Where the report goes: WORKLOAD.json and WORKLOAD.html.
    #[arg(long, value_name = "DIR", default_value = "benchmarks")]
    pub out: PathBuf,
    /// Where data and Kafka's jars go: the disk that is measured. Data goes into a directory thalweg-comparison there, which is
    /// this program's own [default: thalweg-bench beside the directory of this program].
    #[arg(long, value_name = "DIR")]
    pub work: Option<PathBuf>,
    /// The broker's program [default: beside this program; cargo builds it if it is not there].
    #[arg(long, value_name = "FILE")]
    pub broker_binary: Option<PathBuf>,
    /// The CPUs of the broker.
    #[arg(long, value_delimiter = ',', default_value = "0")]
    pub broker_cpus: Vec<usize>,
    /// The CPU of the load.
    #[arg(long, default_value_t = 1)]
    pub load_cpu: usize,
    /// Skip the machine's own limits.
    #[arg(long)]
    pub no_limits: bool,
}
