//! Step 3 for one partition: image, scan, and what the new head says of it. Nothing of the old state is changed here;
//! what is to be changed after the commit is written down in [`Outcome`].

use super::{
    super::{LogConfig, LogError},
    image::{Image, Scanned as ImageScan, push_range},
    journals::Journaled,
    keep::keep,
    producers::Producers,
    takeover,
};
use crate::{
    batch::{Scanner, Stop},
    bugs::{self, Bug},
    disk::{BLOCK, Disk, is_full},
    journal::{Entry, Line, vouched},
    partition::{
        Damage, PartitionId, PartitionSpec, Recovered, Scanned,
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
        let line = journaled.line.unwrap_or(no_line(spec.id));
        let bases = named_segments(&line, journaled);
        let found = directory::read(self.disk, &path).await.map_err(disk_error(&path))?;
        let found = match found {
            Some(found) if self.is_its_own(&found, spec) => found,
            other if self.config.accept_loss => {
                self.give_up_directory(spec, other, &bases, &line, journaled).await?;
                return Ok(None);
            }
            _ => return Err(LogError::Missing { path }),
        };
        // A first frame names a segment only after the one before was cut and flushed: where no frame names it, nothing in
        // it was acked.
        let segments = found.files.segments.iter().map(|segment| segment.base_offset);
        let mut leftovers: Vec<i64> = segments.filter(|base| *base > line.segment_base && !bases.contains(base)).collect();
        let mut producers: Option<Producers> = None;
        let from = if bases[0] == line.segment_base { u64::from(line.batch_start) } else { 0 };
        let is_checked = depth == Depth::All && self.config.accept_loss;
        let mut next = Scanner { position: if is_checked { 0 } else { from }, ..self.first(bases[0]) };
        let mut active = None;
        for (at, &base) in bases.iter().enumerate() {
            let log = log_path(&path, base);
            let Some(mut image) = self.image(&log, base, &line, journaled).await? else {
                // The loss was accepted.
                self.give_up_segments(&path, &bases[at..], &line, journaled).await?;
                if at == 0 {
                    return Ok(None);
                }
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
            let limit = bases.get(at + 1).copied().unwrap_or(i64::MAX);
            let mut index = OffsetIndex::new(base);
            if base == line.segment_base {
                index = load_indexes(self.disk, &path, &line, i64::MAX).await.map_err(disk_error(&path))?.offsets;
            }
            let covered = if base == line.segment_base && !is_checked { covered(&line, journaled) } else { 0 };
            let vouched = vouched_in(base, &line, journaled);
            let (mut scan, lost) = self.scan(&mut image, &log, next, Bounds { covered, vouched, limit }, &mut index, producers).await?;
            // What the journal names a successor of was flushed, and cut to its length, before.
            let is_sealed = limit < i64::MAX && scan.end.next_offset == limit;
            let flushed = if base == line.segment_base { flushed_before_entries(&line, journaled) } else { 0 };
            // A batch begins where the line says, so all before it are whole.
            let is_below = base == line.segment_base && scan.end.position < from && scan.end.next_offset != limit;
            let mut lost = lost.or_else(|| is_below.then(|| no_batch(scan.end.position, scan.stop, from)));
            if lost.is_none() && !is_sealed {
                lost = self.check_last(&mut image, &log, &scan, &mut index, vouched).await?;
            }
            if lost.is_some() || self.config.accept_loss && !is_sealed {
                lost = self.step_back(&mut image, &log, &mut scan, &mut index, lost).await?;
            }
            if let Some(what) = lost {
                self.give_up(&mut image, &log, &what, scan.end, vouched).await?;
            }
            if scan.end.position > flushed {
                self.settle(&mut image, if is_sealed { scan.end.position } else { flushed }, scan.end.position)
                    .await
                    .map_err(disk_error(&log))?;
            }
            next = Scanner { leader_epoch: scan.end.leader_epoch, ..self.first(scan.end.next_offset) };
            active = Some((image, scan, index, base, log));
            if next.next_offset != limit {
                self.give_up_segments(&path, &bases[at + 1..], &line, journaled).await?;
                leftovers.extend(&bases[at + 1..]);
                break;
            }
        }
        let (Some((image, scan, index, base, log)), Some(producers)) = (active, producers) else {
            unreachable!("the first segment was scanned, or its absence returned");
        };
        if self.config.accept_loss {
            leftovers.extend(found.files.snapshots.iter().filter(|offset| **offset > scan.end.next_offset.max(base)));
        }
        let found = Found { spec: spec.clone(), log_start: journaled.log_start, base, log, leftovers, producers, index };
        self.conclude(found, image, scan).await.map(Some)
    }

    /// The image of a segment; `None` if it is not there and that loss is accepted.
    async fn image<'i>(&'i self, log: &Path, base: i64, line: &Line, journaled: &'i Journaled) -> Result<Option<Image<'i, D>>, LogError> {
        let entries = of_segment(base, journaled);
        // Without entries nothing beyond the flushed end was acked.
        let bytes_max = if journaled.entries.is_empty() { u64::from(line.flushed) } else { u64::MAX };
        match Image::open(self.disk, log, self.first(base), entries, bytes_max).await {
            Ok(image) => Ok(Some(image)),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(LogError::Disk { path: log.to_path_buf(), source: error }),
            Err(_) if self.config.accept_loss => Ok(None),
            Err(_) => Err(LogError::Missing { path: log.to_path_buf() }),
        }
    }

    /// At the first byte of a segment of our own.
    fn first(&self, base: i64) -> Scanner {
        Scanner::new(0, base, i32::MIN).in_segment(base).with_epochs_to(self.epoch_max)
    }

    /// What is wrong with the last batch, if only its header was looked at: the log ends where that says. Of those before it the next
    /// one's offset tells, and readers check the rest. A large one is not read: a start of many partitions would take seconds.
    async fn check_last(
        &self,
        image: &mut Image<'_, D>,
        log: &Path,
        scan: &ImageScan,
        index: &mut OffsetIndex,
        vouched: u64,
    ) -> Result<Option<String>, LogError> {
        let end = scan.end.position;
        if end == 0 || scan.is_last_checked {
            return Ok(None);
        }
        let last = whole_before(image, index, end - 1).await.map_err(disk_error(log))?;
        if end - last.position > LAST_CHECKED_BYTES_MAX {
            return Ok(None);
        }
        let Some(stop) = image.check(last, end).await.map_err(disk_error(log))? else { return Ok(None) };
        let what = no_batch(last.position, stop, vouched.max(end));
        if self.gives_up() { Ok(Some(what)) } else { Err(LogError::Damaged { path: log.to_path_buf(), what }) }
    }

    /// A loss is accepted: steps back from the damage to what neither this opening nor a later start refuses again, and says what is
    /// lost, if anything is. Where something is cut off, the batches before it have their CRC, as far as the index leads near them. And
    /// the headers lead there from the entries that the new line will vouch for: others may have led this start around damage.
    async fn step_back(
        &self,
        image: &mut Image<'_, D>,
        log: &Path,
        scan: &mut ImageScan,
        index: &mut OffsetIndex,
        mut lost: Option<String>,
    ) -> Result<Option<String>, LogError> {
        let mut is_cut = lost.is_some();
        loop {
            if is_cut {
                scan.end = image.whole_end(index, scan.end.position).await.map_err(disk_error(log))?;
                scan.starts.retain(|start| u64::from(*start) < scan.end.position);
                scan.is_last_checked = true;
            }
            let end = scan.end.position;
            // Not above the flushed end of the new line.
            let flushed = image.differs_from().min(end / BLOCK * BLOCK);
            let batch_start = whole_before(image, index, flushed).await.map_err(disk_error(log))?.position;
            index.truncate(batch_start);
            let reached = whole_before(image, index, end).await.map_err(disk_error(log))?;
            if reached.position == end {
                return Ok(lost);
            }
            let what = || format!("no batch at byte {}, where the journal says that batches reach to {end}", reached.position);
            lost.get_or_insert_with(what);
            (scan.end, is_cut) = (reached, true);
        }
    }

    /// What is damaged is cut off, not refused.
    fn gives_up(&self) -> bool {
        self.config.accept_loss || bugs::on(Bug::DamageAsTornEnd)
    }

    /// Scans one segment of a partition from where the line says, up to the offset that begins the next one. Of what is `covered`
    /// the headers are enough: it is durable. Also says what is wrong where it ended, if that is a loss that was accepted.
    async fn scan(
        &self,
        image: &mut Image<'_, D>,
        log: &Path,
        start: Scanner,
        Bounds { covered, vouched, limit }: Bounds,
        index: &mut OffsetIndex,
        producers: &mut Producers,
    ) -> Result<(ImageScan, Option<String>), LogError> {
        let no_end = || format!("no batch ends at byte {}, where the journal says that one does", start.position);
        if self.config.accept_loss && start.position > 0 {
            let end = whole_before(image, index, start.position).await.map_err(disk_error(log))?;
            if end.position != start.position {
                return Ok((ImageScan { end, stop: Stop::End, starts: Vec::new(), is_last_checked: false }, Some(no_end())));
            }
        }
        let mut starts = Vec::new();
        let walked = image.walk(start, covered, limit, &mut starts, |header, batch| producers.push(header, batch)).await;
        let (mut next, mut stop) = walked.map_err(disk_error(log))?;
        if stop.is_some() && limit < i64::MAX {
            // What a full disk made the broker drop is vouched for still, and cut off when the segment was sealed.
            if starts.is_empty() && start.position > 0 {
                next = whole_before(image, index, start.position).await.map_err(disk_error(log))?;
            }
            stop = stop.filter(|_| next.next_offset != limit);
        }
        let mut scan = match stop {
            None => image.scan(next, limit, |header, batch| producers.push(header, batch)).await.map_err(disk_error(log))?,
            Some(stop) if self.gives_up() => ImageScan { end: next, stop, starts: Vec::new(), is_last_checked: false },
            Some(stop) => {
                return Err(LogError::Damaged { path: log.to_path_buf(), what: no_batch(next.position, stop, covered) });
            }
        };
        starts.append(&mut scan.starts);
        scan.starts = starts;
        if scan.starts.is_empty() && start.position > 0 {
            // Only the batches before say which offset comes next.
            scan.end = whole_before(image, index, start.position).await.map_err(disk_error(log))?;
            if scan.end.position != start.position {
                return Err(LogError::Damaged { path: log.to_path_buf(), what: no_end() });
            }
        }
        let mut lost = None;
        // No frame names a segment before the one in front of it is whole, and flushed.
        let is_whole = scan.end.next_offset == limit;
        if !is_whole && (limit < i64::MAX || image.is_damaged(scan.end, scan.stop, vouched).await.map_err(disk_error(log))?) {
            let what = no_batch(scan.end.position, scan.stop, vouched);
            if !self.gives_up() {
                return Err(LogError::Damaged { path: log.to_path_buf(), what });
            }
            lost = Some(what);
        }
        if !scan.stop.is_end() {
            tracing::debug!("{} ends at byte {}: {}", log.display(), scan.end.position, scan.stop);
        }
        Ok((scan, lost))
    }

    /// A loss is accepted: what lies behind `end` in a segment and was acked, or may have been, is kept beside before the commit cuts
    /// it off.
    async fn give_up(&self, image: &mut Image<'_, D>, log: &Path, what: &str, end: Scanner, vouched: u64) -> Result<(), LogError> {
        let Scanner { position, next_offset, .. } = end;
        let range = position..image.acked_end(vouched).max(position);
        if range.is_empty() {
            tracing::warn!("{}: {what}. Offsets from {next_offset} on are gone, and nothing is there to be kept", log.display());
            return Ok(());
        }
        let whole = match image.offsets(end, range.end).await.map_err(disk_error(log))? {
            Some((first, last)) => format!("whole batches with offsets {first} to {last} among them"),
            None => "no whole batch among them".to_owned(),
        };
        let kept = keep(self.disk, image, log, range.clone()).await?;
        tracing::warn!(
            "{}: {what}. Offsets from {next_offset} on are cut off; {} bytes, from byte {} to {}, {whole}, are kept in {}",
            log.display(),
            range.end - range.start,
            range.start,
            range.end,
            kept.display()
        );
        Ok(())
    }

    /// The same for whole segments, those without a file too.
    async fn give_up_segments(&self, directory: &Path, bases: &[i64], line: &Line, journaled: &Journaled) -> Result<(), LogError> {
        for &base in bases {
            let log = log_path(directory, base);
            let (mut image, from, what) = match self.image(&log, base, line, journaled).await? {
                Some(image) => (image, 0, "what comes before it is not whole"),
                None => {
                    let entries = of_segment(base, journaled);
                    let from = entries.iter().map(|entry| entry.position).min().unwrap_or(0);
                    (Image::of_journal(self.disk, self.first(base), entries), from, "it is missing")
                }
            };
            let start = Scanner::new(u64::from(from), base, i32::MIN);
            self.give_up(&mut image, &log, what, start, vouched_in(base, line, journaled)).await?;
        }
        Ok(())
    }

    /// The same for a partition without a directory of its own. One that says to be another topic's stays, under another name: it may
    /// be that file which is damaged.
    async fn give_up_directory(
        &self,
        spec: &PartitionSpec,
        found: Option<Directory>,
        bases: &[i64],
        line: &Line,
        journaled: &Journaled,
    ) -> Result<(), LogError> {
        let data_dir = &self.config.data_dir;
        let path = data_dir.join(&spec.directory);
        if let Some(found) = found.filter(|found| found.topic_id.is_some() || found.has_data()) {
            let stray = directory::set_aside(self.disk, data_dir, &spec.directory, &found).await.map_err(disk_error(&path))?;
            tracing::warn!("{} does not say that it is this topic's; it is kept as {}", path.display(), stray.display());
        }
        if journaled.entries.iter().all(|entry| entry.bytes.is_empty()) {
            return Ok(());
        }
        self.disk.create_dir(&path).await.map_err(disk_error(&path))?;
        self.disk.sync_dir(data_dir).await.map_err(disk_error(data_dir))?;
        self.give_up_segments(&path, bases, line, journaled).await
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
        Ok(Outcome { recovered, cut, leftovers, epoch, producer_id, taken_over: false })
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

/// The base offsets of the segments that the journal names and that are needed, rising.
fn named_segments(line: &Line, journaled: &Journaled) -> Vec<i64> {
    let entries = journaled.entries.iter().map(|entry| entry.segment_base).filter(|base| *base > line.segment_base);
    let mut bases: Vec<i64> = entries.chain([line.segment_base]).collect();
    bases.sort_unstable();
    bases.dedup();
    // Segments wholly below the log start may be gone, and none of their bytes is needed.
    let first = bases.iter().rposition(|base| *base <= journaled.log_start).unwrap_or(0);
    bases.split_off(first)
}

/// The entries of a segment, in order.
fn of_segment(base: i64, journaled: &Journaled) -> Vec<&Entry> {
    journaled.entries.iter().filter(|entry| entry.segment_base == base).collect()
}

/// What [`vouched`] says of a segment.
fn vouched_in(base: i64, line: &Line, journaled: &Journaled) -> u64 {
    let flushed = if base == line.segment_base { line.flushed } else { 0 };
    vouched(flushed, of_segment(base, journaled).into_iter().map(Entry::extent))
}

/// Up to here the bytes of the line's segment are those of acked batches, the last one maybe in part: what was flushed, what the head
/// carries behind that without a gap, and nothing that an entry has changed since. No run writes there before such an entry is durable.
fn covered(line: &Line, journaled: &Journaled) -> u64 {
    let entries = || journaled.entries.iter().filter(|entry| entry.segment_base == line.segment_base);
    let carried = entries().filter(|entry| entry.in_head).fold(line.flushed, |end, entry| match entry.position <= end {
        true => end.max(entry.position + entry.bytes.len() as u32),
        false => end,
    });
    u64::from(entries().filter(|entry| !entry.in_head).map(|entry| entry.position).fold(carried, u32::min))
}

/// Below this every block of the line's segment was flushed, whatever became of the entries since. The line alone may name an end
/// above the recovered one: a run's that ended within a batch, whose rest never came.
fn flushed_before_entries(line: &Line, journaled: &Journaled) -> u64 {
    let entries = journaled.entries.iter().filter(|entry| entry.segment_base == line.segment_base);
    u64::from(entries.map(|entry| entry.position).fold(line.flushed, u32::min))
}

/// Where the headers before `position` end: at the batch that it lies in, or before if one of them is damaged.
async fn whole_before<D: Disk>(image: &mut Image<'_, D>, index: &mut OffsetIndex, position: u64) -> io::Result<Scanner> {
    Ok(batch_at(image, index, position).await?.0)
}

/// The same, and why there is no batch, if one of them is damaged.
async fn batch_at<D: Disk>(image: &mut Image<'_, D>, index: &mut OffsetIndex, position: u64) -> io::Result<(Scanner, Option<Stop>)> {
    let (found, stop, is_there) = image.locate(index, position).await?;
    if is_there || index.entries().is_empty() {
        return Ok((found, stop));
    }
    // The index may be what is damaged.
    *index = OffsetIndex::new(index.base_offset());
    let (found, stop, _) = image.locate(index, position).await?;
    Ok((found, stop))
}

fn no_line(partition: PartitionId) -> Line {
    Line { partition, segment_base: 0, flushed: 0, batch_start: 0, index_end: 0, log_start: 0 }
}

/// How far a segment is scanned, and what is known of it before.
#[derive(Clone, Copy)]
struct Bounds {
    /// Up to here the headers are enough.
    covered: u64,
    /// Up to here all bytes are those of acked batches.
    vouched: u64,
    /// The offset that begins the next segment.
    limit: i64,
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
    let mut line = journaled.line.unwrap_or(no_line(spec.id));
    line.log_start = journaled.log_start;
    let epoch = journaled.epochs.iter().map(|epoch| epoch.epoch).max().unwrap_or(-1);
    let producer_id = journaled.producers.iter().map(|producer| producer.producer_id).max().unwrap_or(-1);
    let recovered = Recovered { spec, line, producers: journaled.producers, epochs: journaled.epochs, scanned: None, damage: None };
    Outcome { recovered, cut: None, leftovers: Vec::new(), epoch, producer_id, taken_over: false }
}
