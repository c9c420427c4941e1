//! The bulk lane: large appends and what the journal is to get rid of, in whole blocks, to the segments. Round-robin over
//! partitions, with bounds on the bytes in flight and on the fdatasyncs outstanding. It also does what else takes time on
//! a partition's files: allocating, sealing, completing for a clean stop.

use super::{LogError, core::Core, signal::Permits};
use crate::{
    bugs::{self, Bug},
    disk::{Disk, give_back, is_full},
    partition::{
        Partition, PartitionId, Run,
        limits::SPACE_RETRY_MS,
        schedule::Job,
        seal::{EndError, Ending},
        state::{ActiveFile, NoSpace, SealedSegment},
        tail::{block_ceiling, block_floor},
    },
};
use futures_util::{
    StreamExt,
    future::{Either, LocalBoxFuture, select},
    stream::FuturesUnordered,
};
use std::{io, pin::pin, rc::Rc};

/// A job has ended.
struct Done<D: Disk> {
    id: PartitionId,
    what: What<D>,
}

enum What<D: Disk> {
    Run { bytes: u64, start: u64, is_quiet: bool, result: io::Result<()> },
    Cut,
    Allocated { target: u64, is_quiet: bool, result: io::Result<()> },
    Sealed { ending: Ending<D>, result: Result<ActiveFile<D>, EndError> },
    Finished { ending: Ending<D>, result: Result<(), EndError> },
}

type Flying<D> = FuturesUnordered<LocalBoxFuture<'static, Done<D>>>;

/// Runs for as long as the log.
pub(super) async fn run<D: Disk>(core: &Core<D>) -> Result<(), LogError> {
    let flushes = Permits::new(core.config.bulk_flushes_max);
    let mut flying: Flying<D> = FuturesUnordered::new();
    let mut bytes_in_flight = 0;
    loop {
        start_jobs(core, &flushes, &mut flying, &mut bytes_in_flight);
        let done = if flying.is_empty() {
            if core.gives_memory_back.take() {
                if core.keeper.all_rest() {
                    give_back();
                }
                // The next head carries no bytes of partitions that are well: a start has none to replay.
                if core.empties_head.take() {
                    core.ask_for_switch();
                }
            }
            core.bulk_signal.wait().await;
            None
        } else {
            match select(flying.next(), pin!(core.bulk_signal.wait())).await {
                Either::Left((done, _)) => done,
                Either::Right(_) => None,
            }
        };
        if let Some(done) = done {
            if let What::Run { is_quiet: true, .. } | What::Allocated { is_quiet: true, .. } = done.what {
                core.limits.quiet_runs.set(core.limits.quiet_runs.get() - 1);
            }
            if let What::Run { bytes, .. } = done.what {
                bytes_in_flight -= bytes;
                core.run_bytes.set(core.run_bytes.get() + bytes);
                if core.wants_head() {
                    core.journal_signal.set();
                }
            }
            finish(core, done, &flying);
            core.job_ended();
        }
    }
}

/// Begins what the waiting partitions want, as far as the bounds allow.
fn start_jobs<D: Disk>(core: &Core<D>, flushes: &Rc<Permits>, flying: &mut Flying<D>, bytes_in_flight: &mut u64) {
    loop {
        let Some(id) = core.next_for_bulk() else { return };
        let most = match core.small_appends_wait.get() {
            true => core.config.bulk_bytes_in_flight_busy_max,
            false => core.config.bulk_bytes_in_flight_max,
        };
        // A run that is larger than the bound goes alone.
        let free = if *bytes_in_flight == 0 { u64::MAX } else { most.saturating_sub(*bytes_in_flight) };
        let mut slots = core.slots.borrow_mut();
        let Some(super::core::Slot::Open(partition)) = slots.get_mut(&id) else { continue };
        partition.jobs.bulk_queued = false;
        match partition.next_job(&core.limits, free) {
            None => rest(partition),
            Some(Job::WaitForBytes { is_quiet: false }) => {
                partition.jobs.bulk_queued = true;
                core.bulk_queue.borrow_mut().push_front(id);
                return;
            }
            Some(Job::WaitForBytes { is_quiet: true }) => {
                partition.jobs.waits_quietly = true;
                core.quiet_queue.borrow_mut().push_front(id);
                // Bytes are in flight, so that it gets its turn when they have landed.
                if core.bulk_queue.borrow().is_empty() {
                    return;
                }
            }
            Some(Job::Allocate { target, is_quiet }) => {
                partition.jobs.allocating = true;
                core.limits.quiet_runs.set(core.limits.quiet_runs.get() + usize::from(is_quiet));
                flying.push(allocate(core.disk.clone(), id, partition.active.file.clone(), target, is_quiet));
                core.settle(partition);
            }
            Some(Job::WaitQuietly) => {
                if !std::mem::replace(&mut partition.jobs.waits_quietly, true) {
                    core.quiet_queue.borrow_mut().push_back(id);
                }
            }
            Some(Job::Run { run, is_quiet }) => {
                *bytes_in_flight += run.bytes();
                core.limits.quiet_runs.set(core.limits.quiet_runs.get() + usize::from(is_quiet));
                flying.push(write(core, id, partition, &run, is_quiet, Rc::clone(flushes)));
                core.settle(partition);
            }
            Some(Job::Seal) => flying.push(seal(core.disk.clone(), id, ending(core, partition))),
            Some(Job::Finish) => flying.push(complete(core.disk.clone(), id, ending(core, partition))),
        }
    }
}

