//! What readers find wrong on the disk, in the log once: a client that polls comes to the same place again and again.

#![deny(clippy::disallowed_types)]

use crate::core::Core;
use engine::{log::ReadError, partition::PartitionId};
use std::{cell::RefCell, collections::BTreeSet, io};

/// Places that a core names in the log. What is found beyond is only counted.
const PLACES_MAX: usize = 1_000;

/// The places that are named already.
#[derive(Default)]
pub struct FailedReads {
    named: RefCell<BTreeSet<(PartitionId, String)>>,
}

impl FailedReads {
    fn is_new(&self, id: PartitionId, what: &str) -> bool {
        let mut named = self.named.borrow_mut();
        named.len() < PLACES_MAX && named.insert((id, what.to_owned()))
    }
}

impl Core {
    /// Says in the log why a partition can't be read, if the disk is to blame.
    pub fn read_failed(&self, id: PartitionId, error: &ReadError) {
        if let Some(what) = of_disk(error).filter(|what| self.failed_reads.is_new(id, what)) {
            tracing::error!("{} can't be read: {what}", self.name_of(id));
        }
    }

    fn name_of(&self, id: PartitionId) -> String {
        let catalog = self.catalog.borrow();
        let mut partitions = catalog.topics().flat_map(|topic| topic.partitions.iter().enumerate().map(move |found| (topic, found)));
        let found = partitions.find(|(_, (_, partition))| partition.id == id);
        found.map_or_else(|| format!("partition {}", id.0), |(topic, (index, _))| format!("{}-{index}", topic.name))
    }
}

fn of_disk(error: &ReadError) -> Option<String> {
    match error {
        ReadError::Corrupt { path, position, what } => {
            let path = path.display();
            Some(format!("{path} is corrupt at byte {position}: {what}. `segment-dump --verify {path}` shows what is there"))
        }
        // The engine has named a partition that it refuses to open.
        ReadError::Storage { source, .. } if source.kind() == io::ErrorKind::InvalidData => None,
        ReadError::Storage { path, source } => Some(format!("{}: {source}", path.display())),
        ReadError::UnknownPartition | ReadError::OutOfRange => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    #[test]
    fn a_place_is_named_once_and_not_without_end() {
        let (reads, id) = (FailedReads::default(), PartitionId(7));
        assert!(reads.is_new(id, "a") && !reads.is_new(id, "a"));
        assert!(reads.is_new(id, "b") && reads.is_new(PartitionId(8), "a"));
        assert_eq!((0..2 * PLACES_MAX).filter(|at| reads.is_new(id, &at.to_string())).count(), PLACES_MAX - 3);
    }

    #[test]
    fn damage_is_named_with_what_to_do_and_what_the_engine_has_named_is_not_again() {
        let path = || PathBuf::from("data/orders-0/00000000000000000000.log");
        let what = of_disk(&ReadError::Corrupt { path: path(), position: 77, what: "magic 3 is not 2".into() }).expect("damage");
        assert!(what.contains("at byte 77: magic 3") && what.contains("segment-dump --verify data/orders-0/0"), "{what}");
        let of_kind = |kind| of_disk(&ReadError::Storage { path: path(), source: io::Error::from(kind) });
        assert!(of_kind(io::ErrorKind::Other).is_some() && of_kind(io::ErrorKind::InvalidData).is_none());
        assert_eq!(of_disk(&ReadError::OutOfRange), None);
    }
}
