//! A connected socket.

use super::operation::submit;
use crate::api::Part;
use engine::disk::Chunk;
use io_uring_of_tokio::{opcode, types};
use std::{
    io,
    net::Shutdown,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    rc::Rc,
};

/// Runs of memory that one send takes at most.
pub const SEND_RUNS_MAX: usize = 64;
/// Bytes that one send takes at most, so that a slow peer's progress is seen.
pub const SEND_BYTES_MAX: usize = 1 << 20;

/// A connected socket, non-blocking for sendfile. Every operation keeps the descriptor open until it has completed.
#[derive(Clone)]
pub struct Socket {
    fd: Rc<OwnedFd>,
}

impl Socket {
    /// Takes over a connected, non-blocking stream socket.
    #[must_use]
    pub fn new(fd: OwnedFd) -> Socket {
        Socket { fd: Rc::new(fd) }
    }

    /// The descriptor.
    #[must_use]
    pub fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Receives into the room behind the buffer's bytes, at most `most`; with `all` it waits until `most` bytes are there
    /// or the stream ends. 0 is the end of the stream. **Never drop it before it has completed.**
    pub async fn receive(&self, mut buffer: Vec<u8>, most: usize, all: bool) -> (io::Result<usize>, Vec<u8>) {
        let room = buffer.spare_capacity_mut();
        let length = room.len().min(most);
        let flags = if all { libc::MSG_WAITALL } else { 0 };
        let entry = opcode::Recv::new(types::Fd(self.as_raw_fd()), room.as_mut_ptr().cast(), length as u32).flags(flags).build();
        let (result, (mut buffer, _fd)) = submit((buffer, Rc::clone(&self.fd)), entry).await;
        if let Ok(received) = result {
            assert!(received <= length, "the kernel received {received} bytes into {length}");
            // SAFETY: the kernel has written `received` bytes behind the buffer's, within its capacity; the operation owned
            // the buffer meanwhile, so it wasn't moved.
            unsafe { buffer.set_len(buffer.len() + received) };
        }
        (result, buffer)
    }

    /// The same into the room of a chunk, waiting until `most` bytes are there. **Never drop it before it has completed.**
    pub async fn receive_into_chunk(&self, chunk: Rc<Chunk>, most: usize) -> (io::Result<usize>, Rc<Chunk>) {
        let filled = chunk.filled();
        let length = chunk.room().min(most);
        // SAFETY: within the allocation: `filled` is at most its capacity.
        let memory = unsafe { chunk.as_ptr().add(filled) };
        let entry = opcode::Recv::new(types::Fd(self.as_raw_fd()), memory, length as u32).flags(libc::MSG_WAITALL).build();
        let (result, (chunk, _fd)) = submit((chunk, Rc::clone(&self.fd)), entry).await;
        if let Ok(received) = result {
            assert!(received <= length, "the kernel received {received} bytes into {length}");
            // SAFETY: the kernel has written `received` bytes behind those that were filled, and the operation has completed.
            unsafe { chunk.set_filled(filled + received) };
        }
        (result, chunk)
    }

