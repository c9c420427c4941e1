//! The command line of `compact`.

use super::{Request, run};
use crate::output::no_color;
use clap::Parser;
use server::catalog::topic_configs;
use std::{
    collections::BTreeMap,
    io::{self, BufWriter, IsTerminal},
    path::PathBuf,
    process::ExitCode,
};

/// The settings that say what goes.
pub(super) const SETTINGS: [&str; 9] = [
    "cleanup.policy",
    "delete.retention.ms",
    "max.compaction.lag.ms",
    "min.cleanable.dirty.ratio",
    "min.compaction.lag.ms",
    "retention.bytes",
    "retention.ms",
    "segment.bytes",
    "segment.ms",
];

/// Does now what retention and log compaction ask for, in the data directory of a stopped broker, or says what it would do;
/// or has a running broker do it.
///
/// In a directory of Thalweg's it does exactly what the broker would do after its next start, by the same code and the same settings, and
/// leaves it as a clean stop does; the directory of a stopped Kafka it leaves for that Kafka to go on with. It exits with 0 if all that was due is done, 3 if some of it could not be done, and 2 if
/// nothing was done.
#[derive(Debug, Parser)]
#[command(
    name = "compact",
    version,
    after_help = "Examples:
  compact thalweg-data --dry-run    what would go, why, and how much
  compact thalweg-data              do it
  compact thalweg-data --topic orders --dry-run --set retention.ms=3600000
                                    what an hour of retention would free
  compact --broker localhost:9092 --topic orders
                                    a running broker: now, until it is done
  compact /var/lib/kafka --configs configs.txt --dry-run
                                    the directory of a stopped Kafka"
)]
pub struct Arguments {
    /// The data directory of a stopped broker, Thalweg's or Kafka's
    #[arg(required_unless_present = "broker")]
    data_dir: Option<PathBuf>,

    /// Have this running broker do it now, and follow it until it is done; the address of any of its cores
    #[arg(long, value_name = "HOST:PORT", value_parser = address, conflicts_with_all = ["data_dir", "dry_run", "as_of", "config", "configs", "journal_dir"])]
    broker: Option<String>,

    /// Only this topic; may be given several times
    #[arg(long = "topic", value_name = "TOPIC")]
    topics: Vec<String>,
    /// Only this partition of the topics; may be given several times
    #[arg(long = "partition", value_name = "NUMBER", requires = "topics", value_parser = clap::value_parser!(i32).range(0..))]
    partitions: Vec<i32>,
    /// Say what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// With --dry-run: what if the topics had this setting?
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = setting, requires = "dry_run")]
    set: Vec<(String, String)>,
    /// Do what a dry run of this moment has said, to the byte: the dry run shows the number, in ms since 1970
    #[arg(long, value_name = "MS")]
    as_of: Option<i64>,
    /// The broker's config file, instead of the settings that its last start has kept in the directory
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Of a Kafka: what kafka-configs.sh --describe --entity-type topics (with --all) printed, or its server.properties; may be given
    /// several times. Without it, what its own metadata log says of its topics
    #[arg(long, value_name = "FILE")]
    configs: Vec<PathBuf>,
    /// Where the journal is, if the settings don't say it and it is not in DATA_DIR/journal
    #[arg(long, value_name = "DIRECTORY")]
    journal_dir: Option<PathBuf>,
    /// Where a dry run keeps what it would write, in a file without a name [default: TMPDIR, else /var/tmp]
    #[arg(long, value_name = "DIRECTORY", requires = "dry_run")]
    scratch_dir: Option<PathBuf>,
    /// Show partitions of which nothing goes, too
    #[arg(long)]
    all: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// No progress bar
    #[arg(long)]
    no_progress: bool,
}

