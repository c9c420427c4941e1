//! A core that is idle comes to rest: what its journal holds moves to the segments, and what its tails hold is given back.

#![expect(
    clippy::disallowed_types,
    reason = "words of all cores to each other, touched where one comes to rest or wakes up, and seldom else"
)]

use crate::{
    disk::{self, Disk},
    log::{core::Core, journal_lane},
};
use std::{
    cell::Cell,
    sync::atomic::{AtomicUsize, Ordering},
};

/// A core is idle so long after its last append, in ms.
const REST_AFTER_MS: i64 = 10_000;
/// What could not be moved, since the disk was full, is tried again after so long, in ms.
const AGAIN_MS: i64 = 60_000;

/// Cores of this process that don't rest: giving memory back holds up all threads that allocate.
static AWAKE: AtomicUsize = AtomicUsize::new(0);

/// When a core was last appended to, and whether it rests.
#[derive(Debug)]
pub struct Rest {
    appended_ms: Cell<i64>,
    rested_ms: Cell<Option<i64>>,
}

impl Default for Rest {
    fn default() -> Self {
        AWAKE.fetch_add(1, Ordering::Relaxed);
        Rest { appended_ms: Cell::new(0), rested_ms: Cell::new(None) }
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        if self.rested_ms.get().is_none() {
            AWAKE.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Rest {
    /// Something is appended. True if the core was at rest: then the time of the next look changes.
    pub fn ends(&self, now_ms: i64) -> bool {
        self.appended_ms.set(now_ms);
        disk::appended(now_ms);
        let rested = self.rested_ms.take().is_some();
        if rested {
            AWAKE.fetch_add(1, Ordering::Relaxed);
        }
        rested
    }

    /// Whether producers of this core go on.
    pub fn has_producers(&self, now_ms: i64) -> bool {
        disk::go_on(self.appended_ms.get(), now_ms)
    }

    fn begins(&self, now_ms: i64) {
        if self.rested_ms.replace(Some(now_ms)).is_none() {
            AWAKE.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// True if no core of this process has work.
pub fn all_rest() -> bool {
    AWAKE.load(Ordering::Relaxed) == 0
}

/// Has the core come to rest if it is idle. Returns when to look again.
pub fn look<D: Disk>(core: &Core<D>, now_ms: i64) -> Option<i64> {
    let rest = &core.keeper.rest;
    let has_unmoved = core.limits.unmoved.get() > 0;
    // What a start has found counts as appended when it is first looked at, and so does what was appended before the clock was set back.
    if rest.appended_ms.get() == 0 || rest.appended_ms.get() > now_ms {
        rest.appended_ms.set(now_ms);
    }
    let due_ms = match rest.rested_ms.get() {
        Some(_) if !has_unmoved => return None,
        Some(rested_ms) => rested_ms + AGAIN_MS,
        None => rest.appended_ms.get() + REST_AFTER_MS,
    };
    if now_ms < due_ms {
        return Some(due_ms);
    }
    rest.begins(now_ms);
    if !has_unmoved {
        journal_lane::park_all(core);
        return None;
    }
    core.rests.set(true);
    core.ask_for_switch();
    Some(now_ms + AGAIN_MS)
}
