//! The log's lanes on a filesystem, without network and protocol: what its bounds should be there.
//!
//! `cargo bench -p bench --bench lanes -- DIR [BOUND]` writes into a directory of its own below DIR, some GB at a time, and removes it.
//! BOUND is the one whose table is wanted.

use engine::{
    batch::BatchBuilder,
    disk::UringDisk,
    log::{Log, LogConfig, Start},
    partition::{PartitionConfig, PartitionId, PartitionSpec},
};
use hdrhistogram::Histogram;
use std::{
    cell::RefCell,
    fs::File,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    rc::Rc,
    time::{Duration, Instant},
};
use uuid::Uuid;

const NOW_MS: i64 = 1_700_000_000_000;
const PARTITIONS: u32 = 8;
const WARM_UP: Duration = Duration::from_millis(500);
const MEASURED: Duration = Duration::from_secs(2);
/// Each case is measured so often, in turn with the others of its table; the median is shown.
const TURNS: usize = 3;
/// No batch is as large: everything goes through the journal.
const NEVER: u64 = u64::MAX;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Appends that are kept in flight.
#[derive(Clone, Copy)]
struct Load {
    batch_bytes: u64,
    in_flight: usize,
}

/// What one of them saw.
#[derive(Clone, Copy, Default)]
struct Seen {
    mb_per_second: f64,
    p50_us: u64,
    p99_us: u64,
}

fn config(directory: &Path) -> LogConfig {
    LogConfig { data_dir: directory.to_path_buf(), journal_dir: directory.join("journal"), ..LogConfig::default() }
}

fn spec(id: u32) -> PartitionSpec {
    PartitionSpec {
        id: PartitionId(id),
        topic_id: Uuid::from_u128(u128::from(id)),
        directory: format!("topic-{id}").into(),
        core: 0,
        leader_epoch: 0,
        internal: false,
        config: PartitionConfig::default(),
    }
}

/// One appender: a batch, its durability, the next.
async fn append(log: Log<UringDisk>, id: PartitionId, batch: Rc<[u8]>, begin: Instant, seen: Rc<RefCell<(u64, Histogram<u64>)>>) {
    while begin.elapsed() < WARM_UP + MEASURED {
        let at = Instant::now();
        log.admit(batch.len()).await;
        let appended = log.append(id, &batch, NOW_MS).expect("appends");
        log.durable(id, appended.last_offset).await.expect("durable");
        if (WARM_UP..WARM_UP + MEASURED).contains(&begin.elapsed()) {
            let mut seen = seen.borrow_mut();
            seen.0 += batch.len() as u64;
            seen.1.saturating_record(at.elapsed().as_micros() as u64);
        }
    }
}

/// Runs the loads beside each other on a new log.
fn measure(directory: &Path, config: &LogConfig, loads: &[Load]) -> Vec<Seen> {
    let _ = std::fs::remove_dir_all(directory);
    std::fs::create_dir_all(directory).expect("a directory");
    let lock = File::create(directory.join("lock")).expect("a lock file");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let seen = tokio::task::LocalSet::new().block_on(&runtime, async {
        let disk = UringDisk::new(lock.as_raw_fd(), false).expect("a ring");
        let driver = tokio::task::spawn_local({
            let disk = disk.clone();
            async move { disk.run().await }
        });
        let start = Start::read(&disk, config, rand::random()).await.expect("starts");
        let specs: Vec<_> = (1..=PARTITIONS * loads.len() as u32).map(spec).collect();
        let ids: Vec<_> = specs.iter().map(|spec| spec.id).collect();
        let core = start.finish(1, specs, 0).await.expect("finishes the start").pop().expect("one core");
        let log = Log::open(disk.clone(), core).await.expect("opens");
        let lanes = tokio::task::spawn_local({
            let log = log.clone();
            async move { log.run().await }
        });
        log.ready(&ids).await.expect("ready");
        let begin = Instant::now();
        let mut all = Vec::new();
        let mut appenders = Vec::new();
        for (load, ids) in loads.iter().zip(ids.chunks(PARTITIONS as usize)) {
            // The batch is no longer than its load says: a topic takes 1 MiB.
            let value = vec![0x5a; load.batch_bytes as usize - 128];
            let batch: Rc<[u8]> = BatchBuilder::new().record(NOW_MS, None, Some(&value)).build().into();
            let seen = Rc::new(RefCell::new((0, Histogram::new_with_bounds(1, 60_000_000, 3).expect("bounds"))));
            for at in 0..load.in_flight {
                let id = ids[at % ids.len()];
                appenders.push(tokio::task::spawn_local(append(log.clone(), id, Rc::clone(&batch), begin, Rc::clone(&seen))));
            }
            all.push(seen);
        }
        for appender in appenders {
            appender.await.expect("appends");
        }
        lanes.abort();
        driver.abort();
        let of = |seen: &Rc<RefCell<(u64, Histogram<u64>)>>| {
            let seen = seen.borrow();
            Seen {
                mb_per_second: seen.0 as f64 / 1e6 / MEASURED.as_secs_f64(),
                p50_us: seen.1.value_at_quantile(0.5),
                p99_us: seen.1.value_at_quantile(0.99),
            }
        };
        all.iter().map(of).collect()
    });
    std::fs::remove_dir_all(directory).expect("removed");
    seen
}

