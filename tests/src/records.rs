//! What was acked against what was read.

use std::collections::BTreeMap;

use anyhow::{Result, bail, ensure};
use serde::{Deserialize, Serialize};

/// How many differences an error lists.
const LISTED: usize = 10;

/// One record as a client saw it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Record {
    /// Partition.
    #[serde(rename = "p")]
    pub partition: i32,
    /// Offset.
    #[serde(rename = "o")]
    pub offset: i64,
    /// Key.
    #[serde(rename = "k")]
    pub key: Option<String>,
    /// Value.
    #[serde(rename = "v")]
    pub value: Option<String>,
}

impl Record {
    /// The producer's name and the number that it gave to the record, from a value of the form `name:number:padding`.
    pub fn origin(&self) -> Option<(&str, u64)> {
        let mut parts = self.value.as_deref()?.split(':');
        Some((parts.next()?, parts.next()?.parse().ok()?))
    }

    fn brief(&self) -> String {
        let value = self.value.as_deref().map(|v| &v[..v.len().min(40)]);
        format!("partition {} offset {} key {:?} value {value:?}", self.partition, self.offset, self.key)
    }
}

/// Records by partition and offset; two different ones in one place are an error.
pub fn by_place<'a>(records: impl IntoIterator<Item = &'a Record>) -> Result<BTreeMap<(i32, i64), &'a Record>> {
    let mut places: BTreeMap<(i32, i64), &Record> = BTreeMap::new();
    for record in records {
        if let Some(other) = places.insert((record.partition, record.offset), record) {
            ensure!(other == record, "two records in one place:\n  {}\n  {}", other.brief(), record.brief());
        }
    }
    Ok(places)
}

/// Every acked record was read, in its place, with its key and value. Other records may have been read as well.
pub fn all_acked_were_read(acked: &[Record], read: &[Record]) -> Result<()> {
    let read = by_place(read)?;
    let lost: Vec<&Record> = acked.iter().filter(|a| read.get(&(a.partition, a.offset)) != Some(a)).collect();
    if lost.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = lost.iter().take(LISTED).map(|r| describe_loss(r, &read)).collect();
    bail!("{} of {} acked records were not read back:\n  {}", lost.len(), acked.len(), list.join("\n  "));
}

fn describe_loss(lost: &Record, read: &BTreeMap<(i32, i64), &Record>) -> String {
    match read.get(&(lost.partition, lost.offset)) {
        Some(other) => format!("{}, but there stands {}", lost.brief(), other.brief()),
        None => {
            let end = read.range(..(lost.partition + 1, 0)).next_back().filter(|(place, _)| place.0 == lost.partition);
            format!("{} (highest read offset of the partition: {:?})", lost.brief(), end.map(|(place, _)| place.1))
        }
    }
}

/// Exactly the acked records were read, each once.
pub fn exactly_the_acked_were_read(acked: &[Record], read: &[Record]) -> Result<()> {
    all_acked_were_read(acked, read)?;
    let known = by_place(acked)?;
    let extra: Vec<String> =
        read.iter().filter(|r| !known.contains_key(&(r.partition, r.offset))).take(LISTED).map(Record::brief).collect();
    ensure!(extra.is_empty(), "records were read that were never acked:\n  {}", extra.join("\n  "));
    ensure!(known.len() == acked.len(), "{} acks for {} places", acked.len(), known.len());
    ensure!(read.len() == acked.len(), "{} records were read, but {} acked: some were read twice", read.len(), acked.len());
    Ok(())
}

/// One consumer saw rising offsets in every partition.
pub fn offsets_rise(read: &[Record]) -> Result<()> {
    let mut last: BTreeMap<i32, i64> = BTreeMap::new();
    for record in read {
        if let Some(before) = last.insert(record.partition, record.offset) {
            ensure!(before < record.offset, "after offset {before} came {}", record.brief());
        }
    }
    Ok(())
}

/// In every partition, the records of each producer stand in the order in which it sent them, and none stands there twice.
pub fn in_the_order_sent(log: &[Record]) -> Result<()> {
    let mut last: BTreeMap<(i32, String), (u64, i64)> = BTreeMap::new();
    for record in by_place(log)?.into_values() {
        let Some((name, number)) = record.origin() else { continue };
        if let Some((before, at)) = last.insert((record.partition, name.to_owned()), (number, record.offset)) {
            ensure!(number != before, "duplicated: record {number} of {name} stands at {at} and at {}", record.brief());
            ensure!(number > before, "out of order: record {before} of {name} at {at} stands before {}", record.brief());
        }
    }
    Ok(())
}

/// The dumps of two brokers are the same, line by line.
pub fn same_lines(expected: &str, found: &str) -> Result<()> {
    for (number, (expected, found)) in expected.lines().zip(found.lines()).enumerate() {
        ensure!(expected == found, "record {number} differs:\n  before: {expected}\n  after:  {found}");
    }
    let (expected, found) = (expected.lines().count(), found.lines().count());
    ensure!(expected == found, "{expected} lines before, {found} after");
    Ok(())
}
