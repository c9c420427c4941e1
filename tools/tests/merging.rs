//! Reading a partition whose segments are merged meanwhile, as compaction does it: everything is there, once, and nothing is damage.

mod support;

use engine::{
    batch::BatchBuilder,
    segment::{FileKind, file_name},
};
use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};
use support::{Partition, dumped, locked, verify};
use tools::dump::{Mode, Outcome, Request};

/// Segments of one batch each, but for the last two they are merged into the first.
const SEGMENTS: i64 = 60;
/// How often that is done.
const ROUNDS: usize = 5;

fn batch(offset: i64) -> Vec<u8> {
    BatchBuilder::new().at(offset, 0).record(1_000, Some(b"k"), Some(&[b'v'; 500])).build()
}

/// Takes one segment after the other into the first, in the order of `engine/src/segment/swap.rs`.
fn merge_all(directory: &Path) {
    let log = |base| directory.join(file_name(base, FileKind::Log));
    let waiting = directory.join(format!("{}.swap", file_name(0, FileKind::Log)));
    let written = directory.join("cleaned");
    for last in 1..SEGMENTS - 1 {
        fs::write(&written, (0..=last).flat_map(batch).collect::<Vec<u8>>()).expect("written");
        fs::rename(&written, &waiting).expect("renamed");
        fs::remove_file(log(last)).expect("removed");
        // As the flush of the directory takes its time.
        thread::yield_now();
        fs::rename(&waiting, log(0)).expect("renamed");
    }
}

#[test]
fn while_segments_are_merged_every_batch_is_seen_once_and_none_is_called_damaged() {
    for round in 0..ROUNDS {
        let partition = Partition::new();
        let directory = partition.directory();
        for offset in 0..SEGMENTS {
            partition.file(offset, FileKind::Log, &batch(offset));
        }
        let mut holder = locked(partition.root.path());
        let merging = thread::spawn({
            let directory = directory.clone();
            move || merge_all(&directory)
        });
        let mut looks = 0;
        let seen = loop {
            let is_last = merging.is_finished();
            let texts = [Mode::Print, Mode::Summary, Mode::Verify].map(|mode| dumped(&directory, &Request { mode, ..Request::default() }));
            looks += 1;
            if is_last || !is_whole(&texts) {
                break texts;
            }
        };
        holder.kill().expect("ended");
        holder.wait().expect("ended");
        merging.join().expect("merged");
        assert!(is_whole(&seen), "round {round}, look {looks}: {seen:?}");
        assert!(seen[1].0.contains("segments       2\n") && seen[2].0.contains(" 2 segments, "), "round {round}: {seen:?}");
    }
}

#[test]
fn a_segment_that_failed_to_take_its_place_is_waited_for_once_and_not_at_every_look() {
    let partition = Partition::new();
    for offset in 0..SEGMENTS {
        partition.file(offset, FileKind::Log, &batch(offset));
    }
    let mut holder = locked(partition.root.path());
    fs::write(partition.directory().join(format!("{}.swap", file_name(0, FileKind::Log))), batch(0)).expect("written");
    let began = Instant::now();
    let (text, outcome) = dumped(&partition.directory(), &verify());
    holder.kill().expect("ended");
    holder.wait().expect("ended");
    assert!(outcome == Outcome::Clean && text.contains(&format!(" {SEGMENTS} segments, ")), "{text}");
    // A second for each of 60 segments without that.
    assert!(began.elapsed() < Duration::from_secs(20), "it took {:?}", began.elapsed());
}

/// What is printed, summed up and verified is all of the log.
fn is_whole(seen: &[(String, Outcome); 3]) -> bool {
    let [(printed, _), (summary, _), (verified, _)] = seen;
    let offsets = printed.lines().filter_map(|line| line.strip_prefix("baseOffset: ")?.split(' ').next()?.parse::<i64>().ok());
    seen.iter().all(|(_, outcome)| *outcome == Outcome::Clean)
        && offsets.eq(0..SEGMENTS)
        && summary.contains(&format!("batches        {SEGMENTS} ("))
        && summary.contains("gaps           0,")
        && verified.contains(&format!(" {SEGMENTS} batches, "))
        && !verified.contains("are missing")
}
