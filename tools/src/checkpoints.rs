//! `.snapshot`, `leader-epoch-checkpoint` and `partition.metadata`.

use crate::text::OptionalLong;
use anyhow::Result;
use engine::segment::{FormatError, ProducerState, decode_epochs, decode_metadata, decode_snapshot};
use std::{io::Write, str};

fn damaged(error: &FormatError, out: &mut dyn Write) -> Result<u64> {
    writeln!(out, "Damaged: {error}")?;
    Ok(1)
}

pub(crate) fn dump_snapshot(bytes: &[u8], out: &mut dyn Write) -> Result<u64> {
    match decode_snapshot(bytes) {
        Ok(producers) => {
            producers.iter().try_for_each(|producer| print_producer("", producer, out))?;
            Ok(0)
        }
        Err(error) => damaged(&error, out),
    }
}

/// A producer's line, as Kafka prints it, with all the batches that are known.
pub(crate) fn print_producer(prefix: &str, producer: &ProducerState, out: &mut dyn Write) -> Result<()> {
    let open = Some(producer.transaction_first_offset).filter(|offset| *offset >= 0);
    write!(
        out,
        "{prefix}producerId: {} producerEpoch: {} coordinatorEpoch: {} currentTxnFirstOffset: {} lastTimestamp: {}",
        producer.producer_id,
        producer.epoch,
        producer.coordinator_epoch,
        OptionalLong(open),
        producer.last_timestamp
    )?;
    for batch in &producer.batches {
        let first = (i64::from(batch.last_sequence) - i64::from(batch.offset_delta)).rem_euclid(1 << 31);
        write!(
            out,
            " firstSequence: {first} lastSequence: {} lastOffset: {} offsetDelta: {} timestamp: {}",
            batch.last_sequence, batch.last_offset, batch.offset_delta, batch.timestamp
        )?;
    }
    Ok(writeln!(out)?)
}

fn text(bytes: &[u8]) -> Result<&str, FormatError> {
    str::from_utf8(bytes).map_err(|error| FormatError::Malformed(format!("byte {}", error.valid_up_to())))
}

pub(crate) fn dump_epochs(bytes: &[u8], out: &mut dyn Write) -> Result<u64> {
    match text(bytes).and_then(decode_epochs) {
        Ok(epochs) => {
            for entry in epochs {
                writeln!(out, "epoch: {} startOffset: {}", entry.epoch, entry.start_offset)?;
            }
            Ok(0)
        }
        Err(error) => damaged(&error, out),
    }
}

pub(crate) fn dump_metadata(bytes: &[u8], out: &mut dyn Write) -> Result<u64> {
    match text(bytes).and_then(|text| decode_metadata(text).map(|id| (text, id))) {
        Ok((text, id)) => {
            let printed = text.lines().find(|line| line.starts_with("topic_id")).unwrap_or_default();
            writeln!(out, "{printed} uuid: {id}")?;
            Ok(0)
        }
        Err(error) => damaged(&error, out),
    }
}
