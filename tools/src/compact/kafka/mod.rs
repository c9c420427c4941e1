//! The log directory of a stopped Kafka: what it would let go of, by its topics' own settings, and it goes on with what is left.
//!
//! ```text
//! keep        retention and compaction of one log       log         what a log is
//! checkpoint  Kafka's own, which say how far it came
//! ```
//! Nothing of Thalweg is put into it: no journal, no catalog, no marks. Active segments are that Kafka's: it ends them.

mod checkpoint;
mod keep;
mod log;

use super::{
    Request,
    choice::{Choice, Chosen},
    measure::Files,
    report::{Ledger, Report},
    watch::Watch,
};
use anyhow::{Context, Result, bail};
use checkpoint::Checkpoint;
use engine::{
    disk::Disk,
    kafka::{CLEANER_CHECKPOINT, LOG_START_CHECKPOINT, META_PROPERTIES, REPLICATION_CHECKPOINT},
    log::KeepEvent,
    partition::{PartitionConfig, PartitionId},
};
use keep::{Keeping, Left};
use server::{catalog::Catalog, lock::Lock, moving::import::stopped::StoppedKafka, settings::Settings};
use std::{
    fs::File,
    os::{
        fd::{AsRawFd, RawFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

/// True of a directory that a Kafka has formatted.
pub(super) fn is_kafkas(data_dir: &Path) -> bool {
    data_dir.join(META_PROPERTIES).is_file()
}

/// The directory, locked, and what is known of its topics.
pub(super) struct Home {
    data_dir: PathBuf,
    kafka: StoppedKafka,
    lock: Lock,
    directory: File,
}

impl Home {
    /// Locks the directory and reads what its topics' settings are.
    pub(super) fn open(request: &Request) -> Result<Home> {
        let data_dir = request.data_dir.clone();
        let shown = data_dir.display();
        if request.config.is_some() || request.journal_dir.is_some() {
            bail!("{shown} is a Kafka's: --configs FILE names its settings; --config and --journal-dir are of a Thalweg's directory");
        }
        let lock = Lock::exclusive(&data_dir, "that Kafka has to be stopped first (SIGTERM)")?;
        let directory = File::open(&data_dir).with_context(|| format!("can't open {shown}"))?;
        let (owner, own) = (directory.metadata()?.uid(), std::fs::metadata("/proc/self")?.uid());
        if owner != own && !request.dry_run {
            bail!("{shown} belongs to user {owner}: run this as that user, or that Kafka can't write to what is written now");
        }
        let kafka = StoppedKafka::read(&data_dir, &request.configs)?;
        kafka.notes.iter().for_each(|note| tracing::warn!("{note}"));
        Ok(Home { data_dir, kafka, lock, directory })
    }

    /// What a ring is to hold until its last I/O has ended.
    pub(super) fn descriptor(&self) -> RawFd {
        self.lock.descriptor().unwrap_or_else(|| self.directory.as_raw_fd())
    }

    /// The partitions that are chosen, with the settings that are asked for.
    fn choose(&self, choice: &Choice<'_>) -> Result<Vec<(Chosen, PartitionConfig)>> {
        let topics = &self.kafka.topics;
        if let Some(name) = choice.topics.iter().find(|name| topics.iter().all(|topic| topic.name != **name)) {
            bail!("there is no topic {name} in {} that may be worked on", self.data_dir.display());
        }
        let (catalog, settings) = (Catalog::default(), Settings::default());
        let mut chosen = Vec::new();
        for topic in topics.iter().filter(|topic| choice.topics.is_empty() || choice.topics.contains(&topic.name)) {
            let mut configs = topic.configs.clone();
            let in_force = catalog.partition_config(&configs, &settings);
            configs.extend(choice.set.iter().map(|(name, value)| (name.clone(), value.clone())));
            let (config, policy) =
                (catalog.partition_config(&configs, &settings), catalog.topic_text(&configs, &settings, "cleanup.policy"));
            let wanted = |index: &&i32| choice.partitions.is_empty() || choice.partitions.contains(index);
            for partition in topic.partitions.iter().filter(wanted) {
                let (topic, policy, in_force) = (topic.name.clone(), policy.clone(), in_force.clone());
                let id = PartitionId(chosen.len() as u32);
                chosen.push((Chosen { id, topic, partition: *partition, core: 0, in_force, policy }, config.clone()));
            }
        }
        if let Some(missing) = choice.partitions.iter().find(|wanted| chosen.iter().all(|(chosen, _)| chosen.partition != **wanted)) {
            bail!("there is no partition {missing} of {} in {}", choice.topics.join(", "), self.data_dir.display());
        }
        Ok(chosen)
    }
}

/// Does all that is due at `now_ms` of the chosen partitions.
pub(super) async fn run<D: Disk>(disk: D, home: &Home, choice: &Choice<'_>, now_ms: i64, watch: &Watch) -> Result<Vec<Report>> {
    let mut log_starts = Checkpoint::read(&disk, &home.data_dir, LOG_START_CHECKPOINT).await?;
    let mut cleaner = Checkpoint::read(&disk, &home.data_dir, CLEANER_CHECKPOINT).await?;
    let high_watermarks = Checkpoint::read(&disk, &home.data_dir, REPLICATION_CHECKPOINT).await?;
    let ledger = Ledger::new(now_ms);
    let (mut reports, mut unknown) = (Vec::new(), Vec::new());
    for (chosen, config) in home.choose(choice)? {
        let directory = home.data_dir.join(chosen.directory());
        watch.says(&chosen.directory());
        let before = Files::list(&disk, &directory).await?.size();
        // As that Kafka's start does where it has none: nothing is known to be on all replicas.
        let high_watermark = high_watermarks.get(&chosen.topic, chosen.partition).unwrap_or_else(|| {
            unknown.push(chosen.directory());
            0
        });
        let keeping = Keeping { disk: &disk, chosen: &chosen, config: &config, high_watermark, ledger: &ledger, watch, now_ms };
        let left = match keeping.run(&directory, &mut log_starts, &mut cleaner).await {
            Ok(left) => left,
            Err(error) => {
                ledger.note(&KeepEvent::Failed { partition: chosen.id, what: format!("{error:#}") });
                Left::default()
            }
        };
        let after = Files::list(&disk, &directory).await?.size();
        reports.push(ledger.report(chosen, (before, after), left.log_start, left.next_ms));
    }
    if !unknown.is_empty() {
        tracing::warn!("left alone, since {REPLICATION_CHECKPOINT} does not say how much of it is on all replicas: {}", unknown.join(", "));
    }
    Ok(reports)
}
