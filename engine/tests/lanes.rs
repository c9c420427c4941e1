//! The log on a real directory (O_DIRECT, io_uring): what is acked is there after a clean stop and after a crash.

#[path = "support/life.rs"]
mod life;

use engine::{
    batch::{BatchBuilder, Scanner, scan},
    log::{Start, TimeQuery, mark_clean},
    partition::PartitionId,
};
use life::{BULK, NOW_MS, SEGMENT_BYTES, SMALL, batch, config, consume, directory, live, live_closed, on_disk, produce};
use std::path::Path;

#[test]
fn a_start_reads_the_catalog_from_its_log_start_on() {
    let directory = directory();
    let path = directory.path();
    let week_ms = 7 * 24 * 3_600_000;
    // Three changes; the second begins another segment, and the third is a snapshot that the log start is raised to.
    live(path, |log, _| async move {
        log.ready(&[PartitionId::CATALOG]).await.expect("ready");
        for (offset, at) in [(0, NOW_MS), (1, NOW_MS + week_ms + 1), (2, NOW_MS + week_ms + 2)] {
            let change = BatchBuilder::new().record(at, None, Some(&[offset as u8])).build();
            let appended = log.append(PartitionId::CATALOG, &change, at).expect("appends");
            assert_eq!(appended.last_offset, offset);
            log.durable(PartitionId::CATALOG, offset).await.expect("durable");
        }
        assert_eq!(log.delete_records(PartitionId::CATALOG, 2).await.expect("raised"), 2);
    });
    on_disk(path, async |disk| {
        let start = Start::read(&disk, &config(path), rand::random()).await.expect("starts");
        let mut offsets = Vec::new();
        scan(start.catalog(), Scanner::new(0, 2, i32::MIN), |_, header, _| offsets.push(header.base_offset()));
        assert_eq!(offsets, [2], "what comes before a snapshot changes a state that is gone");
    });
}

#[test]
fn acked_records_outlive_a_clean_stop_and_a_kill() {
    let directory = directory();
    let path = directory.path();
    let (mut small, mut bulk) = (0, 0);
    live(path, |log, disk| {
        let (small, bulk) = (&mut small, &mut bulk);
        async move {
            for at in 0..500 {
                *small = produce(&log, SMALL, &batch(&vec![at as u8; 100 + at * 7], 3)).await;
            }
            for at in 0..40u8 {
                *bulk = produce(&log, BULK, &batch(&vec![at; 100_000], 9)).await;
            }
            assert_eq!(consume(&log, &disk, SMALL, 0).await.1, *small);
            assert_eq!(consume(&log, &disk, BULK, 0).await.1, *bulk);
            log.close().await.expect("closes");
            mark_clean(&disk, &config(path)).await.expect("marks the stop as clean");
        }
    });
    for life in 0..4 {
        live(path, |log, disk| {
            let (small, bulk) = (&mut small, &mut bulk);
            async move {
                assert_eq!(consume(&log, &disk, SMALL, 0).await.1, *small, "life {life}");
                assert_eq!(consume(&log, &disk, BULK, 0).await.1, *bulk, "life {life}");
                for at in 0..50u8 {
                    *bulk = produce(&log, BULK, &batch(&vec![at; 50_000], 1 + i64::from(at % 8))).await;
                    *small = produce(&log, SMALL, &batch(&vec![at; 1_000], 2)).await;
                }
                assert_eq!(consume(&log, &disk, SMALL, *small - 7).await.1, *small);
                let found = log.offset_for(SMALL, TimeQuery::AtOrAfter(NOW_MS + 1)).await.expect("searches");
                assert_eq!(found, Some((NOW_MS + 1, 1)));
                let found = log.offset_for(SMALL, TimeQuery::Max).await.expect("searches");
                assert_eq!(found, Some((NOW_MS + 2, 2)));
                let offsets = log.offsets(SMALL).expect("is owned");
                assert_eq!((offsets.high_watermark, offsets.log_end), (*small, *small));
            }
        });
    }
    live(path, |log, disk| async move {
        let before = log.delete_records(SMALL, small - 5).await.expect("deletes records");
        assert_eq!(before, small - 5);
        assert!(log.read(SMALL, 0, 1_000, true, false).await.is_err());
        assert_eq!(consume(&log, &disk, SMALL, before).await.1, small);
        log.delete(BULK).await.expect("deletes");
        assert!(log.offsets(BULK).is_none());
    });
}

