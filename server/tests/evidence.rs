//! What the broker claims of its way to the disk and to the network, seen from outside.
#![allow(missing_docs, clippy::disallowed_types)]

mod support;

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    os::fd::AsRawFd,
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use support::*;

const O_DIRECT: u32 = 0o40000;

/// The broker's open files below its data directory by path, with their flags. What it inherited (a log that its output goes to) isn't its doing.
fn open_files(broker: &Broker) -> Vec<(String, u32)> {
    let directory = format!("/proc/{}/fd", broker.pid());
    let entries = fs::read_dir(directory).unwrap().flatten();
    let data = fs::canonicalize(broker.data.path()).unwrap().display().to_string();
    entries
        .filter_map(|entry| {
            let path = fs::read_link(entry.path()).ok()?.display().to_string();
            if !path.starts_with(&data) {
                return None;
            }
            let info = fs::read_to_string(format!("/proc/{}/fdinfo/{}", broker.pid(), entry.file_name().to_string_lossy())).ok()?;
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
            Some((path, u32::from_str_radix(flags.trim(), 8).ok()?))
        })
        .collect()
}

/// Fills a topic's partition with batches of 900 kB. Returns how many bytes it has.
fn fill(client: &mut Client, topic: &str, batches: usize) -> usize {
    let large = batch(&vec![9; 900_000]);
    for _ in 0..batches {
        assert_eq!(produced(&client.call(PRODUCE, 7, &produce(topic, 0, -1, &large))).0, 0);
    }
    batches * large.len()
}

#[test]
fn journal_and_segments_are_written_with_o_direct() {
    let broker = Broker::start(1);
    let mut client = broker.connect();
    client.topic("direct");
    fill(&mut client, "direct", 8);
    let files = open_files(&broker);
    let direct = |part: &str| files.iter().filter(|(path, flags)| path.contains(part) && flags & O_DIRECT != 0).count();
    assert!(direct("/journal/core-0") > 0, "{files:?}");
    assert!(direct("/direct-0/00000000000000000000.log") > 0, "{files:?}");
    let writable = |flags: u32| flags & 3 != 0;
    for (path, flags) in &files {
        if (path.ends_with(".log") || path.contains("/journal/core-")) && writable(*flags) {
            assert!(flags & O_DIRECT != 0, "{path} is written through the page cache");
        }
    }
}

#[test]
fn history_goes_out_by_sendfile_and_no_system_call_writes_data() {
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        eprintln!("skipped: strace is not installed");
        return;
    }
    let mut broker = Broker::start(1);
    let mut client = broker.connect();
    client.topic("history");
    fill(&mut client, "history", 40);
    // Recent bytes are sent from memory: a restart makes them history.
    assert!(broker.stop().0);
    let data = std::mem::replace(&mut broker.data, data_dir());
    let broker = Broker::start_in(data, &["--cores", "1", "--listen", "127.0.0.1:0"]);
    let mut client = broker.connect();
    let trace = broker.data.path().join("trace");
    let calls = "trace=sendfile,write,pwrite64,writev,pwritev,pwritev2,fsync,fdatasync,sync_file_range,msync";
    let pid = broker.pid().to_string();
    let mut strace = Command::new("strace")
        .args(["-f", "-yy", "-e", calls, "-o", trace.to_str().unwrap(), "-p", &pid])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut attached = BufReader::new(strace.stderr.take().unwrap());
    let mut line = String::new();
    attached.read_line(&mut line).unwrap();
    if !line.contains("attached") {
        let _ = strace.wait();
        eprintln!("skipped: strace may not attach here: {line}");
        return;
    }
    for path in fs::read_dir(broker.files("history-0")).unwrap().flatten().map(|entry| entry.path()) {
        let file = fs::File::open(path).unwrap();
        // SAFETY: the descriptor is open; the advice changes no memory.
        unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    }
    let mut offset = 0;
    while offset < 30 {
        let answer =
            fetched(&client.call(FETCH, 11, &fetch("history", &[0], Fetch { offset, partition_max_bytes: 3 << 20, ..Fetch::default() })));
        assert!(!answer[0].3.is_empty());
        offset += 3;
    }
    fill(&mut client, "history", 10);
    for _ in 0..100 {
        assert_eq!(produced(&client.call(PRODUCE, 7, &produce("history", 0, -1, &batch(b"small")))).0, 0);
    }
    // SAFETY: strace is our child and was not waited for; SIGINT makes it detach.
    unsafe { libc::kill(strace.id() as i32, libc::SIGINT) };
    strace.wait().unwrap();
    let calls = fs::read_to_string(&trace).unwrap();
    assert!(calls.lines().any(|call| call.contains("sendfile(") && call.contains("history-0")), "no sendfile of a segment");
    let data = broker.data.path().display().to_string();
    let writes: Vec<&str> = calls.lines().filter(|call| !call.contains("sendfile(") && call.contains(&data)).collect();
    assert!(writes.is_empty(), "{writes:?}");
}

/// Nanoseconds that each core's thread was on a CPU.
fn cpu_ns(broker: &Broker) -> BTreeMap<String, u64> {
    let tasks = fs::read_dir(format!("/proc/{}/task", broker.pid())).unwrap().flatten();
    tasks
        .filter_map(|task| {
            let name = fs::read_to_string(task.path().join("comm")).ok()?.trim().to_owned();
            let times = fs::read_to_string(task.path().join("schedstat")).ok()?;
            Some((name, times.split(' ').next()?.parse().ok()?))
        })
        .collect()
}

#[test]
fn produce_to_one_core_costs_the_other_less_than_a_percent() {
    let broker = Broker::start(2);
    let mut client = broker.connect();
    // Topics are placed by their names: one of these is on core 1.
    let topic = (0..50).map(|count| format!("core-1-{count}")).find(|name| client.topic(name)[0] == 1).unwrap();
    drop(client);
    let mut client = broker.connect_to(1);
    let record = batch(&[1; 1000]);
    let mut load = |duration: Duration| {
        let began = Instant::now();
        let mut count = 0;
        while began.elapsed() < duration {
            for _ in 0..16 {
                client.send(PRODUCE, 7, &produce(&topic, 0, -1, &record));
            }
            for _ in 0..16 {
                assert_eq!(produced(&client.receive().unwrap()).0, 0);
                count += 1;
            }
        }
        (count, began.elapsed())
    };
    load(Duration::from_millis(500));
    let before = cpu_ns(&broker);
    let (count, took) = load(Duration::from_secs(3));
    let after = cpu_ns(&broker);
    let used = |core: &str| after[core] - before[core];
    assert!(count > 100 && used("core-1") > 0);
    let share = used("core-0") as f64 / took.as_nanos() as f64;
    assert!(share < 0.01, "{:.2}% of core 0 for {count} requests on core 1", share * 100.0);
}
