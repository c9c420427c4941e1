//! `thalweg export`: topics of a stopped data directory, laid out for a Kafka.
//!
//! ```text
//! DIR/partitions/orders-0/000….log, .index, .timeindex, .txnindex   leader epoch 0 in every batch, no .snapshot
//! DIR/groups/billing.csv                                            topic,partition,offset: what --from-file reads
//! DIR/log-starts.json                                               for kafka-delete-records.sh, if any start is not a segment's
//! DIR/to-kafka.sh                                                   what is to be done there
//! DIR/.thalweg-export                                               "under way" or "complete"
//! ```

mod script;
mod stopped;

use super::{
    copy::{self, Reader, Task},
    failed, files,
    groups::Groups,
    select, settings, space,
};
use crate::{
    catalog::{
        CONSUMER_OFFSETS, Configs,
        effective::{Source, of_topic},
        topic_configs,
    },
    config::{Cli, Config, ExportArgs, size},
    progress::Progress,
};
use anyhow::{Result, bail};
use engine::segment::{FileKind, parse_file_name};
use script::Topic;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{IsTerminal, stderr},
    path::{Path, PathBuf},
    time::Instant,
};
use stopped::Stopped;

/// Says that a directory is an export, and whether all of it is there.
const MARK: &str = ".thalweg-export";
const UNDER_WAY: &str = "under way\n";
const COMPLETE: &str = "complete\n";
/// Everything that an export makes, but for its mark.
const SCRIPT: &str = "to-kafka.sh";
const LOG_STARTS: &str = "log-starts.json";
const PARTITIONS: &str = "partitions";
const GROUPS: &str = "groups";
/// Characters of a file's name that is made from a group's.
const NAME_LENGTH_MAX: usize = 200;

/// Exports topics.
///
/// # Errors
/// Each says what to do. Nothing of the source is changed; what was written is replaced by the next run.
pub fn run(args: &ExportArgs) -> Result<()> {
    let cli =
        Cli { data_dir: Some(args.data_dir.clone()), config: args.config.clone(), journal_dir: args.journal_dir.clone(), ..Cli::default() };
    let config = settings(&cli)?;
    check_target(&args.to, &args.data_dir)?;
    let source = Stopped::open(&config.log.data_dir, &config.log.journal_dir)?;
    let chosen =
        select::choose(source.catalog.topics().map(|topic| topic.name.as_str()), &args.topics, &source.path.display().to_string())?;
    let plan = Plan::of(&source, &config, &chosen, &args.to)?;
    plan.show();
    if args.dry_run {
        println!("\nnothing was written (--dry-run)");
        return Ok(());
    }
    space::check(&args.to, plan.bytes)?;
    plan.write(&args.to)
}

/// An export that was begun may be begun again; everything else in that place stays what it is.
fn check_target(to: &Path, data_dir: &Path) -> Result<()> {
    let absolute =
        |path: &Path| fs::canonicalize(path).or_else(|_| std::path::absolute(path)).map_err(|error| failed("look at", path, error));
    if absolute(to)?.starts_with(absolute(data_dir)?) {
        bail!("{} lies in the data directory, of which an export changes nothing: choose another place with --to", to.display());
    }
    if !to.exists() {
        return Ok(());
    }
    match files::text(&to.join(MARK))? {
        Some(text) if text == COMPLETE => {
            bail!("{} holds an export already: remove it, or choose another directory with --to. Nothing was written", to.display())
        }
        Some(_) => Ok(()),
        None if files::names(to)?.is_empty() => Ok(()),
        None => bail!("{} is not empty: choose another directory with --to. Nothing was written", to.display()),
    }
}

/// What is to be written.
struct Plan {
    topics: Vec<Topic>,
    tasks: Vec<Task>,
    bytes: u64,
    sizes: Vec<u64>,
    groups: Groups,
    /// Topic, partition and first offset, where this is within a segment.
    log_starts: Vec<(String, usize, i64)>,
    /// What the operator should know.
    notes: Vec<String>,
}

