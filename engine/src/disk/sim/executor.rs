//! A deterministic executor: one thread, no clock, tasks and disk operations interleaved by the seed. A crash is dropping
//! it, with every future in it.

// A waker is an `Arc` by its type; nothing here runs in the broker.
#![allow(clippy::disallowed_types)]

use super::SimDisk;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::{Arc, Mutex},
    task::{Context, Poll, Wake, Waker},
};

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// Tasks that were woken, in order. Shared with wakers, which the standard library wants to be `Send`.
type Ready = Arc<Mutex<Vec<usize>>>;

struct TaskWaker {
    task: usize,
    ready: Ready,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        let mut ready = self.ready.lock().expect("one thread");
        if !ready.contains(&self.task) {
            ready.push(self.task);
        }
    }
}

/// Starts tasks from within tasks.
#[derive(Clone)]
pub struct Spawner {
    new: Rc<RefCell<Vec<Task>>>,
}

impl Spawner {
    /// Adds a task; it runs until it ends or the executor is dropped.
    pub fn spawn<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> Joined<T> {
        let slot = Rc::new(Slot { value: Cell::new(None), waiter: Cell::new(None) });
        let result = Rc::clone(&slot);
        self.new.borrow_mut().push(Box::pin(async move {
            let value = future.await;
            slot.value.set(Some(value));
            if let Some(waiter) = slot.waiter.take() {
                waiter.wake();
            }
        }));
        Joined { slot: result }
    }
}

struct Slot<T> {
    value: Cell<Option<T>>,
    waiter: Cell<Option<Waker>>,
}

/// The result of a task: a future, or to be asked between steps.
pub struct Joined<T> {
    slot: Rc<Slot<T>>,
}

impl<T> Joined<T> {
    /// Takes the result, if the task has ended.
    #[must_use]
    pub fn take(&self) -> Option<T> {
        self.slot.value.take()
    }
}

impl<T> Future for Joined<T> {
    type Output = T;
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        if let Some(value) = self.slot.value.take() {
            return Poll::Ready(value);
        }
        self.slot.waiter.set(Some(context.waker().clone()));
        Poll::Pending
    }
}

/// Runs tasks and completes operations of a [`SimDisk`], in an order that only the seed decides.
pub struct Executor {
    tasks: Vec<Option<(Task, Waker)>>,
    ready: Ready,
    spawner: Spawner,
    disk: SimDisk,
    random: SmallRng,
    steps: u64,
}

impl Executor {
    /// An executor over `disk`.
    #[must_use]
    pub fn new(disk: &SimDisk, seed: u64) -> Executor {
        Executor {
            tasks: Vec::new(),
            ready: Ready::default(),
            spawner: Spawner { new: Rc::default() },
            disk: disk.clone(),
            random: SmallRng::seed_from_u64(seed),
            steps: 0,
        }
    }

    /// A handle that tasks can start others with.
    #[must_use]
    pub fn spawner(&self) -> Spawner {
        self.spawner.clone()
    }

    /// Adds a task.
    pub fn spawn<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> Joined<T> {
        self.spawner.spawn(future)
    }

    /// Steps so far.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Polls one task or completes one operation. False if neither can be: every task waits for another.
    pub fn step(&mut self) -> bool {
        self.admit();
        self.steps += 1;
        let waiting = self.ready.lock().expect("one thread").len();
        // Operations take time: mostly the tasks run first, but never in a fixed rhythm.
        if waiting > 0 && (self.disk.in_flight() == 0 || self.random.random_ratio(4, 5)) {
            let task = self.ready.lock().expect("one thread").swap_remove(self.random.random_range(0..waiting));
            self.poll(task);
            return true;
        }
        self.disk.complete_next()
    }

    /// Steps until `future` has ended.
    ///
    /// # Panics
    /// If every task waits for another.
    pub fn block_on<T: 'static>(&mut self, future: impl Future<Output = T> + 'static) -> T {
        let joined = self.spawn(future);
        loop {
            if let Some(value) = joined.take() {
                return value;
            }
            assert!(self.step(), "every task waits for another");
        }
    }

    fn admit(&mut self) {
        let new = std::mem::take(&mut *self.spawner.new.borrow_mut());
        for task in new {
            let number = self.tasks.len();
            let waker = Waker::from(Arc::new(TaskWaker { task: number, ready: Arc::clone(&self.ready) }));
            waker.wake_by_ref();
            self.tasks.push(Some((task, waker)));
        }
    }

    fn poll(&mut self, number: usize) {
        let Some((mut task, waker)) = self.tasks[number].take() else { return };
        if task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            self.tasks[number] = Some((task, waker));
        }
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        // A task that was never begun may hold a spawner, which holds it: nobody else would ever drop it.
        let never_begun = std::mem::take(&mut *self.spawner.new.borrow_mut());
        drop(never_begun);
    }
}
