//! What the operator decided: the command line over the config file over the defaults.

mod address;
mod cli;
mod cores;
mod file;
pub mod kept;
mod keys;
pub mod size;

pub use address::Address;
pub use cli::{Cli, Command, ExportArgs, ImportArgs};

use crate::{
    catalog::{broker_configs, settings::Kind},
    settings::{Node, Settings},
};
use anyhow::{Context, bail};
use engine::log::LogConfig;
use std::{collections::BTreeMap, path::PathBuf};

/// The port of core 0.
const PORT: u16 = 9092;
/// Where metrics are served if nothing is said of it, and the port if only that is missing.
const METRICS_HOST: &str = "127.0.0.1";
const METRICS_PORT: u16 = 9644;
/// The smallest journal of a core, in bytes.
const JOURNAL_BYTES_MIN: u64 = 1 << 20;
/// The largest, in bytes: beyond it a slip of the pen is likelier, and a start reads all of it.
const JOURNAL_BYTES_MAX: u64 = 1 << 40;

/// Everything that a start needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// The engine's bounds and directories.
    pub log: LogConfig,
    /// The CPUs that the cores are pinned to, by node id.
    pub cpus: Vec<core_affinity::CoreId>,
    /// What is listened on: the host, and a port per core (0: a free one).
    pub listen_host: String,
    /// The ports of the cores.
    pub ports: Vec<u16>,
    /// The host that clients are told.
    pub advertise_host: String,
    /// The ports that clients are told, if they aren't those that are listened on.
    pub advertise_ports: Option<Vec<u16>>,
    /// Go on without O_DIRECT.
    pub allow_buffered: bool,
    /// Where metrics are served.
    pub metrics: Metrics,
    /// The log level.
    pub log_level: Option<String>,
    /// What the cores need to know; the nodes follow when the ports are bound.
    pub settings: Settings,
    /// What the operator should know about the configuration.
    pub warnings: Vec<String>,
    /// What a start keeps of it in the data directory: [`kept::keep`].
    pub kept: String,
}

/// Where `/metrics` and `/health` are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Metrics {
    /// Nowhere.
    Off,
    /// Here (port 0: a free one).
    At {
        /// The host.
        host: String,
        /// The port.
        port: u16,
        /// The operator named it: the broker doesn't start without.
        named: bool,
    },
}

/// Values by key, from the file and the command line.
struct Given {
    own: BTreeMap<String, String>,
    kafka: BTreeMap<String, String>,
    warnings: Vec<String>,
}

impl Config {
    /// Reads the file that the command line names, if it names one, and puts both together.
    ///
    /// # Errors
    /// Each says which key or option is wrong, and what it may be.
    pub fn resolve(cli: &Cli) -> anyhow::Result<Config> {
        let mut given = Given { own: BTreeMap::new(), kafka: BTreeMap::new(), warnings: Vec::new() };
        if let Some(path) = &cli.config {
            given.take_file(file::read(path)?).with_context(|| format!("the config file {}", path.display()))?;
        }
        given.take_cli(cli);
        given.check_values()?;
        given.config()
    }
}

impl Given {
    fn take_file(&mut self, values: BTreeMap<String, String>) -> anyhow::Result<()> {
        if let Some((one, other)) = keys::contradiction(values.keys().map(String::as_str)) {
            bail!("{one} = {:?} and {other} = {:?} are two names of the same setting: keep one of them", values[one], values[other]);
        }
        let mut meaningless = Vec::new();
        for (key, value) in values {
            match keys::classify(&key) {
                keys::Key::Own(own) => drop(self.own.insert(own, value)),
                keys::Key::Kafka(name) => {
                    if keys::WITHOUT_EFFECT.contains(&name.as_str()) {
                        meaningless.push(key);
                    }
                    self.kafka.insert(name, value);
                }
                keys::Key::Meaningless => meaningless.push(key),
                keys::Key::Unknown(Some(nearest)) => self.warnings.push(format!("unknown key {key} is ignored; did you mean {nearest}?")),
                keys::Key::Unknown(None) => self.warnings.push(format!("unknown key {key} is ignored; thalweg --help shows what there is")),
            }
        }
        if !meaningless.is_empty() {
            self.warnings.push(format!("settings of Kafka that have no meaning on one machine, and no effect: {}", meaningless.join(", ")));
        }
        Ok(())
    }

