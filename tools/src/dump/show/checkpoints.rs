//! `.snapshot`, `leader-epoch-checkpoint`, `partition.metadata` and the checkpoints of a data directory.

use super::{Line, Printer, Value};
use anyhow::Result;
use engine::{
    kafka::decode_offsets,
    segment::{FormatError, ProducerState, decode_epochs, decode_metadata, decode_snapshot},
};
use serde_json::json;
use std::str;

fn damaged(error: &FormatError, out: &mut Printer<'_>) -> Result<bool> {
    out.damage(None, &format!("Damaged: {error}"))?;
    Ok(false)
}

pub(super) fn snapshot(bytes: &[u8], out: &mut Printer<'_>) -> Result<bool> {
    match decode_snapshot(bytes) {
        Ok(producers) => {
            producers.iter().try_for_each(|producer| out.line(&producer_line(Line::new("producer"), producer)))?;
            Ok(true)
        }
        Err(error) => damaged(&error, out),
    }
}

/// A producer's line, as Kafka prints it, with all the batches that are known.
pub(super) fn producer_line(line: Line, producer: &ProducerState) -> Line {
    let open = Some(producer.transaction_first_offset).filter(|offset| *offset >= 0);
    let mut line = line.int("producerId", producer.producer_id).int("producerEpoch", producer.epoch);
    line = line.int("coordinatorEpoch", producer.coordinator_epoch).with("currentTxnFirstOffset", Value::OptionalLong(open));
    line = line.int("lastTimestamp", producer.last_timestamp);
    let mut batches = Vec::new();
    for batch in &producer.batches {
        let first = (i64::from(batch.last_sequence) - i64::from(batch.offset_delta)).rem_euclid(1 << 31);
        let fields = [
            ("firstSequence", first),
            ("lastSequence", i64::from(batch.last_sequence)),
            ("lastOffset", batch.last_offset),
            ("offsetDelta", i64::from(batch.offset_delta)),
            ("timestamp", batch.timestamp),
        ];
        batches.push(fields.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect::<serde_json::Map<_, _>>());
        // Kafka's lines have these fields; in JSON they are in `batches`.
        line = fields.into_iter().fold(line, |line, (name, value)| line.with(name, Value::Spoken(value.to_string())));
    }
    line.with("batches", Value::Hidden(json!(batches)))
}

fn text(bytes: &[u8]) -> Result<&str, FormatError> {
    str::from_utf8(bytes).map_err(|error| FormatError::Malformed(format!("byte {}", error.valid_up_to())))
}

pub(super) fn epochs(bytes: &[u8], out: &mut Printer<'_>) -> Result<bool> {
    match text(bytes).and_then(decode_epochs) {
        Ok(epochs) => {
            for entry in epochs {
                out.line(&Line::new("leaderEpoch").int("epoch", entry.epoch).int("startOffset", entry.start_offset))?;
            }
            Ok(true)
        }
        Err(error) => damaged(&error, out),
    }
}

pub(super) fn metadata(bytes: &[u8], out: &mut Printer<'_>) -> Result<bool> {
    match text(bytes).and_then(|text| decode_metadata(text).map(|id| (text, id))) {
        Ok((text, id)) => {
            let printed = text.lines().find_map(|line| line.strip_prefix("topic_id:")).unwrap_or_default().trim();
            out.line(&Line::new("partitionMetadata").text("topic_id", printed).text("uuid", id.to_string()))?;
            Ok(true)
        }
        Err(error) => damaged(&error, out),
    }
}

pub(super) fn offsets(bytes: &[u8], out: &mut Printer<'_>) -> Result<bool> {
    match decode_offsets(bytes) {
        Ok(entries) => {
            for (topic, partition, offset) in entries {
                out.line(&Line::new("checkpoint").text("topic", topic).int("partition", partition).int("offset", offset))?;
            }
            Ok(true)
        }
        Err(error) => damaged(&error, out),
    }
}
