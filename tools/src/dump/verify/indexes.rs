//! An offset index and a time index against the batches of their log, as these go by.

use super::{Finding, Fix, Level};
use crate::dump::{
    inputs::{trimmed_index, trimmed_times},
    read::small,
    show::or_gone,
};
use anyhow::Result;
use engine::{
    batch::Header,
    segment::{IndexEntry, OffsetIndex, TimeEntry, TimeIndex},
};
use std::path::{Path, PathBuf};

const REBUILD: &str = "--repair builds the segment's indexes again from the log; a broker does so too once the file is gone";

/// So many wrong entries of a file are told one by one: an index of another segment may have a hundred thousand.
pub(super) const ENTRIES_TOLD_MAX: usize = 20;

/// Tells of the first entries that are wrong, and counts the others.
#[derive(Default)]
pub(super) struct Teller {
    told: usize,
    /// The last one, if it was not told.
    untold: Option<(usize, Finding)>,
}

impl Teller {
    pub(super) fn tell(&mut self, finding: Finding, found: &mut Vec<Finding>) {
        if self.told < ENTRIES_TOLD_MAX {
            self.told += 1;
            found.push(finding);
        } else {
            self.untold = Some((self.untold.take().map_or(1, |(count, _)| count + 1), finding));
        }
    }

    pub(super) fn finish(&mut self, found: &mut Vec<Finding>) {
        if let Some((count, last)) = self.untold.take() {
            let what = format!("{count} more entries are wrong, the last of them: {}", last.what);
            found.push(Finding { what, ..last });
        }
    }
}

fn wrong(file: &Path, position: u64, what: String) -> Finding {
    Finding::new(Level::Corrupt, file, what).at(position).action(REBUILD).fix(Fix::Indexes)
}

/// The file's content, if there is one.
fn content(file: &Path) -> Result<Option<Vec<u8>>> {
    if file.is_file() { or_gone(small(file).map(Some)) } else { Ok(None) }
}

/// `.index`: each entry names the last offset of the batch that begins at its position.
pub(super) struct Offsets {
    file: PathBuf,
    base_offset: i64,
    entries: Vec<IndexEntry>,
    next: usize,
    /// Kafka before 4.0 wrote the last offset of all batches that were appended together: it may be a later one's.
    open: Option<IndexEntry>,
    teller: Teller,
}

impl Offsets {
    pub(super) fn read(file: PathBuf, base_offset: i64, found: &mut Vec<Finding>) -> Result<Offsets> {
        let bytes = content(&file)?.unwrap_or_default();
        let entries = match OffsetIndex::decode(base_offset, trimmed_index(&bytes), u64::MAX) {
            Ok(index) => index.entries().to_vec(),
            Err(error) => {
                found.push(wrong(&file, 0, error.to_string()));
                Vec::new()
            }
        };
        Ok(Offsets { file, base_offset, entries, next: 0, open: None, teller: Teller::default() })
    }

    /// Without its entries.
    pub(super) fn unused(self) -> Offsets {
        Offsets { entries: Vec::new(), ..self }
    }

    pub(super) fn batch(&mut self, position: u64, header: &Header, found: &mut Vec<Finding>) {
        self.unmet(position, "no batch begins at", found);
        if let Some(entry) = self.entries.get(self.next).copied().filter(|entry| u64::from(entry.position) == position) {
            self.close(header.base_offset(), found);
            self.next += 1;
            self.open = Some(entry);
        }
        if let Some(entry) = self.open {
            let offset = self.base_offset + i64::from(entry.relative_offset);
            if offset == header.last_offset() {
                self.open = None;
            } else if offset < header.last_offset() {
                self.close(header.last_offset(), found);
            }
        }
    }

