//! Step 3 for one partition: image, scan, and what the new head says of it. Nothing of the old state is changed here;
//! what is to be changed after the commit is written down in [`Outcome`].

use super::{
    super::{LogConfig, LogError},
    image::{Image, Scanned as ImageScan, push_range},
    journals::Journaled,
    producers::Producers,
    segment::{Beginning, Segment, batch_at},
    takeover,
    told::Told,
};
use crate::{
    batch::{Scanner, Stop},
    bugs::{self, Bug},
    disk::{BLOCK, Disk, is_full},
    journal::Line,
    partition::{
        Damage, PartitionSpec, Recovered, Scanned,
        directory::{self, Directory, log_path},
        open::{load_indexes, no_batch},
    },
    segment::{INDEX_ENTRY_BYTES, OffsetIndex},
};
use std::{
    io,
    path::{Path, PathBuf},
};

/// What was found of a partition, and what is to be done to its files once the start has committed.
pub(super) struct Outcome {
    /// For its core.
    pub(super) recovered: Recovered,
    /// The segment to cut: its path, where, and how long it is to be again.
    pub(super) cut: Option<Cut>,
    /// Segments behind the recovered end.
    pub(super) leftovers: Vec<i64>,
    /// The highest leader epoch of a batch or checkpoint that was seen; -1 if none was.
    pub(super) epoch: i32,
    /// The highest producer id that was seen; -1 if none was.
    pub(super) producer_id: i64,
    /// Its directory came from a Kafka, in this start.
    pub(super) taken_over: bool,
    /// Whole batches that the commit appends to it. Offsets and leader epoch are filled in then.
    pub(super) added: Vec<u8>,
}

/// A segment to cut after the commit.
pub(super) struct Cut {
    /// The `.log`.
    pub(super) path: PathBuf,
    /// The block floor of the recovered end, in bytes.
    pub(super) floor: u64,
    /// What is allocated again, in bytes.
    pub(super) bytes: u64,
}

/// What every recovery of a start needs.
pub(super) struct Recovery<'a, D: Disk> {
    pub(super) disk: &'a D,
    pub(super) config: &'a LogConfig,
    /// The highest leader epoch that was ever given: batches of our own have none above.
    pub(super) epoch_max: i32,
}

/// A last batch of which a start reads more than the header, in bytes.
const LAST_CHECKED_BYTES_MAX: u64 = 64 << 10;

/// How much of a partition is scanned.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// What the journal has entries of, if it has any. Damage below is found when the partition is opened. If a loss is accepted,
    /// this start looks for it as an opening does, and cuts off what is behind it.
    Entries,
    /// Up to the flushed end in any case. If a loss is accepted, every byte of the active segment.
    All,
}