impl Plan {
    fn of(source: &Stopped, config: &Config, chosen: &BTreeSet<String>, to: &Path) -> Result<Plan> {
        let mut plan = Plan {
            topics: Vec::new(),
            tasks: Vec::new(),
            bytes: 0,
            sizes: Vec::new(),
            groups: Groups::default(),
            log_starts: Vec::new(),
            notes: Vec::new(),
        };
        let mut wrong = BTreeMap::new();
        let mut directories = |topic: &str| {
            let (whole, of_topic) = source.directories(topic);
            if !of_topic.is_empty() {
                wrong.insert(topic.to_owned(), of_topic);
            }
            whole
        };
        let topics = chosen.iter().filter_map(|name| source.catalog.topic(name));
        let topics: Vec<_> = topics.map(|topic| (topic, directories(&topic.name))).collect();
        let offsets = directories(CONSUMER_OFFSETS);
        if !wrong.is_empty() {
            return Err(source.refusal(chosen, &wrong));
        }
        for (topic, directories) in topics {
            let mut topic_bytes = 0;
            for (index, from) in directories.into_iter().enumerate() {
                let (first, bytes) = logs(&from)?;
                topic_bytes += bytes;
                let log_start = source.log_start(topic.partitions[index].id);
                if log_start > first {
                    plan.log_starts.push((topic.name.clone(), index, log_start));
                }
                let name = format!("{}-{index}", topic.name);
                let to = to.join(PARTITIONS).join(&name);
                plan.tasks.push(Task { name, from, to, reader: Reader::Kafka, torn_from: None });
            }
            plan.bytes += topic_bytes;
            plan.sizes.push(topic_bytes);
            let mut configs = Configs::new();
            for setting in topic_configs::ALL {
                let effective = of_topic(setting, &topic.configs, &source.catalog, &config.settings);
                if let Some(value) = effective.value.filter(|_| effective.source != Source::Default) {
                    configs.insert(setting.name.to_owned(), value);
                }
            }
            plan.notes.extend(unsatisfied(&topic.name, &configs));
            plan.topics.push(Topic { name: topic.name.clone(), partitions: topic.partitions.len(), configs });
        }
        plan.groups = Groups::read(&offsets, false)?;
        plan.groups.retain(chosen);
        Ok(plan)
    }

    fn show(&self) {
        let width = self.topics.iter().map(|topic| topic.name.len()).max().unwrap_or(0).max("topic".len());
        println!("{:width$}  partitions        size  configs", "topic");
        for (topic, bytes) in self.topics.iter().zip(&self.sizes) {
            let configs: Vec<String> = topic.configs.iter().map(|(name, value)| format!("{name}={value}")).collect();
            println!("{:width$}  {:>10}  {:>10}  {}", topic.name, topic.partitions, size::show(*bytes), configs.join(" "));
        }
        println!("{} groups with {} offsets on these topics", self.groups.offsets.len(), self.groups.count());
        self.notes.iter().for_each(|note| println!("note: {note}"));
    }

    fn write(&self, to: &Path) -> Result<()> {
        let began = Instant::now();
        fs::create_dir_all(to).map_err(|error| failed("make", to, error))?;
        files::write(&to.join(MARK), UNDER_WAY.as_bytes())?;
        files::sync_dir(to)?;
        for directory in [PARTITIONS, GROUPS] {
            files::remove_all(&to.join(directory))?;
            fs::create_dir(to.join(directory)).map_err(|error| failed("make", &to.join(directory), error))?;
        }
        for name in [SCRIPT, LOG_STARTS] {
            match fs::remove_file(to.join(name)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed("remove", &to.join(name), error)),
                _ => {}
            }
        }
        let progress = Progress::new(stderr().is_terminal(), self.bytes);
        let copied = copy::all(&self.tasks, &progress)?;
        drop(progress);
        let groups = self.write_groups(to)?;
        let log_starts = self.write_log_starts(to)?;
        let commands = script::commands(&self.topics, &groups, log_starts);
        files::write(&to.join(SCRIPT), script::text(&commands, &self.notes).as_bytes())?;
        for directory in [to.join(PARTITIONS), to.join(GROUPS), to.to_path_buf()] {
            files::sync_dir(&directory)?;
        }
        files::write(&to.join(MARK), COMPLETE.as_bytes())?;
        files::sync_dir(to)?;

        let (bytes, batches) = copied.iter().fold((0, 0), |(bytes, batches), one| (bytes + one.bytes, batches + one.batches));
        let took = began.elapsed();
        let speed = (bytes as f64 / took.as_secs_f64().max(0.001)) as u64;
        println!(
            "\nexported to {}: {} partitions, {batches} batches, {} in {:.1} s ({}/s)",
            to.display(),
            copied.len(),
            size::show(bytes),
            took.as_secs_f64(),
            size::show(speed)
        );
        for (task, copied) in self.tasks.iter().zip(&copied).filter(|(_, copied)| copied.aborted > 0) {
            println!("{}: {} open transactions were ended as aborted", task.name, copied.aborted);
        }
        show_steps(to, &commands);
        Ok(())
    }

    fn write_groups(&self, to: &Path) -> Result<Vec<(String, String)>> {
        let mut groups = Vec::new();
        for (at, (group, offsets)) in self.groups.offsets.iter().enumerate() {
            let rows: String =
                offsets.iter().map(|(topic, partition, committed)| format!("{topic},{partition},{}\n", committed.offset)).collect();
            let file = format!("{GROUPS}/{}", csv_name(group, at));
            files::write(&to.join(&file), rows.as_bytes())?;
            groups.push((group.clone(), file));
        }
        Ok(groups)
    }

    fn write_log_starts(&self, to: &Path) -> Result<Option<&'static str>> {
        if self.log_starts.is_empty() {
            return Ok(None);
        }
        let rows: Vec<String> = self
            .log_starts
            .iter()
            .map(|(topic, partition, offset)| format!("  {{\"topic\": \"{topic}\", \"partition\": {partition}, \"offset\": {offset}}}"))
            .collect();
        files::write(&to.join(LOG_STARTS), format!("{{\"partitions\": [\n{}\n], \"version\": 1}}\n", rows.join(",\n")).as_bytes())?;
        Ok(Some(LOG_STARTS))
    }
}

