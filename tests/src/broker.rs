//! A broker process under test: started, killed, stopped, started again with another number of cores.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;

use crate::ports::Ports;
use crate::process::Process;
use crate::scratch::Scratch;
use crate::wire::Wire;
use crate::{kafka, paths};

/// A start may replay a journal on a busy machine; it is a bound for a hang, not a claim about speed.
const START_WITHIN: Duration = Duration::from_secs(90);
/// The same for a clean stop.
const STOP_WITHIN: Duration = Duration::from_secs(60);

/// Which program is under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The broker of this repository.
    Thalweg,
    /// Apache Kafka, to show what a claim means there.
    Kafka,
}

impl Kind {
    /// Thalweg, unless `THALWEG_TESTS_AGAINST=kafka`.
    pub fn under_test() -> Self {
        if std::env::var("THALWEG_TESTS_AGAINST").as_deref() == Ok("kafka") { Kind::Kafka } else { Kind::Thalweg }
    }
}

/// How a broker is started.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which program.
    pub kind: Kind,
    /// How many cores it may use, each a node with a port of its own (Kafka has one).
    pub cores: u16,
    /// The size of one core's journal, as on the command line.
    pub journal_size: &'static str,
    /// Further arguments of Thalweg.
    pub arguments: Vec<String>,
    /// Where the data goes, if not into the scratch directory.
    pub data: Option<PathBuf>,
    /// Start it without any argument, as a newcomer does: on port 9092 and the following ones, with `./thalweg-data`.
    pub bare: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { kind: Kind::under_test(), cores: 2, journal_size: "16MiB", arguments: Vec::new(), data: None, bare: false }
    }
}

impl Options {
    /// A start without arguments, on every core that the process may use.
    pub fn bare() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u16);
        Options { kind: Kind::Thalweg, cores, bare: true, ..Options::default() }
    }

    /// The usual options with another number of cores.
    pub fn cores(cores: u16) -> Self {
        Options { cores, ..Options::default() }
    }
}

/// A running or stopped broker with its data and its ports.
pub struct Broker {
    options: Options,
    ports: Ports,
    data: PathBuf,
    log: PathBuf,
    process: Option<Process>,
}

impl Broker {
    /// Starts a broker on free ports and waits until every core answers.
    pub fn start(scratch: &Scratch, options: Options) -> Result<Self> {
        let mut broker = Self::prepare(scratch, options)?;
        broker.launch()?;
        Ok(broker)
    }

    /// A broker that is not running yet, so that its data directory can be filled first.
    pub fn prepare(scratch: &Scratch, options: Options) -> Result<Self> {
        let name = if options.kind == Kind::Kafka { "kafka" } else { "thalweg" };
        let log = scratch.log(name);
        let data = match &options.data {
            Some(data) => data.clone(),
            None => {
                scratch.path().join(log.file_stem().context("a log has a name")?).join(if options.bare { "thalweg-data" } else { "data" })
            }
        };
        std::fs::create_dir_all(&data).with_context(|| format!("data directory {}", data.display()))?;
        let ports = if options.bare { Ports::fixed(9092) } else { Ports::reserve()? };
        Ok(Broker { ports, data, log, options, process: None })
    }

    /// Starts the broker (again) and waits until every core answers.
    pub fn launch(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "the broker runs already");
        let command = self.command()?;
        let mut process = Process::spawn("broker", command, &self.log)?;
        let deadline = Instant::now() + START_WITHIN;
        for core in 0..self.nodes() {
            // A killed broker's socket may still accept until its ring is gone, so only an answer counts.
            while !answers(&self.address(core)) {
                if let Some(status) = process.exited()? {
                    bail!("the broker ended at its start: {status}");
                }
                ensure!(Instant::now() < deadline, "core {core} does not answer on {} after {START_WITHIN:?}", self.address(core));
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        if let Some(status) = process.exited()? {
            bail!("the broker ended at its start: {status}");
        }
        self.process = Some(process);
        Ok(())
    }

    /// Starts the broker and expects it to refuse; its log tells why.
    pub fn launch_refused(&mut self) -> Result<String> {
        let mut process = Process::spawn("broker", self.command()?, &self.log)?;
        let status = process.wait(START_WITHIN)?;
        ensure!(!status.success(), "the broker should have refused to start");
        self.log_text()
    }

    fn command(&self) -> Result<Command> {
        if self.options.kind == Kind::Kafka {
            return kafka::broker_command(&self.data, self.ports.port(0), self.ports.port(8));
        }
        let mut command = Command::new(paths::thalweg()?);
        if self.options.bare {
            command.current_dir(self.data.parent().context("the data stand in a directory")?);
            return Ok(command);
        }
        command.arg("--data-dir").arg(&self.data).arg("--listen").arg(self.address(0));
        command.args(["--cores", &self.options.cores.to_string(), "--journal-size", self.options.journal_size]);
        command.args(["--metrics", "off"]);
        command.args(&self.options.arguments);
        Ok(command)
    }

    /// How many nodes a client sees.
    fn nodes(&self) -> u16 {
        if self.options.kind == Kind::Kafka { 1 } else { self.options.cores }
    }

    /// The address of a core.
    pub fn address(&self, core: u16) -> String {
        format!("127.0.0.1:{}", self.ports.port(core))
    }

    /// What a client is told: the first core's address, which every number of cores has.
    pub fn bootstrap(&self) -> String {
        self.address(0)
    }

    /// The data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The pid of the running broker.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.process.as_ref().context("the broker is not running")?.pid())
    }

    /// Everything that it has logged in all its starts.
    pub fn log_text(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&std::fs::read(&self.log)?).into_owned())
    }

    /// Whether the process is still there.
    pub fn is_running(&mut self) -> Result<bool> {
        match &mut self.process {
            Some(process) => Ok(process.exited()?.is_none()),
            None => Ok(false),
        }
    }

    /// SIGKILL; an error if the broker had already ended by itself.
    pub fn kill(&mut self) -> Result<()> {
        let mut process = self.process.take().context("the broker is not running")?;
        if let Some(status) = process.exited()? {
            bail!("the broker had ended by itself: {status}");
        }
        process.kill()
    }

    /// SIGTERM, and its clean end.
    pub fn stop(&mut self) -> Result<()> {
        let mut process = self.process.take().context("the broker is not running")?;
        process.signal(Signal::TERM)?;
        let status = process.wait(STOP_WITHIN)?;
        // The JVM ends with 128 + SIGTERM after a clean stop, too.
        let clean = status.success() || (self.options.kind == Kind::Kafka && status.code() == Some(143));
        ensure!(clean, "the broker's clean stop ended with {status}");
        Ok(())
    }

    /// The number of cores of the next start.
    pub fn set_cores(&mut self, cores: u16) {
        self.options.cores = cores;
    }
}

/// Whether a broker answers here.
fn answers(address: &str) -> bool {
    Wire::connect(address, Duration::from_millis(500)).and_then(|mut wire| wire.api_versions()).is_ok()
}
