//! The walk over a raw request, before anything is decoded: every count and every length is checked against the bytes that
//! are left and against its bound. The decoder behind it trusts them: 52 bytes with a count of 2^31-1 make it ask for
//! 206 GB, and nothing catches that.

#![deny(clippy::disallowed_types)]

mod field;
mod schema;
#[cfg(test)]
mod tests;

pub use field::{Field, Kind, Message, NEVER, array, fixed, fixeds, string};
pub use schema::REQUESTS;

/// Elements of all arrays of a request together. (Kafka 4.4 has the same bound for each array.)
pub const ELEMENTS_MAX: usize = 1_000_000;
/// Bytes of a string, in versions with long lengths too (Kafka's readers have the same bound): what is kept of a request
/// is written with lengths of 16 bits.
pub const STRING_BYTES_MAX: usize = 0x7fff;
/// Tagged fields of one structure, as in Kafka 4.4.
pub const TAGGED_FIELDS_MAX: usize = 10_000;

/// Why a request is not decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It ends within a field.
    #[error("{field} ends behind the request's end")]
    Short {
        /// Which field.
        field: &'static str,
    },
    /// A length or a count below -1, a varint of more than 32 bits, or a string of more than [`STRING_BYTES_MAX`].
    #[error("{field} has a length that it can't have")]
    Length {
        /// Which field.
        field: &'static str,
    },
    /// Too many elements.
    #[error("{field} has more elements than the {ELEMENTS_MAX} that a request may have")]
    Elements {
        /// Which field.
        field: &'static str,
    },
    /// Too many tagged fields.
    #[error("more than {TAGGED_FIELDS_MAX} tagged fields in a structure")]
    Tags,
    /// A tagged field is not as long as its size says.
    #[error("the tagged field {field} is not as long as it says")]
    TagSize {
        /// Which field.
        field: &'static str,
    },
    /// No such request.
    #[error("no request has key {0}")]
    Key(i16),
}

/// The schema of a request.
#[must_use]
pub fn schema(key: i16) -> Option<&'static Message> {
    REQUESTS.iter().find(|message| message.key as i16 == key)
}

/// Checks a request's body. Returns how many bytes it has; what is behind them is tolerated (librdkafka 2.12 sends
/// three stray bytes behind Metadata v13).
///
/// # Errors
/// [`Malformed`].
pub fn body(key: i16, version: i16, bytes: &[u8]) -> Result<usize, Malformed> {
    let message = schema(key).ok_or(Malformed::Key(key))?;
    let mut walk = Walk { rest: bytes, version, flexible: version >= message.flexible, elements_left: ELEMENTS_MAX };
    walk.structure(message.fields)?;
    Ok(bytes.len() - walk.rest.len())
}

/// Checks a body of these fields, none of which is flexible. Returns how many bytes it has.
///
/// # Errors
/// [`Malformed`].
pub fn fields(fields: &'static [Field], bytes: &[u8]) -> Result<usize, Malformed> {
    let mut walk = Walk { rest: bytes, version: 0, flexible: false, elements_left: ELEMENTS_MAX };
    walk.structure(fields)?;
    Ok(bytes.len() - walk.rest.len())
}

/// Checks the tagged fields of a request's header. Returns their length in bytes.
///
/// # Errors
/// [`Malformed`].
pub fn header_tags(bytes: &[u8]) -> Result<usize, Malformed> {
    let mut walk = Walk { rest: bytes, version: 0, flexible: true, elements_left: ELEMENTS_MAX };
    walk.tagged(&[])?;
    Ok(bytes.len() - walk.rest.len())
}

struct Walk<'a> {
    rest: &'a [u8],
    version: i16,
    flexible: bool,
    elements_left: usize,
}

impl<'a> Walk<'a> {
    fn structure(&mut self, fields: &'static [Field]) -> Result<(), Malformed> {
        for field in fields {
            if field.tag.is_none() && field.is_in(self.version) {
                self.field(field)?;
            }
        }
        if self.flexible {
            self.tagged(fields)?;
        }
        Ok(())
    }

