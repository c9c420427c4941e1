//! The network of a core, over its ring: accept, receive, send, sendfile, shutdown. The only place that knows `tokio-uring`.
//!
//! The runtime submits what was queued only when it parks, so a task must never yield in a loop: whoever has more to do
//! waits for an operation of the ring. And an operation in flight is never dropped: a receive that is dropped still takes
//! the peer's bytes. Whoever wants to end one shuts the socket down, which completes it.

#![deny(clippy::disallowed_types)]

mod listener;
mod operation;
mod send_file;
mod socket;

pub use listener::Listener;
pub use send_file::send_file;
pub use socket::Socket;

use std::{future::Future, io};

/// Entries of a core's network ring.
const RING_ENTRIES: u32 = 1024;

/// Runs `work` on this thread's runtime until it ends, and what it spawned with it.
///
/// # Errors
/// The ring could not be made: io_uring is disabled or too old.
pub fn run<F: Future>(work: F) -> io::Result<F::Output> {
    Ok(runtime()?.block_on(work))
}

/// The same for a core's thread, at whose end the process ends: operations that only a peer can complete may be in
/// flight, and a runtime that is dropped would wait for them.
///
/// # Errors
/// As [`run`].
pub fn run_for_good<F: Future>(work: F) -> io::Result<F::Output> {
    let runtime = runtime()?;
    let output = runtime.block_on(work);
    std::mem::forget(runtime);
    Ok(output)
}

fn runtime() -> io::Result<tokio_uring::Runtime> {
    let mut ring = tokio_uring::uring_builder();
    // Without these flags a ring is 1.9 times slower; DEFER_TASKRUN hangs here, since the runtime waits on epoll.
    ring.setup_single_issuer().setup_coop_taskrun().setup_taskrun_flag();
    let mut builder = tokio_uring::builder();
    builder.entries(RING_ENTRIES).uring_builder(&ring);
    tokio_uring::Runtime::new(&builder)
}
