//! Numbers of the command line, each within bounds that the clock and the memory can follow.

use std::ops::RangeInclusive;

/// A year: whatever is longer is a slip.
const SECONDS_MAX: f64 = 31_536_000.0;
/// The slowest schedule has a request every 1,000 s.
const RATE: RangeInclusive<f64> = 1e-3..=1e9;

fn within(text: &str, bounds: RangeInclusive<f64>) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| format!("{text:?} is no number"))?;
    // NaN is in no range.
    if bounds.contains(&number) { Ok(number) } else { Err(format!("it must be from {} to {}", bounds.start(), bounds.end())) }
}

/// Seconds of something that must take a while.
///
/// # Errors
/// It is no number, or out of bounds.
pub fn seconds(text: &str) -> Result<f64, String> {
    within(text, 1e-3..=SECONDS_MAX)
}

/// Seconds of something that may be left out.
///
/// # Errors
/// It is no number, or out of bounds.
pub fn seconds_or_none(text: &str) -> Result<f64, String> {
    within(text, 0.0..=SECONDS_MAX)
}

/// Records a second.
///
/// # Errors
/// It is no number, or out of bounds.
pub fn rate(text: &str) -> Result<f64, String> {
    within(text, RATE)
}

/// Milliseconds of a linger.
///
/// # Errors
/// It is no number, or out of bounds.
pub fn linger_ms(text: &str) -> Result<f64, String> {
    within(text, 0.0..=60_000.0)
}

/// Some GB.
///
/// # Errors
/// It is no number, or out of bounds.
pub fn gb(text: &str) -> Result<f64, String> {
    within(text, 1e-9..=1e9)
}

/// A count of at least 1, and not of what no memory holds.
///
/// # Errors
/// It is no number, or out of bounds.
pub fn count(text: &str) -> Result<usize, String> {
    within(text, 1.0..=1e9).and_then(|_| text.parse().map_err(|_| format!("{text:?} is no whole number")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_clock_can_follow_is_refused() {
        for nonsense in ["-1", "inf", "NaN", "0", "1e300", "x", ""] {
            assert!(seconds(nonsense).is_err() && rate(nonsense).is_err() && gb(nonsense).is_err(), "{nonsense}");
            assert!(count(nonsense).is_err(), "{nonsense}");
        }
        assert_eq!((seconds("0.5"), seconds_or_none("0"), rate("50000"), count("64")), (Ok(0.5), Ok(0.0), Ok(5e4), Ok(64)));
        assert!(seconds_or_none("inf").is_err() && seconds_or_none("-0.1").is_err() && count("1.5").is_err());
        assert!(linger_ms("-1").is_err() && linger_ms("inf").is_err());
    }
}