    /// Entries below `position` that no batch was met at.
    fn unmet(&mut self, position: u64, what: &str, found: &mut Vec<Finding>) {
        while let Some(entry) = self.entries.get(self.next).filter(|entry| u64::from(entry.position) < position) {
            let at = self.next as u64 * 8;
            let what = format!("{what} position {} of the log, which an entry names", entry.position);
            self.teller.tell(wrong(&self.file, at, what), found);
            self.next += 1;
        }
    }

    /// The open entry's offset was not met.
    fn close(&mut self, before: i64, found: &mut Vec<Finding>) {
        let Some(entry) = self.open.take() else { return };
        let offset = self.base_offset + i64::from(entry.relative_offset);
        let at = self.next.saturating_sub(1) as u64 * 8;
        let what = format!("the entry says offset {offset} for position {}, where no batch ends with it (next: {before})", entry.position);
        self.teller.tell(wrong(&self.file, at, what).offset(offset), found);
    }

    pub(super) fn finish(&mut self, end: i64, found: &mut Vec<Finding>) {
        self.close(end, found);
        self.unmet(u64::MAX, "the log ends before", found);
        self.teller.finish(found);
    }
}

/// `.timeindex`: up to its offset no record is newer than an entry says; the last entry of a sealed segment is the newest.
pub(super) struct Times {
    file: PathBuf,
    base_offset: i64,
    is_there: bool,
    entries: Vec<TimeEntry>,
    next: usize,
    newest: Option<i64>,
    teller: Teller,
}

impl Times {
    pub(super) fn read(file: PathBuf, base_offset: i64, found: &mut Vec<Finding>) -> Result<Times> {
        let bytes = content(&file)?;
        let is_there = bytes.is_some();
        let entries = match TimeIndex::decode(base_offset, trimmed_times(&bytes.unwrap_or_default())) {
            Ok(index) => index.entries().to_vec(),
            Err(error) => {
                found.push(wrong(&file, 0, error.to_string()));
                Vec::new()
            }
        };
        Ok(Times { file, base_offset, is_there, entries, next: 0, newest: None, teller: Teller::default() })
    }

    /// Without its entries.
    pub(super) fn unused(self) -> Times {
        Times { entries: Vec::new(), is_there: false, ..self }
    }

    pub(super) fn batch(&mut self, header: &Header, found: &mut Vec<Finding>) {
        let timestamp = header.max_timestamp();
        self.newest = self.newest.max(Some(timestamp).filter(|timestamp| *timestamp >= 0));
        while let Some(entry) = self.entries.get(self.next) {
            let offset = self.base_offset + i64::from(entry.relative_offset);
            if offset > header.last_offset() {
                break;
            }
            let at = self.next as u64 * 12;
            // A batch that compaction removed may have been the one that the entry was about; then it's older than it says.
            if timestamp != entry.timestamp || self.newest != Some(entry.timestamp) {
                let what = format!(
                    "the entry says {} for offset {offset}; the batch there has {timestamp}, the newest up to it is {}",
                    entry.timestamp,
                    self.newest.unwrap_or(-1)
                );
                self.teller.tell(wrong(&self.file, at, what).offset(offset), found);
            }
            self.next += 1;
        }
    }

    pub(super) fn finish(&mut self, sealed: bool, found: &mut Vec<Finding>) {
        for (at, entry) in self.entries.iter().enumerate().skip(self.next) {
            let offset = self.base_offset + i64::from(entry.relative_offset);
            let what = format!("the log ends before offset {offset}, which an entry names");
            self.teller.tell(wrong(&self.file, at as u64 * 12, what).offset(offset), found);
        }
        self.teller.finish(found);
        let last = self.entries.last().map(|entry| entry.timestamp);
        if sealed && self.is_there && self.newest.is_some() && last < self.newest && self.next == self.entries.len() {
            let what = format!("the newest timestamp of the segment, {}, is missing at the end", self.newest.unwrap_or(-1));
            found.push(wrong(&self.file, self.entries.len() as u64 * 12, what));
        }
    }
}
