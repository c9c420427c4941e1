//! One simulated file: what programs see, what survives a crash, and the changes between the two.

use super::super::BLOCK;
use rand::{Rng, rngs::SmallRng};
use std::rc::Rc;

/// A block's content; `None` is zeros.
pub(super) type Content = Option<Rc<[u8]>>;

#[derive(Clone, Default)]
struct Cell {
    content: Content,
    allocated: bool,
}

/// Size, blocks and their allocation.
#[derive(Clone, Default)]
pub(super) struct Image {
    size: u64,
    /// Blocks that are allocated from the front on.
    front: usize,
    /// As far as something was written.
    cells: Vec<Cell>,
}

/// A change that is not durable yet.
#[derive(Clone)]
pub(super) enum Change {
    /// Whole blocks from a block number on. `grows`: it reached beyond the size of its time.
    Write { first: usize, blocks: Vec<Option<Content>>, grows: bool },
    /// truncate, either way.
    Size(u64),
    /// Allocated up to this many bytes.
    Allocate(u64),
}

impl Image {
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    fn blocks_of(bytes: u64) -> usize {
        bytes.div_ceil(BLOCK) as usize
    }

    pub(super) fn allocated(&self) -> u64 {
        (self.front + self.cells.iter().skip(self.front).filter(|cell| cell.allocated).count()) as u64
    }

    /// Blocks that a change would allocate.
    pub(super) fn wants(&self, first: usize, count: usize) -> u64 {
        (first.max(self.front)..first + count).filter(|number| !self.cells.get(*number).is_some_and(|cell| cell.allocated)).count() as u64
    }

    /// Copies bytes out; shorter at the end of the file.
    pub(super) fn read(&self, position: u64, len: usize) -> Vec<u8> {
        let end = (position + len as u64).min(self.size);
        let mut bytes = Vec::with_capacity(end.saturating_sub(position) as usize);
        let mut at = position;
        while at < end {
            let within = (at % BLOCK) as usize;
            let count = ((BLOCK as usize - within) as u64).min(end - at) as usize;
            match self.cells.get((at / BLOCK) as usize).and_then(|cell| cell.content.as_ref()) {
                Some(content) => bytes.extend_from_slice(&content[within..within + count]),
                None => bytes.resize(bytes.len() + count, 0),
            }
            at += count as u64;
        }
        bytes
    }

    /// Applies a change. With `survives`, each block of a write is asked for.
    pub(super) fn apply(&mut self, change: &Change, mut survives: impl FnMut() -> bool) {
        match change {
            Change::Write { first, blocks, grows } => {
                for (index, block) in blocks.iter().enumerate() {
                    let number = first + index;
                    let Some(content) = block else { continue };
                    if !survives() {
                        continue;
                    }
                    if number as u64 * BLOCK >= self.size {
                        // Without the size that was set before it, a write is out of reach.
                        if !grows {
                            continue;
                        }
                        self.size = (number as u64 + 1) * BLOCK;
                    } else if (number as u64 + 1) * BLOCK > self.size && *grows {
                        self.size = (number as u64 + 1) * BLOCK;
                    }
                    if self.cells.len() <= number {
                        self.cells.resize(number + 1, Cell::default());
                    }
                    self.cells[number] = Cell { content: content.clone(), allocated: true };
                }
            }
            Change::Size(bytes) => {
                if survives() {
                    self.resize(*bytes);
                }
            }
            Change::Allocate(bytes) => {
                if survives() {
                    self.front = self.front.max(Self::blocks_of(*bytes));
                }
            }
        }
    }

    /// The whole content, as it is from now on. Blocks that it doesn't change keep their space, or have none as before.
    fn replace(&mut self, bytes: &[u8]) {
        self.resize(bytes.len() as u64);
        for (number, block) in bytes.chunks(BLOCK as usize).enumerate() {
            if self.read(number as u64 * BLOCK, block.len()) == block {
                continue;
            }
            let mut content = block.to_vec();
            content.resize(BLOCK as usize, 0);
            if self.cells.len() <= number {
                self.cells.resize(number + 1, Cell::default());
            }
            self.cells[number] = Cell { content: Some(content.into()), allocated: true };
        }
    }

