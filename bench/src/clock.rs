//! The wall clock, for timestamps of records.

/// Milliseconds since 1970.
#[must_use]
pub fn wall_ms() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