pub(super) fn disk_error(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> LogError {
    let path = path.into();
    |source| LogError::Disk { path, source }
}

impl<D: Disk> Recovery<'_, D> {
    /// Recovers one partition of the catalog.
    pub(super) async fn partition(&self, spec: PartitionSpec, journaled: Option<Journaled>, depth: Depth) -> Result<Outcome, LogError> {
        let is_scanned = depth == Depth::All || self.config.accept_loss;
        match journaled {
            Some(journaled) if journaled.entries.is_empty() && journaled.line.is_some() && !is_scanned => Ok(untouched(spec, journaled)),
            Some(journaled) if journaled.line.is_some() || !journaled.entries.is_empty() => {
                match self.known(&spec, &journaled, depth).await {
                    // The others need not wait for it. Nothing can be without the catalog.
                    Err(LogError::Damaged { path, what }) if depth == Depth::Entries => Ok(damaged(spec, journaled, path, what)),
                    Ok(Some(outcome)) => Ok(outcome),
                    Ok(None) => self.unknown(spec).await,
                    Err(error) => Err(error),
                }
            }
            _ => self.unknown(spec).await,
        }
    }

    /// A partition that no journal has heard of: new, or copied in from a Kafka.
    async fn unknown(&self, spec: PartitionSpec) -> Result<Outcome, LogError> {
        let path = self.config.data_dir.join(&spec.directory);
        let found = directory::read(self.disk, &path).await.map_err(disk_error(&path))?;
        if let Some(found) = found.filter(|found| self.is_its_own(found, &spec) && found.has_data()) {
            return takeover::take_over(self, spec, found).await;
        }
        match directory::create(self.disk, &self.config.data_dir, &spec).await {
            // A full disk is no reason not to start: it is created when it is first used.
            Err(error) if is_full(&error) => tracing::warn!("no space for {}: {error}", path.display()),
            other => other.map_err(disk_error(&path))?,
        }
        Ok(untouched(spec, Journaled::default()))
    }

    fn is_its_own(&self, found: &Directory, spec: &PartitionSpec) -> bool {
        found.topic_id == Some(spec.topic_id) || bugs::on(Bug::PartitionByName)
    }

    /// A partition with a line or entries: the entries are laid over its segments, from the line's batch start on. `None` if nothing
    /// of it is there, and that loss is accepted.
    async fn known(&self, spec: &PartitionSpec, journaled: &Journaled, depth: Depth) -> Result<Option<Outcome>, LogError> {
        let path = self.config.data_dir.join(&spec.directory);
        let told = Told::of(spec.id, journaled);
        let bases = told.segments();
        let found = directory::read(self.disk, &path).await.map_err(disk_error(&path))?;
        let found = match found {
            Some(found) if self.is_its_own(&found, spec) => found,
            other if self.config.accept_loss => {
                self.give_up_directory(spec, other, &told).await?;
                return Ok(None);
            }
            _ => return Err(LogError::Missing { path }),
        };
        // A first frame names a segment only after the one before was cut and flushed: where no frame names it, nothing in
        // it was acked.
        let segments = found.files.segments.iter().map(|segment| segment.base_offset);
        let mut leftovers: Vec<i64> = segments.filter(|base| *base > told.line.segment_base && !bases.contains(base)).collect();
        let is_checked = depth == Depth::All && self.config.accept_loss;
        let from = if is_checked { 0 } else { told.batch_start(bases[0]) };
        let mut next = Scanner { position: from, ..self.first(bases[0]) };
        let mut producers: Option<Producers> = None;
        let mut last = None;
        for (at, &base) in bases.iter().enumerate() {
            let limit = bases.get(at + 1).copied().unwrap_or(i64::MAX);
            let Some(mut segment) = self.open(&path, (base, limit), &told, is_checked).await? else {
                // The loss was accepted.
                self.give_up_segments(&path, &bases[at..], &told).await?;
                break;
            };
            let producers = match &mut producers {
                Some(producers) => producers,
                none => {
                    // The head tells what has changed since this one. A later one may be of a roll that never came to its end:
                    // it would not count as a change, and whoever opens the partition doesn't look at it.
                    let snapshot = found.files.snapshot_at(base);
                    let read = Producers::read(self.disk, &path, snapshot, journaled, self.epoch_max).await;
                    none.insert(read.map_err(disk_error(&path))?)
                }
            };
            let scan = self.segment(&mut segment, next, producers).await?;
            next = Scanner { leader_epoch: scan.end.leader_epoch, ..self.first(scan.end.next_offset) };
            last = Some((segment, scan));
            if next.next_offset != limit {
                self.give_up_segments(&path, &bases[at + 1..], &told).await?;
                leftovers.extend(&bases[at + 1..]);
                break;
            }
        }
        let (Some((segment, scan)), Some(producers)) = (last, producers) else { return Ok(None) };
        let Segment { base, log, image, index, .. } = segment;
        if self.config.accept_loss {
            leftovers.extend(found.files.snapshots.iter().filter(|offset| **offset > scan.end.next_offset.max(base)));
        }
        let found = Found { spec: spec.clone(), log_start: journaled.log_start, base, log, leftovers, producers, index };
        self.conclude(found, image, scan).await.map(Some)
    }

    /// A segment as it is to be recovered, of this base offset and that of the next one; `None` if it is not there, and that loss is
    /// accepted. Of one that `is_checked` every byte is read.
    async fn open<'i>(
        &'i self,
        directory: &Path,
        (base, limit): (i64, i64),
        told: &Told<'i>,
        is_checked: bool,
    ) -> Result<Option<Segment<'i, D>>, LogError> {
        let log = log_path(directory, base);
        let Some(image) = self.image(&log, base, told).await? else { return Ok(None) };
        let index = match told.is_lines(base) {
            true => load_indexes(self.disk, directory, &told.line, i64::MAX).await.map_err(disk_error(directory))?.offsets,
            false => OffsetIndex::new(base),
        };
        let (batch_start, flushed, vouched) = (told.batch_start(base), told.flushed_before_entries(base), told.vouched(base));
        let covered = if is_checked { 0 } else { told.covered(base) };
        Ok(Some(Segment { base, limit, log, image, index, batch_start, flushed, covered, vouched }))
    }

    /// The image of a segment; `None` if it is not there and that loss is accepted.
    pub(super) async fn image<'i>(&'i self, log: &Path, base: i64, told: &Told<'i>) -> Result<Option<Image<'i, D>>, LogError> {
        match Image::open(self.disk, log, self.first(base), told.entries(base), told.file_bytes_max()).await {
            Ok(image) => Ok(Some(image)),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(LogError::Disk { path: log.to_path_buf(), source: error }),
            Err(_) if self.config.accept_loss => Ok(None),
            Err(_) => Err(LogError::Missing { path: log.to_path_buf() }),
        }
    }

    /// At the first byte of a segment of our own.
    pub(super) fn first(&self, base: i64) -> Scanner {
        Scanner::new(0, base, i32::MIN).in_segment(base).with_epochs_to(self.epoch_max)
    }

    /// Where a segment's batches end, from `start` on, where one begins. If a loss is accepted, what is behind the damage is kept beside.
    async fn segment(&self, segment: &mut Segment<'_, D>, start: Scanner, producers: &mut Producers) -> Result<ImageScan, LogError> {
        let (mut scan, mut lost) = self.scan(segment, start, producers).await?;
        // What the journal names a successor of was flushed, and cut to its length, before.
        let is_sealed = segment.limit < i64::MAX && scan.end.next_offset == segment.limit;
        if lost.is_none() && scan.end.position < segment.batch_start && scan.end.next_offset != segment.limit {
            lost = Some(no_batch(scan.end.position, scan.stop, segment.batch_start));
        }
        if lost.is_none() && !is_sealed {
            lost = self.check_last(segment, &scan).await?;
        }
        if lost.is_some() || self.config.accept_loss && !is_sealed {
            lost = self.step_back(segment, &mut scan, lost).await?;
        }
        if let Some(what) = lost {
            self.give_up(&mut segment.image, &segment.log, &what, scan.end, segment.vouched).await?;
        }
        if scan.end.position > segment.flushed {
            let flushed = if is_sealed { scan.end.position } else { segment.flushed };
            self.settle(&mut segment.image, flushed, scan.end.position).await.map_err(disk_error(&segment.log))?;
        }
        Ok(scan)
    }

    /// Scans a segment from `start` on, up to the offset that begins the next one. Of what is covered the headers are enough: it is
    /// durable. Also says what is wrong where it ended, if that is a loss that was accepted.
    async fn scan(
        &self,
        segment: &mut Segment<'_, D>,
        start: Scanner,
        producers: &mut Producers,
    ) -> Result<(ImageScan, Option<String>), LogError> {
        let no_end = || format!("no batch ends at byte {}, where the journal says that one does", start.position);
        let mut beginning = Beginning::new(start);
        if self.config.accept_loss {
            let end = beginning.before(segment).await?;
            if end.position != start.position {
                return Ok((ImageScan { end, stop: Stop::End, starts: Vec::new(), is_last_checked: false }, Some(no_end())));
            }
        }
        let (next, stop, mut starts) = segment.walk(&mut beginning, producers).await?;
        let mut scan = match stop {
            None => {
                let scanned = segment.image.scan(next, segment.limit, |header, batch| producers.push(header, batch)).await;
                scanned.map_err(disk_error(&segment.log))?
            }
            Some(stop) => {
                self.lost(segment, no_batch(next.position, stop, segment.covered))?;
                ImageScan { end: next, stop, starts: Vec::new(), is_last_checked: false }
            }
        };
        starts.append(&mut scan.starts);
        scan.starts = starts;
        if scan.starts.is_empty() {
            scan.end = beginning.before(segment).await?;
            if scan.end.position != start.position {
                return Err(LogError::Damaged { path: segment.log.clone(), what: no_end() });
            }
        }
        let lost = match segment.is_damaged(&scan).await? {
            true => Some(self.lost(segment, no_batch(scan.end.position, scan.stop, segment.vouched))?),
            false => None,
        };
        if !scan.stop.is_end() {
            tracing::debug!("{} ends at byte {}: {}", segment.log.display(), scan.end.position, scan.stop);
        }
        Ok((scan, lost))
    }

    /// What is wrong with the last batch, if only its header was looked at: the log ends where that says. Of those before it the next
    /// one's offset tells, and readers check the rest. A large one is not read: a start of many partitions would take seconds.
    async fn check_last(&self, segment: &mut Segment<'_, D>, scan: &ImageScan) -> Result<Option<String>, LogError> {
        let end = scan.end.position;
        if end == 0 || scan.is_last_checked {
            return Ok(None);
        }
        let last = segment.whole_before(end - 1).await?;
        if end - last.position > LAST_CHECKED_BYTES_MAX {
            return Ok(None);
        }
        let stop = segment.image.check(last, end).await.map_err(disk_error(&segment.log))?;
        stop.map(|stop| self.lost(segment, no_batch(last.position, stop, segment.vouched.max(end)))).transpose()
    }

    /// What is damaged is cut off, not refused.
    fn gives_up(&self) -> bool {
        self.config.accept_loss || bugs::on(Bug::DamageAsTornEnd)
    }

    /// What is wrong with a segment, if that is to be cut off.
    fn lost(&self, segment: &Segment<'_, D>, what: String) -> Result<String, LogError> {
        if self.gives_up() { Ok(what) } else { Err(LogError::Damaged { path: segment.log.clone(), what }) }
    }

    /// Step 4: what the scan read beyond the flushed end may sit in the device's cache only, or, after a flush that failed,
    /// not even there for long. The last partial block need not be settled: the head carries it.
    pub(super) async fn settle(&self, image: &mut Image<'_, D>, flushed: u64, end: u64) -> io::Result<()> {
        if bugs::on(Bug::NoFlushInRecovery) { Ok(()) } else { image.settle(flushed, end).await }
    }

    /// What the new head says of a scanned partition: the flushed end is the first byte where segment and image differ;
    /// carried are the blocks that differ, and the last partial one, which is about to be cut off.
    pub(super) async fn conclude(&self, found: Found, mut image: Image<'_, D>, scan: ImageScan) -> Result<Outcome, LogError> {
        let Found { spec, log_start, base, log, leftovers, producers, mut index } = found;
        let end = scan.end.position;
        let floor = end / BLOCK * BLOCK;
        let failed = |source| LogError::Disk { path: log.clone(), source };
        let (mut unmoved, first) = image.differences(end).await.map_err(failed)?;
        if floor < end {
            push_range(&mut unmoved, floor as u32..end as u32);
        }
        let flushed = first.unwrap_or(end).min(if floor < end { floor } else { end });
        let batch_start = match scan.starts.partition_point(|start| u64::from(*start) <= flushed).checked_sub(1) {
            _ if flushed == end => end,
            Some(at) => u64::from(scan.starts[at]),
            None => match batch_at(&mut image, &mut index, flushed).await.map_err(failed)? {
                // A line with that would be wrong for ever, also once the segment is restored.
                (found, Some(stop)) if !self.gives_up() => {
                    return Err(LogError::Damaged { path: log.clone(), what: no_batch(found.position, stop, flushed) });
                }
                (found, _) => found.position,
            },
        };
        let tail = image.bytes(flushed / BLOCK * BLOCK..end).await.map_err(failed)?;
        let log_end = scan.end.next_offset;
        let index_end = index.entries().iter().take_while(|entry| u64::from(entry.position) < batch_start).count() * INDEX_ENTRY_BYTES;
        let line = Line {
            partition: spec.id,
            segment_base: base,
            flushed: flushed as u32,
            batch_start: batch_start as u32,
            index_end: index_end as u32,
            log_start: log_start.min(log_end),
        };
        let file_bytes = image.file_bytes();
        let cut = (file_bytes > floor || floor < end).then(|| Cut {
            path: log.clone(),
            floor,
            bytes: file_bytes.max(end).next_multiple_of(BLOCK),
        });
        let (epoch, producer_id) = (producers.highest_epoch, producers.highest_id);
        let (producers, epochs) = producers.into_changed(log_end, self.config.accept_loss);
        let scanned = Scanned { log_end, end_position: end as u32, tail, unmoved };
        let recovered = Recovered { spec, line, producers, epochs, scanned: Some(scanned), damage: None };
        Ok(Outcome { recovered, cut, leftovers, epoch, producer_id, taken_over: false, added: Vec::new() })
    }
}

