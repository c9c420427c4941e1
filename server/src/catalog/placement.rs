//! Which core owns a partition: the same answer at every start, from names and numbers alone.

use super::{Catalog, Change, Topic};

/// The core that the rule gives a partition: (CRC-32C of the topic's name + partition) mod cores. So the partitions of
/// one topic go round the cores, and topics of one partition spread over them.
#[must_use]
pub fn rule(topic: &str, partition: usize, cores: usize) -> usize {
    (crc32c::crc32c(topic.as_bytes()) as usize).wrapping_add(partition) % cores
}

/// The core of a partition: its pin if that core exists, else the rule's.
#[must_use]
pub fn place(topic: &str, partition: usize, pin: Option<usize>, cores: usize) -> usize {
    pin.filter(|core| *core < cores).unwrap_or_else(|| rule(topic, partition, cores))
}

/// What a start with `cores` cores changes: new owners, and the count last, so that a start which was cut off between
/// the two decides the same again. Empty if the count is that of the last start.
#[must_use]
pub fn replace(catalog: &Catalog, cores: usize) -> Vec<Change> {
    if catalog.cores() == cores {
        return Vec::new();
    }
    let owners = |topic: &Topic| -> Vec<u16> {
        topic.partitions.iter().enumerate().map(|(index, partition)| place(&topic.name, index, partition.pin, cores) as u16).collect()
    };
    let moved = |topic: &&Topic| topic.partitions.iter().zip(owners(topic)).any(|(partition, core)| partition.core != usize::from(core));
    let placed = catalog.topics().filter(moved).map(|topic| Change::Placed { id: topic.id, cores: owners(topic) });
    placed.chain([Change::Cores { count: cores as u16 }]).collect()
}
