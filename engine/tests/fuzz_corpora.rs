//! Replays the corpora of the fuzz targets with the targets' own assertions, on the stable compiler.
//!
//! `THALWEG_WRITE_SEEDS=1 cargo test --release -p engine --test fuzz_corpora` writes the seeds anew.

#[path = "../fuzz/src/checks.rs"]
mod checks;
#[path = "support/corpora.rs"]
mod corpora;
#[path = "support/journal.rs"]
mod test_journal;

use corpora::{Seeds, Target, replay, seed};
use engine::{
    batch::{BatchBuilder, Codec, Scanner, control_batch, scan},
    disk::Chunk,
    ids::PartitionId,
    journal::{FRAME_HEADER_BYTES, FrameHeader, Item, Line},
    kafka::encode_offsets,
    segment::{AbortedTxn, EpochStart, Indexes, ProducerState, SequencedBatch, encode_epochs, encode_metadata, encode_snapshot},
};

#[test]
fn every_input_of_the_corpora_holds_what_the_targets_assert() {
    replay(&[
        Target { name: "batch", check: checks::batch, seeds: batch_seeds },
        Target { name: "indexes", check: checks::indexes, seeds: index_seeds },
        Target { name: "journal", check: checks::journal, seeds: journal_seeds },
    ]);
}

fn batch_seeds() -> Seeds {
    let now = 1_700_000_000_000;
    let mut seeds = Seeds::new();
    for codec in 0..5 {
        let codec = Codec::of_id(codec).expect("known");
        let builder = BatchBuilder::new().codec(codec).producer(7, 0, 3).record(now, Some(b"key"), Some(&[b'v'; 40]));
        let batch = builder.record_with_headers(now + 5, None, None, &[("name", Some(b"value")), ("none", None)]).build();
        seeds.push(seed(codec.name(), 9, &batch));
        seeds.push(seed(format!("{}-compacted", codec.name()), 15, &batch));
    }
    let mut log = Vec::new();
    for offset in 0..4 {
        let batch = BatchBuilder::new().at(offset, offset as i32).producer(2, 0, offset as i32).transactional();
        log.extend(batch.record(now, Some(b"k"), Some(b"v")).build());
    }
    log.extend(control_batch(4, 3, (2, 1), false, now));
    log.extend([0; 100]);
    seeds.push(seed("log", 0, &log));
    seeds
}

fn index_seeds() -> Seeds {
    let mut bytes = Vec::new();
    for offset in 0..9 {
        bytes.extend(BatchBuilder::new().at(1_000 + offset, 0).record(offset, None, Some(&[1; 40_000])).build());
    }
    let mut indexes = Indexes::new(1_000);
    scan(&bytes, Scanner::new(0, 0, 0), |position, header, _| indexes.push(position, header));
    indexes.seal();
    for offset in [5, 9] {
        indexes.transactions.push(AbortedTxn {
            producer_id: 1,
            first_offset: offset,
            last_offset: offset + 2,
            last_stable_offset: offset + 3,
        });
    }
    let epochs = encode_epochs(&[EpochStart { epoch: 1, start_offset: 0 }, EpochStart { epoch: 3, start_offset: 90 }]);
    vec![
        seed("index", 0, &indexes.offsets.encode()),
        seed("timeindex", 1, &indexes.times.encode()),
        seed("txnindex", 2, &indexes.transactions.encode()),
        seed("snapshot", 3, &encode_snapshot(&[producer(1), producer(9)])),
        seed("epochs", 4, epochs.as_bytes()),
        seed("offsets", 4, encode_offsets([("orders", 0, 17), ("a b", 3, 4)].into_iter()).as_bytes()),
        seed("metadata", 5, encode_metadata("0b5b4a83-6e4d-4e2a-9d5e-0123456789ab".parse().expect("an id")).as_bytes()),
    ]
}

fn producer(producer_id: i64) -> ProducerState {
    let batch = |last_sequence| SequencedBatch { last_sequence, last_offset: 70, offset_delta: 1, timestamp: 5 };
    ProducerState {
        producer_id,
        epoch: 2,
        coordinator_epoch: -1,
        last_timestamp: 5,
        transaction_first_offset: 40,
        batches: vec![batch(3), batch(5)],
    }
}

fn journal_seeds() -> Seeds {
    let lines = [3, 7].map(|partition| Line {
        partition: PartitionId(partition),
        segment_base: 0,
        flushed: 4096,
        batch_start: 10,
        index_end: 0,
        log_start: 0,
    });
    let head = vec![
        Item::Producer { partition: PartitionId(3), state: producer(8) },
        Item::Epoch { partition: PartitionId(3), epoch: EpochStart { epoch: 2, start_offset: 5 } },
    ];
    let frame = |offset| {
        let batch = BatchBuilder::new().at(offset, 0).record(1, None, Some(b"v")).build();
        let bytes = vec![Chunk::padded(&batch).sub(0, batch.len())];
        let item = Item::Bytes { partition: PartitionId(7), segment_base: 0, position: 4096, bytes };
        vec![item, Item::LogStart { partition: PartitionId(3), offset }]
    };
    let files = test_journal::written(1, &lines, head, (0..3).map(frame).collect(), false);
    let frames = &files["core-1.a"][..4 * 4096];
    let content = |at: usize| {
        let header = FrameHeader::peek(&frames[at..]).expect("a frame");
        frames[at + FRAME_HEADER_BYTES..][..header.length as usize].to_vec()
    };
    vec![
        seed("head-content", 0, &content(0)),
        seed("frame-content", 0, &content(4096)),
        seed("superblock", 5, &files["superblock"][..64]),
        seed("frame", 2, &frames[4096..8192]),
        seed("file", 3, frames),
        seed("file-torn", 3, &[&frames[..8192], &[0; 4096], &frames[12_288..]].concat()),
    ]
}
