//! How far a partition has come, and the same as bytes of an answer: the broker puts it there, and the tool takes it.

use crate::groups::records::cut;
use bytes::{Buf, BufMut};

/// Bytes of a state without its last failure.
const FIXED_BYTES: usize = 1 + 13 * 8 + 2;

/// How far a partition has come. Counters are since the broker's start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Something is under way, or due.
    pub is_busy: bool,
    /// When something is due, in ms; `None` for never.
    pub next_ms: Option<i64>,
    /// The size of its log, in bytes.
    pub bytes: i64,
    /// Segments that were removed.
    pub segments: i64,
    /// Bytes of them by `retention.ms`, by `retention.bytes`, and below the log start.
    pub by: [i64; 3],
    /// Rounds of compaction that have come to their end.
    pub rounds: i64,
    /// Bytes of log that rounds have replaced, also those that failed later, and of those in their place.
    pub compacted: (i64, i64),
    /// Records that went in rounds that have come to their end.
    pub records: i64,
    /// Bytes that the round under way has read, and of how many.
    pub progress: (i64, i64),
    /// What could not be done.
    pub failures: i64,
    /// The last thing of these.
    pub last_failure: Option<String>,
}

impl State {
    /// How many bytes [`State::put`] adds.
    #[must_use]
    pub fn size(&self) -> usize {
        FIXED_BYTES + self.last_failure.as_deref().map_or(0, |what| shown(what).len())
    }

    /// Adds it to an answer.
    pub fn put(&self, out: &mut impl BufMut) {
        out.put_i8(i8::from(self.is_busy));
        out.put_i64(self.next_ms.unwrap_or(-1));
        let [by_ms, by_bytes, below_start] = self.by;
        let numbers = [self.bytes, self.segments, by_ms, by_bytes, below_start, self.rounds, self.compacted.0, self.compacted.1];
        let more = [self.records, self.progress.0, self.progress.1, self.failures];
        numbers.into_iter().chain(more).for_each(|number| out.put_i64(number));
        match &self.last_failure {
            None => out.put_i16(-1),
            Some(what) => put_string(out, what),
        }
    }

    /// Takes the next one from an answer; `None` if that ends before it.
    #[must_use]
    pub fn take(from: &mut &[u8]) -> Option<State> {
        let is_busy = from.try_get_i8().ok()? != 0;
        let mut number = || from.try_get_i64().ok();
        Some(State {
            is_busy,
            next_ms: Some(number()?).filter(|at_ms| *at_ms >= 0),
            bytes: number()?,
            segments: number()?,
            by: [number()?, number()?, number()?],
            rounds: number()?,
            compacted: (number()?, number()?),
            records: number()?,
            progress: (number()?, number()?),
            failures: number()?,
            last_failure: take_string(from)?,
        })
    }
}

/// Takes a nullable string from an answer; `None` if that ends before it.
#[must_use]
pub fn take_string(from: &mut &[u8]) -> Option<Option<String>> {
    let Ok(length) = usize::try_from(from.try_get_i16().ok()?) else { return Some(None) };
    let (text, rest) = from.split_at_checked(length)?;
    *from = rest;
    Some(Some(String::from_utf8_lossy(text).into_owned()))
}

/// A string as far as its length can say it.
fn shown(text: &str) -> &str {
    cut(text, i16::MAX as usize)
}

/// How many bytes [`put_string`] adds.
pub(super) fn string_bytes(text: &str) -> usize {
    2 + shown(text).len()
}

/// Adds a string to an answer, cut to what its length can say.
pub(super) fn put_string(out: &mut impl BufMut, text: &str) {
    let text = shown(text);
    out.put_i16(text.len() as i16);
    out.put_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_broker_puts_is_what_the_tool_takes() {
        let state = State {
            is_busy: true,
            next_ms: Some(1),
            bytes: 2,
            segments: 3,
            by: [4, 5, 6],
            rounds: 7,
            compacted: (8, 9),
            records: 10,
            progress: (11, 12),
            failures: 13,
            last_failure: Some("a disk".into()),
        };
        for state in [state, State::default()] {
            let mut out = Vec::new();
            state.put(&mut out);
            assert_eq!(out.len(), state.size());
            let mut rest = &out[..];
            assert_eq!((State::take(&mut rest), rest.len()), (Some(state), 0));
            assert!((0..out.len()).all(|length| State::take(&mut &out[..length]).is_none()), "it is cut off");
        }
    }
}
