//! A disk that watches another: it knows of every file which blocks are written, and which of them a flush covers that was
//! submitted after their write had completed. So an ack can be held against what it relies on, under real load, where no
//! crash would show the difference (a killed process leaves the kernel's cache alone).

use super::{BLOCK, DirEntry, Disk, Open, Slice};
use std::{
    cell::RefCell,
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

/// What is known of one file.
#[derive(Default)]
struct History {
    path: PathBuf,
    /// Per block, the number of its last completed write.
    completed: BTreeMap<u64, u64>,
    /// Writes up to this number are durable.
    flushed: u64,
}

/// What the recorder has seen and asserted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Writes that completed.
    pub writes: u64,
    /// Flushes that completed.
    pub flushes: u64,
    /// Ranges that acks relied on, each found durable.
    pub relied_on: u64,
}

#[derive(Default)]
struct Log {
    /// Completed writes, numbered over all files.
    number: u64,
    recorded: Recorded,
}

/// A file of a [`Recorder`].
pub struct RecordedFile<D: Disk> {
    file: D::File,
    history: Rc<RefCell<History>>,
}

impl<D: Disk> Clone for RecordedFile<D> {
    fn clone(&self) -> Self {
        RecordedFile { file: self.file.clone(), history: Rc::clone(&self.history) }
    }
}

/// Passes everything on to another disk, and panics when an ack relies on bytes that are not durable.
pub struct Recorder<D: Disk> {
    disk: D,
    log: Rc<RefCell<Log>>,
    /// Histories by path: two descriptors of one file share theirs.
    files: Rc<RefCell<BTreeMap<PathBuf, Rc<RefCell<History>>>>>,
}

impl<D: Disk> Clone for Recorder<D> {
    fn clone(&self) -> Self {
        Recorder { disk: self.disk.clone(), log: Rc::clone(&self.log), files: Rc::clone(&self.files) }
    }
}

impl<D: Disk> Recorder<D> {
    /// Watches `disk` from now on. What was written before is taken for durable.
    #[must_use]
    pub fn new(disk: D) -> Recorder<D> {
        Recorder { disk, log: Rc::default(), files: Rc::default() }
    }

    /// What was seen so far.
    #[must_use]
    pub fn recorded(&self) -> Recorded {
        self.log.borrow().recorded
    }

    /// True if every block of the range had its last write completed, and covered by a flush that was submitted after that
    /// and has completed. Blocks that were not written since the recorder began count as durable.
    #[must_use]
    pub fn is_durable(&self, path: &Path, position: u64, len: u64) -> bool {
        self.files.borrow().get(path).is_none_or(|history| history.borrow().missing(position, len).is_none())
    }

    fn file(&self, path: &Path, file: D::File) -> RecordedFile<D> {
        let history = Rc::clone(self.files.borrow_mut().entry(path.to_owned()).or_default());
        history.borrow_mut().path = path.to_owned();
        RecordedFile { file, history }
    }

    async fn flushed(&self, file: &RecordedFile<D>, flush: impl Future<Output = io::Result<()>>) -> io::Result<()> {
        let covers = self.log.borrow().number;
        flush.await?;
        self.log.borrow_mut().recorded.flushes += 1;
        let mut history = file.history.borrow_mut();
        history.flushed = history.flushed.max(covers);
        // Durable blocks need no more memory.
        let flushed = history.flushed;
        history.completed.retain(|_, write| *write > flushed);
        Ok(())
    }
}

impl History {
    /// The first block of a range that is not durable.
    fn missing(&self, position: u64, len: u64) -> Option<u64> {
        let blocks = position / BLOCK..(position + len).div_ceil(BLOCK);
        self.completed.range(blocks).find(|(_, write)| **write > self.flushed).map(|(block, _)| *block)
    }
}

impl<D: Disk> Disk for Recorder<D> {
    type File = RecordedFile<D>;
    type Reader = D::Reader;

    async fn open(&self, path: &Path, how: Open) -> io::Result<Self::File> {
        Ok(self.file(path, self.disk.open(path, how).await?))
    }

    async fn open_reader(&self, path: &Path) -> io::Result<Self::Reader> {
        self.disk.open_reader(path).await
    }

    async fn allocate(&self, file: &Self::File, bytes: u64) -> io::Result<()> {
        self.disk.allocate(&file.file, bytes).await
    }

