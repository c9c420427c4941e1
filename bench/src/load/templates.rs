//! Requests prepared before a run, so that sending one costs a vectored write and nothing else.

use super::producers::Load;
use crate::{batch, clock::wall_ms, control::Topic, wire};
use anyhow::Result;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::{collections::BTreeMap, rc::Rc};

/// Different requests of keyed records that each connection sends in turn.
const KEYED_VARIANTS: usize = 16;

/// A request that is ready to be sent.
pub struct Template {
    /// Up to the first batch; the correlation id is written into a copy.
    pub first: Vec<u8>,
    /// The first batch and whatever follows it.
    pub shared: Rc<[u8]>,
    /// Records by partition, in order of the partitions.
    pub parts: Vec<(i32, u32)>,
    /// Records in all.
    pub records: u64,
    /// Bytes of its batches.
    pub batch_bytes: u64,
}

impl Template {
    /// The records for a partition.
    #[must_use]
    pub fn records_for(&self, partition: i32) -> Option<u32> {
        self.parts.binary_search_by_key(&partition, |part| part.0).ok().map(|at| self.parts[at].1)
    }
}

/// The requests that a connection to a leader of these partitions sends in turn.
///
/// # Errors
/// The codec's.
pub fn prepare(load: &Load, topic: &Topic, partitions: &[i32], leaders: usize) -> Result<Vec<Rc<Template>>> {
    match load.keys {
        None => one_partition_each(load, topic, partitions),
        Some(keys) => {
            (0..KEYED_VARIANTS.min(partitions.len() * 4)).map(|seed| keyed(load, topic, partitions, leaders, keys, seed)).collect()
        }
    }
}

/// A request per partition, all of the same batch.
fn one_partition_each(load: &Load, topic: &Topic, partitions: &[i32]) -> Result<Vec<Rc<Template>>> {
    let shared: Rc<[u8]> = batch::encode(&vec![None; load.records], load.record_bytes, load.compression, wall_ms())?.into();
    let template = |partition: &i32| {
        Rc::new(Template {
            first: wire::produce_prefix(&topic.name, load.acks, 1, (*partition, shared.len()), shared.len()),
            shared: Rc::clone(&shared),
            parts: vec![(*partition, load.records as u32)],
            records: load.records as u64,
            batch_bytes: shared.len() as u64,
        })
    };
    Ok(partitions.iter().map(template).collect())
}

/// What a client gathers in one linger: records of random keys, a batch for each partition that they fall into.
fn keyed(load: &Load, topic: &Topic, partitions: &[i32], leaders: usize, keys: u64, seed: usize) -> Result<Rc<Template>> {
    let mut random = SmallRng::seed_from_u64(seed as u64);
    let mut gathered: BTreeMap<i32, Vec<String>> = BTreeMap::new();
    let wanted = (load.records / leaders).max(1);
    let mut found = 0;
    // Few keys may all belong to another leader's partitions: then the first partition takes an unlucky request's record.
    for _ in 0..wanted * leaders * 4 {
        let key = format!("key-{:08}", random.random_range(0..keys));
        let partition = batch::partition_of(key.as_bytes(), topic.leaders.len()) as i32;
        if partitions.binary_search(&partition).is_ok() {
            gathered.entry(partition).or_default().push(key);
            found += 1;
        }
        if found == wanted {
            break;
        }
    }
    if gathered.is_empty() {
        gathered.entry(partitions[0]).or_default().push("key-none".to_owned());
    }
    let (mut rest, mut parts, mut records, mut batch_bytes, mut first) = (Vec::new(), Vec::new(), 0, 0, None);
    for (partition, keys) in &gathered {
        let keys: Vec<Option<&[u8]>> = keys.iter().map(|key| Some(key.as_bytes())).collect();
        let batch = batch::encode(&keys, load.record_bytes, load.compression, wall_ms())?;
        match first {
            None => first = Some((*partition, batch.len())),
            Some(_) => rest.extend_from_slice(&wire::partition_head(*partition, batch.len())),
        }
        rest.extend_from_slice(&batch);
        parts.push((*partition, keys.len() as u32));
        records += keys.len() as u64;
        batch_bytes += batch.len() as u64;
    }
    let first = wire::produce_prefix(&topic.name, load.acks, parts.len(), first.unwrap_or_default(), rest.len());
    Ok(Rc::new(Template { first, shared: rest.into(), parts, records, batch_bytes }))
}
