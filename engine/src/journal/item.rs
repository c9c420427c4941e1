//! What frames hold, and its bytes: everything little-endian, each item behind a tag.
//!
//! The decoder takes any bytes: it checks each length against what is left and never panics or allocates by a count.

use super::LINE_BYTES;
use crate::{
    disk::Slice,
    ids::PartitionId,
    segment::{EpochStart, ProducerState, SequencedBatch},
};
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    byteorder::little_endian::{I16, I32, I64, U32},
};

/// A partition's line in a head, 32 bytes on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// Whose.
    pub partition: PartitionId,
    /// The base offset of its active segment.
    pub segment_base: i64,
    /// Up to where the segment's bytes are in the segment, flushed, without a gap.
    pub flushed: u32,
    /// Where the first batch begins that is not wholly flushed: scans must begin at a batch.
    pub batch_start: u32,
    /// Bytes of `.index` entries that are on disk.
    pub index_end: u32,
    /// The log start offset.
    pub log_start: i64,
}

/// What frames hold, in order.
#[derive(Clone, Debug)]
pub enum Item {
    /// Bytes of a segment. Empty where a bulk write ended on a block boundary: it makes a start scan the partition.
    Bytes {
        /// Whose.
        partition: PartitionId,
        /// The segment's base offset.
        segment_base: i64,
        /// Where in the segment.
        position: u32,
        /// The bytes.
        bytes: Vec<Slice>,
    },
    /// A partition's log start offset was raised.
    LogStart {
        /// Whose.
        partition: PartitionId,
        /// The offset.
        offset: i64,
    },
    /// A producer, as of the durable end (heads only).
    Producer {
        /// In which partition.
        partition: PartitionId,
        /// Its state.
        state: ProducerState,
    },
    /// A leader epoch that is not in `leader-epoch-checkpoint` yet (heads only).
    Epoch {
        /// In which partition.
        partition: PartitionId,
        /// The epoch and where it begins.
        epoch: EpochStart,
    },
    /// The bytes of a partition that follow in this head were those of frames behind an earlier one: they are carried on for a
    /// partition that is damaged (heads only).
    Frames {
        /// Whose.
        partition: PartitionId,
    },
}

impl Item {
    /// Its length in a frame, in bytes.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        match self {
            Item::Bytes { bytes, .. } => BYTES_HEADER + bytes.iter().map(|slice| slice.len()).sum::<usize>(),
            Item::LogStart { .. } => size_of::<RawLogStart>(),
            Item::Producer { state, .. } => size_of::<RawProducer>() + size_of::<RawBatch>() * kept(state).len(),
            Item::Epoch { .. } => size_of::<RawEpoch>(),
            Item::Frames { .. } => size_of::<RawFrames>(),
        }
    }
}

/// What a decoded frame holds, borrowed from it.
#[derive(Clone, Debug, PartialEq)]
pub enum Found<'a> {
    /// A line of a head.
    Line(Line),
    /// As [`Item::Bytes`].
    Bytes {
        /// Whose.
        partition: PartitionId,
        /// The segment's base offset.
        segment_base: i64,
        /// Where in the segment.
        position: u32,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// As [`Item::LogStart`].
    LogStart {
        /// Whose.
        partition: PartitionId,
        /// The offset.
        offset: i64,
    },
    /// As [`Item::Producer`].
    Producer {
        /// In which partition.
        partition: PartitionId,
        /// Its state.
        state: ProducerState,
    },
    /// As [`Item::Epoch`].
    Epoch {
        /// In which partition.
        partition: PartitionId,
        /// The epoch and where it begins.
        epoch: EpochStart,
    },
    /// As [`Item::Frames`].
    Frames {
        /// Whose.
        partition: PartitionId,
    },
}

/// A producer remembers at most this many batches (Kafka: `ProducerStateEntry.NUM_BATCHES_TO_RETAIN`).
const PRODUCER_BATCHES_MAX: usize = 5;

const TAG_BYTES: u8 = 1;
const TAG_LOG_START: u8 = 2;
const TAG_PRODUCER: u8 = 3;
const TAG_EPOCH: u8 = 4;
const TAG_LINES: u8 = 5;
const TAG_FRAMES: u8 = 6;

/// The bytes before those of an [`Item::Bytes`].
pub(super) const BYTES_HEADER: usize = size_of::<RawBytes>();
/// The bytes before a run of lines.
pub(super) const LINES_HEADER: usize = size_of::<RawLines>();

macro_rules! raw {
    ($($item:item)*) => { $(
        #[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
        #[repr(C)]
        $item
    )* };
}

