//! Changing settings: of topics, and of the broker (one store for all nodes).

use super::{Refusal, apply, decide::bounded, decided, names, snapshot_if_large, write};
use crate::{
    asker::Asker,
    catalog::{
        Catalog, Change, Configs, broker_configs, effective,
        settings::{Kind, Setting, list},
        topic_configs,
    },
    core::Core,
    settings::Settings,
};
use kafka_protocol::ResponseError;
use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

/// Kafka's number of a topic in config requests.
pub const TOPIC: i8 = 2;
/// Kafka's number of a broker in config requests.
pub const BROKER: i8 = 4;

/// The most settings of one resource in a request.
pub const OPERATIONS_MAX: usize = 1_000;

/// Whose settings.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Resource {
    /// Kafka's number of its kind.
    pub kind: i8,
    /// The topic's name, or the node's id, or "" for all nodes.
    pub name: String,
}

/// What happens to one setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// It gets this value.
    Set(Option<String>),
    /// It has its default again.
    Delete,
    /// These words are added to its list.
    Append(Option<String>),
    /// These words are taken from its list.
    Subtract(Option<String>),
    /// Not an operation that Kafka knows.
    Unknown(i8),
}

/// What happens to the settings of one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alteration {
    /// Whose.
    pub resource: Resource,
    /// All that is not named goes back to its default (AlterConfigs).
    pub replace: bool,
    /// By setting, in the request's order.
    pub operations: Vec<(String, Operation)>,
}

/// Resources with what became of each.
pub type Altered = Vec<(Resource, Result<(), Refusal>)>;

/// Alters settings. Answers when every core goes by the new ones. May be called on any core.
pub async fn alter(core: &Rc<Core>, alterations: Vec<Alteration>, validate_only: bool, asker: Asker) -> Altered {
    let resources: Vec<_> = alterations.iter().map(|alteration| alteration.resource.clone()).collect();
    let done = decided(core, super::TIMEOUT_MS, move |core| async move {
        let _turn = core.controller.turn.acquire().await.expect("never closed");
        let outcomes = decide(&core.catalog.borrow(), &core.settings, core.cores(), &alterations);
        let changes: Vec<_> = outcomes.iter().filter_map(|(_, outcome)| outcome.as_ref().ok()?.clone()).collect();
        let done = if validate_only || changes.is_empty() {
            Ok(())
        } else {
            match write(&core, &changes).await {
                Ok(()) => {
                    asker.has_configured(&core.catalog.borrow(), &changes);
                    apply(&core, &changes).await
                }
                Err(refusal) => Err(refusal),
            }
        };
        snapshot_if_large(&core).await;
        let after =
            |outcome: Result<Option<Change>, Refusal>| outcome.and_then(|change| if change.is_some() { done.clone() } else { Ok(()) });
        outcomes.into_iter().map(|(resource, outcome)| (resource, after(outcome))).collect::<Altered>()
    });
    done.await.unwrap_or_else(|refusal| resources.into_iter().map(|resource| (resource, Err(refusal.clone()))).collect())
}

/// What each alteration leads to: a change, nothing, or a refusal. Pure.
#[must_use]
pub fn decide(
    catalog: &Catalog,
    settings: &Settings,
    cores: usize,
    alterations: &[Alteration],
) -> Vec<(Resource, Result<Option<Change>, Refusal>)> {
    let mut counts = BTreeMap::<&Resource, usize>::new();
    for alteration in alterations {
        *counts.entry(&alteration.resource).or_default() += 1;
    }
    // Several alterations may concern the one store of the broker: each sees those before it.
    let mut store = catalog.broker_configs().clone();
    let mut results = Vec::new();
    for alteration in alterations {
        let decided = if counts[&alteration.resource] > 1 {
            Err(Refusal::new(ResponseError::InvalidRequest, "Each resource must appear at most once."))
        } else {
            check(alteration).and_then(|()| match alteration.resource.kind {
                TOPIC => of_topic(catalog, settings, alteration),
                BROKER => of_broker(&mut store, catalog, settings, cores, alteration),
                other => Err(unknown_kind(other)),
            })
        };
        results.push((alteration.resource.clone(), decided));
    }
    results
}

/// Kafka's numbers of loggers, metric subscriptions and groups, which have no settings here.
pub const WITHOUT_SETTINGS: [i8; 3] = [8, 16, 32];

/// A resource of a kind whose settings don't exist here.
#[must_use]
pub fn unknown_kind(kind: i8) -> Refusal {
    let name = match kind {
        8 => "BROKER_LOGGER",
        16 => "CLIENT_METRICS",
        32 => "GROUP",
        _ => return Refusal::new(ResponseError::InvalidRequest, format!("Unexpected resource type {kind}.")),
    };
    Refusal::new(ResponseError::InvalidRequest, format!("Settings of {name} resources are not supported."))
}

