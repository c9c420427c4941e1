//! Bytes as text on one line.

use std::fmt;

/// Shows bytes as text where they are UTF-8 without control characters but tabs and line ends, which are escaped; else
/// as hexadecimal digits.
pub(crate) struct Shown<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |text: &&str| text.chars().all(|char| !char.is_control() || matches!(char, '\n' | '\r' | '\t'));
        match std::str::from_utf8(self.0).ok().filter(plain) {
            Some(text) => text.chars().try_for_each(|char| match char {
                '\n' => f.write_str("\\n"),
                '\r' => f.write_str("\\r"),
                '\t' => f.write_str("\\t"),
                char => write!(f, "{char}"),
            }),
            None => {
                f.write_str("0x")?;
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}

/// An optional number as Java prints it, which Kafka's lines have.
pub(crate) struct OptionalLong(pub(crate) Option<i64>);

impl fmt::Display for OptionalLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(number) => write!(f, "OptionalLong[{number}]"),
            None => f.write_str("OptionalLong.empty"),
        }
    }
}
