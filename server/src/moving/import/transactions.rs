//! `__transaction_state`: transactions whose commit was decided, but has not reached every partition yet. Only that Kafka's
//! coordinator can finish them; ending them as aborted would undo a commit that a client was told of.

use crate::moving::groups::each_batch;
use anyhow::{Context, Result};
use engine::batch::{DECOMPRESSED_BYTES_MAX, Records, payload};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Where a `TransactionLogValue` (versions 0 and 1) has its status: behind version, producer id, epoch and timeout.
const STATUS_AT: usize = 2 + 8 + 2 + 4;
const PREPARE_COMMIT: u8 = 2;

/// The transactional ids whose commit is under way.
pub(super) fn committing(directories: &[PathBuf], torn: bool) -> Result<Vec<String>> {
    let mut states = BTreeMap::new();
    for directory in directories {
        read(directory, torn, &mut states).with_context(|| format!("{} can't be read", directory.display()))?;
    }
    Ok(states.into_iter().filter(|(_, status)| *status == PREPARE_COMMIT).map(|(id, _)| id).collect())
}

fn read(directory: &Path, torn: bool, states: &mut BTreeMap<String, u8>) -> Result<()> {
    each_batch(directory, torn, |header, bytes| {
        let payload = payload(header, bytes, DECOMPRESSED_BYTES_MAX)?;
        for record in Records::new(header, &payload) {
            let record = record?;
            // Key: version 0, then the transactional id with its length.
            let Some([0, 0, _, _, id @ ..]) = record.key else { continue };
            let id = String::from_utf8_lossy(id).into_owned();
            match record.value.and_then(|value| value.get(STATUS_AT)) {
                Some(status) => drop(states.insert(id, *status)),
                None => drop(states.remove(&id)),
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::batch::BatchBuilder;

    #[test]
    fn the_last_state_of_a_transaction_counts() {
        let dir = tempfile::tempdir().unwrap();
        let key = |id: &str| [&[0, 0, 0, id.len() as u8][..], id.as_bytes()].concat();
        let value = |status: u8| [&[0, 1][..], &[0; 14], &[status], &[0; 10]].concat();
        let batch = BatchBuilder::new()
            .record(1, Some(&key("done")), Some(&value(2)))
            .record(1, Some(&key("done")), Some(&value(4)))
            .record(1, Some(&key("under way")), Some(&value(2)))
            .record(1, Some(&key("gone")), Some(&value(2)))
            .record(1, Some(&key("gone")), None)
            .build();
        std::fs::write(dir.path().join("00000000000000000000.log"), batch).unwrap();
        assert_eq!(committing(&[dir.path().to_owned()], false).unwrap(), ["under way"]);
    }
}
