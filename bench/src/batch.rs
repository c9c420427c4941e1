//! Pre-encoded record batches: made once, sent many times.

/// Bytes of a batch's header.
pub const HEADER_BYTES: usize = 61;

/// A RecordBatch v2 of `records` records with values of `value_bytes` bytes, without keys and without compression.
#[must_use]
pub fn encode(records: usize, value_bytes: usize, timestamp_ms: i64) -> Vec<u8> {
    let mut body = Vec::with_capacity(records * (value_bytes + 16));
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut record = Vec::new();
    for offset in 0..records {
        record.clear();
        record.push(0);
        varint(&mut record, 0);
        varint(&mut record, offset as i64);
        varint(&mut record, -1);
        varint(&mut record, value_bytes as i64);
        let end = record.len() + value_bytes;
        while record.len() < end {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let bytes = state.to_le_bytes();
            record.extend_from_slice(&bytes[..bytes.len().min(end - record.len())]);
        }
        varint(&mut record, 0);
        varint(&mut body, record.len() as i64);
        body.extend_from_slice(&record);
    }
    let mut batch = Vec::with_capacity(HEADER_BYTES + body.len());
    batch.extend_from_slice(&0i64.to_be_bytes());
    batch.extend_from_slice(&((HEADER_BYTES - 12 + body.len()) as i32).to_be_bytes());
    batch.extend_from_slice(&(-1i32).to_be_bytes());
    batch.push(2);
    batch.extend_from_slice(&[0; 4]);
    batch.extend_from_slice(&0i16.to_be_bytes());
    batch.extend_from_slice(&(records as i32 - 1).to_be_bytes());
    batch.extend_from_slice(&timestamp_ms.to_be_bytes());
    batch.extend_from_slice(&timestamp_ms.to_be_bytes());
    batch.extend_from_slice(&(-1i64).to_be_bytes());
    batch.extend_from_slice(&(-1i16).to_be_bytes());
    batch.extend_from_slice(&(-1i32).to_be_bytes());
    batch.extend_from_slice(&(records as i32).to_be_bytes());
    batch.extend_from_slice(&body);
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch
}

fn varint(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// What a walk over fetched batches found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Walked {
    /// The offset behind the last whole batch.
    pub next: i64,
    /// Records at or above the offset that was asked for.
    pub records: u64,
    /// Bytes of whole batches.
    pub bytes: u64,
}

/// Walks whole batches from `offset` on. Offsets must follow each other without a gap, checksums must hold. A partial
/// batch at the end is left out, as Kafka's clients do.
///
/// # Errors
/// A gap, a wrong checksum or a wrong magic.
pub fn walk(mut bytes: &[u8], offset: i64, crc: bool) -> anyhow::Result<Walked> {
    let mut walked = Walked { next: offset, records: 0, bytes: 0 };
    while bytes.len() >= HEADER_BYTES {
        let base = i64::from_be_bytes(bytes[..8].try_into()?);
        let length = usize::try_from(i32::from_be_bytes(bytes[8..12].try_into()?))? + 12;
        anyhow::ensure!(
            length >= HEADER_BYTES && bytes[16] == 2,
            "no batch at offset {}: length {length}, magic {}",
            walked.next,
            bytes[16]
        );
        if bytes.len() < length {
            break;
        }
        let last = base + i64::from(i32::from_be_bytes(bytes[23..27].try_into()?));
        anyhow::ensure!(base <= walked.next && walked.next <= last, "offset {} expected, a batch of {base} to {last} came", walked.next);
        if crc {
            let stored = u32::from_be_bytes(bytes[17..21].try_into()?);
            anyhow::ensure!(crc32c::crc32c(&bytes[21..length]) == stored, "the batch at offset {base} has a wrong checksum");
        }
        walked.records += (last + 1 - walked.next) as u64;
        walked.bytes += length as u64;
        walked.next = last + 1;
        bytes = &bytes[length..];
    }
    Ok(walked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_counts_what_was_encoded_and_sees_gaps_and_flipped_bits() {
        let mut batch = encode(10, 100, 1);
        assert_eq!(walk(&batch, 0, true).unwrap(), Walked { next: 10, records: 10, bytes: batch.len() as u64 });
        assert_eq!(walk(&batch, 4, true).unwrap().records, 6);
        assert_eq!(walk(&batch[..batch.len() - 1], 0, true).unwrap().records, 0);
        assert!(walk(&batch, 10, true).is_err(), "a gap");
        batch[80] ^= 1;
        assert!(walk(&batch, 0, true).is_err(), "a flipped bit");
    }
}
