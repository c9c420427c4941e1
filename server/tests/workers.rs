//! What the kernel hands to a worker thread, by io_uring's own tracepoint: on the write path nothing but flushes.
#![allow(missing_docs, clippy::disallowed_types)]

mod support;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};
use support::*;

const TRACING: &str = "/sys/kernel/tracing";

/// The tracepoint of queued work, in an instance of its own, for the threads of one process.
struct Trace {
    instance: PathBuf,
    mounted: bool,
}

impl Trace {
    /// `None` where this user may not trace.
    fn start(pid: u32) -> Option<Trace> {
        let is_there = || Path::new(TRACING).join("instances").is_dir();
        let mounts = || Command::new("mount").args(["-t", "tracefs", "none", TRACING]).output().is_ok_and(|done| done.status.success());
        let mounted = !is_there() && mounts();
        let trace = Trace { instance: Path::new(TRACING).join(format!("instances/thalweg-{pid}")), mounted };
        let begun = trace.begin(pid);
        begun.inspect_err(|error| eprintln!("skipped: no tracing here: {error}")).ok()?;
        Some(trace)
    }

    fn begin(&self, pid: u32) -> io::Result<()> {
        fs::create_dir(&self.instance)?;
        let threads: Vec<String> =
            fs::read_dir(format!("/proc/{pid}/task"))?.flatten().map(|task| task.file_name().to_string_lossy().into_owned()).collect();
        fs::write(self.instance.join("set_event_pid"), threads.join(" "))?;
        fs::write(self.instance.join("events/io_uring/io_uring_queue_async_work/enable"), "1")
    }

    /// How often each operation went to a worker.
    fn operations(&self) -> BTreeMap<String, usize> {
        let trace = fs::read_to_string(self.instance.join("trace")).unwrap();
        let mut counts = BTreeMap::new();
        for line in trace.lines() {
            if let Some((operation, _)) = line.split_once("opcode ").and_then(|(_, rest)| rest.split_once(',')) {
                *counts.entry(operation.to_owned()).or_default() += 1;
            }
        }
        counts
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.instance);
        if self.mounted {
            let _ = Command::new("umount").arg(TRACING).output();
        }
    }
}

#[test]
fn no_kernel_worker_is_on_the_write_path_but_for_flushes() {
    let broker = Broker::start(1);
    let mut client = broker.connect();
    client.topic("worked");
    let (small, large) = (batch(b"small"), batch(&vec![9; 900_000]));
    assert_eq!(produced(&client.call(PRODUCE, 7, &produce("worked", 0, -1, &large))).0, 0);
    let Some(trace) = Trace::start(broker.pid()) else { return };
    for _ in 0..40 {
        assert_eq!(produced(&client.call(PRODUCE, 7, &produce("worked", 0, -1, &large))).0, 0);
        assert_eq!(produced(&client.call(PRODUCE, 7, &produce("worked", 0, -1, &small))).0, 0);
    }
    let operations = trace.operations();
    let count = |operation: &str| operations.get(operation).copied().unwrap_or_default();
    assert!(count("FSYNC") >= 80, "every ack has a flush: {operations:?}");
    // A write goes to a worker only where it would have to wait: for a slot of a device that others keep busy.
    let writes = count("WRITE") + count("WRITEV");
    assert!(writes <= 8, "one write in ten: {operations:?}");
    // Space is allocated ahead of the writes: the size is set, then the blocks.
    let allowed = ["FSYNC", "FTRUNCATE", "FALLOCATE", "WRITE", "WRITEV"];
    assert!(operations.keys().all(|operation| allowed.contains(&operation.as_str())), "{operations:?}");
}
