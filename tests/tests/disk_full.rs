//! A small filesystem runs full: produce says so, reads and deletes go on, and so does everything else once there is space again.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use thalweg_tests::admin::Admin;
use thalweg_tests::broker::{Broker, Kind, Options};
use thalweg_tests::process::output;
use thalweg_tests::reader::read_topic;
use thalweg_tests::scratch::Scratch;
use thalweg_tests::skip::{is_root, require, skip};
use thalweg_tests::wire::{KAFKA_STORAGE_ERROR, Wire, batch_of_one, batches};

const DISK_BYTES: u64 = 512 << 20;
const RECORD_BYTES: usize = 900_000;
/// A bound for a hang.
const WITHIN: Duration = Duration::from_secs(60);

/// Set in the run of the test inside of its own mount namespace.
const INSIDE: &str = "THALWEG_TESTS_MOUNT";

#[test]
fn a_full_disk_refuses_produce_and_nothing_else() {
    thalweg_tests::run("disk-full", |scratch| {
        if !is_root() {
            return Err(skip("only root can mount a small filesystem"));
        }
        require(&["mkfs.ext4", "mount", "umount", "unshare"], "Debian: e2fsprogs mount util-linux")?;
        // In a mount namespace of its own the mount and its loop device go with the last process, however the test ends.
        if std::env::var_os(INSIDE).is_none() {
            let mut inner = Command::new("unshare");
            inner.args(["--mount", "--propagation", "private", "--"]).arg(std::env::current_exe()?);
            inner.args(["--exact", "a_full_disk_refuses_produce_and_nothing_else", "--nocapture"]).env(INSIDE, "1");
            let status = inner.status()?;
            ensure!(status.success(), "the test failed in its own mount namespace ({status}); its output stands above");
            return Ok(());
        }
        let disk = SmallDisk::mount(scratch)?;
        let result = refuses_produce_and_nothing_else(scratch, &disk.dir);
        disk.unmount().and(result)
    });
}

/// A small ext4 (with its journal) on a loop device.
struct SmallDisk {
    dir: PathBuf,
    mounted: bool,
}

impl SmallDisk {
    fn mount(scratch: &Scratch) -> Result<Self> {
        let image = scratch.path().join("disk.ext4");
        let file = std::fs::File::create(&image)?;
        file.set_len(DISK_BYTES)?;
        let mut mkfs = Command::new("/sbin/mkfs.ext4");
        mkfs.args(["-q", "-F"]).arg(&image);
        output(mkfs)?;
        let dir = scratch.path().join("mounted");
        std::fs::create_dir(&dir)?;
        let mut mount = Command::new("mount");
        // `-o loop` makes the kernel free the device with the mount.
        mount.args(["-t", "ext4", "-o", "loop"]).arg(&image).arg(&dir);
        if let Err(error) = output(mount) {
            return Err(if std::env::var("CI").as_deref() == Ok("true") { error } else { skip(format!("no loop mount here: {error:#}")) });
        }
        Ok(SmallDisk { dir, mounted: true })
    }

