//! Claims about what the controller decides.

use super::{
    configs::{self, Alteration, BROKER, Operation, Resource, TOPIC},
    decide::{self, PARTITIONS_PER_REQUEST_MAX, View},
    names,
};
use crate::{
    catalog::{CONSUMER_OFFSETS, Catalog, Change, Configs, start},
    groups::coordinator::tests::{Broker, run},
    settings::Settings,
};
use engine::partition::PartitionId;
use kafka_protocol::{
    ResponseError::{self, *},
    messages::{
        BrokerId, TopicName,
        create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic},
        create_topics_request::{CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig},
    },
    protocol::StrBytes,
};
use uuid::Uuid;

const CORES: usize = 3;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn topic(name: &str, partitions: i32, factor: i16) -> CreatableTopic {
    CreatableTopic::default().with_name(TopicName(text(name))).with_num_partitions(partitions).with_replication_factor(factor)
}

fn assigned(name: &str, assignments: &[(i32, &[i32])]) -> CreatableTopic {
    let assignments = assignments.iter().map(|(index, brokers)| {
        CreatableReplicaAssignment::default().with_partition_index(*index).with_broker_ids(brokers.iter().copied().map(BrokerId).collect())
    });
    topic(name, -1, -1).with_assignments(assignments.collect())
}

fn with_config(topic: CreatableTopic, name: &str, value: Option<&str>) -> CreatableTopic {
    topic.with_configs(vec![CreatableTopicConfig::default().with_name(text(name)).with_value(value.map(text))])
}

/// A catalog with `__consumer_offsets` and the topics of `names`, each with 2 partitions.
fn catalog(names: &[&str]) -> Catalog {
    let mut catalog = start::plan(Catalog::default(), CORES, Vec::new(), Uuid::from_u128(1)).expect("plans").catalog;
    for name in names {
        let partitions = start::new_partitions(&catalog, name, 0, 2, CORES);
        let change =
            Change::TopicCreated { name: (*name).into(), id: Uuid::new_v4(), internal: false, configs: Configs::new(), partitions };
        catalog.apply(&change).expect("fits");
    }
    catalog
}

fn create(catalog: &Catalog, topics: &[CreatableTopic]) -> Vec<Result<Change, (ResponseError, String)>> {
    let view = View { catalog, settings: &Settings::default(), cores: CORES };
    let results = decide::create_topics(view, topics, Uuid::new_v4);
    results.into_iter().map(|(_, result)| result.map_err(|refusal| (refusal.code, refusal.message))).collect()
}

fn refused(catalog: &Catalog, topic: CreatableTopic) -> (ResponseError, String) {
    create(catalog, &[topic]).remove(0).expect_err("it is refused")
}

