//! What must hold of any bytes: the fuzz targets ask it of new ones, `engine/tests/fuzz_corpora.rs` of those in `corpus`.
//!
//! The first byte of an input chooses the way it is read. Checksums would keep a fuzzer out, so some ways repair them.

#![allow(dead_code)]

use engine::{
    batch::{ControlRecord, Header, Patch, RecordError, Records, Rules, Scanner, Stop, copy_patched, crc, payload, scan, validate},
    disk::{
        BLOCK,
        sim::{Executor, SimDisk},
        write_whole,
    },
    journal::{
        FILE_BYTES_MIN, FRAME_ALIGNMENT, FRAME_HEADER_BYTES, FrameHeader, Identity, Superblock, Which, check, decode, file_path, read_core,
    },
    kafka::{decode_offsets, encode_offsets},
    partition::{Epochs, Producers},
    segment::{
        Indexes, OffsetIndex, TimeIndex, TxnIndex, decode_epochs, decode_metadata, decode_snapshot, encode_epochs, encode_metadata,
        encode_snapshot,
    },
};
use std::path::{Path, PathBuf};

/// What a batch may decompress to in here, in bytes.
const DECOMPRESSED_BYTES_MAX: usize = 1 << 20;

/// Validation, patching, scanning and replay of batches.
pub fn batch(data: &[u8]) {
    let Some((&way, data)) = data.split_first() else { return };
    let mut bytes = data.to_vec();
    if way & 1 != 0 {
        repair_batch(&mut bytes);
    }
    let rules = Rules {
        log_append_time: way & 2 != 0,
        compacted: way & 4 != 0,
        strict: way & 8 != 0,
        timestamp_after_max_ms: if way & 16 != 0 { 1_000 } else { i64::MAX },
        decompressed_bytes_max: DECOMPRESSED_BYTES_MAX,
        now_ms: 1_700_000_000_000,
        ..Rules::default()
    };
    if let Ok(checked) = validate(&bytes, &rules) {
        accepted(&bytes, &checked.header, checked.max_timestamp, &rules);
    }
    scanned(&bytes);
}

/// Makes length and CRC of a batch fit its bytes.
fn repair_batch(bytes: &mut [u8]) {
    if bytes.len() >= 61 {
        let length = (bytes.len() - 12) as i32;
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        let crc = crc(bytes);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    }
}

/// An accepted batch is appended and found again, whole and alone.
fn accepted(bytes: &[u8], header: &Header, max_timestamp: i64, rules: &Rules) {
    assert_eq!(header.size(), bytes.len());
    assert!(header.record_count() > 0 && header.last_offset_delta() + 1 == header.record_count() && !header.is_control());
    let patch = Patch { base_offset: 77, leader_epoch: 3, max_timestamp, log_append_time: rules.log_append_time };
    let mut patched = Vec::new();
    copy_patched(bytes, &patch, &mut patched);
    let mut found = 0;
    let end = scan(&patched, Scanner::new(0, 77, 3), |position, header, batch| {
        found += 1;
        assert_eq!((position, batch.len()), (0, bytes.len()));
        assert_eq!((header.max_timestamp(), header.is_log_append_time()), (max_timestamp, rules.log_append_time));
    });
    assert_eq!((found, end.stop), (1, Stop::End));
    if rules.strict || rules.compacted || header.attributes() & 7 == 0 {
        let payload = payload(header, bytes, DECOMPRESSED_BYTES_MAX).expect("it was walked");
        let mut walked = 0;
        for record in Records::new(header, &payload) {
            let record = record.expect("it was walked");
            assert_eq!(record.offset_delta, walked);
            assert_eq!(record.headers.iter().count(), record.headers.len());
            walked += 1;
        }
        assert_eq!(walked, header.record_count());
    }
}

