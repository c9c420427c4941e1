//! The broker's own start, its retention and compaction, and its clean stop, without clients: on a directory, or on an overlay
//! of it.

use super::{
    Report,
    choice::{Choice, Chosen, choose},
    home::Home,
    measure::{End, Files},
    report::Ledger,
    watch::Watch,
};
use anyhow::{Context, Result, anyhow};
use engine::{
    compaction::{KEY_BYTES, SCRATCH},
    disk::Disk,
    log::{CoreStart, KeepEvent, Log, LogError, Start, mark_clean},
    partition::PartitionId,
};
use server::{catalog::Catalog, keeping::KEYS_BYTES_MAX};
use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    rc::Rc,
};

/// Does all that is due at `now_ms` of the chosen partitions. What it does to the others is what any start does.
pub(crate) async fn run<D: Disk>(disk: D, home: &Home, choice: &Choice<'_>, now_ms: i64, watch: &Watch) -> Result<Vec<Report>> {
    watch.says("reading the journal");
    let start = Start::read(&disk, home.log(), rand::random()).await?;
    let catalog = Catalog::from_bytes(start.catalog())?;
    let (specs, chosen) = choose(choice, &catalog, home.settings())?;
    let before = files(&disk, home, &chosen).await?;
    let was_killed = start.replay().is_some();
    // As many cores as the last start had: nobody moves.
    let cores = start.finish(catalog.cores().max(1), specs, catalog.leader_epoch()).await?;
    // A clean stop has left nothing that is to be settled.
    let recovered = cores.iter().flat_map(|core| &core.partitions).filter(|_| was_killed);
    let mut ends: BTreeMap<PartitionId, End> = recovered.map(|recovered| (recovered.spec.id, End::of(recovered))).collect();
    let ledger = Rc::new(Ledger::new(now_ms));
    let mut open = Vec::new();
    for (core, start) in cores.into_iter().enumerate() {
        let ids = chosen.iter().filter(|chosen| chosen.core == core).map(|chosen| chosen.id).collect();
        open.push(Open::begin(&disk, start, ids, &ledger, now_ms).await?);
    }
    // What can't be opened stays as it was found.
    ends.retain(|id, _| open.iter().all(|core| !core.refused.contains(id)));
    for core in &open {
        core.keep(&disk, now_ms, watch).await?;
    }
    let nexts: Vec<Option<i64>> = chosen.iter().map(|chosen| open[chosen.core].log.next_keeping(chosen.id)).collect();
    let starts: Vec<i64> =
        chosen.iter().map(|chosen| open[chosen.core].log.offsets(chosen.id).map_or(0, |offsets| offsets.log_start)).collect();
    watch.says("closing");
    let mut left = 0;
    for core in open {
        left += core.close().await?;
    }
    // Every job has emptied its own; a Kafka that is given this directory would take it for a partition.
    let _ = disk.remove_dir(&home.log().data_dir.join(SCRATCH)).await;
    if left == 0 {
        mark_clean(&disk, home.log()).await?;
    } else {
        tracing::warn!("{left} partitions are offline, and a part of them is in the journal only: the next run or start recovers them");
    }
    let after = files(&disk, home, &chosen).await?;
    let mut reports = Vec::new();
    for (at, chosen) in chosen.into_iter().enumerate() {
        let found = before[at].size();
        let settled = ends.get(&chosen.id).map_or(found, |end| before[at].settled(end, &after[at]));
        let report = ledger.report(chosen, (settled, after[at].size()), starts[at], nexts[at]);
        reports.push(Report { reserved: found.bytes as i64 - settled.bytes as i64, ..report });
    }
    Ok(reports)
}

async fn files<D: Disk>(disk: &D, home: &Home, chosen: &[Chosen]) -> Result<Vec<Files>> {
    let mut all = Vec::with_capacity(chosen.len());
    for chosen in chosen {
        all.push(Files::list(disk, &home.log().data_dir.join(chosen.directory())).await?);
    }
    Ok(all)
}

/// The log of a core, running.
struct Open<D: Disk> {
    log: Log<D>,
    /// Those of the chosen that can't be opened.
    refused: BTreeSet<PartitionId>,
    lanes: tokio::task::JoinHandle<Result<(), LogError>>,
}

impl<D: Disk> Open<D> {
    async fn begin(disk: &D, start: CoreStart, mut ids: BTreeSet<PartitionId>, ledger: &Rc<Ledger>, now_ms: i64) -> Result<Open<D>> {
        let log = Log::open(disk.clone(), start).await?;
        let told = Rc::clone(ledger);
        log.observe_keeping(Box::new(move |event| told.note(event)));
        let lanes = tokio::task::spawn_local({
            let log = log.clone();
            async move { log.run().await }
        });
        // So that every deadline is known exactly. One that can't be opened is no reason to leave the others.
        let mut refused = BTreeSet::new();
        for id in &ids {
            if let Err(error) = log.ready(&[*id]).await {
                ledger.note(&KeepEvent::Failed { partition: *id, what: error.to_string() });
                refused.insert(*id);
            }
        }
        ids.retain(|id| !refused.contains(id));
        log.keep_only(&ids);
        log.keep(now_ms).await;
        Ok(Open { log, refused, lanes })
    }

    /// Retention and compaction until nothing is due any more.
    async fn keep(&self, disk: &D, now_ms: i64, watch: &Watch) -> Result<()> {
        while !self.lanes.is_finished() {
            let next = self.log.keep(now_ms).await;
            let secret = (rand::random(), rand::random());
            if let Some(job) = self.log.next_cleaning(now_ms, KEYS_BYTES_MAX / KEY_BYTES, secret).await {
                let round = job.run(disk, async |group| self.log.install_cleaned(&job, &group).await);
                let result = watch.on(&job, round).await;
                self.log.finish_cleaning(&job, result, now_ms).await;
            } else if next.is_none_or(|at_ms| at_ms > now_ms) {
                break;
            }
        }
        Ok(())
    }

    /// A clean stop of this core. Returns how many partitions it was not possible for.
    async fn close(mut self) -> Result<usize> {
        let mut close = pin!(self.log.close());
        // An error of the lanes ends the stop as well, and says more. One of the stop's own does not end the lanes.
        let closed = tokio::select! {
            biased;
            ended = &mut self.lanes => match ended {
                Ok(Ok(())) => close.await,
                Ok(Err(error)) => Err(error),
                Err(panic) => return Err(anyhow!("a bug: {panic}; please report it")),
            },
            closed = &mut close => closed,
        };
        self.lanes.abort();
        closed.map_err(anyhow::Error::from).context("the next run or start recovers what was done until here")
    }
}
