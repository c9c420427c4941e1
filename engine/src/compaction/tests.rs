//! Claims about a whole round, on the simulated disk.

use super::*;
use crate::{
    batch::{BatchBuilder, Header, Scanner, scan, without_records},
    disk::{
        read_whole,
        sim::{Executor, SimDisk},
        write_whole,
    },
    ids::PartitionId,
    segment::{FileKind, file_name, swap::cleaned_name},
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Cleans one segment of these batches, the last of which ends at `end`, and returns the offsets and record counts of what is
/// left of it; `None` if it stays as it is.
fn cleaned(batches: &[Vec<u8>], end: i64, producers: BTreeMap<i64, LastRecord>) -> Option<Vec<(i64, i32)>> {
    let [data, directory] = ["/data", "/data/table-0"].map(PathBuf::from);
    let disk = SimDisk::new(1, &[Path::new("/data"), &directory]);
    let log = batches.concat();
    let mut executor = Executor::new(&disk, 1);
    executor.block_on(async move {
        write_whole(&disk, &directory.join(file_name(0, FileKind::Log)), &log).await.expect("writes");
        let job = Job {
            partition: PartitionId(1),
            directory,
            scratch: data.join(SCRATCH).join("1"),
            segments: vec![Source { base_offset: 0, bytes: log.len() as u64, has_transactions: false }],
            end,
            first_dirty: 0,
            later: Vec::new(),
            aborted: Vec::new(),
            producers,
            segment_bytes: 1 << 20,
            delete_retention_ms: 1_000,
            overdue_ms: None,
            now_ms: 10,
            keys_max: 100,
            secret: (1, 2),
            progress: Progress::default(),
        };
        let mut groups = 0;
        let cleaned = job.run(&disk, async |_| {
            groups += 1;
            Ok(true)
        });
        assert!(cleaned.await.expect("runs").is_some(), "it comes to its end");
        if groups == 0 {
            return None;
        }
        let bytes = read_whole(&disk, &job.scratch.join(cleaned_name(0, FileKind::Log))).await.expect("is there");
        let mut left = Vec::new();
        let scanned = scan(&bytes, Scanner::new(0, 0, i32::MIN), |_, header, _| left.push((header.base_offset(), header.record_count())));
        assert_eq!(scanned.end.position, bytes.len() as u64, "{:?}", scanned.stop);
        Some(left)
    })
}

#[test]
fn a_batch_that_an_earlier_round_has_emptied_stays_for_its_producer() {
    // The part that is clean already may count as dirty again: its checkpoint is written last.
    let record = |offset| BatchBuilder::new().at(offset, 0).record(1, Some(b"a"), Some(b"x")).build();
    let of_producer = BatchBuilder::new().at(1, 0).producer(7, 0, 3).record(1, Some(b"a"), Some(b"x")).build();
    let emptied = without_records(&Header::read(&of_producer).expect("whole"));
    let producers = BTreeMap::from([(7, LastRecord { epoch: 0, data_offset: Some(1) })]);
    assert_eq!(cleaned(&[record(0), emptied, record(2)], 3, producers), Some(vec![(1, 0), (2, 1)]));
}
