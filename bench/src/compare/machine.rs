//! What a report has to say about the machine.

use super::{args::Compare, child::output};
use serde::Serialize;
use std::{fs, path::Path, process::Command};

/// Where a comparison ran.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// When, in UTC.
    pub date: String,
    /// The commit of the sources that this program stands in, if it stands in some.
    pub commit: String,
    /// Kernel release.
    pub kernel: String,
    /// CPU model.
    pub cpu: String,
    /// CPUs of the machine.
    pub cpus: usize,
    /// The broker's CPUs.
    pub broker_cpus: Vec<usize>,
    /// The load's CPU.
    pub load_cpu: usize,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// The filesystem of the data.
    pub filesystem: String,
    /// Whether it has a metadata journal: without one "durable" does not survive a power cut.
    pub metadata_journal: Option<bool>,
    /// Load average over a minute before the comparison began: other work that disturbed it.
    pub load_average: f64,
}

impl Machine {
    /// Looks at it.
    #[must_use]
    pub fn look(args: &Compare, work: &Path) -> Machine {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let line = |text: &str, name: &str| -> String {
            let found = text.lines().find(|line| line.starts_with(name)).and_then(|line| line.split_once(':'));
            found.map_or_else(String::new, |(_, value)| value.trim().to_owned())
        };
        let kib: u64 = line(&read("/proc/meminfo"), "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0);
        let (filesystem, metadata_journal) = filesystem(work);
        Machine {
            date: said(Command::new("date").args(["-u", "+%F %H:%M"])),
            commit: commit(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            cpu: line(&read("/proc/cpuinfo"), "model name"),
            cpus: read("/proc/cpuinfo").lines().filter(|line| line.starts_with("processor")).count(),
            broker_cpus: args.broker_cpus.clone(),
            load_cpu: args.load_cpu,
            memory_bytes: kib * 1024,
            filesystem,
            metadata_journal,
            load_average: read("/proc/loadavg").split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0.0),
        }
    }
}

/// What a program says, or nothing if it can't.
fn said(command: &mut Command) -> String {
    let command = std::mem::replace(command, Command::new("true"));
    output(command).map_or_else(|_| String::new(), |text| text.trim().to_owned())
}

fn commit() -> String {
    let Some(directory) = std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_owned)) else { return String::new() };
    let git = |args: &[&str]| said(Command::new("git").arg("-C").arg(&directory).args(args));
    let commit = git(&["rev-parse", "--short=12", "HEAD"]);
    match (commit.is_empty(), git(&["status", "--porcelain", "--untracked-files=no"]).is_empty()) {
        (true, _) => "unknown".to_owned(),
        (_, true) => commit,
        (_, false) => format!("{commit} with changes"),
    }
}

/// The type of the filesystem that holds a path, and whether it has a metadata journal, if that can be known.
fn filesystem(path: &Path) -> (String, Option<bool>) {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    // Later mounts lie over earlier ones, so among equals the last counts.
    let mount = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .filter(|fields| fields.len() > 3 && path.starts_with(fields[1]))
        .max_by_key(|fields| fields[1].len());
    let Some(fields) = mount else { return ("unknown".to_owned(), None) };
    let device = fields[0].rsplit('/').next().unwrap_or_default();
    let journal = match fields[2] {
        "xfs" | "btrfs" => Some(true),
        "ext4" => {
            // One directory per journal, named after its device.
            let journals = fs::read_dir("/proc/fs/jbd2").map(|entries| entries.flatten().collect::<Vec<_>>()).unwrap_or_default();
            Some(journals.iter().any(|entry| entry.file_name().to_string_lossy().starts_with(&format!("{device}-"))))
        }
        _ => None,
    };
    (format!("{} ({})", fields[2], fields[3]), journal)
}
