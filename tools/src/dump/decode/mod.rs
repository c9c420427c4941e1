//! The records of Kafka's internal topics, as the JSON that Kafka's own tool prints for them.

mod reader;
mod schema;

use super::{Decoder, inputs::topic_of};
use engine::batch::Record;
use reader::{Reader, read};
use schema::{OFFSETS, RecordType, TRANSACTIONS};
use serde_json::{Value as Json, json};
use std::path::Path;

/// Which records are decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decoding {
    Nothing,
    Offsets,
    Transactions,
}

/// A record in JSON.
#[derive(Debug)]
pub(crate) struct Decoded {
    pub(crate) key: Json,
    /// `None` of a tombstone.
    pub(crate) value: Option<Json>,
}

impl Decoding {
    /// What is to be decoded in the log at `path`.
    pub(crate) fn of(decoder: Decoder, path: &Path) -> Decoding {
        match decoder {
            Decoder::None => Decoding::Nothing,
            Decoder::Offsets => Decoding::Offsets,
            Decoder::Transactions => Decoding::Transactions,
            Decoder::Auto => match topic_of(path).as_deref() {
                Some("__consumer_offsets") => Decoding::Offsets,
                Some("__transaction_state") => Decoding::Transactions,
                _ => Decoding::Nothing,
            },
        }
    }

    /// The record; `None` where nothing is decoded, or its key or value is not what it should be.
    pub(crate) fn decode(self, record: &Record<'_>) -> Option<Decoded> {
        let types = match self {
            Decoding::Nothing => return None,
            Decoding::Offsets => OFFSETS,
            Decoding::Transactions => TRANSACTIONS,
        };
        let mut key = Reader(record.key?);
        let kind = key.int16()?;
        let found = types.iter().find(|known| known.number == kind);
        let unknown = || json!("unknown");
        let data = found.map_or_else(|| Some(unknown()), |known| read(&mut key, known.key, 0, i16::MAX))?;
        let value = match record.value {
            Some(value) => Some(versioned(value, found)?),
            None => None,
        };
        Some(Decoded { key: json!({"type": kind.to_string(), "data": data}), value })
    }
}

fn versioned(value: &[u8], found: Option<&RecordType>) -> Option<Json> {
    let mut value = Reader(value);
    let version = value.int16()?;
    let data = match found.filter(|known| (0..=known.version_max).contains(&version)) {
        Some(known) => read(&mut value, known.value, version, known.flexible)?,
        None => json!("unknown"),
    };
    Some(json!({"version": version.to_string(), "data": data}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::batch::{BatchBuilder, Header, Records, payload};

    fn decoded(key: &[u8], value: Option<&[u8]>) -> Option<Decoded> {
        let batch = BatchBuilder::new().record(1, Some(key), value).build();
        let header = Header::read(&batch).expect("whole");
        let payload = payload(&header, &batch, 1 << 20).expect("uncompressed");
        let record = Records::new(&header, &payload).next().expect("one").expect("well-formed");
        Decoding::Offsets.decode(&record)
    }

    #[test]
    fn a_commit_is_read_and_its_tombstone_too() {
        let key = b"\0\x01\0\x01g\0\x01t\0\0\0\x07";
        let value = b"\0\x03\0\0\0\0\0\0\0\x05\xff\xff\xff\xff\0\0\0\0\0\0\0\0\0\x09";
        let found = decoded(key, Some(value)).expect("known");
        assert_eq!(found.key.to_string(), r#"{"type":"1","data":{"group":"g","topic":"t","partition":7}}"#);
        let expected = r#"{"version":"3","data":{"offset":5,"leaderEpoch":-1,"metadata":"","commitTimestamp":9}}"#;
        assert_eq!(found.value.expect("one").to_string(), expected);
        assert!(decoded(key, None).expect("known").value.is_none());
    }

    #[test]
    fn what_is_not_known_is_called_unknown_and_what_is_cut_short_is_not_decoded() {
        assert_eq!(decoded(b"\0\x63", None).expect("known").key.to_string(), r#"{"type":"99","data":"unknown"}"#);
        for key in [&b""[..], b"\0", b"\0\x01\0\x09g", b"\0\x01\x7f\xff"] {
            assert!(decoded(key, Some(b"\0")).is_none(), "{key:?}");
        }
    }
}
