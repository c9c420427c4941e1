//! Which value a setting has, and where it comes from: the topic, the broker's store, the config file, or the default.

use super::{
    Catalog, Configs, Topic, broker_configs,
    settings::{Setting, list},
    topic_configs,
};
use crate::settings::Settings;
use engine::{
    partition::{PartitionConfig, PartitionSpec, TimestampType},
    retention::Retention,
};

/// Where a value comes from, with Kafka's number for it in DescribeConfigs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Set on the topic.
    Topic = 1,
    /// Set on the broker while running, asked for by node.
    Broker = 2,
    /// Set on the broker while running, for all nodes.
    BrokerDefault = 3,
    /// From the config file or the command line.
    File = 4,
    /// Kafka's default.
    Default = 5,
}

/// One place that gives a setting a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// The setting's name in that place.
    pub name: String,
    /// The value there.
    pub value: String,
    /// The place.
    pub source: Source,
}

/// A setting's value, and all places that give it one, the winning one first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// The value, `None` for Kafka's null.
    pub value: Option<String>,
    /// Where it comes from.
    pub source: Source,
    /// The places.
    pub synonyms: Vec<Given>,
}

/// The value of a topic's setting. `configs` is what the topic sets.
#[must_use]
pub fn of_topic(setting: &Setting, configs: &Configs, catalog: &Catalog, settings: &Settings) -> Effective {
    let given = |name: &str, value: &str, source| Given { name: name.into(), value: value.into(), source };
    // Each place as it is, and its value in this setting's unit.
    let mut places: Vec<(Given, String)> = Vec::new();
    if let Some(value) = configs.get(setting.name) {
        places.push((given(setting.name, value, Source::Topic), value.clone()));
    }
    for (name, factor) in setting.synonyms {
        if let Some(value) = catalog.broker_configs().get(*name) {
            places.push((given(name, value, Source::BrokerDefault), scaled(value, *factor)));
        }
        if let Some(value) = settings.properties.get(*name) {
            places.push((given(name, value, Source::File), scaled(value, *factor)));
        }
    }
    if let Some(value) = settings.topic_defaults.get(setting.name)
        && !places.iter().any(|(place, _)| place.source == Source::File)
    {
        places.push((given(setting.name, value, Source::File), value.clone()));
    }
    let (mut synonyms, values): (Vec<Given>, Vec<String>) = places.into_iter().unzip();
    let default = setting.default.map(str::to_owned);
    if let Some((name, _)) = setting.synonyms.first()
        && let Some(value) = broker_configs::find(name).and_then(|setting| setting.default)
    {
        synonyms.push(given(name, value, Source::Default));
    }
    match values.into_iter().next() {
        Some(value) => Effective { value: Some(value), source: synonyms[0].source, synonyms },
        None => Effective { value: default, source: Source::Default, synonyms },
    }
}

/// The value of a broker's setting. `dynamic` is what the store's values are called: [`Source::Broker`] if a node was
/// asked for.
#[must_use]
pub fn of_broker(setting: &Setting, dynamic: Source, catalog: &Catalog, settings: &Settings) -> Effective {
    let places = [
        (catalog.broker_configs().get(setting.name).cloned(), dynamic),
        (settings.properties.get(setting.name).cloned(), Source::File),
        (setting.default.map(str::to_owned), Source::Default),
    ];
    let synonyms: Vec<Given> =
        places.into_iter().filter_map(|(value, source)| Some(Given { name: setting.name.into(), value: value?, source })).collect();
    match synonyms.first() {
        Some(first) => Effective { value: Some(first.value.clone()), source: first.source, synonyms },
        None => Effective { value: None, source: Source::Default, synonyms },
    }
}

/// A value in another unit. Negative ones mean "no bound" in every unit.
pub(crate) fn scaled(value: &str, factor: i64) -> String {
    match value.trim().parse::<i64>() {
        Ok(number) if factor != 1 => if number < 0 { -1 } else { number.saturating_mul(factor) }.to_string(),
        _ => value.to_owned(),
    }
}

