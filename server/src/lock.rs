//! The lock of a data directory: as Thalweg's broker takes it (flock) and as Kafka's does (a record lock), so that while a tool
//! has both, neither starts there. And who has it, without touching it: taking it, even for a moment, could make a start fail.

use anyhow::{Context, Result, bail};
use rustix::{
    fs::{FlockOperation, fcntl_lock, flock},
    io::Errno,
};
use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::{
        fd::{AsRawFd, RawFd},
        linux::fs::MetadataExt,
        unix::fs::MetadataExt as _,
    },
    path::Path,
    time::{Duration, Instant},
};

/// The file that a broker locks, Thalweg's and Kafka's.
pub const FILE: &str = ".lock";
/// Where the kernel lists the locks of all processes.
const LOCKS: &str = "/proc/locks";
/// Bytes that are asked for at once: more than the kernel gives.
const LOCKS_READ_BYTES: usize = 64 << 10;
/// How often the list is looked at before nobody is said to have a lock: where it is longer than a page one may be missed.
const LOOKS_MAX: usize = 3;
/// How long the lock of a process that runs, or that can't be seen, is waited for.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// The same for one that has ended: its I/O holds the lock until the kernel has finished it, and on a disk that is slow to flush
/// that takes as long as the flush.
const ENDED_WAIT_MAX: Duration = Duration::from_secs(60);
/// From then on a wait is told of: else it looks like a process that hangs.
pub const SAY_AFTER: Duration = Duration::from_millis(500);

/// How long the lock of `holder` is waited for.
#[must_use]
pub fn wait_max(holder: Option<Holder>) -> Duration {
    if holder.is_some_and(|holder| !holder.is_running()) { ENDED_WAIT_MAX } else { WAIT_MAX }
}

/// The lock of a stopped broker's directory; it ends when this is dropped.
pub struct Lock {
    file: Option<File>,
}

impl Lock {
    /// Takes the lock for work on the directory. One without a lock file belongs to no broker: there is nothing to take.
    ///
    /// # Errors
    /// A broker uses the directory; `remedy` is what to do then. Or the file can't be opened.
    pub fn exclusive(data_dir: &Path, remedy: &str) -> Result<Lock> {
        take(data_dir, File::options().read(true).write(true), FlockOperation::NonBlockingLockExclusive, remedy)
    }

    /// The same for reading only: a file opened for reading is enough, and others may read meanwhile.
    ///
    /// # Errors
    /// As [`Lock::exclusive`].
    pub fn shared(data_dir: &Path, remedy: &str) -> Result<Lock> {
        take(data_dir, File::options().read(true), FlockOperation::NonBlockingLockShared, remedy)
    }

    /// Says in the file whose it is, as a broker does.
    pub fn sign(&self) {
        self.file.as_ref().into_iter().for_each(sign);
    }

    /// The locked file, for a ring that is to hold it until its last I/O has ended. `None` where there is none.
    #[must_use]
    pub fn descriptor(&self) -> Option<RawFd> {
        self.file.as_ref().map(File::as_raw_fd)
    }
}

