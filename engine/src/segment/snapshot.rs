//! Producer state and leader epochs as Kafka's files hold them: `.snapshot` and `leader-epoch-checkpoint`; and
//! `partition.metadata`.

use uuid::Uuid;

/// An idempotent producer's state in one partition (Kafka: `ProducerStateEntry`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerState {
    /// Its id.
    pub producer_id: i64,
    /// Its epoch.
    pub epoch: i16,
    /// Its transaction coordinator's epoch, -1 if it has none.
    pub coordinator_epoch: i32,
    /// Its newest timestamp in ms.
    pub last_timestamp: i64,
    /// The first offset of its open transaction, -1 if there is none.
    pub transaction_first_offset: i64,
    /// Its last batches, oldest first, five at most.
    pub batches: Vec<SequencedBatch>,
}

/// One of a producer's last batches (Kafka: `BatchMetadata`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequencedBatch {
    /// The sequence of its last record.
    pub last_sequence: i32,
    /// The offset of its last record.
    pub last_offset: i64,
    /// Last offset minus first offset.
    pub offset_delta: i32,
    /// Its newest timestamp in ms.
    pub timestamp: i64,
}

/// Where a leader epoch begins in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochStart {
    /// The epoch.
    pub epoch: i32,
    /// Its first offset.
    pub start_offset: i64,
}

/// Batches of a producer that are remembered, so that a retry of any request in flight is known (Kafka:
/// `ProducerStateEntry.NUM_BATCHES_TO_RETAIN`).
pub const PRODUCER_BATCHES_MAX: usize = 5;
/// The first offset of a producer that has no open transaction.
pub const NO_TRANSACTION: i64 = -1;

const SNAPSHOT_VERSION: i16 = 1;
/// Version, CRC and the number of producers.
const SNAPSHOT_HEAD_BYTES: usize = 10;
/// What the CRC covers begins here.
const SNAPSHOT_CRC_FROM: usize = 6;
const SNAPSHOT_ENTRY_BYTES: usize = 46;

/// A checkpoint file of Kafka's that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Its version is unknown.
    #[error("version {0} is unknown")]
    Version(String),
    /// Its CRC does not match.
    #[error("the CRC is {computed}, the file says {stored}")]
    Crc {
        /// The file's.
        stored: u32,
        /// That of the bytes.
        computed: u32,
    },
    /// It is cut short or malformed.
    #[error("it is malformed at {0}")]
    Malformed(String),
}

fn malformed(at: impl Into<String>) -> FormatError {
    FormatError::Malformed(at.into())
}

