//! The open connections of a core, and the bounds that they share.

#![deny(clippy::disallowed_types)]

use crate::{net::Socket, signal::Signal};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    net::{Shutdown, SocketAddr},
    rc::Rc,
    time::{Duration, Instant},
};
use tokio::sync::Semaphore;

/// Memory for requests that are being received, in units of [`RESERVATION_BYTES`], per core. Small requests are not
/// counted: they live in their connection's buffer.
pub const RECEIVING_BYTES_MAX: usize = 512 << 20;
/// The unit of the memory for requests, in bytes.
pub const RESERVATION_BYTES: usize = 64 << 10;
/// Memory of tails that answers on their way hold, per core: above it fetches are answered in small portions.
pub const PINNED_BYTES_MAX: usize = 256 << 20;
/// Such a portion, in bytes (but for one whole batch).
pub const PORTION_BYTES: usize = 64 << 10;
/// How long the sender of a large request may fall silent in its middle, in ms: it holds memory that others wait for.
pub const LARGE_REQUEST_SILENCE_MS_MAX: u64 = 30_000;
/// How often connections are looked at, in ms.
const SWEEP_MS: u64 = 1_000;

/// The open connections of a core.
pub struct Connections {
    open: RefCell<BTreeMap<u64, Rc<Connection>>>,
    next: Cell<u64>,
    emptied: RefCell<Option<Signal>>,
    receiving: Semaphore,
    pinned: Cell<usize>,
    /// The time of the last sweep: whoever touches a connection doesn't read the clock.
    swept: Rc<Cell<Instant>>,
}

/// Memory of tails that an answer holds, until this is dropped.
pub struct Pinned {
    connections: Rc<Connections>,
    bytes: usize,
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let pinned = &self.connections.pinned;
        pinned.set(pinned.get() - self.bytes);
    }
}

/// Memory for a large request, given back when this is dropped.
pub struct Reservation {
    connections: Rc<Connections>,
    units: u32,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.connections.receiving.add_permits(self.units as usize);
    }
}

/// What the core knows of one connection.
pub struct Connection {
    number: u64,
    /// Its socket.
    pub socket: Socket,
    /// Where it comes from.
    pub peer: SocketAddr,
    /// Raised when the peer has ended it.
    pub gone: Signal,
    /// The last sweep before it was last active.
    activity: Cell<Instant>,
    swept: Rc<Cell<Instant>>,
    /// A request is being carried out: the client is silent because it waits for us.
    pub busy: Cell<bool>,
    /// It holds memory for a large request.
    pub large: Cell<bool>,
}

impl Connection {
    /// Something was received or sent.
    pub fn touch(&self) {
        self.activity.set(self.swept.get());
    }

    /// How long it has been silent: so long or up to a sweep less.
    fn silence(&self) -> Duration {
        self.swept.get() - self.activity.get()
    }
}

impl Default for Connections {
    fn default() -> Self {
        Connections {
            open: RefCell::default(),
            next: Cell::new(0),
            emptied: RefCell::new(None),
            receiving: Semaphore::new(RECEIVING_BYTES_MAX / RESERVATION_BYTES),
            pinned: Cell::new(0),
            swept: Rc::new(Cell::new(Instant::now())),
        }
    }
}

impl Connections {
    /// Waits for the memory of a request of `bytes`.
    pub async fn reserve(self: &Rc<Self>, bytes: usize) -> Reservation {
        let units = bytes.div_ceil(RESERVATION_BYTES).min(RECEIVING_BYTES_MAX / RESERVATION_BYTES) as u32;
        self.receiving.acquire_many(units).await.expect("it is never closed").forget();
        Reservation { connections: Rc::clone(self), units }
    }

    /// An answer on its way holds so much of tails.
    pub fn pin(self: &Rc<Self>, bytes: usize) -> Pinned {
        self.pinned.set(self.pinned.get() + bytes);
        Pinned { connections: Rc::clone(self), bytes }
    }

    /// How large the answer to a fetch may be now: slow consumers together may not hold memory without bound.
    #[must_use]
    pub fn fetch_bytes_max(&self, configured: usize) -> usize {
        if self.pinned.get() < PINNED_BYTES_MAX { configured } else { configured.min(PORTION_BYTES) }
    }

