//! The configs of topics: from `--configs` files and that Kafka's metadata log, to what is set here so that every topic behaves
//! as it did there.

use super::metadata::{BROKER, Metadata, TOPIC};
use crate::{
    catalog::{
        Catalog, Configs,
        effective::{of_topic, scaled},
        settings::list,
        topic_configs::{self, LONG_MAX},
    },
    moving::files,
    settings::Settings,
};
use anyhow::{Result, bail};
use std::{collections::BTreeMap, path::Path};

/// What is known of the configs of a Kafka's topics.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// By topic: what `kafka-configs.sh` printed.
    described: BTreeMap<String, Described>,
    /// `server.properties`.
    properties: Option<Configs>,
    /// What was set on topics, and on brokers while they ran, if the metadata log is there.
    metadata: Option<BTreeMap<(i8, String), Configs>>,
    node_id: String,
}

#[derive(Debug, Default)]
struct Described {
    /// `--all` was given: what is in neither map has Kafka's default.
    complete: bool,
    /// Set on the topic.
    set: Configs,
    /// What its brokers' settings made of the others.
    of_broker: Configs,
}

/// The configs of one topic here, and what the operator should know of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Resolved {
    pub(super) configs: Configs,
    pub(super) notes: Vec<String>,
}

impl Known {
    /// Reads the files.
    pub(super) fn read(paths: &[impl AsRef<Path>], metadata: Option<&Metadata>, node_id: Option<&str>) -> Result<Known> {
        let mut known = Known {
            metadata: metadata.map(|metadata| metadata.configs.clone()),
            node_id: node_id.unwrap_or_default().to_owned(),
            ..Known::default()
        };
        for path in paths {
            let path = path.as_ref();
            let Some(text) = files::text(path)? else { bail!("there is no {}", path.display()) };
            if !known.take(&text) {
                bail!(
                    "{} is neither what kafka-configs.sh --describe --entity-type topics prints (\"All configs for topic orders are:\") nor a \
                     server.properties (lines with \"=\")",
                    path.display()
                );
            }
        }
        Ok(known)
    }

