//! Lives of a log on a real directory (O_DIRECT, io_uring), with two partitions.

use engine::{
    batch::{BatchBuilder, Scanner, scan},
    disk::UringDisk,
    log::{CoreStart, Log, LogConfig, Start},
    partition::{PartitionConfig, PartitionId, PartitionSpec},
};
use std::{fs::File, future::Future, os::fd::AsRawFd, path::Path};
use tempfile::TempDir;
use uuid::Uuid;

pub const SMALL: PartitionId = PartitionId(7);
pub const BULK: PartitionId = PartitionId(8);
pub const NOW_MS: i64 = 1_700_000_000_000;

pub fn directory() -> TempDir {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tmp");
    std::fs::create_dir_all(&target).expect("a directory for tests");
    tempfile::tempdir_in(target).expect("a temporary directory")
}

pub fn config(directory: &Path) -> LogConfig {
    LogConfig { data_dir: directory.to_path_buf(), journal_dir: directory.join("journal"), journal_bytes: 16 << 20, ..LogConfig::default() }
}

pub fn spec(id: PartitionId, segment_bytes: u64) -> PartitionSpec {
    PartitionSpec {
        id,
        topic_id: Uuid::from_u128(u128::from(id.0)),
        directory: format!("topic-{}", id.0).into(),
        core: 0,
        leader_epoch: 0,
        internal: false,
        config: PartitionConfig { segment_bytes, ..PartitionConfig::default() },
    }
}

/// What a segment of the bulk partition may become.
pub const SEGMENT_BYTES: u64 = 8 << 20;

pub fn specs() -> Vec<PartitionSpec> {
    vec![spec(SMALL, 300_000), spec(BULK, SEGMENT_BYTES)]
}

/// One life of a log with both partitions open: `program` runs beside the lanes; then everything is dropped, as when the process
/// is killed.
pub fn live<F: Future<Output = ()>>(directory: &Path, program: impl FnOnce(Log<UringDisk>, UringDisk) -> F) {
    live_closed(directory, false, |log, disk| async move {
        log.ready(&[SMALL, BULK]).await.expect("ready");
        program(log, disk).await;
    });
}

/// The same, with partitions that are opened when they are first used.
pub fn live_closed<F: Future<Output = ()>>(directory: &Path, accept_loss: bool, program: impl FnOnce(Log<UringDisk>, UringDisk) -> F) {
    on_disk(directory, async |disk| {
        let config = LogConfig { accept_loss, ..config(directory) };
        let start = Start::read(&disk, &config, rand::random()).await.expect("starts");
        let mut cores = start.finish(1, specs(), 0).await.expect("finishes the start");
        let core: CoreStart = cores.pop().expect("one core");
        let log = Log::open(disk.clone(), core).await.expect("opens");
        let lanes = tokio::task::spawn_local({
            let log = log.clone();
            async move { log.run().await }
        });
        program(log, disk).await;
        lanes.abort();
    });
}

/// Runs `program` with a ring of its own that holds the directory's lock; then everything is dropped.
pub fn on_disk<T>(directory: &Path, program: impl AsyncFnOnce(UringDisk) -> T) -> T {
    let lock = File::create(directory.join("lock")).expect("a lock file");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let disk = UringDisk::new(lock.as_raw_fd(), false).expect("a ring");
        let driver = tokio::task::spawn_local({
            let disk = disk.clone();
            async move { disk.run().await }
        });
        let result = program(disk).await;
        driver.abort();
        result
    })
}

pub fn batch(value: &[u8], records: i64) -> Vec<u8> {
    (0..records).fold(BatchBuilder::new(), |batch, at| batch.record(NOW_MS + at, Some(b"key"), Some(value))).build()
}

pub async fn produce(log: &Log<UringDisk>, id: PartitionId, bytes: &[u8]) -> i64 {
    log.admit(bytes.len()).await;
    let appended = log.append(id, bytes, NOW_MS).expect("appends");
    log.durable(id, appended.last_offset).await.expect("durable");
    appended.last_offset + 1
}

/// Reads everything from `from` on, checking offsets and checksums; returns the bytes of records and the next offset.
pub async fn consume(log: &Log<UringDisk>, disk: &UringDisk, id: PartitionId, from: i64) -> (usize, i64) {
    let (mut bytes, mut next) = (0, from);
    loop {
        let plan = log.read(id, next, 300_000, true, false).await.expect("reads");
        if plan.bytes == 0 {
            return (bytes, next);
        }
        let content = plan.collect(disk).await.expect("collects");
        let before = next;
        let end = scan(&content, Scanner::new(0, 0, i32::MIN), |_, header, batch| {
            assert!(header.base_offset() <= next && header.last_offset() >= next, "offsets go on at {next}: {header:?}");
            next = header.next_offset();
            bytes += batch.len();
        });
        assert_eq!(end.end.position as usize, content.len(), "only whole batches: {:?}", end.stop);
        assert!(next > before);
    }
}
