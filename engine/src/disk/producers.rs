//! Whether producers go on: whoever has much to do on the disk goes gently then ([`super::Pace`]).

#![expect(clippy::disallowed_types, reason = "one word of all cores to whoever asks, stored every 50 ms at most")]

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

/// About when something was appended last in this process, in ms of the broker's clock.
static APPENDED_MS: AtomicI64 = AtomicI64::new(0);
/// How exact that is, in ms: a core says it so seldom.
const APPENDED_EXACT_MS: i64 = 50;
/// For so long after the last append producers are taken to go on, in ms: several pauses between two requests of a producer that collects
/// records or waits for its acks, and little for whoever is held up by those that have ended. The next append of one that pauses for
/// longer may have to wait for what is in front of it.
const PRODUCERS_MS: i64 = 200;

/// Something is appended, at `now_ms` of the broker's clock.
pub(crate) fn appended(now_ms: i64) {
    if !(0..APPENDED_EXACT_MS).contains(&now_ms.saturating_sub(APPENDED_MS.load(Ordering::Relaxed))) {
        APPENDED_MS.store(now_ms, Ordering::Relaxed);
    }
}

/// True if something was appended at `appended_ms`, and just now. What is said to come from the future was before the clock was set back: the
/// next append tells.
pub(crate) fn go_on(appended_ms: i64, now_ms: i64) -> bool {
    (0..PRODUCERS_MS).contains(&now_ms.saturating_sub(appended_ms))
}

/// Whether producers of any core of this process go on at `now_ms`, by the broker's clock.
#[must_use]
pub fn has_producers(now_ms: i64) -> bool {
    go_on(APPENDED_MS.load(Ordering::Relaxed), now_ms)
}

/// The same just now, by the system's clock, which is the broker's.
pub(super) fn has_producers_now() -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    has_producers(i64::try_from(now.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn producers_go_on_for_a_moment_and_none_come_from_the_future() {
        let at = |now_ms| go_on(1_000, now_ms);
        assert_eq!([999, 1_000, 1_199, 1_200, i64::MIN, i64::MAX].map(at), [false, true, true, false, false, false]);
    }
}