/// `min.insync.replicas` means nothing on one machine, and stays what the topic says; the Kafka takes it at its word.
fn unsatisfied(topic: &str, configs: &Configs) -> Option<String> {
    let wanted: u32 = configs.get("min.insync.replicas")?.trim().parse().ok().filter(|wanted| *wanted > 1)?;
    Some(format!(
        "{topic} has min.insync.replicas={wanted}, and is created with one replica: until a reassignment has given it {wanted}, that Kafka refuses what producers with acks=all send (NOT_ENOUGH_REPLICAS)"
    ))
}

fn show_steps(to: &Path, commands: &script::Commands) {
    let script = to.join(SCRIPT);
    let script = script.display();
    let block = |lines: &[String]| lines.iter().for_each(|line| println!("       {line}"));
    println!("\nOn the Kafka's side, with its tools in PATH (or KAFKA_BIN), HERE={}:", to.display());
    println!("  1. BOOTSTRAP=host:9092 sh {script} create");
    block(&commands.create);
    println!("  2. stop that Kafka cleanly");
    println!("  3. LOG_DIR=its/log.dirs sh {script} lay-in");
    println!("  4. start it");
    println!("  5. BOOTSTRAP=host:9092 sh {script} finish");
    block(&commands.finish);
}

/// The first offset of a partition's first segment, and the size of its logs in bytes.
fn logs(directory: &Path) -> Result<(i64, u64)> {
    let (mut first, mut bytes) = (None::<i64>, 0);
    for name in files::names(directory)? {
        if let Some((base, FileKind::Log)) = parse_file_name(&name) {
            let path: PathBuf = directory.join(name);
            first = Some(first.map_or(base, |first| first.min(base)));
            bytes += fs::metadata(&path).map_err(|error| failed("look at", &path, error))?.len();
        }
    }
    Ok((first.unwrap_or(0), bytes))
}

/// A file's name for a group: what is no plain character is written as `%` and its number, so that no two are alike.
fn csv_name(group: &str, at: usize) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    let name: String = group.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02x}") }).collect();
    if name.len() <= NAME_LENGTH_MAX && !name.is_empty() { format!("{name}.csv") } else { format!("group%{at}.csv") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_groups_have_names_of_their_own() {
        assert_eq!(csv_name("billing_2", 0), "billing_2.csv");
        assert_eq!(csv_name("../a b", 0), "%2e%2e%2fa%20b.csv");
        assert_eq!(csv_name("", 3), "group%3.csv");
        assert_eq!(csv_name(&"x".repeat(300), 7), "group%7.csv");
    }

    #[test]
    fn what_one_replica_cannot_satisfy_is_said_and_left_as_it_is() {
        let said = |value: &str| unsatisfied("orders", &Configs::from([("min.insync.replicas".into(), value.into())]));
        assert!(
            said("2")
                .is_some_and(|note| note.contains("orders has min.insync.replicas=2") && note.contains("acks=all") && !note.contains("  "))
        );
        assert_eq!((said("1"), unsatisfied("orders", &Configs::new())), (None, None));
    }

    #[test]
    fn only_an_export_that_was_cut_off_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (to, data) = (dir.path().join("out"), dir.path().join("data"));
        fs::create_dir(&data).unwrap();
        assert!(check_target(&to, &data).is_ok());
        fs::create_dir(&to).unwrap();
        assert!(check_target(&to, &data).is_ok());
        fs::write(to.join("mine"), "x").unwrap();
        assert!(check_target(&to, &data).unwrap_err().to_string().contains("is not empty"));
        fs::write(to.join(MARK), UNDER_WAY).unwrap();
        assert!(check_target(&to, &data).is_ok());
        fs::write(to.join(MARK), COMPLETE).unwrap();
        assert!(check_target(&to, &data).unwrap_err().to_string().contains("holds an export already"));
        assert!(check_target(&data.join("out"), &data).is_err());
    }
}
