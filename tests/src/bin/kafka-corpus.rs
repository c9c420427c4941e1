//! Writes the corpus that `segment-dump` is compared on: a real Kafka's partition directories, with what its own `DumpLogSegments` says
//! of each file beside them.
//!
//! `cargo run --release -p thalweg-tests --bin kafka-corpus -- tools/tests/fixtures/kafka-4.3.1`

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use thalweg_tests::broker::{Broker, Kind, Options};
use thalweg_tests::clients::java;
use thalweg_tests::kafka::{self, require_kafka};
use thalweg_tests::process::output;
use thalweg_tests::scratch::Scratch;

/// How long the cleaner may take: a bound for a hang.
const CLEANED_WITHIN: Duration = Duration::from_secs(120);
/// The log end of the compacted topic, its active segment not counted: everything below is cleaned.
const CLEANED_TO: i64 = 60;
/// What the corpus may take in the repository, in bytes.
const CORPUS_BYTES_MAX: u64 = 1 << 20;

fn main() -> ExitCode {
    let Some(into) = std::env::args().nth(1) else {
        eprintln!("usage: kafka-corpus DIRECTORY");
        return ExitCode::from(2);
    };
    match Scratch::new("kafka-corpus").and_then(|scratch| write(&scratch, Path::new(&into))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kafka-corpus: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn write(scratch: &Scratch, into: &Path) -> Result<()> {
    require_kafka()?;
    let mut kafka = Broker::start(scratch, Options { kind: Kind::Kafka, ..Options::default() })?;
    let mut command = java("Corpus")?;
    command.arg(json!({"bootstrap": kafka.bootstrap()}).to_string());
    output(command)?;
    wait_for_the_cleaner(kafka.data())?;
    kafka.stop()?;

    let _ = fs::remove_dir_all(into);
    fs::create_dir_all(into)?;
    let mut bytes = 0;
    for partition in partitions(kafka.data())? {
        let to = into.join(partition.file_name().context("a directory has a name")?);
        fs::create_dir(&to)?;
        for file in files(&partition)? {
            bytes += fs::copy(&file, to.join(file.file_name().context("a file has a name")?))?;
        }
    }
    for name in ["cleaner-offset-checkpoint", "recovery-point-offset-checkpoint", "log-start-offset-checkpoint", ".kafka_cleanshutdown"] {
        bytes += fs::copy(kafka.data().join(name), into.join(name))?;
    }
    for partition in partitions(into)? {
        let text = dumped(into, &partition)?;
        bytes += text.len() as u64;
        fs::write(partition.with_extension("txt"), text)?;
    }
    ensure!(bytes <= CORPUS_BYTES_MAX, "the corpus has {bytes} bytes");
    println!("{bytes} bytes in {}", into.display());
    Ok(())
}

fn wait_for_the_cleaner(data: &Path) -> Result<()> {
    let deadline = Instant::now() + CLEANED_WITHIN;
    loop {
        let text = fs::read_to_string(data.join("cleaner-offset-checkpoint")).unwrap_or_default();
        let cleaned = text.lines().find_map(|line| line.strip_prefix("compacted 0 ")?.parse::<i64>().ok());
        if cleaned.is_some_and(|offset| offset >= CLEANED_TO) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "the cleaner has got to {cleaned:?} only");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The partitions that hold something, Kafka's own metadata left out.
fn partitions(data: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(data)? {
        let path = entry?.path();
        let is_metadata = path.ends_with("__cluster_metadata-0");
        if path.is_dir() && !is_metadata && files(&path)?.iter().any(|file| has_bytes(file, "log")) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn has_bytes(file: &Path, extension: &str) -> bool {
    file.extension().is_some_and(|found| found == extension) && fs::metadata(file).is_ok_and(|metadata| metadata.len() > 0)
}

fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> = fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    // What the cleaner has put aside is no part of the log.
    found.retain(|file| file.is_file() && file.extension().is_none_or(|extension| extension != "deleted"));
    found.sort();
    Ok(found)
}

/// What Kafka's tool says of each file of a partition, named from the corpus on. The logs of internal topics it decodes.
fn dumped(corpus: &Path, partition: &Path) -> Result<String> {
    let list = |wanted: &[&str]| -> Result<String> {
        let is_wanted = |file: &PathBuf| file.extension().is_some_and(|found| wanted.iter().any(|known| found == *known));
        let chosen = files(partition)?.into_iter().filter(is_wanted);
        Ok(chosen.map(|file| file.strip_prefix(corpus).unwrap_or(&file).display().to_string()).collect::<Vec<_>>().join(","))
    };
    let decoder = match partition.file_name().context("a directory has a name")?.to_string_lossy() {
        name if name.starts_with("__consumer_offsets-") => "--offsets-decoder",
        name if name.starts_with("__transaction_state-") => "--transaction-log-decoder",
        _ => "--print-data-log",
    };
    let logs = run(corpus, &[decoder, "--deep-iteration", "--files", &list(&["log"])?])?;
    Ok(logs + &run(corpus, &["--files", &list(&["index", "timeindex", "txnindex", "snapshot"])?])?)
}

fn run(corpus: &Path, arguments: &[&str]) -> Result<String> {
    let mut command = kafka::java("org.apache.kafka.tools.DumpLogSegments", 256)?;
    command.current_dir(corpus).args(arguments);
    output(command)
}
