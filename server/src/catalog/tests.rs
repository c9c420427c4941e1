//! Claims about the catalog.

use super::{
    start::{TakeOverError, plan},
    *,
};
use crate::settings::{GROUP_MEMBERS_MAX, Settings};
use engine::log::Foreign;
use proptest::prelude::*;

const NOW: i64 = 1_700_000_000_000;

fn first_start(cores: usize) -> Catalog {
    plan(Catalog::default(), cores, Vec::new(), Uuid::from_u128(77)).expect("nothing to take over").catalog
}

fn created(catalog: &Catalog, name: &str, count: usize, pin: Option<u16>) -> Change {
    let mut partitions = start::new_partitions(catalog, name, 0, count, catalog.cores());
    if let Some(pin) = pin {
        partitions.iter_mut().for_each(|placed| (placed.1, placed.2) = (pin, Some(pin)));
    }
    Change::TopicCreated { name: name.into(), id: Uuid::new_v4(), internal: false, configs: Configs::new(), partitions }
}

fn foreign(topic: &str, partition: i32, topic_id: Uuid) -> Foreign {
    Foreign { topic: topic.into(), partition, topic_id, directory: format!("{topic}-{partition}").into() }
}

fn log(decisions: &[Vec<Change>]) -> Vec<u8> {
    decisions.iter().flat_map(|changes| records::decision(changes, NOW)).flatten().collect()
}

/// A catalog whose snapshot has several parts, and these.
fn snapshot_of_many() -> (Catalog, Vec<Vec<u8>>) {
    let mut catalog = first_start(2);
    for index in 0..300 {
        catalog.apply(&created(&catalog, &format!("a-topic-with-many-partitions-{index}"), 400, None)).expect("fits");
    }
    let parts = records::snapshot(&catalog, NOW);
    assert!(parts.len() > 2, "{} parts", parts.len());
    (catalog, parts)
}

#[test]
fn the_first_start_has_fifty_offset_partitions_spread_over_the_cores() {
    let catalog = first_start(4);
    let offsets = catalog.topic(CONSUMER_OFFSETS).expect("there from the first start");
    assert!(offsets.internal && offsets.configs["cleanup.policy"] == "compact");
    assert_eq!(offsets.partitions.len(), 50);
    let on = |core| offsets.partitions.iter().filter(|partition| partition.core == core).count();
    assert!((0..4).all(|core| (12..=13).contains(&on(core))));
    assert_eq!(catalog.cluster_id().len(), 22);
    assert!(catalog.partition_config(&offsets.configs, &Settings::default()).compacted);
}

#[test]
fn a_start_that_was_cut_off_decides_the_same_again() {
    let once = plan(Catalog::default(), 2, Vec::new(), Uuid::from_u128(1)).expect("plans");
    let again = plan(Catalog::default(), 2, Vec::new(), Uuid::from_u128(1)).expect("plans");
    assert_eq!(once.pending, again.pending);
    assert!(plan(once.catalog, 2, Vec::new(), Uuid::from_u128(2)).expect("plans").pending.is_empty());
}

#[test]
fn changes_survive_the_log_and_a_snapshot() {
    let mut catalog = Catalog::default();
    let mut decisions = vec![plan(catalog.clone(), 3, Vec::new(), Uuid::from_u128(1)).expect("plans").pending];
    decisions[0].iter().for_each(|change| catalog.apply(change).expect("fits"));
    for index in 0..40 {
        let change = created(&catalog, &format!("topic-{index}"), 5, (index % 7 == 0).then_some(2));
        catalog.apply(&change).expect("fits");
        let Change::TopicCreated { id, .. } = &change else { unreachable!() };
        let mut more = vec![change.clone()];
        let configs = Configs::from([("retention.ms".to_owned(), index.to_string())]);
        more.push(Change::TopicConfigs { id: *id, configs });
        if index % 3 == 0 {
            more.push(Change::TopicDeleted { id: *id });
        }
        if index % 6 == 0 {
            more.push(Change::DeletionFinished { id: *id });
        }
        more[1..].iter().for_each(|change| catalog.apply(change).expect("fits"));
        decisions.push(more);
    }
    let read = Catalog::from_bytes(&log(&decisions)).expect("reads");
    assert_eq!(read, catalog);
    assert_eq!(read.leader_epoch(), 14);
    assert_eq!(read.deleting().count(), 7);

    let snapshot: Vec<u8> = records::snapshot(&catalog, NOW).concat();
    let mut from_snapshot = Catalog::from_bytes(&snapshot).expect("reads");
    from_snapshot.started(20);
    catalog.started(20);
    assert_eq!(from_snapshot, catalog);
    let behind: Vec<u8> = [log(&decisions), snapshot].concat();
    let mut read = Catalog::from_bytes(&behind).expect("reads");
    read.started(20);
    assert_eq!(read, catalog);
}

