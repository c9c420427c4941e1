//! `thalweg import`: topics of a stopped Kafka into a stopped data directory.
//!
//! 1. Everything is looked at and refused before anything is written.
//! 2. Partitions are copied to `DATA_DIR/.import`, which no start looks at, and flushed.
//! 3. A first start of the engine writes the groups' offsets, and stops. Offsets of topics that are not there are nobody's:
//!    should this be all that is done, the broker forgets them.
//! 4. The directories are renamed to where they belong, marked as Thalweg's own: a start that doesn't know them removes them.
//! 5. A second start takes them over: topics with their ids and configs, log starts, the next producer id and a leader epoch
//!    above all that was seen become durable in its one commit. From then on, and not before, the topics are there.

mod configs;
mod kafka;
mod metadata;
mod offsets;
pub mod stopped;
mod target;
mod transactions;

use super::{
    copy::{self, Copied, Reader, Task},
    failed, files,
    groups::Groups,
    select, settings, space,
};
use crate::{
    catalog::{CONSUMER_OFFSETS, Catalog, Change, Configs, start::new_partitions},
    config::{Cli, Config, ImportArgs, size},
    progress::Progress,
};
use anyhow::{Result, bail};
use configs::Known;
use engine::{
    kafka::LOG_START_CHECKPOINT,
    partition::directory::{MARK_FILE, import_mark},
};
use kafka::Kafka;
use metadata::Metadata;
use std::{
    collections::BTreeSet,
    fs,
    io::{IsTerminal, stderr},
    path::{Path, PathBuf},
    time::Instant,
};
use target::Target;
use uuid::Uuid;

/// Where partitions are copied to first, in the data directory.
const STAGING: &str = ".import";

/// Imports topics.
///
/// # Errors
/// Each says what to do. Nothing of the source is changed; until all of it is there, nothing of it is to be seen.
pub fn run(args: &ImportArgs) -> Result<()> {
    let cli = Cli {
        data_dir: args.data_dir.clone(),
        config: args.config.clone(),
        journal_dir: args.journal_dir.clone(),
        journal_size: args.journal_size.clone(),
        cores: args.cores.clone(),
        allow_buffered: args.allow_buffered,
        ..Cli::default()
    };
    let config = settings(&cli)?;
    let kafka = Kafka::open(&args.from)?;
    let metadata = kafka.metadata.as_deref().map(|path| Metadata::read(path, !kafka.clean)).transpose()?;
    let (chosen, mut notes) = choose(&kafka, metadata.as_ref(), args)?;
    check_committing(&kafka)?;
    check_log_starts(&kafka)?;
    target::check_foreign(&config)?;
    // A new data directory is made only when there is something to be written.
    let existing = if target::exists(&config) { Some(Target::open(config.clone())?) } else { None };
    let catalog = existing.as_ref().map(|target| target.catalog.clone()).unwrap_or_default();
    let known = Known::read(&args.configs, metadata.as_ref(), kafka.node_id.as_deref())?;
    let data_dir = config.log.data_dir.clone();
    let plan = Plan::of(&kafka, metadata.as_ref(), &chosen, &known, &catalog, &config, &mut notes)?;
    plan.show(&notes);
    if args.dry_run {
        println!("\nnothing was written (--dry-run)");
        return Ok(());
    }
    space::check(&data_dir, plan.bytes())?;
    let target = match existing {
        Some(target) => target,
        None => Target::open(config)?,
    };
    plan.write(&target, metadata.as_ref().map_or(-1, |metadata| metadata.next_producer_id))
}

/// The topics, and what is left out.
fn choose(kafka: &Kafka, metadata: Option<&Metadata>, args: &ImportArgs) -> Result<(BTreeSet<String>, Vec<String>)> {
    let place = args.from.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
    let mut chosen = select::choose(kafka.names(), &args.topics, &place)?;
    let mut notes = Vec::new();
    if let Some(metadata) = metadata {
        // Its next start would have set them aside: the topic was deleted while this broker was down.
        let is_gone = |topic: &String| {
            kafka.topics[topic].values().all(|partition| metadata.topics.get(&partition.id).is_none_or(|(name, _)| name != topic))
        };
        let gone: Vec<String> = chosen.iter().filter(|topic| is_gone(topic)).cloned().collect();
        for topic in gone {
            notes.push(format!("{topic}: left out, since that Kafka has deleted it"));
            chosen.remove(&topic);
        }
    }
    if chosen.is_empty() {
        bail!("that Kafka has deleted these topics: there is nothing to import from {place}");
    }
    if !kafka.clean {
        notes.push("that Kafka was not stopped cleanly: logs are checked as its recovery would, and cut where they are not whole".into());
    }
    Ok((chosen, notes))
}

fn check_committing(kafka: &Kafka) -> Result<()> {
    let committing = transactions::committing(&kafka.directories("__transaction_state"), !kafka.clean)?;
    if !committing.is_empty() {
        bail!(
            "the commit of transactional ids {} has not reached all partitions yet: start that Kafka, which finishes it, and stop it with SIGTERM. \
             Nothing was written",
            committing.join(", ")
        );
    }
    Ok(())
}

