//! What /metrics and /health say, against what clients did.
#![allow(missing_docs, clippy::disallowed_types)]

mod support;

use engine::batch::BatchBuilder;
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use support::*;

const FIND_COORDINATOR: i16 = 10;
const OFFSET_COMMIT: i16 = 8;
const COORDINATOR_NOT_AVAILABLE: i16 = 15;
const COORDINATOR_LOAD_IN_PROGRESS: i16 = 14;
const CORRUPT_MESSAGE: i16 = 2;
const RECORDS: usize = 3;

fn broker(cores: usize) -> Broker {
    broker_in(data_dir(), cores)
}

fn broker_in(data: tempfile::TempDir, cores: usize) -> Broker {
    let options = ["--cores", &cores.to_string(), "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--log-level", "warn"];
    Broker::start_in(data, &options)
}

/// The status and the body of an answer.
fn ask(broker: &Broker, method: &str, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(broker.metrics.as_deref().expect("it serves metrics"))?;
    stream.set_read_timeout(Some(HANGS))?;
    write!(stream, "{method} {path} HTTP/1.1\r\nhost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    if path.starts_with("/metrics") && status == 200 {
        assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    }
    Ok((status, body.to_owned()))
}

/// Every sample, by its name with labels.
fn scrape(broker: &Broker) -> BTreeMap<String, f64> {
    let (status, text) = ask(broker, "GET", "/metrics").unwrap();
    assert_eq!(status, 200);
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples.map(|line| line.rsplit_once(' ').map(|(name, value)| (name.to_owned(), value.parse().unwrap())).unwrap()).collect()
}

