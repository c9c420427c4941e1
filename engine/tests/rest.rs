//! An idle core comes to rest.

#[path = "support/life.rs"]
mod life;

use engine::{
    disk::UringDisk,
    log::{Log, Start},
};
use life::{BULK, NOW_MS, SMALL, batch, config, consume, directory, live, on_disk, produce};
use std::{path::Path, time::Duration};

/// When a core that was last appended to at `NOW_MS` comes to rest.
const REST_MS: i64 = NOW_MS + 10_000;

/// Small appends, which stay in the journal.
async fn append(log: &Log<UringDisk>) {
    for id in [SMALL, BULK] {
        for _ in 0..50 {
            produce(log, id, &batch(&[7; 1_000], 1)).await;
        }
    }
}

/// Waits for something that happens by itself, for as long as it takes.
async fn until(mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Bytes that a start on the directory replays.
fn replayed_by_a_start(path: &Path) -> u64 {
    on_disk(path, async |disk| {
        let start = Start::read(&disk, &config(path), rand::random()).await.expect("starts");
        start.replay().map_or(0, |replay| replay.bytes)
    })
}

#[test]
fn ten_seconds_after_its_last_append_a_core_has_nothing_in_its_journal_and_little_in_memory() {
    let directory = directory();
    live(directory.path(), |log, _| async move {
        append(&log).await;
        let next_ms = log.keep(NOW_MS + 1).await.expect("there is something to come");
        assert!(next_ms <= REST_MS, "{next_ms}");
        log.keep(REST_MS - 1).await;
        let before = log.stats();
        assert!(before.unmoved.used > 100_000 && before.tails.used > 100_000, "{before:?}");
        log.keep(REST_MS).await;
        // One head that parks, and one that carries nothing any more.
        until(|| log.stats().journal.switches >= before.journal.switches + 2).await;
        let after = log.stats();
        assert_eq!(after.unmoved.used, 0, "{after:?}");
        assert!(after.tails.used <= 4 * 4_096, "no more than the blocks that the next appends share: {after:?}");
        let writes = (after.journal.writes, after.bulk.writes);
        for seconds in 1..100 {
            log.keep(REST_MS + seconds * 1_000).await;
        }
        assert_eq!((log.stats().journal.writes, log.stats().bulk.writes), writes, "at rest nothing is done");
    });
    assert!(replayed_by_a_start(directory.path()) < 10_000, "what was at rest has nothing to replay");
    live(directory.path(), |log, disk| async move {
        for id in [SMALL, BULK] {
            assert_eq!(consume(&log, &disk, id, 0).await.1, 50);
        }
        // Its last block is written once more by the next append.
        append(&log).await;
        for id in [SMALL, BULK] {
            assert_eq!(consume(&log, &disk, id, 0).await.1, 100);
        }
    });
}

#[test]
fn an_append_wakes_a_core_that_rests_and_it_comes_to_rest_again() {
    let directory = directory();
    live(directory.path(), |log, _| async move {
        append(&log).await;
        log.keep(REST_MS).await;
        until(|| log.stats().journal.switches >= 2).await;
        let at = REST_MS + 5_000;
        let appended = log.append(SMALL, &batch(&[8; 1_000], 1), at).expect("appends");
        // Without it the next look would come too late.
        log.keep_sooner().await;
        log.durable(SMALL, appended.last_offset).await.expect("durable");
        log.keep(at + 9_999).await;
        assert!(log.stats().unmoved.used > 0);
        log.keep(at + 10_000).await;
        until(|| log.stats().unmoved.used == 0).await;
    });
}