/// A scan finds consecutive valid batches of rising offsets, and what follows them can be replayed.
fn scanned(bytes: &[u8]) {
    let (mut next_position, mut next_offset, mut epoch) = (0, 0, i32::MIN);
    let mut indexes = Indexes::new(0);
    let mut producers = Producers::new(16);
    let mut epochs = Epochs::default();
    let end = scan(bytes, Scanner::new(0, 0, i32::MIN), |position, header, batch| {
        assert_eq!((position, crc(batch)), (next_position, header.crc()));
        assert!(header.base_offset() >= next_offset && header.leader_epoch() >= epoch && header.last_offset() < i64::MAX);
        (next_position, next_offset, epoch) = (position + batch.len() as u64, header.next_offset(), header.leader_epoch());
        indexes.push(position, header);
        epochs.assign(header.leader_epoch(), header.base_offset());
        if producers.check(header).is_ok() {
            producers.appended(header, 5);
            producers.durable_to(header.next_offset());
        } else {
            producers.replay(header, ControlRecord::of_batch(header, batch), 5);
        }
        match payload(header, batch, DECOMPRESSED_BYTES_MAX) {
            Ok(payload) => assert!(Records::new(header, &payload).take_while(Result::is_ok).count() <= payload.len()),
            Err(RecordError::UnknownCodec(_) | RecordError::Compression { .. } | RecordError::TooLarge { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    });
    assert_eq!(end.end.position, next_position);
    indexes.seal();
    assert!(indexes.offsets.lookup(i64::MAX) <= next_position);
    // Sequences of a log that was not produced here may be anything, but its state is always a snapshot.
    for state in decode_snapshot(&encode_snapshot(&producers.snapshot())).expect("valid") {
        producers.import(&state, next_offset);
    }
    let _ = producers.for_checkpoint(0, next_offset, 5);
}

/// Index files, snapshots and checkpoints: what is accepted is encoded to the same bytes again.
pub fn indexes(data: &[u8]) {
    let Some((&way, data)) = data.split_first() else { return };
    let base = if way & 0x80 != 0 { i64::MAX - 10 } else { 1_000 };
    match way % 6 {
        0 => {
            if let Ok(index) = OffsetIndex::decode(base, data, 1 << 40) {
                assert_eq!(index.encode(), data);
                for entry in index.entries() {
                    let offset = base.saturating_add(i64::from(entry.relative_offset));
                    assert_eq!(index.lookup(offset), u64::from(entry.position));
                    assert!(index.lookup(offset - 1) < u64::from(entry.position));
                }
            }
        }
        1 => {
            if let Ok(index) = TimeIndex::decode(base, data) {
                assert!(data.ends_with(&index.encode()));
                for entry in index.entries() {
                    assert_eq!(index.lookup(entry.timestamp), base + i64::from(entry.relative_offset));
                }
            }
        }
        2 => {
            if let Ok(mut index) = TxnIndex::decode(data) {
                assert_eq!(index.encode(), data);
                index.collect(0, i64::MAX, &mut Vec::new());
                index.truncate(base);
                assert!(index.entries().iter().all(|entry| entry.last_offset < base));
            }
        }
        3 => {
            let mut bytes = data.to_vec();
            if bytes.len() >= 10 {
                let crc = crc32c::crc32c(&bytes[6..]);
                bytes[2..6].copy_from_slice(&crc.to_be_bytes());
            }
            if let Ok(states) = decode_snapshot(&bytes) {
                let mut producers = Producers::new(1_000);
                states.iter().for_each(|state| producers.import(state, 0));
                let again = decode_snapshot(&encode_snapshot(&states)).expect("valid");
                assert_eq!(again, states);
            }
        }
        4 => {
            if let Ok(offsets) = decode_offsets(data) {
                assert_eq!(decode_offsets(encode_offsets(offsets.iter().copied()).as_bytes()), Ok(offsets.clone()));
            }
            if let Ok(epochs) = str::from_utf8(data).map_err(drop).and_then(|text| decode_epochs(text).map_err(drop)) {
                assert_eq!(decode_epochs(&encode_epochs(&epochs)), Ok(epochs.clone()));
                let known = Epochs::stored(&epochs);
                epochs.iter().for_each(|entry| {
                    assert!(known.end_offset_for(entry.epoch, i64::MAX).is_some() || entry.epoch < 0 || entry.start_offset < 0);
                });
            }
        }
        _ => {
            if let Ok(id) = str::from_utf8(data).map_err(drop).and_then(|text| decode_metadata(text).map_err(drop)) {
                assert_eq!(decode_metadata(&encode_metadata(id)), Ok(id));
            }
        }
    }
}

/// The journal: slots of the superblock, frames, and a whole file as a start reads it.
pub fn journal(data: &[u8]) {
    let Some((&way, data)) = data.split_first() else { return };
    let mut bytes = data.to_vec();
    match way % 4 {
        0 => {
            let _ = decode(&bytes);
        }
        1 => {
            bytes.resize(BLOCK as usize, 0);
            if way & 4 != 0 {
                let checksum = crc32c::crc32c(&bytes[12..]);
                bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
            }
            let _ = Superblock::of_slot(&bytes);
        }
        2 => {
            if let Some((header, content)) = check(&bytes) {
                assert_eq!(header.length as usize, content.len());
            }
        }
        _ => replayed(bytes),
    }
}

/// Bytes, their frames' checksums repaired, as the file that a start reads.
fn replayed(mut bytes: Vec<u8>) {
    let frames = repair_frames(&mut bytes);
    let Some(first) = frames.first().copied() else { return };
    bytes.resize(FILE_BYTES_MIN as usize, 0);
    let directory = PathBuf::from("/journal");
    let disk = SimDisk::new(1, &[Path::new("/journal")]);
    let identity = Identity { start: first.start, salt: first.salt, core: first.core as usize };
    Executor::new(&disk.clone(), 1).block_on(async move {
        let path = file_path(&directory, identity.core, Which::A);
        write_whole(&disk, &path, &bytes).await.expect("the disk has no faults");
        for accept_loss in [false, true] {
            match read_core(&disk, &directory, identity, accept_loss).await {
                Ok((_, content)) => assert!(content.entries.iter().map(|entry| entry.bytes.len()).sum::<usize>() <= bytes.len()),
                Err(error) => assert!(!accept_loss, "{error}"),
            }
        }
    });
}

/// Makes the checksum of everything that looks like a frame fit. Returns those frames.
fn repair_frames(bytes: &mut [u8]) -> Vec<FrameHeader> {
    let (mut position, mut frames) = (0, Vec::new());
    while position < bytes.len() {
        let rest = &mut bytes[position..];
        match FrameHeader::peek(rest) {
            Some(header) if rest.len() >= FRAME_HEADER_BYTES + header.length as usize => {
                let checksum = crc32c::crc32c(&rest[8..FRAME_HEADER_BYTES + header.length as usize]);
                rest[4..8].copy_from_slice(&checksum.to_le_bytes());
                assert!(check(rest).is_some());
                frames.push(header);
                position += header.frame_bytes() as usize;
            }
            _ => position += FRAME_ALIGNMENT as usize,
        }
    }
    frames
}
