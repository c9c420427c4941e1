//! A journal that a broker may be writing: which frames count now, and of which bytes of which segments they are.
//!
//! It is only read, and frames are taken whole or not at all. What is kept of a frame is where it lies, not what it holds: that
//! is read when it is shown, and checked again then ([`super::Overlay`]).

use crate::dump::read::{Chunk, Direct, small};
use anyhow::{Context, Result, bail};
use engine::{
    disk::BLOCK,
    ids::PartitionId,
    journal::{
        Chain, Extent, FORMAT_VERSION, FRAME_BYTES_MAX, FRAME_HEADER_BYTES, Found, FrameHeader, Line, Superblock, Which, check, decode,
        file_path, superblock_path, vouched,
    },
};
use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

/// Where a broker writes, something may be half there. What is not whole after so many readings is damaged.
pub(super) const TRIES_MAX: usize = 20;
/// What is read of a file at once: at first, and at most, in bytes.
const WINDOW_BYTES: (usize, usize) = (BLOCK as usize, 4 * FRAME_BYTES_MAX);

/// Where frames come from. Two that are equal hold the same frames, but for those that were written since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The file.
    pub(crate) path: PathBuf,
    core: u32,
    start: u64,
    salt: u64,
    generation: u64,
}

/// Bytes of a segment that a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// The segment.
    pub(crate) segment_base: i64,
    /// From this position of it on.
    pub(crate) from: u32,
    /// Up to this one.
    pub(crate) to: u32,
    /// Where the frame begins in its file.
    pub(crate) frame: u64,
    /// The frame is one of the head's.
    pub(crate) in_head: bool,
}

/// What a journal says of a partition.
#[derive(Debug, Default)]
pub(crate) struct Journaled {
    /// Its line in the head, if it was there when that was written.
    pub(crate) line: Option<Line>,
    /// In the order in which they were written.
    pub(crate) pieces: Vec<Piece>,
    /// The highest log start offset.
    pub(crate) log_start: i64,
    /// What comes of it in this head was in frames behind an earlier one.
    as_frames: bool,
}

/// The journal of all cores.
#[derive(Debug)]
pub(crate) struct Journal {
    directory: PathBuf,
    start: Option<(u64, u64)>,
    cores: Vec<Option<Current>>,
}

/// The file of a core that counts, as far as it was read.
#[derive(Debug)]
struct Current {
    origin: Origin,
    chain: Chain,
    /// Behind the last frame.
    end: u64,
    partitions: BTreeMap<PartitionId, Journaled>,
}

impl Journal {
    pub(super) fn new(directory: &Path) -> Journal {
        Journal { directory: directory.to_owned(), start: None, cores: Vec::new() }
    }

    /// Takes in what was written since.
    ///
    /// # Errors
    /// There is no journal, or a core has none that is whole.
    pub(super) fn refresh(&mut self) -> Result<()> {
        for _ in 0..TRIES_MAX {
            let (version, block) = superblock(&self.directory)?;
            if version > FORMAT_VERSION {
                bail!("{} is of format {version}, newer than {FORMAT_VERSION}", superblock_path(&self.directory).display());
            }
            if self.start != Some((block.start, block.salt)) {
                self.start = Some((block.start, block.salt));
                self.cores = (0..block.journals).map(|_| None).collect();
            }
            let mut all = true;
            for (core, current) in (0..).zip(&mut self.cores) {
                let found = newest(&self.directory, core, (block.start, block.salt), current.take())?;
                *current = found.map(Current::go_on).transpose()?;
                all &= current.is_some();
            }
            if all {
                return Ok(());
            }
            // Unless it is damaged, a start has committed meanwhile, or both files were written anew.
        }
        bail!("a journal in {} has no complete head", self.directory.display())
    }

    /// What it says of a partition, and where it says that; `None` if it says nothing.
    pub(super) fn partition(&self, partition: PartitionId) -> Option<(&Origin, &Journaled)> {
        self.cores.iter().flatten().find_map(|current| Some((&current.origin, current.partitions.get(&partition)?)))
    }
}

/// The newest slot that is valid, and its version.
pub(crate) fn superblock(directory: &Path) -> Result<(u32, Superblock)> {
    let path = superblock_path(directory);
    Superblock::newest(&small(&path)?).with_context(|| format!("no slot of {} is valid", path.display()))
}

/// Of a core's two files the newest with a complete head; `known` is what was found the last time.
fn newest(directory: &Path, core: u32, (start, salt): (u64, u64), mut known: Option<Current>) -> Result<Option<Current>> {
    let mut files = Vec::new();
    for which in [Which::A, Which::B] {
        let path = file_path(directory, core as usize, which);
        let mut frames = match Frames::open(&path) {
            Err(error) if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::NotFound) => continue,
            frames => frames?,
        };
        let first = frames.at(0)?.map(|(header, _)| header);
        if let Some(first) = first.filter(|first| first.head.0 == 1 && (first.start, first.salt, first.core) == (start, salt, core)) {
            files.push((Origin { path, core, start, salt, generation: first.generation }, frames));
        }
    }
    files.sort_by_key(|(origin, _)| std::cmp::Reverse(origin.generation));
    for (origin, frames) in files {
        if let Some(known) = known.take_if(|known| known.origin == origin) {
            return Ok(Some(known));
        }
        if let Some(current) = Current::begin(origin, frames)? {
            return Ok(Some(current));
        }
    }
    Ok(None)
}

