//! One connection: requests in, answers out, in the order of the requests.
//!
//! Two tasks. The *receiver* takes one request after the other and carries it out, as Kafka does; only a produce lets the
//! next one begin while it waits for durability. The *sender* takes the answers in order, waits for those that are not
//! there yet, and sends them ([`crate::outbox`]). What the receiver doesn't read, TCP holds back at the client: that is
//! the backpressure.

#![deny(clippy::disallowed_types)]

use crate::{
    api::{self, Part, Refused, Request},
    connections::{Connection, Reservation},
    core::Core,
    large_produce::{self, LargeProduce},
    net::{Socket, send_file},
    outbox::{Outbox, Outgoing, SenderEnded, outbox},
    signal::Signal,
    stranger::{self, Stranger},
};
use bytes::Bytes;
use engine::disk::Chunk;
use std::{
    io,
    net::{Shutdown, SocketAddr},
    ops::Range,
    rc::Rc,
    time::Instant,
};

/// The buffer of a connection, in bytes: a larger request gets memory of its own.
const BUFFER_BYTES: usize = 16 << 10;
/// Bytes of one receive of a large request: it completes when all of them are there. Whether a slow sender still sends
/// meanwhile, the kernel is asked ([`crate::connections::Connections::sweep`]).
const RECEIVE_BYTES_MAX: usize = 1 << 20;
/// What [`Chunk::for_receiving`] takes beyond a batch, in bytes: a block in front, and the rest of a unit of its memory.
const CHUNK_EXTRA_BYTES_MAX: usize = (4 << 10) + (256 << 10);
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
    Stranger(#[from] Stranger),
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error(transparent)]
    SenderEnded(#[from] SenderEnded),
}

/// Serves a connection until it ends.
pub async fn serve(core: Rc<Core>, socket: Socket, peer: SocketAddr) {
    let connections = Rc::clone(&core.connections);
    let served = Rc::clone(&core);
    let connection = connections.add(socket, peer);
    let (outbox, outgoing) = outbox(&connections);
    let sender = tokio::task::spawn_local(send_all(Rc::clone(&core), Rc::clone(&connection), outgoing));
    let watcher = tokio::task::spawn_local(watch(connection.socket.clone(), connection.gone.clone()));
    // A task of its own, so that a panic in a handler ends this connection and nothing else.
    let receiver = tokio::task::spawn_local(receive_all(core, Rc::clone(&connection), outbox));
    match receiver.await {
        Ok(Err(End::Io(error))) => tracing::debug!(%peer, %error, "receive"),
        Ok(Err(End::Refused(Refused::Stopping) | End::SenderEnded(_)) | Ok(())) => {}
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
        core: Rc::clone(&core),
        buffer: Vec::with_capacity(BUFFER_BYTES),
        start: 0,
        reserved: None,
        came: Instant::now(),
        last_topic: Rc::from(""),
    };
    while let Some(came) = receiver.next().await? {
        outbox.room().await?;
        let (request, measured) = match came {
            Came::Large(request, bytes) => {
                let measured = core.counters.came(&request.bytes, bytes, receiver.came);
                (request, measured)
            }
            Came::Buffered(place) => {
                let bytes = &receiver.buffer[place];
                let measured = core.counters.came(bytes, bytes.len(), receiver.came);
                if let Some(reply) = api::append_one(&core, bytes, connection.peer, &mut receiver.last_topic) {
                    outbox.put(reply, measured);
                    continue;
                }
                (Request { bytes: Bytes::copy_from_slice(bytes), batch: None }, measured)
            }
        };
        connection.busy.set(true);
        let reply = api::handle(&core, request, connection.peer, &connection.gone).await;
        connection.busy.set(false);
        connection.touch();
        outbox.put(reply?, measured);
    }
    Ok(())
}

/// A request that has come.
enum Came {
    /// It is in the connection's buffer, here, without its length.
    Buffered(Range<usize>),
    /// It has memory of its own; its length with its batch, which may be received apart.
    Large(Request, usize),
}

struct Receiver {
    connection: Rc<Connection>,
    core: Rc<Core>,
    buffer: Vec<u8>,
    start: usize,
    reserved: Option<Reservation>,
    /// When its last bytes came.
    came: Instant,
    /// The topic of the last small produce.
    last_topic: Rc<str>,
}

