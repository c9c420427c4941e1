//! A full disk (simulated): what it makes the log drop is no damage to the next start.

use engine::{
    batch::BatchBuilder,
    disk::sim::{Executor, SimDisk},
    log::{CoreStart, Log, LogConfig, Start},
    partition::{Appended, PartitionConfig, PartitionId, PartitionSpec},
};
use std::{cell::Cell, future::poll_fn, path::Path, rc::Rc, task::Poll};
use uuid::Uuid;

const LARGE: PartitionId = PartitionId(1);
const LOG: &str = "/data/large-0/00000000000000000000.log";
const NOW_MS: i64 = 1_700_000_000_000;
/// What a run writes at most.
const RUN_BYTES: u64 = 64 << 10;
/// More polls than this without an end are a loop.
const POLLS_MAX: usize = 100_000;

fn config() -> LogConfig {
    LogConfig {
        data_dir: "/data".into(),
        journal_dir: "/data/journal".into(),
        journal_bytes: 1 << 20,
        bulk_bytes_min: RUN_BYTES,
        bulk_bytes_in_flight_max: RUN_BYTES,
        bulk_bytes_in_flight_busy_max: RUN_BYTES,
        ..LogConfig::default()
    }
}

async fn start(disk: &SimDisk, random: u64) -> CoreStart {
    let spec = PartitionSpec {
        id: LARGE,
        topic_id: Uuid::from_u128(1),
        directory: "large-0".into(),
        core: 0,
        leader_epoch: 0,
        internal: false,
        config: PartitionConfig::default(),
    };
    let started = Start::read(disk, &config(), random).await.expect("reads").finish(1, vec![spec], 0).await;
    started.expect("starts").pop().expect("one core")
}

fn append(log: &Log<SimDisk>, bytes: usize) -> Appended {
    let batch = BatchBuilder::new().record(NOW_MS, None, Some(&vec![7_u8; bytes])).build();
    log.append(LARGE, &batch, NOW_MS).expect("appends")
}

fn log_bytes(disk: &SimDisk) -> usize {
    disk.peek(Path::new(LOG)).map_or(0, |bytes| bytes.len())
}

/// Lets the others go on until it is so.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    let mut polls = 0;
    poll_fn(|context| {
        polls += 1;
        assert!(polls < POLLS_MAX, "waits for {what}");
        context.waker().wake_by_ref();
        if is_so() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// A log in which a full disk has just dropped a batch of which two runs at least were durable. What is there ends behind the one before.
async fn drop_half_a_batch(disk: &SimDisk, log: &Log<SimDisk>, third_run: &Cell<bool>) {
    log.ready(&[LARGE]).await.expect("ready");
    let whole = append(log, 100_000);
    log.durable_of(LARGE, &whole).await.expect("durable");
    until("space that is allocated ahead", || log_bytes(disk) == 768 << 10).await;
    disk.set_free_blocks(Some(0));
    // It fits what is allocated.
    let half = append(log, 600_000);
    until("the third run", || third_run.get()).await;
    // This one doesn't, and so the disk is found to be full.
    let none = append(log, 100_000);
    for dropped in [half, none] {
        log.durable_of(LARGE, &dropped).await.expect_err("is dropped");
    }
}

#[test]
fn a_stop_that_was_cut_off_leaves_no_damage_where_half_of_a_batch_was_dropped() {
    for seed in 0..16 {
        let disk = SimDisk::new(seed, &[Path::new("/data")]);
        let third_run = Rc::new(Cell::new(false));
        let reached = Rc::clone(&third_run);
        disk.watch(move |path, position, _| {
            if path == Path::new(LOG) && position >= 3 * RUN_BYTES {
                reached.set(true);
            }
        });
        let mut executor = Executor::new(&disk, seed);
        let (program_disk, spawner) = (disk.clone(), executor.spawner());
        let log = executor.block_on(async move {
            let core = start(&program_disk, 1).await;
            let log = Log::open(program_disk.clone(), core).await.expect("opens");
            let running = log.clone();
            spawner.spawn(async move { running.run().await });
            drop_half_a_batch(&program_disk, &log, &third_run).await;
            log
        });
        let before = log_bytes(&disk);
        executor.spawn(async move { log.close().await });
        // The process ends as soon as the segment is cut.
        while log_bytes(&disk) == before {
            assert!(executor.step(), "seed {seed}: the stop cuts the segment to its length");
        }
        drop(executor);
        disk.kill();
        disk.set_free_blocks(None);
        let mut executor = Executor::new(&disk, seed);
        let program_disk = disk.clone();
        let offsets = executor.block_on(async move {
            let core = start(&program_disk, 2).await;
            let damage = core.partitions.iter().find_map(|found| found.damage.as_ref()).map(|damage| damage.what.clone());
            assert_eq!(damage, None, "seed {seed}");
            let log = Log::open(program_disk, core).await.expect("opens");
            log.ready(&[LARGE]).await.expect("opens");
            log.offsets(LARGE).expect("is owned")
        });
        assert_eq!((offsets.high_watermark, offsets.log_end), (1, 1), "seed {seed}");
    }
}
