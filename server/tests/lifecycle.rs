//! Starts that can't be, and stops whatever the clients do.
#![allow(missing_docs, clippy::disallowed_types)]

mod support;

use std::{io::Write, time::Duration};
use support::*;

const JOIN_GROUP: i16 = 11;
const LEAVE_GROUP: i16 = 13;
const CREATE_TOPICS: i16 = 19;
const DELETE_TOPICS: i16 = 20;
const DELETE_RECORDS: i16 = 21;
const ALTER_CONFIGS: i16 = 33;
const CREATE_PARTITIONS: i16 = 37;
const DELETE_GROUPS: i16 = 42;
const COORDINATOR_LOAD_IN_PROGRESS: i16 = 14;
/// What the broker states (`start::STOP_SECONDS_MAX`), and time for a busy machine to end the process.
const STOP_MAX: Duration = Duration::from_secs(server::start::STOP_SECONDS_MAX + 5);

fn fails(data: &std::path::Path, options: &[&str]) -> String {
    let output = ends(data, options);
    assert!(!output.status.success(), "it started with {options:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_stop_is_clean_and_in_time_whatever_the_clients_do() {
    let mut broker = Broker::start(2);
    let mut producer = broker.connect();
    let leader = producer.topic("t")[0] as usize;
    let mut producer = broker.connect_to(leader);
    for offset in 0..40 {
        assert_eq!(produced(&producer.call(PRODUCE, 7, &produce("t", 0, -1, &batch(&vec![3; 900_000])))), (0, offset));
    }
    // One that is parked.
    let mut parked = broker.connect_to(leader);
    parked.send(FETCH, 11, &fetch("t", &[0], Fetch { offset: 40, max_wait_ms: 250_000, ..Fetch::default() }));
    // One in the middle of a large request.
    let mut half = broker.connect_to(leader);
    half.stream.write_all(&(50i32 << 20).to_be_bytes()).unwrap();
    half.stream.write_all(&[0; 70_000]).unwrap();
    // Silent ones, and ones that ask for megabytes and read nothing.
    let mut others: Vec<Client> = (0..50).map(|count| broker.connect_to(count % 2)).collect();
    for other in others.iter_mut().take(4) {
        for _ in 0..10 {
            other.send(FETCH, 11, &fetch("t", &[0], Fetch::default()));
        }
    }
    std::thread::sleep(Duration::from_millis(300));
    let (clean, took) = broker.stop();
    assert!(clean, "exit status 0");
    assert!(took < STOP_MAX, "{took:?}");
    let answer = parked.receive().map(|answer| fetched(&answer)[0].3.len());
    assert!(matches!(answer, None | Some(0)), "answered empty, or closed");
}

#[test]
fn a_clean_stop_and_a_kill_lose_nothing_that_was_acknowledged() {
    let mut data = data_dir();
    let mut next = 0;
    for round in 0..4 {
        let mut broker = Broker::start_in(data, &["--cores", if round == 2 { "2" } else { "1" }, "--listen", "127.0.0.1:0"]);
        let leader = broker.connect().topic("kept")[0] as usize;
        let mut client = broker.connect_to(leader);
        let answer = fetched(&client.call(FETCH, 11, &fetch("kept", &[0], Fetch::default())));
        assert_eq!((answer[0].1, answer[0].2), (0, next), "round {round}");
        for _ in 0..25 {
            assert_eq!(produced(&client.call(PRODUCE, 7, &produce("kept", 0, -1, &batch(&[5; 1000])))), (0, next));
            next += 1;
        }
        if round % 2 == 0 {
            assert!(broker.stop().0);
        } else {
            broker.child.kill().unwrap();
            broker.child.wait().unwrap();
        }
        data = std::mem::replace(&mut broker.data, data_dir());
    }
}

/// The next life of a broker with one core.
fn again(mut broker: Broker, is_killed: bool) -> Broker {
    if is_killed {
        broker.child.kill().unwrap();
        broker.child.wait().unwrap();
    } else {
        assert!(broker.stop().0);
    }
    let data = std::mem::replace(&mut broker.data, data_dir());
    Broker::start_in(data, &["--cores", "1", "--listen", "127.0.0.1:0", "--log-level", "warn"])
}

/// The leader epoch of the batch at an offset of the topic `new`: it comes behind base offset and length.
fn epoch_at(client: &mut Client, offset: i64) -> i32 {
    let answer = fetched(&client.call(FETCH, 11, &fetch("new", &[0], Fetch { offset, ..Fetch::default() })));
    let mut batch = Reader(&answer[0].3);
    assert_eq!(batch.i64(), offset);
    batch.skip(4);
    batch.i32()
}

#[test]
fn what_is_created_behind_a_deletion_is_there_after_a_kill_and_after_a_stop() {
    // In a later life the counter begins at what that start gave, and not where the catalog's changes alone lead to.
    for (starts, is_killed) in [(1, true), (2, false), (2, true), (3, false)] {
        let mut broker = Broker::start(1);
        for _ in 1..starts {
            broker = again(broker, false);
        }
        let mut client = broker.connect();
        for round in 0..3 {
            let old = format!("old-{round}");
            client.topic(&old);
            // Each raises the leader epoch.
            let answer = client.call(DELETE_TOPICS, 1, &Body::new().i32(1).string(&old).i32(10_000).0);
            assert_eq!(answer[answer.len() - 2..], [0, 0], "{answer:?}");
        }
        client.topic("new");
        for offset in 0..20 {
            assert_eq!(produced(&client.call(PRODUCE, 7, &produce("new", 0, -1, &batch(&[5; 1000])))), (0, offset));
        }
        let mut next = 20;
        for is_killed in [is_killed, false, true] {
            broker = again(broker, is_killed);
            let mut client = broker.connect();
            let answer = fetched(&client.call(FETCH, 11, &fetch("new", &[0], Fetch::default())));
            assert_eq!((answer[0].1, answer[0].2), (0, next), "{starts} starts, killed: {is_killed}");
            assert_eq!(produced(&client.call(PRODUCE, 7, &produce("new", 0, -1, &batch(&[5; 1000])))), (0, next));
            next += 1;
            let [before, now] = [next - 2, next - 1].map(|offset| epoch_at(&mut client, offset));
            assert!(now > before, "a start is above what was given before it: {before}, {now}");
        }
    }
}

#[test]
fn sigint_stops_too() {
    let mut broker = Broker::start(1);
    broker.signal(libc::SIGINT);
    assert!(broker.child.wait().unwrap().success());
}

#[test]
fn a_second_broker_on_the_same_data_says_who_has_it() {
    let broker = Broker::start(1);
    let error = fails(broker.data.path(), &["--cores", "1", "--listen", "127.0.0.1:0"]);
    let holder = format!("is in use by process {} (thalweg): ", broker.pid());
    let [waiting, refused] = ["waiting for it", "stop it, or choose another directory with --data-dir"].map(|end| holder.clone() + end);
    assert!(error.find(&waiting).is_some_and(|at| error[at..].contains(&refused)), "{error}");
    broker.connect().call(API_VERSIONS, 0, &[]);
}

#[test]
fn a_port_that_is_taken_is_named_with_the_remedy() {
    let broker = Broker::start(1);
    let taken = format!("127.0.0.1:{}", broker.ports[0]);
    let error = fails(data_dir().path(), &["--cores", "1", "--listen", &taken]);
    assert!(error.contains("taken") && error.contains(&broker.ports[0].to_string()) && error.contains("--listen"), "{error}");
}

#[test]
fn directories_that_cannot_be_used_are_refused_with_the_remedy() {
    let data = data_dir();
    std::fs::write(data.path().join("file"), "x").unwrap();
    let error = fails(&data.path().join("file"), &["--cores", "1", "--listen", "127.0.0.1:0"]);
    assert!(error.contains("can't be written to") && error.contains("--data-dir"), "{error}");
    let error = fails(std::path::Path::new("/proc/thalweg"), &["--cores", "1", "--listen", "127.0.0.1:0"]);
    assert!(error.contains("can't be written to"), "{error}");
}

#[test]
fn a_copy_of_a_data_directory_is_kept_from_the_journal_of_the_first() {
    let journal = data_dir();
    let options = ["--cores", "1", "--listen", "127.0.0.1:0", "--journal-dir", journal.path().to_str().unwrap()];
    let mut broker = Broker::start_in(data_dir(), &options);
    broker.connect().topic("kept");
    assert!(broker.stop().0);
    let copy = data_dir();
    let (from, to) = (broker.data.path().join("."), copy.path());
    assert!(std::process::Command::new("cp").arg("-a").args([from.as_path(), to]).status().unwrap().success());
    let superblock = || std::fs::read(journal.path().join("superblock")).unwrap();
    let before = superblock();
    let error = fails(copy.path(), &options);
    assert!(error.contains("which may be a copy of that") && error.contains("name the copy with --journal-dir"), "{error}");
    assert_eq!(superblock(), before);
    let data = std::mem::replace(&mut broker.data, data_dir());
    assert!(!Broker::start_in(data, &options).connect().topic("kept").is_empty());
}

#[test]
fn options_that_cannot_be_are_refused_with_what_can() {
    let data = data_dir();
    let cases: [(&[&str], &str); 6] = [
        (&["--cores", "100000"], "CPUs"),
        (&["--listen", "0.0.0.0:9092"], "--advertise"),
        (&["--listen", "203.0.113.7:0", "--cores", "1"], "not an address of this machine"),
        (&["--journal-dir", "/proc/x", "--listen", "127.0.0.1:0", "--cores", "1"], "can't be written to"),
        (&["--config", "/nonexistent.toml"], "can't be read"),
        (&["--log-level", "loud"], "trace"),
    ];
    for (options, expected) in cases {
        let error = fails(data.path(), options);
        assert!(error.contains(expected), "{options:?}: {error}");
    }
}

#[test]
fn an_unknown_key_is_a_warning_and_kafkas_names_work() {
    let data = data_dir();
    let config = data.path().join("thalweg.toml");
    std::fs::write(&config, "num.partitons = 3\nnum.partitions = 5\nauto.create.topics.enable = true\nzookeeper.connect = \"x\"\n")
        .unwrap();
    let warned = data.path().join("warnings");
    let options = ["--config", config.to_str().unwrap(), "--cores", "1", "--listen", "127.0.0.1:0"];
    let sub = tempfile::tempdir_in(data.path()).unwrap();
    let mut child =
        command(sub.path(), &options).stdout(std::process::Stdio::null()).stderr(std::fs::File::create(&warned).unwrap()).spawn().unwrap();
    let text = || std::fs::read_to_string(&warned).unwrap();
    while !text().contains("zookeeper.connect") && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(text().contains("unknown key num.partitons is ignored; did you mean num.partitions?"), "{}", text());
    assert!(text().contains("no meaning on one machine"), "{}", text());
    let broker = Broker::start_in(data_dir(), &options);
    assert_eq!(broker.connect().topic("five").len(), 5);
}

#[test]
fn a_client_of_another_protocol_is_named_in_the_log() {
    let data = data_dir();
    let path = data.path().join("log");
    let options = ["--cores", "1", "--listen", "127.0.0.1:0"];
    let broker = Broker::start_logging(data, &options, std::fs::File::create(&path).unwrap().into());
    let cases: [(&[u8], &str); 3] = [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "a TLS client on a plaintext listener"),
        (b"GET /metrics HTTP/1.1\r\n\r\n", "an HTTP client"),
        (b"\xff\xff\xff\xf0junk", "a request of -16 bytes"),
    ];
    for (bytes, expected) in cases {
        let mut client = broker.connect();
        client.stream.write_all(bytes).unwrap();
        assert_eq!(client.receive(), None, "it is closed");
        let log = || std::fs::read_to_string(&path).unwrap();
        let began = std::time::Instant::now();
        while !log().contains(expected) {
            assert!(began.elapsed() < HANGS, "{expected} is missing in:\n{}", log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn each_change_that_clients_make_is_one_line_in_the_log() {
    let data = data_dir();
    let path = data.path().join("log");
    let options = ["--cores", "1", "--listen", "127.0.0.1:0"];
    let mut broker = Broker::start_logging(data, &options, std::fs::File::create(&path).unwrap().into());
    let mut client = broker.connect();
    client.topic("asked-about");
    let create = |name: &str, only_tried: i8| Body::new().i32(1).string(name).i32(2).i16(1).i32(0).i32(0).i32(10_000).i8(only_tried).0;
    client.call(CREATE_TOPICS, 2, &create("only-tried", 1));
    let grow = Body::new().i32(1).string("made").i32(5).i32(-1).i32(10_000).i8(0).0;
    let configure =
        Body::new().i32(1).i8(2).string("made").i32(2).string("retention.ms").string("-1").string("segment.ms").string("86400000");
    let configure = configure.i8(0).0;
    // What is asked for again changes nothing any more.
    for _ in 0..2 {
        client.call(CREATE_TOPICS, 2, &create("made", 0));
        client.call(CREATE_PARTITIONS, 0, &grow);
        client.call(ALTER_CONFIGS, 0, &configure);
    }
    for offset in 0..3 {
        assert_eq!(produced(&client.call(PRODUCE, 7, &produce("made", 0, -1, &batch(b"v")))), (0, offset));
    }
    for _ in 0..2 {
        let answer = client.call(DELETE_RECORDS, 0, &Body::new().i32(1).string("made").i32(1).i32(0).i64(2).i32(10_000).0);
        assert_eq!(answer[answer.len() - 2..], [0, 0], "{answer:?}");
    }
    for _ in 0..2 {
        client.call(DELETE_TOPICS, 1, &Body::new().i32(1).string("made").i32(10_000).0);
    }
    let join = Body::new().string("readers").i32(30_000).string("").string("consumer").i32(1).string("range").i32(0).0;
    let member = loop {
        let answer = client.call(JOIN_GROUP, 0, &join);
        let mut rest = Reader(&answer[4..]);
        match rest.i16() {
            0 => {
                rest.skip(4);
                rest.string();
                rest.string();
                break rest.string();
            }
            COORDINATOR_LOAD_IN_PROGRESS => std::thread::sleep(Duration::from_millis(10)),
            error => panic!("error {error}"),
        }
    };
    client.call(LEAVE_GROUP, 0, &Body::new().string("readers").string(&member).0);
    for _ in 0..2 {
        client.call(DELETE_GROUPS, 0, &Body::new().i32(1).string("readers").0);
    }
    assert!(broker.stop().0);

    let log = std::fs::read_to_string(&path).unwrap();
    let by_the_client = [
        "topic asked-about was created with 1 partition, since a client asked about it (auto.create.topics.enable)",
        "topic made was created with 2 partitions",
        "topic made has 5 partitions now, and had 2",
        "configs of topic made were changed: retention.ms, segment.ms",
        "records of made-0 were deleted: its log starts at offset 2, and did at 0",
        "topic made was deleted",
        r#"group "readers" was deleted"#,
    ];
    let of_the_group = [r#"group "readers" has 1 member in generation 1"#, r#"group "readers" has no members in generation 2"#];
    for expected in by_the_client.iter().chain(&of_the_group) {
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(expected)).collect();
        let [line] = lines[..] else { panic!("{expected:?} is there {} times in:\n{log}", lines.len()) };
        let is_named = line.contains("peer=127.0.0.1:") && line.contains(r#"client="test""#);
        assert!(line.contains("INFO") && is_named == by_the_client.contains(expected), "{line}");
    }
    assert!(!log.contains("only-tried"), "{log}");
}

#[test]
fn a_start_says_where_it_listens_and_what_it_recovered() {
    let options = ["--cores", "1", "--listen", "0.0.0.0:0", "--advertise", "db7.example.org:9092"];
    let mut broker = Broker::start_in(data_dir(), &options);
    assert!(broker.screen.contains("db7.example.org:9092\n") && broker.screen.contains("listens on     0.0.0.0:"), "{}", broker.screen);
    assert!(!broker.screen.contains("recovered"), "there was nothing:\n{}", broker.screen);
    broker.child.kill().unwrap();
    broker.child.wait().unwrap();

    let options = ["--cores", "1", "--listen", "127.0.0.1:0"];
    let data = std::mem::replace(&mut broker.data, data_dir());
    let mut broker = Broker::start_in(data, &options);
    assert!(!broker.screen.contains("listens on"), "clients are told the same:\n{}", broker.screen);
    let mut client = broker.connect();
    client.topic("t");
    assert_eq!(produced(&client.call(PRODUCE, 7, &produce("t", 0, -1, &batch(&[7; 1000])))), (0, 0));
    broker.child.kill().unwrap();
    broker.child.wait().unwrap();

    let data = std::mem::replace(&mut broker.data, data_dir());
    let mut broker = Broker::start_in(data, &options);
    let line = broker.screen.lines().find(|line| line.trim_start().starts_with("recovered ")).expect("it says so");
    assert!(line.contains("partitions") && line.contains("KiB") && line.contains(" ms"), "{line}");
    assert!(broker.stop().0);
    let data = std::mem::replace(&mut broker.data, data_dir());
    let broker = Broker::start_in(data, &options);
    assert!(!broker.screen.contains("recovered"), "it was stopped:\n{}", broker.screen);
}

#[test]
fn help_teaches() {
    let output = ends(std::path::Path::new("x"), &["--help"]);
    // However wide the terminal is.
    let text = String::from_utf8(output.stdout).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(output.status.success());
    for part in ["--advertise", "TOML", "num.partitions", "core 1 on PORT + 1", "SIGTERM", "stable storage"] {
        assert!(text.contains(part), "{part}\n{text}");
    }
}
