//! The keys that a config file may have, and the nearest one to a key that it may not.

use crate::catalog::broker_configs;
use std::collections::BTreeMap;

/// Our own keys.
pub const OWN: &[&str] = &[
    "accept_loss",
    "advertise",
    "advertise_ports",
    "allow_buffered",
    "core_ports",
    "cores",
    "data_dir",
    "journal_dir",
    "journal_size",
    "listen",
    "log_level",
    "metrics",
    "validate",
];

/// Kafka's other name for the data directory.
pub const LOG_DIR: &str = "log.dir";

/// Prefixes of Kafka's properties that have no meaning on one machine: copied configurations are full of them.
const MEANINGLESS: &[&str] = &[
    "background.threads",
    "broker.",
    "controlled.shutdown.",
    "controller.",
    "default.replication.factor",
    "inter.broker.",
    "leader.imbalance.",
    "listener.",
    "log.cleaner.",
    "log.flush.",
    "log.message.downconversion.enable",
    "log.retention.check.interval.ms",
    "max.connections.per.ip",
    "metadata.",
    "metrics.",
    "auto.leader.rebalance.enable",
    "num.recovery.threads.per.data.dir",
    "num.replica.",
    "offsets.",
    "process.roles",
    "queued.max.requests",
    "replica.",
    "sasl.",
    "security.",
    "share.",
    "socket.",
    "ssl.",
    "transaction.",
    "zookeeper.",
];

/// Properties that are known, and shown when a client asks for them, and change nothing.
pub const WITHOUT_EFFECT: &[&str] = &[
    "broker.id",
    "broker.rack",
    "default.replication.factor",
    "log.flush.interval.messages",
    "log.flush.interval.ms",
    "log.index.interval.bytes",
    "log.index.size.max.bytes",
    "log.local.retention.bytes",
    "log.local.retention.ms",
    "log.preallocate",
    "log.roll.jitter.hours",
    "log.roll.jitter.ms",
    "log.segment.delete.delay.ms",
    "min.insync.replicas",
    "node.id",
    "num.io.threads",
    "num.network.threads",
    "offsets.topic.replication.factor",
    "unclean.leader.election.enable",
];

/// Our keys, and Kafka's names of the same settings.
const SAME: &[(&str, &[&str])] =
    &[("advertise", &["advertised.listeners"]), ("data_dir", &["log.dirs", LOG_DIR]), ("listen", &["listeners"])];

/// The first two of a file's keys that name one setting.
pub fn contradiction<'a>(mut keys: impl Iterator<Item = &'a str>) -> Option<(&'a str, &'a str)> {
    let setting = |key: &str| {
        let own = key.replace('-', "_");
        SAME.iter().find(|(_, kafkas)| kafkas.contains(&key)).map_or(own, |(name, _)| (*name).to_owned())
    };
    let mut seen = BTreeMap::new();
    keys.find_map(|key| seen.insert(setting(key), key).map(|other| (other, key)))
}

/// What a key is.
#[derive(Debug, PartialEq, Eq)]
pub enum Key {
    /// One of ours, in our spelling.
    Own(String),
    /// A property of Kafka that is known, by its name.
    Kafka(String),
    /// A property of Kafka that means nothing here.
    Meaningless,
    /// Something else; the nearest known key.
    Unknown(Option<&'static str>),
}

/// What a key is. Dashes and underscores are the same in our own.
#[must_use]
pub fn classify(key: &str) -> Key {
    let own = key.replace('-', "_");
    if OWN.contains(&own.as_str()) {
        Key::Own(own)
    } else if key == LOG_DIR || broker_configs::find(key).is_some() {
        Key::Kafka(key.into())
    } else {
        let nearest = nearest(key);
        match MEANINGLESS.iter().any(|prefix| key.starts_with(prefix)) && nearest.is_none_or(|(_, distance)| distance > 2) {
            true => Key::Meaningless,
            false => Key::Unknown(nearest.map(|(known, _)| known)),
        }
    }
}

/// The known key with the fewest edits, if they are few enough to be a slip.
fn nearest(key: &str) -> Option<(&'static str, usize)> {
    let known = OWN.iter().copied().chain(broker_configs::ALL.iter().map(|setting| setting.name));
    let (found, distance) = known.map(|known| (known, distance(&key.replace('-', "_"), known))).min_by_key(|(_, distance)| *distance)?;
    (distance <= 2 + key.len() / 4).then_some((found, distance))
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, right) in b.iter().enumerate() {
            let change = corner + usize::from(left != *right);
            corner = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_pen_is_told_the_nearest_key() {
        assert_eq!(classify("num.partition"), Key::Unknown(Some("num.partitions")));
        assert_eq!(classify("journalsize"), Key::Unknown(Some("journal_size")));
        assert_eq!(classify("log.retention.hour"), Key::Unknown(Some("log.retention.hours")));
        assert_eq!(classify("something.else.entirely.here"), Key::Unknown(None));
    }

    #[test]
    fn kafkas_names_and_ours_are_known() {
        assert_eq!(classify("data-dir"), Key::Own("data_dir".into()));
        assert_eq!(classify("num.partitions"), Key::Kafka("num.partitions".into()));
        assert_eq!(classify("zookeeper.connect"), Key::Meaningless);
        let without_effect = ["log.retention.check.interval.ms", "max.connections.per.ip", "offsets.topic.segment.bytes"];
        assert!(without_effect.into_iter().chain(["queued.max.requests"]).all(|key| classify(key) == Key::Meaningless));
        assert_eq!(classify("transaction.state.log.replication.factor"), Key::Meaningless);
    }
}
