//! The journal on the simulated disk: what was written is read, and what is damaged is noticed.

use super::*;
use crate::{
    disk::{
        BLOCK, Chunk, Disk, Open, is_full,
        sim::{Executor, SimDisk},
    },
    ids::PartitionId,
    segment::{EpochStart, ProducerState, SequencedBatch},
};
use proptest::prelude::*;
use std::path::Path;

const DIR: &str = "/journal";
const FILE_BYTES: u64 = 4 << 20;

fn disk() -> SimDisk {
    SimDisk::new(1, &[Path::new(DIR)])
}

/// Runs `program` as one life of a process, which then ends.
fn run<T: 'static>(disk: &SimDisk, program: impl Future<Output = T> + 'static) -> T {
    let mut executor = Executor::new(disk, 7);
    let result = executor.block_on(program);
    drop(executor);
    disk.kill();
    result
}

fn first() -> JournalPosition {
    JournalPosition { start: 3, salt: 77, core: 0, current: Which::A, generation: 1, next_sequence: 1, offset: 0, file_bytes: FILE_BYTES }
}

fn identity() -> Identity {
    Identity { start: 3, salt: 77, core: 0 }
}

fn bytes(partition: u32, position: u32, content: &[u8]) -> Item {
    let bytes = if content.is_empty() { Vec::new() } else { vec![Chunk::padded(content).sub(0, content.len())] };
    Item::Bytes { partition: PartitionId(partition), segment_base: 0, position, bytes }
}

fn line(partition: u32) -> Line {
    Line { partition: PartitionId(partition), segment_base: 5, flushed: 4097, batch_start: 4000, index_end: 16, log_start: 2 }
}

fn producer() -> ProducerState {
    let batch = |n: i32| SequencedBatch { last_sequence: n, last_offset: i64::from(n) + 9, offset_delta: 1, timestamp: 8 };
    ProducerState {
        producer_id: 4,
        epoch: 2,
        coordinator_epoch: -1,
        last_timestamp: 8,
        transaction_first_offset: -1,
        batches: (0..5).map(batch).collect(),
    }
}

/// Both files, a first head of one line, and `frames` frames of one entry each, the number of the frame in it.
async fn journal(disk: SimDisk, frames: u32) -> JournalWriter<SimDisk> {
    let dir = Path::new(DIR);
    for which in [Which::A, Which::B] {
        prepare_file(&disk, &file_path(dir, 0, which), FILE_BYTES).await.expect("prepared");
    }
    disk.sync_dir(dir).await.expect("flushed");
    let position = write_first_head(&disk, dir, first(), &[line(1)], &[]).await.expect("head");
    let mut writer = JournalWriter::open(disk, dir, position).await.expect("opens");
    for number in 0..frames {
        writer.frame(&[bytes(1, number, &[number as u8; 100])]).await.expect("frame");
    }
    writer
}

async fn read(disk: SimDisk, accept_loss: bool) -> Result<(Which, Content), JournalError> {
    read_core(&disk, Path::new(DIR), identity(), accept_loss).await
}

async fn damage(disk: SimDisk, which: Which, block: u64) {
    let file = disk.open(&file_path(Path::new(DIR), 0, which), Open::Existing).await.expect("opens");
    disk.write(&file, block * BLOCK, vec![Chunk::padded(b"damage")]).await.expect("writes");
}

#[test]
fn what_was_written_is_read_back_in_order() {
    let disk = disk();
    let program = {
        let disk = disk.clone();
        async move {
            let mut writer = journal(disk.clone(), 3).await;
            let epoch = Item::Epoch { partition: PartitionId(1), epoch: EpochStart { epoch: 6, start_offset: 12 } };
            let items = [Item::Producer { partition: PartitionId(1), state: producer() }, epoch, bytes(1, 4096, b"carried")];
            writer.switch(&[line(1), line(2)], &items).await.expect("switch");
            let log_start = Item::LogStart { partition: PartitionId(2), offset: 3 };
            writer.frame(&[bytes(2, 8192, b"first"), log_start, bytes(2, 12288, b"")]).await.expect("frame");
        }
    };
    run(&disk, program);
    let (which, content) = run(&disk, read(disk.clone(), false)).expect("whole");
    assert_eq!(which, Which::B);
    assert_eq!((content.generation, &content.lines), (2, &vec![line(1), line(2)]));
    assert_eq!(content.producers, [(PartitionId(1), producer())]);
    assert_eq!(content.epochs, [(PartitionId(1), EpochStart { epoch: 6, start_offset: 12 })]);
    assert_eq!(content.log_starts, [(PartitionId(2), 3)]);
    let entries: Vec<_> = content.entries.iter().map(|entry| (entry.partition.0, entry.position, entry.bytes.as_slice())).collect();
    assert_eq!(entries, [(1, 4096, b"carried".as_slice()), (2, 8192, b"first"), (2, 12288, b"")]);
}

