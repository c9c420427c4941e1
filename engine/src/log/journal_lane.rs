//! The journal lane: small appends of all partitions in one frame, one frame in flight, no timer and no linger. What
//! arrives meanwhile is the next frame.

use super::{
    LogError,
    core::{Core, Slot},
};
use crate::{
    disk::Disk,
    journal::{FRAME_CONTENT_MAX, Item, JournalWriter},
    partition::{PartitionId, head},
};
use std::collections::BTreeMap;

/// With less room than this the other file is switched to: the longest end entry must fit.
const ROOM_BYTES_MIN: usize = 16 << 10;
/// What an entry needs beside its bytes, at most.
const ENTRY_OVERHEAD_BYTES: usize = 64;

/// What is read beside appends waits for frames of up to so many bytes: a range of 256 KiB for each lets it keep up with what they bring.
const SMALL_FRAME_BYTES_MAX: usize = 64 << 10;

/// Heads that only runs have asked for park what was idle for this long at least, in ms of the appends' clock.
const PARK_AFTER_MS: i64 = 10_000;

/// What of a partition is in a frame.
struct Member {
    id: PartitionId,
    has_bytes: bool,
    /// Bytes that are no run's end entry.
    has_small_appends: bool,
    log_start: Option<i64>,
}

/// Runs until the last head of a clean stop is written.
pub(super) async fn run<D: Disk>(core: &Core<D>, mut writer: JournalWriter<D>) -> Result<(), LogError> {
    let mut parked_ms = core.limits.now_ms.get();
    loop {
        core.small_appends_wait.set(false);
        core.journal_signal.wait().await;
        while !core.journal_queue.borrow().is_empty() || core.wants_switch.get() || core.wants_head() {
            let is_due = writer.room() < ROOM_BYTES_MIN || core.wants_switch.get();
            if is_due || core.wants_head() {
                // Runs can ask for a head many times a second: who is idle that long has not come to rest.
                let now_ms = core.limits.now_ms.get();
                let parks = is_due || now_ms.saturating_sub(parked_ms) >= PARK_AFTER_MS;
                switch(core, &mut writer, parks).await?;
                if parks {
                    parked_ms = now_ms;
                }
            }
            if core.journal_queue.borrow().is_empty() {
                break;
            }
            let (items, members, bytes) = fill(core, writer.room().min(core.config.frame_bytes_max));
            if items.is_empty() {
                continue;
            }
            // The end entries of runs are no reason to hold runs back.
            core.small_appends_wait.set(members.iter().any(|member| member.has_small_appends));
            let is_small = core.small_appends_wait.get() && bytes <= SMALL_FRAME_BYTES_MAX;
            let under_way = is_small.then(|| core.small_frame.begin());
            writer.frame(&items).await?;
            drop(under_way);
            complete(core, &members);
        }
        if core.final_head.get() {
            switch(core, &mut writer, true).await?;
            return Ok(());
        }
    }
}

/// Takes from the waiting partitions, in turn, what fits: the items, whose they are, and how many bytes of a frame they take.
fn fill<D: Disk>(core: &Core<D>, room: usize) -> (Vec<Item>, Vec<Member>, usize) {
    let (mut items, mut members) = (Vec::new(), Vec::new());
    let mut left = room;
    let mut slots = core.slots.borrow_mut();
    while left >= ROOM_BYTES_MIN / 2 {
        let Some(id) = core.journal_queue.borrow_mut().pop_front() else { break };
        let Some(Slot::Open(partition)) = slots.get_mut(&id) else { continue };
        partition.jobs.journal_queued = false;
        if !partition.wants_journal() {
            continue;
        }
        let mut member = Member { id, has_bytes: false, has_small_appends: false, log_start: None };
        if partition.log_start_wanted > partition.log_start {
            member.log_start = Some(partition.log_start_wanted);
            let item = Item::LogStart { partition: id, offset: partition.log_start_wanted };
            left -= item.encoded_len();
            items.push(item);
        }
        let bulk_bytes_min = partition.skips_journal_from();
        let can_take = partition.may_journal();
        let is_end_entry = partition.progress.run_waits_for_entry();
        let most = (left - ENTRY_OVERHEAD_BYTES) as u64;
        if can_take && let Some((start, end)) = partition.progress.take_for_journal(most, bulk_bytes_min) {
            let front = partition.front();
            let bytes = front.slices(start, end);
            let item = Item::Bytes { partition: id, segment_base: front.base_offset(), position: head::position(start), bytes };
            left -= item.encoded_len();
            items.push(item);
            member.has_bytes = true;
            member.has_small_appends = !is_end_entry;
        }
        partition.jobs.in_frame = member.has_bytes || member.log_start.is_some();
        if partition.jobs.in_frame {
            members.push(member);
        }
        core.settle(partition);
    }
    (items, members, room - left)
}

