//! The log directories of a stopped Kafka: which partitions they hold, and what its checkpoints say of them.

use crate::{
    lock::Lock,
    moving::{self, failed, files, select::is_internal},
};
use anyhow::{Context, Result, bail};
use engine::{
    kafka::{CLEAN_SHUTDOWN, CLUSTER_METADATA, LOG_START_CHECKPOINT, META_PROPERTIES, RECOVERY_POINT_CHECKPOINT, decode_offsets},
    log::catalog_spec,
    segment::{FileKind, FormatError, PARTITION_METADATA, decode_metadata, parse_directory_name, parse_file_name},
};
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};
use uuid::Uuid;

/// Offsets by topic and partition.
type Checkpoint = BTreeMap<(String, i32), i64>;

/// A partition that a Kafka wrote.
#[derive(Clone, Debug)]
pub(super) struct Partition {
    pub(super) directory: PathBuf,
    pub(super) id: Uuid,
    /// The first offset that is to be read, 0 if it is the first segment's.
    pub(super) log_start: i64,
    /// That Kafka was not stopped cleanly: from here on its recovery would cut what isn't whole.
    pub(super) torn_from: Option<i64>,
    /// Its logs, in bytes.
    pub(super) bytes: u64,
}

/// Everything that is in the directories.
pub(super) struct Kafka {
    /// By topic and index.
    pub(super) topics: BTreeMap<String, BTreeMap<i32, Partition>>,
    /// KRaft's own log, if it is there.
    pub(super) metadata: Option<PathBuf>,
    /// The id of the node that wrote all this.
    pub(super) node_id: Option<String>,
    /// Every directory has the mark of a clean stop.
    pub(super) clean: bool,
    /// A checkpoint of log starts that is damaged, and how: it counts as empty.
    pub(super) damaged_log_starts: Option<(PathBuf, FormatError)>,
    _locks: Vec<Lock>,
}

impl Kafka {
    /// Reads the directories and holds their locks.
    pub(super) fn open(paths: &[PathBuf]) -> Result<Kafka> {
        let mut kafka = Kafka::none();
        for path in paths {
            kafka.add(path, true)?;
        }
        Ok(kafka)
    }

    /// Reads a directory whose lock the caller holds. (A process that takes a record lock twice gives up the first, and with any
    /// descriptor of the file that it closes all of them.)
    pub(super) fn of_locked(path: &Path) -> Result<Kafka> {
        let mut kafka = Kafka::none();
        kafka.add(path, false)?;
        Ok(kafka)
    }

    fn none() -> Kafka {
        Kafka { topics: BTreeMap::new(), metadata: None, node_id: None, clean: true, damaged_log_starts: None, _locks: Vec::new() }
    }

    fn add(&mut self, path: &Path, lock: bool) -> Result<()> {
        let names = files::names(path)?;
        if path.join(catalog_spec().directory).exists() {
            bail!("{} is a data directory of Thalweg, not of a Kafka", path.display());
        }
        let properties = files::text(&path.join(META_PROPERTIES))?;
        if properties.is_none() && !names.iter().any(|name| path.join(name).join(PARTITION_METADATA).exists()) {
            bail!("{} is no log directory of a Kafka: neither {META_PROPERTIES} nor a partition is in it", path.display());
        }
        if lock {
            self._locks.push(moving::lock(path)?);
        }
        let node = properties.iter().flat_map(|text| text.lines()).find_map(|line| line.strip_prefix("node.id="));
        self.node_id = self.node_id.take().or(node.map(|id| id.trim().to_owned()));
        let clean = path.join(CLEAN_SHUTDOWN).exists();
        self.clean &= clean;
        let log_starts = path.join(LOG_START_CHECKPOINT);
        let log_starts = checkpoint(&log_starts)?.unwrap_or_else(|error| {
            self.damaged_log_starts = Some((log_starts, error));
            Checkpoint::new()
        });
        let recovery_points = path.join(RECOVERY_POINT_CHECKPOINT);
        let recovery_points = checkpoint(&recovery_points)?.unwrap_or_else(|error| {
            // Then logs are checked from their first batch on.
            tracing::warn!("{} can't be read ({error}), and counts as empty", recovery_points.display());
            Checkpoint::new()
        });
        for name in &names {
            let directory = path.join(name);
            // What that Kafka has set aside has other names: `-stray`, `-delete`, `-future`.
            let Some((topic, index)) = parse_directory_name(name).filter(|_| directory.is_dir()) else { continue };
            if topic == CLUSTER_METADATA {
                self.metadata = Some(directory);
                continue;
            }
            let key = (topic.to_owned(), index);
            let partition = Partition {
                id: topic_id(&directory)?,
                bytes: bytes(&directory)?,
                log_start: log_starts.get(&key).copied().unwrap_or(0),
                torn_from: (!clean).then(|| recovery_points.get(&key).copied().unwrap_or(0)),
                directory,
            };
            let others = self.topics.entry(key.0).or_default();
            if let Some(other) = others.get(&index) {
                bail!(
                    "{} and {} hold the same partition: leave one of the directories out",
                    other.directory.display(),
                    partition.directory.display()
                );
            }
            others.insert(index, partition);
        }
        Ok(())
    }

    /// The directories of one of the broker's own topics.
    pub(super) fn directories(&self, topic: &str) -> Vec<PathBuf> {
        self.topics.get(topic).into_iter().flat_map(|partitions| partitions.values().map(|partition| partition.directory.clone())).collect()
    }

    /// The id of a topic, and its partitions by index: all of `count` if that is known.
    pub(super) fn partitions(&self, topic: &str, count: Option<i32>) -> Result<(Uuid, Vec<&Partition>)> {
        let found = &self.topics[topic];
        let count = count.unwrap_or(0).max(found.last_key_value().map_or(0, |(last, _)| last + 1));
        let all = (0..count).map(|index| {
            found.get(&index).with_context(|| {
                format!("partition {index} of topic {topic} is in none of the given directories: name all log.dirs of that Kafka, or leave the topic out")
            })
        });
        let all: Vec<&Partition> = all.collect::<Result<_>>()?;
        let id = all[0].id;
        if let Some(other) = all.iter().find(|partition| partition.id != id) {
            bail!("{} belongs to another topic of the name {topic} (id {}, not {id}): move it away", other.directory.display(), other.id);
        }
        Ok((id, all))
    }

    /// The topics that clients made.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.topics.keys().map(String::as_str).filter(|topic| !is_internal(topic))
    }
}

fn topic_id(directory: &Path) -> Result<Uuid> {
    let path = directory.join(PARTITION_METADATA);
    let text = files::text(&path)?;
    text.and_then(|text| decode_metadata(&text).ok()).with_context(|| {
        format!(
            "{} is missing or damaged: start that Kafka (2.8 or newer), which writes it, and stop it; or move the directory away",
            path.display()
        )
    })
}

fn bytes(directory: &Path) -> Result<u64> {
    let mut bytes = 0;
    for name in files::names(directory)? {
        if let Some((_, FileKind::Log)) = parse_file_name(&name) {
            let path = directory.join(name);
            bytes += fs::metadata(&path).map_err(|error| failed("look at", &path, error))?.len();
        }
    }
    Ok(bytes)
}

/// A checkpoint, or what is wrong with it. One that is not there says nothing.
fn checkpoint(path: &Path) -> Result<Result<Checkpoint, FormatError>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(failed("read", path, error)),
    };
    let owned = |(topic, partition, offset): (&str, i32, i64)| ((topic.to_owned(), partition), offset);
    Ok(decode_offsets(&bytes).map(|entries| entries.into_iter().map(owned).collect()))
}
