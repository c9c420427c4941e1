//! Snapshots and checkpoints: files whose content says by itself whether it is sound.

use super::{Finding, Fix, Level};
use crate::dump::inputs::{Known, trimmed_index, trimmed_times};
use engine::{
    kafka::decode_offsets,
    segment::{EpochStart, FileKind, FormatError, OffsetIndex, TimeIndex, TxnIndex, decode_epochs, decode_metadata, decode_snapshot},
};
use std::path::Path;

/// What is wrong with a file when nothing else is known.
pub(super) fn verify_file(path: &Path, bytes: &[u8]) -> Vec<Finding> {
    let text = |decode: fn(&str) -> Result<(), FormatError>| match std::str::from_utf8(bytes) {
        Ok(text) => decode(text).map_err(|error| error.to_string()),
        Err(error) => Err(format!("it is no text at byte {}", error.valid_up_to())),
    };
    let result = match Known::of(path) {
        Some(Known::Segment(base, FileKind::Index)) => {
            OffsetIndex::decode(base, trimmed_index(bytes), u64::MAX).map(drop).map_err(|error| error.to_string())
        }
        Some(Known::Segment(base, FileKind::TimeIndex)) => {
            TimeIndex::decode(base, trimmed_times(bytes)).map(drop).map_err(|error| error.to_string())
        }
        Some(Known::Segment(_, FileKind::TxnIndex)) => TxnIndex::decode(bytes).map(drop).map_err(|error| error.to_string()),
        Some(Known::Segment(_, FileKind::Snapshot)) => decode_snapshot(bytes).map(drop).map_err(|error| error.to_string()),
        Some(Known::LeaderEpochs) => text(|text| decode_epochs(text).map(drop)),
        Some(Known::Metadata) => text(|text| decode_metadata(text).map(drop)),
        Some(Known::Offsets) => decode_offsets(bytes).map(drop).map_err(|error| error.to_string()),
        _ => Ok(()),
    };
    let Err(what) = result else { return Vec::new() };
    let finding = Finding::new(Level::Corrupt, path, what);
    vec![match Known::of(path) {
        Some(Known::Segment(_, FileKind::Snapshot)) => {
            finding.action("--repair puts it aside: the producers' state then comes from an older one and the log").fix(Fix::Aside)
        }
        Some(Known::LeaderEpochs) => finding.action("--repair writes it anew from the batches").fix(Fix::Epochs),
        Some(Known::Metadata) => finding.action("it names the topic's id: take it from another partition of the topic"),
        Some(Known::Offsets) => finding.action("delete it: the broker then reads more of its logs at the next start"),
        _ => finding,
    }]
}

/// Whether a batch's epoch is the one that the checkpoint has for its offset.
pub(super) fn agrees(epochs: &[EpochStart], base_offset: i64, leader_epoch: i32) -> bool {
    let at = epochs.partition_point(|entry| entry.start_offset <= base_offset);
    at.checked_sub(1).is_some_and(|at| epochs[at].epoch == leader_epoch)
}
