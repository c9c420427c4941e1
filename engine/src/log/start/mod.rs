//! The start of all cores together: what it recovers is committed by one superblock. The steps, in order:
//!
//! 1. and 2. `journals`: superblock, and of each core's two files the one that counts;
//! 3. and 4. `recover`, with `told`, `segment`, `image`, `producers` and, for directories of a Kafka, `takeover`: each partition's end;
//!    `loss`: where one that is accepted cuts, and `keep` what it cuts off;
//! 5. to 7. `commit`: heads, superblock, and what is cut afterwards.

mod commit;
mod image;
mod journals;
mod keep;
mod loss;
mod producers;
mod recover;
mod segment;
mod takeover;
#[cfg(test)]
mod tests;
mod told;

pub use journals::Replay;
pub use takeover::{Foreign, find_foreign};

use super::{CoreStart, LogConfig, LogError};
use crate::{
    batch::{Header, Patch, Scanner, copy_patched, scan},
    bugs::{self, Bug},
    disk::{BLOCK, Disk, read_whole, write_whole},
    journal::{Superblock, superblock_path},
    kafka::CLEAN_SHUTDOWN,
    partition::{PartitionConfig, PartitionId, PartitionSpec, Recovered, Scanned, directory},
    segment::{EpochStart, directory_name},
};
use commit::PARTITIONS_AT_ONCE;
use futures_util::stream::{self, StreamExt};
use journals::Journals;
use recover::{Cut, Depth, Outcome, Recovery, disk_error};
use std::path::Path;

/// A start under way. Before [`Start::finish`] has committed, nothing of the old state was changed: it can fail and be
/// repeated at any point. (With an accepted loss files were added beside, and directories that nobody knows were renamed.)
pub struct Start<D: Disk> {
    disk: D,
    config: LogConfig,
    random: u64,
    journals: Journals,
    catalog: Outcome,
    catalog_bytes: Vec<u8>,
    added: Vec<u8>,
}

/// The topic whose only partition is the catalog.
pub const CATALOG: &str = "__catalog";

/// The catalog's own partition. It isn't listed in itself.
#[must_use]
pub fn catalog_spec() -> PartitionSpec {
    PartitionSpec {
        id: PartitionId::CATALOG,
        topic_id: uuid::Uuid::nil(),
        directory: directory_name(CATALOG, 0).into(),
        core: 0,
        leader_epoch: 0,
        internal: true,
        config: PartitionConfig::default(),
    }
}

impl<D: Disk> Start<D> {
    /// Steps 1 and 2, and the catalog's part of step 3. `random` gives the salt. The caller holds the data directory's
    /// lock.
    ///
    /// # Errors
    /// [`LogError`], each with what to do.
    pub async fn read(disk: &D, config: &LogConfig, random: u64) -> Result<Start<D>, LogError> {
        for path in [&config.data_dir, &config.journal_dir] {
            disk.create_dir(path).await.map_err(disk_error(path))?;
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            disk.sync_dir(parent).await.map_err(disk_error(parent))?;
        }
        let spec = catalog_spec();
        let mut journals = journals::read(disk, config, &spec.directory).await?;
        let journaled = journals.partitions.remove(&spec.id);
        let mut catalog = Recovery { disk, config, epoch_max: journals.epoch_max() }.partition(spec, journaled, Depth::All).await?;
        let catalog_bytes = read_catalog(disk, config, &mut catalog).await?;
        Ok(Start { disk: disk.clone(), config: config.clone(), random, journals, catalog, catalog_bytes, added: Vec::new() })
    }

    /// The catalog's batches, from its first offset to its recovered end.
    #[must_use]
    pub fn catalog(&self) -> &[u8] {
        &self.catalog_bytes
    }

    /// Whether it goes on without what is lost (`--accept-loss`).
    #[must_use]
    pub fn accepts_loss(&self) -> bool {
        self.config.accept_loss
    }

    /// What is replayed, if the last run did not stop cleanly.
    #[must_use]
    pub fn replay(&self) -> Option<Replay> {
        self.journals.replay
    }

    /// Appends whole batches to the catalog, as part of the commit: whatever the start is given that the catalog does not
    /// say yet (new owners, directories of [`find_foreign`]) is then durable exactly if the start is. Offsets and leader
    /// epoch are filled in. [`Start::catalog`] does not show them.
    pub fn add_to_catalog(&mut self, batches: &[u8]) {
        self.added.extend_from_slice(batches);
    }

