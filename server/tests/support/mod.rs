//! A broker process and a client that speaks bytes.
#![allow(dead_code, missing_docs)]

use engine::batch::BatchBuilder;
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

/// The longest that anything may take before a test says that it hangs. No claim depends on it.
pub const HANGS: Duration = Duration::from_secs(60);

pub const PRODUCE: i16 = 0;
pub const FETCH: i16 = 1;
pub const LIST_OFFSETS: i16 = 2;
pub const METADATA: i16 = 3;
pub const API_VERSIONS: i16 = 18;

/// A broker, its data in a directory of its own on a real filesystem. Ends with the test, and its data with it.
pub struct Broker {
    pub child: Child,
    pub ports: Vec<u16>,
    /// Where it serves metrics, if it was told to.
    pub metrics: Option<String>,
    /// What its start printed.
    pub screen: String,
    pub data: tempfile::TempDir,
}

pub fn data_dir() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

pub fn command(data: &std::path::Path, options: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_thalweg"));
    command.args(["--data-dir", data.to_str().unwrap(), "--journal-size", "16MiB"]).args(options);
    if !options.contains(&"--metrics") {
        command.args(["--metrics", "off"]);
    }
    command.env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

/// Runs a broker that is expected to end by itself.
pub fn ends(data: &std::path::Path, options: &[&str]) -> Output {
    command(data, options).output().unwrap()
}

impl Broker {
    pub fn start(cores: usize) -> Broker {
        Broker::start_in(data_dir(), &["--cores", &cores.to_string(), "--listen", "127.0.0.1:0", "--log-level", "warn"])
    }

    pub fn start_in(data: tempfile::TempDir, options: &[&str]) -> Broker {
        Broker::start_logging(data, options, Stdio::inherit())
    }

    /// Its log goes to `log`.
    pub fn start_logging(data: tempfile::TempDir, options: &[&str], log: Stdio) -> Broker {
        let mut child = command(data.path(), options).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let (mut ports, mut metrics, mut screen) = (Vec::new(), None, String::new());
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        loop {
            let line = lines.next().expect("the broker ended at its start").unwrap();
            screen.extend([&line, "\n"]);
            if line.trim_start().starts_with("core ") {
                ports.push(line.rsplit(':').next().unwrap().parse().unwrap());
            }
            if let Some((_, url)) = line.split_once("metrics        http://") {
                metrics = url.split('/').next().map(str::to_owned);
            }
            if line.starts_with("ready") {
                break;
            }
        }
        // The rest is read, or a broker that prints would wait for us.
        std::thread::spawn(move || lines.for_each(drop));
        Broker { child, ports, metrics, screen, data }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn connect(&self) -> Client {
        self.connect_to(0)
    }

    pub fn connect_to(&self, core: usize) -> Client {
        Client::new(self.ports[core])
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: the process is our child and was not waited for.
        unsafe { libc::kill(self.pid() as i32, signal) };
    }

    /// SIGTERM. Whether it ended cleanly, and after how long.
    pub fn stop(&mut self) -> (bool, Duration) {
        let began = Instant::now();
        self.signal(libc::SIGTERM);
        (self.child.wait().unwrap().success(), began.elapsed())
    }

    /// Resident memory in bytes.
    pub fn rss(&self) -> u64 {
        let statm = fs::read_to_string(format!("/proc/{}/statm", self.pid())).unwrap();
        statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
    }

    pub fn files(&self, topic_partition: &str) -> PathBuf {
        self.data.path().join(topic_partition)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection.
pub struct Client {
    pub stream: TcpStream,
    correlation_id: i32,
}

impl Client {
    pub fn new(port: u16) -> Client {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(HANGS)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client { stream, correlation_id: 0 }
    }

    /// Sends a request; returns its correlation id.
    pub fn send(&mut self, key: i16, version: i16, body: &[u8]) -> i32 {
        self.correlation_id += 1;
        self.stream.write_all(&frame(key, version, self.correlation_id, body)).unwrap();
        self.correlation_id
    }

    /// The next answer, without its length. `None` if the broker has closed the connection.
    pub fn receive(&mut self) -> Option<Vec<u8>> {
        let mut length = [0; 4];
        match self.stream.read_exact(&mut length) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("the broker does not answer"),
            Err(_) => return None,
        }
        let mut answer = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut answer).unwrap();
        Some(answer)
    }

    /// The answer to a request.
    pub fn call(&mut self, key: i16, version: i16, body: &[u8]) -> Vec<u8> {
        let correlation_id = self.send(key, version, body);
        let answer = self.receive().expect("the broker closed the connection");
        assert_eq!(answer[..4], correlation_id.to_be_bytes(), "answers come in the order of the requests");
        answer
    }

    /// Creates a topic by asking for it. Returns the leaders of its partitions (Metadata v7).
    pub fn topic(&mut self, name: &str) -> Vec<i32> {
        let answer = self.call(METADATA, 7, &Body::new().i32(1).string(name).i8(1).0);
        let mut rest = Reader(&answer[4..]);
        rest.skip(4);
        for _ in 0..rest.i32() {
            rest.skip(4);
            rest.string();
            rest.skip(4);
            rest.string();
        }
        rest.string();
        rest.skip(4);
        assert_eq!((rest.i32(), rest.i16()), (1, 0), "the topic exists");
        rest.string();
        rest.skip(1);
        let partitions = rest.i32();
        let mut leaders = vec![-1; partitions as usize];
        for _ in 0..partitions {
            assert_eq!(rest.i16(), 0);
            let index = rest.i32();
            leaders[index as usize] = rest.i32();
            rest.skip(4);
            for _ in 0..3 {
                let count = rest.i32() as usize;
                rest.skip(4 * count);
            }
        }
        leaders
    }
}

/// A request with its length and header (v1, or v2 where the API's version is flexible).
pub fn frame(key: i16, version: i16, correlation_id: i32, body: &[u8]) -> Vec<u8> {
    let flexible = server::walk::schema(key).is_some_and(|message| version >= message.flexible);
    let mut out = Body::new().i16(key).i16(version).i32(correlation_id).string("test");
    if flexible {
        out = out.i8(0);
    }
    let mut request = out.0;
    request.extend_from_slice(body);
    let mut framed = (request.len() as i32).to_be_bytes().to_vec();
    framed.extend(request);
    framed
}

/// Bytes, written in the protocol's types.
#[derive(Default)]
pub struct Body(pub Vec<u8>);

impl Body {
    pub fn new() -> Body {
        Body::default()
    }
    pub fn i8(mut self, value: i8) -> Body {
        self.0.push(value as u8);
        self
    }
    pub fn i16(mut self, value: i16) -> Body {
        self.0.extend(value.to_be_bytes());
        self
    }
    pub fn i32(mut self, value: i32) -> Body {
        self.0.extend(value.to_be_bytes());
        self
    }
    pub fn i64(mut self, value: i64) -> Body {
        self.0.extend(value.to_be_bytes());
        self
    }
    pub fn string(self, text: &str) -> Body {
        self.i16(text.len() as i16).raw(text.as_bytes())
    }
    pub fn raw(mut self, bytes: &[u8]) -> Body {
        self.0.extend_from_slice(bytes);
        self
    }
    pub fn varint(mut self, mut value: u32) -> Body {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
        self
    }
    pub fn compact_string(self, text: &str) -> Body {
        self.varint(text.len() as u32 + 1).raw(text.as_bytes())
    }
}

/// Bytes, read in the protocol's types.
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn skip(&mut self, bytes: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(bytes);
        self.0 = rest;
        head
    }
    pub fn i16(&mut self) -> i16 {
        i16::from_be_bytes(self.skip(2).try_into().unwrap())
    }
    pub fn i32(&mut self) -> i32 {
        i32::from_be_bytes(self.skip(4).try_into().unwrap())
    }
    pub fn i64(&mut self) -> i64 {
        i64::from_be_bytes(self.skip(8).try_into().unwrap())
    }
    pub fn string(&mut self) -> String {
        match self.i16() {
            -1 => String::new(),
            length => String::from_utf8(self.skip(length as usize).to_vec()).unwrap(),
        }
    }
}

/// A batch of one record.
pub fn batch(value: &[u8]) -> Vec<u8> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    BatchBuilder::new().record(now, Some(b"key"), Some(value)).build()
}

