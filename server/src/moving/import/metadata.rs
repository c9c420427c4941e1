//! KRaft's own log, `__cluster_metadata-0`: topics, configs, and the next producer id, as of its end.
//!
//! A record's value is `frame version | api key | version` (unsigned varints), then the message in Kafka's flexible encoding.
//! A snapshot (`OFFSET-EPOCH.checkpoint`) is batches of the same records; the log goes on where its offset says.

use crate::{
    catalog::Configs,
    groups::records::cursor::Cursor,
    moving::{failed, files, groups::each_batch, walk::Batches},
};
use anyhow::{Context, Result, bail};
use engine::batch::{DECOMPRESSED_BYTES_MAX, Header, Records, payload};
use std::{collections::BTreeMap, path::Path};
use uuid::Uuid;

/// Kafka's numbers of resources that have configs.
pub(super) const TOPIC: i8 = 2;
pub(super) const BROKER: i8 = 4;

const TOPIC_RECORD: u32 = 2;
const PARTITION_RECORD: u32 = 3;
const CONFIG_RECORD: u32 = 4;
const REMOVE_TOPIC_RECORD: u32 = 9;
const PRODUCER_IDS_RECORD: u32 = 15;

/// What the log says.
#[derive(Debug, Default)]
pub(super) struct Metadata {
    /// Names and partition counts by topic id.
    pub(super) topics: BTreeMap<Uuid, (String, i32)>,
    /// Configs by kind and name of the resource.
    pub(super) configs: BTreeMap<(i8, String), Configs>,
    /// The first producer id that was not given out; -1 if none was.
    pub(super) next_producer_id: i64,
}

impl Metadata {
    /// Reads the directory. With `torn` the log may end early.
    pub(super) fn read(directory: &Path, torn: bool) -> Result<Metadata> {
        let mut metadata = Metadata { next_producer_id: -1, ..Metadata::default() };
        let mut snapshots: Vec<(i64, String)> = Vec::new();
        for name in files::names(directory)? {
            let stem = name.strip_suffix(".checkpoint").and_then(|stem| stem.split_once('-'));
            snapshots.extend(stem.and_then(|(offset, _)| offset.parse().ok()).map(|offset| (offset, name.clone())));
        }
        let mut from = 0;
        if let Some((offset, name)) = snapshots.into_iter().max() {
            metadata.snapshot(&directory.join(name))?;
            from = offset;
        }
        each_batch(directory, torn, |header, bytes| {
            if header.last_offset() < from {
                Ok(())
            } else {
                metadata.batch(header, bytes).with_context(|| format!("{}", directory.display()))
            }
        })?;
        Ok(metadata)
    }

    fn snapshot(&mut self, path: &Path) -> Result<()> {
        let reading = |error| failed("read", path, error);
        let mut walk = Batches::open(path, 0, i32::MIN, Vec::new()).map_err(reading)?;
        loop {
            match walk.advance(&mut |_| Ok(())).map_err(reading)? {
                Ok((_, header, range)) => self.batch(&header, walk.bytes(range)).with_context(|| format!("{}", path.display()))?,
                Err(stop) if stop.is_end() => return Ok(()),
                Err(stop) => bail!("{} is damaged at byte {}: {stop}", path.display(), walk.scanner().position),
            }
        }
    }

    fn batch(&mut self, header: &Header, bytes: &[u8]) -> Result<()> {
        if header.is_control() {
            return Ok(());
        }
        let payload = payload(header, bytes, DECOMPRESSED_BYTES_MAX)?;
        for record in Records::new(header, &payload) {
            let record = record?;
            let offset = record.offset(header);
            self.record(record.value.unwrap_or_default()).with_context(|| format!("the record at offset {offset} can't be read"))?;
        }
        Ok(())
    }