    fn unmount(mut self) -> Result<()> {
        // The kernel takes a killed or ended broker's ring apart a moment after its process, and that holds the files open.
        let deadline = Instant::now() + WITHIN;
        loop {
            let mut umount = Command::new("umount");
            umount.arg(&self.dir);
            match output(umount) {
                Ok(_) => break,
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
        self.mounted = false;
        Ok(())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if self.mounted {
            let _ = Command::new("umount").arg("-l").arg(&self.dir).status();
        }
    }
}

fn refuses_produce_and_nothing_else(scratch: &Scratch, disk: &Path) -> Result<()> {
    let data = disk.join("data");
    let mut broker = Broker::start(scratch, Options { kind: Kind::Thalweg, journal_size: "8MiB", data: Some(data), ..Options::default() })?;
    let admin = Admin::new(&broker.bootstrap())?;
    admin.create("filling", 2, &[("segment.bytes", "67108864")])?;
    admin.create("small", 2, &[])?;
    let mut small = Sent::new("small");
    for _ in 0..4 {
        ensure!(small.send(&broker, 1_000)? == 0, "there is space yet");
    }

    let mut filling = Sent::new("filling");
    let error = loop {
        let error = filling.send(&broker, RECORD_BYTES)?;
        if error != 0 {
            break error;
        }
        ensure!(filling.acked.len() * RECORD_BYTES < DISK_BYTES as usize, "more was acked than the disk holds");
    };
    ensure!(error == KAFKA_STORAGE_ERROR, "the disk is full after {} records, and produce says {error}", filling.acked.len());
    eprintln!("full after {} records of {RECORD_BYTES} bytes", filling.acked.len());

    filling.is_served(&broker)?;
    small.is_served(&broker)?;
    everything_is_read(scratch, &broker, &[&filling, &small])?;

    broker.kill()?;
    broker.launch().context("a start after a kill while the disk is full")?;
    filling.is_served(&broker)?;
    broker.stop()?;
    broker.launch().context("a start after a clean stop while the disk is full")?;
    filling.is_served(&broker)?;
    small.is_served(&broker)?;
    everything_is_read(scratch, &broker, &[&filling, &small])?;
    ensure!(small.send(&broker, RECORD_BYTES).is_ok(), "produce is answered while the disk is full");

    Admin::new(&broker.bootstrap())?.delete("filling").context("a delete while the disk is full")?;
    let deadline = Instant::now() + WITHIN;
    for _ in 0..20 {
        while small.send(&broker, RECORD_BYTES)? != 0 {
            ensure!(Instant::now() < deadline, "produce has not come back {WITHIN:?} after a topic was deleted");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    small.is_served(&broker)?;
    broker.kill()?;
    broker.launch()?;
    small.is_served(&broker)?;
    broker.stop()
}

/// Reads with librdkafka, whose reader is the one that hangs if the broker forgets a fetch.
fn everything_is_read(scratch: &Scratch, broker: &Broker, topics: &[&Sent]) -> Result<()> {
    for sent in topics {
        let read = read_topic(scratch, &broker.bootstrap(), sent.topic)?;
        ensure!(read.len() >= sent.acked.len(), "{} records of {} were read, {} were acked", read.len(), sent.topic, sent.acked.len());
    }
    Ok(())
}

/// What was sent to a topic of two partitions, one record a batch, and acked.
struct Sent {
    topic: &'static str,
    count: usize,
    /// Partition, offset and CRC of each acked batch.
    acked: Vec<(i32, i64, [u8; 4])>,
}

impl Sent {
    fn new(topic: &'static str) -> Self {
        Sent { topic, count: 0, acked: Vec::new() }
    }

    /// Sends one more record, and gives the error code.
    fn send(&mut self, broker: &Broker, bytes: usize) -> Result<i16> {
        let partition = (self.count % 2) as i32;
        let mut value = format!("{}:", self.count).into_bytes();
        value.resize(bytes, b'.');
        let batch = batch_of_one(&value);
        let mut wire = Wire::connect_to_leader(&broker.bootstrap(), self.topic, partition, WITHIN)?;
        let (error, offset) = wire.produce(self.topic, partition, &batch).with_context(|| format!("produce to {}", self.topic))?;
        self.count += 1;
        if error == 0 {
            self.acked.push((partition, offset, batch[17..21].try_into()?));
        }
        Ok(error)
    }

    /// Fetches every acked record by hand, and compares it with what was sent.
    fn is_served(&self, broker: &Broker) -> Result<()> {
        for partition in 0..2 {
            let mut wire = Wire::connect_to_leader(&broker.bootstrap(), self.topic, partition, WITHIN)?;
            let mut waiting = self.acked.iter().filter(|a| a.0 == partition).peekable();
            while let Some(&&(_, offset, _)) = waiting.peek() {
                let fetched = wire.fetch(self.topic, partition, offset, 1_000)?;
                let (error, high_watermark) = (fetched.error, fetched.high_watermark);
                ensure!(error == 0, "fetch of {} {partition} at {offset}: error {error}", self.topic);
                let found = batches(&fetched.batches);
                let mut at = 0;
                let mut taken = 0;
                for (base, ..) in found {
                    let bytes = &fetched.batches[at..];
                    at += 12 + u32::from_be_bytes(bytes[8..12].try_into()?) as usize;
                    if let Some((_, _, crc)) = waiting.next_if(|a| a.1 == base) {
                        ensure!(bytes[17..21] == *crc, "another record than was acked at {base} of {} {partition}", self.topic);
                        taken += 1;
                    }
                }
                if taken == 0 {
                    bail!(
                        "{} {partition}: offset {offset} was acked and is not served; the high watermark is {high_watermark}",
                        self.topic
                    );
                }
            }
        }
        Ok(())
    }
}