/// Scrapes until `sample` is `value`: an answer is counted when it has left, so a client may be faster.
fn scrape_when(broker: &Broker, sample: &str, value: f64) -> BTreeMap<String, f64> {
    let began = Instant::now();
    loop {
        let samples = scrape(broker);
        if samples.get(sample) == Some(&value) {
            return samples;
        }
        assert!(began.elapsed() < HANGS, "{sample} is {:?}, not {value}", samples.get(sample));
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Commits offset `offset` of partition 0 of `topic`, from outside of the group. It asks until the group is loaded.
fn commit(broker: &Broker, group: &str, topic: &str, offset: i64) {
    let coordinator = loop {
        let answer = broker.connect().call(FIND_COORDINATOR, 0, &Body::new().string(group).0);
        let mut rest = Reader(&answer[4..]);
        match rest.i16() {
            0 => break rest.i32() as usize,
            COORDINATOR_NOT_AVAILABLE => std::thread::sleep(Duration::from_millis(10)),
            error => panic!("error {error}"),
        }
    };
    let body = Body::new().string(group).i32(-1).string("").i64(-1).i32(1).string(topic).i32(1).i32(0).i64(offset).string("").0;
    loop {
        let answer = broker.connect_to(coordinator).call(OFFSET_COMMIT, 2, &body);
        match i16::from_be_bytes(*answer.last_chunk().unwrap()) {
            0 => return,
            COORDINATOR_LOAD_IN_PROGRESS => std::thread::sleep(Duration::from_millis(10)),
            error => panic!("error {error}"),
        }
    }
}

fn batch_of_three() -> Vec<u8> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    (0..RECORDS).fold(BatchBuilder::new(), |batch, _| batch.record(now, Some(b"key"), Some(b"value"))).build()
}

#[test]
fn what_clients_did_is_what_is_counted() {
    let mut broker = broker(2);
    let leader = broker.connect().topic("counted")[0] as usize;
    let mut client = broker.connect_to(leader);
    let batch = batch_of_three();
    let request = produce("counted", 0, -1, &batch);
    let mut answered = 0;
    for count in 0..5 {
        let answer = client.call(PRODUCE, 7, &request);
        assert_eq!(produced(&answer), (0, (count * RECORDS) as i64));
        answered += 4 + answer.len();
    }
    let mut broken = batch.clone();
    *broken.last_mut().unwrap() ^= 1;
    let answer = client.call(PRODUCE, 7, &produce("counted", 0, -1, &broken));
    assert_eq!(produced(&answer).0, CORRUPT_MESSAGE);
    answered += 4 + answer.len();
    let records = fetched(&client.call(FETCH, 11, &fetch("counted", &[0], Fetch::default()))).remove(0).3;
    assert_eq!(records.len(), 5 * batch.len());
    commit(&broker, "readers", "counted", 4);

    let samples = scrape_when(&broker, r#"thalweg_request_duration_seconds_count{api="Fetch"}"#, 1.0);
    let is = |sample: &str, value: usize| assert_eq!(samples.get(sample), Some(&(value as f64)), "{sample}");
    is(r#"thalweg_requests_total{api="Produce"}"#, 6);
    is(r#"thalweg_request_duration_seconds_count{api="Produce"}"#, 6);
    is(r#"thalweg_request_duration_seconds_bucket{api="Produce",le="+Inf"}"#, 6);
    is(r#"thalweg_request_bytes_total{api="Produce"}"#, 6 * frame(PRODUCE, 7, 0, &request).len());
    is(r#"thalweg_response_bytes_total{api="Produce"}"#, answered);
    is(r#"thalweg_request_errors_total{api="Produce",error="CORRUPT_MESSAGE"}"#, 1);
    is("thalweg_corrupt_reads_total", 0);
    is(r#"thalweg_topic_partitions{topic="counted"}"#, 1);
    is(r#"thalweg_topic_records_in_total{topic="counted"}"#, 5 * RECORDS);
    is(r#"thalweg_topic_bytes_in_total{topic="counted"}"#, 5 * batch.len());
    is(r#"thalweg_topic_bytes_out_total{topic="counted"}"#, 5 * batch.len());
    is(&format!(r#"thalweg_fetch_bytes_total{{core="{leader}"}}"#), 5 * batch.len());
    let partition = r#"{topic="counted",partition="0"}"#;
    is(&format!("thalweg_partition_log_start_offset{partition}"), 0);
    is(&format!("thalweg_partition_high_watermark{partition}"), 5 * RECORDS);
    is(&format!("thalweg_partition_log_end_offset{partition}"), 5 * RECORDS);
    is(&format!("thalweg_partition_size_bytes{partition}"), 5 * batch.len());
    is(&format!("thalweg_partition_segments{partition}"), 1);
    is(r#"thalweg_group_committed_offset{group="readers",topic="counted",partition="0"}"#, 4);
    is(r#"thalweg_group_lag_records{group="readers",topic="counted",partition="0"}"#, 5 * RECORDS - 4);
    is(r#"kafka_consumergroup_lag{consumergroup="readers",topic="counted",partition="0"}"#, 5 * RECORDS - 4);
    is(r#"thalweg_group_members{group="readers"}"#, 0);
    let of_cores = |name: &str| (0..2).map(|core| samples[&format!("{name}{{core=\"{core}\"}}")]).sum::<f64>();
    assert_eq!((of_cores("thalweg_core_up"), of_cores("thalweg_groups"), of_cores("thalweg_committed_offsets")), (2.0, 1.0, 1.0));
    assert_eq!((of_cores("thalweg_offline_partitions"), of_cores("thalweg_requests_refused_total")), (0.0, 0.0));
    assert_eq!(of_cores("thalweg_tail_bytes_max"), 2.0 * f64::from(256 << 20));
    assert!(of_cores("thalweg_connections") >= 1.0 && of_cores("thalweg_connections_accepted_total") >= 3.0);
    // Five batches were acknowledged one after the other: a frame and a flush each.
    let lane = |name: &str| samples[&format!("{name}{{core=\"{leader}\",lane=\"journal\"}}")];
    assert!(lane("thalweg_lane_writes_total") >= 5.0 && lane("thalweg_lane_bytes_total") >= (5 * batch.len()) as f64);
    assert!(samples[r#"thalweg_lane_flush_seconds_count{lane="journal"}"#] >= 5.0);
    assert_eq!(ask(&broker, "GET", "/health").unwrap(), (200, "ok\n".into()));

    // What nobody has used since a start is opened to know the lag on it.
    assert!(broker.stop().0);
    let broker = broker_in(std::mem::replace(&mut broker.data, data_dir()), 2);
    let lag = r#"thalweg_group_lag_records{group="readers",topic="counted",partition="0"}"#;
    let samples = scrape_when(&broker, lag, (5 * RECORDS - 4) as f64);
    assert_eq!(samples.get(r#"thalweg_topic_records_in_total{topic="counted"}"#), Some(&0.0), "counters begin with the process");
}

#[test]
fn refused_requests_and_parked_fetches_are_seen() {
    let broker = broker(1);
    let mut client = broker.connect();
    client.topic("quiet");
    client.send(FETCH, 11, &fetch("quiet", &[0], Fetch { max_wait_ms: 250_000, ..Fetch::default() }));
    let parked = r#"thalweg_parked_fetches{core="0"}"#;
    scrape_when(&broker, parked, 1.0);
    drop(client);
    scrape_when(&broker, parked, 0.0);
    let mut nonsense = broker.connect();
    nonsense.send(9_999, 0, &[]);
    assert_eq!(nonsense.receive(), None);
    scrape_when(&broker, r#"thalweg_requests_refused_total{core="0"}"#, 1.0);
}

#[test]
fn a_stop_under_way_is_not_healthy() {
    let mut broker = broker(1);
    let mut client = broker.connect();
    client.topic("large");
    for _ in 0..20 {
        assert_eq!(produced(&client.call(PRODUCE, 7, &produce("large", 0, -1, &batch(&vec![3; 900_000])))).0, 0);
    }
    // Who reads nothing holds the stop up for as long as it may.
    for _ in 0..10 {
        client.send(FETCH, 11, &fetch("large", &[0], Fetch::default()));
    }
    scrape_when(&broker, r#"thalweg_requests_total{api="Produce"}"#, 20.0);
    broker.signal(libc::SIGTERM);
    let began = Instant::now();
    let complaint = loop {
        match ask(&broker, "GET", "/health") {
            Ok((503, complaint)) => break complaint,
            Ok((status, _)) => assert_eq!(status, 200),
            Err(error) => panic!("it ended without a complaint: {error}"),
        }
        assert!(began.elapsed() < HANGS);
    };
    assert!(complaint.contains("core 0 is stopping"), "{complaint}");
    assert!(broker.child.wait().unwrap().success());
}

#[test]
fn other_paths_and_methods_are_told_what_there_is() {
    let broker = broker(1);
    assert_eq!(ask(&broker, "GET", "/").unwrap().0, 404);
    assert_eq!(ask(&broker, "POST", "/metrics").unwrap().0, 405);
    assert_eq!(ask(&broker, "HEAD", "/health").unwrap(), (200, String::new()));
    // Garbage and a head without an end harm nobody.
    let mut stream = TcpStream::connect(broker.metrics.as_deref().unwrap()).unwrap();
    stream.write_all(&[0x16; 100]).unwrap();
    let mut endless = TcpStream::connect(broker.metrics.as_deref().unwrap()).unwrap();
    let _ = endless.write_all(&[b'a'; 64 << 10]);
    assert_eq!(ask(&broker, "GET", "/health").unwrap().0, 200);
}

#[test]
fn a_named_port_that_is_taken_is_an_error_and_the_default_one_is_not() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = ends(data_dir().path(), &["--cores", "1", "--listen", "127.0.0.1:0", "--metrics", &address]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && error.contains("--metrics") && error.contains(&address), "{error}");

    // If somebody else has the default one, it is taken too.
    let _taken = TcpListener::bind("127.0.0.1:9644");
    let data = data_dir();
    let mut command = Command::new(env!("CARGO_BIN_EXE_thalweg"));
    command.args(["--data-dir", data.path().to_str().unwrap(), "--journal-size", "16MiB", "--cores", "1", "--listen", "127.0.0.1:0"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let screen: Vec<String> = lines.take_while(|line| !line.starts_with("ready")).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(screen.iter().any(|line| line.trim_start().starts_with("metrics") && line.ends_with("none")), "{screen:?}");
}

#[test]
fn a_damaged_batch_is_counted_at_every_read_and_named_in_the_log_once() {
    let data = data_dir();
    let config = data.path().join("thalweg.toml");
    std::fs::write(&config, "log.segment.bytes = 1048576\n").unwrap();
    let log = data.path().join("broker.log");
    let options = ["--cores", "1", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--config", config.to_str().unwrap()];
    let begin = |data| Broker::start_logging(data, &options, std::fs::File::options().create(true).append(true).open(&log).unwrap().into());

    let mut broker = begin(tempfile::tempdir_in(data.path()).unwrap());
    let mut client = broker.connect();
    client.topic("damaged");
    for offset in 0..3 {
        assert_eq!(produced(&client.call(PRODUCE, 7, &produce("damaged", 0, -1, &batch(&vec![3; 900_000])))), (0, offset));
    }
    assert!(broker.stop().0);
    let sealed = broker.files("damaged-0").join("00000000000000000000.log");
    let mut bytes = std::fs::read(&sealed).unwrap();
    bytes[16] ^= 1;
    std::fs::write(&sealed, bytes).unwrap();

    let directory = std::mem::replace(&mut broker.data, data_dir());
    let broker = begin(directory);
    let mut client = broker.connect();
    for _ in 0..3 {
        assert_eq!(fetched(&client.call(FETCH, 11, &fetch("damaged", &[0], Fetch::default())))[0].1, CORRUPT_MESSAGE);
    }
    scrape_when(&broker, "thalweg_corrupt_reads_total", 3.0);
    let said = std::fs::read_to_string(&log).unwrap();
    let named: Vec<&str> = said.lines().filter(|line| line.contains("damaged-0 can't be read")).collect();
    let [line] = named[..] else { panic!("{said}") };
    assert!(line.contains("is corrupt at byte 0") && line.contains("segment-dump --verify"), "{line}");
}

#[test]
fn what_retention_and_compaction_do_is_counted() {
    let data = data_dir();
    let config = data.path().join("thalweg.toml");
    let text = "log.cleanup.policy = 'compact'\nlog.segment.bytes = 1048576\nlog.cleaner.min.cleanable.ratio = 0.01\n";
    std::fs::write(&config, text).unwrap();
    let options = ["--cores", "1", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--config", config.to_str().unwrap()];
    let mut broker = Broker::start_in(data, &options);
    let mut client = broker.connect();
    client.topic("compacted");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    // Each supersedes the one before, and they fill more than two segments.
    let batch = BatchBuilder::new().record(now, Some(b"key"), Some(&[b'v'; 100_000])).build();
    for count in 0..30 {
        assert_eq!(produced(&client.call(PRODUCE, 7, &produce("compacted", 0, -1, &batch))), (0, count));
    }
    let began = Instant::now();
    let samples = loop {
        let samples = scrape(&broker);
        if samples[r#"thalweg_compaction_rounds_total{core="0"}"#] > 0.0 {
            break samples;
        }
        assert!(began.elapsed() < HANGS, "nothing is compacted");
        std::thread::sleep(Duration::from_millis(50));
    };
    let of = |name: &str| samples[&format!(r#"thalweg_{name}_total{{core="0"}}"#)];
    assert!(of("compaction_replaced_bytes") > 1e6 && of("compaction_written_bytes") < 3e5, "{samples:?}");
    assert!(of("compaction_records_removed") > 5.0 && of("keeping_failures") == 0.0, "{samples:?}");
    let by_age = samples.get(r#"thalweg_retention_bytes_total{core="0",why="retention.ms"}"#);
    assert_eq!((by_age, of("retention_segments")), (Some(&0.0), 0.0));
    broker.stop();
}