    fn take_cli(&mut self, cli: &Cli) {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let flag = |on: bool| on.then(|| "true".to_owned());
        let options = [
            ("data_dir", path(&cli.data_dir)),
            ("journal_dir", path(&cli.journal_dir)),
            ("listen", cli.listen.clone()),
            ("advertise", cli.advertise.clone()),
            ("cores", cli.cores.clone()),
            ("journal_size", cli.journal_size.clone()),
            ("allow_buffered", flag(cli.allow_buffered)),
            ("accept_loss", flag(cli.accept_loss)),
            ("metrics", cli.metrics.clone()),
            ("log_level", cli.log_level.clone()),
        ];
        for (key, value) in options {
            if let Some(value) = value {
                self.own.insert(key.into(), value);
            }
        }
    }

    /// Kafka's own rules for its properties.
    fn check_values(&self) -> anyhow::Result<()> {
        for (name, value) in &self.kafka {
            if let Some(setting) = broker_configs::find(name) {
                setting.validate(value).map_err(|why| anyhow::anyhow!("{name} = {value:?}: {why}"))?;
            }
        }
        Ok(())
    }

    fn config(mut self) -> anyhow::Result<Config> {
        let cpus = cores::choose(self.own.get("cores").map(String::as_str))?;
        let listen = self.listen()?;
        let ports = match self.ports("core_ports", cpus.len(), ("listen", listen.port))? {
            Some(ports) => ports,
            None => consecutive(PORT, cpus.len())?,
        };
        let advertise = self.advertise()?;
        if listen.is_wildcard() && advertise.is_none() {
            bail!(
                "listening on {} needs --advertise HOST: clients are told which host to connect to, and \"all addresses\" is none. \
                 Name the host that they reach this machine by, for example --advertise {}",
                listen.host,
                host_name().unwrap_or_else(|| "db7.example.org".into())
            );
        }
        let advertised = ("advertise", advertise.as_ref().and_then(|address| address.port));
        let advertise_ports = self.ports("advertise_ports", cpus.len(), advertised)?;
        let metrics = self.metrics()?;
        if let Some(directory) = self.own.get_mut("journal_dir") {
            *directory = kept::absolute(std::path::Path::new(directory)).display().to_string();
        }
        let kept = kept::text(&self.own, &self.kafka);
        let log = self.log()?;
        let settings = self.settings(&log)?;
        Ok(Config {
            cpus,
            advertise_host: advertise.map_or_else(|| listen.host.clone(), |address| address.host),
            listen_host: listen.host,
            ports,
            advertise_ports,
            allow_buffered: self.boolean("allow_buffered")?,
            metrics,
            log_level: self.own.remove("log_level"),
            log,
            settings,
            warnings: self.warnings,
            kept,
        })
    }

    fn listen(&self) -> anyhow::Result<Address> {
        let text = self.own.get("listen").or_else(|| self.kafka.get("listeners"));
        let Some(text) = text else { return Ok(Address { host: "localhost".into(), port: None }) };
        Address::parse(text).with_context(|| format!("listen = {text:?} (it is HOST:PORT, for example localhost:9092)"))
    }

    fn advertise(&self) -> anyhow::Result<Option<Address>> {
        let Some(text) = self.own.get("advertise").or_else(|| self.kafka.get("advertised.listeners")) else { return Ok(None) };
        let address = Address::parse(text).with_context(|| format!("advertise = {text:?} (it is HOST or HOST:PORT)"))?;
        if address.is_wildcard() {
            bail!("advertise = {text:?}: clients can't connect to \"all addresses\"; name the host that they reach this machine by");
        }
        Ok(Some(address))
    }