/// Nothing is to be done: an idle partition gives its memory back.
fn rest<D: Disk>(partition: &mut Partition<D>) {
    let is_whole = partition.progress.is_settled() && partition.progress.flushed() == partition.progress.end();
    if partition.wants_parking && is_whole && partition.stretches.len() == 1 && !partition.jobs.run {
        partition.wants_parking = false;
        partition.stretches[0].shrink();
    }
}

fn allocate<D: Disk>(disk: D, id: PartitionId, file: D::File, target: u64, is_quiet: bool) -> LocalBoxFuture<'static, Done<D>> {
    Box::pin(async move {
        let result = disk.allocate(&file, target).await;
        Done { id, what: What::Allocated { target, is_quiet, result } }
    })
}

fn write<D: Disk>(
    core: &Core<D>,
    id: PartitionId,
    partition: &Partition<D>,
    run: &Run,
    is_quiet: bool,
    flushes: Rc<Permits>,
) -> LocalBoxFuture<'static, Done<D>> {
    let (start, bytes) = (run.start, run.bytes());
    let (disk, lane) = (core.disk.clone(), Rc::clone(&core.bulk));
    let slices = partition.front().tail().blocks(start, run.segment_end);
    let file = partition.active.file.clone();
    lane.begin(bytes);
    Box::pin(async move {
        let result = async {
            let began_us = disk.now_us();
            disk.write(&file, start, slices).await?;
            let write_us = disk.now_us() - began_us;
            if bugs::on(Bug::AckBeforeFlush) {
                return Ok(());
            }
            let _permit = flushes.acquire().await;
            let began_us = disk.now_us();
            disk.flush(&file).await?;
            lane.durable(bytes, write_us, disk.now_us() - began_us);
            Ok(())
        };
        let result = result.await;
        lane.end(bytes);
        Done { id, what: What::Run { bytes, start, is_quiet, result } }
    })
}

fn ending<D: Disk>(core: &Core<D>, partition: &Partition<D>) -> Ending<D> {
    let mut indexes = partition.indexes.clone();
    indexes.seal();
    let next_base = partition.front().next_offset();
    debug_assert_eq!(next_base, partition.high_watermark, "a segment that is sealed is durable");
    let epochs = partition.epochs.entries().iter().filter(|epoch| epoch.start_offset <= next_base).copied().collect();
    Ending {
        directory: partition.directory.clone(),
        file: partition.active.file.clone(),
        bytes: partition.progress.end(),
        indexes,
        next_base,
        // All of them, as of the durable end, which is this segment's.
        producers: partition.producers.for_checkpoint(i64::MIN, 0, core.limits.now_ms.get()),
        epochs,
    }
}

fn seal<D: Disk>(disk: D, id: PartitionId, ending: Ending<D>) -> LocalBoxFuture<'static, Done<D>> {
    Box::pin(async move {
        let result = match ending.complete(&disk).await {
            Ok(()) => ending.begin_next(&disk).await,
            Err(error) => Err(error),
        };
        Done { id, what: What::Sealed { ending, result } }
    })
}

fn complete<D: Disk>(disk: D, id: PartitionId, ending: Ending<D>) -> LocalBoxFuture<'static, Done<D>> {
    Box::pin(async move {
        let result = ending.complete(&disk).await;
        Done { id, what: What::Finished { ending, result } }
    })
}

fn finish<D: Disk>(core: &Core<D>, done: Done<D>, flying: &Flying<D>) {
    let now_ms = core.limits.now_ms.get();
    core.with(done.id, |partition| match done.what {
        What::Run { start, result, .. } => {
            let acked = partition.progress.durable();
            if run_ended(partition, result) {
                flying.push(cut(core.disk.clone(), done.id, partition.active.file.clone(), start.max(block_floor(acked))));
            }
        }
        What::Cut => partition.jobs.run = false,
        What::Allocated { target, result, .. } => allocated(core, partition, target, result, now_ms),
        What::Sealed { ending, result } => sealed(core, partition, ending, result, now_ms),
        What::Finished { ending, result } => finished(core, partition, ending, result),
    });
}

/// A run has ended. True if it failed.
fn run_ended<D: Disk>(partition: &mut Partition<D>, result: io::Result<()>) -> bool {
    partition.jobs.run = false;
    let parked = std::mem::replace(&mut partition.jobs.parking, false);
    if let Err(error) = result {
        if partition.offline.is_none() {
            partition.go_offline(format!("writing {} failed: {error}", partition.active.path.display()));
        }
        partition.jobs.run = true;
        return true;
    }
    if partition.offline.is_none() {
        partition.progress.run_is_flushed();
        partition.advance();
        if parked {
            rest(partition);
        }
    }
    false
}

