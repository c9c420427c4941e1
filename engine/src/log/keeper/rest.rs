//! A core that is idle comes to rest: what its journal holds moves to the segments, and what its tails hold is given back.

use crate::{disk::Disk, log::core::Core};
use std::cell::Cell;

/// A core is idle so long after its last append, in ms.
const REST_AFTER_MS: i64 = 10_000;

/// When a core was last appended to.
#[derive(Debug, Default)]
pub struct Rest {
    appended_ms: Cell<i64>,
    has_come: Cell<bool>,
}

impl Rest {
    /// Something is appended. True if the core was at rest: then the time of the next look changes.
    pub fn ends(&self, now_ms: i64) -> bool {
        self.appended_ms.set(self.appended_ms.get().max(now_ms));
        self.has_come.replace(false)
    }

    /// When something was last appended, in ms of the broker's clock.
    pub fn appended_ms(&self) -> i64 {
        self.appended_ms.get()
    }
}

/// Has the core come to rest if it is idle. Returns when to look again.
pub fn look<D: Disk>(core: &Core<D>, now_ms: i64) -> Option<i64> {
    let rest = &core.keeper.rest;
    if rest.has_come.get() {
        return None;
    }
    // What a start has found counts as appended when it is first looked at.
    if rest.appended_ms.get() == 0 {
        rest.appended_ms.set(now_ms);
    }
    let due_ms = rest.appended_ms.get() + REST_AFTER_MS;
    if now_ms < due_ms {
        return Some(due_ms);
    }
    rest.has_come.set(true);
    core.rests.set(true);
    core.ask_for_switch();
    None
}
