//! The dirty part of a log read once, from its last segment to its first. When a segment is read all later keys are known, so it is known
//! what stays of it: that is written ahead, and put in place in the order of the log when all is read.
//!
//! What can't be read so is read twice (`Dirty::read`, then each group): a log with transactions, which are followed from its first batch on;
//! one with more keys than a round remembers; one with records without a key. So is a group of which more stays than may wait in
//! memory: that costs little beside the writing of it.

use super::{
    dirty::{Dirty, Parts},
    filter::{Filter, Outcome, stays_empty},
    job::{CleanError, Cleaned, Group, Job},
    key_map::{KeyMap, Put},
    plan,
    source::{Batches, Source},
    transactions::Transactions,
    writer::Writer,
};
use crate::{
    batch::{DECOMPRESSED_BYTES_MAX, Header, Records, payload},
    disk::{Disk, is_full},
};
use std::collections::BTreeMap;

/// What waits in the scratch directory is at most so many times what may wait in memory: a round is to have room where others need it, too.
const WRITTEN_TIMES: u64 = 16;

/// What was found and made.
pub(super) struct Backward {
    /// The whole dirty part.
    pub dirty: Dirty,
    /// The groups that are ready, by their first base offsets.
    pub ready: BTreeMap<i64, Ready>,
}

/// What a group has become.
pub(super) struct Ready {
    /// Its new segment, which waits in the scratch directory; none if nothing in it changes.
    pub group: Option<Group>,
    /// What [`Job::run`] would have counted.
    pub counted: Cleaned,
}

/// What came of a segment.
enum Seen {
    /// The log can't be read backward.
    Unfit,
    /// Its keys are known, and what stays of it is not.
    Keys,
    /// What stays of it.
    Kept(Kept),
}

/// What stays of a segment: whole batches, one after the other.
#[derive(Default)]
struct Kept {
    batches: Vec<u8>,
    is_changed: bool,
}

/// A batch that something stays of, most likely.
struct Candidate {
    header: Header,
    position: u64,
    /// Its own bytes are kept if no record of it was superseded, else its records that were not, decompressed.
    bytes: usize,
    /// So many records.
    records: usize,
}

impl Candidate {
    fn is_whole(&self) -> bool {
        self.records == self.header.record_count().max(0) as usize
    }
}

/// The batches of a segment of which nothing that comes later supersedes all records.
struct Candidates {
    batches: Vec<Candidate>,
    bytes: Vec<u8>,
    /// Where those of their keys are that nothing that comes later has.
    places: Vec<usize>,
    bytes_max: u64,
}

impl Candidates {
    fn new(bytes_max: u64) -> Candidates {
        Candidates { batches: Vec::new(), bytes: Vec::new(), places: Vec::new(), bytes_max }
    }

    fn is_too_much(&self) -> bool {
        let beside = self.batches.len() * size_of::<Candidate>() + self.places.len() * size_of::<usize>();
        (self.bytes.len() + beside) as u64 > self.bytes_max
    }

    /// Judges them when the segment was read to its end.
    ///
    /// # Errors
    /// Where, and what is wrong.
    fn judge(self, filter: &Filter<'_>, counted: &mut Cleaned) -> Result<Kept, (u64, String)> {
        let (mut kept, mut rest) = (Kept::default(), &self.bytes[..]);
        for candidate in &self.batches {
            let (bytes, others) = rest.split_at(candidate.bytes);
            rest = others;
            let outcome = if candidate.is_whole() {
                filter.judge(&candidate.header, Some(bytes), &mut Transactions::default(), &mut counted.gone).map(|judged| judged.0)
            } else {
                filter.judge_part(&candidate.header, bytes, candidate.records, &mut counted.gone)
            };
            let stays = match outcome.map_err(|what| (candidate.position, what))? {
                Outcome::Same => {
                    kept.batches.extend_from_slice(bytes);
                    candidate.header.record_count()
                }
                Outcome::Rewritten(batch) => {
                    kept.is_changed = true;
                    kept.batches.extend_from_slice(&batch);
                    Header::read(&batch).expect("a whole batch").record_count()
                }
                Outcome::Gone => {
                    kept.is_changed = true;
                    continue;
                }
            };
            counted.records.1 += stays.max(0) as u64;
        }
        Ok(kept)
    }
}

/// A reading on its way.
struct Reading<'a, D: Disk> {
    job: &'a Job,
    disk: &'a D,
    keys: KeyMap,
    parts: BTreeMap<i64, Parts>,
    ready: BTreeMap<i64, Ready>,
    /// Bytes that wait in the scratch directory.
    written: u64,
    /// More may.
    has_room: bool,
    /// Bytes that were read, as the job's progress was told.
    read: usize,
}