#[test]
fn a_head_that_would_leave_no_room_gets_a_larger_file() {
    let disk = disk();
    let producers = |count: i64| -> Vec<Item> {
        (0..count).map(|id| Item::Producer { partition: PartitionId(1), state: ProducerState { producer_id: id, ..producer() } }).collect()
    };
    let count = FILE_BYTES as i64 / 100;
    let program = {
        let disk = disk.clone();
        async move {
            let mut writer = journal(disk.clone(), 1).await;
            for round in 0..3 {
                // More than a file holds, then few again: the files are of different lengths.
                let items = producers(if round == 1 { 10 } else { count });
                writer.switch(&[line(1)], &items).await.expect("the other file is made larger");
                assert!(writer.room() > FRAME_CONTENT_MAX / 2, "{} bytes are left", writer.room());
                writer.frame(&[bytes(1, 0, b"goes on")]).await.expect("frame");
            }
        }
    };
    run(&disk, program);
    disk.crash();
    let (which, content) = run(&disk, read(disk.clone(), false)).expect("whole");
    assert_eq!((which, content.producers.len(), content.entries.len()), (Which::B, count as usize, 1));
}

#[test]
fn a_head_that_no_space_is_left_for_is_an_error_that_says_so() {
    let disk = disk();
    let program = {
        let disk = disk.clone();
        async move {
            let mut writer = journal(disk.clone(), 1).await;
            disk.set_free_blocks(Some(0));
            let half = bytes(1, 0, &vec![9; FILE_BYTES as usize / 8 * 5]);
            writer.switch(&[line(1)], &[half]).await.expect("it fits, and leaves a quarter");
            let whole = bytes(1, 0, &vec![9; FILE_BYTES as usize]);
            let error = writer.switch(&[line(1)], &[whole]).await.expect_err("it does not fit");
            assert!(matches!(&error, JournalError::Failed { source, .. } if is_full(source)), "{error}");
        }
    };
    run(&disk, program);
}

#[test]
fn flushed_frames_survive_a_crash_and_the_torn_one_ends_them() {
    let disk = disk();
    run(&disk, {
        let disk = disk.clone();
        async move { drop(journal(disk, 5).await) }
    });
    disk.crash();
    assert_eq!(run(&disk, read(disk.clone(), false)).expect("whole").1.entries.len(), 5);
    // Head in block 0, frames in blocks 1 to 5: the last one torn is what a crash leaves.
    run(&disk, damage(disk.clone(), Which::A, 5));
    assert_eq!(run(&disk, read(disk.clone(), false)).expect("torn").1.entries.len(), 4);
}

#[test]
fn a_damaged_frame_before_valid_ones_is_refused_unless_loss_is_accepted() {
    let disk = disk();
    run(&disk, {
        let disk = disk.clone();
        async move { drop(journal(disk, 5).await) }
    });
    run(&disk, damage(disk.clone(), Which::A, 3));
    assert!(matches!(run(&disk, read(disk.clone(), false)), Err(JournalError::Damaged { .. })));
    assert_eq!(run(&disk, read(disk.clone(), true)).expect("accepted").1.entries.len(), 2);
}