#[test]
fn a_snapshot_that_was_cut_off_changes_nothing() {
    let (mut catalog, parts) = snapshot_of_many();
    let base = first_start(1);
    let log = |parts: &[Vec<u8>]| [records::snapshot(&base, NOW).concat(), parts.concat()].concat();
    assert_eq!(Catalog::from_bytes(&log(&parts[..parts.len() - 1])).expect("reads"), base);
    let later = records::decision(&[Change::ProducerIds { next: 9_000 }], NOW);
    let cut = [&parts[..1], &later[..]].concat();
    assert_eq!(Catalog::from_bytes(&log(&cut)).expect("reads").next_producer_id(), 9_000);
    let mut whole = Catalog::from_bytes(&log(&parts)).expect("reads");
    whole.started(1);
    catalog.started(1);
    assert_eq!(whole, catalog);
}

#[test]
fn what_is_left_of_a_catalog_is_read_where_a_loss_is_accepted() {
    let mut catalog = first_start(2);
    let mut decisions = vec![catalog.snapshot()];
    let mut ids = Vec::new();
    for name in ["lost", "lost-and-deleted", "kept"] {
        let change = created(&catalog, name, 3, None);
        catalog.apply(&change).expect("fits");
        let Change::TopicCreated { id, .. } = &change else { unreachable!() };
        ids.push(*id);
        decisions.push(vec![change]);
    }
    decisions.push(vec![Change::TopicDeleted { id: ids[1] }]);
    decisions.push(vec![Change::TopicConfigs { id: ids[0], configs: Configs::new() }, Change::ProducerIds { next: 5_000 }]);
    decisions.drain(1..3);
    let bytes = log(&decisions);
    assert!(matches!(Catalog::from_bytes(&bytes), Err(RecordsError::Damaged { .. })));
    let left = Catalog::from_what_is_left(&bytes, true).expect("reads");
    assert!(left.topic("lost").is_none() && left.topic("kept").is_some_and(|topic| topic.partitions.len() == 3));
    assert_eq!((left.leader_epoch(), left.next_producer_id()), (catalog.leader_epoch() + 1, 5_000));

    let whole = log(&[catalog.snapshot()]);
    let (_, parts) = snapshot_of_many();
    let without_the_first = [whole, parts[1..].concat()].concat();
    assert!(matches!(Catalog::from_bytes(&without_the_first), Err(RecordsError::Damaged { .. })));
    let left = Catalog::from_what_is_left(&without_the_first, true).expect("reads");
    assert!(left.topic("kept").is_some() && left.topics().count() == catalog.topics().count());
}

#[test]
fn a_newer_record_is_refused_and_named() {
    let mut value = Change::Cores { count: 2 }.encode();
    value[1] = 1;
    let batch = engine::batch::BatchBuilder::new().record(NOW, None, Some(&value)).build();
    assert!(matches!(Catalog::from_bytes(&batch), Err(RecordsError::Newer { .. })));
    let batch = engine::batch::BatchBuilder::new().record(NOW, None, Some(&[200, 0, 1])).build();
    let error = Catalog::from_bytes(&batch).expect_err("unknown type").to_string();
    assert!(error.contains("newer build"), "{error}");
}

