//! The brokers that are compared: how each is started, and what its ack promises.

use super::{
    args::{Compare, Id},
    child::{Running, output, pinned},
    compaction,
    kafka::{HEAP_MIB, Kafka, VERSION},
    work::Work,
};
use crate::control;
use anyhow::{Context, Result, ensure};
use serde::Serialize;
use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// A start may replay logs for minutes on a busy machine: a bound for a hang.
pub const START_WITHIN: Duration = Duration::from_secs(600);

/// What a report says about a broker.
#[derive(Clone, Debug, Serialize)]
pub struct Facts {
    /// A short key.
    pub key: String,
    /// Its name and version.
    pub name: String,
    /// What its ack promises.
    pub ack: String,
}

/// How a broker comes to run.
enum Kind {
    Thalweg(PathBuf),
    Kafka { flush: bool },
    Elsewhere(String),
}

/// A broker to measure.
pub struct Subject {
    /// What a report says about it.
    pub facts: Facts,
    kind: Kind,
}

/// All brokers of a comparison and what they share.
pub struct Subjects {
    /// Thalweg is the first.
    pub all: Vec<Subject>,
    kafka: Option<Kafka>,
    cpus: Vec<usize>,
    data: PathBuf,
    log: PathBuf,
    /// Further lines of Kafka's configuration.
    kafka_more: &'static str,
}

impl Subjects {
    /// Finds (or builds, or fetches) the programs.
    ///
    /// # Errors
    /// One of them can't be had.
    pub fn find(args: &Compare, jars: &Path, work: &Work) -> Result<Subjects> {
        let binary = thalweg(args.broker_binary.as_deref())?;
        let mut version = Command::new(&binary);
        version.arg("--version");
        let facts = |key: &str, name: String, ack: &str| Facts { key: key.to_owned(), name, ack: ack.to_owned() };
        const DURABLE: &str = "durable: the record is on stable storage (fdatasync)";
        let mut all = vec![Subject { facts: facts("thalweg", output(version)?.trim().to_owned(), DURABLE), kind: Kind::Thalweg(binary) }];
        for against in &args.against {
            if against == "kafka" {
                let name = |how: &str| format!("Kafka {VERSION}, {how}");
                let page_cache = "in the page cache: a power cut loses it";
                all.push(Subject { facts: facts("kafka", name("as it ships"), page_cache), kind: Kind::Kafka { flush: false } });
                all.push(Subject { facts: facts("kafka-flush", name("flush.messages=1"), DURABLE), kind: Kind::Kafka { flush: true } });
            } else {
                ensure!(against.contains(':'), "--against takes `kafka` or HOST:PORT, not {against}");
                let ack = "what that broker is configured to";
                all.push(Subject { facts: facts(against, format!("broker at {against}"), ack), kind: Kind::Elsewhere(against.clone()) });
            }
        }
        let kafka = all.iter().any(|subject| matches!(subject.kind, Kind::Kafka { .. })) || args.cross_check;
        Ok(Subjects {
            all,
            kafka: kafka.then(|| Kafka::fetch(jars)).transpose()?,
            cpus: args.broker_cpus.clone(),
            data: work.data(),
            log: work.log(),
            kafka_more: if args.workload == Id::W9 { compaction::KAFKA_PROPERTIES } else { "" },
        })
    }

    /// Kafka's jars, if something needs them.
    #[must_use]
    pub fn kafka(&self) -> Option<&Kafka> {
        self.kafka.as_ref()
    }

    /// Settings of the JVM, for the report.
    #[must_use]
    pub fn kafka_heap(&self) -> Option<u32> {
        self.all.iter().any(|subject| matches!(subject.kind, Kind::Kafka { .. })).then_some(HEAP_MIB)
    }