    fn field(&mut self, field: &'static Field) -> Result<(), Malformed> {
        let name = field.name;
        match &field.kind {
            Kind::Fixed(bytes) => self.take(name, *bytes).map(drop),
            Kind::String => self.string(name),
            Kind::Bytes => {
                let length = if self.flexible { self.compact(name)? } else { self.int32(name)? };
                self.take(name, length.unwrap_or(0)).map(drop)
            }
            Kind::Array(fields) => (0..self.count(name)?).try_for_each(|_| self.structure(fields)),
            Kind::Strings => (0..self.count(name)?).try_for_each(|_| self.string(name)),
            Kind::Fixeds(bytes) => {
                let count = self.count(name)?;
                self.take(name, count * bytes).map(drop)
            }
            Kind::Structure(fields) => self.structure(fields),
        }
    }

    fn string(&mut self, name: &'static str) -> Result<(), Malformed> {
        let length = if self.flexible {
            self.compact(name)?
        } else {
            let bytes = self.take(name, 2)?;
            nullable(name, i32::from(i16::from_be_bytes([bytes[0], bytes[1]])))?
        }
        .unwrap_or(0);
        if length > STRING_BYTES_MAX {
            return Err(Malformed::Length { field: name });
        }
        self.take(name, length).map(drop)
    }

    /// A count; null is none. An element has at least one byte, so a count can't exceed the bytes that are left.
    fn count(&mut self, name: &'static str) -> Result<usize, Malformed> {
        let count = if self.flexible { self.compact(name)? } else { self.int32(name)? }.unwrap_or(0);
        if count > self.elements_left {
            return Err(Malformed::Elements { field: name });
        }
        if count > self.rest.len() {
            return Err(Malformed::Short { field: name });
        }
        self.elements_left -= count;
        Ok(count)
    }

    /// The tagged fields at the end of a structure. The decoder reads a known one by its own lengths and ignores the size,
    /// so both must agree.
    fn tagged(&mut self, fields: &'static [Field]) -> Result<(), Malformed> {
        let count = self.varint("tagged fields")? as usize;
        if count > TAGGED_FIELDS_MAX {
            return Err(Malformed::Tags);
        }
        for _ in 0..count {
            let tag = self.varint("tag")?;
            let size = self.varint("tag size")? as usize;
            let content = self.take("tagged field", size)?;
            if let Some(field) = fields.iter().find(|field| field.tag == Some(tag) && field.is_in(self.version)) {
                let mut inner = Walk { rest: content, ..*self };
                inner.field(field)?;
                if !inner.rest.is_empty() {
                    return Err(Malformed::TagSize { field: field.name });
                }
                self.elements_left = inner.elements_left;
            }
        }
        Ok(())
    }

    fn int32(&mut self, name: &'static str) -> Result<Option<usize>, Malformed> {
        let bytes = self.take(name, 4)?;
        nullable(name, i32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// A length plus one; 0 is null.
    fn compact(&mut self, name: &'static str) -> Result<Option<usize>, Malformed> {
        Ok((self.varint(name)? as usize).checked_sub(1))
    }

    fn varint(&mut self, name: &'static str) -> Result<u32, Malformed> {
        let mut value = 0u64;
        for shift in (0..35).step_by(7) {
            let byte = self.take(name, 1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value).map_err(|_| Malformed::Length { field: name });
            }
        }
        Err(Malformed::Length { field: name })
    }

    fn take(&mut self, name: &'static str, length: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.rest.split_at_checked(length).ok_or(Malformed::Short { field: name })?;
        self.rest = rest;
        Ok(head)
    }
}

fn nullable(name: &'static str, length: i32) -> Result<Option<usize>, Malformed> {
    match length {
        -1 => Ok(None),
        _ => usize::try_from(length).map(Some).map_err(|_| Malformed::Length { field: name }),
    }
}
