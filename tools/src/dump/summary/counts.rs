//! What is counted of a log.

use super::{chart::Sizes, distinct::Distinct, top::Top};
use crate::dump::read::Batch;
use engine::{
    batch::{Codec, ControlRecord, DECOMPRESSED_BYTES_MAX, Header, Record, Records, payload},
    segment::OpenTransactions,
};
use std::collections::BTreeSet;

/// Compressed bytes of each codec that are decompressed to learn the ratio, before it's one batch in [`SAMPLE_EVERY`].
const SAMPLED_BYTES: u64 = 4 << 20;
/// After these, so many batches stand for each that is decompressed.
const SAMPLE_EVERY: u64 = 256;
/// Codecs, and a place for what is unknown.
const CODECS: usize = 6;

/// Batches of one codec.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OfCodec {
    pub(super) batches: u64,
    pub(super) bytes: u64,
    /// Compressed and uncompressed bytes of the records of those that were decompressed.
    pub(super) sample: (u64, u64),
}

impl OfCodec {
    /// Uncompressed over compressed.
    pub(super) fn ratio(&self) -> Option<f64> {
        (self.sample.0 > 0).then(|| self.sample.1 as f64 / self.sample.0 as f64)
    }
}

/// The counts of one log.
pub(super) struct Counts {
    /// By base offset.
    segments: BTreeSet<i64>,
    pub(super) batches: u64,
    pub(super) records: u64,
    pub(super) bytes: u64,
    pub(super) damaged: (u64, u64),
    pub(super) empty_batches: u64,
    pub(super) control_batches: u64,
    pub(super) offsets: Option<(i64, i64)>,
    /// Gaps between batches, and the offsets missing in them and within batches.
    pub(super) gaps: (u64, u64),
    pub(super) times: Option<(i64, i64)>,
    pub(super) batch_sizes: Sizes,
    pub(super) codecs: [OfCodec; CODECS],
    pub(super) producers: Distinct,
    pub(super) idempotent_batches: u64,
    pub(super) top_producers: Top,
    pub(super) open: OpenTransactions,
    pub(super) committed: u64,
    pub(super) aborted: u64,
    pub(super) leader_epochs: Option<(i32, i32)>,
    /// Bytes that compaction has seen, and those that it has not and may.
    pub(super) cleaned: Option<(u64, u64)>,
    /// Batches and bytes that are in the journal, and not in a segment yet.
    pub(super) in_journal: (u64, u64),
    /// Why it is not known what is in the journal.
    pub(super) unknown: Option<String>,
    pub(super) of_records: Option<OfRecords>,
    first_dirty: Option<i64>,
    active: i64,
}

/// What only the records tell.
#[derive(Default)]
pub(super) struct OfRecords {
    pub(super) sizes: Sizes,
    pub(super) keyed: u64,
    pub(super) tombstones: u64,
    pub(super) null_values: u64,
    pub(super) with_headers: u64,
    pub(super) keys: Distinct,
    pub(super) top_keys: Top,
    pub(super) unreadable: u64,
}

impl Counts {
    pub(super) fn new(first_dirty: Option<i64>, active: i64, records: bool) -> Counts {
        Counts {
            segments: BTreeSet::new(),
            batches: 0,
            records: 0,
            bytes: 0,
            damaged: (0, 0),
            empty_batches: 0,
            control_batches: 0,
            offsets: None,
            gaps: (0, 0),
            times: None,
            batch_sizes: Sizes::default(),
            codecs: [OfCodec::default(); CODECS],
            producers: Distinct::default(),
            idempotent_batches: 0,
            top_producers: Top::default(),
            open: OpenTransactions::default(),
            committed: 0,
            aborted: 0,
            leader_epochs: None,
            cleaned: first_dirty.map(|_| (0, 0)),
            in_journal: (0, 0),
            unknown: None,
            of_records: records.then(OfRecords::default),
            first_dirty,
            active,
        }
    }

    /// What follows is of this segment.
    pub(super) fn segment(&mut self, base_offset: i64) {
        self.segments.insert(base_offset);
    }

    /// The segments from behind the one at `holder` up to the one at `gone` are in that by now.
    pub(super) fn merged(&mut self, holder: i64, gone: i64) {
        self.segments.retain(|base| *base <= holder || *base > gone);
    }

    /// How many segments there are.
    pub(super) fn segments(&self) -> usize {
        self.segments.len()
    }

    pub(super) fn damaged(&mut self, bytes: u64) {
        self.damaged = (self.damaged.0 + 1, self.damaged.1 + bytes);
    }

    /// Notes where a batch is that was counted.
    pub(super) fn place_of(&mut self, batch: &Batch<'_>) {
        if batch.in_journal {
            self.in_journal = (self.in_journal.0 + 1, self.in_journal.1 + batch.bytes.len() as u64);
        }
    }