/// Where segments go on before a log start, only the checkpoint says so.
fn check_log_starts(kafka: &Kafka) -> Result<()> {
    if let Some((path, error)) = &kafka.damaged_log_starts {
        bail!(
            "{} is damaged ({error}): without it, records that were deleted (DeleteRecords) would be there again. Restore it; or, if they \
             may be, as to that Kafka itself at its next start, move it away. Nothing was written",
            path.display()
        );
    }
    Ok(())
}

/// A topic that is imported.
struct Topic {
    name: String,
    id: Uuid,
    configs: Configs,
    /// Directory, first offset, and what is known of its end, by index.
    partitions: Vec<kafka::Partition>,
}

/// What is to be written.
struct Plan {
    topics: Vec<Topic>,
    groups: Groups,
}

impl Plan {
    fn of(
        kafka: &Kafka,
        metadata: Option<&Metadata>,
        chosen: &BTreeSet<String>,
        known: &Known,
        catalog: &Catalog,
        config: &Config,
        notes: &mut Vec<String>,
    ) -> Result<Plan> {
        let mut topics = Vec::new();
        for name in chosen {
            let any = kafka.topics[name].values().next().map(|partition| partition.id);
            let count = metadata.zip(any).and_then(|(metadata, id)| metadata.topics.get(&id)).map(|(_, count)| *count);
            let (id, partitions) = kafka.partitions(name, count)?;
            if catalog.topic(name).is_some() || catalog.is_deleting(name) {
                bail!(
                    "{} has a topic {name} already: delete it there first, or leave it out with --topics. Nothing was written",
                    config.log.data_dir.display()
                );
            }
            if let Some(known) = catalog.topic_by_id(&id) {
                bail!("{} has this topic under another name ({}, id {id}). Nothing was written", config.log.data_dir.display(), known.name);
            }
            let resolved = known.resolve(name, catalog, &config.settings)?;
            notes.extend(resolved.notes);
            topics.push(Topic { name: name.clone(), id, configs: resolved.configs, partitions: partitions.into_iter().cloned().collect() });
        }
        let mut groups = Groups::read(&kafka.directories(CONSUMER_OFFSETS), !kafka.clean)?;
        groups.retain(chosen);
        Ok(Plan { topics, groups })
    }

    fn bytes(&self) -> u64 {
        self.topics.iter().flat_map(|topic| &topic.partitions).map(|partition| partition.bytes).sum()
    }

    fn show(&self, notes: &[String]) {
        let width = self.topics.iter().map(|topic| topic.name.len()).max().unwrap_or(0).max("topic".len());
        println!("{:width$}  partitions        size  configs", "topic");
        for topic in &self.topics {
            let configs: Vec<String> = topic.configs.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let bytes = topic.partitions.iter().map(|partition| partition.bytes).sum();
            println!("{:width$}  {:>10}  {:>10}  {}", topic.name, topic.partitions.len(), size::show(bytes), configs.join(" "));
        }
        println!("{} groups with {} offsets on these topics", self.groups.offsets.len(), self.groups.count());
        notes.iter().for_each(|note| println!("note: {note}"));
    }

    fn write(&self, target: &Target, next_producer_id: i64) -> Result<()> {
        let began = Instant::now();
        let data_dir = &target.config.log.data_dir;
        let staging = data_dir.join(STAGING);
        files::remove_all(&staging)?;
        fs::create_dir(&staging).map_err(|error| failed("make", &staging, error))?;
        let tasks = self.tasks(&staging);
        let progress = Progress::new(stderr().is_terminal(), self.bytes());
        let copied = copy::all(&tasks, &progress)?;
        drop(progress);
        let took = began.elapsed();

        let committed = self.groups.offsets.values().flat_map(|offsets| offsets.iter().map(|(.., committed)| committed.leader_epoch));
        let epoch = copied.iter().map(|copied| copied.leader_epoch).chain(committed).max().unwrap_or(-1);
        let producer_id = copied.iter().map(|copied| copied.producer_id + 1).max().unwrap_or(0).max(next_producer_id);
        // It also removes what an import that was cut off has left.
        target.run(epoch, |_, _| Vec::new(), async |running| offsets::write(running, &self.groups).await)?;
        self.put_in_place(data_dir, &tasks)?;
        let log_starts = LogStarts::write(data_dir, &self.topics)?;
        target.run(epoch, |catalog, cores| self.changes(catalog, cores, producer_id), async |_| Ok(()))?;
        log_starts.restore()?;
        files::remove_all(&staging)?;
        files::sync_dir(data_dir)?;
        report(data_dir, &tasks, &copied, took.as_secs_f64(), self.groups.count());
        Ok(())
    }