#[test]
fn an_incomplete_head_gives_way_to_the_other_file() {
    let disk = disk();
    run(&disk, {
        let disk = disk.clone();
        async move {
            let mut writer = journal(disk, 2).await;
            // Three frames: the bytes are split.
            writer.switch(&[line(1)], &[bytes(1, 0, &vec![9; 5 << 19])]).await.expect("switch");
        }
    });
    let (which, content) = run(&disk, read(disk.clone(), false)).expect("whole");
    assert_eq!((which, content.entries.iter().map(|entry| entry.bytes.len()).sum::<usize>()), (Which::B, 5 << 19));
    let end = content.entries.iter().fold(0, |end, entry| {
        assert_eq!(entry.position, end, "parts of an item lie behind each other");
        end + entry.bytes.len() as u32
    });
    assert_eq!(end, 5 << 19);
    run(&disk, damage(disk.clone(), Which::B, 300));
    let (which, content) = run(&disk, read(disk.clone(), false)).expect("the older one");
    assert_eq!((which, content.generation, content.entries.len()), (Which::A, 1, 2));
}

#[test]
fn an_incomplete_head_with_frames_behind_it_is_damage() {
    let disk = disk();
    run(&disk, {
        let disk = disk.clone();
        async move {
            let mut writer = journal(disk, 2).await;
            writer.switch(&[line(1)], &[]).await.expect("switch");
            writer.frame(&[bytes(1, 0, b"acked")]).await.expect("frame");
        }
    });
    run(&disk, damage(disk.clone(), Which::B, 0));
    assert!(matches!(run(&disk, read(disk.clone(), false)), Err(JournalError::Damaged { .. })));
    assert_eq!(run(&disk, read(disk.clone(), true)).expect("accepted").0, Which::A);
}

#[test]
fn older_content_of_a_file_is_neither_read_nor_taken_for_damage() {
    let disk = disk();
    run(&disk, {
        let disk = disk.clone();
        async move {
            let mut writer = journal(disk, 9).await;
            writer.switch(&[line(1)], &[]).await.expect("switch");
            writer.switch(&[line(1)], &[]).await.expect("back to the first file, whose old frames are still there");
            writer.frame(&[bytes(1, 0, b"new")]).await.expect("frame");
        }
    });
    let (which, content) = run(&disk, read(disk.clone(), false)).expect("whole");
    assert_eq!((which, content.generation, content.entries.len()), (Which::A, 3, 1));
    // A crash within the third head: the second one counts, whatever the first file still shows.
    run(&disk, damage(disk.clone(), Which::A, 0));
    run(&disk, damage(disk.clone(), Which::A, 1));
    assert_eq!(run(&disk, read(disk.clone(), false)).expect("the second").1.generation, 2);
}

#[test]
fn a_missing_file_is_refused() {
    let disk = disk();
    run(&disk, {
        let disk = disk.clone();
        async move {
            drop(journal(disk.clone(), 1).await);
            disk.remove(&file_path(Path::new(DIR), 0, Which::B)).await.expect("removed");
        }
    });
    assert!(matches!(run(&disk, read(disk.clone(), false)), Err(JournalError::Damaged { .. })));
}

#[test]
fn the_room_of_a_file_is_all_of_it() {
    let disk = disk();
    run(&disk, {
        let disk = disk.clone();
        async move {
            let mut writer = journal(disk, 0).await;
            while writer.room() > 24 {
                let content = vec![1; writer.room() - 24];
                writer.frame(&[bytes(1, 0, &content)]).await.expect("frame");
            }
            assert_eq!(writer.position().offset, FILE_BYTES);
        }
    });
    let (_, content) = run(&disk, read(disk.clone(), false)).expect("whole");
    assert!(content.entries.len() >= 4);
}

fn superblock(sequence: u64) -> Superblock {
    Superblock { sequence, start: sequence, salt: 5, journals: 2, epoch_floor: 9, clean: false }
}

