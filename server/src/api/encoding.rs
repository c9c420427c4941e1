//! What answers that are written by hand have in common: lengths and strings, which are varints and compact from a version on.

use bytes::{BufMut, BytesMut};

/// An unsigned varint.
pub(super) fn varint(out: &mut BytesMut, mut value: u32) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// The length of an array, or of bytes.
pub(super) fn count(out: &mut BytesMut, flexible: bool, count: usize) {
    if flexible { varint(out, count as u32 + 1) } else { out.put_i32(count as i32) }
}

/// A string, its length first.
pub(super) fn string(out: &mut BytesMut, flexible: bool, text: &str) {
    if flexible {
        varint(out, text.len() as u32 + 1)
    } else {
        out.put_i16(text.len() as i16)
    }
    out.put_slice(text.as_bytes());
}