#[test]
fn a_damaged_header_in_a_closed_partition_is_told_and_nothing_is_cut_off() {
    let directory = directory();
    let path = directory.path();
    live(path, |log, disk| async move {
        for value in 0..3 {
            produce(&log, SMALL, &batch(&[value; 6_000], 2)).await;
        }
        log.close().await.expect("closes");
        mark_clean(&disk, &config(path)).await.expect("marks the stop as clean");
    });
    let segment = path.join(format!("topic-{}/{:020}.log", SMALL.0, 0));
    let whole = std::fs::read(&segment).expect("reads");
    let (second, magic) = (batch(&[0; 6_000], 2).len(), 16);
    let mut damaged = whole.clone();
    damaged[second + magic] ^= 1;
    std::fs::write(&segment, &damaged).expect("writes");
    for _ in 0..2 {
        live_closed(path, false, |log, _| async move {
            let error = log.ready(&[SMALL]).await.expect_err("is damaged").to_string();
            assert!(error.contains(&format!("no batch at byte {second} ")) && error.contains("--accept-loss"), "{error}");
        });
    }
    assert!(std::fs::read(&segment).expect("reads") == damaged, "nothing of it is changed");
    std::fs::write(&segment, &whole).expect("writes");
    live(path, |log, disk| async move {
        assert_eq!(consume(&log, &disk, SMALL, 0).await.1, 6);
    });
    // Without entries in the journal: the bytes are in the segment.
    stop_cleanly(path);
    std::fs::write(&segment, &damaged).expect("writes");
    lose(path, 2);
}

/// Accepts what is lost behind a damage, appends, and is killed: from then on all is well. `left` is the end of what is whole.
fn lose(path: &Path, left: i64) {
    live_closed(path, true, |log, disk| async move {
        log.ready(&[SMALL]).await.expect("the loss is accepted");
        assert_eq!(consume(&log, &disk, SMALL, 0).await.1, left);
        // More than was lost: what was there before must not come back over it.
        for value in 0..40 {
            assert_eq!(produce(&log, SMALL, &batch(&[value; 6_000], 1)).await, left + i64::from(value) + 1);
        }
    });
    live(path, |log, disk| async move {
        assert_eq!(consume(&log, &disk, SMALL, 0).await.1, left + 40);
    });
}

fn stop_cleanly(path: &Path) {
    live(path, |log, disk| async move {
        log.close().await.expect("closes");
        mark_clean(&disk, &config(path)).await.expect("marks the stop as clean");
    });
}

/// A killed broker's log, whose journal has entries above `acked` bytes of the segment; and the segment.
fn killed_above(path: &Path) -> std::path::PathBuf {
    live(path, |log, _| async move {
        for value in 0..20 {
            produce(&log, SMALL, &batch(&[value; 6_000], 1)).await;
        }
    });
    stop_cleanly(path);
    live(path, |log, _| async move {
        for value in 20..30 {
            produce(&log, SMALL, &batch(&[value; 600], 1)).await;
        }
    });
    path.join(format!("topic-{}/{:020}.log", SMALL.0, 0))
}

