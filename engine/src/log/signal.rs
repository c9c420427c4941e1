//! Waking within one thread: a flag that one task waits for, and a bounded number of permits.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    rc::Rc,
    task::{Poll, Waker},
};

/// A flag: set by anybody, taken by the one task that waits for it.
#[derive(Debug, Default)]
pub struct Signal {
    is_set: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Signal {
    /// Sets it.
    pub fn set(&self) {
        if !self.is_set.replace(true)
            && let Some(waker) = self.waker.take()
        {
            waker.wake();
        }
    }

    /// Waits until it is set, and takes it back.
    pub async fn wait(&self) {
        poll_fn(|context| {
            if self.is_set.replace(false) {
                return Poll::Ready(());
            }
            self.waker.replace(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}

/// A flag that any number of tasks wait for, and that stays set.
#[derive(Debug, Default)]
pub struct Latch {
    is_set: Cell<bool>,
    wakers: RefCell<Vec<Waker>>,
}

impl Latch {
    /// Sets it, for good.
    pub fn set(&self) {
        self.is_set.set(true);
        self.wakers.take().into_iter().for_each(Waker::wake);
    }

    /// True once it is set.
    pub fn is_set(&self) -> bool {
        self.is_set.get()
    }

    /// Waits until it is set.
    pub async fn wait(&self) {
        poll_fn(|context| {
            if self.is_set.get() {
                return Poll::Ready(());
            }
            self.wakers.borrow_mut().push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// Something that is under way now and then, and those who wait for its end.
#[derive(Debug, Default)]
pub struct Course {
    is_on: Cell<bool>,
    ends: Cell<u64>,
    wakers: RefCell<Vec<Waker>>,
}

impl Course {
    /// It begins, and ends when what is returned is dropped.
    pub fn begin(&self) -> UnderWay<'_> {
        self.is_on.set(true);
        UnderWay(self)
    }

    /// Waits for the end of what is under way, if anything is; not for what begins right behind it.
    pub async fn ended(&self) {
        let before = self.ends.get();
        poll_fn(|context| {
            if !self.is_on.get() || self.ends.get() > before {
                return Poll::Ready(());
            }
            self.wakers.borrow_mut().push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// A [`Course`] is under way.
#[derive(Debug)]
pub struct UnderWay<'a>(&'a Course);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let Course { is_on, ends, wakers } = self.0;
        is_on.set(false);
        ends.set(ends.get() + 1);
        wakers.take().into_iter().for_each(Waker::wake);
    }
}

/// A bounded number of permits.
#[derive(Debug)]
pub struct Permits {
    free: Cell<usize>,
    wakers: RefCell<Vec<Waker>>,
}

impl Permits {
    /// `count` permits, one at least.
    pub fn new(count: usize) -> Rc<Permits> {
        Rc::new(Permits { free: Cell::new(count.max(1)), wakers: RefCell::default() })
    }

    /// Waits for one. It is given back when it is dropped.
    pub async fn acquire(self: &Rc<Self>) -> Permit {
        poll_fn(|context| {
            if self.free.get() > 0 {
                self.free.set(self.free.get() - 1);
                return Poll::Ready(());
            }
            self.wakers.borrow_mut().push(context.waker().clone());
            Poll::Pending
        })
        .await;
        Permit(Rc::clone(self))
    }
}

/// One of [`Permits`].
#[derive(Debug)]
pub struct Permit(Rc<Permits>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.free.set(self.0.free.get() + 1);
        self.0.wakers.take().into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        pin::{Pin, pin},
        task::Context,
    };

    fn is_ready(future: Pin<&mut impl Future<Output = ()>>) -> bool {
        future.poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn whoever_waits_for_an_end_does_not_wait_for_the_next_one() {
        let course = Course::default();
        assert!(is_ready(pin!(course.ended())), "nothing is under way");
        let first = course.begin();
        let mut waits = pin!(course.ended());
        assert!(!is_ready(waits.as_mut()));
        drop(first);
        let _second = course.begin();
        assert!(is_ready(waits), "the first one has ended");
        assert!(!is_ready(pin!(course.ended())));
    }
}
