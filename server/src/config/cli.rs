//! The command line.

use clap::Parser;
use std::path::PathBuf;

const AFTER_HELP: &str = "\
Every core is a broker of its own in the eyes of Kafka clients: core 0 listens on PORT, core 1 on PORT + 1, and so on.
Clients find all of them from any one.

  thalweg                                              two cores or twenty: ./thalweg-data, localhost:9092 and up
  thalweg --cores 1                                    one port only
  thalweg --listen 0.0.0.0:9092 --advertise db7        reachable from other machines as db7:9092, db7:9093, ...
  thalweg --config thalweg.toml --data-dir /mnt/xfs/t  settings from a file; the command line wins

A config file is TOML. Its keys are the long options (data_dir = \"...\"), and Kafka's properties by their own names:

  data_dir = \"/mnt/xfs/thalweg\"
  cores = 4
  num.partitions = 8
  log.retention.hours = 72

Data is acknowledged when it is on stable storage. Stop with SIGTERM or Ctrl-C: it takes ten seconds at most.
The log level may also come from RUST_LOG (RUST_LOG=server=debug).";

/// A log broker for one machine that speaks the Kafka protocol: point any Kafka client at it.
#[derive(Clone, Debug, Default, Parser)]
#[command(name = "thalweg", version, after_long_help = AFTER_HELP, after_help = "--help shows examples and the config file's format.")]
pub struct Cli {
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
    /// Start although the journal is damaged, without what is behind the damage.
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
