//! Which directory a partition's number belongs to: the journal knows numbers only, and a directory that was copied, or that an import
//! has not handed over yet, has a mark that is another's.

use super::{Journals, Opened, open};
use crate::dump::{
    Request,
    inputs::Listing,
    read::{Seen, small, walk},
};
use anyhow::{Result, bail};
use engine::{
    ids::PartitionId,
    log::catalog_spec,
    segment::{FileKind, PARTITION_METADATA, decode_metadata, file_name},
};
use server::catalog::Catalog;
use std::{collections::BTreeMap, path::Path};
use uuid::Uuid;

/// What the catalog of a data directory says, as its broker would read it now.
#[derive(Debug, Default)]
pub(super) struct Owners {
    partitions: BTreeMap<PartitionId, (String, Uuid)>,
    /// Damage of it: whatever it does not know may have stood there.
    damage: Option<String>,
}

impl Owners {
    pub(super) fn read(data_dir: &Path, log_start: i64, request: &Request, journals: &Journals) -> Result<Owners> {
        let directory = data_dir.join(catalog_spec().directory);
        let (mut bytes, mut damage) = (Vec::new(), None);
        for base_offset in Listing::of(&directory)?.segments() {
            let log = directory.join(file_name(base_offset, FileKind::Log));
            let Opened { mut file, .. } = open(&log, base_offset, None, request, journals)?;
            walk(&mut file, 0, base_offset, |seen| {
                if seen.is_bad() && seen.is_followed() {
                    damage = Some(format!("{}, position {}", log.display(), seen.position()));
                }
                if let Seen::Batch(batch) = seen
                    && batch.wrong.is_none()
                    && batch.header.last_offset() >= log_start
                {
                    bytes.extend_from_slice(batch.bytes);
                }
                Ok(true)
            })?;
        }
        let catalog = Catalog::from_bytes(&bytes)?;
        let of_topic = |topic: &server::catalog::Topic| {
            let (name, id) = (topic.name.clone(), topic.id);
            let partitions: Vec<PartitionId> = topic.partitions.iter().map(|partition| partition.id).collect();
            partitions.into_iter().enumerate().map(move |(index, partition)| (partition, (format!("{name}-{index}"), id)))
        };
        Ok(Owners { partitions: catalog.topics().flat_map(of_topic).collect(), damage })
    }

    pub(super) fn know(&self, partition: PartitionId) -> bool {
        self.partitions.contains_key(&partition)
    }

    /// True if `directory` is that of the partition.
    ///
    /// # Errors
    /// The partition isn't known, and the catalog is damaged.
    pub(super) fn is_of(&self, partition: PartitionId, directory: &Path) -> Result<bool> {
        if let Some(damage) = self.damage.as_ref().filter(|_| !self.know(partition)) {
            bail!("the catalog, which would say whose directory this is, is damaged: {damage}");
        }
        let metadata = small(&directory.join(PARTITION_METADATA)).unwrap_or_default();
        let id = std::str::from_utf8(&metadata).ok().and_then(|text| decode_metadata(text).ok());
        let path = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
        Ok(self.partitions.get(&partition).is_some_and(|(name, topic)| path.ends_with(name) && id == Some(*topic)))
    }
}