    fn resize(&mut self, bytes: u64) {
        if bytes < self.size {
            self.cells.truncate(Self::blocks_of(bytes));
            self.front = self.front.min(Self::blocks_of(bytes));
            let within = (bytes % BLOCK) as usize;
            if let (Some(cell), true) = (self.cells.get_mut((bytes / BLOCK) as usize), within > 0)
                && let Some(content) = &cell.content
            {
                let mut cut = content.to_vec();
                cut[within..].fill(0);
                cell.content = Some(cut.into());
            }
        }
        self.size = bytes;
    }
}

/// A file: what is seen, what is durable, and the changes from the one to the other.
#[derive(Clone, Default)]
pub(super) struct FileState {
    pub(super) seen: Image,
    durable: Image,
    changes: Vec<(u64, Change)>,
}

impl FileState {
    /// A change has happened: it is seen from now on, and durable after a flush.
    pub(super) fn change(&mut self, number: u64, change: Change) {
        self.seen.apply(&change, || true);
        self.changes.push((number, change));
    }

    /// A flush that was submitted after change `up_to` has succeeded. fdatasync (`data_only`) need not make a last
    /// truncation durable.
    pub(super) fn flushed(&mut self, up_to: u64, data_only: bool) {
        let mut count = self.changes.iter().take_while(|(number, _)| *number <= up_to).count();
        if data_only {
            let is_cut = |change: &(u64, Change)| matches!(change, (_, Change::Size(_)));
            while count > 0 && is_cut(&self.changes[count - 1]) && !self.grows(count - 1) {
                count -= 1;
            }
        }
        for (_, change) in self.changes.drain(..count) {
            self.durable.apply(&change, || true);
        }
    }

    /// Whether a change of size made the file longer.
    fn grows(&self, index: usize) -> bool {
        let mut image = self.durable.size;
        for (_, change) in &self.changes[..index] {
            match change {
                Change::Size(bytes) => image = *bytes,
                Change::Write { first, blocks, grows: true } => image = image.max((first + blocks.len()) as u64 * BLOCK),
                _ => {}
            }
        }
        matches!(self.changes[index].1, Change::Size(bytes) if bytes >= image)
    }

    /// A flush has failed: some of the data is gone for good, and the next flush won't say so. What is lost may still be
    /// seen until a crash, or not.
    pub(super) fn flush_failed(&mut self, up_to: u64, random: &mut SmallRng) {
        for (number, change) in &mut self.changes {
            let Change::Write { first, blocks, .. } = change else { continue };
            if *number > up_to {
                continue;
            }
            for (index, block) in blocks.iter_mut().enumerate() {
                if block.is_none() || random.random() {
                    continue;
                }
                *block = None;
                let number = *first + index;
                if random.random()
                    && let Some(seen) = self.seen.cells.get_mut(number)
                {
                    seen.content = self.durable.cells.get(number).and_then(|cell| cell.content.clone());
                }
            }
        }
    }

    /// Power is lost: each block of each change is kept with the chance `keep`. Returns, for each write that was torn,
    /// its first block.
    pub(super) fn crash(&mut self, random: &mut SmallRng, keep: f64) -> Vec<usize> {
        let mut torn = Vec::new();
        for (_, change) in std::mem::take(&mut self.changes) {
            let (mut kept, mut lost) = (0, 0);
            self.durable.apply(&change, || {
                let survives = random.random_bool(keep);
                if survives {
                    kept += 1
                } else {
                    lost += 1
                }
                survives
            });
            if let Change::Write { first, .. } = change
                && kept > 0
                && lost > 0
            {
                torn.push(first);
            }
        }
        self.seen = self.durable.clone();
        torn
    }

    /// What is on the medium changes by itself. What was seen was all written back before, however little of it was flushed.
    pub(super) fn rot(&mut self, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = self.seen.read(0, self.seen.size() as usize);
        change(&mut bytes);
        self.seen.replace(&bytes);
        self.durable = self.seen.clone();
        self.changes.clear();
    }

    pub(super) fn is_durable(&self) -> bool {
        self.changes.is_empty()
    }
}
