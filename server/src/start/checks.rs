//! What a broker needs of its machine, checked before it starts: each failure names its cause and the remedy.

use crate::{config::size, journal_owner, lock};
use anyhow::{anyhow, bail};
use engine::log::LogConfig;
use io_uring_of_tokio::{IoUring, cqueue, squeue::Entry};
use rustix::{
    fs::{FlockOperation, flock, fstat, major, minor, statfs},
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::{Duration, Instant},
};

/// The oldest kernel.
const KERNEL_MIN: (u32, u32) = (6, 1);
/// Open files below which the start screen says so.
const OPEN_FILES_LOW: u64 = 65_536;
/// Locked memory below which the start screen says so: rings of many cores are charged to it before Linux 5.12.
const MEMLOCK_LOW: u64 = 8 << 20;

/// The data directory as it was found.
pub struct Directory {
    /// Its lock, held for as long as this is open.
    pub lock: File,
    /// That of a journal elsewhere: two data directories must not use it at the same time.
    _journal_lock: Option<File>,
    /// Files can be opened with O_DIRECT.
    pub direct: bool,
    /// Its filesystem.
    pub filesystem: String,
    /// What the operator should know about it.
    pub warnings: Vec<String>,
}

/// Raises the limit of open files to the hard one. Returns what the operator should know.
pub fn raise_limits() -> Vec<String> {
    let mut warnings = Vec::new();
    let files = getrlimit(Resource::Nofile);
    if files.current != files.maximum {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: files.maximum, maximum: files.maximum });
    }
    if let Some(files) = getrlimit(Resource::Nofile).current.filter(|files| *files < OPEN_FILES_LOW) {
        warnings.push(format!("open files: {files} (each connection and segment needs one; raise the hard limit: LimitNOFILE=1048576)"));
    }
    if let Some(bytes) = getrlimit(Resource::Memlock).current.filter(|bytes| *bytes < MEMLOCK_LOW) {
        warnings.push(format!("locked memory: {} (LimitMEMLOCK=infinity lifts it)", size::show(bytes)));
    }
    warnings
}

/// The kernel is new enough and lets us use io_uring.
///
/// # Errors
/// With cause and remedy.
pub fn io_uring() -> anyhow::Result<()> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    let version: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < KERNEL_MIN {
        bail!("Linux {release} is too old: {}.{} or newer is needed (Debian 12, Ubuntu 24.04, RHEL 10)", KERNEL_MIN.0, KERNEL_MIN.1);
    }
    let ring = IoUring::<Entry, cqueue::Entry>::builder().setup_single_issuer().setup_coop_taskrun().setup_taskrun_flag().build(8);
    ring.map(drop).map_err(|error| match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => anyhow!(
            "io_uring is disabled ({error}). If `sysctl kernel.io_uring_disabled` is not 0: `sysctl -w kernel.io_uring_disabled=0`. In a \
             container its seccomp profile forbids it: Docker needs --security-opt seccomp=unconfined or a profile that allows io_uring_*"
        ),
        Some(libc::ENOSYS) => anyhow!("this kernel has no io_uring ({error}): CONFIG_IO_URING is off, or a sandbox hides it"),
        Some(libc::ENOMEM) => anyhow!("no memory for an io_uring ({error}): raise the limit of locked memory (ulimit -l, LimitMEMLOCK=)"),
        Some(libc::EMFILE | libc::ENFILE) => anyhow!("no more open files ({error}): raise the limit (ulimit -n, LimitNOFILE=)"),
        _ => anyhow!("io_uring does not work here: {error}"),
    })
}

/// Makes the directories, takes the lock, sees that the journal is not another directory's, and looks at the filesystem.
///
/// # Errors
/// With cause and remedy.
pub fn directories(config: &LogConfig, allow_buffered: bool) -> anyhow::Result<Directory> {
    let path = &config.data_dir;
    for path in [path, &config.journal_dir] {
        std::fs::create_dir_all(path).map_err(|error| not_writable(path, &error))?;
    }
    let lock = take_lock(path, "--data-dir")?;
    let journal_lock = match std::fs::canonicalize(&config.journal_dir)?.starts_with(std::fs::canonicalize(path)?) {
        true => None,
        false => Some(take_lock(&config.journal_dir, "--journal-dir")?),
    };
    journal_owner::check(path, &config.journal_dir)?;
    let mut direct = true;
    for path in [path, &config.journal_dir] {
        direct &= has_direct(path, allow_buffered)?;
    }
    let (filesystem, warnings) = filesystem(path).unwrap_or_else(|| ("unknown".into(), Vec::new()));
    Ok(Directory { lock, _journal_lock: journal_lock, direct, filesystem, warnings })
}

