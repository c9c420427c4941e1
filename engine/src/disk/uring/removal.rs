//! Removed files give their space back in small steps, on a thread of their own.
//!
//! On a filesystem that is mounted with `discard` (ext4 and XFS know it; many images of virtual machines have it) whoever frees blocks
//! waits until the device has forgotten them, and so does everybody else who wants something of the device: on one virtual disk 64 MiB
//! took 60 to 130 ms in which no flush ended, and so no append was acked (docs/benchmarks.md). So a large file loses its name at
//! once, and its blocks in steps from its end on, each followed by a pause.
//!
//! Nobody may see that: not a reader that still has the file open, not a second name of it. So a file is only cut when it has no name
//! any more and nobody else has it open, which the kernel says by granting a write lease (fcntl(2), `F_SETLEASE`). Whatever stands in
//! the way of that, the file is just closed, and the kernel frees it when the last one has closed it, as ever. The same happens when the
//! process ends.

use rustix::process::setpriority_process;
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
/// The first step, and the least and the most that later ones are, in bytes.
const STEP_BYTES: u64 = 256 << 10;
const STEP_BYTES_MIN: u64 = 64 << 10;
const STEP_BYTES_MAX: u64 = 64 << 20;
/// A step that took longer is followed by smaller ones, one that took less than a quarter of it by larger ones.
const STEP_TIME: Duration = Duration::from_micros(500);
/// So many times as long as a step took is the pause behind it.
const PAUSES: u32 = 7;
/// If more than this waits, in bytes, there are no pauses: space runs out more easily than patience.
const WAITING_BYTES_MAX: u64 = 4 << 30;
/// A file that others have open is looked at again after this time.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Files that wait at most: the oldest is closed.
const FILES_MAX: usize = 1_024;
/// The priority of the thread: the lowest.
const NICE: i32 = 19;

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

    /// Those of a directory.
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
        thread::Builder::new().name("removal".into()).spawn(move || work(&files)).ok().map(|_| removals)
    });
    if let Some(removals) = removals {
        // If the thread is gone the file comes back, and is closed.
        let _ = removals.send(file);
    }
}

fn work(files: &Receiver<File>) {
    // Of this thread only: on Linux a priority is a thread's. Without it a step comes a bit too early.
    let _ = setpriority_process(None, NICE);
    let mut waiting = VecDeque::new();
    let mut steps = Steps { bytes: STEP_BYTES };
    loop {
        let next =
            if waiting.is_empty() { files.recv().map_err(|_| RecvTimeoutError::Disconnected) } else { files.recv_timeout(LOOK_AGAIN) };
        match next {
            Ok(file) => waiting.push_back(file),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        for _ in 0..waiting.len() {
            waiting.extend(files.try_iter());
            while waiting.len() > FILES_MAX {
                waiting.pop_front();
            }
            let Some(file) = waiting.pop_front() else { break };
            let is_pressed = || waiting.iter().map(bytes).sum::<u64>() > WAITING_BYTES_MAX;
            match steps.free(&file, is_pressed) {
                Ok(true) => waiting.push_back(file),
                // Closed, it is freed.
                Ok(false) | Err(_) => {}
            }
        }
    }
}

fn bytes(file: &File) -> u64 {
    file.metadata().map_or(0, |metadata| metadata.len())
}

/// How large a step is, as the ones before took.
struct Steps {
    bytes: u64,
}

impl Steps {
    /// Frees a file from its end on. True if others have it open: then nothing has happened.
    fn free(&mut self, file: &File, is_pressed: impl Fn() -> bool) -> io::Result<bool> {
        let metadata = file.metadata()?;
        if metadata.nlink() > 0 {
            return Ok(false);
        }
        if is_open_elsewhere(file)? {
            return Ok(true);
        }
        let mut left = metadata.len();
        while left > 0 {
            left = left.saturating_sub(self.bytes) / STEP_BYTES_MIN * STEP_BYTES_MIN;
            let began = Instant::now();
            file.set_len(left)?;
            let took = began.elapsed();
            self.took(took);
            if !is_pressed() {
                thread::sleep(took * PAUSES);
            }
        }
        Ok(false)
    }

    fn took(&mut self, took: Duration) {
        if took > STEP_TIME {
            self.bytes = (self.bytes / 2).max(STEP_BYTES_MIN);
        } else if took < STEP_TIME / 4 {
            self.bytes = (self.bytes * 2).min(STEP_BYTES_MAX);
        }
    }
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
    use std::{fs, os::unix::fs::FileExt};

    const BYTES: u64 = 3 << 20;

    fn written(path: &Path) -> File {
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path).expect("a file");
        file.write_all_at(&[7; BYTES as usize], 0).expect("space");
        file
    }

    fn free_it(file: &File) -> bool {
        Steps { bytes: STEP_BYTES }.free(file, || true).expect("it can be freed")
    }

    #[test]
    fn a_file_without_a_name_is_cut_and_one_with_another_name_is_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let (path, other) = (directory.path().join("a"), directory.path().join("b"));
        let file = written(&path);
        fs::hard_link(&path, &other).expect("a second name");
        fs::remove_file(&path).expect("its first one goes");
        assert!(!free_it(&file));
        assert_eq!(bytes(&file), BYTES);
        fs::remove_file(&other).expect("its second one goes");
        assert!(!free_it(&file));
        assert_eq!(bytes(&file), 0);
    }

    #[test]
    fn a_file_that_somebody_reads_waits_until_it_is_closed() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a");
        let file = written(&path);
        let reader = File::open(&path).expect("a reader");
        fs::remove_file(&path).expect("its name goes");
        assert!(free_it(&file));
        let mut end = [0; 16];
        reader.read_exact_at(&mut end, BYTES - 16).expect("all is there");
        assert_eq!(end, [7; 16]);
        drop(reader);
        assert!(!free_it(&file));
        assert_eq!(bytes(&file), 0);
    }

    #[test]
    fn steps_are_as_large_as_is_quick() {
        let mut steps = Steps { bytes: STEP_BYTES };
        (0..20).for_each(|_| steps.took(Duration::from_micros(20)));
        assert_eq!(steps.bytes, STEP_BYTES_MAX);
        (0..20).for_each(|_| steps.took(Duration::from_millis(5)));
        assert_eq!(steps.bytes, STEP_BYTES_MIN);
        steps.took(STEP_TIME);
        assert_eq!(steps.bytes, STEP_BYTES_MIN);
    }
}
