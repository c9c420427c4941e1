//! The one screen that a start prints.

use super::checks::Directory;
use crate::{
    config::{Config, size},
    settings::Node,
};
use std::{net::SocketAddr, time::Duration};

/// Says what this broker is and stands on.
pub fn show(config: &Config, nodes: &[Node], metrics: Option<SocketAddr>, directory: &Directory, limits: &[String]) {
    let absolute = std::path::absolute(&config.log.data_dir).unwrap_or_else(|_| config.log.data_dir.clone());
    println!("thalweg {}", env!("CARGO_PKG_VERSION"));
    for (node, (cpu, reached)) in config.cpus.iter().zip(nodes).enumerate() {
        println!("  core {node:<3}       CPU {}, {}:{}", cpu.id, reached.host, reached.port);
    }
    println!("  data           {}", absolute.display());
    println!("  filesystem     {}, O_DIRECT {}", directory.filesystem, if directory.direct { "yes" } else { "no (--allow-buffered)" });
    let journal_dir = match config.log.journal_dir.starts_with(&config.log.data_dir) {
        true => String::new(),
        false => format!(" in {}", config.log.journal_dir.display()),
    };
    println!("  journal        {} a core{journal_dir}", size::show(config.log.journal_bytes));
    match metrics {
        Some(address) => println!("  metrics        http://{address}/metrics and /health"),
        None => println!("  metrics        none"),
    }
    for warning in directory.warnings.iter().chain(limits) {
        println!("  note           {warning}");
    }
}

/// Says that clients may come.
pub fn serving(nodes: &[Node], took: Duration) {
    let first = &nodes[0];
    println!("ready after {} ms; bootstrap servers: {}:{}", took.as_millis(), first.host, first.port);
}
