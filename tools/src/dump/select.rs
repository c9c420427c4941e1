//! Which batches and records are wanted.

use engine::batch::{Header, Record};
use std::{cmp::Ordering, str::FromStr};

/// Numbers from one to another, both included; an end that is missing is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// The first.
    pub from: Option<i64>,
    /// The last.
    pub to: Option<i64>,
}

impl Range {
    /// True if it holds `number`.
    #[must_use]
    pub fn holds(&self, number: i64) -> bool {
        self.meets(number, number)
    }

    /// True if it holds one of the numbers from `first` to `last`.
    #[must_use]
    pub fn meets(&self, first: i64, last: i64) -> bool {
        self.from.is_none_or(|from| from <= last) && self.to.is_none_or(|to| first <= to)
    }
}

impl FromStr for Range {
    type Err = String;

    /// `7`, `7..9`, `7..` or `..9`.
    fn from_str(text: &str) -> Result<Range, String> {
        let number = |text: &str| match text.trim() {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| format!("{text:?} is no number")),
        };
        let range = match text.split_once("..") {
            Some((from, to)) => Range { from: number(from)?, to: number(to)? },
            None => number(text).map(|number| Range { from: number, to: number })?,
        };
        match range {
            Range { from: None, to: None } => Err("a number or a range is wanted, as 7, 7..9, 7.. or ..9".to_owned()),
            Range { from: Some(from), to: Some(to) } if from > to => Err(format!("{from}..{to} holds nothing")),
            range => Ok(range),
        }
    }
}

/// Keys from one to another in the order of their bytes, both included; an end that is missing is open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    from: Option<Vec<u8>>,
    to: Option<Vec<u8>>,
}

impl Keys {
    fn hold(&self, key: &[u8]) -> bool {
        self.from.as_deref().is_none_or(|from| from.cmp(key) != Ordering::Greater)
            && self.to.as_deref().is_none_or(|to| key.cmp(to) != Ordering::Greater)
    }
}

impl FromStr for Keys {
    type Err = String;

    /// `user-1`, `user-1..user-5`, `a..`, `..z`; bytes as `0x00ff`, also of a key that has `..` in it.
    fn from_str(text: &str) -> Result<Keys, String> {
        let key = |text: &str| match text.strip_prefix("0x") {
            Some(digits) => hex(digits).map(Some).ok_or_else(|| format!("{digits:?} are no hexadecimal bytes")),
            None => Ok((!text.is_empty()).then(|| text.as_bytes().to_vec())),
        };
        match text.split_once("..") {
            Some((from, to)) => Ok(Keys { from: key(from)?, to: key(to)? }),
            None => key(text).map(|key| Keys { from: Some(key.clone().unwrap_or_default()), to: Some(key.unwrap_or_default()) }),
        }
    }
}

fn hex(digits: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    rest.is_empty().then(|| pairs.iter().map(byte).collect()).flatten()
}

/// Conditions that batches and records must all meet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Select {
    /// Offsets.
    pub offsets: Option<Range>,
    /// Timestamps in ms.
    pub timestamps: Option<Range>,
    /// Keys.
    pub keys: Option<Keys>,
    /// Producer ids.
    pub producers: Option<Range>,
    /// At most so many batches of each path.
    pub batches_max: Option<u64>,
}

impl Select {
    /// True if the batch may hold what is wanted, as far as its header says.
    #[must_use]
    pub fn batch(&self, header: &Header) -> bool {
        self.offsets.is_none_or(|wanted| wanted.meets(header.base_offset(), header.last_offset()))
            && self.timestamps.is_none_or(|wanted| wanted.meets(i64::MIN, header.max_timestamp()))
            && self.producers.is_none_or(|wanted| wanted.holds(header.producer_id()))
    }

    /// True if this record of a batch that may hold what is wanted is wanted.
    #[must_use]
    pub fn record(&self, header: &Header, record: &Record<'_>) -> bool {
        self.offsets.is_none_or(|wanted| wanted.holds(record.offset(header)))
            && self.timestamps.is_none_or(|wanted| wanted.holds(record.timestamp(header)))
            && self.keys.as_ref().is_none_or(|wanted| record.key.is_some_and(|key| wanted.hold(key)))
    }

    /// True if a batch is wanted only if one of its records is.
    #[must_use]
    pub fn needs_records(&self) -> bool {
        self.keys.is_some() || self.timestamps.is_some()
    }

    /// True if nothing behind a batch at `base_offset` is wanted.
    #[must_use]
    pub fn is_past(&self, base_offset: i64) -> bool {
        self.offsets.and_then(|wanted| wanted.to).is_some_and(|to| base_offset > to)
    }

    /// With the further condition that offsets are not below `floor`.
    #[must_use]
    pub fn not_below(mut self, floor: Option<i64>) -> Select {
        if let Some(floor) = floor {
            let wanted = self.offsets.get_or_insert_default();
            wanted.from = wanted.from.max(Some(floor));
        }
        self
    }

    /// True without any condition.
    #[must_use]
    pub fn is_all(&self) -> bool {
        *self == Select::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_written_as_in_rust_and_include_both_ends() {
        let range = |text: &str| text.parse::<Range>().expect("a range");
        assert_eq!(range("7"), Range { from: Some(7), to: Some(7) });
        assert_eq!(range("7.."), Range { from: Some(7), to: None });
        assert!(range("-1..3").holds(3) && range("..3").holds(i64::MIN) && !range("..3").holds(4));
        for nonsense in ["", "..", "9..7", "x", "1...2"] {
            assert!(nonsense.parse::<Range>().is_err(), "{nonsense}");
        }
    }

    #[test]
    fn keys_are_text_or_hexadecimal_bytes() {
        let keys = |text: &str| text.parse::<Keys>().expect("keys");
        assert!(keys("a").hold(b"a") && !keys("a").hold(b"ab"));
        assert!(keys("a..b").hold(b"ab") && !keys("a..b").hold(b"ba"));
        assert!(keys("0x00ff").hold(&[0, 0xff]) && keys("0x612e2e62").hold(b"a..b"));
        assert!("0xzz".parse::<Keys>().is_err() && "0x123".parse::<Keys>().is_err());
    }
}
