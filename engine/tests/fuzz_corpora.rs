//! Replays the corpora of the fuzz targets with the targets' own assertions, on the stable compiler.
//!
//! `THALWEG_WRITE_SEEDS=1 cargo test --release -p engine --test fuzz_corpora` writes the seeds anew.

#[path = "../fuzz/src/checks.rs"]
mod checks;
#[path = "support/journal.rs"]
mod test_journal;

use engine::{
    batch::{BatchBuilder, Codec, Scanner, control_batch, scan},
    disk::Chunk,
    ids::PartitionId,
    journal::{FRAME_HEADER_BYTES, FrameHeader, Item, Line},
    kafka::encode_offsets,
    segment::{AbortedTxn, EpochStart, Indexes, ProducerState, SequencedBatch, encode_epochs, encode_metadata, encode_snapshot},
};
use std::{
    fs,
    path::{Path, PathBuf},
};

type Check = fn(&[u8]);
const TARGETS: [(&str, Check); 3] = [("batch", checks::batch), ("indexes", checks::indexes), ("journal", checks::journal)];

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

#[test]
fn every_input_of_the_corpora_holds_what_the_targets_assert() {
    if std::env::var_os("THALWEG_WRITE_SEEDS").is_some() {
        write_seeds();
    }
    for (target, check) in TARGETS {
        let mut inputs: Vec<PathBuf> =
            fs::read_dir(corpus(target)).expect("a corpus").map(|entry| entry.expect("an entry").path()).collect();
        inputs.sort();
        assert!(inputs.len() >= 5, "the corpus of {target} is gone");
        for input in inputs {
            println!("{}", input.display());
            check(&fs::read(&input).expect("readable"));
        }
    }
}

fn write_seeds() {
    let seeds = [("batch", batch_seeds()), ("indexes", index_seeds()), ("journal", journal_seeds())];
    for (target, seeds) in seeds {
        fs::create_dir_all(corpus(target)).expect("created");
        for (name, way, bytes) in seeds {
            let input: Vec<u8> = std::iter::once(way).chain(bytes).collect();
            fs::write(corpus(target).join(format!("seed-{name}")), input).expect("written");
        }
    }
}

type Seeds = Vec<(String, u8, Vec<u8>)>;

fn batch_seeds() -> Seeds {
    let now = 1_700_000_000_000;
    let mut seeds = Seeds::new();
    for codec in 0..5 {
        let codec = Codec::of_id(codec).expect("known");
        let builder = BatchBuilder::new().codec(codec).producer(7, 0, 3).record(now, Some(b"key"), Some(&[b'v'; 40]));
        let batch = builder.record_with_headers(now + 5, None, None, &[("name", Some(b"value")), ("none", None)]).build();
        seeds.push((codec.name().to_owned(), 9, batch.clone()));
        seeds.push((format!("{}-compacted", codec.name()), 15, batch));
    }
    let mut log = Vec::new();
    for offset in 0..4 {
        let batch = BatchBuilder::new().at(offset, offset as i32).producer(2, 0, offset as i32).transactional();
        log.extend(batch.record(now, Some(b"k"), Some(b"v")).build());
    }
    log.extend(control_batch(4, 3, (2, 1), false, now));
    log.extend([0; 100]);
    seeds.push(("log".to_owned(), 0, log));
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
        ("index".to_owned(), 0, indexes.offsets.encode()),
        ("timeindex".to_owned(), 1, indexes.times.encode()),
        ("txnindex".to_owned(), 2, indexes.transactions.encode()),
        ("snapshot".to_owned(), 3, encode_snapshot(&[producer(1), producer(9)])),
        ("epochs".to_owned(), 4, epochs.into_bytes()),
        ("offsets".to_owned(), 4, encode_offsets([("orders", 0, 17), ("a b", 3, 4)].into_iter()).into_bytes()),
        ("metadata".to_owned(), 5, encode_metadata("0b5b4a83-6e4d-4e2a-9d5e-0123456789ab".parse().expect("an id")).into_bytes()),
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
        ("head-content".to_owned(), 0, content(0)),
        ("frame-content".to_owned(), 0, content(4096)),
        ("superblock".to_owned(), 5, files["superblock"][..64].to_vec()),
        ("frame".to_owned(), 2, frames[4096..8192].to_vec()),
        ("file".to_owned(), 3, frames.to_vec()),
        ("file-torn".to_owned(), 3, [&frames[..8192], &vec![0; 4096], &frames[12_288..]].concat()),
    ]
}