    /// Takes in a batch whose CRC is right; of its records those that are `wanted`.
    pub(super) fn batch(&mut self, header: &Header, bytes: &[u8], wanted: impl Fn(&Header, &Record<'_>) -> bool) {
        let size = bytes.len() as u64;
        self.batches += 1;
        self.records += u64::from(header.record_count().unsigned_abs());
        self.bytes += size;
        self.batch_sizes.add(size);
        self.empty_batches += u64::from(header.record_count() == 0);
        self.place(header, size);
        if header.max_timestamp() >= 0 {
            let is_first = header.delete_horizon().is_none() && header.base_timestamp() >= 0;
            let oldest = if is_first { header.base_timestamp().min(header.max_timestamp()) } else { header.max_timestamp() };
            self.times =
                Some(self.times.map_or((oldest, header.max_timestamp()), |(from, to)| (from.min(oldest), to.max(header.max_timestamp()))));
        }
        if header.has_producer() {
            self.idempotent_batches += 1;
            let id = header.producer_id().to_be_bytes();
            self.producers.add(&id);
            self.top_producers.add(&id);
        }
        let control = ControlRecord::of_batch(header, bytes);
        self.control_batches += u64::from(header.is_control());
        if header.is_transactional() || control.is_some() {
            match control {
                Some(ControlRecord::Commit { .. }) => self.committed += 1,
                Some(ControlRecord::Abort { .. }) => self.aborted += 1,
                _ => {}
            }
            self.open.push(header, control);
        }
        self.content(header, bytes, wanted);
    }

    fn place(&mut self, header: &Header, size: u64) {
        let (base, last) = (header.base_offset(), header.last_offset());
        let within = (i64::from(header.last_offset_delta()) + 1 - i64::from(header.record_count())).max(0) as u64;
        let before = self.offsets.map_or(0, |(_, end)| base.saturating_sub(end).saturating_sub(1).max(0)) as u64;
        self.gaps = (self.gaps.0 + u64::from(before > 0) + u64::from(within > 0), self.gaps.1 + before + within);
        self.offsets = Some(self.offsets.map_or((base, last), |(from, to)| (from.min(base), to.max(last))));
        let epoch = header.leader_epoch();
        self.leader_epochs = Some(self.leader_epochs.map_or((epoch, epoch), |(from, to)| (from.min(epoch), to.max(epoch))));
        if let (Some(first_dirty), Some((clean, dirty))) = (self.first_dirty, &mut self.cleaned) {
            *(if base < first_dirty { clean } else { dirty }) += if base < first_dirty || base < self.active { size } else { 0 };
        }
    }

    fn content(&mut self, header: &Header, bytes: &[u8], wanted: impl Fn(&Header, &Record<'_>) -> bool) {
        let codec = header.codec().map_or(CODECS - 1, |codec| codec.id() as usize);
        let of_codec = &mut self.codecs[codec];
        of_codec.batches += 1;
        of_codec.bytes += bytes.len() as u64;
        let packed = (bytes.len() - engine::batch::HEADER_BYTES) as u64;
        let sampled = packed > 0 && (of_codec.sample.0 < SAMPLED_BYTES || of_codec.batches.is_multiple_of(SAMPLE_EVERY));
        let is_compressed = header.codec() != Ok(Codec::None);
        if self.of_records.is_none() && !(sampled && is_compressed) {
            return;
        }
        let payload = match payload(header, bytes, DECOMPRESSED_BYTES_MAX) {
            Ok(payload) => payload,
            Err(_) => {
                if let Some(records) = &mut self.of_records {
                    records.unreadable += 1;
                }
                return;
            }
        };
        if is_compressed && packed > 0 {
            of_codec.sample = (of_codec.sample.0 + packed, of_codec.sample.1 + payload.len() as u64);
        }
        let Some(records) = &mut self.of_records else { return };
        for record in Records::new(header, &payload) {
            match record {
                Ok(record) if !header.is_control() && wanted(header, &record) => records.add(&record),
                Ok(_) => {}
                Err(_) => records.unreadable += 1,
            }
        }
    }
}

impl OfRecords {
    fn add(&mut self, record: &Record<'_>) {
        self.sizes.add(record.size as u64);
        self.null_values += u64::from(record.value.is_none());
        self.with_headers += u64::from(!record.headers.is_empty());
        if let Some(key) = record.key {
            self.keyed += 1;
            self.tombstones += u64::from(record.value.is_none());
            self.keys.add(key);
            self.top_keys.add(key);
        }
    }

    /// The share of keyed records that a later record of the same key stands for: what compaction takes out at most.
    pub(super) fn superseded(&self) -> Option<f64> {
        (self.keyed > 0).then(|| (1.0 - self.keys.count() as f64 / self.keyed as f64).clamp(0.0, 1.0))
    }
}
