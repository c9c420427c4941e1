//! The ring itself: operations queue here, one enter per turn of the scheduler submits them all and reaps what has
//! finished, and a slab keeps everything that the kernel may touch alive until it has.

use super::super::{Chunk, Slice};
use io_uring::{IoUring, Probe, squeue};
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    ffi::CString,
    fs::File,
    future::Future,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};
use tokio::io::{Interest, unix::AsyncFd};

/// Entries of the submission queue. What doesn't fit waits in a backlog.
pub(super) const RING_ENTRIES: u32 = 1024;

/// `IORING_ENTER_GETEVENTS`: run the deferred completions.
const ENTER_GETEVENTS: u32 = 1;

/// What the kernel may touch until an operation has completed, whoever still waits for it.
#[derive(Default)]
#[expect(dead_code, reason = "most of it is only kept")]
pub(super) struct Keep {
    pub file: Option<Rc<File>>,
    pub paths: Vec<CString>,
    pub slices: Vec<Slice>,
    pub vectors: Vec<libc::iovec>,
    pub chunk: Option<Rc<Chunk>>,
    pub bytes: Vec<u8>,
    /// The result is a new descriptor: closed if nobody waits for it any more.
    pub opens: bool,
}

enum State {
    Waiting(Option<Waker>),
    Done(i32),
    /// The future was dropped: the slot is freed on completion.
    Orphan,
}

struct Operation {
    state: State,
    keep: Keep,
}

/// Operations in flight, by the number that the kernel hands back.
#[derive(Default)]
struct Slab {
    slots: Vec<Option<Operation>>,
    free: Vec<usize>,
    in_flight: usize,
}

impl Slab {
    fn insert(&mut self, keep: Keep) -> usize {
        self.in_flight += 1;
        let operation = Some(Operation { state: State::Waiting(None), keep });
        if let Some(key) = self.free.pop() {
            debug_assert!(self.slots[key].is_none());
            self.slots[key] = operation;
            return key;
        }
        self.slots.push(operation);
        self.slots.len() - 1
    }

    fn remove(&mut self, key: usize) -> Operation {
        let operation = self.slots[key].take().expect("an operation is removed once");
        self.free.push(key);
        operation
    }

    /// Takes the kernel's word for an operation; what is to be dropped or woken is handed out, so that it happens
    /// outside of the borrow.
    fn complete(&mut self, key: usize, result: i32) -> (Option<Waker>, Option<Operation>) {
        self.in_flight -= 1;
        let operation = self.slots[key].as_mut().expect("the kernel completes what is in flight");
        match std::mem::replace(&mut operation.state, State::Done(result)) {
            State::Waiting(waker) => (waker, None),
            State::Orphan => (None, Some(self.remove(key))),
            State::Done(_) => unreachable!("an operation completes once"),
        }
    }
}

fn bury(operation: Operation) {
    if let (true, State::Done(fd @ 0..)) = (operation.keep.opens, &operation.state) {
        // SAFETY: the kernel has just made this descriptor and nobody else knows it.
        drop(unsafe { OwnedFd::from_raw_fd(*fd) });
    }
}

/// One thread's storage ring.
pub(super) struct Ring {
    ring: RefCell<IoUring>,
    slab: RefCell<Slab>,
    /// Entries that are not in the submission queue yet.
    backlog: RefCell<VecDeque<squeue::Entry>>,
    event: OwnedFd,
    driver: Cell<Option<Waker>>,
    pub(super) buffered: bool,
    pub(super) has_ftruncate: bool,
}

