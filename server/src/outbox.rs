//! The answers of one connection on their way out, in the order of their requests.
//!
//! Whatever is ready goes out in one send: a journal frame that makes forty pipelined produces durable costs one segment
//! of TCP and not forty. The queue is bounded, in answers and in bytes; at the bound the connection's next request waits.

#![deny(clippy::disallowed_types)]

use crate::{
    api::{Part, Refused, Reply},
    connections::{Connections, Pinned},
    metrics::Measured,
};
use bytes::BytesMut;
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    rc::Rc,
    task::{Context, Poll, Waker},
};

/// Answers of a connection that wait to be sent. Behind them no further request is carried out.
pub const PIPELINED_MAX: usize = 256;
/// Bytes of answers that wait to be sent on a connection before its next request is carried out (but for one whole answer).
pub const UNSENT_BYTES_MAX: usize = 1 << 20;
/// Bytes of answers that are sent together, but for one whole answer.
const BATCH_BYTES_MAX: usize = 256 << 10;
/// Answers up to this length, in bytes, are copied behind one another instead of being sent from where they are.
const SMALL_BYTES_MAX: usize = 4 << 10;

/// The sender has ended.
#[derive(Debug, thiserror::Error)]
#[error("the sender has ended")]
pub struct SenderEnded;

#[derive(Default)]
struct Queue {
    replies: RefCell<VecDeque<Queued>>,
    /// Bytes of answers in the queue and in the batch that is being sent, as far as they are known.
    unsent: Cell<usize>,
    receiver_ended: Cell<bool>,
    sender_ended: Cell<bool>,
    receiver: RefCell<Option<Waker>>,
    sender: RefCell<Option<Waker>>,
}

struct Queued {
    answer: Result<Reply, Refused>,
    /// Its length as it was counted when it was put in.
    counted: usize,
    pinned: Pinned,
    measured: Measured,
}

impl Queue {
    fn wake(waker: &RefCell<Option<Waker>>) {
        if let Some(waker) = waker.take() {
            waker.wake();
        }
    }
}

/// Where the receiver puts its answers. Dropping it lets the sender end once everything is sent.
pub struct Outbox {
    queue: Rc<Queue>,
    connections: Rc<Connections>,
}

/// Where the sender takes them.
pub struct Outgoing(Rc<Queue>);

/// Both ends of a connection's queue.
#[must_use]
pub fn outbox(connections: &Rc<Connections>) -> (Outbox, Outgoing) {
    let queue = Rc::new(Queue::default());
    (Outbox { queue: Rc::clone(&queue), connections: Rc::clone(connections) }, Outgoing(queue))
}

impl Outbox {
    /// Waits until there is room for one more answer.
    ///
    /// # Errors
    /// [`SenderEnded`].
    pub async fn room(&self) -> Result<(), SenderEnded> {
        poll_fn(|context| {
            let queue = &self.queue;
            if queue.sender_ended.get() {
                return Poll::Ready(Err(SenderEnded));
            }
            if queue.unsent.get() <= UNSENT_BYTES_MAX && queue.replies.borrow().len() < PIPELINED_MAX {
                return Poll::Ready(Ok(()));
            }
            queue.receiver.replace(Some(context.waker().clone()));
            Poll::Pending
        })
        .await
    }

    /// Puts an answer behind the others: after [`Outbox::room`].
    pub fn put(&self, reply: Reply, measured: Measured) {
        let queue = &self.queue;
        let counted = reply.len();
        queue.unsent.set(queue.unsent.get() + counted);
        let pinned = self.connections.pin(reply.memory());
        queue.replies.borrow_mut().push_back(Queued { answer: Ok(reply), counted, pinned, measured });
        Queue::wake(&queue.sender);
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.queue.receiver_ended.set(true);
        Queue::wake(&self.queue.sender);
    }
}

