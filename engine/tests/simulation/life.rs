//! One life of the broker: what its cores and clients share while it runs.

use crate::{counters::Counters, model::Model, producer::Producer};
use engine::{
    disk::sim::{SimDisk, Spawner},
    log::Log,
    partition::{PartitionConfig, PartitionId, PartitionSpec},
};
use rand::{Rng, rngs::SmallRng};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    path::PathBuf,
    rc::Rc,
};

/// What outlives the broker: its clients, and what they know.
#[derive(Default)]
pub struct Outside {
    pub model: RefCell<Model>,
    pub counters: RefCell<Counters>,
    pub producers: RefCell<Vec<Rc<RefCell<Producer>>>>,
    pub now_ms: Cell<i64>,
    pub label: Cell<u64>,
    /// The highest partition id that was ever given.
    pub highest: Cell<u32>,
    /// The counter of leader epochs, which is the highest that was ever given: each start and each deletion raises it.
    pub epoch: Cell<i32>,
    /// The last partition of each topic's name.
    pub topics: RefCell<BTreeMap<u32, PartitionId>>,
    pub trace: bool,
    /// The start is over: what is written now, clients caused.
    pub running: Cell<bool>,
}

impl Outside {
    pub fn say(&self, text: impl FnOnce() -> String) {
        if self.trace {
            eprintln!("{}", text());
        }
    }

    pub fn next_label(&self) -> u64 {
        self.label.set(self.label.get() + 1);
        self.label.get()
    }
}

/// A running broker, as its clients see it.
#[derive(Clone)]
pub struct Broker {
    pub disk: SimDisk,
    pub logs: Rc<Vec<Log<SimDisk>>>,
    /// Which core owns a partition in this life.
    pub owners: Rc<RefCell<BTreeMap<PartitionId, usize>>>,
    pub outside: Rc<Outside>,
    pub random: Rc<RefCell<SmallRng>>,
    pub spawner: Spawner,
    pub sizes: Sizes,
    /// Tasks that wait for an answer.
    pub waiting: Rc<Cell<usize>>,
}

/// How large things are in this history.
#[derive(Clone, Debug)]
pub struct Sizes {
    pub small_max: usize,
    pub large_max: usize,
    /// One append in this many is large.
    pub large_every: u32,
    /// Every batch has one record, and as many bytes as a small one has at most.
    pub are_alike: bool,
    pub partition: PartitionConfig,
}

struct Waits(Rc<Cell<usize>>);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// A topic's directory and, unlike that, its partition's own id. A creation gives it `leader_epoch`; a start gives its own.
pub fn spec(id: PartitionId, topic: u32, core: usize, leader_epoch: i32, config: &PartitionConfig) -> PartitionSpec {
    PartitionSpec {
        id,
        topic_id: uuid::Uuid::from_u128(0x7ea1_0000_0000 + u128::from(id.0)),
        directory: PathBuf::from(format!("topic{topic}-0")),
        core,
        leader_epoch,
        internal: false,
        config: config.clone(),
    }
}

impl Broker {
    pub fn log(&self, id: PartitionId) -> Option<Log<SimDisk>> {
        let owner = if id == PartitionId::CATALOG { 0 } else { *self.owners.borrow().get(&id)? };
        self.logs.get(owner).cloned()
    }

    pub fn chance(&self, one_in: u32) -> bool {
        self.random.borrow_mut().random_ratio(1, one_in)
    }

    pub fn up_to(&self, max: usize) -> usize {
        self.random.borrow_mut().random_range(0..=max)
    }

    /// Runs a client's request beside all else.
    pub fn spawn(&self, request: impl Future<Output = ()> + 'static) {
        self.waiting.set(self.waiting.get() + 1);
        let waits = Waits(Rc::clone(&self.waiting));
        self.spawner.spawn(async move {
            let _waits = waits;
            request.await;
        });
    }

    pub fn fail(&self, id: PartitionId, error: String) {
        self.outside.model.borrow_mut().failures.push(format!("partition {}: {error}", id.0));
    }
}
