//! Where the batches of an image end, as a start finds it (`engine/src/log/start/image.rs`).

use crate::dump::read::{BATCH_BYTES_MAX, BytesAt, is_valid, resync};
use anyhow::Result;
use engine::batch::{HEADER_BYTES, Header, Scanner, Step, Stop, crc};

/// Where whole batches end that follow one another from `from` on, by a start's rules. Below `vouched` there is nothing else: damage
/// there is passed over, up to the next batch; without one the end is what is vouched for.
pub(super) fn end(file: &mut BytesAt, from: u64, base_offset: i64, vouched: u64) -> Result<u64> {
    let mut scanner = Scanner::new(from, base_offset, i32::MIN);
    loop {
        let stop = scan(file, &mut scanner)?;
        if !is_damaged(file, scanner.position, stop, vouched)? {
            return Ok(scanner.position);
        }
        match behind(file, scanner.position, stop, base_offset)?.filter(|next| *next < vouched) {
            Some(next) => scanner = Scanner::new(next, 0, i32::MIN),
            None => return Ok(vouched),
        }
    }
}

/// Goes on to where no batch follows, and says why.
fn scan(file: &mut BytesAt, scanner: &mut Scanner) -> Result<Stop> {
    let mut needed = 0;
    loop {
        let left = file.size().saturating_sub(scanner.position);
        let window = file.at(scanner.position, needed)?;
        match scanner.step(window, left) {
            Step::Batch(_) => needed = 0,
            Step::Need(bytes) if bytes <= BATCH_BYTES_MAX => needed = bytes,
            Step::Need(_) => return Ok(Stop::Length(Header::read(window).map_or(0, |header| header.length()))),
            Step::Stop(stop) => return Ok(stop),
        }
    }
}

/// True if what is at `position`, where a scan stopped, is no batch whose rest never came.
fn is_damaged(file: &mut BytesAt, position: u64, stop: Stop, vouched: u64) -> Result<bool> {
    if position + HEADER_BYTES as u64 > vouched {
        return Ok(false);
    }
    if !matches!(stop, Stop::Truncated { .. } | Stop::Crc { .. }) || vouched > file.size() {
        return Ok(true);
    }
    let Some(header) = Header::read(file.at(position, HEADER_BYTES)?) else { return Ok(true) };
    let left = vouched - position;
    if header.size() as u64 <= left {
        return Ok(true);
    }
    // Its length may be wrong: then it ends at the very end, or where the next one begins.
    if left <= BATCH_BYTES_MAX as u64
        && let Some(bytes) = file.at(position, left as usize)?.get(..left as usize)
        && crc(bytes) == header.crc()
    {
        return Ok(true);
    }
    let Some(next) = resync(file, position + 1, header.next_offset())?.filter(|next| *next < vouched) else { return Ok(false) };
    let next = Header::read(file.at(next, HEADER_BYTES)?);
    Ok(next.is_some_and(|next| next.base_offset() == header.next_offset()))
}

/// The next whole batch at or behind damage.
fn behind(file: &mut BytesAt, position: u64, stop: Stop, base_offset: i64) -> Result<Option<u64>> {
    // One that does not fit behind the one before: which of the two is wrong is for others to say.
    if matches!(stop, Stop::Offset { .. } | Stop::Epoch { .. }) && is_valid(file, position)? {
        return Ok(Some(position));
    }
    resync(file, position + 1, base_offset)
}
