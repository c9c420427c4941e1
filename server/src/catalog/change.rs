//! What one record of the catalog holds. A record has no key; its value is
//!
//! ```text
//! type u8 | version u8 | body
//! ```
//!
//! with big-endian numbers, `string` = length u16 + UTF-8 bytes, `uuid` = 16 bytes, `configs` = count u16 + (name string,
//! value length u32 + bytes) each, `placed` = partition id u32 + owner core u16 + pinned core u16 (0xffff: not pinned):
//!
//! ```text
//!  1 Cluster              id uuid
//!  2 TopicCreated         name string | id uuid | internal u8 | configs | count u32 | placed each
//!  3 PartitionsAdded      topic id uuid | first index u32 | count u32 | placed each
//!  4 PartitionsTakenBack  topic id uuid | partitions that stay u32
//!  5 TopicDeleted         topic id uuid                      (the leader epoch counter rises by one)
//!  6 DeletionFinished     topic id uuid
//!  7 TopicConfigs         topic id uuid | configs            (all of the topic's, not the difference)
//!  8 BrokerConfigs        configs                            (all)
//!  9 ProducerIds          next i64
//! 10 Placed               topic id uuid | count u32 | owner core u16 each
//! 11 Cores                count u16                          (the owners above were decided for so many cores)
//! 12 Epoch                leader epoch i32
//! 13 NextPartition        partition id u32
//! ```
//!
//! All bodies have version 0. A type or a version that this build does not know is refused: a newer build wrote it.

use super::Configs;
use engine::partition::PartitionId;
use uuid::Uuid;

/// The newest version of a body that this build reads and writes.
pub const BODY_VERSION: u8 = 0;

const NOT_PINNED: u16 = u16::MAX;

/// A partition with its owner and the core it is pinned to.
pub type Placed = (PartitionId, u16, Option<u16>);

/// One change of the catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The cluster has this id, from its first start on.
    Cluster {
        /// The id.
        id: Uuid,
    },
    /// A topic exists.
    TopicCreated {
        /// Its name.
        name: String,
        /// Its id.
        id: Uuid,
        /// The broker's own.
        internal: bool,
        /// Its configs.
        configs: Configs,
        /// Its partitions, by index.
        partitions: Vec<Placed>,
    },
    /// A topic has more partitions.
    PartitionsAdded {
        /// The topic.
        id: Uuid,
        /// The index of the first new one.
        first: u32,
        /// The new ones, by index.
        partitions: Vec<Placed>,
    },
    /// Partitions that were added could not be made: the topic has its former count again.
    PartitionsTakenBack {
        /// The topic.
        id: Uuid,
        /// How many partitions stay.
        count: u32,
    },
    /// A topic is deleted; cores may still have its files.
    TopicDeleted {
        /// The topic.
        id: Uuid,
    },
    /// No core has anything of a deleted topic any more: its name is free.
    DeletionFinished {
        /// The topic.
        id: Uuid,
    },
    /// A topic's configs are these.
    TopicConfigs {
        /// The topic.
        id: Uuid,
        /// All that are set.
        configs: Configs,
    },
    /// The configs of all nodes are these.
    BrokerConfigs {
        /// All that are set.
        configs: Configs,
    },
    /// Producer ids below this one may have been given out.
    ProducerIds {
        /// The first one that was not.
        next: i64,
    },
    /// The partitions of a topic have these owners.
    Placed {
        /// The topic.
        id: Uuid,
        /// Their cores, by index.
        cores: Vec<u16>,
    },
    /// The owners were decided for so many cores.
    Cores {
        /// How many.
        count: u16,
    },
    /// The leader epoch counter.
    Epoch {
        /// Its value.
        epoch: i32,
    },
    /// The number of the next partition.
    NextPartition {
        /// The number.
        id: u32,
    },
}

/// A record could not be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ChangeError {
    /// A newer build wrote it.
    #[error("record type {kind} version {version} is not known to this build")]
    Newer {
        /// Its type.
        kind: u8,
        /// Its version.
        version: u8,
    },
    /// It is damaged.
    #[error("a record of type {kind} ends early or holds something else")]
    Malformed {
        /// Its type.
        kind: u8,
    },
}

