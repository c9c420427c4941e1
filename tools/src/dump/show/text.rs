//! How things look: bytes as text on one line, numbers for people.

use std::fmt;

/// The form of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// The lines of Kafka's kafka-dump-log.sh, character for character.
    #[default]
    Kafka,
    /// The same fields in columns, for people.
    Aligned,
    /// One JSON object a line.
    Json,
}

/// How keys and values are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
    /// As text where it is text, else as hexadecimal digits.
    #[default]
    Text,
    /// As hexadecimal digits.
    Hex,
    /// As indented JSON where it is JSON, else as text.
    Json,
}

/// How the output looks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Its form.
    pub format: Format,
    /// Colours, where they are no part of the form.
    pub colour: bool,
    /// How keys are shown.
    pub keys: Form,
    /// How values are shown.
    pub values: Form,
    /// Keys, values and headers are cut to so many bytes.
    pub bytes_max: Option<usize>,
    /// The values of headers as well; their keys always are.
    pub headers: bool,
}

/// Shows bytes as text where they are UTF-8 without control characters but tabs and line ends, which are escaped; else
/// as hexadecimal digits.
pub(crate) struct Shown<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match text(self.0) {
            Some(text) => text.chars().try_for_each(|char| match char {
                '\n' => f.write_str("\\n"),
                '\r' => f.write_str("\\r"),
                '\t' => f.write_str("\\t"),
                char => write!(f, "{char}"),
            }),
            None => Hex(self.0).fmt(f),
        }
    }
}

/// Bytes that are text: UTF-8 without control characters but tabs and line ends.
pub(crate) fn text(bytes: &[u8]) -> Option<&str> {
    let plain = |text: &&str| text.chars().all(|char| !char.is_control() || matches!(char, '\n' | '\r' | '\t'));
    std::str::from_utf8(bytes).ok().filter(plain)
}

/// Bytes as hexadecimal digits.
pub(crate) struct Hex<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("0x")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// At most `bytes_max` bytes, ending with a whole character if they are text; and whether something is missing.
pub(crate) fn cut(bytes: &[u8], bytes_max: Option<usize>) -> (&[u8], bool) {
    let Some(max) = bytes_max.filter(|max| *max < bytes.len()) else { return (bytes, false) };
    let whole = (max.saturating_sub(3)..=max).rev().find(|at| bytes.get(*at).is_none_or(|byte| byte & 0xc0 != 0x80));
    (&bytes[..whole.unwrap_or(max)], true)
}

/// `1.5 MiB`.
pub(crate) fn size_text(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = (bytes.max(1).ilog2() / 10).min(4);
    if unit == 0 { format!("{bytes} B") } else { format!("{:.1} {}", bytes as f64 / (1u64 << (10 * unit)) as f64, units[unit as usize]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_are_hexadecimal() {
        assert_eq!(Shown("caf\u{e9}\n".as_bytes()).to_string(), "caf\u{e9}\\n");
        assert_eq!(Shown(&[0xff, 0]).to_string(), "0xff00");
    }

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(cut("a\u{e9}b".as_bytes(), Some(2)), ("a".as_bytes(), true));
        assert_eq!(cut("a\u{e9}b".as_bytes(), Some(3)), ("a\u{e9}".as_bytes(), true));
        assert_eq!(cut(b"abc", Some(3)), (&b"abc"[..], false));
        assert_eq!(cut(&[0x80; 9], Some(5)).0.len(), 5);
    }

    #[test]
    fn sizes_have_the_unit_that_fits() {
        assert_eq!([0, 1023, 1536, 5 << 30].map(size_text), ["0 B", "1023 B", "1.5 KiB", "5.0 GiB"]);
    }
}