raw! {
    struct RawLine { partition: U32, segment_base: I64, flushed: U32, batch_start: U32, index_end: U32, log_start: I64 }
    struct RawBytes { tag: u8, zero: [u8; 3], partition: U32, segment_base: I64, position: U32, length: U32 }
    struct RawLogStart { tag: u8, zero: [u8; 3], partition: U32, offset: I64 }
    struct RawProducer {
        tag: u8, batches: u8, epoch: I16, partition: U32, id: I64, coordinator_epoch: I32, zero: [u8; 4],
        last_timestamp: I64, transaction_first: I64,
    }
    struct RawBatch { last_sequence: I32, offset_delta: I32, last_offset: I64, timestamp: I64 }
    struct RawEpoch { tag: u8, zero: [u8; 3], partition: U32, epoch: I32, zero2: [u8; 4], start_offset: I64 }
    struct RawLines { tag: u8, zero: [u8; 3], count: U32 }
    struct RawFrames { tag: u8, zero: [u8; 3], partition: U32 }
}

const _: () = assert!(size_of::<RawLine>() == LINE_BYTES);
const _: () = assert!(BYTES_HEADER == 24 && size_of::<RawLogStart>() == 16 && size_of::<RawEpoch>() == 24);
const _: () = assert!(size_of::<RawProducer>() == 40 && size_of::<RawBatch>() == 24 && LINES_HEADER == 8);

/// A part of a frame's content. A head is laid out as these before anything is encoded, so that it is copied once.
pub(super) enum Part<'a> {
    /// A run of lines.
    Lines(&'a [Line]),
    /// A whole item.
    Item(&'a Item),
    /// A part of an [`Item::Bytes`] that was too large for a frame.
    Bytes { partition: PartitionId, segment_base: i64, position: u32, bytes: Vec<Slice> },
}

impl Part<'_> {
    /// Its length in a frame, in bytes.
    pub(super) fn encoded_len(&self) -> usize {
        match self {
            Part::Lines(lines) => LINES_HEADER + lines.len() * LINE_BYTES,
            Part::Item(item) => item.encoded_len(),
            Part::Bytes { bytes, .. } => BYTES_HEADER + bytes.iter().map(|slice| slice.len()).sum::<usize>(),
        }
    }

    /// Gives its encoded bytes to `sink`, piece by piece.
    pub(super) fn encode(&self, sink: &mut dyn FnMut(&[u8])) {
        match self {
            Part::Lines(lines) => {
                let count = u32::try_from(lines.len()).expect("a frame's lines fit into it");
                sink(RawLines { tag: TAG_LINES, zero: [0; 3], count: count.into() }.as_bytes());
                lines.iter().for_each(|line| sink(RawLine::from(line).as_bytes()));
            }
            Part::Bytes { partition, segment_base, position, bytes } => encode_bytes(*partition, *segment_base, *position, bytes, sink),
            Part::Item(Item::Bytes { partition, segment_base, position, bytes }) => {
                encode_bytes(*partition, *segment_base, *position, bytes, sink);
            }
            Part::Item(Item::LogStart { partition, offset }) => {
                sink(RawLogStart { tag: TAG_LOG_START, zero: [0; 3], partition: partition.0.into(), offset: (*offset).into() }.as_bytes());
            }
            Part::Item(Item::Frames { partition }) => {
                sink(RawFrames { tag: TAG_FRAMES, zero: [0; 3], partition: partition.0.into() }.as_bytes());
            }
            Part::Item(Item::Producer { partition, state }) => encode_producer(*partition, state, sink),
            Part::Item(Item::Epoch { partition, epoch }) => {
                let raw = RawEpoch {
                    tag: TAG_EPOCH,
                    zero: [0; 3],
                    partition: partition.0.into(),
                    epoch: epoch.epoch.into(),
                    zero2: [0; 4],
                    start_offset: epoch.start_offset.into(),
                };
                sink(raw.as_bytes());
            }
        }
    }
}

fn encode_bytes(partition: PartitionId, segment_base: i64, position: u32, bytes: &[Slice], sink: &mut dyn FnMut(&[u8])) {
    let length = u32::try_from(bytes.iter().map(|slice| slice.len()).sum::<usize>()).expect("an item fits into a frame");
    let raw = RawBytes {
        tag: TAG_BYTES,
        zero: [0; 3],
        partition: partition.0.into(),
        segment_base: segment_base.into(),
        position: position.into(),
        length: length.into(),
    };
    sink(raw.as_bytes());
    bytes.iter().for_each(|slice| sink(slice));
}

/// The batches that a head keeps of a producer: the last ones.
fn kept(state: &ProducerState) -> &[SequencedBatch] {
    &state.batches[state.batches.len().saturating_sub(PRODUCER_BATCHES_MAX)..]
}

