//! What is to be done on the Kafka's side, as a script whose steps are Kafka's own tools.

use crate::catalog::Configs;
use std::fmt::Write;

/// A topic as it is to be created.
pub(super) struct Topic {
    pub(super) name: String,
    pub(super) partitions: usize,
    pub(super) configs: Configs,
}

/// The commands, without the steps around them.
pub(super) struct Commands {
    /// `kafka-topics.sh --create …`
    pub(super) create: Vec<String>,
    /// What each of these comes to if it fails, since the topic is there already: `is_there TOPIC PARTITIONS NAME=VALUE…`
    is_there: Vec<String>,
    /// What follows once the Kafka has the data: log starts, offsets of groups.
    pub(super) finish: Vec<String>,
}

/// The commands for these topics, groups (name, file) and, if there is one, the file of log starts.
pub(super) fn commands(topics: &[Topic], groups: &[(String, String)], log_starts: Option<&str>) -> Commands {
    let create = topics.iter().map(|topic| {
        let mut line = format!(
            "kafka-topics.sh --bootstrap-server \"$BOOTSTRAP\" --create --topic {} --partitions {} --replication-factor 1",
            quoted(&topic.name),
            topic.partitions
        );
        for (name, value) in &topic.configs {
            let _ = write!(line, " --config {}", quoted(&format!("{name}={value}")));
        }
        line
    });
    let is_there = topics.iter().map(|topic| {
        let configs = topic.configs.iter().map(|(name, value)| format!(" {}", quoted(&format!("{name}={value}"))));
        format!("is_there {} {}{}", quoted(&topic.name), topic.partitions, configs.collect::<String>())
    });
    let starts = log_starts
        .map(|file| format!("kafka-delete-records.sh --bootstrap-server \"$BOOTSTRAP\" --offset-json-file \"$HERE\"/{}", quoted(file)));
    let offsets = groups.iter().map(|(group, file)| {
        format!(
            "kafka-consumer-groups.sh --bootstrap-server \"$BOOTSTRAP\" --reset-offsets --group {} --from-file \"$HERE\"/{} --execute",
            quoted(group),
            quoted(file)
        )
    });
    Commands { create: create.collect(), is_there: is_there.collect(), finish: starts.into_iter().chain(offsets).collect() }
}

/// The whole script; `notes` are for whoever runs it.
pub(super) fn text(commands: &Commands, notes: &[String]) -> String {
    let block = |commands: &[String]| match commands {
        [] => "    :\n".to_owned(),
        some => some.iter().map(|line| format!("    run {line}\n")).collect(),
    };
    let create = commands.create.iter().zip(&commands.is_there).map(|(create, is_there)| format!("{create} ||\n        {is_there}"));
    let create: Vec<String> = create.collect();
    let notes: String = notes.iter().map(|note| format!("# Note: {note}\n")).collect();
    TEMPLATE.replace("@NOTES@", &notes).replace("@CREATE@", &block(&create)).replace("@FINISH@", &block(&commands.finish))
}

/// A word as the shell takes it literally.
fn quoted(text: &str) -> String {
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-=/:%".contains(&byte));
    if is_plain { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

const TEMPLATE: &str = r#"#!/bin/sh
# Moves what `thalweg export` wrote here into an Apache Kafka (one broker; raise the replication factor afterwards by reassignment).
#
#   1. sh to-kafka.sh create     creates the topics, with the same partition counts and configs
#   2. stop that Kafka cleanly (SIGTERM)
#   3. sh to-kafka.sh lay-in     puts the segments into its log directory; on its machine, as its user
#   4. start it
#   5. sh to-kafka.sh finish     sets log starts and the offsets of groups (their consumers must not run yet)
#
# BOOTSTRAP  its address                              (localhost:9092)
# LOG_DIR    its log.dirs, separated by commas        (needed by lay-in)
# KAFKA_BIN  where kafka-topics.sh and the others are (found in PATH if it is not set)
@NOTES@set -eu
HERE=$(cd "$(dirname "$0")" && pwd)
: "${BOOTSTRAP:=localhost:9092}"

run() {
    tool=$1
    shift
    echo "+ $tool $*"
    "${KAFKA_BIN:+$KAFKA_BIN/}$tool" "$@"
}

# A topic that could not be created is what this script has created before: NAME PARTITIONS CONFIG=VALUE...
is_there() {
    topic=$1
    partitions=$2
    shift 2
    found=$("${KAFKA_BIN:+$KAFKA_BIN/}kafka-topics.sh" --bootstrap-server "$BOOTSTRAP" --describe --topic "$topic" |
        tr '\t' ' ' | grep -F "Topic: $topic TopicId:") || return 1
    is_same=yes
    case "$found" in
    *" PartitionCount: $partitions "*) ;;
    *) is_same=no ;;
    esac
    for config; do
        case ",${found##* Configs: }," in
        *",$config,"*) ;;
        *) is_same=no ;;
        esac
    done
    if [ "$is_same" = no ]; then
        echo "$topic is there already, with other partitions or configs: delete it there, and run 'create' again" >&2
        return 1
    fi
    echo "$topic is there already, as it is to be"
}

