//! The simulated disk: every bad thing that storage may do, in an order that only a seed decides.
//!
//! - Operations complete later, reordered. A write takes effect at its completion.
//! - [`SimDisk::crash`] loses power: what was not flushed (blocks of writes, sizes, allocations, truncations) and names
//!   whose directory was not flushed are each kept or lost at random, so a write of several blocks may be torn at a block.
//! - [`SimDisk::kill`] ends the process only: all that happened is still seen, and still not durable.
//! - Writes fail or are short, flushes fail: some of the data is then gone, and the next flush succeeds ([`Faults`]).
//! - Space may end ([`SimDisk::set_free_blocks`]): writes into allocated space go on.
//! - What is on the medium may change by itself, or be put back from a backup ([`SimDisk::rot`]), or can't be read any more
//!   ([`SimDisk::set_unreadable`]).
//! - Two writes in flight to one block, and memory that changes under a write, are bugs of the caller: they panic.
//!
//! [`Executor`] runs a program on it, deterministically. Used by tests only; it is a plain module so that tests of any
//! crate can use it.

mod executor;
mod image;
#[cfg(test)]
mod tests;
mod tree;
mod world;

pub use executor::{Executor, Joined, Spawner};

use super::{BLOCK, Chunk, DirEntry, Disk, Open, Slice};
use image::FileState;
use std::{
    cell::RefCell,
    future::Future,
    io,
    path::{Path, PathBuf},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};
use tree::Node;
use world::World;

/// How often operations fail, each a chance from 0 to 1. A new life begins without faults.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// A write fails, having written nothing, some of its blocks, or all.
    pub write_failed: f64,
    /// A write is short, and so fails.
    pub write_short: f64,
    /// A flush fails and drops some of the data.
    pub flush_failed: f64,
    /// Only for these files.
    pub only: Option<fn(&Path) -> bool>,
}

impl Faults {
    fn applies_to(&self, path: &Path) -> bool {
        self.only.is_none_or(|only| only(path))
    }
}

/// What a crash has done.
#[derive(Clone, Debug, Default)]
pub struct Crash {
    /// Writes that had not completed: path and position in bytes.
    pub in_flight: Vec<(PathBuf, u64)>,
    /// Writes of which some blocks were kept and others lost: path and position in bytes.
    pub torn: Vec<(PathBuf, u64)>,
    /// Files with changes that were not durable.
    pub unflushed: usize,
}

/// How often something was refused so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Refused {
    /// Writes that failed or were short.
    pub writes: u64,
    /// Flushes that failed.
    pub flushes: u64,
    /// Writes and allocations for which there was no space.
    pub space: u64,
}

/// A handle of the simulated disk. All handles of one disk see the same files; they stay on one thread.
#[derive(Clone)]
pub struct SimDisk {
    world: Rc<RefCell<World>>,
}

/// An open file.
#[derive(Clone, Debug)]
pub struct SimFile {
    node: Node,
}

impl SimDisk {
    /// An empty disk. `directories` exist durably, each after its parent.
    #[must_use]
    pub fn new(seed: u64, directories: &[&Path]) -> SimDisk {
        let mut world = World::new(seed);
        for directory in directories {
            let number = world.number();
            let _ = world.tree.create(number, directory, true);
            let parent = world.tree.find(directory.parent().unwrap_or(Path::new(""))).expect("each after its parent");
            world.tree.flushed(parent, number);
        }
        SimDisk { world: Rc::new(RefCell::new(world)) }
    }

