//! Where the batches of an image end, as a start finds it: [`ended`] is its rule. The last batch's CRC, at which a start looks too, is
//! seen by whoever reads up to there.

use crate::dump::read::{BATCH_BYTES_MAX, BytesAt, is_valid, resync};
use anyhow::Result;
use engine::{
    batch::{HEADER_BYTES, Header, Scanner, Step, Stop},
    journal::{Ended, ended, is_front},
};

/// Where whole batches end that follow one another from `from` on, by a start's rules. Below `vouched` there is nothing else: damage
/// there is passed over, up to the next batch; without one the end is what is vouched for.
pub(super) fn end(file: &mut BytesAt, from: u64, base_offset: i64, vouched: u64) -> Result<u64> {
    let mut scanner = Scanner::new(from, base_offset, i32::MIN);
    loop {
        let begun = scanner.position;
        let stop = scan(file, &mut scanner)?;
        if !is_damaged(file, &scanner, begun, stop, base_offset, vouched)? {
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

/// True if what is where a scan from `begun` on stopped is no batch whose rest never came.
fn is_damaged(file: &mut BytesAt, stopped: &Scanner, begun: u64, stop: Stop, base_offset: i64, vouched: u64) -> Result<bool> {
    Ok(match ended(stopped.position, stop, vouched, file.size()) {
        Ended::Whole => false,
        Ended::Damaged => true,
        Ended::Unless(range) => {
            let length = (range.end - range.start) as usize;
            // What fits is no front of anything, and there may be much behind it.
            if Header::read(file.at(range.start, HEADER_BYTES)?).is_none_or(|header| header.size() <= length) {
                return Ok(true);
            }
            let expected = match stopped.position > begun {
                true => Some(stopped.next_offset),
                false => next_offset(file, begun, base_offset)?,
            };
            let bytes = file.at(range.start, length)?.get(..length);
            bytes.zip(expected).is_none_or(|(bytes, expected)| !is_front(bytes, expected))
        }
    })
}

/// The offset that comes next at `position`, where a batch begins: only those before it say so. `None` if their headers don't lead
/// there.
fn next_offset(file: &mut BytesAt, position: u64, base_offset: i64) -> Result<Option<i64>> {
    let (mut scanner, mut needed) = (Scanner::new(0, base_offset, i32::MIN), 0);
    while scanner.position < position {
        let left = file.size().saturating_sub(scanner.position);
        let window = file.at(scanner.position, needed)?;
        match scanner.step_header(window, left) {
            Step::Batch(_) => needed = 0,
            Step::Need(bytes) => needed = bytes,
            Step::Stop(_) => return Ok(None),
        }
    }
    Ok((scanner.position == position).then_some(scanner.next_offset))
}

/// The next whole batch at or behind damage.
fn behind(file: &mut BytesAt, position: u64, stop: Stop, base_offset: i64) -> Result<Option<u64>> {
    // One that does not fit behind the one before: which of the two is wrong is for others to say.
    if matches!(stop, Stop::Offset { .. } | Stop::Epoch { .. }) && is_valid(file, position)? {
        return Ok(Some(position));
    }
    resync(file, position + 1, base_offset)
}
