//! Debian's `kcat` as a test client: an adapter that speaks the tests' JSON lines (see `thalweg_tests::clients`) and runs kcat.
//!
//! kcat reports where a record went, but not which record; so records of one partition go through one kcat process, in order.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use thalweg_tests::clients::{Consume, Event, Produce, Task};
use thalweg_tests::process::dying_with_us;
use thalweg_tests::records::Record;

/// Between key and value on kcat's input, and between the fields of its output.
const DELIMITER: char = '\t';

fn report(out: &mut impl Write, event: &Event) {
    // The harness may have closed the pipe first, which is no failure of the client.
    let _ = serde_json::to_writer(&mut *out, event).map(|()| out.write_all(b"\n"));
}

fn produce(task: &Produce) -> Result<()> {
    let mut out = BufWriter::new(std::io::stdout());
    report(&mut out, &Event::Ready);
    let count = task.count.context("kcat needs a number of records: it tells of acks at its end")?;
    let mut by_partition: BTreeMap<i32, Vec<(String, String)>> = BTreeMap::new();
    let partitions = 8;
    for n in task.first..task.first + count {
        let partition = task.partition.unwrap_or((n % task.keys % partitions) as i32);
        by_partition.entry(partition).or_default().push((task.key(n), task.value(n)));
    }
    for (partition, records) in by_partition {
        let offsets = produce_to(task, partition, &records)?;
        ensure!(offsets.len() == records.len(), "{} acks for {} records", offsets.len(), records.len());
        for ((key, value), offset) in records.into_iter().zip(offsets) {
            report(&mut out, &Event::Ack(Record { partition, offset, key: Some(key), value: Some(value) }));
        }
    }
    report(&mut out, &Event::Done);
    out.flush()?;
    Ok(())
}

/// Sends records to one partition and gives their offsets, in the order of the records.
fn produce_to(task: &Produce, partition: i32, records: &[(String, String)]) -> Result<Vec<i64>> {
    let mut kcat = Command::new("kcat");
    kcat.args(["-P", "-b", &task.bootstrap, "-t", &task.topic, "-p", &partition.to_string(), "-K", &DELIMITER.to_string(), "-vvv"]);
    kcat.args(["-z", &task.compression, "-X", &format!("enable.idempotence={}", task.idempotent)]);
    let mut child = dying_with_us(kcat).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().context("kcat")?;
    let stderr = BufReader::new(child.stderr.take().context("a pipe")?);
    let reader = std::thread::spawn(move || {
        let mut offsets = Vec::new();
        for line in stderr.lines().map_while(Result::ok) {
            match line.split_once("(offset ").and_then(|(_, rest)| rest.split_once(')')).map(|(offset, _)| offset.parse()) {
                Some(Ok(offset)) => offsets.push(offset),
                _ => eprintln!("{line}"),
            }
        }
        offsets
    });
    let mut stdin = BufWriter::new(child.stdin.take().context("a pipe")?);
    for (key, value) in records {
        writeln!(stdin, "{key}{DELIMITER}{value}")?;
    }
    drop(stdin);
    let status = child.wait()?;
    let offsets = reader.join().map_err(|_| anyhow::anyhow!("the reader of kcat's log panicked"))?;
    ensure!(status.success(), "kcat ended with {status}");
    Ok(offsets)
}

fn consume(task: &Consume) -> Result<()> {
    let out = Arc::new(Mutex::new(BufWriter::new(std::io::stdout())));
    let mut kcat = Command::new("kcat");
    kcat.args(["-b", &task.bootstrap, "-G", &task.group, "-u", "-f", "%p\\t%o\\t%k\\t%s\\n", "-X", "auto.offset.reset=earliest"]);
    if let Some(ms) = task.session_ms {
        kcat.args(["-X", &format!("session.timeout.ms={ms}")]);
    }
    kcat.arg(&task.topic);
    let mut child = dying_with_us(kcat).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("kcat")?;
    report(&mut *out.lock().expect("no panic under the lock"), &Event::Ready);
    watch_assignments(&mut child, out.clone())?;
    let pid = Pid::from_child(&child);
    std::thread::spawn(move || {
        let _ = std::io::stdin().lock().read_line(&mut String::new());
        let _ = kill_process(pid, Signal::TERM);
    });
    let mut stdout = BufReader::new(child.stdout.take().context("a pipe")?);
    let mut line = String::new();
    while stdout.read_line(&mut line)? > 0 {
        let mut out = out.lock().expect("no panic under the lock");
        report(&mut *out, &Event::Rec(parse(line.trim_end_matches('\n'))?));
        line.clear();
        if stdout.buffer().is_empty() {
            out.flush()?;
        }
    }
    let status = child.wait()?;
    ensure!(status.success(), "kcat ended with {status}");
    let mut out = out.lock().expect("no panic under the lock");
    report(&mut *out, &Event::Done);
    out.flush()?;
    Ok(())
}

fn parse(line: &str) -> Result<Record> {
    let fields: Vec<&str> = line.splitn(4, DELIMITER).collect();
    let [partition, offset, key, value] = fields[..] else { bail!("kcat printed {line:?}") };
    Ok(Record { partition: partition.parse()?, offset: offset.parse()?, key: Some(key.to_owned()), value: Some(value.to_owned()) })
}

/// Turns `% Group G rebalanced (memberid M): assigned: T [0], T [1]` on kcat's error output into events.
fn watch_assignments(child: &mut Child, out: Arc<Mutex<BufWriter<std::io::Stdout>>>) -> Result<()> {
    let stderr = BufReader::new(child.stderr.take().context("a pipe")?);
    std::thread::spawn(move || {
        for line in stderr.lines().map_while(Result::ok) {
            if !line.contains("Reached end of topic") {
                eprintln!("{line}");
            }
            if !line.contains("rebalanced") {
                continue;
            }
            let assigned = line.split_once("assigned: ").map_or("", |(_, list)| list);
            let ps = assigned.split('[').skip(1).filter_map(|p| p.split_once(']')?.0.trim().parse().ok()).collect();
            let mut out = out.lock().expect("no panic under the lock");
            report(&mut *out, &Event::Assigned { ps });
            let _ = out.flush();
        }
    });
    Ok(())
}

fn main() -> Result<()> {
    let task = std::env::args().nth(1).context("usage: client-kcat '<task as JSON>'")?;
    let result = match serde_json::from_str(&task).context("task")? {
        Task::Produce(task) => produce(&task),
        Task::Consume(task) => consume(&task),
    };
    if let Err(error) = &result {
        println!("{}", json!({"t": "error", "m": format!("{error:#}")}));
    }
    result
}