fn placed(change: &Change) -> Vec<(u16, Option<u16>)> {
    match change {
        Change::TopicCreated { partitions, .. } | Change::PartitionsAdded { partitions, .. } => {
            partitions.iter().map(|(_, core, pin)| (*core, *pin)).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_topic_gets_the_defaults_that_it_does_not_name() {
    let created = create(&catalog(&[]), &[topic("a", -1, -1), topic("b", 7, 1), topic("c", 2, CORES as i16)]);
    let counts: Vec<_> = created.iter().map(|result| placed(result.as_ref().expect("created")).len()).collect();
    assert_eq!(counts, [1, 7, 2]);
}

#[test]
fn names_are_judged_as_kafka_judges_them() {
    let code = |name: &str| names::validate(name).map_err(|refusal| refusal.message);
    assert_eq!(code("a.B_c-9"), Ok(()));
    assert_eq!(code(""), Err("Topic name is invalid: the empty string is not allowed".into()));
    assert_eq!(code(".."), Err("Topic name is invalid: '..' is not allowed".into()));
    assert!(code(&"x".repeat(249)).is_ok() && code(&"x".repeat(250)).unwrap_err().contains("longer than the max allowed length 249"));
    let strange = "Topic name is invalid: 'a/b' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'";
    assert_eq!(code("a/b"), Err(strange.into()));
    assert_eq!(refused(&catalog(&[]), topic("a b", 1, 1)).0, InvalidTopicException);
    assert_eq!(refused(&catalog(&[]), topic("__cluster_metadata", 1, 1)).0, InvalidRequest);
}

#[test]
fn names_that_differ_only_in_dots_and_underscores_collide() {
    let refusal = (InvalidTopicException, "Topic 'a.b' collides with existing topic: a_b".to_owned());
    assert_eq!(refused(&catalog(&["a_b"]), topic("a.b", 1, 1)), refusal);
    assert!(create(&catalog(&["a_b"]), &[topic("ab", 1, 1)])[0].is_ok());
}

#[test]
fn wrong_creations_are_refused_in_kafkas_words() {
    let catalog = catalog(&["there"]);
    assert_eq!(refused(&catalog, topic("there", 1, 1)), (TopicAlreadyExists, "Topic 'there' already exists.".into()));
    assert_eq!(refused(&catalog, topic("a", 0, 1)).0, InvalidPartitions);
    assert_eq!(refused(&catalog, topic("a", -2, 1)).1, "Number of partitions was set to an invalid non-positive value.");
    assert_eq!(refused(&catalog, topic("a", 1, 0)).1, "Replication factor must be larger than 0, or -1 to use the default value.");
    let (error, words) = refused(&catalog, topic("a", 1, CORES as i16 + 1));
    assert_eq!(error, InvalidReplicationFactor);
    let factor = CORES + 1;
    let kafkas = format!(
        "Unable to replicate the partition {factor} time(s): The target replication factor of {factor} cannot be reached because only \
         {CORES} broker(s) are registered."
    );
    assert!(words.starts_with(&kafkas), "{words}");
    assert_eq!(refused(&catalog, topic("a", PARTITIONS_PER_REQUEST_MAX as i32 + 1, 1)).0, PolicyViolation);
    assert_eq!(refused(&catalog, topic("a", i32::MAX, 1)).0, PolicyViolation);
    let twice = create(&catalog, &[topic("a", 1, 1), topic("b", 1, 1), topic("a", 1, 1)]);
    assert_eq!(twice.len(), 2);
    assert_eq!(twice[0], Err((InvalidRequest, "Duplicate topic name.".into())));
    assert!(twice[1].is_ok());
}

#[test]
fn a_name_is_free_once_its_deletion_is_confirmed() {
    let mut catalog = catalog(&["gone"]);
    let id = catalog.topic("gone").expect("there").id;
    catalog.apply(&Change::TopicDeleted { id }).expect("fits");
    assert_eq!(refused(&catalog, topic("gone", 1, 1)).0, TopicAlreadyExists);
    catalog.apply(&Change::DeletionFinished { id }).expect("fits");
    assert!(create(&catalog, &[topic("gone", 1, 1)])[0].is_ok());
}

#[test]
fn a_manual_assignment_pins_each_partition_to_its_first_replica() {
    let created = create(&catalog(&[]), &[assigned("a", &[(1, &[0, 1]), (0, &[2, 1])])]).remove(0).expect("created");
    assert_eq!(placed(&created), [(2, Some(2)), (0, Some(0))]);
}

#[test]
fn wrong_assignments_are_refused_in_kafkas_words() {
    let catalog = catalog(&[]);
    let refusal = |assignments: &[(i32, &[i32])]| refused(&catalog, assigned("a", assignments));
    let invalid = |why: &str| (InvalidReplicaAssignment, why.to_owned());
    assert_eq!(refusal(&[(0, &[])]), invalid("The manual partition assignment includes an empty replica list."));
    assert_eq!(refusal(&[(0, &[9])]), invalid("The manual partition assignment includes broker 9, but no such broker is registered."));
    assert_eq!(refusal(&[(0, &[-1])]).0, InvalidReplicaAssignment);
    assert_eq!(refusal(&[(0, &[1, 1])]), invalid("The manual partition assignment includes the broker 1 more than once."));
    assert_eq!(refusal(&[(0, &[1]), (0, &[1])]), invalid("Found multiple manual partition assignments for partition 0"));
    assert_eq!(refusal(&[(1, &[1])]), invalid("partitions should be a consecutive 0-based integer sequence"));
    assert!(refusal(&[(0, &[1]), (1, &[1, 2])]).1.contains("not consistent with previous partitions, which have 1 replica(s)"));
    assert_eq!(refused(&catalog, assigned("a", &[(0, &[1])]).with_num_partitions(1)).0, InvalidRequest);
    assert_eq!(refused(&catalog, assigned("a", &[(0, &[1])]).with_replication_factor(1)).0, InvalidRequest);
}

#[test]
fn a_new_topics_configs_are_checked() {
    let catalog = catalog(&[]);
    let refusal = |name: &str, value| refused(&catalog, with_config(topic("a", 1, 1), name, value));
    assert_eq!(refusal("foo", Some("1")), (InvalidConfig, "Unknown topic config name: foo".into()));
    assert_eq!(refusal("retention.ms", Some("x")).0, InvalidConfig);
    assert_eq!(refusal("retention.ms", None), (InvalidConfig, "Null value not supported for topic configs: retention.ms".into()));
    let long = "1:1,".repeat(10_000);
    assert_eq!(refusal("leader.replication.throttled.replicas", Some(&long)).0, InvalidConfig);
    let created = create(&catalog, &[with_config(topic("a", 1, 1), "cleanup.policy", Some("compact"))]).remove(0).expect("created");
    assert!(matches!(created, Change::TopicCreated { configs, .. } if configs["cleanup.policy"] == "compact"));
}

fn grow(catalog: &Catalog, name: &str, count: i32, assignments: Option<&[&[i32]]>) -> Result<Change, (ResponseError, String)> {
    let assignments = assignments.map(|all| {
        let one = |brokers: &&[i32]| CreatePartitionsAssignment::default().with_broker_ids(brokers.iter().copied().map(BrokerId).collect());
        all.iter().map(one).collect()
    });
    let topic = CreatePartitionsTopic::default().with_name(TopicName(text(name))).with_count(count).with_assignments(assignments);
    let view = View { catalog, settings: &Settings::default(), cores: CORES };
    decide::create_partitions(view, &[topic]).remove(0).1.map_err(|refusal| (refusal.code, refusal.message))
}

#[test]
fn partitions_are_only_ever_added() {
    let catalog = catalog(&["a"]);
    assert_eq!(placed(&grow(&catalog, "a", 4, None).expect("grows")).len(), 2);
    assert_eq!(placed(&grow(&catalog, "a", 4, Some(&[&[2], &[0]])).expect("grows")), [(2, Some(2)), (0, Some(0))]);
    assert_eq!(grow(&catalog, "a", 2, None), Err((InvalidPartitions, "Topic already has 2 partition(s).".into())));
    assert!(grow(&catalog, "a", 1, None).unwrap_err().1.contains("1 would not be an increase"));
    assert_eq!(grow(&catalog, "a", -1, None).unwrap_err().0, InvalidPartitions);
    assert_eq!(grow(&catalog, "b", 3, None).unwrap_err().0, UnknownTopicOrPartition);
    assert!(grow(&catalog, "a", 4, Some(&[&[2]])).unwrap_err().1.starts_with("Attempted to add 2 additional partition(s), but only 1"));
    assert_eq!(grow(&catalog, CONSUMER_OFFSETS, 99, None).unwrap_err().0, InvalidPartitions);
    assert_eq!(grow(&catalog, "a", i32::MAX, None).unwrap_err().0, PolicyViolation);
}

fn alter(
    catalog: &Catalog,
    kind: i8,
    name: &str,
    replace: bool,
    operations: &[(&str, Operation)],
) -> Result<Option<Change>, (ResponseError, String)> {
    let operations = operations.iter().map(|(name, operation)| ((*name).to_owned(), operation.clone())).collect();
    let alteration = Alteration { resource: Resource { kind, name: name.into() }, replace, operations };
    let result = configs::decide(catalog, &Settings::default(), CORES, &[alteration]).remove(0).1;
    result.map_err(|refusal| (refusal.code, refusal.message))
}

fn set(value: &str) -> Operation {
    Operation::Set(Some(value.into()))
}

fn configs_of(change: Option<Change>) -> Vec<(String, String)> {
    match change {
        Some(Change::TopicConfigs { configs, .. } | Change::BrokerConfigs { configs }) => configs.into_iter().collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn settings_of_a_topic_are_set_reset_grown_and_shrunk() {
    let mut catalog = catalog(&["a"]);
    let change = |catalog: &mut Catalog, replace, operations: &[(&str, Operation)]| {
        let change = alter(catalog, TOPIC, "a", replace, operations).expect("altered");
        catalog.apply(change.as_ref().expect("something changes")).expect("fits");
        configs_of(change)
    };
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(change(&mut catalog, false, &[("retention.ms", set("5"))]), [pair("retention.ms", "5")]);
    let appended = change(&mut catalog, false, &[("cleanup.policy", Operation::Append(Some("compact,delete".into())))]);
    assert_eq!(appended[0], pair("cleanup.policy", "delete,compact"), "it grows from its default");
    let subtracted = change(&mut catalog, false, &[("cleanup.policy", Operation::Subtract(Some("delete".into())))]);
    assert_eq!(subtracted, [pair("cleanup.policy", "compact"), pair("retention.ms", "5")]);
    assert_eq!(change(&mut catalog, false, &[("cleanup.policy", Operation::Delete)]), [pair("retention.ms", "5")]);
    assert_eq!(change(&mut catalog, true, &[("segment.ms", set("9"))]), [pair("segment.ms", "9")], "legacy alteration replaces all");
    assert_eq!(alter(&catalog, TOPIC, "a", false, &[("segment.ms", set("9"))]), Ok(None));
}

#[test]
fn wrong_alterations_are_refused_in_kafkas_words() {
    let catalog = catalog(&["a"]);
    let refused =
        |kind, name: &str, operations: &[(&str, Operation)]| alter(&catalog, kind, name, false, operations).expect_err("it is refused");
    assert_eq!(refused(TOPIC, "b", &[("retention.ms", set("1"))]).0, UnknownTopicOrPartition);
    assert_eq!(refused(TOPIC, "a", &[("foo", set("1"))]).0, InvalidConfig);
    assert_eq!(refused(TOPIC, "a", &[("retention.ms", set("x"))]).0, InvalidConfig);
    assert_eq!(refused(TOPIC, "a", &[("retention.ms", Operation::Append(Some("1".into())))]).0, InvalidConfig);
    assert_eq!(refused(TOPIC, "a", &[("retention.ms", Operation::Set(None))]).0, InvalidRequest);
    assert_eq!(refused(TOPIC, "a", &[("retention.ms", set("1")), ("retention.ms", set("2"))]).0, InvalidRequest);
    assert_eq!(refused(TOPIC, "a", &[("retention.ms", Operation::Unknown(7))]).0, InvalidRequest);
    assert_eq!(refused(TOPIC, CONSUMER_OFFSETS, &[("cleanup.policy", set("delete"))]).0, InvalidConfig);
    assert_eq!(refused(BROKER, "3", &[("log.retention.ms", set("1"))]).0, InvalidRequest);
    assert_eq!(refused(BROKER, "x", &[("log.retention.ms", set("1"))]).0, InvalidRequest);
    assert_eq!(refused(BROKER, "0", &[("num.partitions", set("1"))]).0, InvalidRequest);
    assert_eq!(refused(8, "0", &[("x", set("1"))]).0, InvalidRequest);
}

#[test]
fn the_broker_has_one_store_whichever_node_is_named() {
    let mut catalog = catalog(&[]);
    for (node, name) in [("0", "log.retention.ms"), ("2", "log.segment.bytes"), ("", "message.max.bytes")] {
        let change = alter(&catalog, BROKER, node, false, &[(name, set("2000000"))]).expect("altered").expect("something changes");
        catalog.apply(&change).expect("fits");
    }
    assert_eq!(catalog.broker_configs().len(), 3);
    assert_eq!(catalog.topic_number(&Configs::new(), &Settings::default(), "segment.bytes"), 2_000_000);
}

#[test]
fn behind_a_decision_that_was_cut_off_there_is_none_until_a_restart() {
    run(async {
        let broker = Broker::new().await;
        broker.core.log.ready(&[PartitionId::CATALOG]).await.expect("opens");
        let write = async |sizes: &[usize]| {
            let configs = |bytes: &usize| Configs::from([("x".to_owned(), "v".repeat(*bytes))]);
            let changes: Vec<_> = sizes.iter().map(|bytes| Change::BrokerConfigs { configs: configs(bytes) }).collect();
            super::write(&broker.core, &changes).await.map_err(|refusal| (refusal.code, refusal.message))
        };
        let (small, too_large) = (300 << 10, 2 << 20);
        assert_eq!(write(&[too_large]).await.unwrap_err().0, KafkaStorageError, "nothing of it is written");
        assert_eq!(write(&[small, small, small]).await, Ok(()), "so what follows is");
        assert_eq!(write(&[small, too_large]).await.unwrap_err().0, KafkaStorageError, "its first half is written");
        let (code, message) = write(&[small]).await.unwrap_err();
        assert!(code == KafkaStorageError && message.contains("until the broker is restarted"), "{message}");
    });
}