    /// Steps 3 to 7 for `cores` cores. `partitions` is what the catalog says, with the owners of this start, without the
    /// catalog itself; the leader epoch will be above `epoch`, that of the last start and all that is seen in the data. Not all of that
    /// is looked at: `epoch` is the highest that the last run has given to what it created ([`super::Log::create`]), or more. Below
    /// that, a partition would be opened with an epoch that its own batches are above, and refused.
    ///
    /// # Errors
    /// [`LogError`], each with what to do.
    pub async fn finish(self, cores: usize, partitions: Vec<PartitionSpec>, epoch: i32) -> Result<Vec<CoreStart>, LogError> {
        let Start { disk, config, random, mut journals, catalog, catalog_bytes: _, added } = self;
        // The catalog counts on from the last start's epoch while the broker runs: each deletion raises it, and what is created behind
        // that has it.
        let counted = if bugs::on(Bug::EpochsOfFloor) { -1 } else { epoch };
        let epoch_max = journals.epoch_max().max(counted);
        let recovery = Recovery { disk: &disk, config: &config, epoch_max };
        let mut of_cores: Vec<Vec<Outcome>> = (0..cores).map(|_| Vec::new()).collect();
        let is_catalog_added_to = !added.is_empty();
        of_cores[0].push(Outcome { added, ..catalog });
        let work = partitions.into_iter().map(|spec| {
            assert!(spec.core < cores, "{} belongs to core {} of {cores}", spec.directory.display(), spec.core);
            let journaled = journals.partitions.remove(&spec.id);
            recovery.partition(spec, journaled, Depth::Entries)
        });
        let mut work = stream::iter(work.collect::<Vec<_>>()).buffered(PARTITIONS_AT_ONCE);
        while let Some(outcome) = work.next().await {
            let outcome = outcome?;
            of_cores[outcome.recovered.spec.core].push(outcome);
        }
        drop(work);
        of_cores.iter_mut().for_each(|outcomes| outcomes.sort_by_key(|outcome| outcome.recovered.spec.id));
        let all = || of_cores.iter().flatten();
        let floor = journals.superblock.map_or(-1, |old| old.epoch_floor);
        let of_data = all().max_by_key(|outcome| outcome.epoch).expect("the catalog is one");
        let highest = of_data.epoch.max(epoch).max(floor);
        let leader_epoch = highest
            .checked_add(1)
            .ok_or_else(|| LogError::NoEpochLeft { path: config.data_dir.join(&of_data.recovered.spec.directory) })?;
        let highest_producer_id = all().map(|outcome| outcome.producer_id).max().unwrap_or(-1);
        of_cores.iter_mut().flatten().for_each(|outcome| append(&config, outcome, leader_epoch));
        if config.accept_loss {
            // Before the commit: the start after it removes what the catalog doesn't know.
            commit::set_aside_unknown(&disk, &config, of_cores.iter().flatten().map(|outcome| &outcome.recovered)).await?;
        }

        let next = commit::next_superblock(journals.superblock, random, cores, leader_epoch);
        let mut positions = commit::write_heads(&disk, &config, &journals.current, (next.start, next.salt), &of_cores).await?;
        next.commit(&disk, &config.journal_dir).await?;
        commit::clean_up(&disk, &config, &mut positions, journals.current.len(), &of_cores, is_catalog_added_to).await?;

        let core = |(outcomes, journal): (Vec<Outcome>, _)| CoreStart {
            config: config.clone(),
            partitions: outcomes.into_iter().map(|outcome| outcome.recovered).collect(),
            leader_epoch,
            journal,
            highest_producer_id,
        };
        Ok(of_cores.into_iter().zip(positions).map(core).collect())
    }
}

