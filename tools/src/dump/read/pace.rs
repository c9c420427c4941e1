//! How fast is read: beside a running broker in small pieces with pauses, at the lowest priority, since its producers wait for the same
//! disk, and, where a host bounds what a virtual machine may do, for what is used up here.

use engine::disk::{GENTLE_BYTES, pause_behind};
use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Instant,
};

/// The priority beside a running broker: the lowest.
const NICE: i32 = 19;
/// What is read without a pause, in bytes.
const SMALL_BYTES: usize = 64 << 10;

/// Whether a broker runs on what this process reads.
static BESIDE_A_BROKER: AtomicBool = AtomicBool::new(false);

/// Whether the priority may be lowered.
static MAY_YIELD: AtomicBool = AtomicBool::new(false);

/// From now on whoever reads beside a running broker has the lowest priority. It can't be taken back, and goes on to what is started
/// later: that is a program's to decide, and not a library's, whose caller may have more to do.
pub(crate) fn may_yield() {
    MAY_YIELD.store(true, Ordering::Relaxed);
}

/// What is opened from now on is read beside a running broker, or is not.
pub(crate) fn beside_a_broker(is_live: bool) {
    BESIDE_A_BROKER.store(is_live, Ordering::Relaxed);
    if is_live && MAY_YIELD.load(Ordering::Relaxed) {
        // Of this thread and those that it starts; it may be the lowest already.
        let _ = rustix::process::setpriority_process(None, NICE);
    }
}

/// How a file is read.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pace {
    /// As fast as the disk can.
    Fast,
    /// Beside a broker.
    Gentle,
    /// Beside a broker that writes the file: it has to be read faster than it is written.
    Following,
}

impl Pace {
    /// That of a file that is opened now.
    pub fn now() -> Pace {
        if BESIDE_A_BROKER.load(Ordering::Relaxed) { Pace::Gentle } else { Pace::Fast }
    }

    /// The same for a file that its broker writes.
    pub fn following(self) -> Pace {
        if matches!(self, Pace::Fast) { Pace::Fast } else { Pace::Following }
    }

    /// What is read at once, in bytes.
    pub fn bytes_at_once(self, most: usize) -> usize {
        if matches!(self, Pace::Fast) { most } else { most.min(GENTLE_BYTES as usize) }
    }

    /// Leaves the disk to others behind a piece of so many bytes that was begun then. A small one is over before anybody waits.
    pub fn pause(self, bytes: usize, began: Instant) {
        if matches!(self, Pace::Gentle) && bytes >= SMALL_BYTES {
            thread::sleep(pause_behind(began.elapsed()));
        }
    }
}