/// Produce v7 of one batch.
pub fn produce(topic: &str, partition: i32, acks: i16, batch: &[u8]) -> Vec<u8> {
    let body = Body::new().i16(-1).i16(acks).i32(30_000).i32(1).string(topic).i32(1).i32(partition);
    body.i32(batch.len() as i32).raw(batch).0
}

/// The error and base offset of a Produce v7 answer with one partition.
pub fn produced(answer: &[u8]) -> (i16, i64) {
    let mut rest = Reader(&answer[8..]);
    rest.string();
    rest.skip(8);
    (rest.i16(), rest.i64())
}

/// Where a fetch begins, and its bounds.
#[derive(Clone, Copy)]
pub struct Fetch {
    pub offset: i64,
    pub max_wait_ms: i32,
    pub max_bytes: i32,
    pub partition_max_bytes: i32,
    pub epoch: i32,
}

impl Default for Fetch {
    fn default() -> Self {
        Fetch { offset: 0, max_wait_ms: 0, max_bytes: 50 << 20, partition_max_bytes: 50 << 20, epoch: -1 }
    }
}

/// Fetch v11 of partitions of one topic.
pub fn fetch(topic: &str, partitions: &[i32], what: Fetch) -> Vec<u8> {
    let mut body = Body::new().i32(-1).i32(what.max_wait_ms).i32(1).i32(what.max_bytes).i8(0).i32(0).i32(-1);
    body = body.i32(1).string(topic).i32(partitions.len() as i32);
    for partition in partitions {
        body = body.i32(*partition).i32(what.epoch).i64(what.offset).i64(-1).i32(what.partition_max_bytes);
    }
    body.i32(0).string("").0
}

/// The partitions of a Fetch v11 answer with one topic: (partition, error, high watermark, records).
pub fn fetched(answer: &[u8]) -> Vec<(i32, i16, i64, Vec<u8>)> {
    let mut rest = Reader(&answer[4..]);
    rest.skip(4);
    assert_eq!((rest.i16(), rest.i32(), rest.i32()), (0, 0, 1), "no error, no session, one topic");
    rest.string();
    let partitions = (0..rest.i32())
        .map(|_| {
            let (partition, error, high_watermark) = (rest.i32(), rest.i16(), rest.i64());
            rest.skip(16);
            let aborted = rest.i32().max(0) as usize;
            rest.skip(16 * aborted + 4);
            let length = rest.i32() as usize;
            (partition, error, high_watermark, rest.skip(length).to_vec())
        })
        .collect();
    assert!(rest.0.is_empty(), "nothing behind the answer");
    partitions
}
