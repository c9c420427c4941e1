//! The one screen that a start prints.

use super::checks::Directory;
use crate::{
    config::{Config, size},
    settings::Node,
};
use engine::log::Replay;
use std::{net::SocketAddr, time::Duration};

/// What was found out before the cores begin.
pub struct Found<'a> {
    /// The cores, as clients are told.
    pub nodes: &'a [Node],
    /// The ports that they listen on.
    pub ports: &'a [u16],
    /// Where metrics are served.
    pub metrics: Option<SocketAddr>,
    /// The data directory.
    pub directory: &'a Directory,
    /// What was replayed after a run that did not stop cleanly, and how long the start's recovery took.
    pub recovery: Option<(Replay, Duration)>,
    /// Limits that are low.
    pub limits: &'a [String],
}

/// Says what this broker is and stands on.
pub fn show(config: &Config, found: &Found<'_>) {
    let absolute = std::path::absolute(&config.log.data_dir).unwrap_or_else(|_| config.log.data_dir.clone());
    println!("thalweg {}", env!("CARGO_PKG_VERSION"));
    for (node, (cpu, reached)) in config.cpus.iter().zip(found.nodes).enumerate() {
        println!("  core {node:<3}       CPU {}, {reached}", cpu.id);
    }
    let bound: Vec<Node> = found.ports.iter().map(|port| Node { host: config.listen_host.clone(), port: *port }).collect();
    if bound != found.nodes {
        println!("  listens on     {}", bound.iter().map(Node::to_string).collect::<Vec<_>>().join(", "));
    }
    println!("  data           {}", absolute.display());
    let direct = if found.directory.direct { "yes" } else { "no (--allow-buffered)" };
    println!("  filesystem     {}, O_DIRECT {direct}", found.directory.filesystem);
    let journal_dir = match config.log.journal_dir.starts_with(&config.log.data_dir) {
        true => String::new(),
        false => format!(" in {}", config.log.journal_dir.display()),
    };
    println!("  journal        {} a core{journal_dir}", size::show(config.log.journal_bytes));
    if let Some((Replay { partitions, bytes }, took)) = found.recovery {
        let (bytes, ms, s) = (size::show(bytes), took.as_millis(), if partitions == 1 { "" } else { "s" });
        println!("  recovered      the last run was not stopped cleanly: {bytes} of {partitions} partition{s} replayed in {ms} ms");
    }
    match found.metrics {
        Some(address) => println!("  metrics        http://{address}/metrics and /health"),
        None => println!("  metrics        none"),
    }
    for warning in found.directory.warnings.iter().chain(found.limits) {
        println!("  note           {warning}");
    }
}

/// Says that clients may come.
pub fn serving(nodes: &[Node], took: Duration) {
    println!("ready after {} ms; bootstrap servers: {}", took.as_millis(), nodes[0]);
}
