//! Apache Kafka itself: its broker's start-up, its tools, and what is fetched from registries once.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use rustix::fs::{FlockOperation, flock};

use crate::paths;
use crate::process::output;
use crate::skip::require;

/// The cluster's id of every Kafka here. No two of them know each other, and asking Kafka for one takes a JVM.
const CLUSTER_ID: &str = "MkU3OEVBNTcwNTJENDM2Qg";

/// A directory under the downloads that `build` has filled from these input files. It is filled once, by one process at a time, and
/// again when an input changes.
pub fn prepared(name: &str, inputs: &[PathBuf], build: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let dir = paths::downloads().join(name);
    let lock = File::create(paths::downloads().join(format!("{name}.lock"))).context("lock of a download")?;
    flock(&lock, FlockOperation::LockExclusive).context("lock of a download")?;
    let mut hasher = DefaultHasher::new();
    for input in inputs {
        std::fs::read(input).with_context(|| format!("read {}", input.display()))?.hash(&mut hasher);
    }
    let wanted = format!("{:016x}", hasher.finish());
    let stamp = dir.join("stamp");
    if std::fs::read_to_string(&stamp).is_ok_and(|s| s == wanted) {
        return Ok(dir);
    }
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir)?;
    build(&dir).with_context(|| format!("prepare {name}"))?;
    std::fs::write(stamp, wanted)?;
    Ok(dir)
}

/// Copies what a Maven project depends on into a directory.
pub fn copy_maven_dependencies(pom: &Path, into: &Path) -> Result<()> {
    let mut maven = Command::new("mvn");
    maven.args(["--quiet", "--batch-mode", "--file"]).arg(pom);
    maven.arg("org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies");
    maven.arg(format!("-DoutputDirectory={}", into.display()));
    output(maven).map(drop)
}

/// The jars of Kafka's broker and tools.
fn jars() -> Result<PathBuf> {
    require(&["java", "mvn"], "Debian: openjdk-17-jdk-headless maven")?;
    let pom = paths::workspace().join("bench/kafka/pom.xml");
    prepared("kafka", std::slice::from_ref(&pom), |dir| copy_maven_dependencies(&pom, dir))
}

/// The command that runs a class of Kafka with a heap of `heap_mib`.
pub fn java(class: &str, heap_mib: u32) -> Result<Command> {
    let jars = jars()?;
    let mut command = Command::new("java");
    command.arg(format!("-Xmx{heap_mib}m")).arg("-XX:TieredStopAtLevel=1").arg("-XX:+UseSerialGC");
    command.arg(format!("-Dlog4j2.configurationFile={}", paths::workspace().join("bench/kafka/log4j2.properties").display()));
    command.arg("-cp").arg(format!("{}/*", jars.display())).arg(class);
    Ok(command)
}

/// Runs one of Kafka's tools to its end and gives what it printed.
pub fn tool(class: &str, arguments: &[&str]) -> Result<String> {
    let mut command = java(class, 256)?;
    command.args(arguments);
    output(command)
}

/// A shell script that does what the tool of Kafka's `bin` directory does.
pub fn tool_script(class: &str) -> Result<String> {
    let command = java(class, 256)?;
    let words = std::iter::once(command.get_program()).chain(command.get_args()).map(|word| format!("'{}'", word.to_string_lossy()));
    Ok(format!("#!/bin/sh\nexec {} \"$@\"\n", words.collect::<Vec<_>>().join(" ")))
}

/// Writes the configuration of a single KRaft node, formats its directory if it is new, and gives the command that runs it.
pub fn broker_command(data: &Path, port: u16, controller_port: u16) -> Result<Command> {
    let config = data.with_extension("properties");
    let text = format!(
        "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller_port}\n\
         listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}\ncontroller.listener.names=CONTROLLER\n\
         listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT\nlog.dirs={}\n\
         offsets.topic.replication.factor=1\ntransaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
         offsets.topic.num.partitions=4\ntransaction.state.log.num.partitions=4\ngroup.initial.rebalance.delay.ms=0\nlog.cleaner.backoff.ms=500\n",
        data.display()
    );
    std::fs::write(&config, text).context("configuration of Kafka")?;
    let config = config.to_str().context("a path in UTF-8")?;
    if !data.join("meta.properties").exists() {
        tool("kafka.tools.StorageTool", &["format", "-t", CLUSTER_ID, "-c", config, "--ignore-formatted"])?;
    }
    let mut command = java("kafka.Kafka", 1024)?;
    command.arg(config);
    Ok(command)
}

/// Fetches Kafka; ends the test without a verdict if that can't be done here.
pub fn require_kafka() -> Result<()> {
    jars().map(drop)
}