/// After a failed flush nobody can tell which bytes of the run are on the disk, and the next flush may say that all is
/// well. A start must not find those that were never acked in the kernel's memory and take them for durable, so they are
/// cut off, with the block that they begin in: its acked bytes are in the journal. Those before it stay. Most are in the
/// journal too, but not all: what the start found in the segment behind a gap was written once more, the same, by the run
/// that filled the gap, and is nowhere else. Best effort, the partition is offline.
fn cut<D: Disk>(disk: D, id: PartitionId, file: D::File, start: u64) -> LocalBoxFuture<'static, Done<D>> {
    Box::pin(async move {
        if let Err(error) = disk.truncate(&file, start).await {
            tracing::warn!("cutting the segment of an offline partition failed: {error}");
        }
        Done { id, what: What::Cut }
    })
}

fn allocated<D: Disk>(core: &Core<D>, partition: &mut Partition<D>, target: u64, result: io::Result<()>, now_ms: i64) {
    partition.jobs.allocating = false;
    if partition.offline.is_some() {
        return;
    }
    match result {
        Ok(()) => {
            partition.active.allocated = partition.active.allocated.max(target);
            partition.active.growth.grown(now_ms);
            if partition.no_space.is_some_and(|no_space| !no_space.at_roll) {
                partition.no_space = None;
                tracing::info!("{}: there is space again", partition.directory.display());
            }
        }
        Err(error) if is_full(&error) => {
            // Perhaps less would do.
            let is_ahead = target > block_ceiling(partition.progress.end());
            if !(is_ahead && partition.active.growth.shrink()) {
                out_of_space(core, partition, &error, false, now_ms);
            }
        }
        Err(error) => partition.go_offline(format!("allocating {} failed: {error}", partition.active.path.display())),
    }
}

fn out_of_space<D: Disk>(core: &Core<D>, partition: &mut Partition<D>, error: &io::Error, at_roll: bool, now_ms: i64) {
    if partition.no_space.is_none() {
        tracing::warn!("{}: {error}; appends are refused until there is space", partition.directory.display());
    }
    partition.no_space = Some(NoSpace { retry_at_ms: now_ms + SPACE_RETRY_MS, at_roll, is_probing: false });
    // What has no home doesn't stop the others.
    if partition.recount(&core.limits) {
        core.admit_waiting();
    }
    // What waits for the next segment can't become durable without space; what the active one has goes to the journal, as
    // long as the credit lasts.
    let waits_for_roll = partition.stretches.len() > 1;
    let is_untaken = partition.progress.taken() < partition.progress.end();
    if waits_for_roll || (is_untaken && (at_roll || !core.limits.has_credit(0, partition.spec.internal))) {
        partition.must_discard = true;
    }
    if partition.is_closing {
        *core.close_error.borrow_mut() =
            Some(LogError::Disk { path: partition.active.path.clone(), source: io::Error::new(error.kind(), error.to_string()) });
    }
}

fn sealed<D: Disk>(core: &Core<D>, partition: &mut Partition<D>, ending: Ending<D>, result: Result<ActiveFile<D>, EndError>, now_ms: i64) {
    partition.jobs.sealing = false;
    if partition.offline.is_some() {
        // A swap has failed meanwhile: what was to follow is dropped. The start removes the empty segment.
        return;
    }
    match result {
        Ok(active) => {
            partition.sealed.push(SealedSegment {
                base_offset: ending.indexes.offsets.base_offset(),
                bytes: ending.bytes,
                has_transactions: !ending.indexes.transactions.entries().is_empty(),
                written_ms: Some(now_ms),
            });
            partition.begin_next(active);
            if ending.epochs.len() == partition.epochs.entries().len() {
                partition.epochs.mark_stored();
            }
        }
        Err(EndError::Segment(error)) => partition.go_offline(format!("sealing {} failed: {error}", partition.active.path.display())),
        Err(EndError::Beside(error)) => {
            partition.active.allocated = block_floor(ending.bytes);
            out_of_space(core, partition, &error, true, now_ms);
        }
    }
}

fn finished<D: Disk>(core: &Core<D>, partition: &mut Partition<D>, ending: Ending<D>, result: Result<(), EndError>) {
    partition.jobs.sealing = false;
    let error = match result {
        Ok(()) => {
            partition.index_end = ending.indexes.offsets.encode().len() as u32;
            partition.indexes = ending.indexes;
            partition.epochs.mark_stored();
            partition.is_finished = true;
            return;
        }
        Err(EndError::Segment(error) | EndError::Beside(error)) => error,
    };
    *core.close_error.borrow_mut() = Some(LogError::Disk { path: partition.active.path.clone(), source: error });
}
