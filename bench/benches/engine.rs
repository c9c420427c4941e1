//! The pieces of the engine that every record passes: `cargo bench -p bench --bench engine`.

// criterion_group! makes a public function without a word of documentation.
#![allow(missing_docs)]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use engine::{
    batch::{BatchBuilder, HEADER_BYTES, Patch, Rules, patched_header, validate},
    disk::{
        BLOCK, Chunk,
        sim::{Executor, SimDisk},
    },
    journal::{FrameHeader, Item, encode_items},
    log::{Log, LogConfig, Start},
    partition::{PartitionConfig, PartitionId, PartitionSpec, tail::Budget, tail::Tail},
    segment::{INDEX_INTERVAL_BYTES, OffsetIndex},
};
use std::{
    hint::black_box,
    path::Path,
    pin::pin,
    task::{Context, Poll, Waker},
};

const NOW_MS: i64 = 1_700_000_000_000;
/// A tail begins anew after so many bytes, so that memory is bounded.
const TAIL_BYTES_MAX: u64 = 64 << 20;
/// Shapes of batches: records and bytes of each. A lone small record, what a client's linger gathers, W1's requests.
const SHAPES: [(usize, usize); 3] = [(1, 100), (100, 100), (1000, 1024)];

fn batch(records: usize, value_bytes: usize) -> Vec<u8> {
    let value = vec![0x5a; value_bytes];
    (0..records).fold(BatchBuilder::new(), |batch, _| batch.record(NOW_MS, None, Some(&value))).build()
}

fn batch_validation(c: &mut Criterion) {
    let mut group = c.benchmark_group("batch validation");
    let rules = Rules { now_ms: NOW_MS, ..Rules::default() };
    for (records, bytes) in SHAPES {
        let batch = batch(records, bytes);
        group.throughput(Throughput::Bytes(batch.len() as u64));
        group.bench_with_input(BenchmarkId::from_parameter(format!("{records} x {bytes} B")), &batch, |b, batch| {
            b.iter(|| validate(black_box(batch), &rules).expect("a valid batch"));
        });
    }
    group.finish();
}

fn append_to_the_tail(c: &mut Criterion) {
    let mut group = c.benchmark_group("append to the tail");
    for (records, bytes) in SHAPES {
        let batch = batch(records, bytes);
        group.throughput(Throughput::Bytes(batch.len() as u64));
        group.bench_with_input(BenchmarkId::from_parameter(format!("{records} x {bytes} B")), &batch, |b, batch| {
            let budget = Budget::new(u64::MAX);
            let mut tail = Tail::new(0, budget.clone());
            let mut base_offset = 0;
            b.iter(|| {
                if tail.end() > TAIL_BYTES_MAX {
                    tail = Tail::new(0, budget.clone());
                }
                let patch = Patch { base_offset, leader_epoch: 3, max_timestamp: NOW_MS, log_append_time: false };
                tail.append(&patched_header(batch, &patch));
                tail.append(&batch[HEADER_BYTES..]);
                base_offset += records as i64;
            });
        });
    }
    group.finish();
}

fn journal_frame(c: &mut Criterion) {
    let mut group = c.benchmark_group("journal frame");
    let header = FrameHeader { start: 1, salt: 2, core: 0, generation: 3, sequence: 4, length: 0, head: (0, 0) };
    for (partitions, bytes) in [(1, 200usize), (64, 200), (1000, 200), (64, 4096), (1, 512 << 10)] {
        let slice = {
            // Chunks are whole blocks.
            let chunk = Chunk::new(bytes.next_multiple_of(BLOCK as usize));
            chunk.append(&vec![0x5a; bytes]);
            chunk.slice(0, bytes)
        };
        let item = |at| Item::Bytes { partition: PartitionId(at), segment_base: 0, position: 4096, bytes: vec![slice.clone()] };
        let items: Vec<Item> = (0..partitions).map(item).collect();
        group.throughput(Throughput::Bytes(u64::from(partitions) * bytes as u64));
        group.bench_with_input(BenchmarkId::from_parameter(format!("{partitions} entries x {bytes} B")), &items, |b, items| {
            b.iter(|| encode_items(header, black_box(items)));
        });
    }
    group.finish();
}

fn index_lookup(c: &mut Criterion) {
    let mut group = c.benchmark_group("index lookup");
    // A segment of 1 GiB with batches of 100 records in each interval of the index.
    let entries = (1 << 30) / INDEX_INTERVAL_BYTES;
    let mut index = OffsetIndex::new(0);
    for at in 0..entries {
        index.push(at as i64 * 100 + 99, at * INDEX_INTERVAL_BYTES);
    }
    let mut offset = 0;
    group.bench_function(format!("{entries} entries"), |b| {
        b.iter(|| {
            offset = (offset + 7_919) % (entries as i64 * 100);
            index.lookup(black_box(offset))
        });
    });
    group.finish();
}

/// What a consumer at the head of the log is answered with: slices of memory, found by offset.
fn fetch_plan(c: &mut Criterion) {
    let mut group = c.benchmark_group("fetch plan from memory");
    let directory = Path::new("/data");
    let journal = directory.join("journal");
    let disk = SimDisk::new(1, &[directory, &journal]);
    let mut executor = Executor::new(&disk, 1);
    let config =
        LogConfig { data_dir: directory.to_owned(), journal_dir: journal.clone(), journal_bytes: 16 << 20, ..LogConfig::default() };
    let id = PartitionId(7);
    let spec = PartitionSpec {
        id,
        topic_id: uuid::Uuid::from_u128(7),
        directory: "topic-7".into(),
        core: 0,
        leader_epoch: 0,
        internal: false,
        config: PartitionConfig::default(),
    };
    let log = executor.block_on(async move {
        let start = Start::read(&disk, &config, 1).await.expect("starts");
        let core = start.finish(1, vec![spec], 0).await.expect("finishes the start").pop().expect("one core");
        Log::open(disk, core).await.expect("opens")
    });
    let _lanes = executor.spawn({
        let log = log.clone();
        async move { log.run().await }
    });
    let batches = 500;
    executor.block_on({
        let log = log.clone();
        async move {
            log.ready(&[id]).await.expect("ready");
            for _ in 0..batches {
                let appended = log.append(id, &batch(10, 100), NOW_MS).expect("appends");
                log.durable(id, appended.last_offset).await.expect("durable");
            }
        }
    });
    for bytes_max in [4 << 10, 256 << 10] {
        let mut offset = 0;
        group.bench_function(format!("{} KiB", bytes_max >> 10), |b| {
            b.iter(|| {
                offset = (offset + 130) % (batches * 10);
                let plan = pin!(log.read(id, offset, bytes_max, true, false));
                let mut plan = plan;
                match plan.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                    Poll::Ready(plan) => plan.expect("reads").bytes,
                    Poll::Pending => panic!("what is in memory is answered at once"),
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, batch_validation, append_to_the_tail, journal_frame, index_lookup, fetch_plan);
criterion_main!(benches);
