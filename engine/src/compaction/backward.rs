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
    key_map::KeyMap,
    plan,
    source::{Batches, Source},
    transactions::Transactions,
    writer::Writer,
};
use crate::{
    batch::{DECOMPRESSED_BYTES_MAX, Header, Records, payload},
    disk::{Disk, is_full},
};
use futures_util::join;
use std::collections::BTreeMap;

/// What waits in the scratch directory is at most so many times what may wait in memory: a round is to have room where others need it, too.
const WRITTEN_TIMES: u64 = 8;

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

/// What came of a segment, or of a group.
enum Found<T> {
    /// The log can't be read backward.
    Unfit,
    /// Its keys are known, and what stays of it is not.
    Keys,
    /// What stays of it.
    Made(T),
}

/// What stays of a group, which is to be written if it is not all of it.
struct Made {
    ready: Ready,
    /// From its last segment to its first.
    kept: Vec<Kept>,
    base: i64,
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
    bytes_max: u64,
}

impl Candidates {
    fn new(bytes_max: u64) -> Candidates {
        Candidates { batches: Vec::new(), bytes: Vec::new(), bytes_max }
    }

    /// With so many keys, the offsets of which are remembered, too.
    fn is_too_much(&self, keys: usize) -> bool {
        let beside = self.batches.len() * size_of::<Candidate>() + keys * size_of::<i64>();
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
    let (mut rest, mut end, mut made) = (&job.segments[..], job.end, None);
    for count in plan::groups(&job.sizes(), job.end, job.segment_bytes).into_iter().rev() {
        if end <= job.first_dirty {
            break;
        }
        let (others, group) = rest.split_at(rest.len() - count);
        // What stays of a group is written while the next one is read.
        let (read, written) = join!(reading.group(group, end), write(job, disk, made.take()));
        reading.is_ready(written).await?;
        match read? {
            Found::Unfit => {
                job.progress.take_back(reading.read);
                forget(job, disk, &mut reading.ready).await?;
                return Ok(None);
            }
            Found::Keys => {}
            Found::Made(of_it) => made = reading.takes(of_it),
        }
        (rest, end) = (others, group[0].base_offset);
    }
    let written = write(job, disk, made).await;
    reading.is_ready(written).await?;
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

/// Writes what stays of a group into the scratch directory.
async fn write<D: Disk>(job: &Job, disk: &D, made: Option<Made>) -> Option<(Made, Result<(), CleanError>)> {
    let made = made?;
    let work = async {
        if made.ready.group.is_none() {
            return Ok(());
        }
        let mut writer = Writer::create(disk, &job.scratch, made.base, job.progress.pace()).await?;
        for Kept { batches, .. } in made.kept.iter().rev() {
            let mut rest = &batches[..];
            while let Some(header) = Header::read(rest) {
                let (batch, others) = rest.split_at(header.size());
                writer.push(&header, batch).await?;
                rest = others;
            }
        }
        writer.finish(&[]).await.map(drop)
    };
    let written = work.await;
    Some((made, written))
}

impl<D: Disk> Reading<'_, D> {
    /// Reads the segments of a group, which ends at `end`, from the last to the first.
    async fn group(&mut self, group: &[Source], end: i64) -> Result<Found<Made>, CleanError> {
        let first_dirty = self.job.first_dirty;
        let mut keeps = self.has_room && group[0].base_offset >= first_dirty;
        let (mut kept, mut bytes, mut counted, mut end) = (Vec::new(), 0, Cleaned::default(), end);
        for segment in group.iter().rev() {
            if end <= first_dirty {
                break;
            }
            let candidates = keeps.then(|| Candidates::new(self.job.kept_bytes_max.saturating_sub(bytes)));
            match self.segment(segment, end, candidates, &mut counted).await? {
                Found::Unfit => return Ok(Found::Unfit),
                Found::Keys => {
                    keeps = false;
                    kept.clear();
                }
                Found::Made(of_it) => {
                    bytes += of_it.batches.len() as u64;
                    kept.push(of_it);
                }
            }
            end = segment.base_offset;
        }
        if !keeps {
            return Ok(Found::Keys);
        }
        let bytes_before: u64 = group.iter().map(|segment| segment.bytes).sum();
        let is_same = group.len() == 1 && kept.iter().all(|kept| !kept.is_changed);
        let bases = group.iter().map(|segment| segment.base_offset).collect();
        let ready = Ready {
            group: (!is_same).then_some(Group { bases, bytes_before, bytes, has_transactions: false }),
            counted: Cleaned { bytes: (bytes_before, bytes), read_once: bytes_before, ..counted },
        };
        Ok(Found::Made(Made { ready, kept, base: group[0].base_offset }))
    }

    /// What may be written, if there is room for it.
    fn takes(&mut self, made: Made) -> Option<Made> {
        let bytes = made.ready.group.as_ref().map_or(0, |group| group.bytes);
        self.has_room &= self.written + bytes <= self.job.kept_bytes_max.saturating_mul(WRITTEN_TIMES);
        self.written += if self.has_room { bytes } else { 0 };
        self.has_room.then_some(made)
    }

    /// A group waits in the scratch directory, or could not be written.
    async fn is_ready(&mut self, written: Option<(Made, Result<(), CleanError>)>) -> Result<(), CleanError> {
        match written {
            // What is free may still be enough for one group at a time.
            Some((_, Err(CleanError::Disk { source, .. }))) if is_full(&source) => {
                self.has_room = false;
                forget(self.job, self.disk, &mut self.ready).await
            }
            Some((made, written)) => {
                written?;
                self.job.progress.add(made.ready.counted.read_once as usize);
                self.ready.insert(made.base, made.ready);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Reads a segment, which ends at `end`, and notes its keys.
    async fn segment(
        &mut self,
        segment: &Source,
        end: i64,
        mut candidates: Option<Candidates>,
        counted: &mut Cleaned,
    ) -> Result<Found<Kept>, CleanError> {
        let (job, mut parts) = (self.job, Parts::of(segment));
        let mut source = Batches::open(self.disk, &job.directory, segment, Vec::new(), &job.progress).await?;
        if candidates.is_some() {
            self.keys.begin_part();
        }
        while let Some(header) = source.next().await? {
            job.progress.add(header.size());
            self.read += header.size();
            parts.push(source.position, &header);
            if header.is_transactional() || header.is_control() {
                return Ok(Found::Unfit);
            }
            if header.last_offset() < job.first_dirty {
                continue;
            }
            let position = source.position;
            let noted = self.note((position, &header), source.batch(&header).await?, end, candidates.as_mut());
            let Some(superseded) = noted.map_err(|what| source.corrupt(position, what))? else { return Ok(Found::Unfit) };
            counted.records.0 += header.record_count().max(0) as u64;
            counted.gone.superseded += superseded;
            if candidates.as_ref().is_some_and(|candidates| candidates.is_too_much(self.keys.new_keys())) {
                candidates = None;
                self.keys.forget_part();
            }
        }
        self.parts.insert(segment.base_offset, parts);
        let Some(candidates) = candidates else { return Ok(Found::Keys) };
        let live = self.keys.end_part();
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
        Ok(Found::Made(kept))
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
            if !self.keys.put_of_part(key, offset, end) {
                continue;
            }
            stay += 1;
            if let Some(candidates) = &mut candidates {
                candidates.bytes.extend_from_slice(bytes);
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
}
