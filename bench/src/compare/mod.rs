//! `compare`: Thalweg and other brokers in turn, on the same cores and disk, beside the machine's own limits.
//!
//! `workloads` says what is run, `course` runs it, `subject` and `kafka` start the brokers, `work` is where they write, `topics`
//! what they are loaded with, `limits` measures the machine, `interrupt` ends all of it cleanly,
//! `result` holds what was found; `table`, `page` and `svg` show it.

mod args;
mod bench;
mod child;
mod compaction;
mod course;
mod cross_check;
mod interrupt;
mod kafka;
mod limits;
mod machine;
mod page;
mod result;
mod stalls;
mod subject;
mod svg;
mod table;
mod topics;
mod work;
mod workloads;

pub use args::Compare;

use anyhow::{Context, Result};
use std::fs;

/// Runs a comparison, prints its table and writes its JSON and its page.
///
/// # Errors
/// A broker or a measurement fails, or lost data.
pub fn run(args: &Compare) -> Result<()> {
    let comparison = course::run(args)?;
    table::print(&comparison);
    fs::create_dir_all(&args.out).with_context(|| format!("{}", args.out.display()))?;
    let json = args.out.join(format!("{}.json", comparison.workload));
    fs::write(&json, serde_json::to_string_pretty(&comparison)?)?;
    let html = args.out.join(format!("{}.html", comparison.workload));
    fs::write(&html, page::page(&comparison))?;
    println!("written: {} and {}", json.display(), html.display());
    Ok(())
}