fn check(alteration: &Alteration) -> Result<(), Refusal> {
    let refuse = |why: String| Err(Refusal::new(ResponseError::InvalidRequest, why));
    if alteration.operations.len() > OPERATIONS_MAX {
        return refuse(format!("At most {OPERATIONS_MAX} configs of a resource may be changed at once."));
    }
    let mut seen = BTreeSet::new();
    if !alteration.operations.iter().all(|(name, _)| seen.insert(name)) {
        return refuse("Error due to duplicate config keys".into());
    }
    let null: Vec<_> = alteration
        .operations
        .iter()
        .filter(|(_, operation)| matches!(operation, Operation::Set(None) | Operation::Append(None) | Operation::Subtract(None)))
        .map(|(name, _)| name.as_str())
        .collect();
    if !null.is_empty() {
        return refuse(format!("Null value not supported for : {}", null.join(",")));
    }
    for (name, operation) in &alteration.operations {
        match operation {
            Operation::Set(Some(value)) | Operation::Append(Some(value)) | Operation::Subtract(Some(value)) => bounded(name, value)?,
            Operation::Unknown(number) => return refuse(format!("Unknown operation type {number}")),
            _ => {}
        }
    }
    Ok(())
}

fn of_topic(catalog: &Catalog, settings: &Settings, alteration: &Alteration) -> Result<Option<Change>, Refusal> {
    let name = &alteration.resource.name;
    names::validate(name)?;
    let missing = || Refusal::new(ResponseError::UnknownTopicOrPartition, format!("The topic '{name}' does not exist."));
    let topic = catalog.topic(name).ok_or_else(missing)?;
    let current = |setting: &Setting| effective::of_topic(setting, &topic.configs, catalog, settings).value;
    let configs = altered(&topic.configs, alteration, topic_configs::find, current)?;
    topic_configs::validate(&configs).map_err(|why| Refusal::new(ResponseError::InvalidConfig, why))?;
    let offsets = |configs: &Configs| configs.get("cleanup.policy").is_some_and(|policy| list(policy).eq(["compact"]));
    if topic.internal && !offsets(&configs) {
        let why = format!("cleanup.policy of the internal topic {name} must stay compact: the offsets of all groups are in it.");
        return Err(Refusal::new(ResponseError::InvalidConfig, why));
    }
    Ok((configs != topic.configs).then_some(Change::TopicConfigs { id: topic.id, configs }))
}

fn of_broker(
    store: &mut Configs,
    catalog: &Catalog,
    settings: &Settings,
    cores: usize,
    alteration: &Alteration,
) -> Result<Option<Change>, Refusal> {
    node(&alteration.resource.name, cores)?;
    let refuse = |why: String| Refusal::new(ResponseError::InvalidRequest, why);
    let fixed: Vec<_> = alteration
        .operations
        .iter()
        .map(|(name, _)| name.as_str())
        .filter(|name| broker_configs::find(name).is_none_or(|setting| !setting.dynamic))
        .collect();
    if !fixed.is_empty() {
        return Err(refuse(format!("Cannot update these configs dynamically: [{}]", fixed.join(", "))));
    }
    let current = |setting: &Setting| effective::of_broker(setting, effective::Source::BrokerDefault, catalog, settings).value;
    let configs = altered(store, alteration, broker_configs::find, current)?;
    for (name, value) in &configs {
        broker_configs::find(name).map_or(Ok(()), |setting| setting.validate(value)).map_err(refuse)?;
    }
    if configs == *store {
        return Ok(None);
    }
    store.clone_from(&configs);
    Ok(Some(Change::BrokerConfigs { configs }))
}

/// Checks a broker resource's name: empty for all nodes, or the id of one of them.
///
/// # Errors
/// INVALID_REQUEST.
pub fn node(name: &str, cores: usize) -> Result<(), Refusal> {
    if name.is_empty() || name.parse::<usize>().is_ok_and(|node| node < cores) {
        return Ok(());
    }
    let why = format!("Unexpected broker id, expected 0 to {} or empty string, but received {name}", cores - 1);
    Err(Refusal::new(ResponseError::InvalidRequest, why))
}

/// What becomes of a list's words, given those of the request.
type Words = dyn for<'a> Fn(Vec<&'a str>, Vec<&'a str>) -> String;

/// The settings after an alteration. `current` is a setting's value now, wherever it comes from: lists grow from it.
fn altered(
    before: &Configs,
    alteration: &Alteration,
    find: impl Fn(&str) -> Option<&'static Setting>,
    current: impl Fn(&Setting) -> Option<String>,
) -> Result<Configs, Refusal> {
    let mut configs = if alteration.replace { Configs::new() } else { before.clone() };
    for (name, operation) in &alteration.operations {
        let mut words = |given: &str, verb: &str, keep: &Words| {
            let setting = find(name).filter(|setting| setting.kind == Kind::List).ok_or_else(|| {
                Refusal::new(ResponseError::InvalidConfig, format!("Can't {verb} key {name} because its type is not LIST."))
            })?;
            let now = configs.get(name).cloned().or_else(|| current(setting)).unwrap_or_default();
            let value = keep(list(&now).collect(), list(given).collect());
            configs.insert(name.clone(), value);
            Ok(())
        };
        match operation {
            Operation::Set(Some(value)) => drop(configs.insert(name.clone(), value.clone())),
            Operation::Append(Some(given)) => words(given, "APPEND to", &|mut now, given| {
                for word in given {
                    if !now.contains(&word) {
                        now.push(word);
                    }
                }
                now.join(",")
            })?,
            Operation::Subtract(Some(given)) => {
                words(given, "SUBTRACT to", &|now, given| {
                    now.into_iter().filter(|word| !given.contains(word)).collect::<Vec<_>>().join(",")
                })?;
            }
            Operation::Delete => drop(configs.remove(name)),
            Operation::Set(None) | Operation::Append(None) | Operation::Subtract(None) | Operation::Unknown(_) => {}
        }
    }
    Ok(configs)
}