impl Receiver {
    /// The next request; `None` at the end of the stream.
    async fn next(&mut self) -> Result<Option<Came>, End> {
        self.reserved = None;
        loop {
            let have = &self.buffer[self.start..];
            if let Some((length, rest)) = have.split_first_chunk::<4>() {
                let length = i32::from_be_bytes(*length);
                // One below zero is too large as well.
                let bytes = length as u32 as usize;
                if !(REQUEST_BYTES_MIN..=self.core.settings.request_bytes_max).contains(&bytes) {
                    return Err(stranger::of(length.to_be_bytes()).map_or(End::Length(length), End::Stranger));
                }
                if rest.len() >= bytes {
                    let start = self.start + 4;
                    self.start = start + bytes;
                    return Ok(Some(Came::Buffered(start..self.start)));
                }
                if 4 + bytes > BUFFER_BYTES {
                    return Ok(self.large(bytes).await?.map(|request| Came::Large(request, bytes)));
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
        self.came = Instant::now();
        result
    }

    /// A request that gets memory of its own: what has come of it is copied, the rest received in its place.
    async fn large(&mut self, bytes: usize) -> Result<Option<Request>, End> {
        let come = self.buffer.split_off(self.start + 4);
        self.buffer.clear();
        self.start = 0;
        let found = large_produce::find(&come, bytes);
        // A batch that is received apart has a chunk of its own, and that is rounded up.
        let memory = bytes + if found.is_some() { CHUNK_EXTRA_BYTES_MAX } else { 0 };
        self.connection.busy.set(true);
        self.reserved = Some(self.core.connections.reserve(memory).await);
        self.connection.busy.set(false);
        self.connection.large.set(true);
        self.connection.touch();
        let request = match found {
            Some(found) => self.large_produce(&come, found).await?,
            None => {
                let mut request = Vec::with_capacity(bytes);
                request.extend_from_slice(&come);
                let request = self.receive_to(request, bytes).await?;
                request.map(|request| Request { bytes: Bytes::from(request), batch: None })
            }
        };
        self.connection.large.set(false);
        self.came = Instant::now();
        Ok(request)
    }

    /// Receives a batch into memory that its partition's tail adopts, if its end is still where it is now: then nobody
    /// copies it.
    async fn large_produce(&mut self, come: &[u8], found: LargeProduce<'_>) -> io::Result<Option<Request>> {
        let here = self.core.locate(found.topic, found.partition).here().ok();
        let phase = here.and_then(|id| self.core.log.append_phase(id)).unwrap_or(0);
        let mut chunk = Chunk::for_receiving(found.batch_bytes, phase);
        debug_assert!(chunk.capacity() <= found.batch_bytes + CHUNK_EXTRA_BYTES_MAX, "more than was reserved");
        let start = chunk.filled();
        let end = start + found.batch_bytes;
        let (of_batch, behind) = come[found.batch_at..].split_at((come.len() - found.batch_at).min(found.batch_bytes));
        chunk.append(of_batch);
        while chunk.filled() < end {
            let most = (end - chunk.filled()).min(RECEIVE_BYTES_MAX);
            let (result, back) = self.connection.socket.receive_into_chunk(chunk, most).await;
            chunk = back;
            self.connection.touch();
            if result? == 0 {
                return Ok(None);
            }
        }
        let mut request = found.head;
        request.extend_from_slice(behind);
        let bytes = request.len() - behind.len() + found.rest_bytes;
        let request = self.receive_to(request, bytes).await?;
        Ok(request.map(|request| Request { bytes: Bytes::from(request), batch: Some(chunk.slice(start, end)) }))
    }

    /// Receives behind what a buffer holds until it has `bytes`; `None` if the stream ends before.
    async fn receive_to(&mut self, mut buffer: Vec<u8>, bytes: usize) -> io::Result<Option<Vec<u8>>> {
        buffer.reserve_exact(bytes - buffer.len());
        while buffer.len() < bytes {
            let most = (bytes - buffer.len()).min(RECEIVE_BYTES_MAX);
            let (result, back) = self.connection.socket.receive(buffer, most, true).await;
            buffer = back;
            self.connection.touch();
            if result? == 0 {
                return Ok(None);
            }
        }
        Ok(Some(buffer))
    }
}

/// Sends the answers in order. Ends with the first that can't be sent, and then ends the connection.
async fn send_all(core: Rc<Core>, connection: Rc<Connection>, mut outgoing: Outgoing) {
    match send_batches(&core, &connection, &mut outgoing).await {
        Ok(()) => return,
        Err(End::Refused(error)) => tracing::info!(peer = %connection.peer, "closed: {error}"),
        Err(error) => tracing::debug!(peer = %connection.peer, "send: {error}"),
    }
    connection.socket.shutdown(Shutdown::Both);
}

async fn send_batches(core: &Core, connection: &Connection, outgoing: &mut Outgoing) -> Result<(), End> {
    while let Some(mut batch) = outgoing.next().await? {
        let mut memory = Vec::new();
        for part in batch.take_parts() {
            let Part::File { reader, position, len } = part else {
                memory.push(part);
                continue;
            };
            connection.socket.send(std::mem::take(&mut memory), true, |_| connection.touch()).await?;
            send_file(&connection.socket, &core.disk, &core.cold_reads, &reader, position, len, |_| connection.touch()).await?;
            core.counters.sent_from_file(len);
        }
        connection.socket.send(memory, false, |_| connection.touch()).await?;
        let sent = Instant::now();
        batch.answers().for_each(|(measured, bytes)| core.counters.answered(measured, bytes, sent));
    }
    Ok(())
}