/// Also waits for a process that runs: it may be a broker that is being stopped.
fn take_lock(path: &Path, option: &str) -> anyhow::Result<File> {
    let lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path.join(lock::FILE))
        .map_err(|error| not_writable(path, &error))?;
    let (began, mut waits) = (Instant::now(), false);
    while let Err(error) = flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        if error != rustix::io::Errno::WOULDBLOCK {
            bail!("{} can't be locked: {error}", path.display());
        }
        let holder = lock::holder(path);
        if began.elapsed() > lock::wait_max(holder) {
            let holder = lock::name_of(path, holder);
            bail!("{} is in use by {holder}: stop it, or choose another directory with {option}", path.display());
        }
        if began.elapsed() > lock::SAY_AFTER && !std::mem::replace(&mut waits, true) {
            lock::say_waiting(path, holder);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    lock::sign(&lock);
    Ok(lock)
}

fn has_direct(path: &Path, allow_buffered: bool) -> anyhow::Result<bool> {
    let probe = path.join(".o-direct");
    let opened = OpenOptions::new().write(true).create(true).truncate(true).custom_flags(libc::O_DIRECT).open(&probe);
    let _ = std::fs::remove_file(&probe);
    match opened {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) && allow_buffered => Ok(false),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => bail!(
            "the filesystem of {} has no O_DIRECT: use another (XFS or ext4), or go on without it, slower, with --allow-buffered",
            path.display()
        ),
        Err(error) => Err(not_writable(path, &error)),
    }
}

fn not_writable(path: &Path, error: &io::Error) -> anyhow::Error {
    let remedy = match error.kind() {
        io::ErrorKind::PermissionDenied => "give this user the right to write there (chown), or choose another directory with --data-dir",
        io::ErrorKind::ReadOnlyFilesystem => "it is mounted read-only: mount it for writing, or choose another directory with --data-dir",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "the disk is full: make room for the journal, or choose another directory with --data-dir"
        }
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => "a file is in its place: choose another directory with --data-dir",
        _ => "choose another directory with --data-dir",
    };
    anyhow!("{} can't be written to ({error}): {remedy}", path.display())
}

/// The filesystem's name, and what its kind means for durability.
fn filesystem(path: &Path) -> Option<(String, Vec<String>)> {
    let kind = statfs(path).ok()?.f_type as u64;
    let mut warnings = Vec::new();
    let name = match kind {
        0xEF53 => match ext4_has_journal(path) {
            Some(true) => "ext4 with a metadata journal".into(),
            Some(false) => {
                warnings.push(
                    "ext4 without a metadata journal: after a power cut the filesystem itself is not safe, and so no data is (tune2fs -O has_journal)"
                        .into(),
                );
                "ext4 without a metadata journal".into()
            }
            None => "ext4".into(),
        },
        0x5846_5342 => "XFS".into(),
        0x9123_683E => {
            warnings.push("btrfs copies on write: expect fragmentation and slow flushes; XFS is recommended".into());
            "btrfs".into()
        }
        0x0102_1994 => {
            warnings.push("tmpfs is memory: nothing survives a restart of the machine".into());
            "tmpfs".into()
        }
        0x794C_7630 => {
            warnings.push("overlayfs: put the data on a volume of its own".into());
            "overlayfs".into()
        }
        0x2FC1_2FC1 => "ZFS".into(),
        other => format!("filesystem {other:#x}"),
    };
    Some((name, warnings))
}

/// ext4's journal has an entry in /proc/fs/jbd2, named after the device.
fn ext4_has_journal(path: &Path) -> Option<bool> {
    let device = fstat(File::open(path).ok()?).ok()?.st_dev;
    let link = std::fs::read_link(format!("/sys/dev/block/{}:{}", major(device), minor(device))).ok()?;
    let name = link.file_name()?.to_str()?.to_owned();
    let journals = match std::fs::read_dir("/proc/fs/jbd2") {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Path::new("/proc/fs/ext4").exists().then_some(false),
        Err(_) => return None,
    };
    let prefix = format!("{name}-");
    Some(journals.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with(&prefix)))
}