impl Change {
    /// The record's value.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.kind(), BODY_VERSION];
        match self {
            Change::Cluster { id } | Change::TopicDeleted { id } | Change::DeletionFinished { id } => out.extend(id.as_bytes()),
            Change::TopicCreated { name, id, internal, configs, partitions } => {
                put_string(&mut out, name);
                out.extend(id.as_bytes());
                out.push(u8::from(*internal));
                put_configs(&mut out, configs);
                put_placed(&mut out, partitions);
            }
            Change::PartitionsAdded { id, first, partitions } => {
                out.extend(id.as_bytes());
                out.extend(first.to_be_bytes());
                put_placed(&mut out, partitions);
            }
            Change::PartitionsTakenBack { id, count } => {
                out.extend(id.as_bytes());
                out.extend(count.to_be_bytes());
            }
            Change::TopicConfigs { id, configs } => {
                out.extend(id.as_bytes());
                put_configs(&mut out, configs);
            }
            Change::BrokerConfigs { configs } => put_configs(&mut out, configs),
            Change::ProducerIds { next } => out.extend(next.to_be_bytes()),
            Change::Placed { id, cores } => {
                out.extend(id.as_bytes());
                out.extend((cores.len() as u32).to_be_bytes());
                cores.iter().for_each(|core| out.extend(core.to_be_bytes()));
            }
            Change::Cores { count } => out.extend(count.to_be_bytes()),
            Change::Epoch { epoch } => out.extend(epoch.to_be_bytes()),
            Change::NextPartition { id } => out.extend(id.to_be_bytes()),
        }
        out
    }

    /// Reads a record's value.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub fn decode(value: &[u8]) -> Result<Change, ChangeError> {
        let (&kind, &version) = value.first().zip(value.get(1)).ok_or(ChangeError::Malformed { kind: 0 })?;
        if !(1..=13).contains(&kind) || version > BODY_VERSION {
            return Err(ChangeError::Newer { kind, version });
        }
        let mut body = Body(&value[2..]);
        body.change(kind).filter(|_| body.0.is_empty()).ok_or(ChangeError::Malformed { kind })
    }

    fn kind(&self) -> u8 {
        match self {
            Change::Cluster { .. } => 1,
            Change::TopicCreated { .. } => 2,
            Change::PartitionsAdded { .. } => 3,
            Change::PartitionsTakenBack { .. } => 4,
            Change::TopicDeleted { .. } => 5,
            Change::DeletionFinished { .. } => 6,
            Change::TopicConfigs { .. } => 7,
            Change::BrokerConfigs { .. } => 8,
            Change::ProducerIds { .. } => 9,
            Change::Placed { .. } => 10,
            Change::Cores { .. } => 11,
            Change::Epoch { .. } => 12,
            Change::NextPartition { .. } => 13,
        }
    }
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len()).expect("names are bounded when they are accepted");
    out.extend(length.to_be_bytes());
    out.extend(text.as_bytes());
}

fn put_configs(out: &mut Vec<u8>, configs: &Configs) {
    let count = u16::try_from(configs.len()).expect("only known settings are accepted");
    out.extend(count.to_be_bytes());
    for (name, value) in configs {
        put_string(out, name);
        out.extend((value.len() as u32).to_be_bytes());
        out.extend(value.as_bytes());
    }
}

fn put_placed(out: &mut Vec<u8>, partitions: &[Placed]) {
    out.extend((partitions.len() as u32).to_be_bytes());
    for (id, core, pin) in partitions {
        out.extend(id.0.to_be_bytes());
        out.extend(core.to_be_bytes());
        out.extend(pin.unwrap_or(NOT_PINNED).to_be_bytes());
    }
}

/// What is left of a body. Every reader returns `None` at its end, so nothing is allocated that the bytes do not hold.
struct Body<'a>(&'a [u8]);

impl Body<'_> {
    fn change(&mut self, kind: u8) -> Option<Change> {
        Some(match kind {
            1 => Change::Cluster { id: self.uuid()? },
            2 => Change::TopicCreated {
                name: self.string()?,
                id: self.uuid()?,
                internal: self.array::<1>()?[0] != 0,
                configs: self.configs()?,
                partitions: self.placed()?,
            },
            3 => Change::PartitionsAdded { id: self.uuid()?, first: self.u32()?, partitions: self.placed()? },
            4 => Change::PartitionsTakenBack { id: self.uuid()?, count: self.u32()? },
            5 => Change::TopicDeleted { id: self.uuid()? },
            6 => Change::DeletionFinished { id: self.uuid()? },
            7 => Change::TopicConfigs { id: self.uuid()?, configs: self.configs()? },
            8 => Change::BrokerConfigs { configs: self.configs()? },
            9 => Change::ProducerIds { next: i64::from_be_bytes(self.array()?) },
            10 => {
                let id = self.uuid()?;
                let count = self.u32()?;
                Change::Placed { id, cores: (0..count).map(|_| self.u16()).collect::<Option<_>>()? }
            }
            11 => Change::Cores { count: self.u16()? },
            12 => Change::Epoch { epoch: i32::from_be_bytes(self.array()?) },
            13 => Change::NextPartition { id: self.u32()? },
            _ => return None,
        })
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn uuid(&mut self) -> Option<Uuid> {
        self.array().map(Uuid::from_bytes)
    }

    fn text(&mut self, length: usize) -> Option<String> {
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        String::from_utf8(head.to_vec()).ok()
    }

    fn string(&mut self) -> Option<String> {
        let length = self.u16()?;
        self.text(usize::from(length))
    }

    fn configs(&mut self) -> Option<Configs> {
        let count = self.u16()?;
        (0..count)
            .map(|_| {
                let name = self.string()?;
                let length = self.u32()?;
                Some((name, self.text(length as usize)?))
            })
            .collect()
    }

    fn placed(&mut self) -> Option<Vec<Placed>> {
        let count = self.u32()?;
        (0..count)
            .map(|_| {
                let (id, core, pin) = (PartitionId(self.u32()?), self.u16()?, self.u16()?);
                Some((id, core, (pin != NOT_PINNED).then_some(pin)))
            })
            .collect()
    }
}
