//! Changes as record batches, and back.
//!
//! What is decided together is written together: one batch for a decision, several if it is larger than
//! [`BATCH_BYTES_MAX`] (then each is whole in itself). Records of a decision have no key.
//!
//! A **snapshot** is the whole state: batches in a row whose every first record has the key `part u32 | parts u32`. It
//! counts once its last part is there; a snapshot that was cut off is skipped. Before it is counted nothing that it
//! replaces is removed, so the log's beginning may then be raised to it.

use super::{Catalog, Change, Contradiction, change::ChangeError};
use engine::{
    batch::{BatchBuilder, HEADER_BYTES, Header, Records, payload},
    partition::PartitionId,
};
use std::collections::BTreeMap;

/// Bytes of records in one batch, from which on a new one is begun.
pub const BATCH_BYTES_MAX: usize = 256 << 10;

/// The catalog's log can't be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    /// A newer build wrote it.
    #[error("the catalog was written by a newer build ({what} at offset {offset}): use that build")]
    Newer {
        /// Where.
        offset: i64,
        /// What is not known.
        what: ChangeError,
    },
    /// It is damaged.
    #[error("the catalog is damaged at offset {offset}: {what}. Restore the data directory from a copy")]
    Damaged {
        /// Where.
        offset: i64,
        /// What is wrong.
        what: String,
    },
}

/// The batches of a decision.
#[must_use]
pub fn decision(changes: &[Change], now_ms: i64) -> Vec<Vec<u8>> {
    split(changes).into_iter().map(|part| batch(part, None, now_ms)).collect()
}

/// The batches of a snapshot.
#[must_use]
pub fn snapshot(catalog: &Catalog, now_ms: i64) -> Vec<Vec<u8>> {
    let changes = catalog.snapshot();
    let parts = split(&changes);
    let count = parts.len() as u32;
    (0..).zip(parts).map(|(index, part)| batch(part, Some((index, count)), now_ms)).collect()
}

fn split(changes: &[Change]) -> Vec<&[Change]> {
    let mut parts = Vec::new();
    let (mut from, mut bytes) = (0, 0);
    for (index, change) in changes.iter().enumerate() {
        let size = change.encode().len();
        if bytes + size > BATCH_BYTES_MAX && index > from {
            parts.push(&changes[from..index]);
            (from, bytes) = (index, 0);
        }
        bytes += size;
    }
    parts.push(&changes[from..]);
    parts.retain(|part| !part.is_empty());
    parts
}

fn batch(changes: &[Change], part: Option<(u32, u32)>, now_ms: i64) -> Vec<u8> {
    let key = part.map(|(index, count)| [index.to_be_bytes(), count.to_be_bytes()].concat());
    let mut builder = BatchBuilder::new();
    for (index, change) in changes.iter().enumerate() {
        builder.push(now_ms, key.as_deref().filter(|_| index == 0), Some(&change.encode()), &[]);
    }
    builder.build()
}

/// A snapshot that is being read: its state so far, and how many parts are still to come.
struct Shadow {
    catalog: Catalog,
    next: u32,
    parts: u32,
}

impl Catalog {
    /// The state that the catalog's batches lead to, one after another from the log's first to its last.
    ///
    /// # Errors
    /// [`RecordsError`], with what to do.
    pub fn from_bytes(bytes: &[u8]) -> Result<Catalog, RecordsError> {
        Catalog::from_what_is_left(bytes, false)
    }

    /// The same; with `accept_loss` batches may be missing: a change of what they had told of is passed over, with a line in the log.
    ///
    /// # Errors
    /// [`RecordsError`], with what to do.
    pub fn from_what_is_left(bytes: &[u8], accept_loss: bool) -> Result<Catalog, RecordsError> {
        let mut catalog = Catalog::default();
        let mut shadow: Option<Shadow> = None;
        let (mut rest, mut end) = (bytes, -1);
        while !rest.is_empty() {
            let damaged = |offset, what: &str| RecordsError::Damaged { offset, what: what.into() };
            let header = Header::read(rest).ok_or_else(|| damaged(-1, "a batch header is cut off"))?;
            let offset = header.base_offset();
            if header.size() < HEADER_BYTES {
                return Err(damaged(offset, "a batch is shorter than its header"));
            }
            let batch = rest.get(..header.size()).ok_or_else(|| damaged(offset, "a batch is cut off"))?;
            rest = &rest[header.size()..];
            let (part, changes) = read(&header, batch)?;
            match part {
                Some((0, parts)) => shadow = Some(Shadow { catalog: Catalog::default(), next: 0, parts }),
                Some((index, _)) if shadow.as_ref().is_none_or(|shadow| shadow.next != index) => {
                    if accept_loss {
                        tracing::warn!("a part of the catalog's snapshot is missing in front of offset {offset}: it is passed over");
                        shadow = None;
                        continue;
                    }
                    return Err(damaged(offset, "a part of a snapshot is missing"));
                }
                Some(_) => {}
                None => shadow = None,
            }
            let target = shadow.as_mut().map_or(&mut catalog, |shadow| &mut shadow.catalog);
            target.written_from(header.leader_epoch());
            for change in &changes {
                let Err(Contradiction(what)) = target.apply(change) else { continue };
                if !accept_loss {
                    return Err(RecordsError::Damaged { offset, what });
                }
                tracing::warn!("the catalog at offset {offset}: {what}; that change is given up");
                target.give_up(change);
            }
            if let Some(shadow) = &mut shadow {
                shadow.next += 1;
            }
            if let Some(finished) = shadow.take_if(|shadow| shadow.next == shadow.parts) {
                catalog = finished.catalog;
            }
            end = header.last_offset();
        }
        catalog.check_numbers().map_err(|Contradiction(what)| RecordsError::Damaged { offset: end, what })?;
        Ok(catalog)
    }

    /// Two partitions of one number would share their records.
    fn check_numbers(&self) -> Result<(), Contradiction> {
        let mut owners = BTreeMap::from([(PartitionId::CATALOG, "the catalog")]);
        for topic in self.topics().chain(self.deleting()) {
            for partition in &topic.partitions {
                if let Some(other) = owners.insert(partition.id, &topic.name) {
                    return Err(Contradiction(format!("partition number {} is that of {other} and of {}", partition.id.0, topic.name)));
                }
            }
        }
        Ok(())
    }
}

type Part = Option<(u32, u32)>;

fn read(header: &Header, batch: &[u8]) -> Result<(Part, Vec<Change>), RecordsError> {
    let damaged = |what: String| RecordsError::Damaged { offset: header.base_offset(), what };
    let payload = payload(header, batch, batch.len()).map_err(|error| damaged(error.to_string()))?;
    let (mut part, mut changes) = (None, Vec::new());
    for record in Records::new(header, &payload) {
        let record = record.map_err(|error| damaged(error.to_string()))?;
        let offset = record.offset(header);
        if let Some(key) = record.key {
            let (index, count) = key.split_first_chunk::<4>().ok_or_else(|| damaged("a key is cut off".into()))?;
            let count: [u8; 4] = count.try_into().map_err(|_| damaged("a key has another length".into()))?;
            part = Some((u32::from_be_bytes(*index), u32::from_be_bytes(count)));
        }
        let change = Change::decode(record.value.unwrap_or_default()).map_err(|what| match what {
            ChangeError::Newer { .. } => RecordsError::Newer { offset, what },
            ChangeError::Malformed { .. } => damaged(what.to_string()),
        })?;
        changes.push(change);
    }
    Ok((part, changes))
}
