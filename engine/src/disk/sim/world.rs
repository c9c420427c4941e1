//! The simulated machine under all handles: files, names, operations in flight, space, faults, and the crash.

use super::{
    super::{BLOCK, Slice},
    Crash, Faults, Refused,
    image::{Change, Content, FileState},
    tree::{Node, Tree},
};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    rc::Rc,
};

/// Told of each write: path, position, bytes.
type Watch = Box<dyn FnMut(&Path, u64, usize)>;

/// Which files are meant.
type Files = fn(&Path) -> bool;

/// What an operation does when it completes.
pub(super) type Action = Box<dyn FnOnce(&mut World)>;

struct Operation {
    /// Flushes that a crash interrupts do nothing; all else may have happened.
    is_flush: bool,
    /// File, first block and number of blocks of a write.
    write: Option<(Node, usize, usize)>,
    action: Action,
}

/// Everything that outlives a process.
pub(super) struct World {
    pub(super) random: SmallRng,
    pub(super) tree: Tree,
    pub(super) files: BTreeMap<Node, FileState>,
    pub(super) paths: BTreeMap<Node, PathBuf>,
    /// Blocks that can still be allocated; `None` is without end.
    pub(super) free: Option<u64>,
    pub(super) faults: Faults,
    /// A file, and the block of it that can't be read.
    pub(super) unreadable: Option<(Node, u64)>,
    /// Files on a slow device, and how many times longer it takes.
    pub(super) slow: Option<(Files, u64)>,
    operations: BTreeMap<(u64, u64), Operation>,
    clock: u64,
    submitted: u64,
    /// Changes so far: a flush makes those durable that had happened when it was submitted.
    pub(super) changes: u64,
    /// Called for each write that is submitted: path, position, bytes.
    pub(super) watch: Option<Watch>,
    pub(super) refused: Refused,
}

