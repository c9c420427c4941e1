//! The simulated disk keeps its promises, and breaks all others.

use super::super::{is_full, read_whole, write_whole};
use super::*;

const ROOT: &str = "/data";

fn disk(seed: u64) -> SimDisk {
    SimDisk::new(seed, &[Path::new(ROOT)])
}

fn path(name: &str) -> PathBuf {
    Path::new(ROOT).join(name)
}

fn blocks(count: usize, fill: u8) -> Slice {
    Chunk::padded(&vec![fill; count * BLOCK as usize])
}

fn run<T: 'static>(disk: &SimDisk, seed: u64, program: impl AsyncFnOnce(SimDisk) -> T + 'static) -> T {
    let mut executor = Executor::new(disk, seed);
    let disk = disk.clone();
    executor.block_on(async move { program(disk).await })
}

async fn create(disk: &SimDisk, name: &str) -> SimFile {
    let file = disk.open(&path(name), Open::Create).await.unwrap();
    disk.allocate(&file, 16 * BLOCK).await.unwrap();
    disk.sync(&file).await.unwrap();
    disk.sync_dir(Path::new(ROOT)).await.unwrap();
    file
}

#[test]
fn what_was_flushed_survives_every_crash() {
    for seed in 0..200 {
        let disk = disk(seed);
        run(&disk, seed, async |disk: SimDisk| {
            let file = create(&disk, "a").await;
            disk.write(&file, 0, vec![blocks(3, 7)]).await.unwrap();
            disk.flush(&file).await.unwrap();
            disk.write(&file, 3 * BLOCK, vec![blocks(1, 9)]).await.unwrap();
        });
        disk.crash();
        let bytes = disk.peek(&path("a")).unwrap();
        assert!(bytes[..3 * BLOCK as usize].iter().all(|byte| *byte == 7));
    }
}

#[test]
fn what_rots_stays_so_over_a_crash_and_can_be_put_back() {
    for seed in 0..50 {
        let disk = disk(seed);
        run(&disk, seed, async |disk: SimDisk| {
            let file = create(&disk, "a").await;
            disk.write(&file, 0, vec![blocks(3, 7)]).await.unwrap();
        });
        disk.kill();
        let size = 16 * BLOCK as usize;
        assert!(disk.rot(&path("a"), |bytes| bytes[5_000] ^= 1));
        disk.crash();
        let bytes = disk.peek(&path("a")).unwrap();
        assert_eq!((bytes.len(), bytes[4_999], bytes[5_000], bytes[3 * BLOCK as usize]), (size, 7, 6, 0));
        assert!(disk.rot(&path("a"), |bytes| bytes.truncate(6_000)));
        assert!(disk.rot(&path("a"), |bytes| {
            bytes[5_000] ^= 1;
            bytes.resize(size, 7);
        }));
        disk.crash();
        assert!(disk.peek(&path("a")).unwrap().iter().all(|byte| *byte == 7));
        assert!(!disk.rot(&path("b"), |_| ()));
    }
}

#[test]
fn what_was_not_flushed_is_kept_lost_and_torn() {
    let (mut kept, mut lost, mut torn) = (0, 0, 0);
    for seed in 0..200 {
        let disk = disk(seed);
        run(&disk, seed, async |disk: SimDisk| {
            let file = create(&disk, "a").await;
            disk.write(&file, 0, vec![blocks(4, 7)]).await.unwrap();
        });
        let crash = disk.crash();
        let bytes = disk.peek(&path("a")).unwrap();
        let alive = bytes.chunks(BLOCK as usize).filter(|block| block[0] == 7).count();
        assert_eq!(crash.torn.len(), usize::from(alive > 0 && alive < 4));
        match alive {
            0 => lost += 1,
            4 => kept += 1,
            _ => torn += 1,
        }
    }
    assert!(kept > 10 && lost > 10 && torn > 10, "{kept} {lost} {torn}");
}

#[test]
fn a_flush_covers_only_what_had_completed_when_it_was_submitted() {
    let mut lost = 0;
    for seed in 0..200 {
        let disk = disk(seed);
        run(&disk, seed, async |disk: SimDisk| {
            let file = create(&disk, "a").await;
            // Submitted first, and maybe completed first: not covered all the same.
            let write = disk.write(&file, 0, vec![blocks(1, 7)]);
            futures_util::future::join(write, disk.flush(&file)).await.1.unwrap();
        });
        disk.crash();
        lost += usize::from(disk.peek(&path("a")).unwrap()[0] == 0);
    }
    assert!(lost > 50);
}

#[test]
fn a_killed_process_leaves_what_it_wrote_and_nothing_durable() {
    let mut lost = 0;
    for seed in 0..100 {
        let disk = disk(seed);
        run(&disk, seed, async |disk: SimDisk| {
            let file = create(&disk, "a").await;
            disk.write(&file, 0, vec![blocks(2, 7)]).await.unwrap();
        });
        disk.kill();
        assert_eq!(disk.peek(&path("a")).unwrap()[0], 7);
        if seed % 2 == 0 {
            run(&disk, seed, async |disk: SimDisk| {
                let file = disk.open(&path("a"), Open::Existing).await.unwrap();
                disk.flush(&file).await.unwrap();
            });
        }
        disk.crash();
        let alive = disk.peek(&path("a")).unwrap()[0] == 7;
        assert!(alive || seed % 2 == 1);
        lost += usize::from(!alive);
    }
    assert!(lost > 10);
}