#[test]
fn damage_below_what_the_journal_of_a_killed_broker_covers_is_told_and_a_clean_stop_leaves_it() {
    let size = batch(&[0; 6_000], 1).len();
    let (offset, length, magic) = (0, 8, 16);
    // The field, its bits, and where then no batch begins: an offset may be followed by any higher one that its segment can hold.
    let cases = [
        (length, 0x7f, size * 15),
        (length + 3, 1, size * 16 - 1),
        (magic, 1, size * 15),
        (offset, 0x40, size * 15),
        (offset + 5, 1, size * 16),
    ];
    for (field, bits, told) in cases {
        let directory = directory();
        let path = directory.path();
        let segment = killed_above(path);
        let mut damaged = std::fs::read(&segment).expect("reads");
        damaged[size * 15 + field] ^= bits;
        std::fs::write(&segment, &damaged).expect("writes");
        for _ in 0..2 {
            live_closed(path, false, |log, _| async move {
                let error = log.ready(&[SMALL]).await.expect_err("is damaged").to_string();
                assert!(error.contains(&format!("no batch at byte {told} ")) && error.contains("--accept-loss"), "{error}");
                assert!(log.ready(&[SMALL]).await.is_err() && log.offsets(SMALL).expect("is known").offline);
                assert_eq!(log.offline(), 1);
                log.ready(&[BULK]).await.expect("the others go on");
                produce(&log, BULK, &batch(b"the others go on", 1)).await;
                assert_eq!(log.close().await.expect("a stop leaves it as it is"), 1);
            });
        }
        assert!(std::fs::read(&segment).expect("reads")[..size * 20] == damaged[..size * 20], "nothing of it is changed");
        damaged[size * 15 + field] ^= bits;
        std::fs::write(&segment, &damaged).expect("writes");
        live(path, |log, disk| async move {
            assert_eq!(consume(&log, &disk, SMALL, 0).await.1, 30, "it was restored");
        });
    }
}

#[test]
fn a_loss_that_is_accepted_is_cut_off_for_good() {
    let size = batch(&[0; 6_000], 1).len();
    for cleanly in [false, true] {
        let directory = directory();
        let path = directory.path();
        let segment = killed_above(path);
        if cleanly {
            stop_cleanly(path);
        }
        let mut damaged = std::fs::read(&segment).expect("reads");
        damaged[size * 15 + 16] ^= 1;
        std::fs::write(&segment, &damaged).expect("writes");
        lose(path, 15);
        // What the journal alone had, too.
        let end = size * 20 + batch(&[0; 600], 1).len() * 10;
        let kept = std::fs::read(segment.with_extension(format!("log.removed-{}-{end}", size * 15))).expect("is kept");
        assert!(kept[..size] == damaged[size * 15..size * 16]);
        let mut offsets = Vec::new();
        scan(&kept[size..], Scanner::new(0, 16, i32::MIN), |_, header, _| offsets.push(header.base_offset()));
        assert_eq!(offsets, (16..30).collect::<Vec<_>>());
    }
}

#[test]
fn damage_in_what_the_journal_vouches_for_is_no_end_of_the_log() {
    let large = batch(&[0; 400_000], 2).len();
    let (offset, length, magic) = (0, 8, 16);
    // A length that leads too far, or nowhere: the batch might be one whose rest never came. An offset may be followed by any higher one
    // that its segment can hold.
    let cases = [
        (magic, 1, large),
        (length + 1, 0x10, large),
        (length, 0x40, large),
        (offset, 0x40, large),
        (offset + 5, 1, 2 * large),
        (magic + 100, 1, large),
    ];
    for (field, bits, told) in cases {
        for lives in [0, 1] {
            // Of what a head vouches for only the headers are looked at.
            if field < magic + 100 || lives == 0 {
                damage_in_the_journals_reach(large + field, bits, told, lives);
            }
        }
    }
}

