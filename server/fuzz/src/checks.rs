//! What must hold of any request: the fuzz target asks it of new ones, `server/tests/fuzz_corpora.rs` of those in `corpus`.

use bytes::Bytes;
use server::api;
use std::net::{Ipv4Addr, SocketAddr};

/// A request, its length cut off: the walk and the decoder take the same bytes of its body, or it is refused. (That a hostile
/// count makes nobody allocate is the memory limit's to notice.)
pub fn request(data: &[u8]) {
    let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 9092));
    if let Ok(Some((walked, decoded))) = api::parse(Bytes::copy_from_slice(data), peer) {
        assert_eq!(walked, decoded, "the walk and the decoder disagree");
    }
}