    fn metrics(&self) -> anyhow::Result<Metrics> {
        let Some(text) = self.own.get("metrics") else {
            return Ok(Metrics::At { host: METRICS_HOST.into(), port: METRICS_PORT, named: false });
        };
        if text.eq_ignore_ascii_case("off") {
            return Ok(Metrics::Off);
        }
        let address = Address::parse(text).with_context(|| format!("metrics = {text:?} (it is HOST:PORT or off)"))?;
        Ok(Metrics::At { host: address.host, port: address.port.unwrap_or(METRICS_PORT), named: true })
    }

    /// The ports of the cores: those that `key` lists, or else those from that of an address on.
    fn ports(&self, key: &str, cores: usize, (address, first): (&str, Option<u16>)) -> anyhow::Result<Option<Vec<u16>>> {
        let Some(text) = self.own.get(key) else {
            return first.map(|first| consecutive(first, cores)).transpose().with_context(|| format!("{address}, for {cores} cores"));
        };
        let ports: Vec<u16> = text
            .split(',')
            .map(|port| port.trim().parse().ok().filter(|port| *port > 0))
            .collect::<Option<_>>()
            .with_context(|| format!("{key} = [{text}]: a port is a number from 1 to 65535"))?;
        if ports.len() != cores {
            bail!("{key} names {} ports, but {cores} cores are used: name one port per core", ports.len());
        }
        if let Some(first) = first.filter(|first| *first != ports[0]) {
            bail!(
                "{address} says port {first} for core 0, and {key} says {}: leave the port of {address} out, or make them equal",
                ports[0]
            );
        }
        Ok(Some(ports))
    }

    fn log(&mut self) -> anyhow::Result<LogConfig> {
        let directories = self.kafka.get("log.dirs").or_else(|| self.kafka.get(keys::LOG_DIR));
        let data_dir = match (self.own.get("data_dir"), directories) {
            (Some(own), _) => own.clone(),
            (None, Some(list)) if list.contains(',') => {
                bail!("log.dirs = {list:?}: there is one data directory. To use several disks, join them below the filesystem (LVM, md)")
            }
            (None, Some(one)) => one.clone(),
            (None, None) => "./thalweg-data".into(),
        };
        let data_dir = PathBuf::from(data_dir);
        let journal_dir = self.own.get("journal_dir").map_or_else(|| data_dir.join("journal"), PathBuf::from);
        let defaults = LogConfig::default();
        let journal_bytes = match self.own.get("journal_size") {
            None => defaults.journal_bytes,
            Some(text) => {
                let bytes = size::parse(text).with_context(|| format!("journal_size = {text:?}: write it like 64MiB or 1GiB"))?;
                if !(JOURNAL_BYTES_MIN..=JOURNAL_BYTES_MAX).contains(&bytes) {
                    let (min, max) = (size::show(JOURNAL_BYTES_MIN), size::show(JOURNAL_BYTES_MAX));
                    bail!("journal_size = {text:?}: it is {min} to {max} for each core");
                }
                bytes
            }
        };
        Ok(LogConfig {
            data_dir,
            journal_dir,
            journal_bytes: journal_bytes.next_multiple_of(8192),
            producer_expiration_ms: self.number("producer.id.expiration.ms", defaults.producer_expiration_ms)?,
            accept_loss: self.boolean("accept_loss")?,
            ..defaults
        })
    }

