//! The records within a batch, read in place.

use super::{
    codec::{Codec, decompress},
    header::{HEADER_BYTES, Header},
    varint::Cursor,
};
use std::{borrow::Cow, io};

/// One record. Its slices point into the batch, or into what the batch was decompressed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Counts from the batch's base offset.
    pub offset_delta: i32,
    /// Counts from the batch's base timestamp, in ms.
    pub timestamp_delta: i64,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value; none is a tombstone on compacted topics.
    pub value: Option<&'a [u8]>,
    /// The headers.
    pub headers: Headers<'a>,
    /// The whole record in bytes, its length field included.
    pub size: usize,
}

impl Record<'_> {
    /// Its timestamp in ms: the batch's with LogAppendTime, else its own.
    #[must_use]
    pub fn timestamp(&self, header: &Header) -> i64 {
        if header.is_log_append_time() { header.max_timestamp() } else { header.base_timestamp().wrapping_add(self.timestamp_delta) }
    }

    /// Its offset.
    #[must_use]
    pub fn offset(&self, header: &Header) -> i64 {
        header.base_offset().saturating_add(i64::from(self.offset_delta))
    }
}

/// A record's headers, checked already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers<'a> {
    count: usize,
    bytes: &'a [u8],
}

impl<'a> Headers<'a> {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// True without any.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Keys and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + use<'a> {
        let mut cursor = Cursor(self.bytes);
        (0..self.count).map_while(move |_| Some((cursor.nullable()??, cursor.nullable()?)))
    }
}

/// Records that are not what their batch says.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A record is cut short, or its parts do not add up to its length.
    #[error("record {index} is malformed")]
    Malformed {
        /// Which, counted from 0.
        index: i32,
    },
    /// Bytes are left behind the last record.
    #[error("{bytes} bytes are left behind the last record")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// The compression's number is unknown.
    #[error("compression type {0} is unknown")]
    UnknownCodec(i16),
    /// It can't be decompressed.
    #[error("{codec} can't be decompressed: {what}")]
    Compression {
        /// Which codec.
        codec: &'static str,
        /// What it says.
        what: String,
    },
    /// It decompresses to more than the caller's bound, which says nothing against it.
    #[error("{codec} can't be decompressed: {what}")]
    TooLarge {
        /// Which codec.
        codec: &'static str,
        /// What the bound is.
        what: String,
    },
}

/// The uncompressed records of `batch` (one whole batch): its own bytes, or what they decompress to within `bytes_max`.
///
/// # Errors
/// [`RecordError::UnknownCodec`], [`RecordError::Compression`] and [`RecordError::TooLarge`].
pub fn payload<'a>(header: &Header, batch: &'a [u8], bytes_max: usize) -> Result<Cow<'a, [u8]>, RecordError> {
    let packed = batch.get(HEADER_BYTES..).unwrap_or_default();
    match header.codec().map_err(RecordError::UnknownCodec)? {
        Codec::None => Ok(Cow::Borrowed(packed)),
        // Brokers and clients leave the records of an emptied batch uncompressed, that is: without a byte.
        _ if packed.is_empty() => Ok(Cow::Borrowed(packed)),
        codec => decompress(codec, packed, bytes_max).map(Cow::Owned).map_err(|error| {
            let (codec, what) = (codec.name(), error.to_string());
            match error.kind() {
                io::ErrorKind::FileTooLarge => RecordError::TooLarge { codec, what },
                _ => RecordError::Compression { codec, what },
            }
        }),
    }
}

/// Walks the records of a batch. After the last one it checks that no byte is left; after an error it ends.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    cursor: Cursor<'a>,
    index: i32,
    count: i32,
    failed: bool,
}

impl<'a> Records<'a> {
    /// The records in `payload`, as many as `header` says.
    #[must_use]
    pub fn new(header: &Header, payload: &'a [u8]) -> Records<'a> {
        Records { cursor: Cursor(payload), index: 0, count: header.record_count().max(0), failed: false }
    }

    /// So many records of a batch: `payload` holds these alone.
    #[must_use]
    pub(crate) fn of_part(count: usize, payload: &'a [u8]) -> Records<'a> {
        Records { cursor: Cursor(payload), index: 0, count: i32::try_from(count).unwrap_or(i32::MAX), failed: false }
    }

    fn record(&mut self) -> Option<Record<'a>> {
        let before = self.cursor.0.len();
        let length = self.cursor.varint()?;
        let mut body = Cursor(self.cursor.take(usize::try_from(length).ok()?)?);
        body.byte()?;
        let timestamp_delta = body.varlong()?;
        let offset_delta = body.varint()?;
        let key = body.nullable()?;
        let value = body.nullable()?;
        let count = usize::try_from(body.varint()?).ok()?;
        let bytes = body.0;
        for _ in 0..count {
            body.nullable()??;
            body.nullable()?;
        }
        let size = before - self.cursor.0.len();
        body.0.is_empty().then_some(Record { offset_delta, timestamp_delta, key, value, headers: Headers { count, bytes }, size })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        if self.index == self.count {
            let bytes = self.cursor.0.len();
            self.failed = true;
            return (bytes > 0).then_some(Err(RecordError::Trailing { bytes }));
        }
        let index = self.index;
        self.index += 1;
        let record = self.record();
        self.failed = record.is_none();
        Some(record.ok_or(RecordError::Malformed { index }))
    }
}

/// What a control record says (Kafka: `ControlRecordType`, `EndTransactionMarker`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlRecord {
    /// The producer's transaction was aborted.
    Abort {
        /// The epoch of the coordinator that wrote it.
        coordinator_epoch: i32,
    },
    /// The producer's transaction was committed.
    Commit {
        /// The epoch of the coordinator that wrote it.
        coordinator_epoch: i32,
    },
    /// Another type: it ends no transaction.
    Other(i16),
}

impl ControlRecord {
    /// Reads a control record; `None` if its key is no control key.
    #[must_use]
    pub fn of(record: &Record<'_>) -> Option<ControlRecord> {
        let key = record.key?;
        let kind = i16::from_be_bytes(key.get(2..4)?.try_into().ok()?);
        let epoch = || Some(i32::from_be_bytes(record.value?.get(2..6)?.try_into().ok()?));
        Some(match kind {
            0 => ControlRecord::Abort { coordinator_epoch: epoch()? },
            1 => ControlRecord::Commit { coordinator_epoch: epoch()? },
            other => ControlRecord::Other(other),
        })
    }

    /// The control record of `batch`, if it is a control batch.
    #[must_use]
    pub fn of_batch(header: &Header, batch: &[u8]) -> Option<ControlRecord> {
        if !header.is_control() {
            return None;
        }
        let payload = payload(header, batch, 4096).ok()?;
        let record = Records::new(header, &payload).next()?.ok()?;
        ControlRecord::of(&record)
    }
}