/// What is known of a scanned partition but for its scan.
pub(super) struct Found {
    pub(super) spec: PartitionSpec,
    pub(super) log_start: i64,
    pub(super) base: i64,
    pub(super) log: PathBuf,
    pub(super) leftovers: Vec<i64>,
    pub(super) producers: Producers,
    pub(super) index: OffsetIndex,
}

/// A partition that is damaged: all that the journal holds of it is carried on.
fn damaged(spec: PartitionSpec, mut journaled: Journaled, path: PathBuf, what: String) -> Outcome {
    let entries = std::mem::take(&mut journaled.entries);
    let mut outcome = untouched(spec, journaled);
    outcome.recovered.damage = Some(Box::new(Damage { path, what, entries }));
    outcome
}

/// A partition that is not opened at the start.
fn untouched(spec: PartitionSpec, journaled: Journaled) -> Outcome {
    let mut line = journaled.line_of(spec.id);
    line.log_start = journaled.log_start;
    let epoch = journaled.epochs.iter().map(|epoch| epoch.epoch).max().unwrap_or(-1);
    let producer_id = journaled.producers.iter().map(|producer| producer.producer_id).max().unwrap_or(-1);
    let recovered = Recovered { spec, line, producers: journaled.producers, epochs: journaled.epochs, scanned: None, damage: None };
    Outcome { recovered, cut: None, leftovers: Vec::new(), epoch, producer_id, taken_over: false, added: Vec::new() }
}
