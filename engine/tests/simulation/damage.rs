//! What has become of some bytes of a segment, and what its readers may see of that.

use crate::model::{Entry, Partition, same};
use engine::{
    batch::{HEADER_BYTES, Header, crc},
    disk::BLOCK,
};
use rand::{Rng, rngs::SmallRng};
use std::{fmt, ops::Range, path::PathBuf};

/// The base offset: nothing but the journal's own checksum covers it.
const OFFSET: Range<usize> = 0..8;
/// The leader epoch: the same goes for that.
const EPOCH: Range<usize> = 12..16;
/// The fields that a random one of is overwritten: base offset, length, leader epoch, magic, CRC.
const FIELDS: [Range<usize>; 5] = [OFFSET, 8..12, EPOCH, 16..17, 17..21];
/// What a walk over headers goes by: everything up to the magic, the last offset delta, the record count.
const WALKED: [Range<usize>; 3] = [0..17, 23..27, 57..61];

/// A segment's file, and where the batches of the model lie in it.
pub struct Segment {
    path: PathBuf,
    /// From its base offset to that of the next one.
    offsets: Range<i64>,
    bytes: Vec<u8>,
    batches: Vec<(usize, Entry)>,
}

impl Segment {
    /// The file at `path` with these bytes. Batches lie one behind the other, whether the file has them or the journal only.
    pub fn new(path: PathBuf, offsets: Range<i64>, bytes: Vec<u8>, partition: &Partition) -> Segment {
        let mut batches: Vec<(usize, Entry)> = Vec::new();
        let mut position = 0;
        for entry in partition.log.iter().filter(|entry| offsets.contains(&entry.base)) {
            batches.push((position, entry.clone()));
            position += entry.batch.bytes.len();
        }
        if batches.first().is_some_and(|(_, first)| first.base != offsets.start) {
            batches.clear();
        }
        Segment { path, offsets, bytes, batches }
    }

    /// The batches that lie in the file, whole, and that the journal vouches for: where, and how many bytes.
    fn targets(&self, partition: &Partition) -> Vec<(usize, usize)> {
        let mut targets = Vec::new();
        for (position, entry) in &self.batches {
            let (position, length) = (*position, entry.batch.bytes.len());
            let there = self.bytes.get(position..position + length);
            let is_there = there.is_some_and(|bytes| Header::read(bytes).is_some_and(|header| same(entry, &header, bytes).is_ok()));
            if is_there && entry.next() <= partition.vouched && entry.next() > partition.start_acked {
                targets.push((position, length));
            }
        }
        targets
    }

    /// True if there is something in it to damage.
    pub fn has_targets(&self, partition: &Partition) -> bool {
        !self.targets(partition).is_empty()
    }
}

/// Bytes that are not what was written.
pub struct Damage {
    pub path: PathBuf,
    position: usize,
    before: Vec<u8>,
    /// Empty if the file ends at the position.
    after: Vec<u8>,
    /// The batches with a byte of it.
    hit: Vec<Entry>,
    /// The batches with these offsets may be missed by a reader, who is told so or sees it.
    reach: Range<i64>,
    hits_header: bool,
    hits_offset: bool,
    /// The base offsets of the batches whose leader epoch it hits.
    epochs: Vec<i64>,
    /// The offset up to which the journal vouched for the partition.
    vouched: i64,
    /// In the segment that nothing lies behind: whoever opens it looks at its last batch.
    is_in_active: bool,
    /// In the segment that was written to last, or that nothing acked lies behind.
    is_in_last: bool,
    /// The partition was opened with it: the journal may have taken over what it saw.
    pub was_opened: bool,
    /// The bytes are again what was written, in the segment.
    pub is_put_back: bool,
    /// Nobody can say any more what is to be seen of the partition.
    pub is_lost: bool,
}