/// Reads the dirty part of `job`'s log; none of its segments has aborted transactions. `None` if it has to be read forward.
pub(super) async fn read<D: Disk>(job: &Job, disk: &D) -> Result<Option<Backward>, CleanError> {
    let span = usize::try_from(job.end - job.first_dirty).unwrap_or(usize::MAX);
    let mut reading = Reading {
        job,
        disk,
        keys: KeyMap::new(job.keys_max.min(span), job.secret),
        parts: BTreeMap::new(),
        ready: BTreeMap::new(),
        written: 0,
        has_room: true,
        read: 0,
    };
    let (mut rest, mut end) = (&job.segments[..], job.end);
    for count in plan::groups(&job.sizes(), job.end, job.segment_bytes).into_iter().rev() {
        if end <= job.first_dirty {
            break;
        }
        let (others, group) = rest.split_at(rest.len() - count);
        if !reading.group(group, end).await? {
            job.progress.take_back(reading.read);
            forget(job, disk, &mut reading.ready).await?;
            return Ok(None);
        }
        (rest, end) = (others, group[0].base_offset);
    }
    let dirty =
        Dirty { keys: reading.keys, is_regular: true, is_plain: true, parts: reading.parts, end_offset: job.end, is_partial: false };
    Ok(Some(Backward { dirty, ready: reading.ready }))
}

/// Removes what waits: all of it has to be read again then.
pub(super) async fn forget<D: Disk>(job: &Job, disk: &D, ready: &mut BTreeMap<i64, Ready>) -> Result<(), CleanError> {
    let counted: u64 = ready.values().map(|ready| ready.counted.read_once).sum();
    job.progress.take_back(counted as usize);
    ready.clear();
    job.begin_scratch(disk).await
}