    fn take(&mut self, text: &str) -> bool {
        let mut current: Option<&mut Described> = None;
        let (mut is_description, mut properties) = (false, Configs::new());
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', '!'])) {
            if let Some((kind, topic)) = heading(line) {
                is_description = true;
                let described = self.described.entry(topic.to_owned()).or_default();
                described.complete |= kind == "All";
                current = Some(described);
                continue;
            }
            let Some((name, value)) = line.split_once('=') else { continue };
            match &mut current {
                Some(described) => {
                    let Some((value, source)) = described_value(value) else { continue };
                    let to = match source {
                        "" | "DEFAULT_CONFIG" => continue,
                        "DYNAMIC_TOPIC_CONFIG" => &mut described.set,
                        _ => &mut described.of_broker,
                    };
                    to.insert(name.to_owned(), value.to_owned());
                }
                None => drop(properties.insert(name.trim().to_owned(), value.trim().to_owned())),
            }
        }
        if is_description {
            return true;
        }
        let is_any = !properties.is_empty();
        self.properties.get_or_insert_default().extend(properties);
        is_any
    }

    /// What a topic is to be given here. `catalog` and `settings` are the target's.
    pub(super) fn resolve(&self, topic: &str, catalog: &Catalog, settings: &Settings) -> Result<Resolved> {
        let described = self.described.get(topic);
        let of_metadata = self.metadata.as_ref().map(|all| all.get(&(TOPIC, topic.to_owned())).cloned().unwrap_or_default());
        let own = described.map(|described| described.set.clone()).or(of_metadata);
        let mut resolved = Resolved::default();
        for (name, value) in own.iter().flatten() {
            self.take_own(topic, name, value, &mut resolved)?;
        }
        let complete = described.is_some_and(|described| described.complete);
        let defaults_known = complete || self.properties.is_some();
        for setting in topic_configs::ALL {
            if resolved.configs.contains_key(setting.name) {
                continue;
            }
            let of_broker = match described.filter(|_| complete) {
                Some(described) => described.of_broker.get(setting.name).cloned(),
                None => self.of_broker(setting.synonyms),
            };
            let theirs = of_broker.or(setting.default.map(str::to_owned));
            let ours = of_topic(setting, &Configs::new(), catalog, settings).value;
            if let Some(value) = theirs.filter(|value| ours.as_ref() != Some(value) && setting.validate(value).is_ok()) {
                resolved.configs.insert(setting.name.to_owned(), value);
            }
        }
        if !defaults_known {
            self.keep_everything(topic, own.as_ref(), &mut resolved);
        }
        topic_configs::validate(&resolved.configs).map_err(|why| anyhow::anyhow!("the configs of topic {topic}: {why}"))?;
        Ok(resolved)
    }

    /// True if a part of the topic may be in another storage only (KIP-405).
    pub(super) fn is_tiered(&self, topic: &str) -> bool {
        let described = self.described.get(topic).map(|described| &described.set);
        let of_metadata = self.metadata.as_ref().and_then(|all| all.get(&(TOPIC, topic.to_owned())));
        described.or(of_metadata).and_then(|own| own.get("remote.storage.enable")).is_some_and(|value| value == "true")
    }

    fn take_own(&self, topic: &str, name: &str, value: &str, resolved: &mut Resolved) -> Result<()> {
        let Some(setting) = topic_configs::find(name) else {
            resolved.notes.push(format!("{topic}: {name}={value} is not known here and is left out"));
            return Ok(());
        };
        match setting.validate(value) {
            Ok(()) => drop(resolved.configs.insert(name.to_owned(), value.to_owned())),
            Err(_) if name.starts_with("remote.") => {
                resolved.notes.push(format!(
                    "{topic}: {name}={value} is left out: there is no tiered storage here, and what is only there is not moved"
                ));
            }
            Err(why) => bail!("topic {topic} has {name}={value}, which is not possible here: {why}"),
        }
        Ok(())
    }

    /// What the brokers' settings make of a topic's: those that were set while they ran win over server.properties.
    fn of_broker(&self, synonyms: &[(&str, i64)]) -> Option<String> {
        let dynamic = |name: &str| self.metadata.as_ref()?.get(&(BROKER, name.to_owned()));
        let places = [dynamic(&self.node_id), dynamic(""), self.properties.as_ref()];
        let value = |(name, factor): &(&str, i64)| {
            places.iter().flatten().find_map(|place| place.get(*name)).filter(|value| !value.is_empty()).map(|value| scaled(value, *factor))
        };
        synonyms.iter().find_map(value)
    }

    /// That Kafka's defaults of retention and of compaction's lags may be any: nothing goes until the operator has said so.
    fn keep_everything(&self, topic: &str, own: Option<&Configs>, resolved: &mut Resolved) {
        let policy = resolved.configs.get("cleanup.policy").map_or("delete", String::as_str);
        let [deletes, compacts] = ["delete", "compact"].map(|wanted| list(policy).any(|word| word == wanted));
        let is_unknown = |name: &&str| {
            let synonyms = topic_configs::find(name).map_or(&[][..], |setting| setting.synonyms);
            !own.is_some_and(|own| own.contains_key(*name)) && self.of_broker(synonyms).is_none()
        };
        let mut keep = Vec::new();
        if deletes {
            keep.push(("-1", ["retention.ms", "retention.bytes"].into_iter().filter(is_unknown).collect::<Vec<_>>()));
        }
        let [least, tombstones] = ["min.compaction.lag.ms", "delete.retention.ms"];
        if compacts && [least, tombstones].iter().any(is_unknown) {
            // A round writes into batches until when their tombstones stay: there is none before both are known. No lag may be
            // above the longest one.
            let mut names = vec![least];
            names.extend(Some("max.compaction.lag.ms").filter(|name| resolved.configs.contains_key(*name)));
            names.extend(Some(tombstones).filter(is_unknown));
            keep.push((LONG_MAX, names));
        }
        let why = if own.is_some() { "what that Kafka's default was is not known" } else { "its configs are not known" };
        for (value, names) in keep.into_iter().filter(|(_, names)| !names.is_empty()) {
            resolved.notes.push(format!("{topic}: {} = {value}, which keeps everything: {why}; see --configs", names.join(" and ")));
            resolved.configs.extend(names.into_iter().map(|name| (name.to_owned(), value.to_owned())));
        }
    }
}

/// `Dynamic configs for topic orders are:`, `All configs for topic orders are:`: the first word and the topic.
fn heading(line: &str) -> Option<(&str, &str)> {
    let (kind, rest) = line.split_once(" configs for topic ")?;
    Some((kind, rest.strip_suffix(" are:")?))
}

