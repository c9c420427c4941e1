//! On a real disk, under load: every ack relies only on writes that had completed before a flush was submitted that has
//! completed since. A killed process leaves the kernel's cache alone, so no crash of a process could show it.

use engine::{
    batch::BatchBuilder,
    disk::{Disk, Recorder, UringDisk},
    log::{Log, LogConfig, Start},
    partition::{PartitionConfig, PartitionId, PartitionSpec},
};
use std::{fs::File, os::fd::AsRawFd, path::Path, rc::Rc};

/// Partitions, each with a client that sends small batches and one that sends large ones.
const PARTITIONS: u32 = 6;
/// Batches of each client.
const BATCHES: usize = 150;

fn spec(number: u32) -> PartitionSpec {
    PartitionSpec {
        id: PartitionId(number),
        topic_id: uuid::Uuid::from_u128(u128::from(number)),
        directory: format!("topic-{number}").into(),
        core: 0,
        leader_epoch: 0,
        internal: false,
        config: PartitionConfig { segment_bytes: 2 << 20, ..PartitionConfig::default() },
    }
}

async fn produce<D: Disk>(log: Log<D>, id: PartitionId, bytes: usize) {
    for _ in 0..BATCHES {
        let batch = BatchBuilder::new().record(1, None, Some(&vec![7; bytes])).build();
        log.ready(&[id]).await.unwrap();
        log.admit(batch.len()).await;
        let appended = log.append(id, &batch, 1).unwrap();
        log.durable(id, appended.last_offset).await.unwrap();
    }
}

#[test]
fn acks_rely_only_on_what_a_later_flush_has_covered() {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tmp");
    std::fs::create_dir_all(&target).unwrap();
    let directory = tempfile::tempdir_in(target).unwrap();
    let lock = File::create(directory.path().join(".lock")).unwrap();
    let config = LogConfig {
        data_dir: directory.path().to_owned(),
        journal_dir: directory.path().join("journal"),
        journal_bytes: 4 << 20,
        bulk_bytes_min: 64 << 10,
        ..LogConfig::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    let recorded = local.block_on(&runtime, async {
        let ring = UringDisk::new(lock.as_raw_fd(), false).unwrap();
        let driver = ring.clone();
        let driver = tokio::task::spawn_local(async move { driver.run().await });
        let disk = Recorder::new(ring);
        let start = Start::read(&disk, &config, 4711).await.unwrap();
        let core = start.finish(1, Vec::new(), 0).await.unwrap().pop().unwrap();
        let log = Log::open(disk.clone(), core).await.unwrap();
        let lanes = Rc::new(log.clone());
        let lanes = tokio::task::spawn_local(async move { lanes.run().await });
        for number in 1..=PARTITIONS {
            log.create(spec(number)).await.unwrap();
        }
        let clients = (1..=PARTITIONS).flat_map(|number| {
            [100, 3_000, 90_000].map(|bytes| tokio::task::spawn_local(produce(log.clone(), PartitionId(number), bytes)))
        });
        for client in clients.collect::<Vec<_>>() {
            client.await.unwrap();
        }
        log.close().await.unwrap();
        lanes.await.unwrap().unwrap();
        driver.abort();
        disk.recorded()
    });
    println!("{recorded:?}");
    assert!(recorded.relied_on > 100 && recorded.writes > 100, "{recorded:?}");
}
