//! A connection that never blocks: what is sent waits in order, what is received is handed out response by response.

use anyhow::{Context, Result, ensure};
use std::{
    cell::Cell,
    collections::VecDeque,
    io::{ErrorKind, IoSlice, Read, Write},
    net::TcpStream,
    os::fd::{AsFd, BorrowedFd},
    rc::Rc,
};

/// Responses above this many bytes are refused.
const RESPONSE_BYTES_MAX: usize = 256 << 20;

/// A request on its way: its first part, and the shared bytes behind it.
type Outgoing = (Vec<u8>, Option<Rc<[u8]>>);

/// A connection with its requests and responses under way.
pub struct Connection {
    stream: TcpStream,
    outgoing: VecDeque<Outgoing>,
    sent_of_first: usize,
    incoming: Vec<u8>,
    begin: usize,
    end: usize,
    spare: Vec<Vec<u8>>,
    /// poll said that there is something to receive.
    readable: Cell<bool>,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// The network's.
    pub fn open(address: &str) -> Result<Connection> {
        let stream = TcpStream::connect(address).with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Connection {
            stream,
            outgoing: VecDeque::new(),
            sent_of_first: 0,
            incoming: vec![0; 1 << 20],
            begin: 0,
            end: 0,
            spare: Vec::new(),
            readable: Cell::new(false),
        })
    }

    /// A buffer for a request's first part; those that were sent come back here.
    pub fn buffer(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    /// Queues a request: its first part, and the shared bytes behind it.
    pub fn queue(&mut self, first: Vec<u8>, shared: Option<Rc<[u8]>>) {
        self.outgoing.push_back((first, shared));
    }

    /// True if something waits to be sent.
    #[must_use]
    pub fn wants_to_send(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Sends what the socket takes.
    ///
    /// # Errors
    /// The network's.
    pub fn send(&mut self) -> Result<()> {
        while !self.outgoing.is_empty() {
            let mut skip = self.sent_of_first;
            let mut slices = Vec::with_capacity(64);
            for (first, shared) in self.outgoing.iter().take(32) {
                for part in [Some(&first[..]), shared.as_deref()].into_iter().flatten() {
                    let skipped = skip.min(part.len());
                    skip -= skipped;
                    if skipped < part.len() {
                        slices.push(IoSlice::new(&part[skipped..]));
                    }
                }
            }
            match self.stream.write_vectored(&slices) {
                Ok(sent) => self.sent(sent),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn sent(&mut self, sent: usize) {
        self.sent_of_first += sent;
        while let Some((first, shared)) = self.outgoing.front() {
            let whole = first.len() + shared.as_ref().map_or(0, |shared| shared.len());
            if self.sent_of_first < whole {
                break;
            }
            self.sent_of_first -= whole;
            if let Some((first, _)) = self.outgoing.pop_front() {
                self.spare.push(first);
            }
        }
    }

    /// Receives what is there (if [`wait`] found something) and hands out each whole response: its correlation id and body.
    ///
    /// # Errors
    /// The network's, a closed connection, or what `each` says.
    pub fn receive(&mut self, each: impl FnMut(i32, &[u8]) -> Result<()>) -> Result<()> {
        self.receive_some(usize::MAX, each)
    }

    /// As [`Connection::receive`], but about `bytes_max` at most; [`wait`] finds what is left again.
    ///
    /// # Errors
    /// As [`Connection::receive`].
    pub fn receive_some(&mut self, mut bytes_max: usize, mut each: impl FnMut(i32, &[u8]) -> Result<()>) -> Result<()> {
        if !self.readable.take() {
            return Ok(());
        }
        while bytes_max > 0 {
            if self.end == self.incoming.len() {
                let waiting = self.end - self.begin;
                if self.begin > 0 {
                    self.incoming.copy_within(self.begin..self.end, 0);
                    (self.begin, self.end) = (0, waiting);
                }
                if waiting == self.incoming.len() {
                    self.incoming.resize(self.incoming.len() * 2, 0);
                }
            }
            let room = (self.incoming.len() - self.end).min(bytes_max);
            match self.stream.read(&mut self.incoming[self.end..self.end + room]) {
                Ok(0) => anyhow::bail!("the broker closed the connection"),
                Ok(received) => {
                    self.end += received;
                    bytes_max -= received;
                    self.hand_out(&mut each)?;
                    if received < room {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn hand_out(&mut self, each: &mut impl FnMut(i32, &[u8]) -> Result<()>) -> Result<()> {
        loop {
            let bytes = &self.incoming[self.begin..self.end];
            if bytes.len() < 8 {
                break;
            }
            let length = usize::try_from(i32::from_be_bytes(bytes[..4].try_into()?)).unwrap_or(usize::MAX);
            ensure!((4..=RESPONSE_BYTES_MAX).contains(&length), "a response of {length} bytes");
            if bytes.len() < 4 + length {
                if self.incoming.len() < 4 + length {
                    self.incoming.resize((4 + length).next_power_of_two(), 0);
                }
                break;
            }
            each(i32::from_be_bytes(bytes[4..8].try_into()?), &bytes[8..4 + length])?;
            self.begin += 4 + length;
        }
        if self.begin == self.end {
            (self.begin, self.end) = (0, 0);
        }
        Ok(())
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Waits until one of the connections can go on, or until the timeout (in microseconds) is over.
///
/// # Errors
/// poll's.
pub fn wait<'a>(connections: impl Iterator<Item = &'a Connection> + Clone, timeout_us: i64) -> Result<()> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut waiting: Vec<PollFd<'_>> = connections
        .clone()
        .map(|connection| {
            let flags = if connection.wants_to_send() { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
            PollFd::new(connection, flags)
        })
        .collect();
    let timeout = Timespec { tv_sec: timeout_us / 1_000_000, tv_nsec: timeout_us % 1_000_000 * 1_000 };
    match poll(&mut waiting, Some(&timeout)) {
        Ok(_) => {}
        Err(rustix::io::Errno::INTR) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    for (connection, found) in connections.zip(&waiting) {
        // An error or a hang-up is found by reading, too.
        if found.revents().intersects(!PollFlags::OUT) {
            connection.readable.set(true);
        }
    }
    Ok(())
}