/// A `.snapshot` file. It has room for the newest batch of every producer only: whoever needs the others has to keep them
/// elsewhere.
#[must_use]
pub fn encode_snapshot(producers: &[ProducerState]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(SNAPSHOT_HEAD_BYTES + producers.len() * SNAPSHOT_ENTRY_BYTES);
    bytes.extend_from_slice(&SNAPSHOT_VERSION.to_be_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&u32::try_from(producers.len()).expect("producers are bounded").to_be_bytes());
    for producer in producers {
        let none = SequencedBatch { last_sequence: -1, last_offset: -1, offset_delta: 0, timestamp: producer.last_timestamp };
        let batch = producer.batches.last().unwrap_or(&none);
        bytes.extend_from_slice(&producer.producer_id.to_be_bytes());
        bytes.extend_from_slice(&producer.epoch.to_be_bytes());
        bytes.extend_from_slice(&batch.last_sequence.to_be_bytes());
        bytes.extend_from_slice(&batch.last_offset.to_be_bytes());
        bytes.extend_from_slice(&batch.offset_delta.to_be_bytes());
        bytes.extend_from_slice(&producer.last_timestamp.to_be_bytes());
        bytes.extend_from_slice(&producer.coordinator_epoch.to_be_bytes());
        bytes.extend_from_slice(&producer.transaction_first_offset.to_be_bytes());
    }
    let crc = crc32c::crc32c(&bytes[SNAPSHOT_CRC_FROM..]);
    bytes[2..SNAPSHOT_CRC_FROM].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// The producers of a `.snapshot` file, each with at most one batch.
///
/// # Errors
/// [`FormatError`]: the state must then come from an older snapshot and the log.
pub fn decode_snapshot(bytes: &[u8]) -> Result<Vec<ProducerState>, FormatError> {
    let head = bytes.get(..SNAPSHOT_HEAD_BYTES).ok_or_else(|| malformed("its head"))?;
    let version = i16::from_be_bytes([head[0], head[1]]);
    if version != SNAPSHOT_VERSION {
        return Err(FormatError::Version(version.to_string()));
    }
    let stored = u32::from_be_bytes([head[2], head[3], head[4], head[5]]);
    let computed = crc32c::crc32c(&bytes[SNAPSHOT_CRC_FROM..]);
    if stored != computed {
        return Err(FormatError::Crc { stored, computed });
    }
    let count = u32::from_be_bytes([head[6], head[7], head[8], head[9]]);
    let (entries, rest) = bytes[SNAPSHOT_HEAD_BYTES..].as_chunks::<SNAPSHOT_ENTRY_BYTES>();
    if entries.len() as u64 != u64::from(count) || !rest.is_empty() {
        return Err(malformed(format!("its count of {count} producers")));
    }
    Ok(entries.iter().map(snapshot_entry).collect())
}

fn snapshot_entry(entry: &[u8; SNAPSHOT_ENTRY_BYTES]) -> ProducerState {
    let long = |at: usize| i64::from_be_bytes(entry[at..at + 8].try_into().expect("8 bytes"));
    let int = |at: usize| i32::from_be_bytes(entry[at..at + 4].try_into().expect("4 bytes"));
    let (last_sequence, last_offset, offset_delta, last_timestamp) = (int(10), long(14), int(22), long(26));
    let batch = SequencedBatch { last_sequence, last_offset, offset_delta, timestamp: last_timestamp };
    ProducerState {
        producer_id: long(0),
        epoch: i16::from_be_bytes([entry[8], entry[9]]),
        coordinator_epoch: int(34),
        last_timestamp,
        transaction_first_offset: long(38),
        batches: if last_offset >= 0 { vec![batch] } else { Vec::new() },
    }
}

/// A `leader-epoch-checkpoint` file.
#[must_use]
pub fn encode_epochs(epochs: &[EpochStart]) -> String {
    let mut text = format!("0\n{}\n", epochs.len());
    for entry in epochs {
        text.push_str(&format!("{} {}\n", entry.epoch, entry.start_offset));
    }
    text
}

/// The epochs of a `leader-epoch-checkpoint` file, rising.
///
/// # Errors
/// [`FormatError`]: the epochs must then come from the batches.
pub fn decode_epochs(text: &str) -> Result<Vec<EpochStart>, FormatError> {
    let mut lines = text.lines();
    match lines.next() {
        Some("0") => {}
        other => return Err(FormatError::Version(other.unwrap_or("(none)").chars().take(20).collect())),
    }
    let count: usize = lines.next().and_then(|line| line.parse().ok()).ok_or_else(|| malformed("its count"))?;
    let mut epochs: Vec<EpochStart> = Vec::new();
    for (at, line) in lines.enumerate() {
        let entry = line
            .split_once(' ')
            .and_then(|(epoch, offset)| Some(EpochStart { epoch: epoch.parse().ok()?, start_offset: offset.trim_end().parse().ok()? }));
        let rises =
            |entry: &EpochStart| epochs.last().is_none_or(|last| last.epoch < entry.epoch && last.start_offset <= entry.start_offset);
        epochs.push(entry.filter(rises).ok_or_else(|| malformed(format!("entry {at}")))?);
    }
    if epochs.len() == count { Ok(epochs) } else { Err(malformed(format!("its count of {count}, {} follow", epochs.len()))) }
}

/// The alphabet of Kafka's ids: base64 for URLs, without padding.
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// Characters of an id.
const ID_CHARS: usize = 22;

/// A `partition.metadata` file.
#[must_use]
pub fn encode_metadata(topic_id: Uuid) -> String {
    let number = topic_id.as_u128();
    // 128 bits are 21 characters of 6 bits, and 2 bits at the top of a last one.
    let digit = |at: usize| if at < 21 { (number >> (122 - 6 * at)) & 63 } else { (number & 3) << 4 };
    let id: String = (0..ID_CHARS).map(|at| char::from(BASE64[digit(at) as usize])).collect();
    format!("version: 0\ntopic_id: {id}")
}

/// The topic id of a `partition.metadata` file.
///
/// # Errors
/// [`FormatError`].
pub fn decode_metadata(text: &str) -> Result<Uuid, FormatError> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':')).map(str::trim);
    match field("version") {
        Some("0") => {}
        other => return Err(FormatError::Version(other.unwrap_or("(none)").chars().take(20).collect())),
    }
    let id = field("topic_id").filter(|id| id.len() == ID_CHARS).ok_or_else(|| malformed("its topic_id"))?;
    let mut number = 0u128;
    for (at, byte) in id.bytes().enumerate() {
        let digit = BASE64.iter().position(|known| *known == byte).ok_or_else(|| malformed("its topic_id"))? as u128;
        number = if at < 21 { number << 6 | digit } else { number << 2 | digit >> 4 };
    }
    Ok(Uuid::from_u128(number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn producer() -> impl Strategy<Value = ProducerState> {
        let batch = (any::<i32>(), 0..i64::MAX, any::<i32>());
        (any::<i64>(), any::<i16>(), any::<i32>(), any::<i64>(), any::<i64>(), prop::option::of(batch)).prop_map(
            |(producer_id, epoch, coordinator_epoch, last_timestamp, transaction_first_offset, batch)| ProducerState {
                producer_id,
                epoch,
                coordinator_epoch,
                last_timestamp,
                transaction_first_offset,
                batches: batch
                    .map(|(last_sequence, last_offset, offset_delta)| SequencedBatch {
                        last_sequence,
                        last_offset,
                        offset_delta,
                        timestamp: last_timestamp,
                    })
                    .into_iter()
                    .collect(),
            },
        )
    }

    proptest! {
        #[test]
        fn snapshots_survive_and_damage_is_noticed(producers in prop::collection::vec(producer(), 0..20), bit: prop::sample::Index) {
            let mut bytes = encode_snapshot(&producers);
            prop_assert_eq!(decode_snapshot(&bytes), Ok(producers));
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(decode_snapshot(&bytes).is_err());
        }

        #[test]
        fn ids_survive(number: u128) {
            let id = Uuid::from_u128(number);
            prop_assert_eq!(decode_metadata(&encode_metadata(id)), Ok(id));
        }

        #[test]
        fn any_text_is_a_file_or_an_error(text: String, bytes: Vec<u8>) {
            let _ = decode_epochs(&text);
            let _ = decode_metadata(&text);
            let _ = decode_snapshot(&bytes);
        }
    }

    #[test]
    fn the_newest_of_several_batches_goes_into_the_snapshot() {
        let batch = |last_sequence| SequencedBatch { last_sequence, last_offset: 10, offset_delta: 0, timestamp: 5 };
        let mut state = ProducerState {
            producer_id: 1,
            epoch: 0,
            coordinator_epoch: -1,
            last_timestamp: 5,
            transaction_first_offset: NO_TRANSACTION,
            batches: vec![batch(1), batch(2)],
        };
        let read = decode_snapshot(&encode_snapshot(std::slice::from_ref(&state))).expect("valid");
        state.batches.remove(0);
        assert_eq!(read, [state]);
    }

    #[test]
    fn checkpoints_are_kafkas_text() {
        let epochs = [EpochStart { epoch: 1, start_offset: 0 }, EpochStart { epoch: 4, start_offset: 17 }];
        assert_eq!(encode_epochs(&epochs), "0\n2\n1 0\n4 17\n");
        assert_eq!(decode_epochs("0\n2\n1 0\n4 17\n").as_deref(), Ok(&epochs[..]));
        for text in ["", "1\n0\n", "0\n1\n", "0\n2\n4 17\n1 0\n", "0\nx\n"] {
            assert!(decode_epochs(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_topic_id_is_printed_as_kafka_prints_it() {
        // java.util.Base64's URL encoder without padding, over the 16 bytes 00 to 0f.
        let id = Uuid::from_bytes(std::array::from_fn(|at| at as u8));
        assert_eq!(encode_metadata(id), "version: 0\ntopic_id: AAECAwQFBgcICQoLDA0ODw");
    }
}
