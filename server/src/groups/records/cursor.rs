//! Kafka's primitive types, read within their bounds.

use super::Unreadable;
use crate::walk::STRING_BYTES_MAX;

/// What is left to read.
pub(crate) struct Cursor<'a>(pub &'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Unreadable> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(Unreadable::Malformed)?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Unreadable> {
        self.take(N)?.try_into().map_err(|_| Unreadable::Malformed)
    }

    pub fn int16(&mut self) -> Result<i16, Unreadable> {
        self.array().map(i16::from_be_bytes)
    }

    pub fn int32(&mut self) -> Result<i32, Unreadable> {
        self.array().map(i32::from_be_bytes)
    }

    pub fn int64(&mut self) -> Result<i64, Unreadable> {
        self.array().map(i64::from_be_bytes)
    }

    pub fn uuid(&mut self) -> Result<uuid::Uuid, Unreadable> {
        self.array().map(uuid::Uuid::from_bytes)
    }

    pub fn varint(&mut self) -> Result<u32, Unreadable> {
        let mut value = 0u32;
        for shift in (0..35).step_by(7) {
            let [byte] = self.array()?;
            value |= u32::from(byte & 0x7f).checked_shl(shift).ok_or(Unreadable::Malformed)?;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Unreadable::Malformed)
    }

    /// Kafka's readers have the same bound; a longer text couldn't be written again as it is.
    fn text(&mut self, len: usize) -> Result<String, Unreadable> {
        if len > STRING_BYTES_MAX {
            return Err(Unreadable::Malformed);
        }
        String::from_utf8(self.take(len)?.to_vec()).map_err(|_| Unreadable::Malformed)
    }

    pub fn string(&mut self) -> Result<String, Unreadable> {
        self.nullable_string()?.ok_or(Unreadable::Malformed)
    }

    pub fn nullable_string(&mut self) -> Result<Option<String>, Unreadable> {
        match usize::try_from(self.int16()?) {
            Ok(len) => self.text(len).map(Some),
            Err(_) => Ok(None),
        }
    }

    pub fn compact_string(&mut self) -> Result<String, Unreadable> {
        self.nullable_compact_string()?.ok_or(Unreadable::Malformed)
    }

    pub fn nullable_compact_string(&mut self) -> Result<Option<String>, Unreadable> {
        match self.varint()?.checked_sub(1) {
            Some(len) => self.text(len as usize).map(Some),
            None => Ok(None),
        }
    }

    pub fn bytes(&mut self) -> Result<&'a [u8], Unreadable> {
        let len = usize::try_from(self.int32()?).map_err(|_| Unreadable::Malformed)?;
        self.take(len)
    }

    pub fn compact_bytes(&mut self) -> Result<&'a [u8], Unreadable> {
        let len = self.varint()?.checked_sub(1).ok_or(Unreadable::Malformed)?;
        self.take(len as usize)
    }

    /// The tagged fields at the end of a flexible structure, each given to `read` by its tag.
    pub fn tagged(&mut self, mut read: impl FnMut(u32, &'a [u8])) -> Result<(), Unreadable> {
        for _ in 0..self.varint()? {
            let tag = self.varint()?;
            let len = self.varint()?;
            read(tag, self.take(len as usize)?);
        }
        Ok(())
    }
}

/// As much of a text as has at most so many bytes.
#[must_use]
pub fn cut(text: &str, bytes_max: usize) -> &str {
    let end = (0..=text.len().min(bytes_max)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    &text[..end]
}

/// Strings of requests have at most [`STRING_BYTES_MAX`] bytes, and only such come here: a longer one would be cut, and
/// be another name from then on.
pub(super) fn put_string(out: &mut Vec<u8>, text: &str) {
    debug_assert!(text.len() <= STRING_BYTES_MAX, "a string of {} bytes", text.len());
    let text = cut(text, i16::MAX as usize);
    out.extend_from_slice(&(text.len() as i16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

pub(super) fn put_nullable_string(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => put_string(out, text),
        None => out.extend_from_slice(&(-1i16).to_be_bytes()),
    }
}

pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn put_compact_string(out: &mut Vec<u8>, text: &str) {
    put_varint(out, text.len() as u32 + 1);
    out.extend_from_slice(text.as_bytes());
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
    out.extend_from_slice(bytes);
}