impl Current {
    /// Reads the head; `None` if it is not complete.
    fn begin(origin: Origin, mut frames: Frames) -> Result<Option<Current>> {
        let mut current = Current { origin, chain: Chain::default(), end: 0, partitions: BTreeMap::new() };
        while current.chain.generation().is_none() {
            if !current.take(&mut frames)? {
                return Ok(None);
            }
        }
        Ok(Some(current))
    }

    /// Reads on to the last whole frame.
    fn go_on(mut self) -> Result<Current> {
        let mut frames = Frames::open(&self.origin.path)?;
        while self.take(&mut frames)? {}
        Ok(self)
    }

    /// Takes in the next frame; false if there is none.
    fn take(&mut self, frames: &mut Frames) -> Result<bool> {
        let position = self.end;
        let Some((header, content)) = frames.at(position)?.filter(|(header, _)| self.origin.is_of(header)) else { return Ok(false) };
        let mut chain = self.chain;
        let Some(items) = decode(content).ok().filter(|_| chain.push(&header)) else { return Ok(false) };
        for item in items {
            match item {
                Found::Line(line) => {
                    let journaled = self.partitions.entry(line.partition).or_default();
                    (journaled.line, journaled.log_start) = (Some(line), line.log_start);
                }
                Found::LogStart { partition, offset } => {
                    let journaled = self.partitions.entry(partition).or_default();
                    journaled.log_start = journaled.log_start.max(offset);
                }
                Found::Bytes { partition, segment_base, position: from, bytes } => {
                    let journaled = self.partitions.entry(partition).or_default();
                    let (to, in_head) = (from + bytes.len() as u32, header.is_head() && !journaled.as_frames);
                    journaled.pieces.push(Piece { segment_base, from, to, frame: position, in_head });
                }
                Found::Frames { partition } => self.partitions.entry(partition).or_default().as_frames = true,
                Found::Producer { .. } | Found::Epoch { .. } => {}
            }
        }
        (self.chain, self.end) = (chain, position + header.frame_bytes());
        Ok(true)
    }
}

impl Journaled {
    /// Up to here, in bytes, the journal vouches for the batches of a segment that no broker is writing.
    pub(super) fn vouched(&self, base_offset: i64) -> u64 {
        let line = self.line.filter(|line| line.segment_base == base_offset);
        if self.pieces.is_empty() {
            // Without one a batch that is not wholly flushed was not acked.
            return line.map_or(0, |line| u64::from(line.batch_start));
        }
        let extent = |piece: &Piece| Extent { position: piece.from, bytes: piece.to - piece.from, in_head: piece.in_head };
        let pieces = self.pieces.iter().filter(|piece| piece.segment_base == base_offset);
        vouched(line.map_or(0, |line| line.flushed), pieces.map(extent))
    }
}

impl Origin {
    /// True of a frame that counts, if it lies in this file.
    pub(super) fn is_of(&self, header: &FrameHeader) -> bool {
        (header.start, header.salt, header.core, header.generation) == (self.start, self.salt, self.core, self.generation)
    }
}

/// The frames of a file, by position.
#[derive(Debug)]
pub(super) struct Frames {
    path: PathBuf,
    file: Direct,
    window: Chunk,
    window_at: u64,
    window_bytes: usize,
}

impl Frames {
    pub(super) fn open(path: &Path) -> Result<Frames> {
        let file = Direct::open(path).with_context(|| format!("can't open {}", path.display()))?.following();
        Ok(Frames { path: path.to_owned(), file, window: Chunk::default(), window_at: 0, window_bytes: 0 })
    }

    /// The frame that begins at `position`, whole and with a valid checksum, if there is one: its header and its content.
    pub(super) fn at(&mut self, position: u64) -> Result<Option<(FrameHeader, &[u8])>> {
        let Some(header) = FrameHeader::peek(self.bytes(position, FRAME_HEADER_BYTES)?) else { return Ok(None) };
        Ok(check(self.bytes(position, FRAME_HEADER_BYTES + header.length as usize)?))
    }

    /// At least `length` bytes, fewer at the file's end.
    fn bytes(&mut self, position: u64, length: usize) -> Result<&[u8]> {
        let held = self.window_at..self.window_at + self.window.bytes().len() as u64;
        if position < held.start || position + length as u64 > held.end {
            // A look at a file's head is one block; what is read on and on is read in large pieces.
            self.window_bytes = (2 * self.window_bytes).clamp(WINDOW_BYTES.0.max(length), WINDOW_BYTES.1).next_multiple_of(BLOCK as usize);
            let read = self.file.read(position, self.window_bytes, 0);
            self.window = read.with_context(|| format!("can't read {} at {position}", self.path.display()))?;
            self.window_at = position;
        }
        Ok(&self.window.bytes()[(position - self.window_at) as usize..])
    }
}
