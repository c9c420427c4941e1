//! `OffsetCommitValue`: one committed offset.

use super::{
    Unreadable,
    cursor::{Cursor, put_compact_string, put_varint},
};
use uuid::Uuid;

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The next offset to read.
    pub offset: i64,
    /// The leader epoch of the last record that was read, -1 if the client doesn't say.
    pub leader_epoch: i32,
    /// What the client wants to remember with it.
    pub metadata: String,
    /// When it was committed (wall ms).
    pub commit_ms: i64,
    /// When it expires (wall ms), if that was said at the commit: only Kafka before 2.1 did.
    pub expire_ms: Option<i64>,
    /// The topic that it's about: a topic of the same name made later has another id. Nil if it wasn't written down.
    pub topic_id: Uuid,
}

const VERSION: i16 = 4;
const TAG_TOPIC_ID: u32 = 0;

/// The value's bytes, version 4.
#[must_use]
pub fn encode_offset(committed: &Committed) -> Vec<u8> {
    let mut out = Vec::with_capacity(48 + committed.metadata.len());
    out.extend_from_slice(&VERSION.to_be_bytes());
    out.extend_from_slice(&committed.offset.to_be_bytes());
    out.extend_from_slice(&committed.leader_epoch.to_be_bytes());
    put_compact_string(&mut out, &committed.metadata);
    out.extend_from_slice(&committed.commit_ms.to_be_bytes());
    if committed.topic_id.is_nil() {
        put_varint(&mut out, 0);
    } else {
        put_varint(&mut out, 1);
        put_varint(&mut out, TAG_TOPIC_ID);
        put_varint(&mut out, 16);
        out.extend_from_slice(committed.topic_id.as_bytes());
    }
    out
}

/// Reads a value of any version.
///
/// # Errors
/// [`Unreadable`].
pub fn decode_offset(bytes: &[u8]) -> Result<Committed, Unreadable> {
    let mut cursor = Cursor(bytes);
    let version = cursor.int16()?;
    if !(0..=VERSION).contains(&version) {
        return Err(Unreadable::Version(version));
    }
    let offset = cursor.int64()?;
    let leader_epoch = if version >= 3 { cursor.int32()? } else { -1 };
    let metadata = if version >= 4 { cursor.compact_string()? } else { cursor.string()? };
    let commit_ms = cursor.int64()?;
    let expire_ms = if version == 1 { Some(cursor.int64()?).filter(|ms| *ms >= 0) } else { None };
    let mut topic_id = Uuid::nil();
    if version >= 4 {
        cursor.tagged(|tag, bytes| {
            if tag == TAG_TOPIC_ID
                && let Ok(id) = Cursor(bytes).uuid()
            {
                topic_id = id;
            }
        })?;
    }
    Ok(Committed { offset, leader_epoch, metadata, commit_ms, expire_ms, topic_id })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn committed() -> Committed {
        Committed {
            offset: 42,
            leader_epoch: 3,
            metadata: "note".into(),
            commit_ms: 0x0102_0304,
            expire_ms: None,
            topic_id: Uuid::from_u128(0x0f),
        }
    }

    #[test]
    fn version_4_is_kafkas_bytes() {
        let expected = [
            &b"\0\x04"[..],
            b"\0\0\0\0\0\0\0\x2a",
            b"\0\0\0\x03",
            b"\x05note",
            b"\0\0\0\0\x01\x02\x03\x04",
            b"\x01\0\x10\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x0f",
        ];
        assert_eq!(encode_offset(&committed()), expected.concat());
        assert_eq!(decode_offset(&expected.concat()), Ok(committed()));
        let without_id = Committed { topic_id: Uuid::nil(), ..committed() };
        assert_eq!(decode_offset(&encode_offset(&without_id)), Ok(without_id));
    }

    #[test]
    fn older_versions_are_read() {
        let head = b"\0\0\0\0\0\0\0\x2a";
        let tail = b"\0\x04note\0\0\0\0\x01\x02\x03\x04";
        let plain = Committed { leader_epoch: -1, topic_id: Uuid::nil(), ..committed() };
        assert_eq!(decode_offset(&[&b"\0\0"[..], head, tail].concat()), Ok(plain.clone()));
        assert_eq!(decode_offset(&[&b"\0\x02"[..], head, tail].concat()), Ok(plain.clone()));
        let expiring = Committed { expire_ms: Some(9), ..plain };
        assert_eq!(decode_offset(&[&b"\0\x01"[..], head, tail, b"\0\0\0\0\0\0\0\x09"].concat()), Ok(expiring));
        let third = Committed { topic_id: Uuid::nil(), ..committed() };
        assert_eq!(decode_offset(&[&b"\0\x03"[..], head, b"\0\0\0\x03", tail].concat()), Ok(third));
    }

    #[test]
    fn every_cut_is_noticed() {
        let whole = encode_offset(&committed());
        for cut in 0..whole.len() {
            assert!(decode_offset(&whole[..cut]).is_err(), "cut at {cut}");
        }
        assert_eq!(decode_offset(b"\0\x05"), Err(Unreadable::Version(5)));
    }
}
