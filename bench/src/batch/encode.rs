//! RecordBatch v2, encoded once before a run.

use super::HEADER_BYTES;
use anyhow::Result;
use clap::ValueEnum;
use serde::Serialize;
use std::io::Write;

/// How a batch's records are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all.
    None,
    /// LZ4 frames.
    Lz4,
}

/// Values are made of these, so that a codec has something to find: LZ4 brings them to about half.
const WORDS: [&str; 16] = [
    "espresso ",
    "ristretto",
    "user-id: ",
    "delivered",
    "payload, ",
    "timestamp",
    "currency ",
    "warehouse",
    "quantity ",
    "cancelled",
    "shipment ",
    "reference",
    "customer ",
    "unit-cost",
    "express, ",
    "thalweg; ",
];

/// A RecordBatch v2 of one record per key (`None`: without a key), each with a value of `value_bytes` bytes.
///
/// # Errors
/// The codec's.
pub fn encode(keys: &[Option<&[u8]>], value_bytes: usize, compression: Compression, timestamp_ms: i64) -> Result<Vec<u8>> {
    let records = records(keys, value_bytes);
    let (attributes, body) = match compression {
        Compression::None => (0i16, records),
        Compression::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
            encoder.write_all(&records)?;
            (3, encoder.finish()?)
        }
    };
    let mut batch = Vec::with_capacity(HEADER_BYTES + body.len());
    batch.extend_from_slice(&0i64.to_be_bytes());
    batch.extend_from_slice(&((HEADER_BYTES - 12 + body.len()) as i32).to_be_bytes());
    batch.extend_from_slice(&(-1i32).to_be_bytes());
    batch.push(2);
    batch.extend_from_slice(&[0; 4]);
    batch.extend_from_slice(&attributes.to_be_bytes());
    batch.extend_from_slice(&(keys.len() as i32 - 1).to_be_bytes());
    batch.extend_from_slice(&timestamp_ms.to_be_bytes());
    batch.extend_from_slice(&timestamp_ms.to_be_bytes());
    batch.extend_from_slice(&(-1i64).to_be_bytes());
    batch.extend_from_slice(&(-1i16).to_be_bytes());
    batch.extend_from_slice(&(-1i32).to_be_bytes());
    batch.extend_from_slice(&(keys.len() as i32).to_be_bytes());
    batch.extend_from_slice(&body);
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    Ok(batch)
}

fn records(keys: &[Option<&[u8]>], value_bytes: usize) -> Vec<u8> {
    let mut body = Vec::with_capacity(keys.len() * (value_bytes + 32));
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ keys.len() as u64;
    let mut record = Vec::new();
    for (offset, key) in keys.iter().enumerate() {
        record.clear();
        record.push(0);
        varint(&mut record, 0);
        varint(&mut record, offset as i64);
        varint(&mut record, key.map_or(-1, |key| key.len() as i64));
        record.extend_from_slice(key.unwrap_or_default());
        varint(&mut record, value_bytes as i64);
        let end = record.len() + value_bytes;
        while record.len() < end {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            // One word in four is random, as an id or an amount would be.
            let random = state.to_le_bytes();
            let word = if state & 0x300 == 0 { &random[..] } else { WORDS[state as usize % WORDS.len()].as_bytes() };
            record.extend_from_slice(&word[..word.len().min(end - record.len())]);
        }
        varint(&mut record, 0);
        varint(&mut body, record.len() as i64);
        body.extend_from_slice(&record);
    }
    body
}

fn varint(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}
