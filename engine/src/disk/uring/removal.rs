//! Removed files give their space back in small steps, on a thread of their own.
//!
//! On a filesystem that is mounted with `discard` (ext4 and XFS know it; many images of virtual machines have it) whoever frees blocks
//! waits until the device has forgotten them, and so does everybody else who wants something of the device: on one virtual disk 64 MiB
//! took 60 to 130 ms in which no flush ended, and so no append was acked (docs/benchmarks.md). So a large file loses its name at
//! once, and its blocks in steps from its end on, each followed by a pause.
//!
//! Nobody may see that. So a file is only cut when
//!
//! - it has no name any more, and that is durable;
//! - nobody else has it open, which the kernel says by granting a write lease (fcntl(2), `F_SETLEASE`);
//! - none of it is in the page cache. What sendfile has put into a socket are pages of the cache, long after the descriptor was closed, and
//!   a cut within a large folio fills a part of them with zeros (`truncate_inode_partial_folio`). The kernel drops from the cache what
//!   nobody holds, so what stays there is held. Without a name and a descriptor nothing comes back.
//!
//! Whatever stands in the way of that, the file is just closed in the end, and the kernel frees it as ever. The same happens when the process
//! ends.

use super::super::{FREE_BYTES_MIN, cached_pages, producers::has_producers_now};
use rustix::{
    fs::{Advice, fadvise, fstatvfs},
    process::getpid,
    thread::{sched_getaffinity, sched_setaffinity},
};
use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    fs::File,
    io,
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    sync::{
        OnceLock,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

/// Files of at least so many bytes are freed in steps.
pub(super) const LARGE_BYTES: u64 = 1 << 20;
/// What a step frees at least, and at first, and at most, in bytes. A cut takes its time whatever it frees: on one disk 0.4 to 2.5 ms for
/// 64 KiB and for 1 MiB.
const STEP_BYTES_MIN: u64 = 1 << 20;
const STEP_BYTES_MAX: u64 = 64 << 20;
/// A step that took longer is followed by smaller ones, one that took less than a quarter of it by larger ones.
const STEP_TIME: Duration = Duration::from_millis(2);
/// So many times as long as a step took is the pause behind it beside producers, and where there are none: others read, and
/// those that come then are to find half of the disk's time at least.
const PAUSES: u32 = 7;
const PAUSES_ALONE: u32 = 1;
/// If more than this can be freed and waits, in bytes, or less than [`FREE_BYTES_MIN`] is free, there are no pauses.
const WAITING_BYTES_MAX: u64 = 4 << 30;
/// A file that others still need is looked at again after this time, and so often: then it is closed.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
const LOOKS_MAX: u32 = 600;
/// Files that wait at most: the oldest is closed.
const FILES_MAX: usize = 256;

/// Files that have lost their name, by the directory that had it, until that is durable: after a power cut before that they are there
/// again, and so must be whole.
#[derive(Default)]
pub(super) struct Nameless(RefCell<BTreeMap<PathBuf, Vec<File>>>);

impl Nameless {
    /// `path` was its name.
    pub fn add(&self, path: &Path, file: Option<File>) {
        if let (Some(directory), Some(file)) = (path.parent(), file) {
            self.0.borrow_mut().entry(directory.to_path_buf()).or_default().push(file);
        }
    }

    /// Those of a directory. Whoever makes their loss durable takes them before: what comes meanwhile may not be.
    pub fn take(&self, directory: &Path) -> Vec<File> {
        self.0.borrow_mut().remove(directory).unwrap_or_default()
    }
}

/// The way to the thread, which is there from the first large file on. `None` if there are no more threads.
static REMOVALS: OnceLock<Option<Sender<File>>> = OnceLock::new();

/// Takes a file that has durably lost a name, opened for writing.
pub(super) fn free(file: File) {
    let removals = REMOVALS.get_or_init(|| {
        let (removals, files) = channel();
        thread::Builder::new().name("removal".into()).spawn(move || work(files)).ok().map(|_| removals)
    });
    if let Some(removals) = removals {
        // If the thread is gone the file comes back, and is closed.
        let _ = removals.send(file);
    }
}

fn work(files: Receiver<File>) {
    // It is begun by a core, and is not to stay on that core's CPU. Best effort.
    if let Ok(cpus) = sched_getaffinity(Some(getpid())) {
        let _ = sched_setaffinity(None, &cpus);
    }
    let mut removals = Removals { files, waiting: VecDeque::new(), step_bytes: STEP_BYTES_MIN };
    while removals.take_next() {}
}

/// A file that is to be freed.
struct Waiting {
    file: File,
    /// How often it was looked at, and still needed.
    looks: u32,
    due: Instant,
}

/// What the thread has.
struct Removals {
    files: Receiver<File>,
    waiting: VecDeque<Waiting>,
    /// What the next step frees, in bytes.
    step_bytes: u64,
}

impl Removals {
    /// Frees what is due, or waits for a while. False if no more comes.
    fn take_next(&mut self) -> bool {
        self.take_in();
        let now = Instant::now();
        if let Some(due) = self.waiting.iter().position(|waiting| waiting.due <= now) {
            let waiting = self.waiting.remove(due).expect("it was just found");
            self.free(waiting);
            return true;
        }
        let next = match self.waiting.is_empty() {
            true => self.files.recv().map_err(|_| RecvTimeoutError::Disconnected),
            false => self.files.recv_timeout(LOOK_AGAIN),
        };
        match next {
            Ok(file) => self.waiting.push_back(new(file)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return false,
        }
        true
    }

    /// Takes in what has come.
    fn take_in(&mut self) {
        self.waiting.extend(self.files.try_iter().map(new));
        let surplus = self.waiting.len().saturating_sub(FILES_MAX);
        self.waiting.drain(..surplus);
    }

    fn free(&mut self, waiting: Waiting) {
        match is_needed(&waiting.file) {
            Ok(true) if waiting.looks < LOOKS_MAX => {
                self.waiting.push_back(Waiting { looks: waiting.looks + 1, due: Instant::now() + LOOK_AGAIN, ..waiting });
            }
            // Closed, it is freed.
            Ok(true) | Err(_) => {}
            Ok(false) => {
                // What can't be cut is closed, too.
                let _ = self.cut(&waiting.file);
            }
        }
    }

    /// Frees a file from its end on.
    fn cut(&mut self, file: &File) -> io::Result<()> {
        let mut left = file.metadata()?.len();
        while left > 0 {
            left = left.saturating_sub(self.step_bytes) / STEP_BYTES_MIN * STEP_BYTES_MIN;
            let began = Instant::now();
            file.set_len(left)?;
            let took = began.elapsed();
            self.step_bytes = next_step(self.step_bytes, took);
            self.take_in();
            if !self.is_pressed(file) {
                thread::sleep(pause_behind(took, has_producers_now()));
            }
        }
        Ok(())
    }

    /// True if there is no time for pauses.
    fn is_pressed(&self, file: &File) -> bool {
        let can_be_freed = self.waiting.iter().filter(|waiting| waiting.looks == 0);
        let bytes: u64 = can_be_freed.map(|waiting| waiting.file.metadata().map_or(0, |metadata| metadata.len())).sum();
        bytes > WAITING_BYTES_MAX || fstatvfs(file).is_ok_and(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) < FREE_BYTES_MIN)
    }
}

fn new(file: File) -> Waiting {
    Waiting { file, looks: 0, due: Instant::now() }
}

/// The pause behind a step that took so long.
fn pause_behind(took: Duration, has_producers: bool) -> Duration {
    took * if has_producers { PAUSES } else { PAUSES_ALONE }
}

fn next_step(bytes: u64, took: Duration) -> u64 {
    if took > STEP_TIME {
        (bytes / 2).max(STEP_BYTES_MIN)
    } else if took < STEP_TIME / 4 {
        (bytes * 2).min(STEP_BYTES_MAX)
    } else {
        bytes
    }
}

/// True if somebody still has something of the file, or it has another name.
fn is_needed(file: &File) -> io::Result<bool> {
    if file.metadata()?.nlink() > 0 {
        // It may lose that one, too; but its name says to nobody when.
        return Err(io::Error::other("it has another name"));
    }
    if is_open_elsewhere(file)? {
        return Ok(true);
    }
    fadvise(file, 0, None, Advice::DontNeed)?;
    Ok(cached_pages(file.as_raw_fd(), 0, 0)? > 0)
}

/// Whether anybody else has a descriptor of the file, in whatever process.
fn is_open_elsewhere(file: &File) -> io::Result<bool> {
    let lease = |kind: libc::c_int| {
        // SAFETY: the descriptor is open for as long as `file` is borrowed, and the argument is a number.
        match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, kind) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    match lease(libc::F_WRLCK) {
        Ok(()) => lease(libc::F_UNLCK).map(|()| false),
        Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => Ok(true),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs,
        io::Read,
        net::{TcpListener, TcpStream},
        os::unix::fs::FileExt,
    };

    const BYTES: u64 = 3 << 20;

    use super::super::tests::directory;

    fn written(path: &Path) -> File {
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path).expect("a file");
        file.write_all_at(&[7; BYTES as usize], 0).expect("space");
        file.sync_all().expect("written");
        file
    }

    fn bytes(file: &File) -> u64 {
        file.metadata().expect("it is open").len()
    }

    fn free_it(file: &File) {
        let mut removals = Removals { files: channel().1, waiting: VecDeque::new(), step_bytes: STEP_BYTES_MIN };
        removals.free(new(file.try_clone().expect("a descriptor")));
    }

    #[test]
    fn a_file_without_a_name_is_cut_and_one_with_another_name_is_left_alone() {
        let directory = directory();
        let (path, other) = (directory.path().join("a"), directory.path().join("b"));
        let file = written(&path);
        fs::hard_link(&path, &other).expect("a second name");
        fs::remove_file(&path).expect("its first one goes");
        free_it(&file);
        assert_eq!(bytes(&file), BYTES);
        fs::remove_file(&other).expect("its second one goes");
        free_it(&file);
        assert_eq!(bytes(&file), 0);
    }

    #[test]
    fn a_file_that_somebody_reads_waits_until_it_is_closed() {
        let directory = directory();
        let path = directory.path().join("a");
        let file = written(&path);
        let reader = File::open(&path).expect("a reader");
        fs::remove_file(&path).expect("its name goes");
        free_it(&file);
        let mut end = [0; 16];
        reader.read_exact_at(&mut end, BYTES - 16).expect("all is there");
        assert_eq!(end, [7; 16]);
        drop(reader);
        free_it(&file);
        assert_eq!(bytes(&file), 0);
    }

    #[test]
    fn what_sendfile_has_put_into_a_socket_stays_what_it_was() {
        let directory = directory();
        let path = directory.path().join("a");
        let file = written(&path);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut client = TcpStream::connect(listener.local_addr().expect("its address")).expect("connects");
        let server = listener.accept().expect("accepts").0;
        server.set_nonblocking(true).expect("it doesn't wait");
        let reader = File::open(&path).expect("a reader");
        let mut sent = 0;
        while let Ok(some @ 1..) = rustix::fs::sendfile(&server, &reader, Some(&mut (sent as u64)), BYTES as usize - sent) {
            sent += some;
        }
        assert!(sent > 0);
        drop(reader);
        fs::remove_file(&path).expect("its name goes");
        free_it(&file);
        assert_eq!(bytes(&file), BYTES, "the socket holds {sent} bytes of it");
        let mut received = vec![0; sent];
        client.read_exact(&mut received).expect("all comes");
        assert!(received.iter().all(|byte| *byte == 7));
    }

    #[test]
    fn steps_are_as_large_as_is_quick() {
        let after = |bytes, took| (0..20).fold(bytes, |bytes, _| next_step(bytes, took));
        assert_eq!(after(STEP_BYTES_MIN, Duration::from_micros(20)), STEP_BYTES_MAX);
        assert_eq!(after(STEP_BYTES_MAX, Duration::from_millis(5)), STEP_BYTES_MIN);
        assert_eq!(after(4 * STEP_BYTES_MIN, STEP_TIME), 4 * STEP_BYTES_MIN);
    }

    #[test]
    fn most_of_the_time_is_left_to_producers_and_half_of_it_where_there_are_none() {
        let took = Duration::from_millis(2);
        assert_eq!(pause_behind(took, true), Duration::from_millis(14));
        assert_eq!(pause_behind(took, false), took);
    }
}
