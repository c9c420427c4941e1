//! The six families: how each is fetched, built and run.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::kafka::{copy_maven_dependencies, prepared};
use crate::paths;
use crate::process::output;
use crate::skip::require;

/// A family of Kafka clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// librdkafka through the `rdkafka` crate.
    Rdkafka,
    /// Python's `confluent-kafka`.
    Python,
    /// `kafkajs`.
    Kafkajs,
    /// Java's `kafka-clients` with default properties.
    Java,
    /// `franz-go`.
    Franz,
    /// Debian's `kcat` with its old librdkafka.
    Kcat,
}

impl Family {
    /// All of them.
    pub const ALL: [Family; 6] = [Family::Rdkafka, Family::Python, Family::Kafkajs, Family::Java, Family::Franz, Family::Kcat];

    /// A short name, for topics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Family::Rdkafka => "rdkafka",
            Family::Python => "python",
            Family::Kafkajs => "kafkajs",
            Family::Java => "java",
            Family::Franz => "franz",
            Family::Kcat => "kcat",
        }
    }

    /// Kafka's names of the codecs that the family writes.
    pub fn codecs(self) -> &'static [&'static str] {
        &["none", "gzip", "snappy", "lz4", "zstd"]
    }

    /// The command that runs the program; the task is its last argument. Everything it needs is fetched first, or the test ends
    /// without a verdict if a toolchain is missing.
    pub fn command(self) -> Result<Command> {
        match self {
            Family::Rdkafka => Ok(Command::new(paths::binary("thalweg-tests", "client-rdkafka")?)),
            Family::Kcat => {
                require(&["kcat"], "Debian: kcat")?;
                Ok(Command::new(paths::binary("thalweg-tests", "client-kcat")?))
            }
            Family::Python => python(),
            Family::Kafkajs => {
                let dir = kafkajs()?;
                let mut command = Command::new("node");
                command.arg(paths::client_sources().join("kafkajs/client.js")).env("NODE_PATH", dir.join("node_modules"));
                Ok(command)
            }
            Family::Java => java("Client"),
            Family::Franz => franz(),
        }
    }
}

fn source(path: &str) -> PathBuf {
    paths::client_sources().join(path)
}

fn python() -> Result<Command> {
    require(&["python3"], "Debian: python3 python3-venv")?;
    let requirements = source("python/requirements.txt");
    let dir = prepared("python", std::slice::from_ref(&requirements), |dir| {
        let mut venv = Command::new("python3");
        venv.args(["-m", "venv"]).arg(dir.join("venv"));
        output(venv)?;
        let mut pip = Command::new(dir.join("venv/bin/pip"));
        pip.args(["install", "--quiet", "--disable-pip-version-check", "--requirement"]).arg(&requirements);
        output(pip).map(drop)
    })?;
    let mut command = Command::new(dir.join("venv/bin/python"));
    command.arg(source("python/client.py"));
    Ok(command)
}

/// A directory whose `node_modules` holds kafkajs and the usual codec plug-ins.
pub fn kafkajs() -> Result<PathBuf> {
    require(&["node", "npm"], "Debian: nodejs npm")?;
    let inputs = [source("kafkajs/package.json"), source("kafkajs/package-lock.json"), source("kafkajs/.npmrc")];
    prepared("kafkajs", &inputs, |dir| {
        for input in &inputs {
            std::fs::copy(input, dir.join(input.file_name().context("a file has a name")?))?;
        }
        let mut npm = Command::new("npm");
        npm.args(["ci", "--silent", "--ignore-scripts"]).current_dir(dir);
        output(npm).map(drop)
    })
}

/// The command that runs one of our Java programs against the newest `kafka-clients`.
pub fn java(class: &str) -> Result<Command> {
    require(&["java", "javac", "mvn"], "Debian: openjdk-17-jdk-headless maven")?;
    let inputs = [source("java/pom.xml"), source("java/Client.java"), source("java/Exchange.java"), source("java/Corpus.java")];
    let dir = prepared("java", &inputs, |dir| {
        copy_maven_dependencies(&inputs[0], &dir.join("lib"))?;
        let mut javac = Command::new("javac");
        javac.arg("-cp").arg(format!("{}/*", dir.join("lib").display())).arg("-d").arg(dir.join("classes")).args(&inputs[1..]);
        output(javac).map(drop)
    })?;
    let mut command = Command::new("java");
    command.args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error"]);
    command.arg("-cp").arg(format!("{}:{}/*", dir.join("classes").display(), dir.join("lib").display())).arg(class);
    Ok(command)
}

fn franz() -> Result<Command> {
    require(&["go"], "Debian: golang-go")?;
    let dir = source("franz");
    let inputs = ["go.mod", "go.sum", "main.go"].map(|f| dir.join(f));
    let built = prepared("franz", &inputs, |into: &Path| {
        let mut go = Command::new("go");
        go.args(["build", "-o"]).arg(into.join("client")).arg(".").current_dir(&dir);
        output(go).map(drop)
    })?;
    Ok(Command::new(built.join("client")))
}