    /// Starts a broker on fresh data.
    ///
    /// # Errors
    /// It does not start, or the data of the one before can't be removed.
    pub fn start(&self, subject: &Subject, work: &Work) -> Result<Server> {
        work.clear()?;
        fs::create_dir(&self.data).with_context(|| format!("{}", self.data.display()))?;
        let _ = fs::remove_file(&self.log);
        let mut server = Server { address: String::new(), data: self.data.clone(), process: None };
        self.launch(subject, &mut server)?;
        Ok(server)
    }

    /// Starts a broker on the data that it has, and waits until it answers.
    ///
    /// # Errors
    /// It does not start.
    pub fn launch(&self, subject: &Subject, server: &mut Server) -> Result<()> {
        if let Kind::Elsewhere(address) = &subject.kind {
            ensure!(control::answers(address), "no broker answers at {address}");
            server.address.clone_from(address);
            return Ok(());
        }
        self.spawn(subject, server)?;
        let address = server.address.clone();
        let process = server.process.as_mut().context("spawned above")?;
        process.wait_until(START_WITHIN, || control::answers(&address))
    }

    /// Starts the process of a broker, without waiting for it.
    ///
    /// # Errors
    /// It can't be started.
    pub fn spawn(&self, subject: &Subject, server: &mut Server) -> Result<()> {
        let port = free_ports(self.cpus.len().max(2) as u16)?;
        server.address = format!("127.0.0.1:{port}");
        let command = match (&subject.kind, &self.kafka) {
            (Kind::Thalweg(binary), _) => {
                let mut command = pinned(&self.cpus, binary);
                command.arg("--data-dir").arg(&self.data).args(["--listen", &server.address]);
                command.args(["--cores", &self.cpus.len().to_string()]);
                command
            }
            (Kind::Kafka { flush }, Some(kafka)) => kafka.broker(&self.cpus, &self.data, port, *flush, self.kafka_more)?,
            _ => anyhow::bail!("a broker elsewhere is not ours to start"),
        };
        server.process = Some(Running::start(command, &self.log)?);
        Ok(())
    }
}

impl Subject {
    /// True if it is started and stopped by us.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        !matches!(self.kind, Kind::Elsewhere(_))
    }
}

/// A broker that runs.
pub struct Server {
    /// Where it listens.
    pub address: String,
    /// Its data directory.
    pub data: PathBuf,
    process: Option<Running>,
}

impl Server {
    /// Its pid, if it was started by us.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Running::pid)
    }

    /// Ends it cleanly.
    ///
    /// # Errors
    /// It had ended by itself.
    pub fn stop(mut self) -> Result<()> {
        self.process.take().map_or(Ok(()), |process| process.stop().map(drop))
    }

    /// Ends it at once.
    ///
    /// # Errors
    /// It is not ours.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().context("a broker elsewhere is not ours to kill")?.kill()
    }
}

/// The broker's program: the one named, or the one beside this program, built if it is missing.
fn thalweg(named: Option<&Path>) -> Result<PathBuf> {
    if let Some(named) = named {
        ensure!(named.is_file(), "there is no program {}", named.display());
        return Ok(named.to_owned());
    }
    let directory = std::env::current_exe()?.parent().context("a program stands in a directory")?.to_owned();
    let binary = directory.join("thalweg");
    if !binary.is_file() {
        eprintln!("building the broker");
        let mut cargo = Command::new("cargo");
        cargo.args(["build", "--release", "--package", "server", "--bin", "thalweg", "--manifest-path"]);
        cargo.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml"));
        output(cargo)?;
        ensure!(binary.is_file(), "cargo built the broker, but not at {}: use --broker-binary", binary.display());
    }
    Ok(binary)
}

/// The first of so many consecutive free ports, below the range of outgoing connections.
fn free_ports(count: u16) -> Result<u16> {
    let begin = 12_000 + (std::process::id() % 700) as u16 * 10;
    (0..700u16)
        .map(|turn| 12_000 + (begin - 12_000 + turn * 10) % 7_000)
        .find(|base| (*base..base + count).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()))
        .context("no free ports between 12000 and 19000")
}