impl Ring {
    pub(super) fn new(lock: RawFd, buffered: bool) -> io::Result<Ring> {
        let ring: IoUring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_cqsize(4 * RING_ENTRIES)
            .build(RING_ENTRIES)?;
        let event = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK)?;
        ring.submitter().register_eventfd(event.as_raw_fd())?;
        // The registered descriptor holds the lock until the ring is gone, and with it the last I/O of a killed process.
        ring.submitter().register_files(&[lock])?;
        let mut probe = Probe::new();
        let has_ftruncate = ring.submitter().register_probe(&mut probe).is_ok() && probe.is_supported(io_uring::opcode::Ftruncate::CODE);
        Ok(Ring {
            ring: RefCell::new(ring),
            slab: RefCell::default(),
            backlog: RefCell::default(),
            event,
            driver: Cell::new(None),
            buffered,
            has_ftruncate,
        })
    }

    /// Operations that the kernel has not completed yet.
    pub(super) fn in_flight(&self) -> usize {
        self.slab.borrow().in_flight
    }

    /// Queues an operation; the driver submits it in its next turn, together with all others of this turn.
    pub(super) fn start(self: &Rc<Self>, entry: squeue::Entry, keep: Keep) -> Pending {
        let key = self.slab.borrow_mut().insert(keep);
        self.backlog.borrow_mut().push_back(entry.user_data(key as u64));
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
        Pending { ring: Rc::clone(self), key: Some(key) }
    }

    /// Submits and completes, for as long as it is polled.
    pub(super) async fn run(&self) {
        // SAFETY: the eventfd lives as long as the ring, which this future borrows.
        let event =
            unsafe { AsyncFd::register_with_interest(self.event.as_raw_fd(), Interest::READABLE) }.expect("the runtime has an I/O driver");
        std::future::poll_fn(|context| {
            loop {
                self.turn();
                self.driver.set(Some(context.waker().clone()));
                match event.poll_read_ready(context) {
                    // Its counter is never read: it is watched by edges, and each signal is one. It is 64 bits wide.
                    Poll::Ready(guard) => guard.expect("an eventfd is always readable").clear_ready(),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await
    }

    /// One turn: everything queued goes in, everything finished comes out.
    fn turn(&self) {
        loop {
            self.enter(0);
            let reaped = self.reap();
            let idle = self.backlog.borrow().is_empty();
            // One enter runs at most 20 deferred completions: only one that finds nothing proves that there is nothing.
            if idle && (reaped == 0 || self.in_flight() == 0) {
                return;
            }
        }
    }

    fn enter(&self, wait: u32) {
        let mut ring = self.ring.borrow_mut();
        let mut backlog = self.backlog.borrow_mut();
        let mut queue = ring.submission();
        while let Some(entry) = backlog.front() {
            // SAFETY: all that the entry points at is in the slab until the kernel has completed it.
            if unsafe { queue.push(entry) }.is_err() {
                break;
            }
            backlog.pop_front();
        }
        let waiting = queue.len() as u32;
        drop(queue);
        if waiting == 0 && self.in_flight() == 0 {
            return;
        }
        // SAFETY: no argument is passed, and the count is that of the queue.
        match unsafe { ring.submitter().enter::<libc::sigset_t>(waiting, wait, ENTER_GETEVENTS, None) } {
            Ok(_) => {}
            // What was not taken stays queued: EBUSY and EAGAIN mean that completions must be reaped or memory freed first.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EBUSY | libc::EAGAIN)) => {}
            Err(error) => panic!("io_uring_enter of the storage ring, on the thread that made it: {error}"),
        }
    }

    fn reap(&self) -> usize {
        let mut reaped = 0;
        loop {
            let next = self.ring.borrow_mut().completion().next();
            let Some(completion) = next else { return reaped };
            reaped += 1;
            let (waker, orphan) = self.slab.borrow_mut().complete(completion.user_data() as usize, completion.result());
            if let Some(orphan) = orphan {
                bury(orphan);
            }
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

impl Drop for Ring {
    /// The kernel may still write into buffers that would be freed with the slab: wait for it.
    fn drop(&mut self) {
        let unsent = std::mem::take(&mut *self.backlog.borrow_mut());
        for entry in unsent {
            drop(self.slab.borrow_mut().complete(entry.get_user_data() as usize, -libc::ECANCELED));
        }
        while self.in_flight() > 0 {
            self.enter(1);
            self.reap();
        }
    }
}

/// An operation in flight. Dropping it does not stop the operation.
pub(super) struct Pending {
    ring: Rc<Ring>,
    key: Option<usize>,
}

impl Future for Pending {
    type Output = (io::Result<u32>, Keep);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let key = self.key.expect("polled after it was ready");
        let mut slab = self.ring.slab.borrow_mut();
        let operation = slab.slots[key].as_mut().expect("in flight");
        if let State::Waiting(waker) = &mut operation.state {
            if !waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                *waker = Some(context.waker().clone());
            }
            return Poll::Pending;
        }
        let operation = slab.remove(key);
        drop(slab);
        self.key = None;
        let State::Done(result) = operation.state else { unreachable!("only a dropped future leaves an orphan") };
        let result = u32::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result));
        Poll::Ready((result, operation.keep))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let Some(key) = self.key else { return };
        let mut slab = self.ring.slab.borrow_mut();
        let operation = slab.slots[key].as_mut().expect("in flight");
        if let State::Done(_) = operation.state {
            let operation = slab.remove(key);
            drop(slab);
            bury(operation);
        } else {
            operation.state = State::Orphan;
        }
    }
}