impl<D: Disk> Reading<'_, D> {
    /// Reads the segments of a group, which ends at `end`, from the last to the first, and writes what stays of it. False if the log has to
    /// be read forward.
    async fn group(&mut self, group: &[Source], end: i64) -> Result<bool, CleanError> {
        let first_dirty = self.job.first_dirty;
        let mut keeps = self.has_room && group[0].base_offset >= first_dirty;
        let (mut kept, mut kept_bytes, mut counted, mut end) = (Vec::new(), 0, Cleaned::default(), end);
        for segment in group.iter().rev() {
            if end <= first_dirty {
                break;
            }
            let candidates = keeps.then(|| Candidates::new(self.job.kept_bytes_max.saturating_sub(kept_bytes)));
            match self.segment(segment, end, candidates, &mut counted).await? {
                Seen::Unfit => return Ok(false),
                Seen::Keys => {
                    keeps = false;
                    kept.clear();
                }
                Seen::Kept(of_it) => {
                    kept_bytes += of_it.batches.len() as u64;
                    kept.push(of_it);
                }
            }
            end = segment.base_offset;
        }
        if keeps {
            self.finish(group, kept, counted).await?;
        }
        Ok(true)
    }

    /// Reads a segment, which ends at `end`, and notes its keys.
    async fn segment(
        &mut self,
        segment: &Source,
        end: i64,
        mut candidates: Option<Candidates>,
        counted: &mut Cleaned,
    ) -> Result<Seen, CleanError> {
        let (job, mut parts) = (self.job, Parts::of(segment));
        let mut source = Batches::open(self.disk, &job.directory, segment, Vec::new(), &job.progress).await?;
        while let Some(header) = source.next().await? {
            job.progress.add(header.size());
            self.read += header.size();
            parts.push(source.position, &header);
            if header.is_transactional() || header.is_control() {
                return Ok(Seen::Unfit);
            }
            if header.last_offset() < job.first_dirty {
                continue;
            }
            let position = source.position;
            let noted = self.note((position, &header), source.batch(&header).await?, end, candidates.as_mut());
            let Some(superseded) = noted.map_err(|what| source.corrupt(position, what))? else { return Ok(Seen::Unfit) };
            counted.records.0 += header.record_count().max(0) as u64;
            counted.gone.superseded += superseded;
            candidates = candidates.filter(|candidates| !candidates.is_too_much());
        }
        self.parts.insert(segment.base_offset, parts);
        let Some(candidates) = candidates else { return Ok(Seen::Keys) };
        let mut live: Vec<i64> = candidates.places.iter().map(|place| self.keys.offset_at(*place)).collect();
        live.sort_unstable();
        let filter = Filter {
            keys: &self.keys,
            live: &live,
            is_regular: true,
            last_of_producers: &[],
            first_dirty: job.first_dirty,
            end_offset: job.end,
            round_end: job.end,
            producers: &job.producers,
            now_ms: job.now_ms,
            delete_retention_ms: job.delete_retention_ms,
        };
        let mut kept = candidates.judge(&filter, counted).map_err(|(position, what)| source.corrupt(position, what))?;
        kept.is_changed |= kept.batches.len() as u64 != segment.bytes;
        Ok(Seen::Kept(kept))
    }

    /// Notes the keys of a batch of a segment that ends at `end`. Returns how many of its records are superseded already; `None` if the log
    /// has to be read forward.
    fn note(
        &mut self,
        (position, header): (u64, &Header),
        batch: &[u8],
        end: i64,
        mut candidates: Option<&mut Candidates>,
    ) -> Result<Option<u64>, String> {
        let records = payload(header, batch, DECOMPRESSED_BYTES_MAX).map_err(|error| error.to_string())?;
        let (count, next) = (header.record_count().max(0) as usize, header.next_offset().min(end));
        // What may be noted of it: never more than offsets are left that are dirty.
        let offsets = next.saturating_sub(header.base_offset().max(self.job.first_dirty));
        if !self.keys.has_room(count.min(usize::try_from(offsets).unwrap_or(0))) {
            return Ok(None);
        }
        let from = candidates.as_ref().map_or(0, |candidates| candidates.bytes.len());
        let (mut at, mut stay, mut behind) = (0, 0, header.base_offset());
        for record in Records::new(header, &records) {
            let record = record.map_err(|error| error.to_string())?;
            let bytes = &records[at..at + record.size];
            at += record.size;
            let offset = record.offset(header);
            let Some(key) = record.key.filter(|_| (behind..next).contains(&offset)) else { return Ok(None) };
            behind = offset + 1;
            if offset < self.job.first_dirty {
                continue;
            }
            let put = self.keys.put_of_part(key, offset, end);
            if put == Put::Superseded {
                continue;
            }
            stay += 1;
            let Some(candidates) = &mut candidates else { continue };
            candidates.bytes.extend_from_slice(bytes);
            if let Put::New(place) = put {
                candidates.places.push(place);
            }
        }
        let stays = stay > 0 || count == 0 || stays_empty(header, &self.job.producers, self.job.end);
        if let Some(candidates) = candidates.filter(|_| stays) {
            if stay == count {
                candidates.bytes.truncate(from);
                candidates.bytes.extend_from_slice(batch);
            }
            let bytes = candidates.bytes.len() - from;
            candidates.batches.push(Candidate { header: *header, position, bytes, records: stay });
        }
        Ok(Some((count - stay) as u64))
    }

    /// Writes what stays of a group, which came from its last segment to its first.
    async fn finish(&mut self, group: &[Source], kept: Vec<Kept>, counted: Cleaned) -> Result<(), CleanError> {
        let base = group[0].base_offset;
        let bytes_before: u64 = group.iter().map(|segment| segment.bytes).sum();
        let bytes: u64 = kept.iter().map(|kept| kept.batches.len() as u64).sum();
        let is_same = group.len() == 1 && kept.iter().all(|kept| !kept.is_changed);
        let group = if is_same {
            None
        } else {
            if self.written + bytes > self.job.kept_bytes_max.saturating_mul(WRITTEN_TIMES) {
                self.has_room = false;
                return Ok(());
            }
            match self.write(base, &kept).await {
                // What is free may still be enough for one group at a time.
                Err(CleanError::Disk { source, .. }) if is_full(&source) => {
                    self.has_room = false;
                    return forget(self.job, self.disk, &mut self.ready).await;
                }
                written => written?,
            }
            self.written += bytes;
            let bases = group.iter().map(|segment| segment.base_offset).collect();
            Some(Group { bases, bytes_before, bytes, has_transactions: false })
        };
        let counted = Cleaned { bytes: (bytes_before, bytes), read_once: bytes_before, ..counted };
        self.job.progress.add(bytes_before as usize);
        self.ready.insert(base, Ready { group, counted });
        Ok(())
    }

    /// Writes a new segment of what stays, which came from the last to the first.
    async fn write(&self, base: i64, kept: &[Kept]) -> Result<(), CleanError> {
        let mut writer = Writer::create(self.disk, &self.job.scratch, base, self.job.progress.pace()).await?;
        for Kept { batches, .. } in kept.iter().rev() {
            let mut rest = &batches[..];
            while let Some(header) = Header::read(rest) {
                let (batch, others) = rest.split_at(header.size());
                writer.push(&header, batch).await?;
                rest = others;
            }
        }
        writer.finish(&[]).await.map(drop)
    }
}
