//! One segment: its log and its indexes, in one pass over the log.

use super::{
    Finding, Fix, Level, Refusal, Totals,
    checkpoints::agrees,
    indexes::{Offsets, Times},
    remedy::COPIED,
    sequence::{Place, Sequence, Wrong},
    transactions::Transactions,
};
use crate::dump::{
    Request,
    journal::{Journals, LogEnd, Opened, open},
    progress::Progress,
    read::{Batch, End, Seen, Tail, walk},
};
use anyhow::Result;
use engine::{
    batch::{ControlRecord, DECOMPRESSED_BYTES_MAX, Header, RecordError, Records, payload},
    segment::{EpochStart, FileKind, OpenTransactions, file_name},
};
use std::path::{Path, PathBuf};

/// What is known of a partition before a segment, and after it.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) next_offset: i64,
    pub(super) leader_epoch: i32,
    /// Where the epochs of the batches begin.
    pub(super) epochs: Vec<EpochStart>,
    pub(super) open: OpenTransactions,
    /// `open` is complete.
    pub(super) exact: bool,
    /// The last batch, and where the one before it ends.
    pub(super) last: Option<(Place, i64)>,
    /// Its segment's log.
    pub(super) last_log: PathBuf,
    /// How many batches have another epoch than the checkpoint says, and the first of them.
    pub(super) other_epochs: (u64, Option<OtherEpoch>),
}

/// A batch that has another epoch than the checkpoint says.
#[derive(Clone, Debug)]
pub(super) struct OtherEpoch {
    pub(super) log: PathBuf,
    pub(super) place: Place,
    /// What the checkpoint says, if anything.
    pub(super) right: Option<i32>,
}

/// How the end of a log is to be judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// A segment follows: all of this one was written.
    Sealed,
    /// Nobody is writing: what is not whole was torn.
    Still,
    /// Kafka is writing: what is not whole will be.
    Growing,
    /// Thalweg is writing, or its journal knows the end. From this position on, in bytes, nothing is settled.
    Moving { settled: u64 },
    /// Thalweg was killed. With the journal laid over the segment, all that it vouches for is to be there.
    Killed,
    /// Thalweg was killed, and its journal is not here: damage is what a batch follows.
    Copied,
}

impl Ending {
    /// What it is, now that the log was opened.
    fn opened(self, end: LogEnd) -> Ending {
        match (self, end) {
            (Ending::Moving { .. }, LogEnd::Final) => Ending::Killed,
            (Ending::Moving { .. }, LogEnd::Elsewhere) => Ending::Copied,
            _ => self,
        }
    }
}

/// One segment, and what is asked of it.
pub(super) struct Segment<'a> {
    pub(super) directory: &'a Path,
    pub(super) base_offset: i64,
    pub(super) next_base: Option<i64>,
    pub(super) ending: Ending,
    pub(super) request: &'a Request,
    pub(super) journals: &'a Journals,
    /// The epochs of the checkpoint, where they must be complete.
    pub(super) epochs: Option<&'a [EpochStart]>,
    pub(super) progress: &'a Progress,
}

struct Pass<'a> {
    segment: &'a Segment<'a>,
    ending: Ending,
    log: PathBuf,
    state: State,
    sequence: Sequence,
    offsets: Offsets,
    times: Times,
    transactions: Transactions,
    totals: Totals,
    found: Vec<Finding>,
    /// Of two batches one is wrong, and nothing in the log tells which.
    undecided: bool,
}

impl Segment<'_> {
    fn path(&self, kind: FileKind) -> PathBuf {
        self.directory.join(file_name(self.base_offset, kind))
    }

    /// Reads it, and says what is wrong, and what is known behind it.
    pub(super) fn verify(&self, mut state: State) -> Result<(Vec<Finding>, State, Totals)> {
        let log = self.path(FileKind::Log);
        self.progress.on(&log);
        let mut found = Vec::new();
        let moving = matches!(self.ending, Ending::Moving { .. });
        // What is missing at the end of the segment before, or with a segment between, may have begun a transaction.
        let skipped = self.base_offset.saturating_sub(state.next_offset).max(0) as u64;
        state.exact &= skipped == 0;
        // The indexes first: what they name must be in the log, and not the other way round.
        let mut offsets = Offsets::read(self.path(FileKind::Index), self.base_offset, &mut found)?;
        let mut times = Times::read(self.path(FileKind::TimeIndex), self.base_offset, &mut found)?;
        let mut transactions =
            Transactions::read(self.path(FileKind::TxnIndex), state.exact, moving || self.ending == Ending::Growing, &mut found)?;
        if moving {
            // The indexes of an active segment are complete once it's sealed.
            found.clear();
            (offsets, times) = (offsets.unused(), times.unused());
            transactions.doubt(i64::MAX);
        }
        let Opened { mut file, unknown, end } = open(&log, self.base_offset, Some(0), self.request, self.journals)?;
        let ending = self.ending.opened(end);
        let sequence = Sequence::new(self.base_offset.max(state.next_offset), state.leader_epoch, self.next_base.unwrap_or(i64::MAX));
        let totals = Totals { segments: 1, bytes: file.size(), offsets_missing: skipped, ..Totals::default() };
        let mut pass = Pass { segment: self, ending, log, state, sequence, offsets, times, transactions, totals, found, undecided: false };
        let end = walk(&mut file, 0, self.base_offset, |seen| {
            match seen {
                Seen::Batch(batch) => {
                    self.progress.add(batch.bytes.len() as u64);
                    pass.batch(&batch);
                }
                Seen::Damage { from, to, stop } => {
                    self.progress.add(to - from);
                    pass.damage((from, to), false, &format!("{} bytes are no batch: {stop}", to - from));
                }
            }
            Ok(true)
        })?;
        if let Some(end) = end {
            pass.end(&end, unknown);
        }
        Ok(pass.finish())
    }
}

