//! Appending a batch: checks, offset and epoch, the one copy into the tail. Nothing here waits or touches the disk.

use super::{
    AppendError,
    limits::{Limits, SPACE_RETRY_MS},
    producers::Verdict,
    spec::TimestampType,
    state::Partition,
    stretch::{Incoming, Stretch},
};
use crate::{
    batch::{Checked, DECOMPRESSED_BYTES_MAX, Header, Patch, Rules, patched_header, validate},
    disk::Disk,
};
use std::rc::Rc;

/// Positions in Kafka's indexes are 31 bits, whatever `segment.bytes` says.
pub const SEGMENT_BYTES_MAX: u64 = i32::MAX as u64;

/// What an append was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The offset of its first record.
    pub base_offset: i64,
    /// The offset of its last record.
    pub last_offset: i64,
    /// The broker's timestamp in ms if the topic has LogAppendTime.
    pub log_append_time: Option<i64>,
    /// The partition's log start offset.
    pub log_start: i64,
    /// How often the partition had dropped appends before: an offset that is given again is told apart by it.
    pub discards: u64,
}

impl<D: Disk> Partition<D> {
    /// Validates a batch and takes it into memory. Also returns how many chunks of memory that took.
    ///
    /// # Errors
    /// Each variant is one of Kafka's answers; nothing has changed then.
    pub fn append(&mut self, batch: Incoming<'_>, now_ms: i64, limits: &Limits) -> Result<(Appended, usize), AppendError> {
        let bytes = batch.bytes();
        if self.is_deleted {
            return Err(AppendError::UnknownPartition);
        }
        if let Some(why) = &self.offline {
            return Err(AppendError::Storage(why.clone()));
        }
        if self.is_closing {
            return Err(AppendError::Storage("the broker is stopping".into()));
        }
        let checked = validate(bytes, &self.rules(now_ms))?;
        if checked.header.is_transactional() {
            return Err(AppendError::Transactional);
        }
        let log_append_time = (self.spec.config.timestamp_type == TimestampType::LogAppendTime).then_some(checked.max_timestamp);
        if let Verdict::Duplicate { base_offset, last_offset, timestamp } = self.producers.check(&checked.header)? {
            let log_append_time = log_append_time.map(|_| timestamp);
            return Ok((Appended { base_offset, last_offset, log_append_time, log_start: self.log_start, discards: self.discards() }, 0));
        }
        let length = bytes.len() as u64;
        let rolls = self.must_roll(&checked, length);
        self.check_space(length, rolls, limits)?;
        if rolls {
            self.stretches.push_back(Stretch::new(self.log_end(), Rc::clone(&limits.budget)));
        }
        let taken = self.take_in(batch, &checked, log_append_time, now_ms);
        let records = (taken.0.last_offset - taken.0.base_offset + 1) as u64;
        self.traffic.appended(length, records);
        limits.traffic.appended(length, records);
        Ok(taken)
    }

    fn rules(&self, now_ms: i64) -> Rules {
        let config = &self.spec.config;
        Rules {
            max_message_bytes: config.max_message_bytes,
            segment_bytes: config.segment_bytes.min(SEGMENT_BYTES_MAX),
            log_append_time: config.timestamp_type == TimestampType::LogAppendTime,
            timestamp_before_max_ms: config.timestamp_before_max_ms,
            timestamp_after_max_ms: config.timestamp_after_max_ms,
            compacted: config.compacted,
            strict: config.strict,
            decompressed_bytes_max: DECOMPRESSED_BYTES_MAX,
            now_ms,
        }
    }

    /// Kafka's rules for a new segment (`LogSegment.shouldRoll`). The indexes can't be full: they are sparse.
    fn must_roll(&self, checked: &Checked, bytes: u64) -> bool {
        let back = self.back();
        if back.end() == 0 {
            return false;
        }
        let is_full = back.end() + bytes > self.spec.config.segment_bytes.min(SEGMENT_BYTES_MAX);
        let last_offset = self.log_end() + i64::from(checked.header.last_offset_delta());
        let is_wide = last_offset - back.base_offset() > i64::from(i32::MAX);
        let is_old = back.first_timestamp().is_some_and(|first| checked.max_timestamp.saturating_sub(first) > self.spec.config.roll_ms());
        is_full || is_wide || is_old
    }

    /// On a full disk only what the segment already has blocks for, or the core's journal has room for, is taken.
    fn check_space(&mut self, bytes: u64, rolls: bool, limits: &Limits) -> Result<(), AppendError> {
        if self.no_space.is_none() && !self.must_discard {
            return Ok(());
        }
        let fits = !rolls && self.stretches.len() == 1 && self.back().end() + bytes <= self.active.allocated;
        let has_credit = !rolls && self.stretches.len() == 1 && limits.has_credit(bytes, self.spec.internal);
        if !self.must_discard && (fits || has_credit) {
            return Ok(());
        }
        let path = self.directory.display();
        Err(AppendError::Storage(format!("no space left for {path}; appends go on by themselves when there is some")))
    }

    /// A full disk is asked again, if it is time: by allocating more of the active segment, or by beginning the next one.
    pub fn ask_for_space(&mut self, now_ms: i64, limits: &Limits) {
        let Some(no_space) = &mut self.no_space else { return };
        if no_space.is_probing || now_ms < no_space.retry_at_ms || self.must_discard {
            return;
        }
        no_space.retry_at_ms = now_ms + SPACE_RETRY_MS;
        no_space.is_probing = true;
        if no_space.at_roll && self.stretches.len() == 1 && self.back().end() > 0 {
            self.stretches.push_back(Stretch::new(self.log_end(), Rc::clone(&limits.budget)));
        }
    }

    /// Ends the active segment although it is not full, if it holds anything and nothing stands in the way. True if it
    /// did: the bulk lane then writes it out, and begins the next one.
    pub fn roll(&mut self, limits: &Limits) -> bool {
        let is_free = self.offline.is_none() && !self.is_deleted && !self.is_closing && self.no_space.is_none() && !self.must_discard;
        if !is_free || self.stretches.len() > 1 || self.back().end() == 0 {
            return false;
        }
        self.stretches.push_back(Stretch::new(self.log_end(), Rc::clone(&limits.budget)));
        true
    }

    fn take_in(&mut self, batch: Incoming<'_>, checked: &Checked, log_append_time: Option<i64>, now_ms: i64) -> (Appended, usize) {
        let base_offset = self.log_end();
        let patch = Patch {
            base_offset,
            leader_epoch: self.leader_epoch,
            max_timestamp: checked.max_timestamp,
            log_append_time: log_append_time.is_some(),
        };
        let bytes = batch.bytes().len() as u64;
        let header = patched_header(batch.bytes(), &patch);
        let back = self.stretches.back_mut().expect("a partition has a segment");
        let is_first = back.end() == 0;
        if is_first {
            back.begin(now_ms);
        }
        let chunks = back.append(&header, batch);
        let header = Header::read(&header).expect("a whole header");
        if is_first || back.end() >= self.keep_at_end {
            (self.wants_keeping, self.keep_at_end) = (true, u64::MAX);
        }
        self.appended_ms = Some(now_ms);
        if self.stretches.len() == 1 {
            self.progress.append(bytes);
        }
        self.epochs.assign(self.leader_epoch, base_offset);
        self.producers.appended(&header, now_ms);
        (self.is_fresh, self.wants_parking) = (true, false);
        let discards = self.discards();
        (Appended { base_offset, last_offset: header.last_offset(), log_append_time, log_start: self.log_start, discards }, chunks)
    }
}
