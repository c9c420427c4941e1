//! Against a real directory on the disk (not tmpfs: O_DIRECT is wanted).

use super::super::{BLOCK, CHUNK_BYTES, Chunk, Disk, Open, read_whole, write_whole};
use super::*;
use std::{future::Future, path::PathBuf, task::Poll};
use tempfile::TempDir;

pub(super) fn directory() -> TempDir {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tmp");
    std::fs::create_dir_all(&target).unwrap();
    tempfile::tempdir_in(target).unwrap()
}

fn with_disk<F: Future<Output = ()>>(test: impl FnOnce(UringDisk, PathBuf) -> F) {
    let directory = directory();
    let lock = File::create(directory.path().join("lock")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let disk = UringDisk::new(lock.as_raw_fd(), false).unwrap();
        let driver = disk.clone();
        let driver = tokio::task::spawn_local(async move { driver.run().await });
        test(disk, directory.path().to_owned()).await;
        driver.abort();
    });
}

fn pattern(bytes: usize, seed: u8) -> Slice {
    let content: Vec<u8> = (0..bytes).map(|i| (i as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0] ^ seed).collect();
    Chunk::padded(&content)
}

#[test]
fn what_was_written_is_read_back_direct_and_buffered() {
    with_disk(|disk, directory| async move {
        let path = directory.join("a");
        let file = disk.open(&path, Open::Create).await.unwrap();
        disk.allocate(&file, 4 << 20).await.unwrap();
        assert_eq!(disk.size(&file).await.unwrap(), 4 << 20);
        let (one, two) = (pattern(CHUNK_BYTES, 1), pattern(3 * BLOCK as usize, 2));
        disk.write(&file, BLOCK, vec![one.clone(), two.clone()]).await.unwrap();
        disk.flush(&file).await.unwrap();
        let back = disk.read(&file, BLOCK, CHUNK_BYTES).await.unwrap();
        assert!(*back == *one);
        let reader = disk.open_reader(&path).await.unwrap();
        let back = disk.read_buffered(&reader, BLOCK + CHUNK_BYTES as u64 + 7, 100).await.unwrap();
        assert_eq!(back, two[7..107]);
        assert!(disk.read(&file, 2 << 20, BLOCK as usize).await.unwrap().iter().all(|byte| *byte == 0));
        disk.will_need(&reader, 0, 1 << 20).await;
    });
}

#[test]
fn a_read_is_short_only_at_the_end_of_the_file() {
    with_disk(|disk, directory| async move {
        let file = disk.open(&directory.join("a"), Open::Create).await.unwrap();
        disk.write(&file, 0, vec![pattern(3 * BLOCK as usize, 9)]).await.unwrap();
        disk.truncate(&file, 2 * BLOCK + 10).await.unwrap();
        disk.sync(&file).await.unwrap();
        assert_eq!(disk.read(&file, BLOCK, 8 * BLOCK as usize).await.unwrap().len(), BLOCK as usize + 10);
        assert_eq!(disk.read(&file, 16 * BLOCK, BLOCK as usize).await.unwrap().len(), 0);
    });
}

#[test]
fn names_come_go_and_are_listed_in_order() {
    with_disk(|disk, directory| async move {
        let folder = directory.join("topic-0");
        disk.create_dir(&folder).await.unwrap();
        disk.create_dir(&folder).await.unwrap();
        for name in ["b", "a"] {
            drop(disk.open(&folder.join(name), Open::Create).await.unwrap());
        }
        disk.rename(&folder.join("b"), &folder.join("c")).await.unwrap();
        disk.sync_dir(&folder).await.unwrap();
        let names: Vec<_> = disk.list(&folder).await.unwrap().into_iter().map(|entry| entry.name).collect();
        assert_eq!(names, ["a", "c"]);
        assert!(disk.list(&directory).await.unwrap().iter().any(|entry| entry.is_dir && entry.name == "topic-0"));
        disk.remove(&folder.join("a")).await.unwrap();
        assert!(disk.remove_dir(&folder).await.is_err(), "it is not empty");
        disk.remove(&folder.join("c")).await.unwrap();
        disk.remove_dir(&folder).await.unwrap();
        assert_eq!(disk.list(&folder).await.unwrap_err().kind(), io::ErrorKind::NotFound);
        let missing = disk.open(&folder, Open::Existing).await.unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        drop(disk.open_reader(&directory).await);
    });
}

