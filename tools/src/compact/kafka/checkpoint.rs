//! Kafka's checkpoints of a data directory, read and written back.

use anyhow::{Context, Result};
use engine::{
    disk::{Disk, read_whole, write_whole},
    kafka::{decode_offsets, encode_offsets},
};
use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

/// A checkpoint, to be changed and written back.
pub(super) struct Checkpoint {
    path: PathBuf,
    offsets: BTreeMap<(String, i32), i64>,
}

impl Checkpoint {
    /// Reads it. One that is missing is empty; so is one that is damaged, as for a Kafka.
    pub(super) async fn read<D: Disk>(disk: &D, data_dir: &Path, name: &str) -> Result<Checkpoint> {
        let path = data_dir.join(name);
        let bytes = match read_whole(disk, &path).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            bytes => bytes.with_context(|| format!("can't read {}", path.display()))?,
        };
        let offsets = match decode_offsets(&bytes) {
            Ok(entries) => entries.into_iter().map(|(topic, partition, offset)| ((topic.to_owned(), partition), offset)).collect(),
            Err(error) => {
                tracing::warn!("{} can't be read ({error}), and counts as empty", path.display());
                BTreeMap::new()
            }
        };
        Ok(Checkpoint { path, offsets })
    }

    pub(super) fn get(&self, topic: &str, partition: i32) -> Option<i64> {
        self.offsets.get(&(topic.to_owned(), partition)).copied()
    }

    /// Sets the offset of a partition, or takes it out, durably.
    pub(super) async fn set<D: Disk>(&mut self, disk: &D, topic: &str, partition: i32, offset: Option<i64>) -> Result<()> {
        let key = (topic.to_owned(), partition);
        let before = match offset {
            Some(offset) => self.offsets.insert(key, offset),
            None => self.offsets.remove(&key),
        };
        if before == offset {
            return Ok(());
        }
        let text = encode_offsets(self.offsets.iter().map(|((topic, partition), offset)| (topic.as_str(), *partition, *offset)));
        write_whole(disk, &self.path, text.as_bytes()).await.with_context(|| format!("can't write {}", self.path.display()))
    }
}