/// Value and source in `604800000 sensitive=false synonyms={DEFAULT_CONFIG:…}`: the first synonym is the one that counts.
fn described_value(text: &str) -> Option<(&str, &str)> {
    let (value, rest) = text.rsplit_once(" sensitive=")?;
    let source = rest.split_once("synonyms={")?.1.split_once(':').map_or("", |(source, _)| source);
    Some((value, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DESCRIBED: &str = "\
All configs for topic orders are:
  cleanup.policy=compact,delete sensitive=false synonyms={DYNAMIC_TOPIC_CONFIG:cleanup.policy=compact,delete, DEFAULT_CONFIG:log.cleanup.policy=delete}
  retention.ms=7200000 sensitive=false synonyms={STATIC_BROKER_CONFIG:log.retention.hours=2}
  min.insync.replicas=1 sensitive=false synonyms={DYNAMIC_DEFAULT_BROKER_CONFIG:min.insync.replicas=1, DEFAULT_CONFIG:min.insync.replicas=1}
  segment.bytes=1073741824 sensitive=false synonyms={DEFAULT_CONFIG:log.segment.bytes=1073741824}
  leader.replication.throttled.replicas= sensitive=false synonyms={}
";

    fn configs(pairs: &[(&str, &str)]) -> Configs {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn known(texts: &[&str], metadata: Option<&Metadata>) -> Known {
        let mut known = Known::read(&[] as &[&str], metadata, Some("1")).unwrap();
        texts.iter().for_each(|text| assert!(known.take(text)));
        known
    }

    fn resolve(known: &Known) -> Resolved {
        known.resolve("orders", &Catalog::default(), &Settings::default()).unwrap()
    }

    #[test]
    fn what_was_described_with_all_is_all_that_is_set() {
        let expected = configs(&[("cleanup.policy", "compact,delete"), ("retention.ms", "7200000")]);
        assert_eq!(resolve(&known(&[DESCRIBED], None)), Resolved { configs: expected, notes: Vec::new() });
    }

    #[test]
    fn the_brokers_defaults_become_configs_of_the_topic() {
        let mut metadata = Metadata::default();
        metadata.configs.insert((TOPIC, "orders".into()), configs(&[("segment.bytes", "1048576")]));
        metadata.configs.insert((BROKER, String::new()), configs(&[("log.retention.bytes", "5000")]));
        metadata.configs.insert((BROKER, "1".into()), configs(&[("log.retention.bytes", "6000")]));
        let resolved = resolve(&known(&["# a comment\nlog.retention.hours=1000\nnode.id=1\n"], Some(&metadata)));
        let expected = configs(&[("retention.bytes", "6000"), ("retention.ms", "3600000000"), ("segment.bytes", "1048576")]);
        assert_eq!(resolved, Resolved { configs: expected, notes: Vec::new() });
    }

    #[test]
    fn nothing_goes_while_the_default_of_retention_is_not_known() {
        let mut metadata = Metadata::default();
        let kept = resolve(&known(&[], Some(&metadata)));
        assert_eq!(kept.configs, configs(&[("retention.bytes", "-1"), ("retention.ms", "-1")]));
        assert_eq!(kept.notes.len(), 1);
        assert_eq!(resolve(&known(&[], None)).configs, kept.configs);
        let own = configs(&[("retention.bytes", "7"), ("retention.ms", "9")]);
        metadata.configs.insert((TOPIC, "orders".into()), own.clone());
        assert_eq!(resolve(&known(&[], Some(&metadata))), Resolved { configs: own, notes: Vec::new() });
    }

    #[test]
    fn nothing_is_compacted_while_the_default_of_a_lag_is_not_known() {
        let resolved = |own: &[(&str, &str)], texts: &[&str]| {
            let mut metadata = Metadata::default();
            metadata.configs.insert((TOPIC, "orders".into()), configs(own));
            resolve(&known(texts, Some(&metadata)))
        };
        let held = [("cleanup.policy", "compact"), ("min.compaction.lag.ms", LONG_MAX), ("delete.retention.ms", LONG_MAX)];
        let compacted = resolved(&held[..1], &[]);
        assert_eq!((compacted.configs, compacted.notes.len()), (configs(&held), 1));
        // The one that is known doesn't help, and the longest lag must not be below the least one.
        let own = [held[0], ("delete.retention.ms", "5"), ("max.compaction.lag.ms", "7")];
        let expected = configs(&[held[0], held[1], own[1], ("max.compaction.lag.ms", LONG_MAX)]);
        assert_eq!(resolved(&own, &[]).configs, expected);
        let own = [held[0], ("min.compaction.lag.ms", "5")];
        assert_eq!(resolved(&own, &[]).configs, configs(&held));
        let both = resolved(&[("cleanup.policy", "compact,delete")], &[]);
        assert_eq!((both.configs.len(), both.notes.len()), (5, 2));
        for own in [&held[..], &[held[0], ("min.compaction.lag.ms", "5"), ("delete.retention.ms", "6")]] {
            assert_eq!(resolved(own, &[]), Resolved { configs: configs(own), notes: Vec::new() });
        }
        let defaults = ["log.cleaner.delete.retention.ms=6"];
        let expected = configs(&[held[0], ("delete.retention.ms", "6")]);
        assert_eq!(resolved(&held[..1], &defaults), Resolved { configs: expected, notes: Vec::new() });
    }

    #[test]
    fn defaults_of_the_target_that_differ_are_overruled() {
        let settings = Settings { properties: BTreeMap::from([("log.retention.hours".into(), "1".into())]), ..Settings::default() };
        let known = known(&["All configs for topic orders are:\n"], None);
        let resolved = known.resolve("orders", &Catalog::default(), &settings).unwrap();
        assert_eq!(resolved.configs, configs(&[("retention.ms", "604800000")]));
    }

    #[test]
    fn what_is_not_possible_here_is_said() {
        let line = |name: &str, value: &str| {
            format!(
                "Dynamic configs for topic orders are:\n  {name}={value} sensitive=false synonyms={{DYNAMIC_TOPIC_CONFIG:{name}={value}}}\n"
            )
        };
        assert_eq!(resolve(&known(&[&line("remote.storage.enable", "true")], None)).notes.len(), 2);
        assert_eq!(resolve(&known(&[&line("some.plugin", "x")], None)).notes.len(), 2);
        let known = known(&[&line("retention.ms", "-7")], None);
        assert!(known.resolve("orders", &Catalog::default(), &Settings::default()).is_err());
        assert!(!Known::default().take("this is\nsomething else\n"));
    }
}