    async fn write(&self, file: &Self::File, position: u64, slices: Vec<Slice>) -> io::Result<()> {
        let bytes: u64 = slices.iter().map(|slice| slice.len() as u64).sum();
        let blocks = position / BLOCK..(position + bytes) / BLOCK;
        // In flight: no flush covers it before it has completed.
        file.history.borrow_mut().completed.extend(blocks.clone().map(|block| (block, u64::MAX)));
        self.disk.write(&file.file, position, slices).await?;
        let mut log = self.log.borrow_mut();
        log.number += 1;
        log.recorded.writes += 1;
        file.history.borrow_mut().completed.extend(blocks.map(|block| (block, log.number)));
        Ok(())
    }

    async fn flush(&self, file: &Self::File) -> io::Result<()> {
        self.flushed(file, self.disk.flush(&file.file)).await
    }

    async fn sync(&self, file: &Self::File) -> io::Result<()> {
        self.flushed(file, self.disk.sync(&file.file)).await
    }

    async fn read(&self, file: &Self::File, position: u64, len: usize) -> io::Result<Slice> {
        self.disk.read(&file.file, position, len).await
    }

    async fn read_buffered(&self, reader: &Self::Reader, position: u64, len: usize) -> io::Result<Vec<u8>> {
        self.disk.read_buffered(reader, position, len).await
    }

    async fn size(&self, file: &Self::File) -> io::Result<u64> {
        self.disk.size(&file.file).await
    }

    async fn truncate(&self, file: &Self::File, bytes: u64) -> io::Result<()> {
        self.disk.truncate(&file.file, bytes).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to).await?;
        let mut files = self.files.borrow_mut();
        let moved: Vec<_> = files.keys().filter(|path| path.starts_with(from)).cloned().collect();
        for path in moved {
            let history = files.remove(&path).expect("just found");
            let rest = path.strip_prefix(from).expect("just compared");
            let path = if rest.as_os_str().is_empty() { to.to_owned() } else { to.join(rest) };
            history.borrow_mut().path.clone_from(&path);
            files.insert(path, history);
        }
        Ok(())
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path).await?;
        self.files.borrow_mut().remove(path);
        Ok(())
    }

    async fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir(path).await
    }

    async fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_dir(path).await
    }

    async fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.disk.list(path).await
    }

    async fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_dir(path).await
    }

    fn now_us(&self) -> u64 {
        self.disk.now_us()
    }

    async fn sleep(&self, time: Duration) {
        self.disk.sleep(time).await;
    }

    fn relied_on(&self, file: &Self::File, position: u64, len: u64) {
        let history = file.history.borrow();
        if let Some(block) = history.missing(position, len) {
            panic!("an ack relies on {position}..{} of {}, but block {block} is not durable", position + len, history.path.display());
        }
        self.log.borrow_mut().recorded.relied_on += 1;
        self.disk.relied_on(&file.file, position, len);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Chunk, sim};
    use super::*;

    fn run(program: impl AsyncFnOnce(Recorder<sim::SimDisk>, RecordedFile<sim::SimDisk>) + 'static) {
        let disk = sim::SimDisk::new(3, &[]);
        sim::Executor::new(&disk, 3).block_on(async move {
            let recorder = Recorder::new(disk);
            let file = recorder.open(Path::new("a"), Open::Create).await.unwrap();
            program(recorder, file).await;
        });
    }

    fn block() -> Vec<Slice> {
        vec![Chunk::padded(&[1])]
    }

    #[test]
    fn an_ack_may_rely_on_what_was_flushed_after_it_was_written() {
        run(async |disk, file| {
            disk.write(&file, 0, block()).await.unwrap();
            assert!(!disk.is_durable(Path::new("a"), 0, 10));
            disk.flush(&file).await.unwrap();
            disk.write(&file, BLOCK, block()).await.unwrap();
            assert!(disk.is_durable(Path::new("a"), 0, BLOCK));
            disk.relied_on(&file, 0, BLOCK);
            assert!(!disk.is_durable(Path::new("a"), 0, BLOCK + 1));
            assert_eq!(disk.recorded(), Recorded { writes: 2, flushes: 1, relied_on: 1 });
        });
    }

    #[test]
    #[should_panic(expected = "block 0 is not durable")]
    fn a_flush_submitted_before_the_write_completed_is_not_enough() {
        run(async |disk, file| {
            let (written, flushed) = futures_util::future::join(disk.write(&file, 0, block()), disk.flush(&file)).await;
            written.and(flushed).unwrap();
            disk.relied_on(&file, 0, 1);
        });
    }
}
