//! The machine's own limits, before and after: fio for the disk, a plain send and sendfile for loopback.

use super::{
    bench,
    child::{is_installed, output, pinned},
    stalls,
};
use anyhow::{Context, Result};
use serde_json::{Map, Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Bytes of the file that fio writes and reads.
const FILE_GIB: u32 = 4;
const SMALL_FILE_MIB: u32 = 256;

/// A file that is removed when it is no longer needed.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// What is measured with.
pub struct Limits<'a> {
    /// The directory whose disk is measured.
    pub work: &'a Path,
    /// CPU of what stands for the broker.
    pub broker_cpu: usize,
    /// CPU of what stands for the load.
    pub load_cpu: usize,
    /// Seconds of each measurement at most.
    pub seconds: f64,
    /// Receivers of the plain send.
    pub receivers: usize,
}

impl Limits<'_> {
    /// Measures everything; what can't be measured here is left out.
    ///
    /// # Errors
    /// A measurement fails.
    pub fn measure(&self) -> Result<Map<String, Value>> {
        let mut found = Map::new();
        // Removed however it ends: it has gigabytes.
        let scratch = Scratch(self.work.join("limits.dat"));
        let file = &scratch.0;
        if is_installed("fio") {
            self.disk(file, &mut found)?;
        } else {
            eprintln!("fio is not installed: the disk's own limits are left out");
            found.insert("disk".to_owned(), json!("not measured: fio is not installed"));
            fs::write(file, vec![0x5a; 64 << 20])?;
        }
        let path = file.to_str().context("a path in UTF-8")?;
        found.insert("disk_cold_sendfile_mb_per_second".to_owned(), self.loopback(&["--file", path, "--cold", "--seconds", "60"])?);
        found.insert("loopback_sendfile_mb_per_second".to_owned(), self.loopback(&["--file", path])?);
        found.insert("loopback_send_mb_per_second".to_owned(), self.loopback(&[])?);
        Ok(found)
    }

    fn disk(&self, file: &Path, found: &mut Map<String, Value>) -> Result<()> {
        let sequential = format!("--size={FILE_GIB}G --bs=1M --iodepth=4");
        // What a segment is: a fresh file with space reserved; four writes, then an fdatasync.
        let _ = fs::remove_file(file);
        let fresh = self.fio(file, &format!("{sequential} --rw=write --fallocate=posix --fdatasync=4"))?;
        // The rest of the file is filled, so that the next ones find written blocks.
        self.fio(file, &format!("{sequential} --rw=write --overwrite=1 --runtime=60"))?;
        let written = self.fio(file, &format!("{sequential} --rw=write --overwrite=1 --fdatasync=4"))?;
        let (read, stalls) = stalls::during(self.load_cpu, || self.fio(file, &format!("{sequential} --rw=read")))?;
        let scratch = Scratch(self.work.join("limits-small.dat"));
        let small = &scratch.0;
        self.fio(small, &format!("--size={SMALL_FILE_MIB}M --bs=1M --iodepth=4 --rw=write --end_fsync=1 --runtime=60"))?;
        let journal = self
            .fio(small, &format!("--size={SMALL_FILE_MIB}M --bs=4k --iodepth=1 --rw=write --overwrite=1 --fdatasync=1 --time_based=1"))?;
        let mb = |job: &Value, kind: &str| job[kind]["bw_bytes"].as_f64().map(|bytes| json!(bytes / 1e6)).unwrap_or_default();
        let p50_ns = |times: &Value| times["percentile"]["50.000000"].as_f64().unwrap_or(0.0);
        found.insert("disk_fresh_mb_per_second".to_owned(), mb(&fresh, "write"));
        found.insert("disk_written_mb_per_second".to_owned(), mb(&written, "write"));
        found.insert("disk_read_mb_per_second".to_owned(), mb(&read, "read"));
        found.insert("stall_beside_read_ms_max".to_owned(), json!(stalls.longest.as_secs_f64() * 1e3));
        found.insert("stalled_beside_read_percent".to_owned(), json!(stalls.share * 100.0));
        let small_us = (p50_ns(&journal["write"]["clat_ns"]) + p50_ns(&journal["sync"]["lat_ns"])) / 1e3;
        found.insert("disk_small_p50_us".to_owned(), json!(small_us));
        Ok(())
    }

    fn fio(&self, file: &Path, options: &str) -> Result<Value> {
        let mut fio = pinned(&[self.broker_cpu], Path::new("fio"));
        fio.arg("--name=limit").arg(format!("--filename={}", file.display()));
        fio.args(["--direct=1", "--ioengine=io_uring", "--output-format=json"]);
        if !options.contains("--runtime") {
            fio.arg(format!("--runtime={}", self.seconds));
        }
        let text = output({
            fio.args(options.split_whitespace());
            fio
        })?;
        // fio may print notes before its JSON.
        let begin = text.find('{').context("fio printed no JSON")?;
        Ok(serde_json::from_str::<Value>(&text[begin..])?["jobs"][0].take())
    }

    fn loopback(&self, options: &[&str]) -> Result<Value> {
        let mut words = vec!["plain-send".to_owned()];
        words.extend(options.iter().map(|option| (*option).to_owned()));
        if !options.contains(&"--seconds") {
            words.extend(["--seconds".to_owned(), self.seconds.to_string()]);
        }
        words.extend(["--cpu".to_owned(), self.broker_cpu.to_string(), "--receiver-cpu".to_owned(), self.load_cpu.to_string()]);
        if options.is_empty() {
            words.extend(["--receivers".to_owned(), self.receivers.to_string()]);
        }
        Ok(bench::run(&words)?["mb_per_second"].take())
    }
}
