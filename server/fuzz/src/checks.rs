//! What must hold of any bytes: the fuzz targets ask it of new ones, `server/tests/fuzz_corpora.rs` of those in `corpus`.

#![allow(dead_code)]

use bytes::Bytes;
use server::{
    api::{
        self,
        keep::{State, take_string},
    },
    catalog::Change,
    groups::records::{Committed, Key, decode_group, decode_offset, encode_group, encode_offset},
};
use std::net::{Ipv4Addr, SocketAddr};

/// A request, its length cut off: the walk and the decoder take the same bytes of its body, or it is refused. (That a hostile
/// count makes nobody allocate is the memory limit's to notice.)
pub fn request(data: &[u8]) {
    let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 9092));
    if let Ok(Some((walked, decoded))) = api::parse(Bytes::copy_from_slice(data), peer) {
        assert_eq!(walked, decoded, "the walk and the decoder disagree");
    }
}

/// Records of `__consumer_offsets`: what is read is written and read again as the same. The first byte chooses what it is.
pub fn records(data: &[u8]) {
    let Some((&way, data)) = data.split_first() else { return };
    match way % 3 {
        0 => {
            if let Ok(key) = Key::decode(data) {
                assert_eq!(Key::decode(&key.encode()), Ok(key));
            }
        }
        1 => {
            if let Ok(committed) = decode_offset(data) {
                // The version that is written has no field for it.
                let written = Committed { expire_ms: None, ..committed };
                assert_eq!(decode_offset(&encode_offset(&written)), Ok(written));
            }
        }
        _ => {
            if let Ok(group) = decode_group(data) {
                assert_eq!(decode_group(&encode_group(&group)), Ok(group));
            }
        }
    }
}

/// A record of the catalog: what is read is written and read again as the same.
pub fn change(data: &[u8]) {
    if let Ok(change) = Change::decode(data) {
        assert_eq!(Change::decode(&change.encode()), Ok(change));
    }
}

/// The partitions of an answer to `compact --broker`, one after the other: a state has the size that it says, and is taken
/// as it was put.
pub fn keep(mut data: &[u8]) {
    while let Some(state) = row(&mut data) {
        let mut bytes = Vec::new();
        state.put(&mut bytes);
        assert_eq!(bytes.len(), state.size());
        let mut rest = &bytes[..];
        let again = State::take(&mut rest).expect("it was put whole");
        assert!(rest.is_empty());
        // What is no text becomes longer as one, and may be cut when it is put.
        assert_eq!(again.last_failure.is_some(), state.last_failure.is_some());
        let (before, after) = (state.last_failure.as_deref().unwrap_or(""), again.last_failure.as_deref().unwrap_or(""));
        assert!(before.starts_with(after));
        assert_eq!(State { last_failure: None, ..again }, State { last_failure: None, ..state });
    }
}

/// A topic's name, the partition's index, an error and the state.
fn row(data: &mut &[u8]) -> Option<State> {
    take_string(data)?;
    let (_, rest) = data.split_first_chunk::<6>()?;
    *data = rest;
    State::take(data)
}