/// Appends what the commit adds to a recovered partition: the head carries it.
fn append(config: &LogConfig, outcome: &mut Outcome, leader_epoch: i32) {
    let added = std::mem::take(&mut outcome.added);
    if added.is_empty() {
        return;
    }
    let empty = Scanned { log_end: outcome.recovered.line.segment_base, end_position: 0, tail: Vec::new(), unmoved: Vec::new() };
    let scanned = outcome.recovered.scanned.get_or_insert(empty);
    let old_end = scanned.end_position;
    let floor = u64::from(old_end) / BLOCK * BLOCK;
    outcome.recovered.epochs.push(EpochStart { epoch: leader_epoch, start_offset: scanned.log_end });
    let mut rest = &added[..];
    while let Some(header) = Header::read(rest).filter(|header| header.size() > 0 && header.size() <= rest.len()) {
        let patch = Patch {
            base_offset: scanned.log_end,
            leader_epoch,
            max_timestamp: header.max_timestamp(),
            log_append_time: header.is_log_append_time(),
        };
        copy_patched(&rest[..header.size()], &patch, &mut scanned.tail);
        scanned.log_end += i64::from(header.last_offset_delta()) + 1;
        scanned.end_position += header.size() as u32;
        rest = &rest[header.size()..];
    }
    assert!(rest.is_empty(), "what is added is whole batches");
    image::push_range(&mut scanned.unmoved, floor as u32..scanned.end_position);
    let end = u64::from(scanned.end_position).next_multiple_of(BLOCK);
    let bytes = outcome.cut.as_ref().map_or(end, |cut| cut.bytes.max(end));
    outcome.cut = Some(Cut { path: commit::active_path(config, &outcome.recovered), floor, bytes });
}

/// The catalog's bytes from its log start on: sealed segments, and the active one up to its recovered end. Each begins where the one before
/// ends, or what a missing one says would be forgotten; those wholly below the log start may be gone.
async fn read_catalog<D: Disk>(disk: &D, config: &LogConfig, catalog: &mut Outcome) -> Result<Vec<u8>, LogError> {
    let Recovered { spec, line, scanned: Some(scanned), .. } = &mut catalog.recovered else { return Ok(Vec::new()) };
    let (path, active, log_start) = (config.data_dir.join(&spec.directory), line.segment_base, line.log_start);
    let found = directory::read(disk, &path).await.map_err(disk_error(&path))?;
    let segments = found.map(|found| found.files.segments).unwrap_or_default();
    let sealed = segments.iter().map(|segment| segment.base_offset).filter(|base| *base < active);
    let mut bases: Vec<i64> = sealed.chain([active]).collect();
    bases.drain(..bases.iter().rposition(|base| *base <= log_start).unwrap_or(0));
    let (mut bytes, mut start, mut next) = (Vec::new(), 0, Scanner::new(0, i64::MIN, i32::MIN));
    for base in bases {
        let expected = next.next_offset.max(log_start);
        if base > expected {
            let (first, last) = (expected, base - 1);
            if !config.accept_loss {
                return Err(LogError::MissingSegment { path, first, last });
            }
            tracing::warn!("the segment with the offsets {first} to {last} is missing in {}: what it says is given up", path.display());
            if bytes.is_empty() {
                // The next start misses nothing.
                line.log_start = base;
            }
        }
        let log = directory::log_path(&path, base);
        let mut part = read_whole(disk, &log).await.map_err(disk_error(&log))?;
        if base == active {
            part.truncate((u64::from(line.flushed) / BLOCK * BLOCK) as usize);
            part.extend_from_slice(&scanned.tail);
        }
        let (at, from) = (bytes.len(), Scanner { position: 0, next_offset: next.next_offset.max(base), ..next });
        let walked = scan(&part, from, |position, header, _| {
            if header.last_offset() < log_start {
                start = at + position as usize + header.size();
            }
        });
        let end = walked.end.position as usize;
        bytes.extend_from_slice(&part[..end]);
        if end < part.len() {
            if !config.accept_loss {
                return Err(LogError::Damaged { path: log, what: format!("at byte {end}, {}", walked.stop) });
            }
            break;
        }
        next = walked.end;
    }
    // A snapshot begins at the log start. What is left before it are changes to a state that is gone.
    bytes.drain(..start);
    Ok(bytes)
}

/// Marks the stop as clean, durably, once every core's [`super::Log::close`] has returned that no partition is left.
///
/// # Errors
/// The disk's: the next start then recovers as after a crash.
pub async fn mark_clean<D: Disk>(disk: &D, config: &LogConfig) -> Result<(), LogError> {
    let path = config.data_dir.join(CLEAN_SHUTDOWN);
    write_whole(disk, &path, b"{\"version\":0,\"brokerEpoch\":-1}").await.map_err(disk_error(&path))?;
    let Some(last) = Superblock::read(disk, &config.journal_dir).await? else {
        return Err(LogError::Missing { path: superblock_path(&config.journal_dir) });
    };
    Superblock { sequence: last.sequence + 1, clean: true, ..last }.write(disk, &config.journal_dir).await?;
    Ok(())
}
