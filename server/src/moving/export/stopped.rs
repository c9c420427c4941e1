//! A Thalweg data directory that was stopped cleanly, read without changing anything.

use crate::{
    catalog::Catalog,
    lock::Lock,
    moving::{self, failed, groups::each_batch},
};
use anyhow::{Context, Result, bail};
use engine::{
    journal::{Chain, FRAME_HEADER_BYTES, Found, FrameHeader, Superblock, Which, check, decode, file_path, superblock_path},
    kafka::CLEAN_SHUTDOWN,
    log::catalog_spec,
    partition::PartitionId,
};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// What a stopped broker's directory holds.
pub(super) struct Stopped {
    /// The directory.
    pub(super) path: PathBuf,
    /// Its topics and their configs.
    pub(super) catalog: Catalog,
    /// The first offset that is to be read, of each partition.
    pub(super) log_starts: BTreeMap<PartitionId, i64>,
    _lock: Lock,
}

impl Stopped {
    /// Reads a data directory and holds its lock.
    pub(super) fn open(path: &Path, journal_dir: &Path) -> Result<Stopped> {
        let catalog_dir = path.join(catalog_spec().directory);
        if !catalog_dir.is_dir() {
            bail!("{} is no data directory of Thalweg: there is no {}", path.display(), catalog_dir.display());
        }
        let lock = moving::lock(path)?;
        let superblock = superblock(journal_dir, path)?;
        if !superblock.clean || !path.join(CLEAN_SHUTDOWN).exists() {
            bail!(
                "{} was not stopped cleanly: a part of its data may be in the journal only, and an export changes nothing of its source. Start \
                 thalweg on it (or on a copy of it), stop it with SIGTERM, and export then",
                path.display()
            );
        }
        let mut batches = Vec::new();
        each_batch(&catalog_dir, false, |_, bytes| {
            batches.extend_from_slice(bytes);
            Ok(())
        })?;
        let catalog = Catalog::from_bytes(&batches)?;
        let mut log_starts = BTreeMap::new();
        for core in 0..superblock.journals as usize {
            for (partition, offset) in journal(journal_dir, core, &superblock)? {
                let start = log_starts.entry(partition).or_insert(offset);
                *start = offset.max(*start);
            }
        }
        Ok(Stopped { path: path.to_path_buf(), catalog, log_starts, _lock: lock })
    }

    /// The directories of a topic's partitions, in order.
    pub(super) fn directories(&self, topic: &str) -> Result<Vec<PathBuf>> {
        let count = self.catalog.topic(topic).map_or(0, |topic| topic.partitions.len());
        let directories: Vec<PathBuf> = (0..count).map(|index| self.path.join(format!("{topic}-{index}"))).collect();
        match directories.iter().find(|directory| !directory.is_dir()) {
            Some(missing) => bail!("{} is missing, although the catalog has it: restore it from a copy", missing.display()),
            None => Ok(directories),
        }
    }
}

fn superblock(journal_dir: &Path, data_dir: &Path) -> Result<Superblock> {
    let path = superblock_path(journal_dir);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!("there is no {}: where is the journal of {}? --journal-dir says it", path.display(), data_dir.display())
        }
        Err(error) => return Err(failed("read", &path, error)),
    };
    Superblock::newest(&bytes).map(|(_, found)| found).with_context(|| format!("{} is damaged", path.display()))
}

/// The log starts that a core's journal says: of its file with the newest complete head.
fn journal(journal_dir: &Path, core: usize, superblock: &Superblock) -> Result<Vec<(PartitionId, i64)>> {
    let mut best: Option<(u64, Vec<(PartitionId, i64)>)> = None;
    for which in [Which::A, Which::B] {
        let path = file_path(journal_dir, core, which);
        let found = journal_file(&path, core, superblock).map_err(|error| failed("read", &path, error))?;
        if let Some((generation, starts)) = found
            && best.as_ref().is_none_or(|(best, _)| *best < generation)
        {
            best = Some((generation, starts));
        }
    }
    let missing =
        || format!("the journal of core {core} in {} has no complete head: start thalweg on it, and stop it", journal_dir.display());
    best.map(|(_, starts)| starts).with_context(missing)
}

/// Generation and log starts of a journal file.
type Generation = (u64, Vec<(PartitionId, i64)>);

/// What one file holds: its frames in sequence, up to the first that isn't one.
fn journal_file(path: &Path, core: usize, superblock: &Superblock) -> io::Result<Option<Generation>> {
    let file = File::open(path)?;
    let (mut offset, mut starts, mut chain, mut bytes) = (0, Vec::new(), Chain::default(), Vec::new());
    loop {
        if !read_at(&file, offset, FRAME_HEADER_BYTES, &mut bytes)? {
            break;
        }
        let Some(header) = FrameHeader::peek(&bytes) else { break };
        let is_ours = header.start == superblock.start && header.salt == superblock.salt && header.core as usize == core;
        if !is_ours || !read_at(&file, offset, FRAME_HEADER_BYTES + header.length as usize, &mut bytes)? {
            break;
        }
        let items = check(&bytes).and_then(|(_, content)| decode(content).ok());
        let Some(items) = items.filter(|_| chain.push(&header)) else { break };
        for item in items {
            match item {
                Found::Line(line) => starts.push((line.partition, line.log_start)),
                Found::LogStart { partition, offset } => starts.push((partition, offset)),
                _ => {}
            }
        }
        offset += header.frame_bytes();
    }
    Ok(chain.generation().map(|generation| (generation, starts)))
}

/// False at the file's end.
fn read_at(file: &File, offset: u64, length: usize, into: &mut Vec<u8>) -> io::Result<bool> {
    into.resize(length, 0);
    match file.read_exact_at(into, offset) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        other => other.map(|()| true),
    }
}
