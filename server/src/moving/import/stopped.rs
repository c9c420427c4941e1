//! A stopped Kafka's log directory as `compact` works on it: its partitions, and the configs that its topics have there.

use super::{configs::Known, kafka::Kafka, metadata::Metadata};
use crate::{
    catalog::{Catalog, Configs},
    settings::Settings,
};
use anyhow::{Result, bail};
use std::path::{Path, PathBuf};

/// What is in the directory.
#[derive(Debug)]
pub struct StoppedKafka {
    /// Its topics, by name, the broker's own included.
    pub topics: Vec<KafkaTopic>,
    /// What the operator should know.
    pub notes: Vec<String>,
}

/// A topic.
#[derive(Clone, Debug)]
pub struct KafkaTopic {
    /// Its name.
    pub name: String,
    /// Its configs, as a topic would have to have them here.
    pub configs: Configs,
    /// Its partitions in this directory.
    pub partitions: Vec<i32>,
}

impl StoppedKafka {
    /// Reads a directory whose lock the caller holds. `configs` are files as `thalweg import --configs` takes them.
    ///
    /// # Errors
    /// It is no Kafka's, or was not stopped cleanly; a file can't be read.
    pub fn read(path: &Path, configs: &[PathBuf]) -> Result<StoppedKafka> {
        let kafka = Kafka::of_locked(path)?;
        if !kafka.clean {
            bail!(
                "{} was not stopped cleanly (there is no .kafka_cleanshutdown): that Kafka has to recover it first. Start it, stop it with SIGTERM, \
                 and run this again",
                path.display()
            );
        }
        let metadata = kafka.metadata.as_deref().map(|path| Metadata::read(path, false)).transpose()?;
        let known = Known::read(configs, metadata.as_ref(), kafka.node_id.as_deref())?;
        let (catalog, settings) = (Catalog::default(), Settings::default());
        let mut stopped = StoppedKafka { topics: Vec::new(), notes: Vec::new() };
        for (name, partitions) in &kafka.topics {
            let is_there = |id| metadata.as_ref().is_none_or(|metadata| metadata.topics.get(id).is_some_and(|(known, _)| known == name));
            if !partitions.values().all(|partition| is_there(&partition.id)) {
                stopped.notes.push(format!("{name}: left alone, since that Kafka has deleted it"));
                continue;
            }
            if known.is_tiered(name) {
                stopped.notes.push(format!("{name}: left alone, since a part of it may be in remote storage only"));
                continue;
            }
            let resolved = match known.resolve(name, &catalog, &settings) {
                Ok(resolved) => resolved,
                Err(error) => {
                    stopped.notes.push(format!("{name}: left alone: {error:#}"));
                    continue;
                }
            };
            stopped.notes.extend(resolved.notes);
            let partitions = partitions.keys().copied().collect();
            stopped.topics.push(KafkaTopic { name: name.clone(), configs: resolved.configs, partitions });
        }
        Ok(stopped)
    }
}