fn encode_producer(partition: PartitionId, state: &ProducerState, sink: &mut dyn FnMut(&[u8])) {
    let batches = kept(state);
    let raw = RawProducer {
        tag: TAG_PRODUCER,
        batches: batches.len() as u8,
        epoch: state.epoch.into(),
        partition: partition.0.into(),
        id: state.producer_id.into(),
        coordinator_epoch: state.coordinator_epoch.into(),
        zero: [0; 4],
        last_timestamp: state.last_timestamp.into(),
        transaction_first: state.transaction_first_offset.into(),
    };
    sink(raw.as_bytes());
    for batch in batches {
        let raw = RawBatch {
            last_sequence: batch.last_sequence.into(),
            offset_delta: batch.offset_delta.into(),
            last_offset: batch.last_offset.into(),
            timestamp: batch.timestamp.into(),
        };
        sink(raw.as_bytes());
    }
}

impl From<&Line> for RawLine {
    fn from(line: &Line) -> Self {
        RawLine {
            partition: line.partition.0.into(),
            segment_base: line.segment_base.into(),
            flushed: line.flushed.into(),
            batch_start: line.batch_start.into(),
            index_end: line.index_end.into(),
            log_start: line.log_start.into(),
        }
    }
}

impl From<&RawLine> for Line {
    fn from(raw: &RawLine) -> Self {
        Line {
            partition: PartitionId(raw.partition.get()),
            segment_base: raw.segment_base.get(),
            flushed: raw.flushed.get(),
            batch_start: raw.batch_start.get(),
            index_end: raw.index_end.get(),
            log_start: raw.log_start.get(),
        }
    }
}

/// Decodes a frame's content. Any bytes may be given.
///
/// # Errors
/// What is wrong, and where in the content.
pub fn decode(content: &[u8]) -> Result<Vec<Found<'_>>, String> {
    let mut found = Vec::new();
    let mut rest = content;
    while let Some(&tag) = rest.first() {
        let at = content.len() - rest.len();
        rest = decode_one(tag, rest, &mut found).ok_or_else(|| format!("item with tag {tag} at byte {at} is cut short or unknown"))?;
    }
    Ok(found)
}

fn decode_one<'a>(tag: u8, rest: &'a [u8], found: &mut Vec<Found<'a>>) -> Option<&'a [u8]> {
    match tag {
        TAG_BYTES => {
            let (raw, rest) = RawBytes::ref_from_prefix(rest).ok()?;
            let (bytes, rest) = rest.split_at_checked(raw.length.get() as usize)?;
            let partition = PartitionId(raw.partition.get());
            let position = raw.position.get();
            // Positions are 32 bits wide in every index: an entry beyond them can't have been written.
            position.checked_add(raw.length.get())?;
            found.push(Found::Bytes { partition, segment_base: raw.segment_base.get(), position, bytes });
            Some(rest)
        }
        TAG_LOG_START => {
            let (raw, rest) = RawLogStart::ref_from_prefix(rest).ok()?;
            found.push(Found::LogStart { partition: PartitionId(raw.partition.get()), offset: raw.offset.get() });
            Some(rest)
        }
        TAG_PRODUCER => {
            let (raw, rest) = RawProducer::ref_from_prefix(rest).ok()?;
            let (batches, rest) = <[RawBatch]>::ref_from_prefix_with_elems(rest, usize::from(raw.batches)).ok()?;
            let state = ProducerState {
                producer_id: raw.id.get(),
                epoch: raw.epoch.get(),
                coordinator_epoch: raw.coordinator_epoch.get(),
                last_timestamp: raw.last_timestamp.get(),
                transaction_first_offset: raw.transaction_first.get(),
                batches: batches.iter().map(sequenced).collect(),
            };
            found.push(Found::Producer { partition: PartitionId(raw.partition.get()), state });
            Some(rest)
        }
        TAG_EPOCH => {
            let (raw, rest) = RawEpoch::ref_from_prefix(rest).ok()?;
            let epoch = EpochStart { epoch: raw.epoch.get(), start_offset: raw.start_offset.get() };
            found.push(Found::Epoch { partition: PartitionId(raw.partition.get()), epoch });
            Some(rest)
        }
        TAG_FRAMES => {
            let (raw, rest) = RawFrames::ref_from_prefix(rest).ok()?;
            found.push(Found::Frames { partition: PartitionId(raw.partition.get()) });
            Some(rest)
        }
        TAG_LINES => {
            let (raw, rest) = RawLines::ref_from_prefix(rest).ok()?;
            let (lines, rest) = <[RawLine]>::ref_from_prefix_with_elems(rest, raw.count.get() as usize).ok()?;
            found.extend(lines.iter().map(|line| Found::Line(line.into())));
            Some(rest)
        }
        _ => None,
    }
}

fn sequenced(raw: &RawBatch) -> SequencedBatch {
    SequencedBatch {
        last_sequence: raw.last_sequence.get(),
        last_offset: raw.last_offset.get(),
        offset_delta: raw.offset_delta.get(),
        timestamp: raw.timestamp.get(),
    }
}