    fn tasks(&self, staging: &Path) -> Vec<Task> {
        let task = |name: String, partition: &kafka::Partition| Task {
            from: partition.directory.clone(),
            to: staging.join(&name),
            name,
            reader: Reader::Thalweg,
            torn_from: partition.torn_from,
        };
        let of_topic = |topic: &Topic| -> Vec<Task> {
            let partitions = topic.partitions.iter().enumerate();
            partitions.map(|(index, partition)| task(format!("{}-{index}", topic.name), partition)).collect()
        };
        self.topics.iter().flat_map(of_topic).collect()
    }

    fn put_in_place(&self, data_dir: &Path, tasks: &[Task]) -> Result<()> {
        for task in tasks {
            files::write(&task.to.join(MARK_FILE), import_mark().as_bytes())?;
            files::sync_dir(&task.to)?;
        }
        for task in tasks {
            let place = data_dir.join(&task.name);
            fs::rename(&task.to, &place).map_err(|error| failed("make", &place, error))?;
        }
        files::sync_dir(data_dir)
    }

    fn changes(&self, catalog: &Catalog, cores: usize, producer_id: i64) -> Vec<Change> {
        let mut after = catalog.clone();
        let mut changes = vec![Change::ProducerIds { next: producer_id }];
        for topic in &self.topics {
            let partitions = new_partitions(&after, &topic.name, 0, topic.partitions.len(), cores);
            let change = Change::TopicCreated {
                name: topic.name.clone(),
                id: topic.id,
                internal: false,
                configs: topic.configs.clone(),
                partitions,
            };
            after.apply(&change).expect("names and ids were checked");
            changes.push(change);
        }
        changes
    }
}

/// Kafka's checkpoint of log starts in the data directory, for as long as a start needs it there.
struct LogStarts {
    path: PathBuf,
    before: Option<String>,
}

impl LogStarts {
    fn write(data_dir: &Path, topics: &[Topic]) -> Result<LogStarts> {
        let path = data_dir.join(LOG_START_CHECKPOINT);
        let before = files::text(&path)?;
        let mut lines = Vec::new();
        for topic in topics {
            let starts = topic.partitions.iter().enumerate().filter(|(_, partition)| partition.log_start > 0);
            lines.extend(starts.map(|(index, partition)| format!("{} {index} {}\n", topic.name, partition.log_start)));
        }
        files::write(&path, format!("0\n{}\n{}", lines.len(), lines.concat()).as_bytes())?;
        files::sync_dir(data_dir)?;
        Ok(LogStarts { path, before })
    }

    fn restore(self) -> Result<()> {
        match self.before {
            Some(before) => files::write(&self.path, before.as_bytes()),
            None => fs::remove_file(&self.path).map_err(|error| failed("remove", &self.path, error)),
        }
    }
}

fn report(data_dir: &Path, tasks: &[Task], copied: &[Copied], seconds: f64, offsets: usize) {
    let (bytes, batches) = copied.iter().fold((0, 0), |(bytes, batches), one| (bytes + one.bytes, batches + one.batches));
    println!(
        "\nimported into {}: {} partitions, {batches} batches, {} in {seconds:.1} s ({}/s), and {offsets} offsets",
        data_dir.display(),
        copied.len(),
        size::show(bytes),
        size::show((bytes as f64 / seconds.max(0.001)) as u64),
    );
    for (task, copied) in tasks.iter().zip(copied) {
        if let Some(cut) = &copied.cut {
            println!("{}: {cut}; as after that Kafka's recovery", task.name);
        }
        if copied.aborted > 0 {
            println!("{}: {} open transactions were ended as aborted", task.name, copied.aborted);
        }
    }
    println!("\nstart the broker: thalweg --data-dir {}", data_dir.display());
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::{
        kafka::{META_PROPERTIES, RECOVERY_POINT_CHECKPOINT},
        segment::{PARTITION_METADATA, encode_metadata},
    };

    #[test]
    fn an_import_after_which_deleted_records_would_be_there_again_is_refused() {
        let root = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| fs::write(root.path().join(name), text).expect("written");
        fs::create_dir(root.path().join("orders-0")).expect("created");
        write(META_PROPERTIES, "node.id=1\n");
        write(&format!("orders-0/{PARTITION_METADATA}"), &encode_metadata(Uuid::from_u128(7)));
        let refused = |log_starts: &str, recovery_points: &str| {
            write(LOG_START_CHECKPOINT, log_starts);
            write(RECOVERY_POINT_CHECKPOINT, recovery_points);
            let kafka = Kafka::of_locked(root.path()).expect("readable");
            check_log_starts(&kafka).err().map(|error| error.to_string())
        };
        let (sound, damaged) = ("0\n1\norders 0 17\n", "0\n2\norders 0 17\n");
        assert_eq!((refused(sound, sound), refused("", sound), refused(sound, damaged)), (None, None, None));
        let said = refused(damaged, sound).expect("is refused");
        assert!(said.contains(LOG_START_CHECKPOINT) && said.contains("move it away"), "{said}");
    }
}
