//! The deliberate bugs of the simulation: a proof is worth what it catches, so each rule of the journal can be broken
//! on purpose. Compiled out of the broker (feature `bugs`, which only the engine's own tests turn on).

/// A rule that is broken on purpose, one at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// An append is acked when its write has completed, not when a flush covers it.
    AckBeforeFlush,
    /// A head leaves out part of what the older file is needed for (every other carried entry).
    HeadIncomplete,
    /// A head carries only the bytes up to the first gap that the bulk lane is still filling.
    BeyondGapNotCarried,
    /// Frames behind a new file's head are acked, and the older file is written again, before that head is durable.
    OlderFileOverwritten,
    /// A start scans the segment first and lays the journal's entries over it afterwards.
    ScanBeforeOverlay,
    /// A start doesn't flush the segments in which its scan went beyond the flushed end (step 4).
    NoFlushInRecovery,
    /// A start applies frames whose checksum is wrong.
    UncheckedFrame,
    /// A start keeps the salt of the last one, and its number: old frames behind the new head look like its own.
    SaltNotRenewed,
    /// Heads hold the producers as of the last append instead of the durable end.
    ProducersAsOfAppend,
    /// Entries and directories are matched by the topic's name (the directory), not by the partition's id.
    PartitionByName,
    /// A start neither cuts what is stale nor refuses batches whose epoch goes back. (Each alone is masked by the other.)
    NoTruncationNoEpoch,
    /// A start, or an opening, takes damage in what the journal vouches for as the end of the log.
    DamageAsTornEnd,
    /// A head leaves out what the journal holds of a partition that is damaged.
    DamagedNotCarried,
    /// A start takes the superblock's floor for the highest leader epoch that was given: what was created behind a deletion has one above.
    EpochsOfFloor,
    /// A start writes one slot of the superblock: the other one still names the start before.
    OneSlot,
}

impl Bug {
    /// Every bug.
    pub const ALL: [Bug; 15] = [
        Bug::AckBeforeFlush,
        Bug::HeadIncomplete,
        Bug::BeyondGapNotCarried,
        Bug::OlderFileOverwritten,
        Bug::ScanBeforeOverlay,
        Bug::NoFlushInRecovery,
        Bug::UncheckedFrame,
        Bug::SaltNotRenewed,
        Bug::ProducersAsOfAppend,
        Bug::PartitionByName,
        Bug::NoTruncationNoEpoch,
        Bug::DamageAsTornEnd,
        Bug::DamagedNotCarried,
        Bug::EpochsOfFloor,
        Bug::OneSlot,
    ];
}

#[cfg(feature = "bugs")]
thread_local! {
    static SWITCH: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// True if `bug` is switched on for this thread. Constantly false in the broker.
#[inline]
#[must_use]
pub fn on(bug: Bug) -> bool {
    #[cfg(feature = "bugs")]
    {
        SWITCH.get() == Some(bug)
    }
    #[cfg(not(feature = "bugs"))]
    {
        let _ = bug;
        false
    }
}

/// Switches one bug on for this thread, or all off.
#[cfg(feature = "bugs")]
pub fn switch(bug: Option<Bug>) {
    SWITCH.set(bug);
}