    fn settings(&mut self, log: &LogConfig) -> anyhow::Result<Settings> {
        let defaults = Settings::default();
        let count = |number: i64| usize::try_from(number).unwrap_or(usize::MAX);
        let settings = Settings {
            nodes: Vec::new(),
            data_dir: log.data_dir.clone(),
            num_partitions: self.number("num.partitions", i64::from(defaults.num_partitions))? as i32,
            auto_create_topics: self.kafka_boolean("auto.create.topics.enable", defaults.auto_create_topics),
            delete_topics: self.kafka_boolean("delete.topic.enable", defaults.delete_topics),
            offsets_topic_partitions: defaults.offsets_topic_partitions,
            message_max_bytes: self.number("message.max.bytes", i64::from(defaults.message_max_bytes))? as i32,
            request_bytes_max: count(self.number("socket.request.max.bytes", defaults.request_bytes_max as i64)?),
            fetch_bytes_max: count(self.number("fetch.max.bytes", defaults.fetch_bytes_max as i64)?),
            connections_max: count(self.number("max.connections", defaults.connections_max as i64)?),
            connection_idle_ms_max: self.number("connections.max.idle.ms", defaults.connection_idle_ms_max as i64)?.max(1) as u64,
            group_initial_rebalance_delay_ms: self
                .number("group.initial.rebalance.delay.ms", i64::from(defaults.group_initial_rebalance_delay_ms))?
                as i32,
            group_session_ms_min: self.number("group.min.session.timeout.ms", i64::from(defaults.group_session_ms_min))? as i32,
            group_session_ms_max: self.number("group.max.session.timeout.ms", i64::from(defaults.group_session_ms_max))? as i32,
            group_members_max: count(self.number("group.max.size", defaults.group_members_max as i64)?),
            offset_metadata_bytes_max: count(self.number("offset.metadata.max.bytes", defaults.offset_metadata_bytes_max as i64)?),
            offsets_retention_minutes: self.number("offsets.retention.minutes", defaults.offsets_retention_minutes)?,
            strict: match self.own.get("validate").map(String::as_str) {
                None | Some("fast") => false,
                Some("strict") => true,
                Some(other) => bail!("validate = {other:?}: it is \"fast\" (headers, checksum, counts) or \"strict\" (every record)"),
            },
            topic_defaults: BTreeMap::new(),
            properties: BTreeMap::new(),
        };
        if self.kafka.get("offsets.topic.num.partitions").is_some_and(|value| value.trim() != "50") {
            self.warnings.push("offsets.topic.num.partitions is always 50 here".into());
        }
        let mut properties = std::mem::take(&mut self.kafka);
        properties.remove(keys::LOG_DIR);
        properties.insert("log.dirs".into(), log.data_dir.display().to_string());
        Ok(Settings { properties, ..settings })
    }

    /// A property of Kafka that is a number. Its range was checked.
    fn number(&self, name: &str, default: i64) -> anyhow::Result<i64> {
        match self.kafka.get(name) {
            Some(value) => value.trim().parse().with_context(|| format!("{name} = {value:?}: it is a number")),
            None => Ok(default),
        }
    }

    fn kafka_boolean(&self, name: &str, default: bool) -> bool {
        debug_assert!(broker_configs::find(name).is_some_and(|setting| matches!(setting.kind, Kind::Boolean)));
        self.kafka.get(name).map_or(default, |value| value.trim().eq_ignore_ascii_case("true"))
    }

    fn boolean(&self, key: &str) -> anyhow::Result<bool> {
        match self.own.get(key).map(String::as_str) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => bail!("{key} = {other:?}: it is true or false"),
        }
    }
}

impl Config {
    /// The nodes as clients see them, from the ports that are bound.
    #[must_use]
    pub fn nodes(&self, bound: &[u16]) -> Vec<Node> {
        let ports = self.advertise_ports.as_deref().unwrap_or(bound);
        ports.iter().map(|port| Node { host: self.advertise_host.clone(), port: *port }).collect()
    }
}

/// `count` ports from `first` on; 0 stays 0: any free port.
fn consecutive(first: u16, count: usize) -> anyhow::Result<Vec<u16>> {
    let port = |index: usize| if first == 0 { Some(0) } else { u16::try_from(usize::from(first) + index).ok() };
    (0..count)
        .map(port)
        .collect::<Option<_>>()
        .with_context(|| format!("{count} ports from {first} on go beyond 65535: begin lower, or use fewer --cores"))
}

fn host_name() -> Option<String> {
    rustix::system::uname().nodename().to_str().ok().map(str::to_owned)
}

#[cfg(test)]
mod tests;