#[test]
fn another_number_of_cores_moves_all_but_pinned_partitions_by_the_rule() {
    let mut catalog = first_start(4);
    catalog.apply(&created(&catalog, "free", 8, None)).expect("fits");
    catalog.apply(&created(&catalog, "pinned-low", 2, Some(1))).expect("fits");
    catalog.apply(&created(&catalog, "pinned-high", 2, Some(3))).expect("fits");
    let two = plan(catalog.clone(), 2, Vec::new(), Uuid::nil()).expect("plans");
    assert_eq!(two.catalog.cores(), 2);
    assert!(two.catalog.topics().flat_map(|topic| &topic.partitions).all(|partition| partition.core < 2));
    assert!(two.catalog.topic("pinned-low").expect("there").partitions.iter().all(|partition| partition.core == 1));
    assert_eq!(two.pending.last(), Some(&Change::Cores { count: 2 }));
    let four = plan(two.catalog, 4, Vec::new(), Uuid::nil()).expect("plans");
    assert_eq!(four.catalog, catalog, "every partition is where it was, the pinned ones too");
}

#[test]
fn kafkas_directories_become_topics_with_their_ids() {
    let id = Uuid::from_u128(42);
    let of = |partition| foreign("orders", partition, id);
    let plan = plan(first_start(2), 2, vec![of(0), of(5)], Uuid::nil()).expect("plans");
    let topic = plan.catalog.topic_by_id(&id).expect("taken over");
    assert_eq!((topic.name.as_str(), topic.partitions.len()), ("orders", 6));
    assert_eq!(plan.taken_over, [("orders".to_owned(), 6)]);
}

#[test]
fn directories_of_another_topic_are_refused_and_those_of_a_deleted_one_are_left_alone() {
    let mut catalog = first_start(1);
    let change = created(&catalog, "orders", 1, None);
    let Change::TopicCreated { id, .. } = change else { unreachable!() };
    catalog.apply(&change).expect("fits");
    let strange = foreign("orders", 3, Uuid::from_u128(1));
    assert!(matches!(plan(catalog.clone(), 1, vec![strange], Uuid::nil()), Err(TakeOverError::TwoIds { .. })));
    let twin = foreign("copy", 0, id);
    assert!(matches!(plan(catalog.clone(), 1, vec![twin], Uuid::nil()), Err(TakeOverError::TwoNames { .. })));
    catalog.apply(&Change::TopicDeleted { id }).expect("fits");
    let left = foreign("orders", 0, id);
    let after = plan(catalog, 1, vec![left], Uuid::nil()).expect("plans");
    assert!(after.catalog.topic("orders").is_none() && after.pending.is_empty() && after.catalog.is_deleting("orders"));
}

#[test]
fn partition_ids_are_never_used_twice() {
    let mut catalog = first_start(1);
    let first = created(&catalog, "a", 3, None);
    catalog.apply(&first).expect("fits");
    let Change::TopicCreated { id, .. } = first else { unreachable!() };
    let before = catalog.next_partition();
    catalog.apply(&Change::TopicDeleted { id }).expect("fits");
    catalog.apply(&Change::DeletionFinished { id }).expect("fits");
    let read = Catalog::from_bytes(&records::snapshot(&catalog, NOW).concat()).expect("reads");
    assert_eq!(read.next_partition(), before);
}

#[test]
fn the_tables_of_settings_are_sorted_and_their_defaults_are_allowed() {
    for table in [topic_configs::ALL, broker_configs::ALL] {
        assert!(table.windows(2).all(|pair| pair[0].name < pair[1].name));
        for setting in table {
            assert!(setting.default.is_none_or(|value| setting.validate(value).is_ok()), "{}", setting.name);
        }
    }
    for setting in topic_configs::ALL {
        assert!(
            setting.synonyms.iter().all(|(name, _)| *name == "log.flush.scheduler.interval.ms" || broker_configs::find(name).is_some())
        );
    }
}

#[test]
fn the_default_that_is_shown_of_the_groups_size_is_the_one_that_holds() {
    let shown = broker_configs::find("group.max.size").and_then(|setting| setting.default);
    assert_eq!(shown, Some(GROUP_MEMBERS_MAX.to_string().as_str()));
    assert_eq!(Settings::default().group_members_max, GROUP_MEMBERS_MAX);
}

