//! How much is read and written at once, and with which pauses, by whoever has much to do on a disk that producers wait for.

use super::Disk;
use std::time::Duration;

/// What is read or written at once, in bytes, beside producers: the flush that an ack waits for comes behind what was asked for before
/// it. Beside readers of twice as much an ack took twice as long, and with half of it a core was busy with asking (docs/benchmarks.md, W5).
pub const GENTLE_BYTES: u64 = 256 << 10;
/// So many times as long as a piece has taken is the pause behind it. A host that bounds what a virtual machine may do in a while bounds all
/// of it together: what is taken here is missing there.
const PAUSES: u32 = 4;
/// A pause is not longer than this: where a piece takes more than 5 ms, whoever works beside producers is to get on all the same.
const PAUSE_MAX: Duration = Duration::from_millis(20);
/// If less than this is free, in bytes, space is short: whoever gives some back doesn't pause for anybody.
pub const FREE_BYTES_MIN: u64 = 1 << 30;

/// The pause behind a piece that took so long.
#[must_use]
pub fn pause_behind(took: Duration) -> Duration {
    (took * PAUSES).min(PAUSE_MAX)
}

/// Whether there are producers to be gentle with, as it is just now.
pub struct Pace {
    is_gentle: Box<dyn Fn() -> bool>,
}

impl Pace {
    /// As fast as the disk can.
    #[must_use]
    pub fn fast() -> Pace {
        Pace::gentle_when(|| false)
    }

    /// Gentle while this is true.
    #[must_use]
    pub fn gentle_when(is_gentle: impl Fn() -> bool + 'static) -> Pace {
        Pace { is_gentle: Box::new(is_gentle) }
    }

    /// True while there are producers.
    #[must_use]
    pub fn is_gentle(&self) -> bool {
        (self.is_gentle)()
    }

    /// What is read or written at once: `most` if nobody else waits for the disk.
    #[must_use]
    pub fn bytes_at_once(&self, most: u64) -> u64 {
        if self.is_gentle() { most.min(GENTLE_BYTES) } else { most }
    }

    /// Leaves the disk to others behind a piece that began at `began_us`, by the disk's clock.
    pub async fn pause<D: Disk>(&self, disk: &D, began_us: u64) {
        let took = Duration::from_micros(disk.now_us().saturating_sub(began_us));
        if !took.is_zero() && self.is_gentle() {
            disk.sleep(pause_behind(took)).await;
        }
    }
}
