//! Who asked for a change, and what the broker's log tells an operator of it: one line for each change that is durable, and none for
//! one that was refused or only tried (`validate_only`).

#![deny(clippy::disallowed_types)]

use crate::catalog::{Catalog, Change, Configs, Topic};
use std::{collections::BTreeSet, net::SocketAddr};

/// The most characters of a name that the log gets: a client's name for itself may have 32,767 bytes, and a group's.
const NAME_CHARS_MAX: usize = 100;

/// The front of a name that anybody may choose.
#[must_use]
pub fn bounded(name: &str) -> &str {
    name.char_indices().nth(NAME_CHARS_MAX).map_or(name, |(end, _)| &name[..end])
}

/// A client, as far as the log names it.
#[derive(Clone, Debug)]
pub struct Asker {
    peer: SocketAddr,
    client: String,
    /// It asked for something that did not exist, which creates it.
    is_automatic: bool,
}

impl Asker {
    /// A client that asks for just that change, with its name for itself.
    #[must_use]
    pub fn new(peer: SocketAddr, client: &str) -> Asker {
        Asker { peer, client: bounded(client).to_owned(), is_automatic: false }
    }

    /// The same client, where the broker makes what it asked about (`auto.create.topics.enable`).
    #[must_use]
    pub fn automatically(self) -> Asker {
        Asker { is_automatic: true, ..self }
    }

    /// A topic is there, or has more partitions: `added` of those that it has now.
    pub fn has_grown(&self, topic: &Topic, added: usize) {
        let (name, count) = (&topic.name, topic.partitions.len());
        let partitions = if count == 1 { "1 partition".to_owned() } else { format!("{count} partitions") };
        self.tell(&match (count.saturating_sub(added), self.is_automatic) {
            (0, false) => format!("topic {name} was created with {partitions}"),
            (0, true) => format!("topic {name} was created with {partitions}, since a client asked about it (auto.create.topics.enable)"),
            (before, _) => format!("topic {name} has {partitions} now, and had {before}"),
        });
    }

    /// A topic is deleted. What the cores have of it goes next.
    pub fn has_deleted(&self, topic: &Topic) {
        self.tell(&format!("topic {} was deleted", topic.name));
    }

    /// Settings have other values, by these changes of a catalog that does not have them yet.
    pub fn has_configured(&self, catalog: &Catalog, changes: &[Change]) {
        let mut of_broker = catalog.broker_configs();
        for change in changes {
            match change {
                Change::TopicConfigs { id, configs } => {
                    if let Some(topic) = catalog.topic_by_id(id) {
                        self.tell(&format!("configs of topic {} were changed: {}", topic.name, differing(&topic.configs, configs)));
                    }
                }
                Change::BrokerConfigs { configs } => {
                    self.tell(&format!("configs of the broker were changed: {}", differing(of_broker, configs)));
                    of_broker = configs;
                }
                _ => {}
            }
        }
    }

    /// The log of a partition starts at `log_start`, and did at `before`.
    pub fn has_deleted_records(&self, topic: &str, partition: i32, before: i64, log_start: i64) {
        self.tell(&format!("records of {topic}-{partition} were deleted: its log starts at offset {log_start}, and did at {before}"));
    }

    /// A group is deleted, with its committed offsets.
    pub fn has_deleted_group(&self, group: &str) {
        self.tell(&format!("group {:?} was deleted, with its committed offsets", bounded(group)));
    }

    fn tell(&self, what: &str) {
        tracing::info!(peer = %self.peer, client = self.client.as_str(), "{what}");
    }
}

/// The names of the settings that are not the same.
fn differing(before: &Configs, after: &Configs) -> String {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let differing = names.into_iter().filter(|name| before.get(*name) != after.get(*name));
    differing.map(String::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_came_went_or_changed_are_named_and_no_others() {
        let configs = |settings: &[(&str, &str)]| settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let before: Configs = configs(&[("cleanup.policy", "delete"), ("retention.ms", "5"), ("segment.ms", "7")]);
        let after: Configs = configs(&[("cleanup.policy", "delete"), ("retention.ms", "6"), ("max.message.bytes", "9")]);
        assert_eq!(differing(&before, &after), "max.message.bytes, retention.ms, segment.ms");
    }

    #[test]
    fn of_a_client_no_more_than_a_hundred_characters_are_kept() {
        let asker = Asker::new(([127, 0, 0, 1], 9092).into(), &"ä".repeat(5_000));
        assert_eq!(asker.client.chars().count(), NAME_CHARS_MAX);
    }
}
