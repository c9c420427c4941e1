//! Kafka's own command-line tools (4.3.1) work on us.

use anyhow::{Result, ensure};
use thalweg_tests::broker::{Broker, Options};
use thalweg_tests::clients::{Consume, Family, Produce, Session};
use thalweg_tests::kafka::{require_kafka, tool};
use thalweg_tests::scratch::Scratch;

const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";
const CONFIGS: &str = "kafka.admin.ConfigCommand";
const GROUPS: &str = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
const OFFSETS: &str = "org.apache.kafka.tools.GetOffsetShell";

#[test]
fn kafkas_tools_manage_topics_settings_groups_and_offsets() {
    thalweg_tests::run("console", |scratch| {
        require_kafka()?;
        manage(scratch)
    });
}

fn manage(scratch: &Scratch) -> Result<()> {
    let broker = Broker::start(scratch, Options::default())?;
    let bootstrap = broker.bootstrap();
    let ask = |class: &str, arguments: &[&str]| {
        let mut all = vec!["--bootstrap-server", bootstrap.as_str()];
        all.extend(arguments);
        tool(class, &all)
    };
    let says = |text: &str, words: &[&str]| -> Result<()> {
        // The tools line their columns up with spaces and tabs.
        let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let missing: Vec<&&str> = words.iter().filter(|w| !flat.contains(**w)).collect();
        ensure!(missing.is_empty(), "{missing:?} is missing in:\n{text}");
        Ok(())
    };

    ask(TOPICS, &["--create", "--topic", "t", "--partitions", "3", "--config", "retention.ms=86400000"])?;
    says(&ask(TOPICS, &["--list"])?, &["t"])?;
    says(
        &ask(TOPICS, &["--describe", "--topic", "t"])?,
        &["PartitionCount: 3", "ReplicationFactor: 1", "retention.ms=86400000", "Partition: 2", "Isr:"],
    )?;
    ask(TOPICS, &["--alter", "--topic", "t", "--partitions", "5"])?;
    says(&ask(TOPICS, &["--describe", "--topic", "t"])?, &["PartitionCount: 5"])?;

    let topic = ["--entity-type", "topics", "--entity-name", "t"];
    ask(CONFIGS, &[&topic[..], &["--alter", "--add-config", "max.message.bytes=2000000"]].concat())?;
    let described = ask(CONFIGS, &[&topic[..], &["--describe"]].concat())?;
    says(&described, &["max.message.bytes=2000000", "retention.ms=86400000"])?;
    ask(CONFIGS, &[&topic[..], &["--alter", "--delete-config", "retention.ms"]].concat())?;
    let described = ask(CONFIGS, &[&topic[..], &["--describe"]].concat())?;
    ensure!(!described.contains("retention.ms=86400000"), "a deleted setting is still there:\n{described}");

    let task = Produce { count: Some(1_000), ..Produce::new(&bootstrap, "t", "console") };
    Session::produce(scratch, Family::Rdkafka, task)?.until("have every record acked", |p| p.done)?;
    let ends = ask(OFFSETS, &["--topic", "t"])?;
    let total: i64 = ends.lines().filter_map(|l| l.rsplit(':').next()?.parse::<i64>().ok()).sum();
    ensure!(total == 1_000, "GetOffsetShell counts {total} records:\n{ends}");

    let task = Consume { bootstrap: bootstrap.clone(), topic: "t".to_owned(), group: "g".to_owned(), session_ms: None };
    let mut reader = Session::consume(scratch, Family::Rdkafka, task)?;
    reader.until("read every record", |r| r.read.len() >= 1_000)?;
    says(&ask(GROUPS, &["--list"])?, &["g"])?;
    says(&ask(GROUPS, &["--describe", "--group", "g", "--state"])?, &["Stable"])?;
    says(&ask(GROUPS, &["--describe", "--group", "g", "--members"])?, &["rdkafka"])?;
    reader.stop()?;
    let described = ask(GROUPS, &["--describe", "--group", "g"])?;
    let lag: i64 = described.lines().filter(|l| l.starts_with("g ")).filter_map(|l| l.split_whitespace().nth(5)?.parse::<i64>().ok()).sum();
    ensure!(lag == 0, "the group has read everything, and its lag is {lag}:\n{described}");

    ask(GROUPS, &["--reset-offsets", "--group", "g", "--topic", "t", "--to-earliest", "--execute"])?;
    let described = ask(GROUPS, &["--describe", "--group", "g"])?;
    let lag: i64 = described.lines().filter(|l| l.starts_with("g ")).filter_map(|l| l.split_whitespace().nth(5)?.parse::<i64>().ok()).sum();
    ensure!(lag == 1_000, "the group was put back to the start, and its lag is {lag}:\n{described}");
    ask(GROUPS, &["--delete", "--group", "g"])?;
    ensure!(!ask(GROUPS, &["--list"])?.lines().any(|l| l.trim() == "g"), "a deleted group is still listed");

    ask(TOPICS, &["--delete", "--topic", "t"])?;
    ensure!(!ask(TOPICS, &["--list"])?.lines().any(|l| l.trim() == "t"), "a deleted topic is still listed");
    Ok(())
}