/// The frame is durable.
fn complete<D: Disk>(core: &Core<D>, members: &[Member]) {
    for member in members {
        core.with(member.id, |partition| {
            partition.jobs.in_frame = false;
            // An offline partition has forgotten that it was in a frame.
            if member.has_bytes && partition.progress.is_in_frame() {
                partition.progress.frame_is_durable();
                partition.advance();
            }
            if let Some(log_start) = member.log_start {
                partition.log_start = partition.log_start.max(log_start);
                partition.touch();
            }
        });
    }
    core.job_ended();
}

/// Begins the other file with a complete checkpoint; then, if it `parks`, parks what was idle since the last time.
async fn switch<D: Disk>(core: &Core<D>, writer: &mut JournalWriter<D>, parks: bool) -> Result<(), LogError> {
    core.wants_switch.set(false);
    core.run_bytes.set(0);
    let (mut lines, mut items) = (Vec::new(), Vec::new());
    let mut offline_bytes = 0;
    // What is dropped while the head is written, it still vouches for.
    let mut discards = Vec::new();
    for slot in core.slots.borrow_mut().values_mut() {
        match slot {
            Slot::Closed(unopened) => {
                lines.push(unopened.recovered.line);
                head::recovered_items(&unopened.recovered, &mut items);
            }
            Slot::Open(partition) if partition.is_deleted => {}
            Slot::Open(partition) => {
                partition.producers.expire(core.limits.now_ms.get(), core.limits.producer_expiration_ms);
                lines.push(partition.line());
                discards.push((partition.spec.id, partition.discards()));
                partition.head_items(&core.limits, &mut items);
                if partition.offline.is_some() {
                    offline_bytes += partition.progress.carried_bytes();
                }
            }
        }
    }
    if offline_bytes > FRAME_CONTENT_MAX as u64 {
        let what = format!("{offline_bytes} acked bytes of offline partitions have no place but the journal");
        return Err(LogError::Journal { path: core.config.journal_dir.clone(), source: std::io::Error::other(what) });
    }
    writer.switch(&lines, &items).await?;
    let mut slots = core.slots.borrow_mut();
    for line in &lines {
        if let Some(Slot::Open(partition)) = slots.get_mut(&line.partition) {
            partition.journal_base = line.segment_base;
        }
    }
    for (id, before) in discards {
        if let Some(Slot::Open(partition)) = slots.get_mut(&id)
            && partition.discards() == before
            && partition.progress.is_vouched_above()
        {
            partition.progress.head_is_durable();
            core.settle(partition);
        }
    }
    if parks {
        let rests = core.rests.take();
        core.empties_head.set(rests);
        park_idle(core, &mut slots, rests);
    }
    drop(slots);
    // Whoever waits until the journal has let go of a segment.
    core.job_ended();
    Ok(())
}

/// Parks everything, where nothing waits to be moved: memory is given back.
pub(super) fn park_all<D: Disk>(core: &Core<D>) {
    park_idle(core, &mut core.slots.borrow_mut(), true);
}

/// Parks what was idle since the last time, or everything.
fn park_idle<D: Disk>(core: &Core<D>, slots: &mut BTreeMap<PartitionId, Slot<D>>, all: bool) {
    for slot in slots.values_mut() {
        let Slot::Open(partition) = slot else { continue };
        let was_fresh = std::mem::replace(&mut partition.is_fresh, false);
        if (all || !was_fresh) && partition.offline.is_none() {
            partition.wants_parking = true;
            core.settle(partition);
        }
    }
    if all {
        core.gives_memory_back.set(true);
        core.bulk_signal.set();
    }
}
