//! CreateTopics, DeleteTopics, CreatePartitions. Any core takes them; the controller on core 0 decides.

use super::RequestContext;
use crate::{
    catalog::{
        Topic,
        effective::{self, Effective},
        topic_configs,
    },
    controller::{
        Refusal,
        topics::{self, Doomed},
    },
    core::Core,
};
use kafka_protocol::{
    ResponseError,
    messages::{
        CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest,
        DeleteTopicsResponse, TopicName,
        create_partitions_response::CreatePartitionsTopicResult,
        create_topics_response::{CreatableTopicConfigs, CreatableTopicResult},
        delete_topics_response::DeletableTopicResult,
    },
    protocol::StrBytes,
};
use std::{collections::BTreeMap, rc::Rc};
use uuid::Uuid;

/// CreateTopics: each answer is the finished topic, which every core knows by then.
pub async fn create(core: &Rc<Core>, context: &RequestContext, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let outcomes = topics::create(core, request.topics, request.timeout_ms, request.validate_only, context.asker()).await;
    let result = |(name, outcome): (String, Result<Topic, Refusal>)| {
        let answer = CreatableTopicResult::default().with_name(topic_name(&name));
        match outcome {
            Ok(topic) => answer
                .with_topic_id(if request.validate_only { Uuid::nil() } else { topic.id })
                .with_error_message(None)
                .with_num_partitions(topic.partitions.len() as i32)
                .with_replication_factor(1)
                .with_configs(Some(created_configs(core, &topic))),
            Err(refusal) => {
                let (code, message) = refusal.parts();
                answer.with_error_code(code).with_error_message(message)
            }
        }
    };
    CreateTopicsResponse::default().with_topics(outcomes.into_iter().map(result).collect())
}

fn created_configs(core: &Core, topic: &Topic) -> Vec<CreatableTopicConfigs> {
    let catalog = core.catalog.borrow();
    topic_configs::ALL
        .iter()
        .map(|setting| {
            let Effective { value, source, .. } = effective::of_topic(setting, &topic.configs, &catalog, &core.settings);
            CreatableTopicConfigs::default()
                .with_name(StrBytes::from_static_str(setting.name))
                .with_value(value.map(StrBytes::from_string))
                .with_config_source(source as i8)
        })
        .collect()
}

/// DeleteTopics, by name or by id. Each is gone from every core when this is answered.
pub async fn delete(core: &Rc<Core>, context: &RequestContext, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let (doomed, mut responses) = doomed(&request);
    if core.settings.delete_topics {
        responses.extend(topics::delete(core, doomed, request.timeout_ms, context.asker()).await.into_iter().map(deleted));
    } else {
        let code = if context.version < 3 { ResponseError::InvalidRequest } else { ResponseError::TopicDeletionDisabled };
        let refusal = Refusal::new(code, "Topic deletion is disabled.");
        responses.extend(doomed.into_iter().map(|doomed| deleted((doomed, Err(refusal.clone())))));
    }
    DeleteTopicsResponse::default().with_responses(responses)
}

/// What the request names, each once, and the answers to what it names wrongly.
fn doomed(request: &DeleteTopicsRequest) -> (Vec<Doomed>, Vec<DeletableTopicResult>) {
    let mut wrong = Vec::new();
    let mut refuse = |name: Option<&TopicName>, id: Uuid, why: &str| {
        let (code, message) = Refusal::new(ResponseError::InvalidRequest, why).parts();
        wrong.push(
            DeletableTopicResult::default().with_name(name.cloned()).with_topic_id(id).with_error_code(code).with_error_message(message),
        );
    };
    let mut asked: Vec<Doomed> = request.topic_names.iter().map(|name| Doomed::Name(name.0.to_string())).collect();
    for topic in &request.topics {
        match (&topic.name, topic.topic_id) {
            (Some(name), id) if !id.is_nil() => refuse(Some(name), id, "You may not specify both topic name and topic id."),
            (Some(name), _) => asked.push(Doomed::Name(name.0.to_string())),
            (None, id) if id.is_nil() => refuse(None, id, "Neither topic name nor id were specified."),
            (None, id) => asked.push(Doomed::Id(id)),
        }
    }
    let mut counts = BTreeMap::<&Doomed, usize>::new();
    for one in &asked {
        *counts.entry(one).or_default() += 1;
    }
    for twice in counts.iter().filter(|(_, count)| **count > 1).map(|(doomed, _)| *doomed) {
        match twice {
            Doomed::Name(name) => refuse(Some(&topic_name(name)), Uuid::nil(), "Duplicate topic name."),
            Doomed::Id(id) => refuse(None, *id, "Duplicate topic id."),
        }
    }
    let once = asked.iter().filter(|doomed| counts[doomed] == 1).cloned().collect();
    (once, wrong)
}

fn deleted((doomed, outcome): (Doomed, Result<Topic, Refusal>)) -> DeletableTopicResult {
    let answer = match &doomed {
        Doomed::Name(name) => DeletableTopicResult::default().with_name(Some(topic_name(name))),
        Doomed::Id(id) => DeletableTopicResult::default().with_name(None).with_topic_id(*id),
    };
    match outcome {
        Ok(topic) => answer.with_name(Some(topic_name(&topic.name))).with_topic_id(topic.id).with_error_message(None),
        Err(refusal) => {
            let (code, message) = refusal.parts();
            answer.with_error_code(code).with_error_message(message)
        }
    }
}

/// CreatePartitions: the new ones are there, and every core knows them, when this is answered.
pub async fn create_partitions(core: &Rc<Core>, context: &RequestContext, request: CreatePartitionsRequest) -> CreatePartitionsResponse {
    let outcomes = topics::create_partitions(core, request.topics, request.timeout_ms, request.validate_only, context.asker()).await;
    let result = |(name, outcome): (String, Result<Topic, Refusal>)| {
        let (code, message) = outcome.err().map_or((0, None), Refusal::parts);
        CreatePartitionsTopicResult::default().with_name(topic_name(&name)).with_error_code(code).with_error_message(message)
    };
    CreatePartitionsResponse::default().with_results(outcomes.into_iter().map(result).collect())
}

fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}
