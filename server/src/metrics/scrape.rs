//! Asks all cores what there is to know, with a bound on time: a core that does not answer is left out, and the scrape
//! says so. What is many (partitions, groups) is asked for in steps, so that no core is held up by it.

use super::{
    health::CoreHealth,
    snapshot::{self, CoreSnapshot, PartitionRow},
};
use crate::{
    core::{Core, Remote},
    groups::coordinator::{self, GroupRow},
};
use engine::partition::PartitionId;
use std::{
    collections::BTreeMap,
    future::Future,
    rc::Rc,
    time::{Duration, Instant},
};

/// How long a core may take for an answer, in ms.
pub const ANSWER_MS_MAX: u64 = 1_000;
/// How long a scrape takes at most, in ms; what it has not asked for by then is left out.
pub const SCRAPE_MS_MAX: u64 = 5_000;
/// Groups and committed offsets that are shown at most, together.
pub const GROUP_ROWS_MAX: usize = 20_000;
/// Groups and offsets that a core tells in one step.
const GROUP_ROWS_A_STEP: usize = 512;
/// Partitions of a core that one scrape opens, to know the lag on them.
const OPENED_A_SCRAPE: usize = 64;

/// The way to the cores, from the thread of the metrics.
pub struct Cores {
    remote: Remote,
}

/// What all cores said.
#[derive(Default)]
pub struct Scrape {
    /// By core; none if it did not answer.
    pub cores: Vec<Option<CoreSnapshot>>,
    /// Partitions by topic and index.
    pub topics: BTreeMap<String, BTreeMap<i32, PartitionRow>>,
    /// Groups, with what they have committed.
    pub groups: Vec<GroupRow>,
    /// Cores whose groups and offsets were not all asked for: the bound was reached, or time was up.
    pub groups_left_out: usize,
    /// Partitions may be missing: time was up.
    pub is_partial: bool,
    /// How long it took.
    pub took: Duration,
}

impl Cores {
    /// The way to all cores.
    #[must_use]
    pub fn new(remote: Remote) -> Cores {
        Cores { remote }
    }

    async fn ask<T, J, F>(&self, core: usize, job: J) -> Option<T>
    where
        T: Send + 'static,
        J: FnOnce(Rc<Core>) -> F + Send + 'static,
        F: Future<Output = T> + 'static,
    {
        tokio::time::timeout(Duration::from_millis(ANSWER_MS_MAX), self.remote.ask(core, job)).await.ok()?.ok()
    }

    /// What every core says of its health.
    pub async fn health(&self) -> Vec<Option<CoreHealth>> {
        let asked = (0..self.remote.cores()).map(|core| self.ask(core, |core| async move { snapshot::health(&core) }));
        futures_util::future::join_all(asked).await
    }

    /// Everything.
    pub async fn scrape(&self) -> Scrape {
        let began = Instant::now();
        let is_late = || began.elapsed() > Duration::from_millis(SCRAPE_MS_MAX);
        let asked = (0..self.remote.cores()).map(|core| self.ask(core, |core| async move { snapshot::take(&core) }));
        let mut scrape = Scrape { cores: futures_util::future::join_all(asked).await, ..Scrape::default() };
        for core in 0..self.remote.cores() {
            if scrape.cores[core].is_some() {
                self.partitions(core, &mut scrape, is_late).await;
                self.groups(core, &mut scrape, is_late).await;
            }
        }
        self.open_lagging(&mut scrape).await;
        scrape.took = began.elapsed();
        scrape
    }

    async fn partitions(&self, core: usize, scrape: &mut Scrape, is_late: impl Fn() -> bool) {
        let mut place = Some(snapshot::Place::default());
        while let Some(from) = place {
            let step = move |core: Rc<Core>| async move { snapshot::partitions_from(&core, &from) };
            let Some((topics, next)) = (if is_late() { None } else { self.ask(core, step).await }) else {
                scrape.is_partial = true;
                return;
            };
            for (topic, rows) in topics {
                scrape.topics.entry(topic).or_default().extend(rows);
            }
            place = next;
        }
    }

    async fn groups(&self, core: usize, scrape: &mut Scrape, is_late: impl Fn() -> bool) {
        let mut place = Some(coordinator::Place::default());
        let mut taken: usize = scrape.groups.iter().map(|group| 1 + group.offsets.len()).sum();
        while let Some(from) = place {
            let step = move |core: Rc<Core>| async move { coordinator::groups_from(&core, &from, GROUP_ROWS_A_STEP) };
            let is_over = taken >= GROUP_ROWS_MAX || is_late();
            let Some((rows, next)) = (if is_over { None } else { self.ask(core, step).await }) else {
                scrape.groups_left_out += 1;
                return;
            };
            taken += rows.iter().map(|row| 1 + row.offsets.len()).sum::<usize>();
            for row in rows {
                match scrape.groups.last_mut().filter(|last| last.name == row.name) {
                    // It had more offsets than a step tells.
                    Some(last) => last.offsets.extend(row.offsets),
                    None => scrape.groups.push(row),
                }
            }
            place = next;
        }
    }

    /// The end of a partition that was not used since the start isn't known: a group's lag on it would be too small.
    async fn open_lagging(&self, scrape: &mut Scrape) {
        let mut closed: BTreeMap<usize, Vec<PartitionId>> = BTreeMap::new();
        for (topic, partition, _) in scrape.groups.iter().flat_map(|group| &group.offsets) {
            let row = scrape.topics.get(topic).and_then(|partitions| partitions.get(partition));
            if let Some(row) = row.filter(|row| !row.stats.is_open) {
                let ids = closed.entry(row.core).or_default();
                if ids.len() < OPENED_A_SCRAPE && !ids.contains(&row.id) {
                    ids.push(row.id);
                }
            }
        }
        for (core, ids) in closed {
            let opened = self.ask(core, |core| snapshot::open(core, ids)).await.unwrap_or_default();
            let opened: BTreeMap<PartitionId, _> = opened.into_iter().collect();
            for row in scrape.topics.values_mut().flat_map(BTreeMap::values_mut) {
                if let Some(Some(stats)) = opened.get(&row.id) {
                    row.stats = *stats;
                }
            }
        }
    }
}