impl World {
    pub(super) fn new(seed: u64) -> World {
        World {
            random: SmallRng::seed_from_u64(seed),
            tree: Tree::new(),
            files: BTreeMap::new(),
            paths: BTreeMap::new(),
            free: None,
            faults: Faults::default(),
            unreadable: None,
            slow: None,
            operations: BTreeMap::new(),
            clock: 0,
            submitted: 0,
            changes: 0,
            watch: None,
            refused: Refused::default(),
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.operations.len()
    }

    /// Puts an operation in flight; when it completes is up to the seed. `file` is what it writes or flushes.
    pub(super) fn submit(&mut self, is_flush: bool, file: Option<Node>, write: Option<(Node, usize, usize)>, action: Action) {
        if let Some((node, first, count)) = write {
            let overlaps = |other: &(Node, usize, usize)| other.0 == node && other.1 < first + count && first < other.1 + other.2;
            let overlap = self.operations.values().filter_map(|operation| operation.write.as_ref()).find(|other| overlaps(other));
            assert!(
                overlap.is_none(),
                "two writes in flight to one block of {}: {overlap:?} and {:?}",
                self.paths[&node].display(),
                (first, count)
            );
        }
        // Most are quick, some are slow: that is what reorders.
        let latency = if self.random.random_ratio(1, 6) { 400 } else { 12 };
        let slow = self.slow.filter(|(is_slow, _)| file.is_some_and(|node| is_slow(&self.paths[&node])));
        let due = self.clock + self.random.random_range(1..latency) * slow.map_or(1, |(_, times)| times);
        self.submitted += 1;
        self.operations.insert((due, self.submitted), Operation { is_flush, write, action });
    }

    /// Takes the operation that is due next.
    pub(super) fn next_operation(&mut self) -> Option<Action> {
        let ((due, _), operation) = self.operations.pop_first()?;
        self.clock = due;
        Some(operation.action)
    }

    /// A change has happened; its number.
    pub(super) fn number(&mut self) -> u64 {
        self.changes += 1;
        self.changes
    }

    pub(super) fn take_space(&mut self, blocks: u64) -> io::Result<()> {
        match &mut self.free {
            Some(free) if *free < blocks => {
                self.refused.space += 1;
                // A quota is as good an end as the disk's.
                let errno = if self.refused.space % 2 == 1 { libc::ENOSPC } else { libc::EDQUOT };
                Err(io::Error::from_raw_os_error(errno))
            }
            Some(free) => {
                *free -= blocks;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn give_space(&mut self, blocks: u64) {
        if let Some(free) = &mut self.free {
            *free += blocks;
        }
    }

    /// The write of `slices` happens now, or fails.
    pub(super) fn write(&mut self, node: Node, first: usize, slices: &[Slice]) -> io::Result<()> {
        let mut blocks: Vec<Option<Content>> =
            slices.iter().flat_map(|slice| slice.chunks(BLOCK as usize)).map(|block| Some(content(block))).collect();
        let faulty = self.faults.applies_to(&self.paths[&node]);
        let mut result = Ok(());
        if faulty && self.random.random_bool(self.faults.write_failed) {
            let keep = [0.0, 0.5, 1.0][self.random.random_range(0..3)];
            for block in &mut blocks {
                if !self.random.random_bool(keep) {
                    *block = None;
                }
            }
            self.refused.writes += 1;
            result = Err(io::Error::from_raw_os_error(libc::EIO));
        } else if faulty && self.random.random_bool(self.faults.write_short) {
            let kept = self.random.random_range(0..blocks.len());
            blocks[kept..].fill(None);
            self.refused.writes += 1;
            result = Err(io::Error::new(io::ErrorKind::WriteZero, "short write"));
        }
        let Some(file) = self.files.get(&node) else { return Err(io::Error::from_raw_os_error(libc::EBADF)) };
        let wants = file.seen.wants(first, blocks.len());
        self.take_space(wants)?;
        let grows = (first + blocks.len()) as u64 * BLOCK > self.files[&node].seen.size();
        let number = self.number();
        let written = first as u64..(first + blocks.len()) as u64;
        if result.is_ok() && self.unreadable.is_some_and(|(bad, block)| bad == node && written.contains(&block)) {
            self.unreadable = None;
        }
        self.files.get_mut(&node).expect("looked up").change(number, Change::Write { first, blocks, grows });
        result
    }

    /// A flush that was submitted after change `up_to` happens now, or fails.
    pub(super) fn flush(&mut self, node: Node, up_to: u64, data_only: bool) -> io::Result<()> {
        let fails = self.faults.applies_to(&self.paths[&node]) && self.random.random_bool(self.faults.flush_failed);
        let Some(file) = self.files.get_mut(&node) else { return Ok(()) };
        if fails {
            self.refused.flushes += 1;
            file.flush_failed(up_to, &mut self.random);
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        file.flushed(up_to, data_only);
        Ok(())
    }

    pub(super) fn allocate(&mut self, node: Node, bytes: u64) -> io::Result<()> {
        let wants = self.files[&node].seen.wants(0, bytes.div_ceil(BLOCK) as usize);
        self.take_space(wants)?;
        let grows = self.files[&node].seen.size() < bytes;
        let (size, space) = (self.number(), self.number());
        let file = self.files.get_mut(&node).expect("looked up");
        if grows {
            file.change(size, Change::Size(bytes));
        }
        file.change(space, Change::Allocate(bytes));
        Ok(())
    }

    pub(super) fn truncate(&mut self, node: Node, bytes: u64) -> io::Result<()> {
        let before = self.files[&node].seen.allocated();
        let number = self.number();
        let file = self.files.get_mut(&node).expect("looked up");
        file.change(number, Change::Size(bytes));
        let after = file.seen.allocated();
        self.give_space(before.saturating_sub(after));
        Ok(())
    }

    /// A file lost its name.
    pub(super) fn unlinked(&mut self, node: Node) {
        let blocks = self.files.get(&node).map_or(0, |file| file.seen.allocated());
        self.give_space(blocks);
    }

    /// The process is gone, the machine is not: what was in flight has happened or not, and nothing more is durable.
    pub(super) fn kill(&mut self) -> Vec<(PathBuf, u64)> {
        let mut writes = Vec::new();
        let happens = [0.0, 0.5, 1.0][self.random.random_range(0..3)];
        for operation in std::mem::take(&mut self.operations).into_values() {
            if let Some((node, first, _)) = operation.write {
                writes.push((self.paths[&node].clone(), first as u64 * BLOCK));
            }
            if !operation.is_flush && self.random.random_bool(happens) {
                (operation.action)(self);
            }
        }
        self.faults = Faults::default();
        writes
    }

    /// Power is lost.
    pub(super) fn crash(&mut self) -> Crash {
        let in_flight = self.kill();
        let keep = [0.0, 0.1, 0.5, 0.5, 0.9, 1.0][self.random.random_range(0..6)];
        let before: u64 = self.files.values().map(|file| file.seen.allocated()).sum();
        self.tree.crash(&mut self.random, keep);
        let mut crash = Crash { in_flight, ..Crash::default() };
        for (node, file) in &mut self.files {
            crash.unflushed += usize::from(!file.is_durable());
            let torn = file.crash(&mut self.random, keep);
            crash.torn.extend(torn.into_iter().map(|first| (self.paths[node].clone(), first as u64 * BLOCK)));
        }
        let reachable = self.tree.reachable();
        self.files.retain(|node, _| reachable.contains(node));
        self.tree.forget(&reachable);
        let after: u64 = self.files.values().map(|file| file.seen.allocated()).sum();
        self.give_space(before.saturating_sub(after));
        crash
    }

    /// The paths of files change with their directories; reports want the newest.
    pub(super) fn renamed(&mut self, from: &Path, to: &Path) {
        for path in self.paths.values_mut() {
            if let Ok(rest) = path.strip_prefix(from) {
                *path = if rest.as_os_str().is_empty() { to.to_owned() } else { to.join(rest) };
            }
        }
    }
}

fn content(block: &[u8]) -> Content {
    let is_zero = block.iter().all(|byte| *byte == 0);
    if is_zero { None } else { Some(Rc::from(block)) }
}
