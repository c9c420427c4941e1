//! What the tests of `segment-dump` share.

#![allow(dead_code, missing_docs)]

use engine::segment::{FileKind, file_name};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use tools::dump::{Outcome, Request, run};

pub fn dumped(path: &Path, request: &Request) -> (String, Outcome) {
    let mut out = Vec::new();
    let request = Request { paths: vec![path.to_owned()], ..request.clone() };
    let outcome = run(&request, &mut out).expect("readable");
    (String::from_utf8(out).expect("text"), outcome)
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
