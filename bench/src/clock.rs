//! When a run warms up, measures and ends.

use std::time::{Duration, Instant};

/// The phases of a run.
#[derive(Clone, Copy)]
pub struct Clock {
    /// When the measurement begins.
    pub begin: Instant,
    /// When it ends.
    pub end: Instant,
}

impl Clock {
    /// Starts now with `warm_up` seconds, then `seconds` of measurement.
    #[must_use]
    pub fn start(warm_up: f64, seconds: f64) -> Clock {
        let begin = Instant::now() + Duration::from_secs_f64(warm_up);
        Clock { begin, end: begin + Duration::from_secs_f64(seconds) }
    }

    /// True while the measurement runs.
    #[must_use]
    pub fn measures(&self, now: Instant) -> bool {
        self.begin <= now && now < self.end
    }
}

/// Milliseconds since 1970.
#[must_use]
pub fn wall_ms() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
