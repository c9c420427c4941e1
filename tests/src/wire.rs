//! A few Kafka requests made by hand, in their oldest versions: to see whether a broker answers, to produce without a client's retries,
//! and to tell a client's fault from the broker's.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

/// The longest answer that a test expects, in bytes.
const ANSWER_BYTES_MAX: usize = 128 << 20;

/// Kafka's error code of a partition whose disk failed or is full.
pub const KAFKA_STORAGE_ERROR: i16 = 56;

/// One connection to one broker.
pub struct Wire {
    stream: TcpStream,
    correlation: i32,
}

/// What a broker says of one partition.
#[derive(Debug, Clone)]
pub struct PartitionMetadata {
    /// Kafka's error code, 0 for none.
    pub error: i16,
    /// The partition's number.
    pub partition: i32,
    /// Node id of its leader.
    pub leader: i32,
}

/// What a broker says of itself and of one topic.
#[derive(Debug, Clone)]
pub struct Metadata {
    /// Node id, host and port of every node.
    pub nodes: Vec<(i32, String, u16)>,
    /// Kafka's error code for the topic, 0 for none.
    pub error: i16,
    /// The topic's partitions.
    pub partitions: Vec<PartitionMetadata>,
}

/// The answer to a fetch of one partition.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// Kafka's error code, 0 for none.
    pub error: i16,
    /// The high watermark.
    pub high_watermark: i64,
    /// The batches, as they stand in the log; the last may be cut off.
    pub batches: Vec<u8>,
}

impl Wire {
    /// Connects; every later answer is waited for at most `timeout`.
    pub fn connect(address: &str, timeout: Duration) -> Result<Self> {
        let address: SocketAddr = address.parse().with_context(|| format!("address {address}"))?;
        let stream = TcpStream::connect_timeout(&address, timeout).with_context(|| format!("connect to {address}"))?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        stream.set_nodelay(true)?;
        Ok(Wire { stream, correlation: 0 })
    }

    /// Connects to the node that leads a partition.
    pub fn connect_to_leader(bootstrap: &str, topic: &str, partition: i32, timeout: Duration) -> Result<Self> {
        let metadata = Wire::connect(bootstrap, timeout)?.metadata(topic)?;
        let found = metadata.partitions.iter().find(|p| p.partition == partition);
        let leader = found.with_context(|| format!("no partition {partition} in {metadata:?}"))?.leader;
        let node = metadata.nodes.iter().find(|n| n.0 == leader).with_context(|| format!("no leader in {metadata:?}"))?;
        Wire::connect(&format!("127.0.0.1:{}", node.2), timeout)
    }