fn damage_in_the_journals_reach(at: usize, bits: u8, told: usize, lives: usize) {
    let large = batch(&[0; 400_000], 2).len();
    let directory = directory();
    let path = directory.path();
    live(path, |log, _| async move {
        for _ in 0..2 {
            produce(&log, BULK, &batch(&[0; 400_000], 2)).await;
        }
        produce(&log, BULK, &batch(b"in the same block", 1)).await;
    });
    for _ in 0..lives {
        // This start's head carries the block in which the second batch ends; its header is in the segment only.
        live(path, |log, disk| async move {
            assert_eq!(consume(&log, &disk, BULK, 0).await.1, 5);
        });
    }
    let segment = path.join(format!("topic-{}/{:020}.log", BULK.0, 0));
    let flip = || {
        let mut bytes = std::fs::read(&segment).expect("reads");
        bytes[at] ^= bits;
        std::fs::write(&segment, &bytes).expect("writes");
    };
    flip();
    for is_stopped in [false, true, true] {
        live_closed(path, false, |log, _| async move {
            let error = log.ready(&[BULK]).await.expect_err("is damaged").to_string();
            assert!(error.contains(&format!("no batch at byte {told} ")) && error.contains("--accept-loss"), "{error}");
            assert_eq!(log.offline(), 1);
            log.ready(&[SMALL]).await.expect("the others go on");
            produce(&log, SMALL, &batch(b"the others go on", 1)).await;
            if is_stopped {
                assert_eq!(log.close().await.expect("closes"), 1, "a part of it is in the journal only");
            }
        });
    }
    flip();
    live(path, |log, disk| async move {
        assert_eq!(consume(&log, &disk, BULK, 0).await.1, 5, "it was restored");
    });
    if told > large || at > large + 16 {
        return;
    }
    flip();
    live_closed(path, true, |log, disk| async move {
        log.ready(&[BULK]).await.expect("the loss is accepted");
        assert_eq!(consume(&log, &disk, BULK, 0).await.1, 2);
        produce(&log, BULK, &batch(b"goes on", 1)).await;
    });
    live(path, |log, disk| async move {
        assert_eq!(consume(&log, &disk, BULK, 0).await.1, 3);
    });
}

#[test]
fn what_was_lost_is_in_no_index() {
    let directory = directory();
    let path = directory.path();
    let at = |second: i64| BatchBuilder::new().record(NOW_MS + 1_000 * second, None, Some(&[7; 6_000])).build();
    live(path, |log, _| async move {
        for second in 0..30 {
            produce(&log, SMALL, &at(second)).await;
        }
    });
    stop_cleanly(path);
    let segment = path.join(format!("topic-{}/{:020}.log", SMALL.0, 0));
    let mut damaged = std::fs::read(&segment).expect("reads");
    damaged[at(0).len() * 25 + 16] ^= 1;
    std::fs::write(&segment, &damaged).expect("writes");
    let query = TimeQuery::AtOrAfter(NOW_MS + 27_000);
    live_closed(path, true, |log, disk| async move {
        log.ready(&[SMALL]).await.expect("the loss is accepted");
        assert_eq!(log.offset_for(SMALL, query).await.expect("searches"), None);
        assert_eq!(log.offset_for(SMALL, TimeQuery::Max).await.expect("searches"), Some((NOW_MS + 24_000, 24)));
        produce(&log, SMALL, &at(40)).await;
        assert_eq!(log.offset_for(SMALL, query).await.expect("searches"), Some((NOW_MS + 40_000, 25)));
        log.close().await.expect("closes");
        mark_clean(&disk, &config(path)).await.expect("marks the stop as clean");
    });
    live(path, |log, _| async move {
        assert_eq!(log.offset_for(SMALL, query).await.expect("searches"), Some((NOW_MS + 40_000, 25)));
    });
}

#[test]
fn an_index_that_is_damaged_does_not_reach_the_journal() {
    let directory = directory();
    let path = directory.path();
    live(path, |log, _| async move {
        for _ in 0..3 {
            produce(&log, BULK, &batch(&[0; 100_000], 1)).await;
        }
        log.ready(&[BULK]).await.expect("is open");
    });
    stop_cleanly(path);
    let index = path.join(format!("topic-{}/{:020}.index", BULK.0, 0));
    let mut bytes = std::fs::read(&index).expect("reads");
    let last = bytes.len() - 1;
    bytes[last] ^= 0x10;
    std::fs::write(&index, &bytes).expect("writes");
    // An append in the last block, so that the next start looks for the batch that it lies behind.
    live(path, |log, _| async move {
        assert_eq!(produce(&log, BULK, &batch(b"small", 1)).await, 4);
    });
    for _ in 0..3 {
        live(path, |log, disk| async move {
            assert_eq!(consume(&log, &disk, BULK, 0).await.1, 4);
        });
    }
}

