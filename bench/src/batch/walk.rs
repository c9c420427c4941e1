//! Walking over fetched batches: nothing is missing, nothing comes twice, nothing has changed.

use super::HEADER_BYTES;
use anyhow::{Result, ensure};

/// How many checksums are computed.
pub struct Checks {
    every: u64,
    seen: u64,
}

impl Checks {
    /// Every `every`th batch; 0 means none.
    #[must_use]
    pub fn every(every: u64) -> Checks {
        Checks { every, seen: 0 }
    }

    fn due(&mut self) -> bool {
        self.seen += 1;
        self.every > 0 && self.seen.is_multiple_of(self.every)
    }
}

/// A whole batch that was fetched.
#[derive(Clone, Copy, Debug)]
pub struct Batch {
    /// Its base offset.
    pub base: i64,
    /// Its records at or above the offset that was asked for.
    pub records: u64,
    /// Its size with its header.
    pub bytes: u64,
}

/// Hands each whole batch from `offset` on to `each` and gives the offset behind the last one. Offsets must follow each
/// other without a gap. A partial batch at the end is left out, as Kafka's clients do.
///
/// # Errors
/// A gap, a wrong checksum, a wrong magic, or what `each` says.
pub fn walk(mut bytes: &[u8], offset: i64, checks: &mut Checks, mut each: impl FnMut(Batch) -> Result<()>) -> Result<i64> {
    let mut next = offset;
    while bytes.len() >= HEADER_BYTES {
        let base = i64::from_be_bytes(bytes[..8].try_into()?);
        let length = usize::try_from(i32::from_be_bytes(bytes[8..12].try_into()?))? + 12;
        ensure!(length >= HEADER_BYTES && bytes[16] == 2, "no batch at offset {next}: length {length}, magic {}", bytes[16]);
        if bytes.len() < length {
            break;
        }
        let last = base + i64::from(i32::from_be_bytes(bytes[23..27].try_into()?));
        ensure!(base <= next && next <= last, "offset {next} expected, a batch of {base} to {last} came");
        if checks.due() {
            let stored = u32::from_be_bytes(bytes[17..21].try_into()?);
            ensure!(crc32c::crc32c(&bytes[21..length]) == stored, "the batch at offset {base} has a wrong checksum");
        }
        each(Batch { base, records: (last + 1 - next) as u64, bytes: length as u64 })?;
        next = last + 1;
        bytes = &bytes[length..];
    }
    Ok(next)
}