    /// How many are open.
    #[must_use]
    pub fn count(&self) -> usize {
        self.open.borrow().len()
    }

    /// How many there were.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.next.get()
    }

    /// Memory that is reserved for large requests, in bytes.
    #[must_use]
    pub fn receiving_bytes(&self) -> usize {
        RECEIVING_BYTES_MAX - self.receiving.available_permits() * RESERVATION_BYTES
    }

    /// Memory of tails that answers on their way hold, in bytes.
    #[must_use]
    pub fn pinned_bytes(&self) -> usize {
        self.pinned.get()
    }

    /// A new one.
    pub fn add(&self, socket: Socket, peer: SocketAddr) -> Rc<Connection> {
        let number = self.next.get();
        self.next.set(number + 1);
        let connection = Rc::new(Connection {
            number,
            socket,
            peer,
            gone: Signal::default(),
            activity: Cell::new(self.swept.get()),
            swept: Rc::clone(&self.swept),
            busy: Cell::new(false),
            large: Cell::new(false),
        });
        self.open.borrow_mut().insert(number, Rc::clone(&connection));
        if self.emptied.borrow().is_some() {
            // It was accepted just before the others were closed.
            connection.socket.shutdown(Shutdown::Read);
        }
        connection
    }

    /// One has ended.
    pub fn remove(&self, connection: &Connection) {
        let mut open = self.open.borrow_mut();
        open.remove(&connection.number);
        if open.is_empty()
            && let Some(signal) = &*self.emptied.borrow()
        {
            signal.raise();
        }
    }

    /// Ends those that have been silent for too long. Runs as long as the core.
    pub async fn sweep(&self, idle_ms_max: u64) {
        let mut ticks = tokio::time::interval(Duration::from_millis(SWEEP_MS));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.swept.set(Instant::now());
            for connection in self.open.borrow().values() {
                let bound_ms = if connection.large.get() { LARGE_REQUEST_SILENCE_MS_MAX.min(idle_ms_max) } else { idle_ms_max };
                // Its activity is known to a sweep.
                let is_silent = connection.silence() > Duration::from_millis(bound_ms.saturating_add(SWEEP_MS));
                // A receive of a large request completes with a whole MiB: meanwhile the kernel knows.
                let still_comes = || connection.large.get() && connection.socket.received_ms_ago().is_some_and(|ago| ago <= bound_ms);
                if !connection.busy.get() && is_silent && !still_comes() {
                    tracing::debug!(peer = %connection.peer, "ends: silent for {bound_ms} ms");
                    connection.socket.shutdown(Shutdown::Both);
                }
            }
        }
    }

    /// Takes no more requests, gives answers under way `patience` to go out, and ends what is left.
    pub async fn close(&self, patience: Duration) {
        let emptied = Signal::default();
        if self.count() == 0 {
            return;
        }
        *self.emptied.borrow_mut() = Some(emptied.clone());
        self.open.borrow().values().for_each(|connection| connection.socket.shutdown(Shutdown::Read));
        if tokio::time::timeout(patience, emptied.raised()).await.is_err() {
            self.open.borrow().values().for_each(|connection| connection.socket.shutdown(Shutdown::Both));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::Read,
        net::{TcpListener, TcpStream},
    };

    #[test]
    fn one_that_comes_while_all_are_closed_is_closed_too() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Connections::default();
        let taken = || {
            let peer = TcpStream::connect(address).unwrap();
            let ours = listener.accept().unwrap().0;
            ours.set_nonblocking(true).unwrap();
            (peer, ours.try_clone().unwrap(), connections.add(Socket::new(ours.into()), address))
        };
        let has_ended = |mut ours: &TcpStream| matches!(ours.read(&mut [0]), Ok(0));
        let (_peer, first, of_first) = taken();
        assert!(!has_ended(&first));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let late = async {
                let (_peer, late, of_late) = taken();
                assert!(has_ended(&first) && has_ended(&late));
                connections.remove(&of_first);
                connections.remove(&of_late);
            };
            tokio::join!(connections.close(Duration::from_secs(3_600)), late);
        });
        assert_eq!(connections.count(), 0);
    }
}
