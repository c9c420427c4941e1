//! `GroupMetadataValue`: a group's generation and its members.

use super::{
    Unreadable,
    cursor::{Cursor, put_bytes, put_nullable_string, put_string},
};
use crate::groups::classic::{Snapshot, SnapshotMember};
use bytes::Bytes;

const VERSION: i16 = 3;
const VERSION_READ_MAX: i16 = 4;

/// The value's bytes, version 3.
#[must_use]
pub fn encode_group(group: &Snapshot) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(&VERSION.to_be_bytes());
    put_string(&mut out, &group.protocol_type);
    out.extend_from_slice(&group.generation.to_be_bytes());
    put_nullable_string(&mut out, group.protocol.as_deref());
    put_nullable_string(&mut out, group.leader.as_deref());
    out.extend_from_slice(&group.state_since_ms.to_be_bytes());
    out.extend_from_slice(&(group.members.len() as i32).to_be_bytes());
    for member in &group.members {
        put_string(&mut out, &member.id);
        put_nullable_string(&mut out, member.instance.as_deref());
        put_string(&mut out, &member.client_id);
        put_string(&mut out, &member.client_host);
        out.extend_from_slice(&member.rebalance_timeout_ms.to_be_bytes());
        out.extend_from_slice(&member.session_timeout_ms.to_be_bytes());
        put_bytes(&mut out, &member.subscription);
        put_bytes(&mut out, &member.assignment);
    }
    out
}

/// Reads a value of any version.
///
/// # Errors
/// [`Unreadable`].
pub fn decode_group(bytes: &[u8]) -> Result<Snapshot, Unreadable> {
    let mut cursor = Cursor(bytes);
    let version = cursor.int16()?;
    if !(0..=VERSION_READ_MAX).contains(&version) {
        return Err(Unreadable::Version(version));
    }
    let flexible = version >= 4;
    let protocol_type = string(&mut cursor, flexible)?;
    let generation = cursor.int32()?;
    let protocol = nullable(&mut cursor, flexible)?;
    let leader = nullable(&mut cursor, flexible)?;
    let state_since_ms = if version >= 2 { cursor.int64()? } else { -1 };
    let count = if flexible { cursor.varint()?.saturating_sub(1) } else { u32::try_from(cursor.int32()?).unwrap_or(0) };
    let mut members = Vec::new();
    for _ in 0..count {
        members.push(member(&mut cursor, version)?);
    }
    Ok(Snapshot { protocol_type, generation, protocol, leader, state_since_ms, members })
}

fn member(cursor: &mut Cursor<'_>, version: i16) -> Result<SnapshotMember, Unreadable> {
    let flexible = version >= 4;
    let id = string(cursor, flexible)?;
    let instance = if version >= 3 { nullable(cursor, flexible)? } else { None };
    let client_id = string(cursor, flexible)?;
    let client_host = string(cursor, flexible)?;
    let rebalance = if version >= 1 { Some(cursor.int32()?) } else { None };
    let session_timeout_ms = cursor.int32()?;
    let bytes = |cursor: &mut Cursor<'_>| {
        let bytes = if flexible { cursor.compact_bytes() } else { cursor.bytes() };
        bytes.map(Bytes::copy_from_slice)
    };
    let subscription = bytes(cursor)?;
    let assignment = bytes(cursor)?;
    if flexible {
        cursor.tagged(|_, _| {})?;
    }
    let rebalance_timeout_ms = rebalance.unwrap_or(session_timeout_ms);
    Ok(SnapshotMember { id, instance, client_id, client_host, rebalance_timeout_ms, session_timeout_ms, subscription, assignment })
}

fn string(cursor: &mut Cursor<'_>, flexible: bool) -> Result<String, Unreadable> {
    if flexible { cursor.compact_string() } else { cursor.string() }
}

fn nullable(cursor: &mut Cursor<'_>, flexible: bool) -> Result<Option<String>, Unreadable> {
    if flexible { cursor.nullable_compact_string() } else { cursor.nullable_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> Snapshot {
        Snapshot {
            protocol_type: "consumer".into(),
            generation: 5,
            protocol: Some("range".into()),
            leader: Some("m1".into()),
            state_since_ms: 77,
            members: vec![SnapshotMember {
                id: "m1".into(),
                instance: Some("i".into()),
                client_id: "c".into(),
                client_host: "/h".into(),
                rebalance_timeout_ms: 300_000,
                session_timeout_ms: 45_000,
                subscription: Bytes::from_static(b"sub"),
                assignment: Bytes::from_static(b"as"),
            }],
        }
    }

    #[test]
    fn version_3_is_kafkas_bytes() {
        let expected = [
            &b"\0\x03\0\x08consumer\0\0\0\x05\0\x05range\0\x02m1\0\0\0\0\0\0\0\x4d\0\0\0\x01"[..],
            b"\0\x02m1\0\x01i\0\x01c\0\x02/h\0\x04\x93\xe0\0\0\xaf\xc8\0\0\0\x03sub\0\0\0\x02as",
        ];
        assert_eq!(encode_group(&snapshot()), expected.concat());
        assert_eq!(decode_group(&expected.concat()), Ok(snapshot()));
    }

    #[test]
    fn the_oldest_version_is_read() {
        let bytes =
            b"\0\0\0\x08consumer\0\0\0\x05\0\x05range\0\x02m1\0\0\0\x01\0\x02m1\0\x01c\0\x02/h\0\0\xaf\xc8\0\0\0\x03sub\0\0\0\x02as";
        let read = decode_group(bytes).unwrap();
        assert_eq!((read.state_since_ms, read.members[0].rebalance_timeout_ms), (-1, 45_000));
        assert_eq!(read.members[0].assignment.as_ref(), b"as");
    }

    #[test]
    fn an_empty_group_has_no_protocol_and_no_leader() {
        let empty = Snapshot { protocol: None, leader: None, members: Vec::new(), ..snapshot() };
        assert_eq!(decode_group(&encode_group(&empty)), Ok(empty));
    }

    #[test]
    fn every_cut_is_noticed() {
        let whole = encode_group(&snapshot());
        for cut in 0..whole.len() {
            assert!(decode_group(&whole[..cut]).is_err(), "cut at {cut}");
        }
    }
}
