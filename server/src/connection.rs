//! One connection: requests in, answers out, in the order of the requests.
//!
//! Two tasks. The *receiver* takes one request after the other and carries it out, as Kafka does; only a produce lets the
//! next one begin while it waits for durability. The *sender* takes the answers in order, waits for those that are not
//! there yet, and sends them. What the receiver doesn't read, TCP holds back at the client: that is the backpressure.

#![deny(clippy::disallowed_types)]

use crate::{
    api::{self, Part, Refused, Reply},
    connections::{Connection, Connections, Pinned, Reservation},
    core::Core,
    metrics::Measured,
    net::{Socket, send_file},
    signal::Signal,
};
use bytes::Bytes;
use std::{
    cell::Cell,
    io,
    net::{Shutdown, SocketAddr},
    rc::Rc,
};
use tokio::sync::{Notify, mpsc};

/// Requests of a connection that wait for their answers to be sent. Behind them its socket isn't read.
pub const PIPELINED_MAX: usize = 256;
/// Bytes of answers that wait to be sent on a connection before its next request is carried out (but for one whole answer).
pub const UNSENT_BYTES_MAX: usize = 1 << 20;
/// The buffer of a connection, in bytes: a larger request gets memory of its own.
const BUFFER_BYTES: usize = 16 << 10;
/// Bytes of one receive, so that a slow sender's progress is seen.
const RECEIVE_BYTES_MAX: usize = 1 << 20;
/// The shortest request: key, version, correlation id.
const REQUEST_BYTES_MIN: usize = 8;

/// Why a connection ends, other than by the client.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("a request of {0} bytes is not between {REQUEST_BYTES_MIN} and socket.request.max.bytes")]
    Length(i32),
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("the sender has ended")]
    SenderEnded,
}

/// Answers on their way to the sender.
struct Outbox {
    queue: mpsc::Sender<(Reply, Measured, Pinned)>,
    unsent: Rc<Unsent>,
    connections: Rc<Connections>,
}

#[derive(Default)]
struct Unsent {
    bytes: Cell<usize>,
    sent: Notify,
}

/// Serves a connection until it ends.
pub async fn serve(core: Rc<Core>, socket: Socket, peer: SocketAddr) {
    let connections = Rc::clone(&core.connections);
    let served = Rc::clone(&core);
    let connection = connections.add(socket, peer);
    let (queue, replies) = mpsc::channel(PIPELINED_MAX);
    let unsent = Rc::new(Unsent::default());
    let sender = tokio::task::spawn_local(send_all(Rc::clone(&core), Rc::clone(&connection), replies, Rc::clone(&unsent)));
    let watcher = tokio::task::spawn_local(watch(connection.socket.clone(), connection.gone.clone()));
    // A task of its own, so that a panic in a handler ends this connection and nothing else.
    let receiver =
        tokio::task::spawn_local(receive_all(core, Rc::clone(&connection), Outbox { queue, unsent, connections: Rc::clone(&connections) }));
    match receiver.await {
        Ok(Err(End::Io(error))) => tracing::debug!(%peer, %error, "receive"),
        Ok(Err(End::Refused(Refused::Stopping) | End::SenderEnded) | Ok(())) => {}
        Ok(Err(error)) => {
            served.counters.refused_request();
            tracing::info!(%peer, "closed: {error}");
        }
        Err(panic) => {
            tracing::error!(%peer, %panic, "a request handler panicked");
            connection.socket.shutdown(Shutdown::Both);
        }
    }
    // What was answered before still goes out.
    if sender.await.is_err() {
        tracing::error!(%peer, "the sender panicked");
    }
    connection.socket.shutdown(Shutdown::Both);
    let _ = watcher.await;
    connections.remove(&connection);
}

async fn watch(socket: Socket, gone: Signal) {
    let _ = socket.hangup().await;
    gone.raise();
}

async fn receive_all(core: Rc<Core>, connection: Rc<Connection>, outbox: Outbox) -> Result<(), End> {
    let mut receiver = Receiver {
        connection: Rc::clone(&connection),
        connections: Rc::clone(&core.connections),
        buffer: Vec::with_capacity(BUFFER_BYTES),
        start: 0,
        request_bytes_max: core.settings.request_bytes_max,
        reserved: None,
    };
    while let Some(request) = receiver.next().await? {
        outbox.room().await?;
        connection.busy.set(true);
        let measured = core.counters.came(&request, connection.active_at());
        let reply = api::handle(&core, request, connection.peer, &connection.gone).await;
        connection.busy.set(false);
        connection.touch();
        outbox.put(reply?, measured).await?;
    }
    Ok(())
}

impl Outbox {
    /// Waits until few enough bytes are on their way.
    async fn room(&self) -> Result<(), End> {
        while self.unsent.bytes.get() > UNSENT_BYTES_MAX {
            if self.queue.is_closed() {
                return Err(End::SenderEnded);
            }
            self.unsent.sent.notified().await;
        }
        Ok(())
    }