impl Catalog {
    /// The value of a topic's setting that is a number. Values were checked when they were set; one of the config file
    /// that is none gives way to the default.
    #[must_use]
    pub fn topic_number(&self, configs: &Configs, settings: &Settings, name: &str) -> i64 {
        let Some(setting) = topic_configs::find(name) else { return 0 };
        let effective = of_topic(setting, configs, self, settings).value;
        let number = |text: &str| text.trim().parse().ok();
        effective.as_deref().and_then(number).or_else(|| setting.default.and_then(number)).unwrap_or(0)
    }

    /// The value of a topic's setting as text.
    #[must_use]
    pub fn topic_text(&self, configs: &Configs, settings: &Settings, name: &str) -> String {
        topic_configs::find(name).and_then(|setting| of_topic(setting, configs, self, settings).value).unwrap_or_default()
    }

    /// Whether records of a topic may be deleted for their age or place: its `cleanup.policy` has `delete`.
    #[must_use]
    pub fn deletes(&self, configs: &Configs, settings: &Settings) -> bool {
        self.has_policy(configs, settings, "delete")
    }

    fn has_policy(&self, configs: &Configs, settings: &Settings, wanted: &str) -> bool {
        list(&self.topic_text(configs, settings, "cleanup.policy")).any(|word| word == wanted)
    }

    /// What the engine is told of a topic's settings.
    #[must_use]
    pub fn partition_config(&self, configs: &Configs, settings: &Settings) -> PartitionConfig {
        let number = |name| self.topic_number(configs, settings, name);
        let has_policy = |wanted: &str| self.has_policy(configs, settings, wanted);
        let retention =
            Retention { ms: Some(number("retention.ms")).filter(|ms| *ms >= 0), bytes: u64::try_from(number("retention.bytes")).ok() };
        let dirty_ratio = self.topic_text(configs, settings, "min.cleanable.dirty.ratio").trim().parse::<f64>();
        let append_time = self.topic_text(configs, settings, "message.timestamp.type").trim() == "LogAppendTime";
        PartitionConfig {
            segment_bytes: number("segment.bytes").max(1) as u64,
            segment_ms: number("segment.ms").max(1),
            max_message_bytes: number("max.message.bytes").max(0) as usize,
            timestamp_type: if append_time { TimestampType::LogAppendTime } else { TimestampType::CreateTime },
            timestamp_before_max_ms: number("message.timestamp.before.max.ms"),
            timestamp_after_max_ms: number("message.timestamp.after.max.ms"),
            compacted: has_policy("compact"),
            retention: has_policy("delete").then_some(retention),
            min_cleanable_dirty_ratio: dirty_ratio.ok().filter(|ratio| (0.0..=1.0).contains(ratio)).unwrap_or(0.5),
            min_compaction_lag_ms: number("min.compaction.lag.ms"),
            max_compaction_lag_ms: number("max.compaction.lag.ms").max(1),
            delete_retention_ms: number("delete.retention.ms"),
            strict: settings.strict,
        }
    }

    /// A topic's partitions as the engine knows them.
    pub fn specs<'a>(&'a self, topic: &'a Topic, settings: &Settings) -> impl Iterator<Item = PartitionSpec> + use<'a> {
        let config = self.partition_config(&topic.configs, settings);
        topic.partitions.iter().enumerate().map(move |(index, partition)| PartitionSpec {
            id: partition.id,
            topic_id: topic.id,
            directory: format!("{}-{index}", topic.name).into(),
            core: partition.core,
            leader_epoch: partition.leader_epoch,
            internal: topic.internal,
            config: config.clone(),
        })
    }

    /// Every partition as the engine knows it, the catalog's own left out: what a start is given.
    #[must_use]
    pub fn all_specs(&self, settings: &Settings) -> Vec<PartitionSpec> {
        self.topics().flat_map(|topic| self.specs(topic, settings)).collect()
    }
}