#[test]
fn a_torn_superblock_slot_leaves_the_other() {
    let disk = disk();
    let write = |sequence| {
        let disk = disk.clone();
        async move { superblock(sequence).write(&disk, Path::new(DIR)).await.expect("written") }
    };
    let read = || {
        let disk = disk.clone();
        async move { Superblock::read(&disk, Path::new(DIR)).await.expect("read") }
    };
    assert_eq!(run(&disk, read()), None);
    run(&disk, write(1));
    run(&disk, write(2));
    disk.crash();
    assert_eq!(run(&disk, read()), Some(superblock(2)));
    let tear = disk.clone();
    run(&disk, async move {
        let file = tear.open(&superblock_path(Path::new(DIR)), Open::Existing).await.expect("opens");
        tear.write(&file, 0, vec![Chunk::padded(b"torn")]).await.expect("writes");
    });
    assert_eq!(run(&disk, read()), Some(superblock(1)));
}

#[test]
fn a_start_is_named_by_both_slots_once_it_is_committed() {
    for slot in [0, BLOCK] {
        let disk = disk();
        let program = {
            let disk = disk.clone();
            async move {
                superblock(1).write(&disk, Path::new(DIR)).await.expect("written");
                superblock(2).commit(&disk, Path::new(DIR)).await.expect("committed");
                let path = superblock_path(Path::new(DIR));
                disk.rot(&path, |bytes| bytes[slot as usize + 100] ^= 1);
                Superblock::read(&disk, Path::new(DIR)).await.expect("read")
            }
        };
        let sequence = if slot == 0 { 3 } else { 2 };
        assert_eq!(run(&disk, program), Some(Superblock { sequence, ..superblock(2) }));
    }
}

#[test]
fn a_superblock_slot_that_cannot_be_read_leaves_the_other() {
    let path = superblock_path(Path::new(DIR));
    let read = |disk: &SimDisk| {
        let reading = disk.clone();
        run(disk, async move { Superblock::read(&reading, Path::new(DIR)).await })
    };
    let committed = || {
        let disk = disk();
        let program = {
            let disk = disk.clone();
            async move { superblock(2).commit(&disk, Path::new(DIR)).await.expect("committed") }
        };
        run(&disk, program);
        disk
    };
    for (slot, sequence) in [(0, 3), (1, 2)] {
        let disk = committed();
        disk.set_unreadable(&path, slot);
        assert_eq!(read(&disk).expect("the other one counts"), Some(Superblock { sequence, ..superblock(2) }));
        // Neither counts: it may be the one that can't be read which does.
        disk.rot(&path, |bytes| bytes[(1 - slot as usize) * BLOCK as usize + 100] ^= 1);
        assert!(matches!(read(&disk), Err(JournalError::Failed { .. })));
    }
}

#[test]
fn a_newer_format_is_refused() {
    let disk = disk();
    let program = {
        let disk = disk.clone();
        async move {
            superblock(1).write(&disk, Path::new(DIR)).await.expect("written");
            let file = disk.open(&superblock_path(Path::new(DIR)), Open::Existing).await.expect("opens");
            let mut slot = disk.read(&file, BLOCK, BLOCK as usize).await.expect("reads").to_vec();
            slot[12] += 1;
            let checksum = crc32c::crc32c(&slot[12..]);
            slot[8..12].copy_from_slice(&checksum.to_le_bytes());
            disk.write(&file, BLOCK, vec![Chunk::padded(&slot)]).await.expect("writes");
            Superblock::read(&disk, Path::new(DIR)).await
        }
    };
    assert!(matches!(run(&disk, program), Err(JournalError::NewerFormat { found: 2, known: 1, .. })));
}

proptest! {
    #[test]
    fn any_bytes_are_items_or_an_error(mut content: Vec<u8>, tag in 0u8..7) {
        if let Some(first) = content.first_mut() {
            *first = tag;
        }
        let _ = decode(&content);
        let _ = check(&content);
    }

    #[test]
    fn a_flipped_bit_of_a_frame_is_noticed(bit in 0usize..(64 + 24 + 100) * 8) {
        let parts = [bytes(1, 2, &[3; 100])];
        let parts: Vec<_> = parts.iter().map(item::Part::Item).collect();
        let header = FrameHeader { start: 1, salt: 2, core: 3, generation: 4, sequence: 5, length: 0, head: (0, 0) };
        let mut frame = frame::encode(header, &parts).to_vec();
        prop_assert!(check(&frame).is_some_and(|(found, content)| found.sequence == 5 && content.len() == 124));
        frame[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(check(&frame).is_none());
    }
}
