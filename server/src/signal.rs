//! Something that happens once, seen by any number of tasks of one thread.

#![deny(clippy::disallowed_types)]

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    rc::Rc,
    task::{Poll, Waker},
};

/// A flag that is raised once. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Signal(Rc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    raised: Cell<bool>,
    wakers: RefCell<Vec<Waker>>,
}

impl Signal {
    /// Raises it: everybody who waits goes on.
    pub fn raise(&self) {
        self.0.raised.set(true);
        for waker in self.0.wakers.take() {
            waker.wake();
        }
    }

    /// Whether it was raised.
    #[must_use]
    pub fn is_raised(&self) -> bool {
        self.0.raised.get()
    }

    /// Waits until it is raised.
    pub async fn raised(&self) {
        poll_fn(|context| {
            if self.is_raised() {
                return Poll::Ready(());
            }
            let mut wakers = self.0.wakers.borrow_mut();
            if !wakers.iter().any(|waker| waker.will_wake(context.waker())) {
                wakers.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}