/// The medians of a table's cases.
fn table(directory: &Path, title: &str, cases: &[(String, LogConfig, Vec<Load>)]) {
    println!("\n{title}");
    let mut runs = vec![Vec::new(); cases.len()];
    for _ in 0..TURNS {
        for ((_, config, loads), runs) in cases.iter().zip(&mut runs) {
            runs.push(measure(directory, config, loads));
        }
    }
    for ((name, _, loads), runs) in cases.iter().zip(&runs) {
        print!("  {name:<44}");
        for load in 0..loads.len() {
            let median = |of: fn(&Seen) -> f64| {
                let mut values: Vec<f64> = runs.iter().map(|run| of(&run[load])).collect();
                values.sort_by(f64::total_cmp);
                values[TURNS / 2]
            };
            let (p50, p99) = (median(|seen| seen.p50_us as f64) / 1e3, median(|seen| seen.p99_us as f64) / 1e3);
            print!("  {:>7.0} MB/s  p50 {p50:>6.2} ms  p99 {p99:>6.2} ms", median(|seen| seen.mb_per_second));
        }
        println!();
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with('-'));
    let directory = arguments.next();
    let bound = arguments.next().unwrap_or_default();
    // `cargo test --benches` runs this without a directory: there is nothing to be measured then.
    let Some(directory) = directory.map(|directory| PathBuf::from(directory).join("thalweg-lanes")) else {
        println!("usage: cargo bench -p bench --bench lanes -- DIR [BOUND]");
        return;
    };
    let config = config(&directory);
    let table = |title: &str, cases: &[_]| {
        if title.starts_with(&bound) {
            table(&directory, title, cases);
        }
    };
    let bulk = |bytes| Load { batch_bytes: bytes, in_flight: 8 };
    let cases: Vec<_> = [16, 64, 128, 256, 512, 1024]
        .into_iter()
        .flat_map(|kib| [(kib, "bulk lane", 4 * KIB), (kib, "journal", NEVER)])
        .map(|(kib, lane, bulk_bytes_min)| {
            (format!("{kib} KiB, {lane}"), LogConfig { bulk_bytes_min, ..config.clone() }, vec![bulk(kib * KIB)])
        })
        .collect();
    table("bulk_bytes_min: batches of one size, 8 partitions, 8 in flight, by either lane", &cases);
    let in_flight = |most: u64| LogConfig { bulk_bytes_in_flight_max: most, bulk_bytes_in_flight_busy_max: most, ..config.clone() };
    let cases: Vec<_> = [1, 2, 4, 8, 16].map(|mib| (format!("{mib} MiB"), in_flight(mib * MIB), vec![bulk(MIB)])).into();
    table("bulk_bytes_in_flight_max: 1 MiB batches, 8 partitions, 8 in flight", &cases);
    let small = Load { batch_bytes: 4 * KIB, in_flight: 1 };
    let cases: Vec<_> = [1, 2, 4, 8].map(|mib| (format!("{mib} MiB"), in_flight(mib * MIB), vec![bulk(MIB), small])).into();
    table("bulk_bytes_in_flight_busy_max: the same beside 4 KiB appends, one at a time (right)", &cases);
    let journal = |kib: u64| LogConfig { frame_bytes_max: (kib * KIB) as usize, bulk_bytes_min: NEVER, ..config.clone() };
    for (bytes, in_flight) in [(4 * KIB, 512), (64 * KIB, 64)] {
        let cases: Vec<_> =
            [64, 256, 1008].map(|kib| (format!("{kib} KiB"), journal(kib), vec![Load { batch_bytes: bytes, in_flight }])).into();
        table(&format!("frame_bytes_max: {} KiB batches through the journal, {in_flight} in flight", bytes / KIB), &cases);
    }
}
