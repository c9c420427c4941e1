//! Which partitions are worked on, and with which settings.

use anyhow::{Result, bail};
use engine::partition::{PartitionConfig, PartitionId, PartitionSpec};
use server::{catalog::Catalog, settings::Settings};
use std::collections::BTreeMap;

/// What was asked for.
pub(crate) struct Choice<'a> {
    pub(crate) topics: &'a [String],
    pub(crate) partitions: &'a [i32],
    pub(crate) set: &'a BTreeMap<String, String>,
}

/// A partition that is worked on.
#[derive(Clone, Debug)]
pub(crate) struct Chosen {
    pub(crate) id: PartitionId,
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) core: usize,
    /// Its settings in force, without `--set`.
    pub(crate) in_force: PartitionConfig,
    /// `cleanup.policy`, as it is set.
    pub(crate) policy: String,
}

impl Chosen {
    /// Its directory in the data directory.
    pub(crate) fn directory(&self) -> String {
        format!("{}-{}", self.topic, self.partition)
    }
}

/// All partitions of the catalog, with the settings that were asked for on those that are chosen, and the latter.
pub(crate) fn choose(choice: &Choice<'_>, catalog: &Catalog, settings: &Settings) -> Result<(Vec<PartitionSpec>, Vec<Chosen>)> {
    for name in choice.topics {
        if catalog.topic(name).is_none() {
            bail!("there is no topic {name}");
        }
    }
    let (mut specs, mut all_chosen) = (Vec::new(), Vec::new());
    for topic in catalog.topics() {
        let of_topic = choice.topics.is_empty() || choice.topics.contains(&topic.name);
        let mut configs = topic.configs.clone();
        configs.extend(choice.set.iter().map(|(name, value)| (name.clone(), value.clone())));
        let (what_if, policy) = (catalog.partition_config(&configs, settings), catalog.topic_text(&configs, settings, "cleanup.policy"));
        for (partition, mut spec) in (0i32..).zip(catalog.specs(topic, settings)) {
            if of_topic && (choice.partitions.is_empty() || choice.partitions.contains(&partition)) {
                let in_force = std::mem::replace(&mut spec.config, what_if.clone());
                let (topic, policy) = (topic.name.clone(), policy.clone());
                all_chosen.push(Chosen { id: spec.id, topic, partition, core: spec.core, in_force, policy });
            }
            specs.push(spec);
        }
    }
    if let Some(missing) = choice.partitions.iter().find(|wanted| all_chosen.iter().all(|chosen| chosen.partition != **wanted)) {
        bail!("there is no partition {missing} of {}", choice.topics.join(", "));
    }
    all_chosen.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
    Ok((specs, all_chosen))
}