    async fn put(&self, reply: Reply, measured: Measured) -> Result<(), End> {
        self.unsent.bytes.set(self.unsent.bytes.get() + reply.len());
        let pinned = self.connections.pin(reply.memory());
        self.queue.send((reply, measured, pinned)).await.map_err(|_| End::SenderEnded)
    }
}

struct Receiver {
    connection: Rc<Connection>,
    connections: Rc<Connections>,
    buffer: Vec<u8>,
    start: usize,
    request_bytes_max: usize,
    reserved: Option<Reservation>,
}

impl Receiver {
    /// The next request, without its length; `None` at the end of the stream.
    async fn next(&mut self) -> Result<Option<Bytes>, End> {
        self.reserved = None;
        loop {
            let have = &self.buffer[self.start..];
            if let Some((length, rest)) = have.split_first_chunk::<4>() {
                let length = i32::from_be_bytes(*length);
                let bytes = usize::try_from(length).map_err(|_| End::Length(length))?;
                if !(REQUEST_BYTES_MIN..=self.request_bytes_max).contains(&bytes) {
                    return Err(End::Length(length));
                }
                if rest.len() >= bytes {
                    let request = Bytes::copy_from_slice(&rest[..bytes]);
                    self.start += 4 + bytes;
                    return Ok(Some(request));
                }
                if 4 + bytes > BUFFER_BYTES {
                    return self.large(bytes).await;
                }
            }
            self.buffer.drain(..self.start);
            self.start = 0;
            let room = BUFFER_BYTES - self.buffer.len();
            if self.receive_into_buffer(room).await? == 0 {
                return Ok(None);
            }
        }
    }

    async fn receive_into_buffer(&mut self, room: usize) -> io::Result<usize> {
        let buffer = std::mem::take(&mut self.buffer);
        let (result, buffer) = self.connection.socket.receive(buffer, room, false).await;
        self.buffer = buffer;
        self.connection.touch();
        result
    }

    /// A request that gets memory of its own: what has come of it is copied, the rest received in its place.
    async fn large(&mut self, bytes: usize) -> Result<Option<Bytes>, End> {
        self.connection.busy.set(true);
        self.reserved = Some(self.connections.reserve(bytes).await);
        self.connection.busy.set(false);
        self.connection.large.set(true);
        self.connection.touch();
        let mut request = Vec::with_capacity(bytes);
        request.extend_from_slice(&self.buffer[self.start + 4..]);
        self.buffer.clear();
        self.start = 0;
        while request.len() < bytes {
            let most = (bytes - request.len()).min(RECEIVE_BYTES_MAX);
            let (result, back) = self.connection.socket.receive(request, most, true).await;
            request = back;
            self.connection.touch();
            if result? == 0 {
                return Ok(None);
            }
        }
        self.connection.large.set(false);
        Ok(Some(Bytes::from(request)))
    }
}

/// Sends the answers in order. Ends with the first that can't be sent, and then ends the connection.
async fn send_all(core: Rc<Core>, connection: Rc<Connection>, mut replies: mpsc::Receiver<(Reply, Measured, Pinned)>, unsent: Rc<Unsent>) {
    while let Some((reply, measured, _pinned)) = replies.recv().await {
        let counted = reply.len();
        match send_one(&core, &connection, reply).await {
            Ok(bytes) => core.counters.answered(&measured, bytes, connection.active_at()),
            Err(error) => {
                match error {
                    End::Refused(error) => tracing::info!(peer = %connection.peer, "closed: {error}"),
                    error => tracing::debug!(peer = %connection.peer, "send: {error}"),
                }
                connection.socket.shutdown(Shutdown::Both);
                break;
            }
        }
        unsent.bytes.set(unsent.bytes.get() - counted);
        unsent.sent.notify_one();
    }
    replies.close();
    unsent.sent.notify_one();
}

/// Sends an answer, and returns how many bytes it had.
async fn send_one(core: &Core, connection: &Connection, mut reply: Reply) -> Result<usize, End> {
    let parts = loop {
        match reply {
            Reply::Silent => return Ok(0),
            Reply::Whole(bytes) => break vec![Part::Bytes(bytes)],
            Reply::Parts(parts) => break parts,
            Reply::Later(later) => reply = later.await?,
        }
    };
    let bytes = parts.iter().map(Part::len).sum();
    let mut memory = Vec::new();
    for part in parts {
        let Part::File { reader, position, len } = part else {
            memory.push(part);
            continue;
        };
        connection.socket.send(std::mem::take(&mut memory), true, |_| connection.touch()).await?;
        send_file(&connection.socket, &core.disk, &reader, position, len, |_| connection.touch()).await?;
        core.counters.sent_from_file(len);
    }
    connection.socket.send(memory, false, |_| connection.touch()).await?;
    Ok(bytes)
}