#[test]
fn a_start_and_an_opening_go_by_the_same_index() {
    let directory = directory();
    let path = directory.path();
    live(path, |log, _| async move {
        for _ in 0..5 {
            produce(&log, BULK, &batch(&[0; 100_000], 1)).await;
        }
    });
    stop_cleanly(path);
    live(path, |log, _| async move {
        produce(&log, BULK, &batch(b"small", 1)).await;
    });
    // The index leads around it, whatever the start has made of the last block.
    let segment = path.join(format!("topic-{}/{:020}.log", BULK.0, 0));
    let mut damaged = std::fs::read(&segment).expect("reads");
    damaged[batch(&[0; 100_000], 1).len() + 16] ^= 1;
    std::fs::write(&segment, &damaged).expect("writes");
    for accept_loss in [false, false, true, false] {
        live_closed(path, accept_loss, |log, disk| async move {
            log.ready(&[BULK]).await.expect("opens");
            assert_eq!(consume(&log, &disk, BULK, 3).await.1, 6);
        });
    }
}

#[test]
fn damage_that_an_index_leads_around_is_no_reason_to_cut_anything_off() {
    let size = batch(&[0; 6_000], 1).len();
    let directory = directory();
    let path = directory.path();
    let segment = killed_above(path);
    let mut damaged = std::fs::read(&segment).expect("reads");
    damaged[size * 4 + 16] ^= 1;
    std::fs::write(&segment, &damaged).expect("writes");
    for accept_loss in [false, true, false] {
        live_closed(path, accept_loss, |log, disk| async move {
            log.ready(&[SMALL]).await.expect("opens");
            assert_eq!(consume(&log, &disk, SMALL, 20).await.1, 30);
            assert!(log.read(SMALL, 4, 1_000, true, false).await.is_err(), "whoever reads it is told");
        });
    }
}

#[test]
fn an_index_that_is_damaged_hides_nothing() {
    let directory = directory();
    let path = directory.path();
    let segment = killed_above(path);
    let index = segment.with_extension("index");
    let mut bytes = std::fs::read(&index).expect("reads");
    assert!(!bytes.is_empty(), "the index has entries");
    let last = bytes.len() - 1;
    bytes[last] ^= 0x10;
    std::fs::write(&index, &bytes).expect("writes");
    live(path, |log, disk| async move {
        assert_eq!(consume(&log, &disk, SMALL, 0).await.1, 30);
    });
}

#[test]
fn many_senders_share_frames_and_all_are_acked() {
    let directory = directory();
    let path = directory.path();
    live(path, |log, disk| async move {
        let mut tasks = Vec::new();
        for task in 0..32u8 {
            let log = log.clone();
            tasks.push(tokio::task::spawn_local(async move {
                for at in 0..100 {
                    let id = if at % 2 == 0 { SMALL } else { BULK };
                    let size = if at % 10 == 1 { 400_000 } else { 500 };
                    produce(&log, id, &batch(&vec![task; size], 1)).await;
                }
            }));
        }
        for task in tasks {
            task.await.expect("a sender ends");
        }
        assert_eq!(consume(&log, &disk, SMALL, 0).await.1, 1_600);
        assert_eq!(consume(&log, &disk, BULK, 0).await.1, 1_600);
        let segments = std::fs::read_dir(path.join(format!("topic-{}", BULK.0))).expect("is there").flatten();
        let largest = segments.map(|entry| entry.metadata().expect("is there").len()).max().expect("some");
        assert!(largest <= SEGMENT_BYTES, "{largest} bytes are allocated for a segment that may become {SEGMENT_BYTES}");
        log.close().await.expect("closes");
    });
    live(directory.path(), |log, disk| async move {
        assert_eq!(consume(&log, &disk, SMALL, 0).await.1, 1_600);
        assert_eq!(consume(&log, &disk, BULK, 0).await.1, 1_600);
    });
}