#[test]
fn a_small_file_is_replaced_whole() {
    with_disk(|disk, directory| async move {
        let path = directory.join("small");
        for content in [vec![1; 10], vec![2; 5000], vec![3; (1 << 20) + 3], Vec::new()] {
            write_whole(&disk, &path, &content).await.unwrap();
            assert!(read_whole(&disk, &path).await.unwrap() == content);
        }
    });
}

#[test]
fn more_operations_than_the_ring_holds_all_complete() {
    with_disk(|disk, directory| async move {
        let file = disk.open(&directory.join("a"), Open::Create).await.unwrap();
        disk.allocate(&file, 4096 * BLOCK).await.unwrap();
        let block = pattern(BLOCK as usize, 5);
        let writes = (0..3000).map(|i| disk.write(&file, i * BLOCK, vec![block.clone()]));
        for result in futures_util::future::join_all(writes).await {
            result.unwrap();
        }
        assert_eq!(disk.in_flight(), 0);
        let back = disk.read(&file, 2999 * BLOCK, BLOCK as usize).await.unwrap();
        assert!(*back == *block);
    });
}

#[test]
fn many_slices_are_one_write() {
    with_disk(|disk, directory| async move {
        let file = disk.open(&directory.join("a"), Open::Create).await.unwrap();
        let slices: Vec<_> = (0..2500).map(|i| pattern(BLOCK as usize, i as u8)).collect();
        disk.write(&file, 0, slices.clone()).await.unwrap();
        for i in [0, 1023, 1024, 2047, 2048, 2499] {
            let back = disk.read(&file, i as u64 * BLOCK, BLOCK as usize).await.unwrap();
            assert!(*back == *slices[i], "block {i}");
        }
    });
}

/// Polls a future once and drops it.
async fn poll_once<F: Future>(future: F) -> bool {
    let mut future = Box::pin(future);
    std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_ready())).await
}

#[test]
fn a_dropped_future_leaves_a_whole_operation_and_no_descriptor_behind() {
    with_disk(|disk, directory| async move {
        let path = directory.join("a");
        let file = disk.open(&path, Open::Create).await.unwrap();
        disk.allocate(&file, 64 * BLOCK).await.unwrap();
        let ours = |directory: &Path| {
            let links = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
            links.filter(|entry| std::fs::read_link(entry.path()).is_ok_and(|target| target.starts_with(directory))).count()
        };
        let before = ours(&directory);
        for i in 0..32 {
            // Its buffers must outlive it: the memory of a freed one would be written instead.
            assert!(!poll_once(disk.write(&file, i * BLOCK, vec![pattern(BLOCK as usize, i as u8)])).await);
            assert!(!poll_once(disk.read(&file, i * BLOCK, BLOCK as usize)).await);
            assert!(!poll_once(disk.open(&path, Open::Existing)).await);
            assert!(!poll_once(disk.flush(&file)).await);
        }
        while disk.in_flight() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(ours(&directory), before);
        for i in 0..32 {
            assert!(*disk.read(&file, i * BLOCK, BLOCK as usize).await.unwrap() == *pattern(BLOCK as usize, i as u8));
        }
    });
}

#[test]
fn a_disk_that_goes_away_waits_for_what_it_started() {
    let directory = directory();
    let path = directory.path().to_owned();
    let lock = File::create(path.join("lock")).unwrap();
    let disk = UringDisk::new(lock.as_raw_fd(), false).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::select! {
            () = disk.run() => unreachable!("it runs for ever"),
            () = async {
                let file = disk.open(&path.join("a"), Open::Create).await.unwrap();
                disk.allocate(&file, 1 << 20).await.unwrap();
                assert!(!poll_once(disk.write(&file, 0, vec![pattern(1 << 20, 3)])).await);
                tokio::task::yield_now().await;
            } => {}
        }
    });
    drop(disk);
}