    /// Sends runs of memory, all or an error; `progress` is told of every step. `more` says that bytes follow at once.
    ///
    /// # Errors
    /// The peer is gone, or the socket was shut down.
    pub async fn send(&self, parts: Vec<Part>, more: bool, mut progress: impl FnMut(usize)) -> io::Result<()> {
        let mut sending =
            Sending { parts, runs: Vec::with_capacity(SEND_RUNS_MAX), message: Box::new(Message::new()), fd: Rc::clone(&self.fd) };
        let mut part = 0;
        let mut offset = 0;
        loop {
            while part < sending.parts.len() && offset == sending.parts[part].memory().len() {
                (part, offset) = (part + 1, 0);
            }
            if part == sending.parts.len() {
                return Ok(());
            }
            let last = sending.fill(part, offset);
            let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL | if more || !last { libc::MSG_MORE } else { 0 };
            let entry = opcode::SendMsg::new(types::Fd(self.as_raw_fd()), &sending.message.0).flags(flags as u32).build();
            let (result, back) = submit(sending, entry).await;
            sending = back;
            let mut sent = match result {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(sent) => sent,
                Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) => {
                    self.writable().await?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            progress(sent);
            while sent > 0 {
                let step = sent.min(sending.parts[part].memory().len() - offset);
                (sent, offset) = (sent - step, offset + step);
                if offset == sending.parts[part].memory().len() {
                    (part, offset) = (part + 1, 0);
                }
            }
        }
    }

    /// Waits until the socket takes bytes, or has failed (the next send says how).
    ///
    /// # Errors
    /// The ring's.
    pub async fn writable(&self) -> io::Result<()> {
        self.poll(libc::POLLOUT).await.map(drop)
    }

    /// Waits until the peer has ended its side of the connection, or the socket was shut down.
    ///
    /// # Errors
    /// The ring's.
    pub async fn hangup(&self) -> io::Result<()> {
        self.poll(libc::POLLRDHUP).await.map(drop)
    }

    async fn poll(&self, events: libc::c_short) -> io::Result<usize> {
        let entry = opcode::PollAdd::new(types::Fd(self.as_raw_fd()), events as u32).build();
        submit(Rc::clone(&self.fd), entry).await.0
    }

    /// How long ago, in ms, the last bytes of the peer came: those too that a receive in flight still waits with. `None` if
    /// the kernel does not say.
    #[must_use]
    pub fn received_ms_ago(&self) -> Option<u64> {
        // SAFETY: all zeros is a valid tcp_info, which is nothing but numbers.
        let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
        let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
        let place = (&raw mut info).cast();
        // SAFETY: the kernel writes at most `length` bytes, which `info` has; the descriptor is open as long as `self` lives.
        let result = unsafe { libc::getsockopt(self.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, place, &raw mut length) };
        (result == 0).then_some(u64::from(info.tcpi_last_data_recv))
    }

    /// Ends the connection at once; what is in flight completes.
    pub fn shutdown(&self, how: Shutdown) {
        let how = match how {
            Shutdown::Read => libc::SHUT_RD,
            Shutdown::Write => libc::SHUT_WR,
            Shutdown::Both => libc::SHUT_RDWR,
        };
        // SAFETY: the descriptor is open for as long as `self` lives. It fails only if the peer was faster.
        unsafe { libc::shutdown(self.as_raw_fd(), how) };
    }
}

/// What a sendmsg in flight uses.
struct Sending {
    parts: Vec<Part>,
    runs: Vec<libc::iovec>,
    message: Box<Message>,
    fd: Rc<OwnedFd>,
}

struct Message(libc::msghdr);

impl Message {
    fn new() -> Message {
        // SAFETY: all zeros is a valid msghdr: no name, no runs, no control data.
        Message(unsafe { std::mem::zeroed() })
    }
}

impl Sending {
    /// Names the runs from `offset` of `part` on, as many as one send takes. True if nothing is left behind them.
    fn fill(&mut self, part: usize, offset: usize) -> bool {
        self.runs.clear();
        let mut room = SEND_BYTES_MAX;
        let mut skip = offset;
        let mut named = part;
        for part in &self.parts[part..] {
            if self.runs.len() == SEND_RUNS_MAX || room == 0 {
                break;
            }
            let memory = &part.memory()[skip..];
            let length = memory.len().min(room);
            room -= length;
            skip = 0;
            if length > 0 {
                self.runs.push(libc::iovec { iov_base: memory.as_ptr().cast_mut().cast(), iov_len: length });
            }
            if length < memory.len() {
                break;
            }
            named += 1;
        }
        self.message.0.msg_iov = self.runs.as_mut_ptr();
        self.message.0.msg_iovlen = self.runs.len() as _;
        let _ = &self.fd;
        named == self.parts.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::Write,
        net::{TcpListener, TcpStream},
        time::{Duration, Instant},
    };

    #[test]
    fn the_last_bytes_of_a_peer_are_known_before_anybody_has_received_them() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let socket = Socket::new(listener.accept().unwrap().0.into());
        // The kernel counts in ticks of up to 10 ms.
        let tick = Duration::from_millis(10);
        std::thread::sleep(10 * tick);
        assert!(Duration::from_millis(socket.received_ms_ago().unwrap()) >= 8 * tick, "nothing has come");
        let sent = Instant::now();
        peer.write_all(b"x").unwrap();
        // On loopback it is there when the send returns.
        let ago = Duration::from_millis(socket.received_ms_ago().unwrap());
        assert!(ago <= sent.elapsed() + 2 * tick, "{ago:?}");
    }
}