#[test]
fn names_and_sizes_are_durable_after_their_own_flush_only() {
    let (mut nameless, mut short) = (0, 0);
    for seed in 0..200 {
        let disk = disk(seed);
        run(&disk, seed, async |disk: SimDisk| {
            let file = create(&disk, "cut").await;
            disk.truncate(&file, BLOCK).await.unwrap();
            let file = disk.open(&path("nameless"), Open::Create).await.unwrap();
            disk.write(&file, 0, vec![blocks(1, 1)]).await.unwrap();
            disk.sync(&file).await.unwrap();
        });
        disk.crash();
        match disk.peek(&path("nameless")) {
            None => nameless += 1,
            Some(bytes) => assert!(bytes == vec![1; BLOCK as usize]),
        }
        short += usize::from(disk.peek(&path("cut")).unwrap().len() == BLOCK as usize);
    }
    assert!(nameless > 20 && nameless < 180 && short > 20 && short < 180, "{nameless} {short}");
}

#[test]
fn a_file_that_is_replaced_is_the_old_or_the_new_one() {
    for seed in 0..300 {
        let disk = disk(seed);
        let mut executor = Executor::new(&disk, seed);
        let handle = disk.clone();
        let task = executor.spawn(async move {
            for fill in 1..=3u8 {
                write_whole(&handle, &path("small"), &vec![fill; 5000 * fill as usize]).await.unwrap();
            }
        });
        let steps = seed / 2;
        let mut alive = true;
        for _ in 0..steps {
            alive &= executor.step();
        }
        let _ = (task, alive);
        drop(executor);
        disk.crash();
        if let Some(bytes) = disk.peek(&path("small")) {
            assert!(bytes.len() == 5000 * bytes[0] as usize && bytes.iter().all(|byte| *byte == bytes[0]));
            let whole = run(&disk, seed, async |disk: SimDisk| read_whole(&disk, &path("small")).await.unwrap());
            assert_eq!(whole, bytes);
        }
    }
}

#[test]
fn a_failed_flush_drops_data_and_its_repetition_succeeds() {
    let mut lost = 0;
    for seed in 0..100 {
        let disk = disk(seed);
        run(&disk, seed, async |disk: SimDisk| {
            let file = create(&disk, "a").await;
            disk.write(&file, 0, vec![blocks(2, 7)]).await.unwrap();
            disk.set_faults(Faults { flush_failed: 1.0, ..Faults::default() });
            disk.flush(&file).await.unwrap_err();
            disk.set_faults(Faults::default());
            disk.flush(&file).await.unwrap();
        });
        disk.crash();
        lost += usize::from(disk.peek(&path("a")).unwrap()[..2 * BLOCK as usize].iter().any(|byte| *byte != 7));
    }
    assert!(lost > 20);
}

#[test]
fn failed_and_short_writes_are_errors() {
    let disk = disk(1);
    run(&disk, 1, async |disk: SimDisk| {
        let file = create(&disk, "a").await;
        disk.set_faults(Faults { write_failed: 1.0, only: Some(|path| path.ends_with("a")), ..Faults::default() });
        disk.write(&file, 0, vec![blocks(2, 7)]).await.unwrap_err();
        let other = disk.open(&path("b"), Open::Create).await.unwrap();
        disk.write(&other, 0, vec![blocks(2, 7)]).await.unwrap();
        disk.set_faults(Faults { write_short: 1.0, ..Faults::default() });
        let error = disk.write(&file, 0, vec![blocks(2, 7)]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WriteZero);
    });
}

#[test]
fn a_full_disk_takes_writes_into_allocated_space_only() {
    let disk = disk(1);
    run(&disk, 1, async |disk: SimDisk| {
        let file = create(&disk, "a").await;
        disk.set_free_blocks(Some(0));
        disk.write(&file, 0, vec![blocks(16, 7)]).await.unwrap();
        let full = |result: io::Result<()>| assert!(is_full(&result.unwrap_err()));
        full(disk.write(&file, 16 * BLOCK, vec![blocks(1, 7)]).await);
        full(disk.allocate(&file, 17 * BLOCK).await);
        assert_eq!(disk.size(&file).await.unwrap(), 16 * BLOCK);
        disk.truncate(&file, 4 * BLOCK).await.unwrap();
        let other = disk.open(&path("b"), Open::Create).await.unwrap();
        disk.write(&other, 0, vec![blocks(12, 7)]).await.unwrap();
        full(disk.allocate(&file, 5 * BLOCK).await);
        disk.remove(&path("b")).await.unwrap();
        disk.allocate(&file, 16 * BLOCK).await.unwrap();
    });
}

#[test]
fn the_same_seed_does_the_same() {
    let history = |seed: u64| {
        let disk = disk(seed);
        let order = Rc::new(RefCell::new(Vec::new()));
        let mut executor = Executor::new(&disk, seed);
        for number in 0..20u8 {
            let (disk, order) = (disk.clone(), Rc::clone(&order));
            executor.spawn(async move {
                let file = disk.open(&path(&format!("f{number}")), Open::Create).await.unwrap();
                disk.write(&file, 0, vec![blocks(1, number)]).await.unwrap();
                order.borrow_mut().push(number);
            });
        }
        while executor.step() {}
        order.take()
    };
    assert_eq!(history(5), history(5));
    assert_ne!(history(5), history(6));
}
