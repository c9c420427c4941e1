//! A Thalweg data directory that was stopped cleanly, read without changing anything.

use crate::{
    catalog::{CONSUMER_OFFSETS, Catalog},
    journal_owner,
    lock::Lock,
    moving::{self, failed, groups::each_batch},
};
use anyhow::{Context, Result, anyhow, bail};
use engine::{
    batch::{HEADER_BYTES, Scanner, Step},
    journal::{Chain, FRAME_HEADER_BYTES, Found, FrameHeader, Line, Superblock, Which, check, decode, file_path, superblock_path},
    kafka::CLEAN_SHUTDOWN,
    log::catalog_spec,
    partition::PartitionId,
    segment::{FileKind, file_name},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, BufReader, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// What is read at a time of a segment's headers, in bytes.
const WINDOW_BYTES: usize = 64 << 10;

/// Topics that a refusal names at most.
const NAMED_MAX: usize = 50;

/// What a stopped broker's directory holds.
pub(super) struct Stopped {
    /// The directory.
    pub(super) path: PathBuf,
    /// Its topics and their configs.
    pub(super) catalog: Catalog,
    journaled: BTreeMap<PartitionId, Journaled>,
    _lock: Lock,
}

/// What the journals say of a partition.
#[derive(Default)]
struct Journaled {
    /// The first offset that is to be read.
    log_start: i64,
    line: Option<Line>,
}

impl Stopped {
    /// Reads a data directory and holds its lock.
    pub(super) fn open(path: &Path, journal_dir: &Path) -> Result<Stopped> {
        let catalog_dir = path.join(catalog_spec().directory);
        if !catalog_dir.is_dir() {
            bail!("{} is no data directory of Thalweg: there is no {}", path.display(), catalog_dir.display());
        }
        let lock = moving::lock(path)?;
        journal_owner::check(path, journal_dir)?;
        let superblock = superblock(journal_dir, path)?;
        if !superblock.clean || !path.join(CLEAN_SHUTDOWN).exists() {
            bail!(
                "{} was not stopped cleanly: a part of its data may be in the journal only, and an export changes nothing of its source. Start \
                 thalweg on it (or on a copy of it and of its journal), stop it with SIGTERM, and export then. If that stop is none either, the \
                 broker's log says which partition is offline. {WAYS_OUT}",
                path.display()
            );
        }
        let mut journaled = BTreeMap::new();
        for core in 0..superblock.journals as usize {
            journaled.append(&mut journal(journal_dir, core, &superblock)?);
        }
        let mut stopped = Stopped { path: path.to_path_buf(), catalog: Catalog::default(), journaled, _lock: lock };
        stopped
            .check_whole(&catalog_dir, catalog_spec().id)
            .with_context(|| format!("the catalog is damaged, and without it nothing can be exported. {WAYS_OUT}"))?;
        let (mut batches, mut next) = (Vec::new(), stopped.log_start(catalog_spec().id));
        each_batch(&catalog_dir, false, |header, bytes| {
            if header.base_offset() > next {
                let (first, last) = (next, header.base_offset() - 1);
                bail!("the segment with the offsets {first} to {last} is missing in {}. {WAYS_OUT}", catalog_dir.display());
            }
            // What lies below the log start are changes to a state that is gone.
            if header.last_offset() >= next {
                batches.extend_from_slice(bytes);
                next = header.next_offset();
            }
            Ok(())
        })?;
        stopped.catalog = Catalog::from_bytes(&batches)?;
        Ok(stopped)
    }

    /// The directories of a topic's partitions, in order, and what is wrong with those of which not all data is in their segments.
    pub(super) fn directories(&self, topic: &str) -> (Vec<PathBuf>, Vec<String>) {
        let (mut whole, mut wrong) = (Vec::new(), Vec::new());
        for (index, partition) in self.catalog.topic(topic).into_iter().flat_map(|topic| &topic.partitions).enumerate() {
            let name = format!("{topic}-{index}");
            let directory = self.path.join(&name);
            match self.check_whole(&directory, partition.id) {
                Ok(()) => whole.push(directory),
                Err(error) => wrong.push(format!("{name}: {error:#}")),
            }
        }
        (whole, wrong)
    }

    /// Says what is wrong with topics, by name, and every way out.
    pub(super) fn refusal(&self, chosen: &BTreeSet<String>, wrong: &BTreeMap<String, Vec<String>>) -> anyhow::Error {
        let others: Vec<&str> = chosen.iter().map(String::as_str).filter(|topic| !wrong.contains_key(*topic)).collect();
        let others = match others.len() {
            _ if wrong.contains_key(CONSUMER_OFFSETS) => {
                format!(". The groups' offsets are in {CONSUMER_OFFSETS}: no topic can be exported without it")
            }
            0 => String::new(),
            1..=NAMED_MAX => format!(". Or export the others meanwhile: --topics {}", others.join(",")),
            count => format!(". Or export the {count} others meanwhile: name them with --topics"),
        };
        let wrong: Vec<&str> = wrong.values().flatten().map(String::as_str).collect();
        let place = self.path.display();
        anyhow!("{place} can't be exported whole:\n  {}\nNothing was written. {WAYS_OUT}{others}", wrong.join("\n  "))
    }

    /// The first offset of a partition that is to be read.
    pub(super) fn log_start(&self, id: PartitionId) -> i64 {
        self.journaled.get(&id).map_or(0, |journaled| journaled.log_start)
    }

    /// A stop leaves a partition as it is whose active segment is damaged.
    fn check_whole(&self, directory: &Path, id: PartitionId) -> Result<()> {
        if !directory.is_dir() {
            bail!("{} is missing, although the catalog has it", directory.display());
        }
        let line = self.journaled.get(&id).and_then(|journaled| journaled.line);
        if let Some(line) = line.filter(|line| line.batch_start > 0) {
            let path = directory.join(file_name(line.segment_base, FileKind::Log));
            let end = end_below(&path, &line).map_err(|error| failed("read", &path, error))?;
            if end < u64::from(line.batch_start) {
                bail!("{} has no batch at byte {end}, where the journal says that batches reach to {}", path.display(), line.batch_start);
            }
        }
        Ok(())
    }
}

/// What an operator can do about damage.
const WAYS_OUT: &str = "What is damaged can be restored from a copy; or start thalweg once with --accept-loss, which goes on with what lies \
                        before the damage and keeps the rest beside; then stop it with SIGTERM, and export";

/// Where the batches of an active segment end, by their headers, or a position behind those that its line vouches for.
fn end_below(path: &Path, line: &Line) -> io::Result<u64> {
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    let mut reader = BufReader::with_capacity(WINDOW_BYTES, file);
    let mut scanner = Scanner::new(0, line.segment_base, i32::MIN);
    let mut header = Vec::with_capacity(HEADER_BYTES);
    while scanner.position < u64::from(line.batch_start) {
        let position = scanner.position;
        header.clear();
        let read = reader.by_ref().take(HEADER_BYTES as u64).read_to_end(&mut header)?;
        let Step::Batch(_) = scanner.step_header(&header, size.saturating_sub(position)) else { break };
        reader.seek_relative((scanner.position - position) as i64 - read as i64)?;
    }
    Ok(scanner.position)
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

/// What a core's journal says: its file with the newest complete head.
fn journal(journal_dir: &Path, core: usize, superblock: &Superblock) -> Result<BTreeMap<PartitionId, Journaled>> {
    let mut best: Option<Generation> = None;
    for which in [Which::A, Which::B] {
        let path = file_path(journal_dir, core, which);
        let found = journal_file(&path, core, superblock).map_err(|error| failed("read", &path, error))?;
        if let Some(found) = found
            && best.as_ref().is_none_or(|best| best.0 < found.0)
        {
            best = Some(found);
        }
    }
    let missing =
        || format!("the journal of core {core} in {} has no complete head: start thalweg on it, and stop it", journal_dir.display());
    best.map(|(_, journaled)| journaled).with_context(missing)
}

/// Generation and content of a journal file.
type Generation = (u64, BTreeMap<PartitionId, Journaled>);

/// What one file holds: its frames in sequence, up to the first that isn't one.
fn journal_file(path: &Path, core: usize, superblock: &Superblock) -> io::Result<Option<Generation>> {
    let file = File::open(path)?;
    let mut journaled = BTreeMap::<PartitionId, Journaled>::new();
    let (mut offset, mut chain, mut frame) = (0, Chain::default(), Vec::new());
    loop {
        if !read_at(&file, offset, FRAME_HEADER_BYTES, &mut frame)? {
            break;
        }
        let Some(header) = FrameHeader::peek(&frame) else { break };
        let is_ours = header.start == superblock.start && header.salt == superblock.salt && header.core as usize == core;
        if !is_ours || !read_at(&file, offset, FRAME_HEADER_BYTES + header.length as usize, &mut frame)? {
            break;
        }
        let items = check(&frame).and_then(|(_, content)| decode(content).ok());
        let Some(items) = items.filter(|_| chain.push(&header)) else { break };
        for item in items {
            match item {
                Found::Line(line) => {
                    let partition = journaled.entry(line.partition).or_default();
                    (partition.line, partition.log_start) = (Some(line), partition.log_start.max(line.log_start));
                }
                Found::LogStart { partition, offset } => {
                    let partition = journaled.entry(partition).or_default();
                    partition.log_start = partition.log_start.max(offset);
                }
                // A clean stop leaves no bytes.
                Found::Bytes { .. } | Found::Producer { .. } | Found::Epoch { .. } | Found::Frames { .. } => {}
            }
        }
        offset += header.frame_bytes();
    }
    Ok(chain.generation().map(|generation| (generation, journaled)))
}

/// False at the file's end.
fn read_at(file: &File, offset: u64, length: usize, into: &mut Vec<u8>) -> io::Result<bool> {
    into.resize(length, 0);
    match file.read_exact_at(into, offset) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        other => other.map(|()| true),
    }
}
