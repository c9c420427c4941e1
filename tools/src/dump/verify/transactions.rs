//! `.txnindex` against the abort markers in its log.

use super::{Finding, Fix, Level, indexes::Teller};
use crate::dump::{read::small, show::or_gone};
use anyhow::Result;
use engine::segment::{AbortedTxn, TXN_ENTRY_BYTES, TxnIndex};
use std::path::PathBuf;

/// The entries of a `.txnindex`, compared with what its log says.
pub(super) struct Transactions {
    file: PathBuf,
    entries: Vec<AbortedTxn>,
    next: usize,
    /// Everything before was seen: the entries must be exactly these. After a compaction, and where a log begins within a
    /// transaction, entries may know more than the log.
    exact: bool,
    /// The file may lag behind the log.
    may_lag: bool,
    /// Offsets are missing before this one.
    gap_behind: i64,
    teller: Teller,
}

impl Transactions {
    pub(super) fn read(file: PathBuf, exact: bool, may_lag: bool, found: &mut Vec<Finding>) -> Result<Transactions> {
        let bytes = if file.is_file() { or_gone(small(&file))? } else { Vec::new() };
        let gap_behind = if exact { 0 } else { i64::MAX };
        let mut index = Transactions { file, entries: Vec::new(), next: 0, exact, may_lag, gap_behind, teller: Teller::default() };
        match TxnIndex::decode(&bytes) {
            Ok(decoded) => index.entries = decoded.entries().to_vec(),
            Err(error) => {
                found.push(index.wrong(error.to_string()));
                index.may_lag = true;
            }
        }
        Ok(index)
    }

    fn wrong(&self, what: String) -> Finding {
        let finding = Finding::new(Level::Corrupt, &self.file, what).at((self.next * TXN_ENTRY_BYTES) as u64);
        finding.action("--repair builds it again from the log: until then consumers may be served what was aborted").fix(Fix::Indexes)
    }

    /// The log has a damage, or a gap, before this offset: it does not say everything any more.
    pub(super) fn doubt(&mut self, offset: i64) {
        self.exact = false;
        self.gap_behind = offset;
    }

    /// The log says that a transaction was aborted.
    pub(super) fn aborted(&mut self, aborted: &AbortedTxn, found: &mut Vec<Finding>) {
        while let Some(entry) = self.entries.get(self.next).copied() {
            if entry.last_offset > aborted.last_offset {
                break;
            }
            let same = entry.producer_id == aborted.producer_id && entry.last_offset == aborted.last_offset;
            // What compaction took away may have held the beginning, or kept the last stable offset back.
            let holds = entry.first_offset == aborted.first_offset
                || (entry.first_offset < aborted.first_offset && self.gap_behind > entry.first_offset);
            let matches =
                if self.exact { entry == *aborted } else { same && holds && entry.last_stable_offset <= aborted.last_stable_offset };
            if !matches && (same || self.exact) {
                let finding = self.wrong(format!("the entry is {entry:?}, the log says {aborted:?}")).offset(aborted.last_offset);
                self.teller.tell(finding, found);
            }
            self.next += 1;
            if same || matches {
                return;
            }
        }
        if !self.may_lag {
            let finding = self.wrong(format!("{aborted:?} is missing")).offset(aborted.last_offset);
            self.teller.tell(finding, found);
        }
    }

    pub(super) fn finish(&mut self, end: i64, found: &mut Vec<Finding>) {
        while let Some(entry) = self.entries.get(self.next).copied() {
            if self.exact || entry.last_offset >= end {
                let finding = self.wrong(format!("the entry is {entry:?}; the log has no such abort")).offset(entry.last_offset);
                self.teller.tell(finding, found);
            }
            self.next += 1;
        }
        self.teller.finish(found);
    }
}
