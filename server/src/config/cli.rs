//! The command line.

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

// Here and in the other helps: a paragraph is one line, which is wrapped at the terminal's width; a line of an example is
// not to be wrapped, and has 80 columns at most.
const AFTER_HELP: &str = "\
Every core is a broker of its own in the eyes of Kafka clients: core 0 listens on PORT, core 1 on PORT + 1, and so on. \
Clients find all of them from any one.

Examples:
  thalweg                      every core, ./thalweg-data, localhost:9092 ...
  thalweg --cores 1            one port only
  thalweg --listen 0.0.0.0:9092 --advertise db7
                               reachable as db7:9092, db7:9093, ...
  thalweg --config t.toml --data-dir /mnt/xfs/t
                               settings from a file; the command line wins
  thalweg import /var/lib/kafka
                               what a stopped Kafka holds: thalweg import --help
  thalweg export ./thalweg-data --to /mnt/out
                               and back: thalweg export --help

A config file is TOML. Its keys are the long options (data_dir = \"...\"), and Kafka's properties by their own names:

  data_dir = \"/mnt/xfs/thalweg\"
  cores = 4
  num.partitions = 8
  log.retention.hours = 72

Data is acknowledged when it is on stable storage. Stop with SIGTERM or Ctrl-C: it takes ten seconds at most. The log \
level may also come from RUST_LOG (RUST_LOG=server=debug).";

/// A log broker for one machine that speaks the Kafka protocol: point any Kafka client at it.
#[derive(Clone, Debug, Default, Parser)]
#[command(name = "thalweg", version, after_long_help = AFTER_HELP, after_help = "--help shows examples and the config file's format.")]
#[command(args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do instead of running the broker.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Read settings from this TOML file.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where data is kept: a directory of its own on a filesystem with O_DIRECT (XFS is recommended) [default:
    /// ./thalweg-data].
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The address that core 0 listens on; core N listens on PORT + N. `localhost` means 127.0.0.1 and ::1 [default:
    /// localhost:9092].
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: Option<String>,
    /// What clients are told to connect to, if it isn't what is listened on: behind NAT, in a container, or when
    /// listening on all interfaces. Core N is advertised at PORT + N.
    #[arg(long, value_name = "HOST[:PORT]")]
    pub advertise: Option<String>,
    /// How many cores to use, or which ones (`0,2,4` or `0-3`). Each has a port, its own partitions, and a thread pinned to
    /// it [default: every core that the process may use].
    #[arg(long, value_name = "N|LIST")]
    pub cores: Option<String>,
    /// The size of the journal of a core: larger takes longer bursts of small records, and a start reads at most so much
    /// [default: 128MiB].
    #[arg(long, value_name = "SIZE")]
    pub journal_size: Option<String>,
    /// Where the journals are, if not in the data directory: on a fast device.
    #[arg(long, value_name = "DIR")]
    pub journal_dir: Option<PathBuf>,
    /// Go on without O_DIRECT if the filesystem has none. Slower, and it shares the page cache with everything else.
    #[arg(long)]
    pub allow_buffered: bool,
    /// Start although the journal, or the active segment of a partition, is damaged, and cut off what is behind the damage.
    /// What is cut off a segment is kept beside.
    #[arg(long)]
    pub accept_loss: bool,
    /// Where /metrics (Prometheus) and /health are served, or `off` [default: 127.0.0.1:9644; if that is taken, the broker
    /// goes on without].
    #[arg(long, value_name = "HOST:PORT")]
    pub metrics: Option<String>,
    /// error, warn, info, debug or trace [default: info].
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
}

/// What `thalweg` does besides running the broker.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Copy topics out of a stopped data directory, laid out for an Apache Kafka to take over.
    Export(ExportArgs),
    /// Copy the topics, configs and group offsets of a stopped Apache Kafka into a stopped data directory.
    Import(ImportArgs),
}

const EXPORT_HELP: &str = "\
The data directory must have been stopped cleanly (SIGTERM); nothing in it is changed. What is written to DIR:

  partitions/orders-0/*.log ...   to be laid into a Kafka's log directory
  groups/billing.csv              what kafka-consumer-groups.sh reads
  to-kafka.sh                     the commands that do all of it there

A run that was cut off is repeated from its beginning.";

/// `thalweg export`.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = EXPORT_HELP)]
pub struct ExportArgs {
    /// The data directory of a stopped broker.
    #[arg(value_name = "DATA_DIR")]
    pub data_dir: PathBuf,
    /// Where the export goes: a new or empty directory.
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
    /// The topics, separated by commas [default: all].
    #[arg(long, value_name = "TOPICS", value_delimiter = ',')]
    pub topics: Vec<String>,
    /// The broker's config file: its defaults for topics (log.retention.hours, ...) become configs of the topics there.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where its journals are, if not in the data directory.
    #[arg(long, value_name = "DIR")]
    pub journal_dir: Option<PathBuf>,
    /// Show what would be exported, and write nothing.
    #[arg(long)]
    pub dry_run: bool,
}

const IMPORT_HELP: &str = "\
The Kafka must be stopped, best cleanly (SIGTERM); nothing in its directories is changed. Topic ids, offsets, timestamps \
and leader epochs are kept, and groups go on at their offsets. Configs come from its own metadata log, if one of the \
directories has it. What its server.properties set for all topics is not in there, so give that file, or what the Kafka \
says of its topics while it runs, or both; otherwise retention is switched off for the topics that need it.

  kafka-configs.sh --bootstrap-server localhost:9092 \\
      --describe --all --entity-type topics > configs.txt
  thalweg import /var/lib/kafka --configs configs.txt
  thalweg import /var/lib/kafka --configs /etc/kafka/server.properties

A run that was cut off is repeated from its beginning.";

/// `thalweg import`.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = IMPORT_HELP)]
pub struct ImportArgs {
    /// The log directories of a stopped Kafka: all of its log.dirs.
    #[arg(value_name = "KAFKA_LOG_DIR", required = true)]
    pub from: Vec<PathBuf>,
    /// The topics, separated by commas [default: all].
    #[arg(long, value_name = "TOPICS", value_delimiter = ',')]
    pub topics: Vec<String>,
    /// What kafka-configs.sh --describe --entity-type topics (with --all) printed, or that Kafka's server.properties. May be given
    /// several times.
    #[arg(long, value_name = "FILE")]
    pub configs: Vec<PathBuf>,
    /// The data directory [default: ./thalweg-data].
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The broker's config file.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where the journals are, if not in the data directory.
    #[arg(long, value_name = "DIR")]
    pub journal_dir: Option<PathBuf>,
    /// The size of the journal of a core, as the broker is started with.
    #[arg(long, value_name = "SIZE")]
    pub journal_size: Option<String>,
    /// How many cores a new data directory is laid out for; the broker may be started with another number
    /// [default: every core that the process may use].
    #[arg(long, value_name = "N|LIST")]
    pub cores: Option<String>,
    /// Go on without O_DIRECT if the filesystem has none.
    #[arg(long)]
    pub allow_buffered: bool,
    /// Show what would be imported, and write nothing.
    #[arg(long)]
    pub dry_run: bool,
}
