//! The load commands as processes of their own, so that each has its own CPU time, and anyone can repeat one by hand.

use super::{child::finish, subject::Server};
use anyhow::{Context, Result};
use serde_json::Value;
use std::process::{Command, Stdio};

/// Runs this program with these words and gives its JSON.
///
/// # Errors
/// It fails: what it printed is part of the error.
pub fn run(words: &[String]) -> Result<Value> {
    let mut command = Command::new(std::env::current_exe()?);
    // Its progress line and its errors go to our terminal.
    command.args(words).arg("--json").stderr(Stdio::inherit());
    let output = finish(command)?;
    anyhow::ensure!(output.status.success(), "thalweg-bench {} failed: {}", words.join(" "), output.status);
    serde_json::from_slice(&output.stdout).with_context(|| format!("the JSON of thalweg-bench {}", words.join(" ")))
}

/// Runs a load command against a broker.
///
/// # Errors
/// It fails.
pub fn load(words: &[String], server: &Server, topic: &str, load_cpu: usize) -> Result<Value> {
    let mut words = words.to_vec();
    let options = [("--broker", server.address.clone()), ("--topic", topic.to_owned()), ("--cpu", load_cpu.to_string())];
    words.extend(options.into_iter().flat_map(|(name, value)| [name.to_owned(), value]));
    if let Some(pid) = server.pid() {
        words.extend(["--broker-pid".to_owned(), pid.to_string()]);
    }
    run(&words)
}