#[test]
fn values_are_refused_in_kafkas_words() {
    let refused = |name: &str, value: &str| topic_configs::find(name).expect("known").validate(value).expect_err("refused");
    assert_eq!(refused("retention.ms", "abc"), "Invalid value abc for configuration retention.ms: Not a number of type LONG");
    assert_eq!(refused("retention.ms", "-2"), "Invalid value -2 for configuration retention.ms: Value must be at least -1");
    assert_eq!(refused("segment.bytes", "1"), "Invalid value 1 for configuration segment.bytes: Value must be at least 1048576");
    assert_eq!(
        refused("cleanup.policy", "delete,x"),
        "Invalid value x for configuration cleanup.policy: String must be one of: compact, delete"
    );
    assert_eq!(
        refused("compression.gzip.level", "0"),
        "Invalid value 0 for configuration compression.gzip.level: Value must be between 1 and 9 or equal to -1"
    );
    assert_eq!(
        refused("min.cleanable.dirty.ratio", "-1"),
        "Invalid value -1.0 for configuration min.cleanable.dirty.ratio: Value must be at least 0"
    );
    assert_eq!(refused("preallocate", "1"), "Invalid value 1 for configuration preallocate: Expected value to be either true or false");
    let unknown = Configs::from([("foo.bar".to_owned(), "1".to_owned())]);
    assert_eq!(topic_configs::validate(&unknown), Err("Unknown topic config name: foo.bar".into()));
}

#[test]
fn a_topics_value_comes_from_the_nearest_place() {
    let mut catalog = first_start(1);
    let mut settings = Settings::default();
    let none = Configs::new();
    assert_eq!(catalog.topic_number(&none, &settings, "retention.ms"), 604_800_000);
    settings.properties.insert("log.retention.hours".into(), "2".into());
    assert_eq!(catalog.topic_number(&none, &settings, "retention.ms"), 7_200_000);
    settings.properties.insert("log.retention.minutes".into(), "3".into());
    assert_eq!(catalog.topic_number(&none, &settings, "retention.ms"), 180_000);
    let store = Configs::from([("log.retention.ms".to_owned(), "9".to_owned())]);
    catalog.apply(&Change::BrokerConfigs { configs: store }).expect("fits");
    assert_eq!(catalog.topic_number(&none, &settings, "retention.ms"), 9);
    let own = Configs::from([("retention.ms".to_owned(), "-1".to_owned())]);
    assert_eq!(catalog.topic_number(&own, &settings, "retention.ms"), -1);
}

proptest! {
    #[test]
    fn reading_any_bytes_never_panics(bytes: Vec<u8>) {
        let _ = Change::decode(&bytes);
        let _ = Catalog::from_bytes(&bytes);
    }

    #[test]
    fn a_cut_record_is_never_taken_for_a_whole_one(cut in 0usize..200) {
        let catalog = first_start(1);
        let value = created(&catalog, "some-topic", 9, Some(0)).encode();
        if cut < value.len() {
            prop_assert!(Change::decode(&value[..cut]).is_err());
        }
    }

    #[test]
    fn every_partition_has_a_core_that_exists(name in "[a-zA-Z0-9._-]{1,40}", partition in 0usize..10_000, pin in prop::option::of(0usize..300), cores in 1usize..256) {
        prop_assert!(placement::place(&name, partition, pin, cores) < cores);
    }
}

#[test]
fn a_start_refuses_a_partition_number_that_was_given_out_twice() {
    let catalog = first_start(1);
    let (first, second) = (created(&catalog, "first", 2, None), created(&catalog, "second", 1, None));
    let error = Catalog::from_bytes(&log(&[vec![first.clone(), second.clone()]])).expect_err("two topics, one number").to_string();
    assert!(error.contains("partition number 51 is that of first and of second"), "{error}");
    let Change::TopicCreated { id, .. } = &first else { unreachable!("just made") };
    let deleted = Change::TopicDeleted { id: *id };
    assert!(Catalog::from_bytes(&log(&[vec![first, deleted, second]])).is_err(), "its files may still be there");
}

#[test]
fn records_of_a_topic_may_be_deleted_if_its_policy_says_so() {
    let catalog = first_start(1);
    let deletes = |policy: &str| catalog.deletes(&Configs::from([("cleanup.policy".to_owned(), policy.to_owned())]), &Settings::default());
    assert!(deletes("delete") && deletes("compact,delete") && deletes("delete, compact"));
    assert!(!deletes("compact"));
    assert!(catalog.deletes(&Configs::new(), &Settings::default()), "the default is delete");
}