    /// Sends one request and gives the body of its answer.
    pub fn call(&mut self, key: i16, version: i16, body: &[u8]) -> Result<Vec<u8>> {
        self.correlation += 1;
        let mut request = Vec::with_capacity(body.len() + 32);
        request.extend(key.to_be_bytes());
        request.extend(version.to_be_bytes());
        request.extend(self.correlation.to_be_bytes());
        put_string(&mut request, "by-hand");
        request.extend(body);
        self.stream.write_all(&(request.len() as u32).to_be_bytes()).context("send")?;
        self.stream.write_all(&request).context("send")?;
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).with_context(|| format!("no answer to request {key} version {version}"))?;
        let length = u32::from_be_bytes(length) as usize;
        ensure!((4..ANSWER_BYTES_MAX).contains(&length), "an answer of {length} bytes");
        let mut answer = vec![0; length];
        self.stream.read_exact(&mut answer).context("rest of the answer")?;
        let correlation = i32::from_be_bytes(answer[..4].try_into()?);
        ensure!(correlation == self.correlation, "answer {correlation} to request {}", self.correlation);
        Ok(answer.split_off(4))
    }

    /// Asks which requests the broker knows; succeeds once it answers at all.
    pub fn api_versions(&mut self) -> Result<usize> {
        let answer = self.call(18, 0, &[])?;
        let mut answer = Cursor(&answer);
        let error = answer.i16()?;
        ensure!(error == 0, "ApiVersions: error {error}");
        Ok(answer.i32()? as usize)
    }

    /// Metadata of one topic, which isn't created by asking.
    pub fn metadata(&mut self, topic: &str) -> Result<Metadata> {
        let mut body = 1_i32.to_be_bytes().to_vec();
        put_string(&mut body, topic);
        body.push(0);
        let answer = self.call(3, 4, &body)?;
        let mut answer = Cursor(&answer);
        answer.i32()?;
        let mut nodes = Vec::new();
        for _ in 0..answer.i32()? {
            nodes.push((answer.i32()?, answer.string()?, answer.i32()? as u16));
            answer.string()?;
        }
        answer.string()?;
        answer.i32()?;
        ensure!(answer.i32()? == 1, "Metadata answers for one topic");
        let error = answer.i16()?;
        answer.string()?;
        answer.take(1)?;
        let mut partitions = Vec::new();
        for _ in 0..answer.i32()? {
            partitions.push(PartitionMetadata { error: answer.i16()?, partition: answer.i32()?, leader: answer.i32()? });
            for _ in 0..2 {
                let count = answer.i32()?;
                answer.take(4 * count as usize)?;
            }
        }
        Ok(Metadata { nodes, error, partitions })
    }

    /// Error code and offset for a timestamp (-1: the end, -2: the start).
    pub fn list_offset(&mut self, topic: &str, partition: i32, timestamp: i64) -> Result<(i16, i64)> {
        let mut body = (-1_i32).to_be_bytes().to_vec();
        one_partition(&mut body, topic, partition);
        body.extend(timestamp.to_be_bytes());
        let answer = self.call(2, 1, &body)?;
        let mut answer = Cursor(&answer);
        answer.i32()?;
        answer.string()?;
        answer.i32()?;
        answer.i32()?;
        let error = answer.i16()?;
        answer.take(8)?;
        Ok((error, answer.i64()?))
    }

    /// Fetches from one partition; the broker may wait for `max_wait_ms` if there is nothing.
    pub fn fetch(&mut self, topic: &str, partition: i32, offset: i64, max_wait_ms: i32) -> Result<Fetched> {
        let mut body = (-1_i32).to_be_bytes().to_vec();
        body.extend(max_wait_ms.to_be_bytes());
        body.extend(1_i32.to_be_bytes());
        body.extend((8_i32 << 20).to_be_bytes());
        body.push(0);
        one_partition(&mut body, topic, partition);
        body.extend(offset.to_be_bytes());
        body.extend((8_i32 << 20).to_be_bytes());
        let answer = self.call(1, 4, &body)?;
        let mut answer = Cursor(&answer);
        answer.i32()?;
        ensure!(answer.i32()? == 1, "Fetch answers for one topic");
        answer.string()?;
        answer.i32()?;
        answer.i32()?;
        let error = answer.i16()?;
        let high_watermark = answer.i64()?;
        answer.i64()?;
        let aborted = answer.i32()?.max(0);
        answer.take(16 * aborted as usize)?;
        let size = answer.i32()?.max(0);
        Ok(Fetched { error, high_watermark, batches: answer.take(size as usize)?.to_vec() })
    }

    /// The offset that a group has committed for a partition, -1 for none; asked of the group's coordinator.
    pub fn committed(bootstrap: &str, group: &str, topic: &str, partition: i32, timeout: Duration) -> Result<i64> {
        let mut body = Vec::new();
        put_string(&mut body, group);
        one_partition(&mut body, topic, partition);
        let answer = Wire::connect_to_coordinator(bootstrap, group, timeout)?.call(9, 1, &body)?;
        let mut answer = Cursor(&answer);
        answer.i32()?;
        answer.string()?;
        answer.i32()?;
        answer.i32()?;
        let offset = answer.i64()?;
        answer.string()?;
        let error = answer.i16()?;
        ensure!(error == 0, "OffsetFetch: error {error}");
        Ok(offset)
    }

    /// Commits `offset` for the first `partitions` partitions of a topic, for a group without members, each with `metadata`. This
    /// connection must be to the group's coordinator.
    pub fn commit(&mut self, group: &str, topic: &str, partitions: i32, offset: i64, metadata: &str) -> Result<()> {
        let mut body = Vec::new();
        put_string(&mut body, group);
        body.extend((-1_i32).to_be_bytes());
        put_string(&mut body, "");
        body.extend((-1_i64).to_be_bytes());
        body.extend(1_i32.to_be_bytes());
        put_string(&mut body, topic);
        body.extend(partitions.to_be_bytes());
        for partition in 0..partitions {
            body.extend(partition.to_be_bytes());
            body.extend(offset.to_be_bytes());
            put_string(&mut body, metadata);
        }
        let answer = self.call(8, 2, &body)?;
        let mut answer = Cursor(&answer);
        ensure!(answer.i32()? == 1, "OffsetCommit answers for one topic");
        answer.string()?;
        for _ in 0..answer.i32()? {
            let (partition, error) = (answer.i32()?, answer.i16()?);
            ensure!(error == 0, "OffsetCommit of partition {partition}: error {error}");
        }
        Ok(())
    }

    /// Connects to the coordinator of a group.
    pub fn connect_to_coordinator(bootstrap: &str, group: &str, timeout: Duration) -> Result<Self> {
        let mut body = Vec::new();
        put_string(&mut body, group);
        let answer = Wire::connect(bootstrap, timeout)?.call(10, 0, &body)?;
        let mut answer = Cursor(&answer);
        let error = answer.i16()?;
        ensure!(error == 0, "FindCoordinator: error {error}");
        answer.i32()?;
        answer.string()?;
        let port = answer.i32()?;
        Wire::connect(&format!("127.0.0.1:{port}"), timeout)
    }

    /// Produces a batch with `acks=all`; error code and base offset.
    pub fn produce(&mut self, topic: &str, partition: i32, batch: &[u8]) -> Result<(i16, i64)> {
        let mut body = (-1_i16).to_be_bytes().to_vec();
        body.extend((-1_i16).to_be_bytes());
        body.extend(30_000_i32.to_be_bytes());
        one_partition(&mut body, topic, partition);
        body.extend((batch.len() as i32).to_be_bytes());
        body.extend(batch);
        let answer = self.call(0, 3, &body)?;
        let mut answer = Cursor(&answer);
        answer.i32()?;
        answer.string()?;
        answer.i32()?;
        answer.i32()?;
        Ok((answer.i16()?, answer.i64()?))
    }
}