impl Pass<'_> {
    fn batch(&mut self, batch: &Batch<'_>) {
        let (header, position) = (&batch.header, batch.position);
        let end = position + header.size() as u64;
        // In an active segment, which is never compacted, a header that counts otherwise is damaged itself.
        let is_framed = i64::from(header.record_count()) == i64::from(header.last_offset_delta()) + 1;
        self.totals.batches += 1;
        if let Some(stop) = batch.wrong {
            self.offsets.batch(position, header, &mut Vec::new());
            if self.ending == Ending::Copied && batch.is_last {
                return;
            }
            self.damage((position, end), is_framed, &stop.to_string());
            return;
        }
        let place = Place {
            position,
            end,
            base_offset: header.base_offset(),
            last_offset: header.last_offset(),
            leader_epoch: header.leader_epoch(),
        };
        let missing = self.sequence.missing();
        for wrong in self.sequence.push(place) {
            self.misplaced(&wrong);
        }
        if self.sequence.missing() > missing {
            self.transactions.doubt(header.base_offset());
            self.state.exact = false;
        }
        // One in doubt is judged by its neighbours first.
        if self.sequence.last().is_some_and(|(last, _)| last.position == position) {
            self.epoch(&place);
        }
        self.offsets.batch(position, header, &mut self.found);
        self.times.batch(header, &mut self.found);
        let control = ControlRecord::of_batch(header, batch.bytes);
        if let Some(aborted) = self.state.open.push(header, control) {
            self.transactions.aborted(&aborted, &mut self.found);
        }
        if self.segment.request.records {
            match content(header, batch.bytes) {
                Content::Sound => {}
                Content::Wrong(what) => self.damage((position, end), is_framed, &what),
                Content::TooLarge(what) => {
                    let note = Finding::new(Level::Note, &self.log, format!("{what}: its records are not looked at"));
                    self.found.push(note.at(position).offset(header.base_offset()));
                }
            }
        }
    }

    fn epoch(&mut self, place: &Place) {
        let epoch = self.sequence.epoch();
        if self.state.epochs.last().is_none_or(|last| last.epoch < epoch) {
            self.state.epochs.push(EpochStart { epoch, start_offset: place.base_offset });
        }
        if let Some(epochs) = self.segment.epochs.filter(|epochs| !agrees(epochs, place.base_offset, place.leader_epoch))
            && place.leader_epoch == epoch
        {
            let at = epochs.partition_point(|entry| entry.start_offset <= place.base_offset);
            let right = at.checked_sub(1).map(|at| epochs[at].epoch);
            let log = self.log.clone();
            self.state.other_epochs.0 += 1;
            self.state.other_epochs.1.get_or_insert(OtherEpoch { log, place: *place, right });
        }
    }

    fn misplaced(&mut self, wrong: &Wrong) {
        if !self.is_settled(wrong.place.position) {
            return;
        }
        let place = &wrong.place;
        if let Some(rival) = &wrong.rival {
            let what = format!(
                "base offset {} does not fit behind {} of the batch at position {}: one of the two is wrong, and nothing tells which",
                place.base_offset, rival.base_offset, rival.position
            );
            let finding = Finding::new(Level::Corrupt, &self.log, what).at(place.position).offset(place.base_offset);
            self.tell(finding.action("restore the segment from a copy; --repair leaves it and its indexes as they are"));
            self.undecided = true;
            return;
        }
        let what = if wrong.base_offset == Some(place.base_offset) {
            format!("leader epoch {} does not fit between its neighbours: {} would", place.leader_epoch, wrong.leader_epoch)
        } else {
            let right = wrong.base_offset.map_or("none".to_owned(), |offset| offset.to_string());
            format!("base offset {} does not fit between its neighbours: {right} would", place.base_offset)
        };
        let finding = Finding::new(Level::Corrupt, &self.log, what).at(place.position).offset(place.base_offset);
        self.tell(match wrong.base_offset {
            Some(base_offset) => finding.action("no CRC covers it; --repair sets what the neighbours leave for it").fix(Fix::Header {
                position: place.position,
                base_offset,
                leader_epoch: wrong.leader_epoch,
            }),
            None => finding.action("--repair takes the batch out of the log").fix(Fix::Remove {
                from: place.position,
                to: Some(place.end),
                is_framed: false,
            }),
        });
    }

    fn is_settled(&self, position: u64) -> bool {
        match self.ending {
            Ending::Moving { settled } => position < settled,
            _ => true,
        }
    }

    fn damage(&mut self, (from, to): (u64, u64), is_framed: bool, what: &str) {
        self.transactions.doubt(i64::MAX);
        self.state.exact = false;
        if !self.is_settled(from) {
            return;
        }
        let finding = Finding::new(Level::Corrupt, &self.log, what).at(from).offset(self.sequence.end());
        let finding = finding.action("restore the segment from a copy; --repair takes these bytes out of the log and keeps them beside");
        self.tell(finding.fix(Fix::Remove { from, to: Some(to), is_framed }));
    }

    fn tell(&mut self, mut finding: Finding) {
        if self.ending == Ending::Copied {
            finding.refusal = Some(Refusal::Copied);
            finding.action = COPIED.to_owned();
        }
        self.found.push(finding);
    }

    /// `unknown` is why the journal can't be read.
    fn end(&mut self, end: &End, unknown: Option<String>) {
        let fix = Fix::Remove { from: end.position, to: None, is_framed: false };
        let vouched = match self.ending {
            Ending::Moving { settled } => Some(settled),
            Ending::Killed => Some(end.size),
            Ending::Copied => {
                let what = "its end may be in a journal that is not here: what lies behind the last whole batch is not judged";
                let what = unknown.map_or(what.to_owned(), |why| format!("{what} ({why})"));
                self.found.push(Finding::new(Level::Note, &self.log, what).at(end.position).offset(self.sequence.end()));
                return;
            }
            _ => None,
        };
        if let Some(vouched) = vouched {
            if end.position < vouched {
                let what = format!("no batch here, where the journal says that batches reach to {vouched}");
                let finding = Finding::new(Level::Corrupt, &self.log, what).at(end.position).offset(self.sequence.end());
                self.found.push(finding.action("restore the segment from a copy").fix(fix));
            }
            return;
        }
        let rest = end.size - end.position;
        let what = match end.tail {
            Tail::Whole => return,
            Tail::Allocated => format!("{rest} bytes at the end are zero"),
            Tail::Unfinished => format!("the last batch is cut short: {rest} bytes of it are there"),
            Tail::Garbage(stop) => format!("{rest} bytes at the end are no batch: {stop}"),
        };
        let action = "--repair cuts it off and keeps the bytes beside";
        let finding = Finding::new(Level::Torn, &self.log, what).at(end.position).offset(self.sequence.end()).action(action);
        let finding = finding.fix(fix);
        match self.ending {
            Ending::Still => self.found.push(finding),
            Ending::Sealed => {
                let action = "a segment follows, so this one was whole: restore it from a copy; --repair cuts it off and keeps the bytes";
                self.found.push(Finding { level: Level::Corrupt, ..finding.action(action) });
            }
            Ending::Growing | Ending::Moving { .. } | Ending::Killed | Ending::Copied => {}
        }
    }

    fn finish(mut self) -> (Vec<Finding>, State, Totals) {
        if let Some(wrong) = self.sequence.finish() {
            self.misplaced(&wrong);
        }
        let end = self.sequence.end();
        self.offsets.finish(end, &mut self.found);
        self.times.finish(self.segment.ending == Ending::Sealed, &mut self.found);
        self.transactions.finish(end, &mut self.found);
        if self.undecided {
            // Built from such a log they would be as wrong; as they are, they may help whoever restores it.
            for finding in self.found.iter_mut().filter(|finding| finding.fix == Some(Fix::Indexes)) {
                finding.fix = None;
                finding.action = "the log is to be restored first".to_owned();
            }
        }
        self.totals.offsets_missing += self.sequence.missing();
        self.state.next_offset = end;
        self.state.leader_epoch = self.sequence.epoch();
        if let Some(last) = self.sequence.last() {
            (self.state.last, self.state.last_log) = (Some(last), self.log.clone());
        }
        (self.found, self.state, self.totals)
    }
}

/// What the records of a batch are like whose CRC is right.
enum Content {
    Sound,
    /// Then it was written so.
    Wrong(String),
    /// They are more than is looked at, which says nothing against them.
    TooLarge(String),
}

fn content(header: &Header, batch: &[u8]) -> Content {
    let payload = match payload(header, batch, DECOMPRESSED_BYTES_MAX) {
        Ok(payload) => payload,
        Err(error @ RecordError::TooLarge { .. }) => return Content::TooLarge(error.to_string()),
        Err(error) => return Content::Wrong(error.to_string()),
    };
    let mut last = -1;
    for record in Records::new(header, &payload) {
        let record = match record {
            Ok(record) => record,
            Err(error) => return Content::Wrong(error.to_string()),
        };
        if record.offset_delta <= last || record.offset_delta > header.last_offset_delta() {
            return Content::Wrong(format!(
                "a record has offset delta {} behind {last}, the batch ends at {}",
                record.offset_delta,
                header.last_offset_delta()
            ));
        }
        last = record.offset_delta;
    }
    Content::Sound
}
