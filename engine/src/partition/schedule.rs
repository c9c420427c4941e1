//! What the bulk lane does next for a partition: one decision in one place.

use super::{
    limits::Limits,
    progress::Run,
    state::Partition,
    tail::{block_ceiling, block_floor},
};
use crate::disk::{BLOCK, Disk};

/// The bulk lane's next step for a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// Allocate the active segment.
    Allocate {
        /// Up to here.
        target: u64,
        /// For a run that nobody waits for.
        is_quiet: bool,
    },
    /// Write and flush this run, which has begun.
    Run {
        /// What of the segment.
        run: Run,
        /// Nobody waits for it: it moves what the journal has.
        is_quiet: bool,
    },
    /// Nobody waits for its run, and another such run is under way.
    WaitQuietly,
    /// Its run must wait until its bytes may be in flight.
    WaitForBytes {
        /// Nobody waits for it.
        is_quiet: bool,
    },
    /// Everything of the active segment is in it: cut it, complete it, and begin the next one.
    Seal,
    /// The same, without a next one: the log is being closed.
    Finish,
}

impl<D: Disk> Partition<D> {
    /// New bytes of at least this many skip the journal: never while the segment can't grow.
    #[must_use]
    pub fn skips_journal_from(&self) -> u64 {
        if self.no_space.is_some() { u64::MAX } else { self.bulk_bytes_min }
    }

    /// True if the journal lane has something to do for it.
    #[must_use]
    pub fn wants_journal(&self) -> bool {
        if self.is_deleted || self.jobs.in_frame {
            return false;
        }
        let bytes = self.may_journal() && self.progress.wants_journal(self.skips_journal_from());
        bytes || self.log_start_wanted > self.log_start
    }

    /// True if a frame may take bytes of it. What is to be discarded is not taken any more, but the end entry of a run that
    /// has begun is: without it the run never ends, and nothing is ever discarded.
    #[must_use]
    pub fn may_journal(&self) -> bool {
        self.offline.is_none() && (!self.must_discard || self.progress.run_waits_for_entry())
    }

    /// True if the bulk lane may have something to do for it.
    #[must_use]
    pub fn wants_bulk(&self, limits: &Limits) -> bool {
        let is_held_back = self.jobs.waits_quietly && self.is_quiet(limits);
        self.must_empty()
            || (self.wants_parking && !is_held_back)
            || self.no_space.is_some_and(|no_space| no_space.is_probing)
            || (limits.senders_waiting.get() > 0 && self.progress.park_is_due())
            || (!self.jobs.run && self.progress.bulk_is_due(self.skips_journal_from()))
            || (!self.jobs.run && !is_held_back && self.progress.move_is_due(self.move_bytes_min(limits)))
            || self.allocation_ahead().is_some()
    }

    /// All of the active segment's bytes are to go into it: a roll, or a clean stop.
    fn must_empty(&self) -> bool {
        self.stretches.len() > 1 || self.is_closing
    }

    /// True if the active segment is to be cut to its end, and the journal still vouches for bytes behind that: a head must come first.
    #[must_use]
    pub fn wants_head(&self) -> bool {
        self.must_empty() && self.progress.is_vouched_above() && self.offline.is_none() && !self.is_deleted
    }

    /// True if nobody waits for what the journal holds to be moved.
    fn is_quiet(&self, limits: &Limits) -> bool {
        !self.must_empty() && !limits.is_pressed()
    }

    /// What the journal holds moves to the segment in runs of at least so many bytes.
    fn move_bytes_min(&self, limits: &Limits) -> u64 {
        if limits.is_pressed() || self.must_empty() { BLOCK } else { limits.bulk_bytes_min }
    }

    /// What is to be done now; `None` if nothing. A run that is returned has begun. At most `bytes_free` may be written.
    pub fn next_job(&mut self, limits: &Limits, bytes_free: u64) -> Option<Job> {
        if self.offline.is_some() || self.is_deleted || self.jobs.sealing || self.is_finished || self.must_discard {
            return None;
        }
        if let Some(target) = self.allocation_ahead() {
            return Some(Job::Allocate { target, is_quiet: false });
        }
        if let Some(no_space) = self.no_space
            && no_space.is_probing
            && !no_space.at_roll
            && !self.jobs.allocating
        {
            let wanted = self.front().end().max(self.active.allocated) + 1;
            return Some(Job::Allocate { target: self.allocation_target(wanted), is_quiet: false });
        }
        // A write to a file that is growing would wait for its lock in a kernel worker: it waits here instead.
        if self.jobs.run || self.jobs.allocating {
            return None;
        }
        self.next_run(limits, bytes_free).or_else(|| self.next_seal())
    }

