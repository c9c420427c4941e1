//! The records of `__consumer_offsets`, byte for byte as Kafka 4.3 writes them: a key that begins with its version says
//! what the record is about, a missing value takes it back.
//!
//! | key version | key | value |
//! |---|---|---|
//! | 0, 1 | group, topic, partition | `OffsetCommitValue` 0 to 4; version 4 is written |
//! | 2 | group | `GroupMetadataValue` 0 to 4; version 3 is written |
//! | 3 and above | other group protocols | skipped |

pub(crate) mod cursor;
mod group;
mod offset;

pub use cursor::cut;
pub use group::{decode_group, encode_group};
pub use offset::{Committed, decode_offset, encode_offset};

use cursor::{Cursor, put_string};

/// What a record is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// A committed offset.
    Offset {
        /// The group.
        group: String,
        /// The topic's name.
        topic: String,
        /// The partition's index.
        partition: i32,
    },
    /// A group's metadata.
    Group(String),
}

/// A record that can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Not of the classic protocol: not ours to read.
    #[error("version {0} is none of the classic protocol")]
    Version(i16),
    /// Cut short, or not text where text should be.
    #[error("malformed")]
    Malformed,
}

impl Key {
    /// The key's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Key::Offset { group, topic, partition } => {
                out.extend_from_slice(&1i16.to_be_bytes());
                put_string(&mut out, group);
                put_string(&mut out, topic);
                out.extend_from_slice(&partition.to_be_bytes());
            }
            Key::Group(group) => {
                out.extend_from_slice(&2i16.to_be_bytes());
                put_string(&mut out, group);
            }
        }
        out
    }

    /// Reads a key.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn decode(bytes: &[u8]) -> Result<Key, Unreadable> {
        let mut cursor = Cursor(bytes);
        match cursor.int16()? {
            0 | 1 => Ok(Key::Offset { group: cursor.string()?, topic: cursor.string()?, partition: cursor.int32()? }),
            2 => Ok(Key::Group(cursor.string()?)),
            version => Err(Unreadable::Version(version)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_two_characters() {
        assert_eq!([0, 2, 3, 4, 9].map(|bytes_max| cut("gr\u{fc}n", bytes_max)), ["", "gr", "gr", "gr\u{fc}", "gr\u{fc}n"]);
    }

    #[test]
    fn keys_are_kafkas_bytes() {
        let offset = Key::Offset { group: "g".into(), topic: "orders".into(), partition: 7 };
        assert_eq!(offset.encode(), b"\0\x01\0\x01g\0\x06orders\0\0\0\x07");
        assert_eq!(Key::Group("fulfillment".into()).encode(), b"\0\x02\0\x0bfulfillment");
        for key in [offset, Key::Group(String::new())] {
            assert_eq!(Key::decode(&key.encode()), Ok(key));
        }
    }

    #[test]
    fn other_keys_are_told_from_broken_ones() {
        assert_eq!(Key::decode(b"\0\x03\0\x01g"), Err(Unreadable::Version(3)));
        for broken in [&b""[..], b"\0", b"\0\x01\0\x05g", b"\0\x02\xff\xff", b"\0\x02\0\x01\xff"] {
            assert_eq!(Key::decode(broken), Err(Unreadable::Malformed), "{broken:?}");
        }
    }

    #[test]
    fn a_text_has_kafkas_bound_where_its_length_could_be_greater() {
        let head = [&b"\0\x04"[..], &[0; 12]].concat();
        let value = |length: usize| {
            let mut bytes = head.clone();
            cursor::put_compact_string(&mut bytes, &"m".repeat(length));
            [bytes, vec![0; 9]].concat()
        };
        assert_eq!(decode_offset(&value(0x7fff)).map(|committed| committed.metadata.len()), Ok(0x7fff));
        assert_eq!(decode_offset(&value(0x8000)), Err(Unreadable::Malformed));
    }
}
