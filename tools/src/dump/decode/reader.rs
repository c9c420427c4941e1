//! Reads a structure by its schema. Lengths and counts are checked against the bytes that are left.

use super::schema::{CONSUMER_ASSIGNMENT, CONSUMER_SUBSCRIPTION, Field, Kind};
use engine::segment::encode_metadata;
use serde_json::{Map, Value as Json, json};
use uuid::Uuid;

/// What is left to read.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(super) fn int16(&mut self) -> Option<i16> {
        self.array().map(i16::from_be_bytes)
    }

    fn varint(&mut self) -> Option<u32> {
        let mut value = 0u64;
        for shift in (0..35).step_by(7) {
            let [byte] = self.array()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value).ok();
            }
        }
        None
    }

    /// A length or a count; the inner `None` is null.
    fn length(&mut self, compact: bool, short: bool) -> Option<Option<usize>> {
        let length = match (compact, short) {
            (true, _) => i64::from(self.varint()?) - 1,
            (false, true) => i64::from(self.int16()?),
            (false, false) => i64::from(i32::from_be_bytes(self.array()?)),
        };
        match usize::try_from(length) {
            // Nothing is shorter than a byte.
            Ok(length) => (length <= self.0.len()).then_some(Some(length)),
            Err(_) => Some(None),
        }
    }
}

/// The fields of a structure in `version`; from version `flexible` on lengths are compact and tagged fields follow.
pub(super) fn read(reader: &mut Reader<'_>, fields: &[Field], version: i16, flexible: i16) -> Option<Json> {
    let compact = version >= flexible;
    let in_version = |field: &&Field| field.versions.contains(&version);
    let mut values: Vec<Option<Json>> = vec![None; fields.len()];
    for (at, field) in fields.iter().enumerate().filter(|(_, field)| in_version(field) && field.tag.is_none()) {
        values[at] = Some(value(reader, &field.kind, version, flexible)?);
    }
    if compact {
        for _ in 0..reader.varint()? {
            let tag = reader.varint()?;
            let length = reader.varint()? as usize;
            let mut content = Reader(reader.take(length)?);
            if let Some(at) = fields.iter().position(|field| field.tag == Some(tag) && in_version(&field)) {
                values[at] = Some(value(&mut content, &fields[at].kind, version, flexible)?);
            }
        }
    }
    let named: Map<String, Json> =
        fields.iter().zip(values).filter_map(|(field, value)| value.map(|value| (field.name.to_owned(), value))).collect();
    Some(Json::Object(consumer_protocol(named)))
}

fn value(reader: &mut Reader<'_>, kind: &Kind, version: i16, flexible: i16) -> Option<Json> {
    let compact = version >= flexible;
    Some(match kind {
        Kind::Int8 => json!(reader.array::<1>()?[0] as i8),
        Kind::Int16 => json!(reader.int16()?),
        Kind::Int32 => json!(i32::from_be_bytes(reader.array()?)),
        Kind::Int64 => json!(i64::from_be_bytes(reader.array()?)),
        Kind::Uuid => json!(kafka_id(Uuid::from_bytes(reader.array()?))),
        Kind::Text => match reader.length(compact, true)? {
            Some(length) => json!(std::str::from_utf8(reader.take(length)?).ok()?),
            None => Json::Null,
        },
        Kind::Bytes => match reader.length(compact, false)? {
            Some(length) => json!(hex(reader.take(length)?)),
            None => Json::Null,
        },
        Kind::Array(kind) => match reader.length(compact, false)? {
            Some(count) => (0..count).map(|_| value(reader, kind, version, flexible)).collect::<Option<Json>>()?,
            None => Json::Null,
        },
        Kind::Struct(fields) => read(reader, fields, version, flexible)?,
        Kind::Nullable(fields) => match reader.array::<1>()? {
            [1] => read(reader, fields, version, flexible)?,
            _ => Json::Null,
        },
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Kafka's way to write an id: URL-safe base64 without padding.
fn kafka_id(id: Uuid) -> String {
    encode_metadata(id).rsplit(' ').next().unwrap_or_default().to_owned()
}

/// Kafka's tool decodes what the members of a consumer group tell each other, too.
fn consumer_protocol(mut group: Map<String, Json>) -> Map<String, Json> {
    if group.get("protocolType").and_then(Json::as_str) != Some("consumer") {
        return group;
    }
    for member in group.get_mut("members").and_then(Json::as_array_mut).into_iter().flatten() {
        for (name, fields) in [("subscription", CONSUMER_SUBSCRIPTION), ("assignment", CONSUMER_ASSIGNMENT)] {
            let Some(found) = member.get(name).and_then(Json::as_str).and_then(bytes) else { continue };
            let mut reader = Reader(&found);
            // Versions that are not known yet begin as the newest known one.
            let decoded = reader.int16().and_then(|version| read(&mut reader, fields, version.min(3), i16::MAX));
            if let Some(decoded) = decoded {
                member[name] = decoded;
            }
        }
    }
    group
}

fn bytes(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}