/// A batch of one uncompressed record without a key, of now.
pub fn batch_of_one(value: &[u8]) -> Vec<u8> {
    batch(&[(None, Some(value))], now_ms())
}

/// The clock, in ms.
pub fn now_ms() -> i64 {
    std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis() as i64)
}

/// A key and a value.
pub type KeyValue<'a> = (Option<&'a [u8]>, Option<&'a [u8]>);

/// An uncompressed batch of records, each a key and a value, with one timestamp.
pub fn batch(records: &[KeyValue<'_>], timestamp_ms: i64) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(0_i16.to_be_bytes());
    body.extend((records.len() as i32 - 1).to_be_bytes());
    body.extend(timestamp_ms.to_be_bytes());
    body.extend(timestamp_ms.to_be_bytes());
    body.extend((-1_i64).to_be_bytes());
    body.extend((-1_i16).to_be_bytes());
    body.extend((-1_i32).to_be_bytes());
    body.extend((records.len() as i32).to_be_bytes());
    for (delta, (key, value)) in records.iter().enumerate() {
        let mut record = vec![0, 0];
        put_varint(&mut record, delta as i64);
        for field in [key, value] {
            put_varint(&mut record, field.map_or(-1, |field| field.len() as i64));
            record.extend(field.unwrap_or_default());
        }
        record.push(0);
        put_varint(&mut body, record.len() as i64);
        body.extend(record);
    }
    let mut batch = 0_i64.to_be_bytes().to_vec();
    batch.extend((body.len() as i32 + 9).to_be_bytes());
    batch.extend((-1_i32).to_be_bytes());
    batch.push(2);
    batch.extend(crc32c::crc32c(&body).to_be_bytes());
    batch.extend(body);
    batch
}

/// Base offset, last offset and compression codec (0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd) of every whole batch.
pub fn batches(mut bytes: &[u8]) -> Vec<(i64, i64, u8)> {
    let mut found = Vec::new();
    while bytes.len() >= 61 {
        let size = 12 + u32::from_be_bytes(bytes[8..12].try_into().expect("4 bytes")) as usize;
        if bytes.len() < size {
            break;
        }
        let base = i64::from_be_bytes(bytes[..8].try_into().expect("8 bytes"));
        let delta = i32::from_be_bytes(bytes[23..27].try_into().expect("4 bytes"));
        found.push((base, base + i64::from(delta), bytes[22] & 7));
        bytes = &bytes[size..];
    }
    found
}

fn one_partition(body: &mut Vec<u8>, topic: &str, partition: i32) {
    body.extend(1_i32.to_be_bytes());
    put_string(body, topic);
    body.extend(1_i32.to_be_bytes());
    body.extend(partition.to_be_bytes());
}

fn put_string(body: &mut Vec<u8>, text: &str) {
    body.extend((text.len() as i16).to_be_bytes());
    body.extend(text.as_bytes());
}

fn put_varint(body: &mut Vec<u8>, value: i64) {
    let mut zigzag = ((value << 1) ^ (value >> 63)) as u64;
    while zigzag >= 0x80 {
        body.push(zigzag as u8 | 0x80);
        zigzag >>= 7;
    }
    body.push(zigzag as u8);
}

/// What is left of an answer.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        ensure!(count <= self.0.len(), "the answer ends {} bytes early", count - self.0.len());
        let (head, rest) = self.0.split_at(count);
        self.0 = rest;
        Ok(head)
    }

    fn i16(&mut self) -> Result<i16> {
        Ok(i16::from_be_bytes(self.take(2)?.try_into()?))
    }

    fn i32(&mut self) -> Result<i32> {
        Ok(i32::from_be_bytes(self.take(4)?.try_into()?))
    }

    fn i64(&mut self) -> Result<i64> {
        Ok(i64::from_be_bytes(self.take(8)?.try_into()?))
    }

    /// A string; null is read as empty.
    fn string(&mut self) -> Result<String> {
        let length = self.i16()?.max(0);
        Ok(String::from_utf8_lossy(self.take(length as usize)?).into_owned())
    }
}
