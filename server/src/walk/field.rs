//! What a request is made of.

use kafka_protocol::messages::ApiKey;

/// `flexible` of a request that has no flexible version.
pub const NEVER: i16 = i16::MAX;

/// A request.
pub struct Message {
    /// Its API.
    pub key: ApiKey,
    /// From this version on lengths are varints and every structure ends in tagged fields (KIP-482).
    pub flexible: i16,
    /// Its fields, in order.
    pub fields: &'static [Field],
}

/// A field of a request or of a structure in it.
pub struct Field {
    /// Kafka's name for it, in this code's spelling.
    pub name: &'static str,
    /// The first version that has it.
    pub since: i16,
    /// The last version that has it.
    pub until: i16,
    /// Its number if it is a tagged field.
    pub tag: Option<u32>,
    /// What it is.
    pub kind: Kind,
}

/// What a field is on the wire.
pub enum Kind {
    /// So many bytes.
    Fixed(usize),
    /// A length and UTF-8 bytes.
    String,
    /// A length and bytes.
    Bytes,
    /// A count and structures.
    Array(&'static [Field]),
    /// A count and strings.
    Strings,
    /// A count and numbers of so many bytes each.
    Fixeds(usize),
    /// A structure.
    Structure(&'static [Field]),
}

impl Field {
    const fn new(name: &'static str, kind: Kind) -> Field {
        Field { name, since: 0, until: i16::MAX, tag: None, kind }
    }

    /// It came with this version.
    #[must_use]
    pub const fn since(self, version: i16) -> Field {
        Field { since: version, ..self }
    }

    /// It went after this version.
    #[must_use]
    pub const fn until(self, version: i16) -> Field {
        Field { until: version, ..self }
    }

    /// It is a tagged field.
    #[must_use]
    pub const fn tag(self, tag: u32) -> Field {
        Field { tag: Some(tag), ..self }
    }

    /// Whether a version has it.
    #[must_use]
    pub const fn is_in(&self, version: i16) -> bool {
        self.since <= version && version <= self.until
    }
}

/// A number, a boolean or a UUID.
pub const fn fixed(name: &'static str, bytes: usize) -> Field {
    Field::new(name, Kind::Fixed(bytes))
}
/// A string.
pub const fn string(name: &'static str) -> Field {
    Field::new(name, Kind::String)
}
/// Bytes or records.
pub const fn bytes(name: &'static str) -> Field {
    Field::new(name, Kind::Bytes)
}
/// An array of strings.
pub const fn strings(name: &'static str) -> Field {
    Field::new(name, Kind::Strings)
}
/// An array of numbers.
pub const fn fixeds(name: &'static str, bytes: usize) -> Field {
    Field::new(name, Kind::Fixeds(bytes))
}
/// An array of structures.
pub const fn array(name: &'static str, fields: &'static [Field]) -> Field {
    Field::new(name, Kind::Array(fields))
}
/// A structure.
pub const fn structure(name: &'static str, fields: &'static [Field]) -> Field {
    Field::new(name, Kind::Structure(fields))
}
