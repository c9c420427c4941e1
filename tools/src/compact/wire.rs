//! The request of Thalweg's own that asks for retention and compaction: `docs/protocol.md` has its fields, and
//! `server::api::keep` answers it.

use anyhow::{Context, Result, bail, ensure};
pub(crate) use server::api::keep::{Action, State};
use server::api::{
    ANSWER_BYTES_MAX,
    keep::{KEY, VERSION, take_string},
};
use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{TcpStream, ToSocketAddrs},
    time::Duration,
};

/// How long an answer may take: the broker only looks something up.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Our name in the broker's log.
const CLIENT: &str = "compact";

/// An answer of one core.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) node: i32,
    /// Where all cores listen, by node.
    pub(crate) nodes: Vec<String>,
    /// The partitions of this core that were asked for.
    pub(crate) partitions: BTreeMap<(String, i32), State>,
    /// Those that don't exist; -1 for a whole topic.
    pub(crate) missing: Vec<(String, i32)>,
}

/// A connection to one core.
pub(crate) struct Connection {
    stream: TcpStream,
    address: String,
    correlation: i32,
}

impl Connection {
    pub(crate) fn open(address: &str) -> Result<Connection> {
        let failed = || format!("can't reach a broker at {address}");
        let mut addresses = address.to_socket_addrs().with_context(failed)?;
        // A host may have an address that nobody listens on: `localhost` and ::1.
        let mut last = None;
        let stream = addresses.find_map(|address| match TcpStream::connect_timeout(&address, ANSWER_WITHIN) {
            Ok(stream) => Some(stream),
            Err(error) => {
                last = Some(error);
                None
            }
        });
        let stream = match (stream, last) {
            (Some(stream), _) => stream,
            (None, Some(error)) => return Err(error).with_context(failed),
            (None, None) => bail!("{address} has no address"),
        };
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        stream.set_write_timeout(Some(ANSWER_WITHIN))?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream, address: address.to_owned(), correlation: 0 })
    }

    /// Asks for these partitions of these topics; for all of all if there are none.
    pub(crate) fn ask(&mut self, action: Action, topics: &[String], partitions: &[i32]) -> Result<Answer> {
        self.correlation += 1;
        let request = request(self.correlation, action, topics, partitions)?;
        let answer = self.call(&request)?;
        let address = &self.address;
        let mut cursor = Cursor(&answer);
        let correlation = cursor.i32()?;
        ensure!(correlation == self.correlation, "{address} answers to another request");
        Answer::read(&mut cursor).with_context(|| format!("the answer of {address}"))
    }

    fn call(&mut self, request: &[u8]) -> Result<Vec<u8>> {
        let address = &self.address;
        // A broker that doesn't know the request closes the connection.
        let silent = || format!("{address} does not answer: it has ended, it is no Thalweg, or one that does not know this request yet");
        self.stream.write_all(request).with_context(silent)?;
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).with_context(silent)?;
        ensure!(length != *b"HTTP", "{address} speaks HTTP: a broker's metrics do, on a port of their own; name one of --listen");
        let length = u32::from_be_bytes(length) as usize;
        ensure!(length <= ANSWER_BYTES_MAX, "{address} is no Thalweg: an answer of {length} bytes");
        let mut answer = vec![0; length];
        self.stream.read_exact(&mut answer).with_context(silent)?;
        Ok(answer)
    }
}

fn request(correlation: i32, action: Action, topics: &[String], partitions: &[i32]) -> Result<Vec<u8>> {
    let mut request = vec![0; 4];
    request.extend(KEY.to_be_bytes());
    request.extend(VERSION.to_be_bytes());
    request.extend(correlation.to_be_bytes());
    put_string(&mut request, CLIENT)?;
    request.push(action as u8);
    let count = if topics.is_empty() { -1 } else { i32::try_from(topics.len())? };
    request.extend(count.to_be_bytes());
    for topic in topics {
        put_string(&mut request, topic)?;
        request.extend(i32::try_from(partitions.len())?.to_be_bytes());
        partitions.iter().for_each(|partition| request.extend(partition.to_be_bytes()));
    }
    let length = u32::try_from(request.len() - 4)?;
    request[..4].copy_from_slice(&length.to_be_bytes());
    Ok(request)
}

fn put_string(request: &mut Vec<u8>, text: &str) -> Result<()> {
    let Ok(length) = i16::try_from(text.len()) else { bail!("the name {text} is too long") };
    request.extend(length.to_be_bytes());
    request.extend(text.as_bytes());
    Ok(())
}

impl Answer {
    fn read(cursor: &mut Cursor<'_>) -> Result<Answer> {
        let mut answer = Answer { node: cursor.i32()?, ..Answer::default() };
        for _ in 0..cursor.i32()? {
            let host = cursor.string()?.unwrap_or_default();
            let port = cursor.i32()?;
            answer.nodes.push(if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") });
        }
        for _ in 0..cursor.i32()? {
            let partition = (cursor.string()?.unwrap_or_default(), cursor.i32()?);
            let error = cursor.i16()?;
            let state = State::take(&mut cursor.0).context("it ends within a field")?;
            match error {
                0 => drop(answer.partitions.insert(partition, state)),
                _ => answer.missing.push(partition),
            }
        }
        Ok(answer)
    }
}

/// What is left of an answer.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let Some((head, rest)) = self.0.split_at_checked(count) else { bail!("it ends within a field") };
        self.0 = rest;
        Ok(head)
    }

    fn i16(&mut self) -> Result<i16> {
        Ok(i16::from_be_bytes(self.take(2)?.try_into()?))
    }

    fn i32(&mut self) -> Result<i32> {
        Ok(i32::from_be_bytes(self.take(4)?.try_into()?))
    }

    fn string(&mut self) -> Result<Option<String>> {
        take_string(&mut self.0).context("it ends within a field")
    }
}
