//! What a process has cost: CPU time of all its threads (kernel workers of its rings among them) and peak memory.

use anyhow::{Context, Result};
use std::fs;

/// A reading of a process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// User and system time in seconds.
    pub cpu_seconds: f64,
    /// The resident size, in bytes.
    pub memory_bytes: u64,
    /// The largest resident size so far, in bytes.
    pub memory_bytes_max: u64,
}

/// Reads a process's usage; `None` is this process.
///
/// # Errors
/// It is gone.
pub fn usage(pid: Option<u32>) -> Result<Usage> {
    let directory = pid.map_or_else(|| "/proc/self".to_owned(), |pid| format!("/proc/{pid}"));
    let stat = fs::read_to_string(format!("{directory}/stat")).with_context(|| format!("{directory} is gone"))?;
    // The name may hold spaces and brackets: fields count from behind its last bracket, the state being field 3.
    let fields: Vec<&str> = stat.rsplit_once(')').context("a name")?.1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    let status = fs::read_to_string(format!("{directory}/status"))?;
    let kib = |name| -> Result<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).and_then(|rest| rest.split_whitespace().next());
        Ok(line.map_or(Ok(0), str::parse::<u64>)?)
    };
    let per_second = rustix::param::clock_ticks_per_second() as f64;
    Ok(Usage { cpu_seconds: ticks as f64 / per_second, memory_bytes: kib("VmRSS:")? * 1024, memory_bytes_max: kib("VmHWM:")? * 1024 })
}

/// Pins the calling thread to a CPU.
///
/// # Errors
/// There is no such CPU, or it may not be used.
pub fn pin(cpu: Option<usize>) -> Result<()> {
    if let Some(cpu) = cpu {
        anyhow::ensure!(core_affinity::set_for_current(core_affinity::CoreId { id: cpu }), "CPU {cpu} can't be used");
    }
    Ok(())
}
