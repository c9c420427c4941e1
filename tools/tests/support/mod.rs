//! What the tests of `segment-dump` share.

#![allow(dead_code, missing_docs)]

#[path = "../../../engine/tests/support/journal.rs"]
mod journal;

use engine::{
    batch::BatchBuilder,
    disk::Chunk,
    ids::PartitionId,
    journal::{Item, Line},
    segment::{FileKind, Indexes, file_name},
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use tools::dump::{Format, Look, Mode, Outcome, Request, run};

pub fn dumped(path: &Path, request: &Request) -> (String, Outcome) {
    let mut out = Vec::new();
    let request = Request { paths: vec![path.to_owned()], ..request.clone() };
    let outcome = run(&request, &mut out).expect("readable");
    (String::from_utf8(out).expect("text"), outcome)
}

pub fn with_records() -> Request {
    Request { records: true, ..Request::default() }
}

pub fn verify() -> Request {
    Request { mode: Mode::Verify, ..Request::default() }
}

pub fn repair() -> Request {
    Request { mode: Mode::Repair { yes: true }, ..Request::default() }
}

/// The findings, as JSON.
pub fn findings(path: &Path) -> String {
    let look = Look { format: Format::Json, ..Look::default() };
    let (text, _) = dumped(path, &Request { look, ..verify() });
    text.lines().filter(|line| line.contains(r#""type":"finding""#)).collect::<Vec<_>>().join("\n")
}

pub struct Partition {
    pub root: tempfile::TempDir,
    pub name: &'static str,
}

impl Partition {
    pub fn new() -> Partition {
        Partition::named("orders-0")
    }

    pub fn named(name: &'static str) -> Partition {
        let partition = Partition { root: tempfile::tempdir().expect("a directory"), name };
        fs::create_dir(partition.directory()).expect("created");
        partition
    }

    pub fn directory(&self) -> PathBuf {
        self.root.path().join(self.name)
    }

    pub fn file(&self, base: i64, kind: FileKind, bytes: &[u8]) -> PathBuf {
        let path = self.directory().join(file_name(base, kind));
        fs::write(&path, bytes).expect("written");
        path
    }
}

/// A process that has the lock of a data directory.
pub fn locked(data_dir: &Path) -> std::process::Child {
    let lock = data_dir.join(".lock");
    fs::write(&lock, "").expect("written");
    let inode = std::os::unix::fs::MetadataExt::ino(&fs::metadata(&lock).expect("there"));
    let holder = Command::new("flock").args(["--no-fork", "--exclusive"]).arg(&lock).args(["sleep", "600"]).spawn().expect("util-linux");
    while !fs::read_to_string("/proc/locks").expect("readable").contains(&format!(":{inode} ")) {
        std::thread::yield_now();
    }
    holder
}

pub fn batches(count: i64, value: &[u8]) -> Vec<u8> {
    (0..count).flat_map(|offset| BatchBuilder::new().at(offset, 2).record(1_000 + offset, Some(b"k"), Some(value)).build()).collect()
}

pub fn indexes_of(bytes: &[u8]) -> Indexes {
    let mut indexes = Indexes::new(0);
    engine::batch::scan(bytes, engine::batch::Scanner::new(0, 0, 0), |position, header, _| indexes.push(position, header));
    indexes.seal();
    indexes
}

/// Makes the partition one of Thalweg's, stopped cleanly or not: its journal has one line of it.
pub fn thalwegs(partition: &Partition, segment_base: i64, end: usize, clean: bool) {
    let end = u32::try_from(end).expect("small");
    let line = Line { partition: PartitionId(7), segment_base, flushed: end, batch_start: end, index_end: 0, log_start: 0 };
    journaled(partition, line, &[], clean);
}

/// Makes the partition one of Thalweg's with this line in its journal, and these bytes in frames behind it.
pub fn journaled(partition: &Partition, line: Line, frames: &[(u32, &[u8])], clean: bool) {
    let mark = format!("version: 0\npartition: {}\n", line.partition.0);
    fs::write(partition.directory().join("thalweg.partition"), mark).expect("written");
    let item = |(position, bytes): &(u32, &[u8])| {
        let bytes = if bytes.is_empty() { Vec::new() } else { vec![Chunk::padded(bytes).sub(0, bytes.len())] };
        Item::Bytes { partition: line.partition, segment_base: line.segment_base, position: *position, bytes }
    };
    let to = partition.root.path().join("journal");
    fs::create_dir_all(&to).expect("created");
    write_journal(&to, line, frames.iter().map(|frame| vec![item(frame)]).collect(), clean);
}

/// Writes the journal of one core into `to`: a head with this line, and frames with these items.
pub fn write_journal(to: &Path, line: Line, frames: Vec<Vec<Item>>, clean: bool) {
    for (name, bytes) in journal::written(0, &[line], Vec::new(), frames, clean) {
        fs::write(to.join(name), bytes).expect("written");
    }
}
