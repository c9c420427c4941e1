//! Whether a broker uses a data directory, without touching its lock: taking it, even for a moment, could make a start fail.

use std::{
    os::{linux::fs::MetadataExt, unix::fs::MetadataExt as _},
    path::Path,
};

/// The file that a broker locks, Thalweg's and Kafka's.
pub(crate) const LOCK_FILE: &str = ".lock";
/// Where the kernel lists the locks of all processes.
const LOCKS: &str = "/proc/locks";

/// The process that has a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) pid: i64,
}

impl Holder {
    /// Whether the process still runs. The lock of one that has ended is held for a moment by what its ring had begun.
    pub(crate) fn is_running(self) -> bool {
        // `1234 (thalweg) Z 1 …`: the name may hold anything, a `)` too.
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
    }
}

/// Who has the lock of `data_dir`.
pub(crate) fn holder(data_dir: &Path) -> Option<Holder> {
    let lock = std::fs::metadata(data_dir.join(LOCK_FILE)).ok()?;
    let device = lock.st_dev();
    let id = format!("{:02x}:{:02x}:{}", rustix::fs::major(device), rustix::fs::minor(device), lock.ino());
    holder_in(&std::fs::read_to_string(LOCKS).ok()?, &id)
}

/// `1: FLOCK  ADVISORY  WRITE 1234 fd:01:5678 0 EOF`
fn holder_in(locks: &str, id: &str) -> Option<Holder> {
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // A line with an arrow is of one who waits.
        let [_, _, _, _, pid, found, ..] = fields[..] else { return None };
        (found == id && !line.contains("->")).then(|| Holder { pid: pid.parse().unwrap_or(-1) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_is_found_and_a_waiter_is_none() {
        let locks = "1: POSIX  ADVISORY  WRITE 71 fd:01:5678 0 EOF\n1: -> FLOCK  ADVISORY  WRITE 72 fd:01:99 0 EOF\n";
        assert_eq!(holder_in(locks, "fd:01:5678"), Some(Holder { pid: 71 }));
        assert_eq!(holder_in(locks, "fd:01:99"), None);
    }

    #[test]
    fn a_lock_that_is_held_is_seen_and_one_that_is_not_is_not() {
        let directory = tempfile::tempdir().expect("a directory");
        assert_eq!(holder(directory.path()), None);
        let file = std::fs::File::create(directory.path().join(LOCK_FILE)).expect("created");
        assert_eq!(holder(directory.path()), None);
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).expect("locked");
        assert!(holder(directory.path()).is_some_and(Holder::is_running));
    }

    #[test]
    fn a_process_that_has_ended_does_not_run() {
        let mut child = std::process::Command::new("true").spawn().expect("started");
        let holder = Holder { pid: child.id().into() };
        // Waited for by nobody, it is a zombie: it has ended nonetheless.
        while holder.is_running() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        child.wait().expect("ended");
        assert!(!holder.is_running());
    }
}
