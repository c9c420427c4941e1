//! Producers and leader epochs of a partition under recovery: from snapshot, checkpoint and head, then batch by batch.

use super::journals::Journaled;
use crate::{
    batch::{ControlRecord, Header, control_batch},
    disk::{Disk, read_whole},
    partition::directory::read_text,
    segment::{
        AbortedTxn, EpochStart, FileKind, LEADER_EPOCH_CHECKPOINT, NO_TRANSACTION, OpenTransactions, PRODUCER_BATCHES_MAX, ProducerState,
        SequencedBatch, decode_epochs, decode_snapshot, file_name,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
};

/// Producers and epochs so far.
pub(super) struct Producers {
    states: BTreeMap<i64, ProducerState>,
    /// Those that the snapshot does not tell, or not in full.
    changed: BTreeSet<i64>,
    open: OpenTransactions,
    /// Transactions whose abort marker was seen.
    pub(super) aborted: Vec<AbortedTxn>,
    /// The last epoch of the checkpoint, and those that began since.
    checkpointed: i32,
    epochs: Vec<EpochStart>,
    /// The highest leader epoch seen, -1 if none was.
    pub(super) highest_epoch: i32,
    /// The highest producer id seen, -1 if none was.
    pub(super) highest_id: i64,
}

impl Producers {
    /// Those of the snapshot at offset `snapshot`, of `leader-epoch-checkpoint`, and of the head, which wins. Files that
    /// are damaged count as empty: what they said is in the log, or of no producer that still sends. So does a checkpoint with an
    /// epoch above `epoch_max`, which nobody has given.
    pub(super) async fn read<D: Disk>(
        disk: &D,
        directory: &Path,
        snapshot: Option<i64>,
        journaled: &Journaled,
        epoch_max: i32,
    ) -> io::Result<Producers> {
        let mut states = Vec::new();
        if let Some(offset) = snapshot {
            let path = directory.join(file_name(offset, FileKind::Snapshot));
            states = decode_snapshot(&read_whole(disk, &path).await?).unwrap_or_else(|error| {
                tracing::warn!("{} is not used: {error}", path.display());
                Vec::new()
            });
        }
        let text = read_text(disk, &directory.join(LEADER_EPOCH_CHECKPOINT)).await?;
        let checkpoint = text.and_then(|text| decode_epochs(&text).ok());
        let checkpoint = checkpoint.filter(|epochs| epochs.iter().all(|start| start.epoch <= epoch_max)).unwrap_or_default();
        let checkpointed = checkpoint.last().map_or(-1, |last| last.epoch);
        let changed = journaled.producers.iter().map(|state| state.producer_id).collect();
        let mut states: BTreeMap<_, _> = states.into_iter().map(|state| (state.producer_id, state)).collect();
        for state in &journaled.producers {
            let merged = match states.remove(&state.producer_id) {
                Some(snapshot) => merge(state.clone(), snapshot),
                None => state.clone(),
            };
            states.insert(state.producer_id, merged);
        }
        let all: Vec<_> = states.values().cloned().collect();
        Ok(Producers {
            open: OpenTransactions::of(&all),
            highest_id: states.last_key_value().map_or(-1, |(id, _)| *id),
            states,
            changed,
            aborted: Vec::new(),
            checkpointed,
            highest_epoch: journaled.epochs.iter().map(|epoch| epoch.epoch).chain([checkpointed]).max().unwrap_or(-1),
            epochs: journaled.epochs.clone(),
        })
    }

    /// Takes in the next batch of the scan. One that the head knows already changes nothing.
    pub(super) fn push(&mut self, header: &Header, batch: &[u8]) {
        let epoch = header.leader_epoch();
        if epoch > self.epochs.last().map_or(self.checkpointed, |last| last.epoch) {
            self.epochs.push(EpochStart { epoch, start_offset: header.base_offset() });
        }
        self.highest_epoch = self.highest_epoch.max(epoch);
        if !header.has_producer() {
            return;
        }
        let producer_id = header.producer_id();
        self.highest_id = self.highest_id.max(producer_id);
        let state = self.states.entry(producer_id).or_insert_with(|| ProducerState {
            producer_id,
            epoch: header.producer_epoch(),
            coordinator_epoch: -1,
            last_timestamp: -1,
            transaction_first_offset: NO_TRANSACTION,
            batches: Vec::new(),
        });
        if state.batches.last().is_some_and(|last| last.last_offset >= header.last_offset()) {
            return;
        }
        self.changed.insert(producer_id);
        if header.producer_epoch() != state.epoch {
            state.epoch = header.producer_epoch();
            state.batches.clear();
        }
        // The broker's clock at the append is not known any more; the newest time that is stands for it.
        state.last_timestamp = state.last_timestamp.max(header.max_timestamp());
        let control = ControlRecord::of_batch(header, batch);
        if let Some(ControlRecord::Abort { coordinator_epoch } | ControlRecord::Commit { coordinator_epoch }) = control {
            state.coordinator_epoch = coordinator_epoch;
        }
        if !header.is_control() {
            state.batches.push(SequencedBatch {
                last_sequence: header.last_sequence(),
                last_offset: header.last_offset(),
                offset_delta: header.last_offset_delta(),
                timestamp: header.max_timestamp(),
            });
            let surplus = state.batches.len().saturating_sub(PRODUCER_BATCHES_MAX);
            state.batches.drain(..surplus);
        }
        self.aborted.extend(self.open.push(header, control));
        state.transaction_first_offset = self.open.first_offset(producer_id).unwrap_or(NO_TRANSACTION);
    }

    /// Aborts all open transactions, as an import does, and as their coordinator would have done in time. Returns their markers, which go
    /// behind the log's end one after the other; their leader epoch is still to be filled in.
    pub(super) fn abort_open(&mut self, log_end: i64) -> Vec<Vec<u8>> {
        let open = self.states.values().filter(|state| state.transaction_first_offset != NO_TRANSACTION);
        // As old as the data: retention takes them with it.
        let time_ms = |state: &ProducerState| state.batches.last().map_or(state.last_timestamp, |last| last.timestamp);
        let open: Vec<_> = open.map(|state| ((state.producer_id, state.epoch), time_ms(state))).collect();
        let markers: Vec<_> =
            (log_end..).zip(open).map(|(offset, (producer, time_ms))| control_batch(offset, -1, producer, false, time_ms)).collect();
        markers.iter().for_each(|marker| self.push(&Header::read(marker).expect("just built"), marker));
        markers
    }

    /// The producers that the snapshot does not tell in full, and the epochs that the checkpoint does not, for a log that
    /// ends at `log_end`. If a loss `is_accepted`, they may have known more than is left.
    pub(super) fn into_changed(mut self, log_end: i64, is_accepted: bool) -> (Vec<ProducerState>, Vec<EpochStart>) {
        self.epochs.retain(|epoch| epoch.start_offset < log_end);
        for state in self.states.values_mut().filter(|_| is_accepted) {
            state.batches.retain(|batch| batch.last_offset < log_end);
            if state.transaction_first_offset >= log_end {
                state.transaction_first_offset = NO_TRANSACTION;
            }
        }
        let changed = &self.changed;
        self.states.retain(|id, _| changed.contains(id));
        (self.states.into_values().collect(), self.epochs)
    }
}

/// A head's producer and a snapshot's. The snapshot is the newer one where segments below the log start are not scanned.
fn merge(mut head: ProducerState, snapshot: ProducerState) -> ProducerState {
    // An epoch only rises: a marker that ended a transaction with a new one (KIP-890) leaves no batches, and is the newer all the same.
    if head.epoch > snapshot.epoch {
        return head;
    }
    let last = |state: &ProducerState| state.batches.last().map_or(-1, |batch| batch.last_offset);
    if last(&snapshot) <= last(&head) {
        return head;
    }
    if head.epoch != snapshot.epoch {
        return snapshot;
    }
    head.batches.extend(&snapshot.batches);
    let surplus = head.batches.len().saturating_sub(PRODUCER_BATCHES_MAX);
    let batches = head.batches.split_off(surplus);
    ProducerState { batches, ..snapshot }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(epoch: i16, transaction_first_offset: i64, last_offset: Option<i64>) -> ProducerState {
        let batch = |last_offset| SequencedBatch { last_sequence: 0, last_offset, offset_delta: 0, timestamp: 0 };
        ProducerState {
            producer_id: 7,
            epoch,
            coordinator_epoch: 0,
            last_timestamp: 0,
            transaction_first_offset,
            batches: last_offset.into_iter().map(batch).collect(),
        }
    }

    #[test]
    fn a_transaction_that_a_marker_of_a_new_epoch_ended_stays_ended() {
        let ended = state(3, NO_TRANSACTION, None);
        assert_eq!(merge(ended.clone(), state(2, 167, Some(200))), ended);
    }

    #[test]
    fn a_snapshot_above_the_log_start_is_newer_than_a_head_below_it() {
        assert_eq!(merge(state(2, NO_TRANSACTION, Some(9)), state(3, 20, Some(30))), state(3, 20, Some(30)));
        assert_eq!(merge(state(2, NO_TRANSACTION, Some(30)), state(2, 9, Some(9))), state(2, NO_TRANSACTION, Some(30)));
    }
}
