//! A private network, so that a test may have Kafka's own port 9092 for itself.

use std::process::Command;

use anyhow::{Result, ensure};

use crate::ports::is_free;
use crate::skip::{is_installed, is_root, skip};

/// Set in the run of a test inside of its own network.
const INSIDE: &str = "THALWEG_TESTS_INSIDE";

/// Where a test goes on.
#[derive(Debug, PartialEq, Eq)]
pub enum Network {
    /// Here: these ports are free.
    Here,
    /// It has been run in a network of its own, and its claim holds.
    RunElsewhere,
}

/// Gives a test a network in which these ports are free: root's tests run themselves again in a new network namespace, others take the
/// machine's network if the ports are free there.
pub fn with_free_ports(test: &str, ports: impl IntoIterator<Item = u16>) -> Result<Network> {
    if std::env::var_os(INSIDE).is_some() {
        return Ok(Network::Here);
    }
    if is_root() && ["unshare", "ip"].iter().all(|p| is_installed(p)) && can_unshare() {
        let mut inner = Command::new("unshare");
        inner.args(["--net", "--", "sh", "-c", "ip link set lo up && exec \"$0\" \"$@\""]).arg(std::env::current_exe()?);
        let status = inner.args(["--exact", test, "--nocapture"]).env(INSIDE, "1").status()?;
        ensure!(status.success(), "{test} failed in a network of its own ({status}); its output stands above");
        return Ok(Network::RunElsewhere);
    }
    match ports.into_iter().find(|&port| !is_free(port)) {
        None => Ok(Network::Here),
        Some(taken) => Err(skip(format!("port {taken} is taken, and only root can make a network of its own"))),
    }
}

/// Containers may forbid it even to root.
fn can_unshare() -> bool {
    Command::new("unshare").args(["--net", "--", "ip", "link", "set", "lo", "up"]).status().is_ok_and(|s| s.success())
}
