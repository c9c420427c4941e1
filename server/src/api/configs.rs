//! DescribeConfigs, AlterConfigs, IncrementalAlterConfigs: the settings of topics and of the broker.

use super::RequestContext;
use crate::{
    catalog::{
        broker_configs,
        effective::{self, Effective, Source},
        settings::Setting,
        topic_configs,
    },
    controller::{
        Refusal,
        configs::{self, Alteration, Altered, BROKER, Operation, Resource, TOPIC, WITHOUT_SETTINGS},
        names,
    },
    core::Core,
};
use kafka_protocol::{
    messages::{
        AlterConfigsRequest, AlterConfigsResponse, DescribeConfigsRequest, DescribeConfigsResponse, IncrementalAlterConfigsRequest,
        IncrementalAlterConfigsResponse, alter_configs_response,
        describe_configs_request::DescribeConfigsResource,
        describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym},
        incremental_alter_configs_response,
    },
    protocol::StrBytes,
};
use std::{collections::BTreeSet, rc::Rc};

/// DescribeConfigs: every setting of each resource, or those that are named.
pub async fn describe(core: &Rc<Core>, _context: &RequestContext, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let with = Shown { synonyms: request.include_synonyms, documentation: request.include_documentation };
    // Each resource once: its name costs a few bytes, its settings some 10 KB. A node may be written in many ways.
    let mut seen = BTreeSet::new();
    let distinct = request.resources.into_iter().filter(|resource| {
        let name = resource.resource_name.as_str();
        let node = if resource.resource_type == BROKER { name.parse::<usize>().ok() } else { None };
        seen.insert((resource.resource_type, node.map_or_else(|| name.to_owned(), |node| node.to_string())))
    });
    let results = distinct.map(|resource| {
        let answer =
            DescribeConfigsResult::default().with_resource_type(resource.resource_type).with_resource_name(resource.resource_name.clone());
        match settings_of(core, &resource, with) {
            Ok(configs) => answer.with_error_message(None).with_configs(configs),
            Err(refusal) => {
                let (code, message) = refusal.parts();
                answer.with_error_code(code).with_error_message(message)
            }
        }
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

/// What is shown of a setting beside its value.
#[derive(Clone, Copy)]
struct Shown {
    synonyms: bool,
    documentation: bool,
}

fn settings_of(core: &Core, resource: &DescribeConfigsResource, with: Shown) -> Result<Vec<DescribeConfigsResourceResult>, Refusal> {
    let catalog = core.catalog.borrow();
    let keys = resource.configuration_keys.as_deref().filter(|keys| !keys.is_empty());
    let wanted = |setting: &&'static Setting| keys.is_none_or(|keys| keys.iter().any(|key| key.as_str() == setting.name));
    let name = resource.resource_name.as_str();
    match resource.resource_type {
        TOPIC => {
            names::validate(name)?;
            let topic = catalog.topic(name).ok_or_else(Refusal::unknown_topic)?;
            let value = |setting| effective::of_topic(setting, &topic.configs, &catalog, &core.settings);
            Ok(topic_configs::ALL.iter().filter(wanted).map(|setting| shown(setting, value(setting), with)).collect())
        }
        BROKER if name.is_empty() => {
            let set = |setting: &&Setting| catalog.broker_configs().contains_key(setting.name);
            let value = |setting| effective::of_broker(setting, Source::BrokerDefault, &catalog, &core.settings);
            Ok(broker_configs::ALL.iter().filter(wanted).filter(set).map(|setting| shown(setting, value(setting), with)).collect())
        }
        BROKER => {
            configs::node(name, core.cores())?;
            let node = name.parse().unwrap_or(0);
            let value = |setting: &Setting| {
                let effective = effective::of_broker(setting, Source::Broker, &catalog, &core.settings);
                of_this_broker(core, node, setting.name).filter(|_| effective.source == Source::Default).unwrap_or(effective)
            };
            Ok(broker_configs::ALL.iter().filter(wanted).map(|setting| shown(setting, value(setting), with)).collect())
        }
        kind if WITHOUT_SETTINGS.contains(&kind) => Ok(Vec::new()),
        other => Err(configs::unknown_kind(other)),
    }
}

/// Settings whose value follows from how the broker was started, where its configuration does not name them.
fn of_this_broker(core: &Core, node: usize, name: &str) -> Option<Effective> {
    let reached = &core.settings.nodes[node];
    let value = match name {
        "node.id" | "broker.id" => node.to_string(),
        "advertised.listeners" | "listeners" => format!("PLAINTEXT://{reached}"),
        "log.dirs" => core.settings.data_dir.display().to_string(),
        "max.connections" => core.settings.connections_max.to_string(),
        "group.max.size" => core.settings.group_members_max.to_string(),
        _ => return None,
    };
    let synonyms = vec![effective::Given { name: name.into(), value: value.clone(), source: Source::File }];
    Some(Effective { value: Some(value), source: Source::File, synonyms })
}

fn shown(setting: &'static Setting, effective: Effective, with: Shown) -> DescribeConfigsResourceResult {
    let synonym = |given: effective::Given| {
        DescribeConfigsSynonym::default()
            .with_name(StrBytes::from_string(given.name))
            .with_value(Some(StrBytes::from_string(given.value)))
            .with_source(given.source as i8)
    };
    let synonyms = if with.synonyms { effective.synonyms.into_iter().map(synonym).collect() } else { Vec::new() };
    DescribeConfigsResourceResult::default()
        .with_name(StrBytes::from_static_str(setting.name))
        .with_value(effective.value.map(StrBytes::from_string))
        .with_read_only(!setting.dynamic)
        .with_config_source(effective.source as i8)
        .with_synonyms(synonyms)
        .with_config_type(setting.kind as i8)
        .with_documentation(with.documentation.then(|| StrBytes::from_static_str(setting.doc)))
}

/// AlterConfigs: the settings of a resource become those of the request; all others go back to their defaults.
pub async fn alter(core: &Rc<Core>, context: &RequestContext, request: AlterConfigsRequest) -> AlterConfigsResponse {
    let alterations = request.resources.into_iter().map(|resource| Alteration {
        resource: Resource { kind: resource.resource_type, name: resource.resource_name.to_string() },
        replace: true,
        operations: resource
            .configs
            .into_iter()
            .map(|config| (config.name.to_string(), Operation::Set(config.value.map(|value| value.to_string()))))
            .collect(),
    });
    let altered = configs::alter(core, alterations.collect(), request.validate_only, context.asker()).await;
    let response = |resource: Resource, code, message| {
        alter_configs_response::AlterConfigsResourceResponse::default()
            .with_error_code(code)
            .with_error_message(message)
            .with_resource_type(resource.kind)
            .with_resource_name(StrBytes::from_string(resource.name))
    };
    AlterConfigsResponse::default().with_responses(responses(altered, response))
}

/// IncrementalAlterConfigs: single settings are set, reset, or, if they are lists, grown and shrunk.
pub async fn alter_incrementally(
    core: &Rc<Core>,
    context: &RequestContext,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let alterations = request.resources.into_iter().map(|resource| Alteration {
        resource: Resource { kind: resource.resource_type, name: resource.resource_name.to_string() },
        replace: false,
        operations: resource
            .configs
            .into_iter()
            .map(|config| {
                let value = config.value.map(|value| value.to_string());
                let operation = match config.config_operation {
                    0 => Operation::Set(value),
                    1 => Operation::Delete,
                    2 => Operation::Append(value),
                    3 => Operation::Subtract(value),
                    other => Operation::Unknown(other),
                };
                (config.name.to_string(), operation)
            })
            .collect(),
    });
    let altered = configs::alter(core, alterations.collect(), request.validate_only, context.asker()).await;
    let response = |resource: Resource, code, message| {
        incremental_alter_configs_response::AlterConfigsResourceResponse::default()
            .with_error_code(code)
            .with_error_message(message)
            .with_resource_type(resource.kind)
            .with_resource_name(StrBytes::from_string(resource.name))
    };
    IncrementalAlterConfigsResponse::default().with_responses(responses(altered, response))
}

/// One answer per resource, however often it was named.
fn responses<R>(altered: Altered, response: impl Fn(Resource, i16, Option<StrBytes>) -> R) -> Vec<R> {
    let mut seen = BTreeSet::new();
    altered
        .into_iter()
        .filter(|(resource, _)| seen.insert(resource.clone()))
        .map(|(resource, outcome)| {
            let (code, message) = outcome.err().map_or((0, None), Refusal::parts);
            response(resource, code, message)
        })
        .collect()
}
