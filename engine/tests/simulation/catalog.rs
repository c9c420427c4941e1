//! A catalog in miniature, as records of the engine's own partition: which partitions exist, by id, and the counter of leader epochs.

use engine::{
    batch::{BatchBuilder, Header, Records, payload},
    partition::PartitionId,
};
use std::collections::BTreeMap;

/// One change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Topic number `topic` has a new partition.
    Created { id: PartitionId, topic: u32 },
    /// It is no more. The counter of leader epochs rises by one.
    Deleted { id: PartitionId },
}

/// What a start reads.
#[derive(Debug, Default)]
pub struct Catalog {
    /// The partitions that exist, with their topics.
    pub exist: BTreeMap<PartitionId, u32>,
    /// The counter of leader epochs: that of the start that the last batch was written behind, and the deletions since.
    pub epoch: i32,
}

/// The batch that says so.
pub fn encode(change: Change, now_ms: i64) -> Vec<u8> {
    let text = match change {
        Change::Created { id, topic } => format!("created {} {topic}", id.0),
        Change::Deleted { id } => format!("deleted {}", id.0),
    };
    BatchBuilder::new().record(now_ms, None, Some(text.as_bytes())).build()
}

/// What these batches lead to.
pub fn replay(mut batches: &[u8]) -> Result<Catalog, String> {
    let mut catalog = Catalog::default();
    while !batches.is_empty() {
        let header = Header::read(batches).filter(|header| header.size() <= batches.len()).ok_or("the catalog ends within a batch")?;
        let (batch, rest) = batches.split_at(header.size());
        catalog.epoch = catalog.epoch.max(header.leader_epoch());
        let records = payload(&header, batch, 1 << 20).map_err(|error| format!("the catalog: {error:?}"))?;
        for record in Records::new(&header, &records) {
            let record = record.map_err(|error| format!("the catalog: {error:?}"))?;
            let text = String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned();
            let words: Vec<&str> = text.split(' ').collect();
            match words[..] {
                ["created", id, topic] => {
                    catalog.exist.insert(PartitionId(id.parse().unwrap()), topic.parse().unwrap());
                }
                ["deleted", id] => {
                    catalog.exist.remove(&PartitionId(id.parse().unwrap()));
                    catalog.epoch += 1;
                }
                _ => return Err(format!("the catalog holds {text:?}")),
            }
        }
        batches = rest;
    }
    Ok(catalog)
}