    /// Operations in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.world.borrow().in_flight()
    }

    /// Completes the operation that is due next. False if there is none.
    pub fn complete_next(&self) -> bool {
        let action = self.world.borrow_mut().next_operation();
        let Some(action) = action else { return false };
        action(&mut self.world.borrow_mut());
        true
    }

    /// Power is lost. The executor with all futures must have been dropped. No handle is valid afterwards but the disk's.
    pub fn crash(&self) -> Crash {
        self.world.borrow_mut().crash()
    }

    /// The process ends, the machine goes on. The executor with all futures must have been dropped.
    pub fn kill(&self) {
        self.world.borrow_mut().kill();
    }

    /// Sets how often operations fail from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.world.borrow_mut().faults = faults;
    }

    /// Writes and flushes of these files take so many times longer from now on: they are on another, slow device.
    pub fn set_slow(&self, files: fn(&Path) -> bool, times: u64) {
        self.world.borrow_mut().slow = Some((files, times));
    }

    /// Sets how many blocks can still be allocated; `None` is without end.
    pub fn set_free_blocks(&self, blocks: Option<u64>) {
        self.world.borrow_mut().free = blocks;
    }

    /// What was refused so far.
    #[must_use]
    pub fn refused(&self) -> Refused {
        self.world.borrow().refused
    }

    /// Calls `watch` for each write that is submitted from now on: path, position, bytes.
    pub fn watch(&self, watch: impl FnMut(&Path, u64, usize) + 'static) {
        self.world.borrow_mut().watch = Some(Box::new(watch));
    }

    /// A file as programs see it now, at once.
    #[must_use]
    pub fn peek(&self, path: &Path) -> Option<Vec<u8>> {
        let world = self.world.borrow();
        let node = world.tree.find(path).ok()?;
        world.files.get(&node).map(|file| file.seen.read(0, file.seen.size() as usize))
    }

    /// A file's content becomes what `change` makes of it, durably: bits rot, a file is cut, somebody puts back what was there.
    /// No program may have it open. False if there is no such file.
    pub fn rot(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> bool {
        let world = &mut *self.world.borrow_mut();
        let Ok(node) = world.tree.find(path) else { return false };
        let Some(file) = world.files.get_mut(&node) else { return false };
        file.rot(change);
        true
    }

    /// A block of a file can't be read from now on, until it is written again. There is one at a time.
    pub fn set_unreadable(&self, path: &Path, block: u64) {
        let world = &mut *self.world.borrow_mut();
        world.unreadable = world.tree.find(path).ok().map(|node| (node, block));
    }

    /// Names in a directory now, at once; empty if it does not exist.
    #[must_use]
    pub fn names(&self, path: &Path) -> Vec<String> {
        let world = self.world.borrow();
        let Ok(node) = world.tree.find(path) else { return Vec::new() };
        world.tree.entries(node).map(|entries| entries.map(|(name, _)| name.clone()).collect()).unwrap_or_default()
    }

    fn submit<T: 'static>(
        &self,
        is_flush: bool,
        file: Option<Node>,
        write: Option<(Node, usize, usize)>,
        effect: impl FnOnce(&mut World) -> io::Result<T> + 'static,
    ) -> Operation<T> {
        let slot = Rc::new(RefCell::new(Slot { result: None, waker: None }));
        let done = Rc::clone(&slot);
        let action = move |world: &mut World| {
            let result = effect(world);
            let mut slot = done.borrow_mut();
            slot.result = Some(result);
            if let Some(waker) = slot.waker.take() {
                waker.wake();
            }
        };
        self.world.borrow_mut().submit(is_flush, file, write, Box::new(action));
        Operation { slot }
    }

    async fn flush_file(&self, node: Node, data_only: bool) -> io::Result<()> {
        let up_to = self.world.borrow().changes;
        self.submit(true, Some(node), None, move |world| world.flush(node, up_to, data_only)).await
    }

    async fn read_bytes(&self, node: Node, position: u64, len: usize) -> io::Result<Vec<u8>> {
        let read = move |world: &mut World| {
            let file = world.files.get(&node).ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))?;
            let blocks = position / BLOCK..(position + len as u64).div_ceil(BLOCK);
            match world.unreadable {
                Some((bad, block)) if bad == node && blocks.contains(&block) => Err(io::Error::from_raw_os_error(libc::EIO)),
                _ => Ok(file.seen.read(position, len)),
            }
        };
        self.submit(false, None, None, read).await
    }
}

struct Slot<T> {
    result: Option<io::Result<T>>,
    waker: Option<Waker>,
}

/// An operation in flight. Dropping it does not stop the operation.
struct Operation<T> {
    slot: Rc<RefCell<Slot<T>>>,
}

impl<T> Future for Operation<T> {
    type Output = io::Result<T>;
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut slot = self.slot.borrow_mut();
        if let Some(result) = slot.result.take() {
            return Poll::Ready(result);
        }
        slot.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

fn sum(slices: &[Slice]) -> u32 {
    slices.iter().fold(0, |sum, slice| crc32c::crc32c_append(sum, slice))
}

impl Disk for SimDisk {
    type File = SimFile;
    type Reader = SimFile;

    async fn open(&self, path: &Path, how: Open) -> io::Result<SimFile> {
        let path = path.to_owned();
        let open = move |world: &mut World| match world.tree.find(&path) {
            Ok(node) if world.tree.is_directory(node) => Err(io::Error::from_raw_os_error(libc::EISDIR)),
            Ok(node) => Ok(SimFile { node }),
            Err(error) if how == Open::Existing => Err(error),
            Err(_) => {
                let number = world.number();
                let node = world.tree.create(number, &path, false)?;
                world.files.insert(node, FileState::default());
                world.paths.insert(node, path);
                Ok(SimFile { node })
            }
        };
        self.submit(false, None, None, open).await
    }

