//! What a request is answered with, as the connection's sender takes it.

use super::produce_one::OneAppend;
use crate::walk::Malformed;
use bytes::Bytes;
use engine::disk::{BufferedFile, Slice};
use futures_util::future::LocalBoxFuture;
use kafka_protocol::{ResponseError, messages::ApiKey};

/// One run of bytes of an answer.
#[derive(Debug)]
pub enum Part {
    /// Bytes of the answer itself.
    Bytes(Bytes),
    /// From a partition's tail.
    Memory(Slice),
    /// From a segment, by sendfile.
    File {
        /// The segment's buffered descriptor.
        reader: BufferedFile,
        /// Where the run begins, in bytes.
        position: u64,
        /// Its length in bytes.
        len: usize,
    },
}

impl Part {
    /// Its bytes if it is memory; empty for a range of a file.
    #[must_use]
    pub fn memory(&self) -> &[u8] {
        match self {
            Part::Bytes(bytes) => bytes,
            Part::Memory(slice) => slice,
            Part::File { .. } => &[],
        }
    }

    /// Its length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Part::File { len, .. } => *len,
            memory => memory.memory().len(),
        }
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// An answer.
pub enum Reply {
    /// All of it, its length first.
    Whole(Bytes),
    /// In parts, its length in the first one.
    Parts(Vec<Part>),
    /// What was asked has begun; the answer follows. The next request of the connection may begin meanwhile.
    Later(LocalBoxFuture<'static, Result<Reply, Refused>>),
    /// A small batch is appended: the same, without memory of its own.
    One(OneAppend),
    /// `acks=0`: no answer.
    Silent,
}

impl Reply {
    /// Its length in bytes as far as it is known.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Reply::Whole(bytes) => bytes.len(),
            Reply::Parts(parts) => parts.iter().map(Part::len).sum(),
            Reply::Later(_) | Reply::One(_) | Reply::Silent => 0,
        }
    }

    /// Bytes of tails that it holds.
    #[must_use]
    pub fn memory(&self) -> usize {
        match self {
            Reply::Parts(parts) => parts.iter().filter(|part| matches!(part, Part::Memory(_))).map(Part::len).sum(),
            _ => 0,
        }
    }

    /// Whether a part of it comes from a segment's file.
    #[must_use]
    pub fn reads_a_file(&self) -> bool {
        matches!(self, Reply::Parts(parts) if parts.iter().any(|part| matches!(part, Part::File { .. })))
    }

    /// Whether nothing of it is known or there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A request that isn't answered: its connection is closed.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The bytes are not a request.
    #[error("malformed request: {0}")]
    Malformed(String),
    /// No such API, or not in this version.
    #[error("API {key} version {version} is not served")]
    Unsupported {
        /// The API's key.
        key: i16,
        /// The version.
        version: i16,
    },
    /// A count or a length is wrong.
    #[error("malformed {api:?} v{version}: {why}")]
    Walk {
        /// The API.
        api: ApiKey,
        /// The version.
        version: i16,
        /// What is wrong.
        why: Malformed,
    },
    /// The answer does not fit its version. A mistake of the broker.
    #[error("the answer to {api:?} v{version} can't be encoded: {why}")]
    Encode {
        /// The API.
        api: ApiKey,
        /// The version.
        version: i16,
        /// What does not fit.
        why: String,
    },
    /// The answer would be larger than any may be.
    #[error("an answer to {api} of {bytes} bytes is beyond the {} that one may have: ask for less at once", super::ANSWER_BYTES_MAX)]
    TooLarge {
        /// The API.
        api: String,
        /// What it would have.
        bytes: usize,
    },
    /// A produce with `acks=0` failed: closing the connection is the only way to say so, as in Kafka.
    #[error("a produce with acks=0 failed: {0:?}")]
    UnackedFailed(ResponseError),
    /// The broker is stopping.
    #[error("the broker is stopping")]
    Stopping,
}

impl Refused {
    /// [`Refused::TooLarge`] of one of Kafka's APIs.
    pub(super) fn too_large(api: ApiKey, bytes: usize) -> Refused {
        Refused::TooLarge { api: format!("{api:?}"), bytes }
    }
}