fn take(data_dir: &Path, options: &OpenOptions, operation: FlockOperation, remedy: &str) -> Result<Lock> {
    let path = data_dir.join(FILE);
    if !path.is_file() {
        return Ok(Lock { file: None });
    }
    let file = options.open(&path).with_context(|| format!("can't open {}: run this as the user of that broker", path.display()))?;
    let (began, mut waits) = (Instant::now(), false);
    // Both or none: who has got the first only tries again, or closes the file.
    while let Err(error) = flock(&file, operation).and_then(|()| fcntl_lock(&file, operation)) {
        if !matches!(error, Errno::WOULDBLOCK | Errno::ACCESS) {
            bail!("{} can't be locked: {error}", path.display());
        }
        let holder = holder(data_dir);
        if holder.is_some_and(Holder::is_running) || began.elapsed() > wait_max(holder) {
            bail!("{} is in use by {}: {remedy}", data_dir.display(), name_of(data_dir, holder));
        }
        if began.elapsed() > SAY_AFTER && !std::mem::replace(&mut waits, true) {
            say_waiting(data_dir, holder);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(Lock { file: Some(file) })
}

/// Says that the lock is waited for.
pub fn say_waiting(data_dir: &Path, holder: Option<Holder>) {
    tracing::warn!(
        "{} is in use by {}: waiting for it, {} s at most",
        data_dir.display(),
        name_of(data_dir, holder),
        wait_max(holder).as_secs()
    );
}

/// A holder for people.
#[must_use]
pub fn name_of(data_dir: &Path, holder: Option<Holder>) -> String {
    // btrfs names another device than the kernel's list of locks: then who has signed last.
    let holder = holder.or_else(|| signer(data_dir));
    holder.map_or_else(|| "another process".into(), |holder| holder.to_string())
}

fn signer(data_dir: &Path) -> Option<Holder> {
    let pid = std::fs::read_to_string(data_dir.join(FILE)).ok()?.trim().parse().ok()?;
    Some(Holder { pid }).filter(|holder| holder.is_running())
}

/// Writes our process into a lock file, for whoever finds it locked. It is not needed for anything else.
pub fn sign(mut file: &File) {
    let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
}

/// The process that has a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its id.
    pub pid: i64,
}

impl Holder {
    /// Whether the process still runs. The lock of one that has ended is held for a moment by what its ring had begun.
    #[must_use]
    pub fn is_running(self) -> bool {
        // `1234 (thalweg) Z 1 …`: the name may hold anything, a `)` too.
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pid = self.pid;
        match std::fs::read_to_string(format!("/proc/{pid}/comm")) {
            Ok(name) if self.is_running() => write!(f, "process {pid} ({})", name.trim()),
            _ => write!(f, "process {pid}, which has ended, but not its I/O"),
        }
    }
}

/// Which other process has the lock of `data_dir`.
#[must_use]
pub fn holder(data_dir: &Path) -> Option<Holder> {
    let lock = std::fs::metadata(data_dir.join(FILE)).ok()?;
    let device = lock.st_dev();
    let id = format!("{:02x}:{:02x}:{}", rustix::fs::major(device), rustix::fs::minor(device), lock.ino());
    (0..LOOKS_MAX).find_map(|_| holder_in(&locks().ok()?, &id, std::process::id()))
}

/// The kernel's list of locks. One read is one moment, of a page at most; between two of them locks come and go, and others may be
/// skipped. So there is no small read, as `read_to_string` begins with.
fn locks() -> io::Result<String> {
    let mut file = File::open(LOCKS)?;
    let (mut all, mut page) = (Vec::new(), vec![0; LOCKS_READ_BYTES]);
    loop {
        match file.read(&mut page)? {
            0 => return Ok(String::from_utf8_lossy(&all).into_owned()),
            read => all.extend_from_slice(&page[..read]),
        }
    }
}

/// `1: FLOCK  ADVISORY  WRITE 1234 fd:01:5678 0 EOF`
fn holder_in(locks: &str, id: &str, own: u32) -> Option<Holder> {
    let mut holders = locks.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // A line with an arrow is of one who waits.
        let [_, _, _, _, pid, found, ..] = fields[..] else { return None };
        (found == id && !line.contains("->")).then(|| Holder { pid: pid.parse().unwrap_or(-1) })
    });
    // Who has got one of the two locks, and not the other, is in the list as well.
    holders.find(|holder| holder.pid != i64::from(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_is_found_and_a_waiter_is_none() {
        let locks = "1: POSIX  ADVISORY  WRITE 71 fd:01:5678 0 EOF\n1: -> FLOCK  ADVISORY  WRITE 72 fd:01:99 0 EOF\n";
        assert_eq!(holder_in(locks, "fd:01:5678", 1), Some(Holder { pid: 71 }));
        assert_eq!(holder_in(locks, "fd:01:99", 1), None);
    }

    #[test]
    fn who_asks_is_not_the_holder() {
        let locks = "1: FLOCK  ADVISORY  WRITE 70 fd:01:5678 0 EOF\n2: POSIX  ADVISORY  WRITE 71 fd:01:5678 0 EOF\n";
        assert_eq!(holder_in(locks, "fd:01:5678", 70), Some(Holder { pid: 71 }));
        assert_eq!(holder_in(locks, "fd:01:5678", 71), Some(Holder { pid: 70 }));
        assert_eq!(holder_in(&locks[..locks.len() / 2], "fd:01:5678", 70), None);
    }

    #[test]
    fn a_lock_that_is_held_is_seen_and_one_that_is_not_is_not() {
        let directory = tempfile::tempdir().expect("a directory");
        assert_eq!(holder(directory.path()), None);
        let lock = directory.path().join(FILE);
        std::fs::File::create(&lock).expect("created");
        assert_eq!(holder(directory.path()), None);
        let child = std::process::Command::new("flock").args(["--no-fork", "--exclusive"]).arg(&lock).args(["sleep", "600"]).spawn();
        let mut child = child.expect("util-linux");
        let pid = i64::from(child.id());
        while child.try_wait().expect("its state").is_none() && holder(directory.path()).is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        // Others come and go meanwhile, in front of it in the list and behind it.
        let others: Vec<_> = (0..20).map(|at| File::create(directory.path().join(at.to_string())).expect("created")).collect();
        let ends = std::sync::mpsc::channel::<()>();
        let churn = std::thread::spawn(move || {
            while ends.1.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                others.iter().for_each(|other| flock(other, FlockOperation::LockExclusive).expect("locked"));
                others.iter().for_each(|other| flock(other, FlockOperation::Unlock).expect("unlocked"));
            }
        });
        let found: Vec<_> = (0..3_000).map(|_| holder(directory.path())).collect();
        drop(ends.0);
        churn.join().expect("ended");
        child.kill().and_then(|()| child.wait()).expect("killed");
        let missed = found.iter().filter(|found| **found != Some(Holder { pid })).count();
        assert_eq!(missed, 0, "of {}", found.len());
    }

    #[test]
    fn a_holder_is_named() {
        let own = Holder { pid: std::process::id().into() };
        let name = own.to_string();
        assert!(name.starts_with(&format!("process {} (", own.pid)) && name.ends_with(')'), "{name}");
        let directory = tempfile::tempdir().expect("a directory");
        assert_eq!(name_of(directory.path(), None), "another process");
        sign(&File::create(directory.path().join(FILE)).expect("created"));
        assert_eq!(name_of(directory.path(), None), name);
    }

    #[test]
    fn a_process_that_has_ended_does_not_run() {
        let mut child = std::process::Command::new("true").spawn().expect("started");
        let holder = Holder { pid: child.id().into() };
        // Waited for by nobody, it is a zombie: it has ended nonetheless.
        while holder.is_running() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        assert_eq!(holder.to_string(), format!("process {}, which has ended, but not its I/O", holder.pid));
        child.wait().expect("ended");
        assert!(!holder.is_running());
    }
}