create() {
@CREATE@}

# The directory of a partition in one of the log.dirs.
home_of() {
    old_ifs=$IFS
    IFS=,
    for dir in $LOG_DIR; do
        if [ -d "$dir/$1" ]; then
            IFS=$old_ifs
            echo "$dir/$1"
            return
        fi
    done
    IFS=$old_ifs
    echo "$1 is in none of $LOG_DIR: run 'create' first, then stop that Kafka" >&2
    return 1
}

lay_in() {
    : "${LOG_DIR:?set it to the log.dirs of that Kafka}"
    first=${LOG_DIR%%,*}
    if [ ! -e "$first/.kafka_cleanshutdown" ]; then
        echo "$first/.kafka_cleanshutdown is not there: that Kafka still runs, or was not stopped cleanly" >&2
        exit 1
    fi
    for from in "$HERE"/partitions/*/; do
        to=$(home_of "$(basename "$from")")
        # A partition that was just created has one empty log; what this script has begun to lay in has its mark.
        if [ ! -e "$to/thalweg.lay-in" ] && [ -n "$(find "$to" -name '*.log' -size +0)" ]; then
            echo "$to holds records of its own: nothing was changed. Delete that topic there, and create it again" >&2
            exit 1
        fi
    done
    for from in "$HERE"/partitions/*/; do
        to=$(home_of "$(basename "$from")")
        echo "+ $to"
        : > "$to/thalweg.lay-in"
        rm -f "$to"/0*
        cp -p "$from"0* "$to"/
    done
    sync
    for from in "$HERE"/partitions/*/; do
        rm "$(home_of "$(basename "$from")")/thalweg.lay-in"
    done
    echo "the segments are in place: start that Kafka, then run 'finish'"
}

finish() {
@FINISH@}

case "${1:-}" in
create) create ;;
lay-in) lay_in ;;
finish) finish ;;
*)
    sed -n '2,/^set -eu/s/^# \{0,1\}//p' "$0"
    exit 2
    ;;
esac
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_reach_the_tools_as_they_are() {
        let configs = Configs::from([("cleanup.policy".into(), "compact,delete".into()), ("retention.ms".into(), "-1".into())]);
        let topics = [Topic { name: "orders".into(), partitions: 3, configs }];
        let groups = [("it's mine".to_owned(), "groups/it%27s%20mine.csv".to_owned())];
        let commands = commands(&topics, &groups, Some("log-starts.json"));
        assert!(
            commands.create[0]
                .ends_with("--partitions 3 --replication-factor 1 --config 'cleanup.policy=compact,delete' --config retention.ms=-1")
        );
        assert_eq!(commands.is_there, ["is_there orders 3 'cleanup.policy=compact,delete' retention.ms=-1"]);
        assert!(commands.finish[0].contains("kafka-delete-records.sh"));
        assert!(commands.finish[1].contains(r"--group 'it'\''s mine' --from-file"));
        let text = text(&commands, &["orders is large".to_owned()]);
        assert!(text.contains("\n# Note: orders is large\nset -eu\n"));
        assert!(!text.contains('@') || !text.contains("@CREATE@") && !text.contains("@FINISH@"));
    }
}