impl Outgoing {
    /// The next answers that are ready, one at least: waits for the first. `None` once there are no more.
    ///
    /// # Errors
    /// The next answer is a refusal: the connection is to be closed. What was before it has been handed out.
    pub async fn next(&mut self) -> Result<Option<Batch>, Refused> {
        if !poll_fn(|context| self.poll_front(context)).await {
            return Ok(None);
        }
        let mut batch = Batch::new(&self.0);
        if let Some(first) = self.pop(|_| true) {
            batch.add(first)?;
        }
        poll_fn(|context| {
            // A refusal stays where it is until what is before it has been sent, and so does what may wait for the disk.
            let goes_along = |answer: &Result<Reply, Refused>| answer.as_ref().is_ok_and(|reply| !reply.reads_a_file());
            while batch.counted < BATCH_BYTES_MAX
                && self.poll_front(context) == Poll::Ready(true)
                && let Some(next) = self.pop(goes_along)
            {
                if batch.add(next).is_err() {
                    unreachable!("it was looked at");
                }
            }
            Poll::Ready(())
        })
        .await;
        batch.end_small();
        Ok(Some(batch))
    }

    /// Waits until the first answer is known; false if there is none and there will be none.
    fn poll_front(&self, context: &mut Context<'_>) -> Poll<bool> {
        let mut replies = self.0.replies.borrow_mut();
        loop {
            let Some(front) = replies.front_mut() else {
                if self.0.receiver_ended.get() {
                    return Poll::Ready(false);
                }
                self.0.sender.replace(Some(context.waker().clone()));
                return Poll::Pending;
            };
            match &mut front.answer {
                Ok(Reply::Later(later)) => match later.as_mut().poll(context) {
                    Poll::Ready(answer) => front.answer = answer,
                    Poll::Pending => return Poll::Pending,
                },
                Ok(Reply::One(one)) => match one.poll(context) {
                    Poll::Ready(None) => return Poll::Ready(true),
                    Poll::Ready(Some(failed)) => front.answer = Ok(failed),
                    Poll::Pending => return Poll::Pending,
                },
                _ => return Poll::Ready(true),
            }
        }
    }

    fn pop(&self, wanted: impl Fn(&Result<Reply, Refused>) -> bool) -> Option<Queued> {
        let mut replies = self.0.replies.borrow_mut();
        if wanted(&replies.front()?.answer) { replies.pop_front() } else { None }
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.0.sender_ended.set(true);
        Queue::wake(&self.0.receiver);
    }
}

/// Answers that are sent together. Dropping it says that they are, and makes room.
pub struct Batch {
    queue: Rc<Queue>,
    parts: Vec<Part>,
    /// Small answers behind the last part.
    small: BytesMut,
    counted: usize,
    unsent: usize,
    sending: Vec<Sending>,
}

/// One answer of a batch.
struct Sending {
    _pinned: Pinned,
    measured: Measured,
    bytes: usize,
}

impl Batch {
    fn new(queue: &Rc<Queue>) -> Batch {
        Batch { queue: Rc::clone(queue), parts: Vec::new(), small: BytesMut::new(), counted: 0, unsent: 0, sending: Vec::new() }
    }

    fn add(&mut self, queued: Queued) -> Result<(), Refused> {
        self.unsent += queued.counted;
        let before = self.counted;
        match queued.answer? {
            Reply::Whole(bytes) if bytes.len() <= SMALL_BYTES_MAX => {
                self.counted += bytes.len();
                self.small.extend_from_slice(&bytes);
            }
            Reply::One(one) => {
                let length = self.small.len();
                one.encode(&mut self.small);
                self.counted += self.small.len() - length;
            }
            Reply::Whole(bytes) => self.add_parts([Part::Bytes(bytes)]),
            Reply::Parts(parts) => self.add_parts(parts),
            Reply::Silent => {}
            Reply::Later(_) => unreachable!("it was waited for"),
        }
        self.sending.push(Sending { _pinned: queued.pinned, measured: queued.measured, bytes: self.counted - before });
        Ok(())
    }

    fn add_parts(&mut self, parts: impl IntoIterator<Item = Part>) {
        self.end_small();
        for part in parts {
            self.counted += part.len();
            self.parts.push(part);
        }
    }

    fn end_small(&mut self) {
        if !self.small.is_empty() {
            self.parts.push(Part::Bytes(self.small.split().freeze()));
        }
    }

    /// Its answers, each with its length in bytes.
    pub fn answers(&self) -> impl Iterator<Item = (&Measured, usize)> {
        self.sending.iter().map(|sending| (&sending.measured, sending.bytes))
    }

    /// What is to be sent, in order.
    #[must_use]
    pub fn take_parts(&mut self) -> Vec<Part> {
        std::mem::take(&mut self.parts)
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.queue.unsent.set(self.queue.unsent.get() - self.unsent);
        Queue::wake(&self.queue.receiver);
    }
}
