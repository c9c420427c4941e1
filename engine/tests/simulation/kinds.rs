//! The kinds of histories: a part of the seeds lives in a world where what is rare elsewhere is frequent.

use crate::life::Sizes;
use engine::log::LogConfig;
use std::ops::Range;

/// Seeds with one of these rests by 11 have busy journals.
const BUSY_RESTS: [u64; 3] = [3, 6, 10];
/// Seeds with this rest by 6 have a slow device for their segments beside a quick one for the journal, one core at first,
/// and many clients.
const SLOW_REST: u64 = 5;
/// Seeds with one of these rests by 10 fall again and again, under many clients whose batches are all alike in size, with
/// an even slower device for their segments.
const FALLING_RESTS: [u64; 3] = [1, 2, 4];
/// Segments of seeds with one of these rests by 16 rot between two lives.
const ROT_RESTS: [u64; 2] = [6, 7];

/// What a seed's history is like.
#[derive(Clone, Debug)]
pub struct Kind {
    is_busy: bool,
    /// How many times longer an operation on a segment takes. Frames and switches of the journal go on while a run is under
    /// way: a head must carry what the run's frame holds, beyond the gap that the run is filling.
    pub segments_slower: Option<u64>,
    /// Much is unflushed when the broker falls, and it falls again before much has come over what that left behind.
    pub falls_again: bool,
    /// Bytes change by themselves while no broker runs.
    pub rots: bool,
    /// Cores of the first start.
    pub cores: usize,
    /// How many lives the broker has.
    pub lives: Range<u64>,
    /// Clients that do something in each operation.
    pub clients: u64,
    /// Steps between two operations at most; each life has its own otherwise.
    pub steps_max: Option<u64>,
}

impl Kind {
    /// The kind of a seed.
    pub fn of(seed: u64) -> Kind {
        let kind = Kind {
            is_busy: BUSY_RESTS.contains(&(seed % 11)),
            segments_slower: None,
            falls_again: false,
            rots: ROT_RESTS.contains(&(seed % 16)),
            cores: 2,
            lives: 3..6,
            clients: 1,
            steps_max: None,
        };
        if seed % 6 == SLOW_REST {
            Kind { segments_slower: Some(4), cores: 1, clients: 4, steps_max: Some(200), ..kind }
        } else if FALLING_RESTS.contains(&(seed % 10)) {
            Kind { segments_slower: Some(20), falls_again: true, lives: 12..24, clients: 6, steps_max: Some(60), ..kind }
        } else {
            kind
        }
    }

    /// Sizes that go with it.
    pub fn shape(&self, config: &mut LogConfig, sizes: &mut Sizes) {
        if self.is_busy {
            // A journal file is full every few appends, beside runs of new bytes: what a head leaves out is missed.
            (config.bulk_bytes_min, config.journal_bytes) = (32 << 10, 768 << 10);
            (sizes.small_max, sizes.large_max, sizes.large_every) = (24_000, 60_000, 3);
            sizes.partition.segment_bytes = 256 << 10;
        }
        if self.falls_again {
            // A new batch ends where an old one did, so that behind it another one may be found that must not come back.
            config.bulk_bytes_min = 8 << 10;
            (sizes.small_max, sizes.are_alike) = (3_000, true);
            sizes.partition.segment_bytes = 256 << 10;
        } else if self.segments_slower.is_some() {
            (config.bulk_bytes_min, config.journal_bytes) = (8 << 10, 768 << 10);
            (sizes.small_max, sizes.large_max, sizes.large_every) = (8_000, 40_000, 3);
        }
    }
}