impl Damage {
    /// Damages a random batch of a segment, or a block, or all from within a batch on. `None` if nothing would change.
    pub fn draw(random: &mut SmallRng, segment: &Segment, partition: &Partition) -> Option<Damage> {
        let targets = segment.targets(partition);
        if targets.is_empty() {
            return None;
        }
        let (at, length) = targets[random.random_range(0..targets.len())];
        let one = |position: usize| position..position + 1;
        let kind = random.random_range(0..6);
        let range = match kind {
            0 => one(at + random.random_range(0..HEADER_BYTES)),
            1 => one(at + random.random_range(0..length)),
            2 | 3 => {
                let field = &FIELDS[random.random_range(0..FIELDS.len())];
                at + field.start..at + field.end
            }
            4 => {
                let block = (at + random.random_range(0..length)) / BLOCK as usize * BLOCK as usize;
                // What lies behind may be a run that the journal doesn't vouch for yet.
                let vouched = segment.batches.iter().filter(|(_, entry)| entry.next() <= partition.vouched);
                let end = vouched.map(|(position, entry)| position + entry.batch.bytes.len()).max().unwrap_or(0);
                block..(block + BLOCK as usize).min(end).min(segment.bytes.len())
            }
            // Never where a batch ends: what a segment that is full has lost there, nobody can know. So it is in Kafka.
            _ => at + random.random_range(1..length)..segment.bytes.len(),
        };
        let before = segment.bytes[range.clone()].to_vec();
        let mut after = before.clone();
        match kind {
            0 | 1 => after[0] ^= random.random_range(1..=u8::MAX),
            2 => random.fill(after.as_mut_slice()),
            3 => {
                let bit = random.random_range(0..8 * after.len());
                after[bit / 8] ^= 1 << (bit % 8);
            }
            4 => after.fill(0),
            _ => after.clear(),
        }
        (after != before).then(|| Damage::of(segment, partition, range, before, after))
    }

    fn of(segment: &Segment, partition: &Partition, range: Range<usize>, before: Vec<u8>, after: Vec<u8>) -> Damage {
        let is_hit = |position: usize, entry: &Entry| position < range.end && range.start < position + entry.batch.bytes.len();
        let hit: Vec<&(usize, Entry)> = segment.batches.iter().filter(|(position, entry)| is_hit(*position, entry)).collect();
        let touches = |position: usize, field: &Range<usize>| range.start < position + field.end && position + field.start < range.end;
        let hits = |field: &Range<usize>| hit.iter().any(|(position, _)| touches(*position, field));
        let hit_epochs = hit.iter().filter(|(position, _)| !after.is_empty() && touches(*position, &EPOCH));
        let first = hit.first().map_or(segment.offsets.start, |(_, entry)| entry.base);
        let next = hit.last().map_or(segment.offsets.end, |(_, entry)| entry.next());
        // Behind a header that is wrong no batch can be found.
        let breaks_walk = after.is_empty() || WALKED.iter().any(hits);
        let end = segment.offsets.end;
        Damage {
            path: segment.path.clone(),
            position: range.start,
            reach: first..if breaks_walk { end } else { next },
            hits_header: after.is_empty() || hits(&(0..HEADER_BYTES)),
            hits_offset: hits(&OFFSET),
            epochs: hit_epochs.map(|(_, entry)| entry.base).collect(),
            vouched: partition.vouched,
            is_in_active: end == i64::MAX,
            is_in_last: end == i64::MAX || partition.vouched <= end,
            hit: hit.iter().map(|(_, entry)| entry.clone()).collect(),
            before,
            after,
            was_opened: false,
            is_put_back: false,
            is_lost: false,
        }
    }

    /// The file ends within a batch.
    fn is_cut(&self) -> bool {
        self.after.is_empty()
    }

    /// The offsets of the batches that it hits.
    pub fn offsets(&self) -> Range<i64> {
        let first = self.hit.first().map_or(self.reach.start, |entry| entry.base);
        first..self.hit.last().map_or(self.reach.end, Entry::next)
    }

    /// Does it to a segment's bytes.
    pub fn apply(&self, bytes: &mut Vec<u8>) {
        match self.is_cut() {
            true => bytes.truncate(self.position),
            false => bytes[self.position..self.position + self.after.len()].copy_from_slice(&self.after),
        }
    }

