//! Who waits for a partition: appends for the durable end, readers for any change. One entry per request, none per record.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    task::{Context, Waker},
};

/// Those who wait for the durable end to pass an offset.
#[derive(Debug, Default)]
pub struct DurableWaiters {
    waiting: BTreeMap<(i64, u64), Waker>,
}

impl DurableWaiters {
    /// `ticket`, a number that is given once per core, waits for the record at `offset`, woken through `context`.
    pub fn wait(&mut self, offset: i64, ticket: u64, context: &Context<'_>) {
        self.waiting
            .entry((offset, ticket))
            .and_modify(|waker| waker.clone_from(context.waker()))
            .or_insert_with(|| context.waker().clone());
    }

    /// `ticket` waits no more.
    pub fn leave(&mut self, offset: i64, ticket: u64) {
        self.waiting.remove(&(offset, ticket));
    }

    /// Wakes all who wait for a record below `high_watermark`.
    pub fn wake_below(&mut self, high_watermark: i64) {
        while let Some(entry) = self.waiting.first_entry()
            && entry.key().0 < high_watermark
        {
            entry.remove().wake();
        }
    }

    /// Wakes all: what they waited for may never come.
    pub fn wake_all(&mut self) {
        std::mem::take(&mut self.waiting).into_values().for_each(Waker::wake);
    }
}

/// One reader's subscription to any number of partitions.
#[derive(Debug, Default)]
pub struct Watch {
    has_fired: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Watch {
    /// Something has changed.
    pub fn fire(&self) {
        self.has_fired.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// True if something has changed; otherwise `context` is woken when it does.
    pub fn poll(&self, context: &Context<'_>) -> bool {
        if !self.has_fired.get() {
            self.waker.replace(Some(context.waker().clone()));
        }
        self.has_fired.get()
    }
}

/// The readers that watch one partition.
#[derive(Debug, Default)]
pub struct Watchers {
    watching: BTreeMap<u64, Rc<Watch>>,
}

impl Watchers {
    /// `watch`, named `ticket` for the whole core, wants to know.
    pub fn add(&mut self, ticket: u64, watch: &Rc<Watch>) {
        self.watching.insert(ticket, Rc::clone(watch));
    }

    /// `ticket` is gone.
    pub fn remove(&mut self, ticket: u64) {
        self.watching.remove(&ticket);
    }

    /// Tells all, once.
    pub fn fire(&mut self) {
        std::mem::take(&mut self.watching).into_values().for_each(|watch| watch.fire());
    }
}
