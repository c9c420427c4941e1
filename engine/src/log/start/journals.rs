//! Steps 1 and 2: the superblock, each core's journal, and what they say of each partition.

use super::{
    super::{LogConfig, LogError},
    commit::unknown,
};
use crate::{
    disk::Disk,
    journal::{Content, Entry, Identity, Line, Superblock, Which, read_core, superblock_path},
    partition::{PartitionId, directory::Directory},
    segment::{EpochStart, ProducerState},
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// What the journals say of one partition.
#[derive(Default)]
pub(super) struct Journaled {
    /// Its line, if it was there when its head was written.
    pub(super) line: Option<Line>,
    /// Its entries, in order.
    pub(super) entries: Vec<Entry>,
    /// The highest log start offset.
    pub(super) log_start: i64,
    /// The head's producers.
    pub(super) producers: Vec<ProducerState>,
    /// The head's epochs.
    pub(super) epochs: Vec<EpochStart>,
}

impl Journaled {
    /// Its line; that of an empty partition if it has none.
    pub(super) fn line_of(&self, partition: PartitionId) -> Line {
        self.line.unwrap_or(Line { partition, segment_base: 0, flushed: 0, batch_start: 0, index_end: 0, log_start: 0 })
    }
}

/// What the journals hold of a run that did not stop cleanly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replay {
    /// Partitions with entries.
    pub partitions: usize,
    /// Bytes of all entries.
    pub bytes: u64,
}

/// What all journals say.
pub(super) struct Journals {
    /// What the last start committed; `None` at the first.
    pub(super) superblock: Option<Superblock>,
    /// The file of each core that was recovered from.
    pub(super) current: Vec<Which>,
    /// What they say of each partition.
    pub(super) partitions: BTreeMap<PartitionId, Journaled>,
    /// `None` at the first start, and after a clean stop.
    pub(super) replay: Option<Replay>,
}

/// Reads superblock and journals.
pub(super) async fn read<D: Disk>(disk: &D, config: &LogConfig, catalog: &Path) -> Result<Journals, LogError> {
    let superblock = Superblock::read(disk, &config.journal_dir).await?;
    let mut journals = Journals { superblock, current: Vec::new(), partitions: BTreeMap::new(), replay: None };
    let Some(superblock) = journals.superblock else {
        // Only the first start has none: nothing can have been appended then.
        if let Some(data) = find_data(disk, config, catalog).await? {
            let path = superblock_path(&config.journal_dir);
            if !config.accept_loss {
                return Err(LogError::NoSuperblock { path, data });
            }
            let path = path.display();
            tracing::warn!(
                "{path} is missing, or neither of its slots is whole: what was in the journal only is given up, and all segments are read"
            );
        }
        return Ok(journals);
    };
    // The commit overwrites the other slot: this one must be what it seems.
    superblock.write(disk, &config.journal_dir).await?;
    for core in 0..superblock.journals as usize {
        let identity = Identity { start: superblock.start, salt: superblock.salt, core };
        let (which, content) = read_core(disk, &config.journal_dir, identity, config.accept_loss).await?;
        journals.current.push(which);
        journals.apply(content);
    }
    journals.replay = (!superblock.clean).then(|| journals.to_replay());
    Ok(journals)
}

/// The catalog's directory, or that of a partition that a start has made or taken over, if there is data in it. Behind a full disk the
/// catalog's may have none, and be in the journal only: a start that doesn't know the others would remove them. What an import has put in
/// place, no start has taken over yet.
async fn find_data<D: Disk>(disk: &D, config: &LogConfig, catalog: &Path) -> Result<Option<PathBuf>, LogError> {
    let is_of_a_start = |name: &Path, found: &Directory| name == catalog || found.mark.is_some() && !found.flushed;
    let all = unknown(disk, config, std::iter::empty()).await?;
    let data = all.into_iter().find(|(name, found)| is_of_a_start(name, found) && found.has_data());
    Ok(data.map(|(name, _)| config.data_dir.join(name)))
}

impl Journals {
    /// The highest leader epoch that was ever given.
    pub(super) fn epoch_max(&self) -> i32 {
        self.superblock.map_or(i32::MAX, |superblock| superblock.epoch_floor)
    }

    fn to_replay(&self) -> Replay {
        let with_entries = self.partitions.values().filter(|journaled| !journaled.entries.is_empty());
        with_entries.fold(Replay::default(), |replay, journaled| Replay {
            partitions: replay.partitions + 1,
            bytes: replay.bytes + journaled.entries.iter().map(|entry| entry.bytes.len() as u64).sum::<u64>(),
        })
    }

    fn apply(&mut self, content: Content) {
        let Content { lines, entries, log_starts, producers, epochs, .. } = content;
        let partitions = &mut self.partitions;
        for line in lines {
            let journaled = partitions.entry(line.partition).or_default();
            journaled.log_start = journaled.log_start.max(line.log_start);
            journaled.line = Some(line);
        }
        for entry in entries {
            partitions.entry(entry.partition).or_default().entries.push(entry);
        }
        for (partition, offset) in log_starts {
            let journaled = partitions.entry(partition).or_default();
            journaled.log_start = journaled.log_start.max(offset);
        }
        for (partition, state) in producers {
            partitions.entry(partition).or_default().producers.push(state);
        }
        for (partition, epoch) in epochs {
            partitions.entry(partition).or_default().epochs.push(epoch);
        }
    }
}
