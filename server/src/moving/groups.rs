//! Committed offsets, from the files of `__consumer_offsets`.

use super::{failed, files, walk::Batches};
use crate::groups::{classic::Snapshot, offsets::Offsets, replay::Replay};
use anyhow::{Context, Result, bail};
use engine::{
    batch::Header,
    segment::{FileKind, parse_file_name},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// The groups of a stopped broker.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// Their metadata, as far as they have any of the classic protocol.
    pub(super) metadata: BTreeMap<String, Snapshot>,
    /// Their offsets.
    pub(super) offsets: BTreeMap<String, Offsets>,
}

impl Groups {
    /// Reads the partitions of `__consumer_offsets`. With `torn` (that broker was not stopped cleanly) a log may end early.
    pub(super) fn read(directories: &[PathBuf], torn: bool) -> Result<Groups> {
        let mut groups = Groups::default();
        for directory in directories {
            let mut replay = Replay::default();
            each_batch(directory, torn, |header, bytes| {
                replay.apply(bytes, header.base_offset()).with_context(|| format!("{} can't be read", directory.display())).map(drop)
            })?;
            let (metadata, offsets) = replay.finish();
            groups.metadata.extend(metadata);
            groups.offsets.extend(offsets);
        }
        Ok(groups)
    }

    /// Keeps the offsets of these topics only, and groups that have any.
    pub(super) fn retain(&mut self, topics: &BTreeSet<String>) {
        for offsets in self.offsets.values_mut() {
            let others: Vec<(String, i32)> = offsets
                .iter()
                .filter(|(topic, ..)| !topics.contains(*topic))
                .map(|(topic, partition, _)| (topic.to_owned(), partition))
                .collect();
            for (topic, partition) in others {
                offsets.remove(&topic, partition);
            }
        }
        self.offsets.retain(|_, offsets| !offsets.is_empty());
        self.metadata.retain(|group, _| self.offsets.contains_key(group));
    }

    /// How many offsets there are.
    pub(super) fn count(&self) -> usize {
        self.offsets.values().map(Offsets::len).sum()
    }
}

/// Gives every batch of a partition to `each`, in order. Damage is an error, unless the log may be torn.
pub(super) fn each_batch(directory: &Path, torn: bool, mut each: impl FnMut(&Header, &[u8]) -> Result<()>) -> Result<()> {
    let mut bases: Vec<(i64, PathBuf)> = Vec::new();
    for name in files::names(directory)? {
        if let Some((base, FileKind::Log)) = parse_file_name(&name) {
            bases.push((base, directory.join(name)));
        }
    }
    bases.sort_unstable();
    let mut buffer = Vec::new();
    for (base, path) in bases {
        let reading = |error| failed("read", &path, error);
        let mut walk = Batches::open(&path, base, i32::MIN, buffer).map_err(reading)?;
        let stop = loop {
            match walk.advance(&mut |_| Ok(())).map_err(reading)? {
                Ok((_, header, range)) => each(&header, walk.bytes(range))?,
                Err(stop) => break stop,
            }
        };
        if !stop.is_end() {
            if torn {
                break;
            }
            bail!("{} is damaged at byte {}: {stop}. segment-dump --verify shows more", path.display(), walk.scanner().position);
        }
        buffer = walk.close();
    }
    Ok(())
}