    async fn open_reader(&self, path: &Path) -> io::Result<SimFile> {
        self.open(path, Open::Existing).await
    }

    async fn allocate(&self, file: &SimFile, bytes: u64) -> io::Result<()> {
        assert!(bytes.is_multiple_of(BLOCK), "space is allocated in blocks, not {bytes} bytes");
        let node = file.node;
        self.submit(false, None, None, move |world| world.allocate(node, bytes)).await
    }

    async fn write(&self, file: &SimFile, position: u64, slices: Vec<Slice>) -> io::Result<()> {
        assert!(position.is_multiple_of(BLOCK), "a direct write begins on a block, not at {position}");
        let blocks_only = slices.iter().all(|slice| !slice.is_empty() && (slice.len() as u64).is_multiple_of(BLOCK));
        assert!(blocks_only && !slices.is_empty(), "a direct write is whole blocks");
        let (node, first) = (file.node, (position / BLOCK) as usize);
        let bytes: usize = slices.iter().map(|slice| slice.len()).sum();
        let before = sum(&slices);
        {
            let world = &mut *self.world.borrow_mut();
            if let Some(watch) = &mut world.watch {
                watch(&world.paths[&node], position, bytes);
            }
        }
        let write = move |world: &mut World| {
            assert_eq!(before, sum(&slices), "the memory of a write to {} changed under it", world.paths[&node].display());
            world.write(node, first, &slices)
        };
        self.submit(false, Some(node), Some((node, first, bytes / BLOCK as usize)), write).await
    }

    async fn flush(&self, file: &SimFile) -> io::Result<()> {
        self.flush_file(file.node, true).await
    }

    async fn sync(&self, file: &SimFile) -> io::Result<()> {
        self.flush_file(file.node, false).await
    }

    async fn read(&self, file: &SimFile, position: u64, len: usize) -> io::Result<Slice> {
        assert!(position.is_multiple_of(BLOCK) && (len as u64).is_multiple_of(BLOCK), "a direct read is whole blocks");
        let bytes = self.read_bytes(file.node, position, len).await?;
        let chunk = Chunk::new(len.max(BLOCK as usize));
        chunk.append(&bytes);
        Ok(chunk.slice(0, bytes.len()))
    }

    async fn read_buffered(&self, reader: &SimFile, position: u64, len: usize) -> io::Result<Vec<u8>> {
        self.read_bytes(reader.node, position, len).await
    }

    async fn size(&self, file: &SimFile) -> io::Result<u64> {
        let world = self.world.borrow();
        world.files.get(&file.node).map(|file| file.seen.size()).ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))
    }

    async fn truncate(&self, file: &SimFile, bytes: u64) -> io::Result<()> {
        let node = file.node;
        self.submit(false, None, None, move |world| world.truncate(node, bytes)).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (from.to_owned(), to.to_owned());
        let rename = move |world: &mut World| {
            let number = world.number();
            if let Some(replaced) = world.tree.rename(number, &from, &to)? {
                world.unlinked(replaced);
            }
            world.renamed(&from, &to);
            Ok(())
        };
        self.submit(false, None, None, rename).await
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        let remove = move |world: &mut World| {
            let number = world.number();
            let node = world.tree.remove(number, &path, false)?;
            world.unlinked(node);
            Ok(())
        };
        self.submit(false, None, None, remove).await
    }

    async fn create_dir(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        let create = move |world: &mut World| {
            let number = world.number();
            match world.tree.find(&path) {
                Ok(node) if world.tree.is_directory(node) => Ok(()),
                _ => world.tree.create(number, &path, true).map(drop),
            }
        };
        self.submit(false, None, None, create).await
    }

    async fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        let remove = move |world: &mut World| {
            let number = world.number();
            world.tree.remove(number, &path, true).map(drop)
        };
        self.submit(false, None, None, remove).await
    }

    async fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let path = path.to_owned();
        let list = move |world: &mut World| {
            let node = world.tree.find(&path)?;
            let entries = world.tree.entries(node)?;
            Ok(entries
                .map(|(name, node)| DirEntry {
                    name: name.clone(),
                    is_dir: world.tree.is_directory(*node),
                    bytes: world.files.get(node).map_or(0, |file| file.seen.size()),
                    // It has no clock.
                    changed_ms: None,
                })
                .collect())
        };
        self.submit(false, None, None, list).await
    }

    async fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        let up_to = self.world.borrow().changes;
        let sync = move |world: &mut World| {
            let node = world.tree.find(&path)?;
            world.tree.flushed(node, up_to);
            Ok(())
        };
        self.submit(true, None, None, sync).await
    }
}

impl std::fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SimDisk({} in flight)", self.in_flight())
    }
}