    fn next_run(&mut self, limits: &Limits, bytes_free: u64) -> Option<Job> {
        let progress = &self.progress;
        let bulk = progress.bulk_is_due(self.skips_journal_from());
        let moves = progress.move_is_due(self.move_bytes_min(limits));
        // A roll and a clean stop write the last partial block too, an idle partition as well, and senders that wait for
        // room must not wait for ever.
        let left = block_ceiling(progress.end()) - block_floor(progress.flushed());
        let parks = !bulk
            && progress.park_is_due()
            && (self.must_empty() || self.wants_parking || limits.senders_waiting.get() > 0)
            && left <= limits.run_bytes_max;
        if !(bulk || moves || parks) {
            return None;
        }
        let is_quiet = !bulk && self.is_quiet(limits);
        if is_quiet && !limits.may_run_quietly() {
            return Some(Job::WaitQuietly);
        }
        let start = block_floor(progress.flushed());
        let most = limits.run_bytes_max;
        let wanted_end = match (bulk, parks) {
            (true, _) => block_floor(progress.end()).min(start + most).max(block_floor(progress.taken()) + BLOCK),
            (false, true) => block_ceiling(progress.end()),
            (false, false) => block_floor(progress.durable()).min(start + most),
        };
        if wanted_end > self.active.allocated {
            return self.allocation(wanted_end).map(|target| Job::Allocate { target, is_quiet });
        }
        if wanted_end - start > bytes_free {
            return Some(Job::WaitForBytes { is_quiet });
        }
        let run = match (bulk, parks) {
            (true, _) => self.progress.begin_bulk(most),
            (false, true) => self.progress.begin_park(),
            (false, false) => self.progress.begin_move(most),
        };
        debug_assert!(block_ceiling(run.segment_end) <= self.active.allocated, "runs stay within what is allocated");
        self.jobs.run = true;
        self.jobs.parking = parks && self.wants_parking;
        self.active.submitted = self.active.submitted.max(block_ceiling(run.segment_end));
        Some(Job::Run { run, is_quiet })
    }

    fn next_seal(&mut self) -> Option<Job> {
        let is_whole = self.progress.is_settled() && self.progress.flushed() == self.progress.end() && self.jobs.is_idle();
        if !is_whole || !self.may_take_space() || self.progress.is_vouched_above() {
            return None;
        }
        let job = match (self.stretches.len() > 1, self.is_closing) {
            (true, _) => Job::Seal,
            (false, true) => Job::Finish,
            (false, false) => return None,
        };
        self.jobs.sealing = true;
        Some(job)
    }

    /// A disk that was full is only asked at its time, or when the log is closed.
    fn may_take_space(&self) -> bool {
        self.is_closing || self.no_space.is_none_or(|no_space| no_space.is_probing)
    }

    /// Space is allocated before the hot path needs it.
    fn allocation_ahead(&self) -> Option<u64> {
        let active = &self.active;
        let is_growing = active.submitted > 0 && self.stretches.len() == 1 && !self.is_closing;
        let is_low = active.allocated < self.front().end() + active.growth.bytes() / 2;
        let target = (active.allocated + active.growth.bytes()).min(self.whole_segment());
        (is_growing && is_low && self.no_space.is_none() && !self.jobs.allocating && target > active.allocated).then_some(target)
    }

    fn allocation(&self, wanted: u64) -> Option<u64> {
        (!self.jobs.allocating && self.may_take_space()).then(|| self.allocation_target(wanted))
    }

    /// As much as is wanted and a step more, but no more than the segment may become unless it is wanted.
    fn allocation_target(&self, wanted: u64) -> u64 {
        let active = &self.active;
        block_ceiling(wanted).max((active.allocated + active.growth.bytes()).min(self.whole_segment().max(active.allocated)))
    }

    /// What a segment may become, in whole blocks.
    fn whole_segment(&self) -> u64 {
        block_ceiling(self.spec.config.segment_bytes.min(super::SEGMENT_BYTES_MAX))
    }
}