/// `NAME=VALUE` of a setting that matters here.
fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("it is NAME=VALUE, for example retention.ms=3600000")?;
    let (name, value) = (name.trim(), value.trim());
    match topic_configs::find(name) {
        Some(setting) if SETTINGS.contains(&name) => setting.validate(value)?,
        Some(_) => return Err(format!("{name} has nothing to do with what goes; these have: {}", SETTINGS.join(", "))),
        None => return Err(format!("there is no topic setting {name}; these say what goes: {}", SETTINGS.join(", "))),
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// `HOST:PORT`, as Kafka's tools take it.
fn address(text: &str) -> Result<String, String> {
    let is_host = |host: &str| match host.strip_prefix('[') {
        Some(address) => address.ends_with(']'),
        None => !host.is_empty() && !host.contains([':', ',']),
    };
    match text.rsplit_once(':') {
        Some((host, port)) if is_host(host) && port.parse::<u16>().is_ok_and(|port| port > 0) => Ok(text.to_owned()),
        _ => Err("it is HOST:PORT of one broker, for example localhost:9092 or [::1]:9092".into()),
    }
}

impl Arguments {
    /// What they ask for.
    #[must_use]
    pub fn request(self) -> Request {
        Request {
            data_dir: self.data_dir.unwrap_or_default(),
            broker: self.broker,
            topics: self.topics,
            partitions: self.partitions,
            dry_run: self.dry_run,
            json: self.json,
            set: self.set.into_iter().collect::<BTreeMap<_, _>>(),
            configs: self.configs,
            config: self.config,
            journal_dir: self.journal_dir,
            scratch_dir: self.scratch_dir,
            as_of_ms: self.as_of,
            all: self.all,
            progress: !self.no_progress && io::stderr().is_terminal(),
        }
    }
}

/// The program: standard output gets the report, standard error what went wrong.
#[must_use]
pub fn main() -> ExitCode {
    let request = Arguments::parse().request();
    // What the engine has to say of a damaged file, say; what it does is in the report, and which partitions it can't open.
    let ours = || tracing_subscriber::EnvFilter::new("warn,engine::log::core=off");
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| ours());
    let colours = io::stderr().is_terminal() && !no_color();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_target(false).without_time();
    log.with_ansi(colours).with_writer(io::stderr).init();
    let mut out = BufWriter::new(io::stdout().lock());
    match run(&request, &mut out) {
        Ok(outcome) => ExitCode::from(outcome.exit_code()),
        Err(error) => {
            eprintln!("compact: {error:#}");
            ExitCode::from(2)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_settings_that_say_what_goes_are_taken_and_only_values_that_they_may_have() {
        assert_eq!(setting("retention.ms = -1"), Ok(("retention.ms".into(), "-1".into())));
        assert_eq!(setting("cleanup.policy=compact,delete").map(|(_, value)| value), Ok("compact,delete".into()));
        for wrong in ["retention.ms", "retention.ms=soon", "retention.hours=1", "max.message.bytes=5", "min.cleanable.dirty.ratio=2"] {
            assert!(setting(wrong).is_err(), "{wrong}");
        }
        assert!(SETTINGS.iter().all(|name| topic_configs::find(name).is_some()));
    }

    #[test]
    fn what_if_is_a_question_and_never_an_order() {
        let parse = |words: &[&str]| Arguments::try_parse_from([&["compact"], words].concat());
        assert!(parse(&["d", "--set", "retention.ms=1"]).is_err());
        assert!(parse(&["d", "--set", "retention.ms=1", "--dry-run"]).is_ok());
        assert!(parse(&["d", "--partition", "0"]).is_err());
        assert!(parse(&["d", "--topic", "t", "--partition=-1"]).is_err());
        assert!(parse(&[]).is_err());
        assert!(parse(&["--broker", "localhost:9092", "--topic", "t"]).is_ok());
        assert!(parse(&["--broker", "localhost:9092", "--dry-run"]).is_err());
        assert!(parse(&["--broker", "localhost:9092", "d"]).is_err());
    }

    #[test]
    fn a_broker_is_one_host_with_its_port() {
        for right in ["localhost:9092", "10.0.0.1:1", "[::1]:9092"] {
            assert_eq!(address(right), Ok(right.to_owned()));
        }
        for wrong in ["localhost", "localhost:", ":9092", "host:0", "host:http", "host:70000", "::1", "[::1:9092", "a:1,b:2"] {
            assert!(address(wrong).is_err_and(|said| said.contains("HOST:PORT")), "{wrong}");
        }
    }
}