    /// Puts back what was there. False if it has no place any more.
    pub fn put_back(&self, bytes: &mut Vec<u8>) -> bool {
        if self.is_cut() {
            let is_as_it_was = !self.was_opened && bytes.len() == self.position;
            if is_as_it_was {
                bytes.extend_from_slice(&self.before);
            }
            return is_as_it_was;
        }
        match bytes.get_mut(self.position..self.position + self.before.len()) {
            Some(place) => place.copy_from_slice(&self.before),
            None => return false,
        }
        true
    }

    /// Nothing of it is left, if the bytes are put back now: no open partition has looked at them, or at no more than the
    /// records in a segment that nothing is written to.
    pub fn is_undone(&self) -> bool {
        !self.was_opened || !self.hits_header && !self.is_in_last
    }

    /// The batch in which a partition ends may have an offset that nobody gave it.
    pub fn hides_end(&self) -> bool {
        self.hits_offset && self.is_in_last
    }

    /// A batch may have a leader epoch that is too high and not above all that were given. What follows it has a lower one, and is taken
    /// for what an earlier leader has left if the journal doesn't vouch for it yet: the log ends at `log_end` then.
    pub fn hides_rest(&self, log_end: i64) -> bool {
        !self.epochs.is_empty() && self.is_in_last && log_end >= self.vouched
    }

    /// The base offsets of the batches whose leader epoch nobody can tell any more: where it is not above all that were given, it may be
    /// taken for what it seems, and be carried on.
    pub fn epochs(&self) -> &[i64] {
        &self.epochs
    }

    /// What a reader got who asked for the batch in which an open log ends, at `base`: its leader epoch is not above the partition's. Of
    /// the segment that is written to, whoever opens it has looked at that batch.
    pub fn check_last(&self, base: i64, read: &Result<Vec<u8>, String>, leader_epoch: i32) -> Result<(), String> {
        let header = read.as_ref().ok().filter(|_| self.is_in_active).and_then(|bytes| Header::read(bytes));
        match header.filter(|header| header.base_offset() == base && header.leader_epoch() > leader_epoch) {
            Some(header) => Err(format!("its last batch, at {base}, has leader epoch {}, above its own", header.leader_epoch())),
            None => Ok(()),
        }
    }

    /// A partition with it may be refused.
    pub fn may_refuse(&self) -> bool {
        !self.is_put_back || self.is_in_last
    }

    /// Holds what a reader got, who asked for the first of `entries`, against what was appended. True if the reader was told of
    /// damage or can see it: a CRC is wrong.
    pub fn check(&self, entries: &[Entry], read: &Result<Vec<u8>, String>) -> Result<bool, String> {
        let may_miss = |entry: &Entry| self.may_refuse() && self.reach.contains(&entry.base);
        let mut rest: &[u8] = match read {
            Ok(bytes) if bytes.is_empty() => return Err(format!("nothing at {}", entries[0].base)),
            Ok(bytes) => bytes.as_slice(),
            Err(_) if may_miss(&entries[0]) => return Ok(true),
            Err(error) => return Err(format!("a read at {}: {error}", entries[0].base)),
        };
        for entry in entries {
            if rest.is_empty() {
                break;
            }
            let header = Header::read(rest).filter(|header| header.size() > 0 && header.size() <= rest.len());
            // The CRC does not cover the magic.
            let Some(header) = header.filter(|header| header.magic() == 2 && header.crc() == crc(&rest[..header.size()])) else {
                return if may_miss(entry) { Ok(true) } else { Err(format!("at {} there is no whole batch", entry.base)) };
            };
            let (batch, behind) = rest.split_at(header.size());
            if let Err(error) = same(entry, &header, batch) {
                // No CRC covers its offset.
                let is_hit = self.hits_offset && self.hit.iter().any(|hit| hit.batch.bytes[16..] == batch[16..]);
                return if is_hit && may_miss(entry) { Ok(true) } else { Err(error) };
            }
            rest = behind;
        }
        Ok(false)
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, bytes) = if self.is_cut() { ("cut off", self.before.len()) } else { ("changed", self.after.len()) };
        write!(f, "{} bytes {what} at {} of {}, in the batches of {:?}", bytes, self.position, self.path.display(), self.offsets())
    }
}
