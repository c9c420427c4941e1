//! Apache Kafka from Maven Central: its jars, its configuration, its broker and its tools.

use super::child::{is_installed, output, pinned};
use anyhow::{Context, Result, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The version that `kafka/pom.xml` names.
pub const VERSION: &str = "4.3.1";
const POM: &str = include_str!("../../kafka/pom.xml");
const LOG4J: &str = include_str!("../../kafka/log4j2.properties");
/// The broker's heap. It ships with 1 GiB; 2 GiB keeps the collector quiet with 1,000 partitions and large requests.
pub const HEAP_MIB: u32 = 2048;
/// The heap of a tool.
const TOOL_HEAP_MIB: u32 = 512;
/// What `kafka-run-class.sh` gives every JVM.
const JVM: [&str; 5] =
    ["-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35", "-XX:+ExplicitGCInvokesConcurrent"];

/// Kafka's jars in a directory.
pub struct Kafka {
    home: PathBuf,
}

impl Kafka {
    /// Fetches the jars, unless they are there already.
    ///
    /// # Errors
    /// Java or Maven is missing, or Maven fails.
    pub fn fetch(work: &Path) -> Result<Kafka> {
        for (program, package) in [("java", "openjdk-17-jre-headless"), ("mvn", "maven")] {
            ensure!(is_installed(program), "`{program}` is missing (Debian: {package})");
        }
        let home = work.join(format!("kafka-{VERSION}"));
        let complete = home.join("complete");
        if !complete.exists() {
            eprintln!("fetching Kafka {VERSION} from Maven Central");
            let _ = fs::remove_dir_all(&home);
            fs::create_dir_all(&home)?;
            fs::write(home.join("pom.xml"), POM)?;
            fs::write(home.join("log4j2.properties"), LOG4J)?;
            let mut maven = Command::new("mvn");
            maven.args(["--quiet", "--batch-mode", "--file"]).arg(home.join("pom.xml"));
            maven.arg("org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies");
            maven.arg(format!("-DoutputDirectory={}", home.join("jars").display()));
            output(maven)?;
            fs::write(complete, "")?;
        }
        Ok(Kafka { home })
    }

    /// The command that runs a class of Kafka on these CPUs.
    fn java(&self, cpus: &[usize], class: &str, heap_mib: u32) -> Command {
        let mut command = pinned(cpus, Path::new("java"));
        command.arg(format!("-Xmx{heap_mib}m")).arg(format!("-Xms{heap_mib}m")).args(JVM);
        command.arg(format!("-Dlog4j2.configurationFile={}", self.home.join("log4j2.properties").display()));
        command.arg("-cp").arg(format!("{}/*", self.home.join("jars").display())).arg(class);
        command
    }

    /// The command that runs one of Kafka's tools on these CPUs.
    #[must_use]
    pub fn tool(&self, cpus: &[usize], class: &str) -> Command {
        self.java(cpus, class, TOOL_HEAP_MIB)
    }

    /// Writes the configuration of one KRaft node, formats its directory if it is new, and gives the command that runs it.
    /// With `flush` an ack promises what Thalweg's does. `more` are further lines of the configuration.
    ///
    /// # Errors
    /// The tools'.
    pub fn broker(&self, cpus: &[usize], data: &Path, port: u16, flush: bool, more: &str) -> Result<Command> {
        let controller_port = port + 1;
        let mut properties = format!(
            "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller_port}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}\ncontroller.listener.names=CONTROLLER\n\
             listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT\nlog.dirs={}\n\
             offsets.topic.replication.factor=1\ntransaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n",
            data.display()
        );
        // A deleted topic's files stay for 60 s as it ships, which would fill the disk between measurements.
        properties.push_str("log.segment.delete.delay.ms=1000\n");
        if flush {
            properties.push_str("log.flush.interval.messages=1\n");
        }
        properties.push_str(more);
        let config = data.with_extension("properties");
        fs::write(&config, properties)?;
        if !data.join("meta.properties").exists() {
            let mut random = self.tool(cpus, "kafka.tools.StorageTool");
            random.arg("random-uuid");
            let id = output(random)?;
            let mut format = self.tool(cpus, "kafka.tools.StorageTool");
            format.args(["format", "-t", id.trim(), "-c"]).arg(&config).arg("--ignore-formatted");
            output(format).context("formatting Kafka's directory")?;
        }
        let mut command = self.java(cpus, "kafka.Kafka", HEAP_MIB);
        command.arg(config);
        Ok(command)
    }
}