    fn record(&mut self, value: &[u8]) -> Result<()> {
        let mut cursor = Cursor(value);
        let (frame, kind) = (cursor.varint()?, cursor.varint()?);
        let _version = cursor.varint()?;
        if frame != 1 {
            bail!("its frame has version {frame}: a newer Kafka wrote it");
        }
        match kind {
            TOPIC_RECORD => {
                let name = cursor.compact_string()?;
                self.topics.insert(cursor.uuid()?, (name, 0));
            }
            PARTITION_RECORD => {
                let (index, id) = (cursor.int32()?, cursor.uuid()?);
                if let Some((_, count)) = self.topics.get_mut(&id) {
                    *count = (index + 1).max(*count);
                }
            }
            CONFIG_RECORD => {
                let kind = *cursor.0.first().context("it is cut off")? as i8;
                cursor.0 = &cursor.0[1..];
                let resource = (kind, cursor.compact_string()?);
                let name = cursor.compact_string()?;
                let configs = self.configs.entry(resource).or_default();
                match cursor.nullable_compact_string()? {
                    Some(value) => drop(configs.insert(name, value)),
                    None => drop(configs.remove(&name)),
                }
            }
            REMOVE_TOPIC_RECORD => {
                if let Some((name, _)) = self.topics.remove(&cursor.uuid()?) {
                    // As the controller does: a topic of the same name begins without.
                    self.configs.remove(&(TOPIC, name));
                }
            }
            PRODUCER_IDS_RECORD => {
                let (_broker, _epoch, next) = (cursor.int32()?, cursor.int64()?, cursor.int64()?);
                self.next_producer_id = self.next_producer_id.max(next);
            }
            // Of brokers, quotas, ACLs, features: nothing that is moved.
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, body: &[u8]) -> Vec<u8> {
        [&[1, kind, 0], body].concat()
    }

    #[test]
    fn a_topic_that_is_made_again_begins_without_configs() {
        let mut metadata = Metadata::default();
        let topic = |id: u8| record(2, &[&b"\x07orders"[..], &[id; 16], b"\0"].concat());
        let partition = |id: u8, index: u8| record(3, &[&[0, 0, 0, index][..], &[id; 16], b"\x02\0\0\0\x01"].concat());
        let config = |value: &[u8]| record(4, &[&b"\x02\x07orders\x0dretention.ms"[..], value, b"\0"].concat());
        for value in [topic(1), partition(1, 0), partition(1, 1), config(b"\x0342"), config(b"\x0343")] {
            metadata.record(&value).unwrap();
        }
        let id = |id: u8| Uuid::from_bytes([id; 16]);
        let key = (TOPIC, "orders".to_owned());
        assert_eq!(metadata.topics[&id(1)], ("orders".to_owned(), 2));
        assert_eq!(metadata.configs[&key], Configs::from([("retention.ms".into(), "43".into())]));
        metadata.record(&config(b"\0")).unwrap();
        assert_eq!(metadata.configs[&key], Configs::new());
        metadata.record(&config(b"\x0344")).unwrap();
        metadata.record(&record(9, &[&[1; 16][..], b"\0"].concat())).unwrap();
        metadata.record(&topic(2)).unwrap();
        assert_eq!((metadata.topics.len(), metadata.configs.get(&key)), (1, None));
        metadata.record(&record(15, &[&[0, 0, 0, 1][..], &[0; 8], &5_000i64.to_be_bytes(), b"\0"].concat())).unwrap();
        assert_eq!(metadata.next_producer_id, 5_000);
    }

    #[test]
    fn what_is_cut_off_or_newer_is_an_error_and_other_records_are_none() {
        let mut metadata = Metadata::default();
        assert!(metadata.record(&record(27, b"whatever")).is_ok());
        assert!(metadata.record(&record(2, b"\x07ord")).is_err());
        assert!(metadata.record(&record(4, b"")).is_err());
        assert!(metadata.record(&[2, 2, 0]).unwrap_err().to_string().contains("newer"));
    }
}
