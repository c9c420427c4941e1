//! One file of an overlay: what it shows of the file below, and what was written over that.

use rustix::fs::{FallocateFlags, Mode, OFlags, fallocate};
use std::{
    cell::Cell,
    collections::BTreeMap,
    fs::File,
    io,
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    rc::Rc,
};

/// The temporary file that everything written goes into, from front to back.
pub struct Spill {
    file: File,
    end: Cell<u64>,
    kept: Cell<u64>,
}

impl Spill {
    /// A file without a name in `directory`: it is gone when it is closed, however the process ends.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(directory: &Path) -> io::Result<Spill> {
        let mode = Mode::RUSR | Mode::WUSR;
        let file = rustix::fs::open(directory, OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, mode)?;
        Ok(Spill { file: file.into(), end: Cell::new(0), kept: Cell::new(0) })
    }

    /// Bytes written in all, and those that are still kept.
    pub fn kept_bytes(&self) -> (u64, u64) {
        (self.end.get(), self.kept.get())
    }

    fn put(&self, bytes: &[u8]) -> io::Result<u64> {
        let at = self.end.get();
        self.file.write_all_at(bytes, at)?;
        self.end.set(at + bytes.len() as u64);
        self.kept.set(self.kept.get() + bytes.len() as u64);
        Ok(at)
    }

    /// Gives back the space of bytes that nobody reads any more.
    fn free(&self, range: Range<u64>) {
        let length = range.end - range.start;
        self.kept.set(self.kept.get() - length);
        // A filesystem that can't keeps them until the end.
        let _ = fallocate(&self.file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, range.start, length);
    }
}

/// Bytes of a file that lie in the temporary file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    bytes: u64,
    at: u64,
}

/// A file. What is neither below nor written is zero.
pub(super) struct Content {
    spill: Rc<Spill>,
    origin: Option<PathBuf>,
    /// Bytes of the file below that are still seen: what was cut off never comes back.
    below: u64,
    bytes: u64,
    /// What was written, by position. They don't overlap.
    extents: BTreeMap<u64, Extent>,
    changed_ms: Option<i64>,
}

impl Content {
    /// An empty file.
    pub fn new(spill: &Rc<Spill>) -> Content {
        Content { spill: Rc::clone(spill), origin: None, below: 0, bytes: 0, extents: BTreeMap::new(), changed_ms: None }
    }

    /// A file of the disk below, of `bytes`.
    pub fn below(spill: &Rc<Spill>, origin: &Path, bytes: u64) -> Content {
        let mut content = Content::new(spill);
        (content.origin, content.below, content.bytes) = (Some(origin.to_path_buf()), bytes, bytes);
        content
    }

    /// Where it is on the disk below, if anything of it is still seen.
    pub fn origin(&self) -> Option<PathBuf> {
        self.origin.clone().filter(|_| self.below > 0)
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn bytes_below(&self) -> u64 {
        self.below
    }

    /// When it was changed here, if it was.
    pub fn changed_ms(&self) -> Option<i64> {
        self.changed_ms
    }

    pub fn touch(&mut self, now_ms: i64) {
        self.changed_ms = Some(now_ms);
    }

    pub fn resize(&mut self, bytes: u64, now_ms: i64) {
        if bytes < self.bytes {
            self.cut(bytes..u64::MAX);
            self.below = self.below.min(bytes);
        }
        self.bytes = bytes;
        self.touch(now_ms);
    }

    pub fn write(&mut self, position: u64, bytes: &[u8], now_ms: i64) -> io::Result<()> {
        let at = self.spill.put(bytes)?;
        let length = bytes.len() as u64;
        self.cut(position..position + length);
        match self.extents.range_mut(..position).next_back() {
            // The next part of what is written from front to back.
            Some((start, before)) if start + before.bytes == position && before.at + before.bytes == at => before.bytes += length,
            _ => drop(self.extents.insert(position, Extent { bytes: length, at })),
        }
        self.bytes = self.bytes.max(position + length);
        self.touch(now_ms);
        Ok(())
    }

    /// Forgets what was written of a range.
    fn cut(&mut self, range: Range<u64>) {
        let first = self.extents.range(..range.start).next_back().map_or(range.start, |(start, _)| *start);
        let touched: Vec<(u64, Extent)> = self.extents.range(first..range.end).map(|(start, extent)| (*start, *extent)).collect();
        for (start, extent) in touched.into_iter().filter(|(start, extent)| start + extent.bytes > range.start) {
            self.extents.remove(&start);
            let end = start + extent.bytes;
            let (from, to) = (start.max(range.start), end.min(range.end));
            if start < from {
                self.extents.insert(start, Extent { bytes: from - start, at: extent.at });
            }
            if to < end {
                self.extents.insert(to, Extent { bytes: end - to, at: extent.at + (to - start) });
            }
            self.spill.free(extent.at + (from - start)..extent.at + (to - start));
        }
    }

    fn overlapping(&self, position: u64, length: u64) -> impl Iterator<Item = (u64, Extent)> + '_ {
        let end = position + length;
        let first = self.extents.range(..=position).next_back().map_or(position, |(start, _)| *start);
        self.extents
            .range(first..end)
            .map(|(start, extent)| (*start, *extent))
            .filter(move |(start, extent)| start + extent.bytes > position)
    }

    /// True if all of a range was written here.
    pub fn covers(&self, position: u64, length: u64) -> bool {
        let mut at = position;
        for (start, extent) in self.overlapping(position, length) {
            if start > at {
                return false;
            }
            at = start + extent.bytes;
        }
        at >= position + length
    }

    /// Lays what was written over `bytes`, which begin at `position`.
    pub fn lay_over(&self, position: u64, bytes: &mut [u8]) -> io::Result<()> {
        let end = position + bytes.len() as u64;
        for (start, extent) in self.overlapping(position, bytes.len() as u64) {
            let (from, to) = (start.max(position), (start + extent.bytes).min(end));
            let part = &mut bytes[(from - position) as usize..(to - position) as usize];
            self.spill.file.read_exact_at(part, extent.at + (from - start))?;
        }
        Ok(())
    }
}

impl Drop for Content {
    fn drop(&mut self) {
        for extent in self.extents.values() {
            self.spill.free(extent.at..extent.at + extent.bytes);
        }
    }
}
