//! By how much a segment's file grows at a time.
//!
//! Allocating costs a kernel worker and keeps the partition's writes waiting, so a busy partition should do it rarely; but what is
//! allocated ahead is not there for others, and a thousand partitions that each take 64 MiB ahead need 64 GB. So a step is worth
//! a few seconds of what the partition takes in.

/// What a first allocation takes, in bytes.
const STEP_BYTES: u64 = 256 << 10;
/// What an allocation takes at most, in bytes.
const STEP_BYTES_MAX: u64 = 64 << 20;
/// What is asked for at least when space runs short, in bytes.
const STEP_BYTES_MIN: u64 = 64 << 10;
/// A step that lasted for less than this, in ms, is doubled.
const LASTS_MS_MIN: i64 = 2_000;
/// A step that lasted for longer than this, in ms, is halved.
const LASTS_MS_MAX: i64 = 4 * LASTS_MS_MIN;

/// The next step of a segment, by how long the ones before it have lasted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Growth {
    bytes: u64,
    /// When it grew last, in ms.
    grown_ms: Option<i64>,
}

impl Growth {
    /// That of a segment that has not grown yet.
    #[must_use]
    pub fn new() -> Growth {
        Growth { bytes: STEP_BYTES, grown_ms: None }
    }

    /// What the next allocation adds, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// It has grown by a step.
    pub fn grown(&mut self, now_ms: i64) {
        let lasted_ms = self.grown_ms.map_or(0, |grown_ms| now_ms.saturating_sub(grown_ms));
        self.bytes = match lasted_ms {
            // A clock that was set back says nothing.
            ..0 => self.bytes,
            0..LASTS_MS_MIN => (self.bytes * 2).min(STEP_BYTES_MAX),
            LASTS_MS_MIN..=LASTS_MS_MAX => self.bytes,
            _ => (self.bytes / 2).max(STEP_BYTES),
        };
        self.grown_ms = Some(now_ms);
    }

    /// There was no space for a step: from now on it asks for the least. False if it did so before.
    pub fn shrink(&mut self) -> bool {
        let is_larger = self.bytes > STEP_BYTES_MIN;
        self.bytes = STEP_BYTES_MIN;
        is_larger
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The step that a partition comes to that takes in so many bytes a second.
    fn settled(bytes_a_second: u64) -> u64 {
        let (mut growth, mut now_ms) = (Growth::new(), 0);
        for _ in 0..64 {
            growth.grown(now_ms);
            now_ms += (growth.bytes() * 1_000 / bytes_a_second) as i64;
        }
        growth.bytes()
    }

    #[test]
    fn a_step_is_worth_a_few_seconds() {
        assert_eq!(settled(1 << 30), STEP_BYTES_MAX);
        assert_eq!(settled(1 << 20), 2 << 20);
        assert_eq!(settled(1 << 10), STEP_BYTES);
        for rate in [200 << 10, 700 << 10, 3 << 20, 13 << 20] {
            let lasts_ms = settled(rate) * 1_000 / rate;
            assert!((LASTS_MS_MIN as u64..=LASTS_MS_MAX as u64).contains(&lasts_ms), "{rate} bytes/s: {lasts_ms} ms");
        }
    }

    #[test]
    fn a_step_follows_a_partition_that_slows_down_and_a_clock_that_was_set() {
        let mut growth = Growth::new();
        (0..20).for_each(|_| growth.grown(1_000));
        assert_eq!(growth.bytes(), STEP_BYTES_MAX);
        growth.grown(500);
        assert_eq!(growth.bytes(), STEP_BYTES_MAX);
        (1..20).for_each(|hour| growth.grown(hour * 3_600_000));
        assert_eq!(growth.bytes(), STEP_BYTES);
    }

    #[test]
    fn without_space_it_asks_for_the_least_and_doubles_again_when_there_is_some() {
        let mut growth = Growth::new();
        assert!(growth.shrink() && !growth.shrink());
        assert_eq!(growth.bytes(), STEP_BYTES_MIN);
        growth.grown(0);
        assert_eq!(growth.bytes(), 2 * STEP_BYTES_MIN);
    }
}
