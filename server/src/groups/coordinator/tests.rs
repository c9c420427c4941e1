//! The coordinator on a core with a log: what members and operators see, and what is left after a restart.

use super::*;
use crate::{
    catalog::{Catalog, Change, Configs, start},
    core::{Core, mesh},
    groups::classic::{JoinRequest, LeaveTarget, State, SyncRequest},
};
use bytes::Bytes;
use engine::{
    disk::UringDisk,
    log::{Log, LogConfig, Start},
};
use std::{future::Future, os::fd::AsRawFd, time::Duration};
use uuid::Uuid;

/// One core over a log that outlives it.
pub(crate) struct Broker {
    log: Log<UringDisk>,
    disk: UringDisk,
    catalog: Catalog,
    settings: Settings,
    pub(crate) core: Rc<Core>,
    _dir: tempfile::TempDir,
}

impl Broker {
    pub(crate) async fn new() -> Broker {
        let scratch = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/tmp");
        std::fs::create_dir_all(scratch).unwrap();
        let dir = tempfile::tempdir_in(scratch).unwrap();
        let lock = tempfile::tempfile_in(scratch).unwrap();
        let disk = UringDisk::new(lock.as_raw_fd(), true).unwrap();
        let driven = disk.clone();
        tokio::task::spawn_local(async move { driven.run().await });
        let settings = Settings::default();
        let mut catalog = start::plan(Catalog::default(), 1, Vec::new(), Uuid::from_u128(7)).unwrap().catalog;
        catalog.started(5);
        let (data_dir, journal_dir) = (dir.path().to_owned(), dir.path().join("journal"));
        let config = LogConfig { data_dir, journal_dir, journal_bytes: 8 << 20, ..LogConfig::default() };
        let start = Start::read(&disk, &config, 1).await.unwrap();
        let mut starts = start.finish(1, catalog.all_specs(&settings), 4).await.unwrap();
        let log = Log::open(disk.clone(), starts.remove(0)).await.unwrap();
        let lanes = log.clone();
        tokio::task::spawn_local(async move { lanes.run().await });
        let core = Broker::core(&log, &disk, &catalog, &settings);
        let mut broker = Broker { log, disk, catalog, settings, core, _dir: dir };
        broker.create("orders").await;
        broker.loaded().await;
        broker
    }

    fn core(log: &Log<UringDisk>, disk: &UringDisk, catalog: &Catalog, settings: &Settings) -> Rc<Core> {
        let mailbox = mesh(1).remove(0);
        Core::new(0, log.clone(), disk.clone(), catalog.clone(), settings.clone(), 5, mailbox)
    }

    /// Another process over the same log.
    async fn restart(&mut self) {
        self.core = Broker::core(&self.log, &self.disk, &self.catalog, &self.settings);
        self.loaded().await;
    }

    async fn loaded(&self) {
        tokio::task::yield_now().await;
        load::all_loaded(&self.core).await;
    }

    fn apply(&mut self, change: &Change) {
        self.catalog.apply(change).unwrap();
        self.core.catalog.borrow_mut().apply(change).unwrap();
    }

    async fn create(&mut self, name: &str) {
        let partitions = start::new_partitions(&self.catalog, name, 0, 4, 1);
        let change = Change::TopicCreated { name: name.into(), id: Uuid::new_v4(), internal: false, configs: Configs::new(), partitions };
        self.apply(&change);
    }

    async fn delete(&mut self, name: &str) {
        let id = self.catalog.topic(name).unwrap().id;
        self.apply(&Change::TopicDeleted { id });
    }

    fn offset(&self, topic: &str, partition: i32, offset: i64) -> Commit {
        let topic_id = self.core.catalog.borrow().topic(topic).unwrap().id;
        Commit { topic: topic.into(), topic_id, partition, offset, leader_epoch: 5, metadata: "m".into() }
    }

    async fn commit(&self, by: CommitBy, offset: i64) -> Result<(), ResponseError> {
        commit(&self.core, by, vec![self.offset("orders", 1, offset)]).await[0]
    }

    async fn committed(&self, group: &str) -> Option<i64> {
        let fetched = fetch(&self.core, group, Some(vec![("orders".into(), vec![1])])).await.unwrap();
        fetched[0].1[0].1.as_ref().map(|committed| committed.offset)
    }

    async fn join(&self, member: &str) -> JoinAnswer {
        join(&self.core, "g", request(member)).await
    }

    async fn sync(&self, member: &str, generation: i32) -> SyncAnswer {
        let assignments = BTreeMap::from([(member.to_owned(), Bytes::from_static(b"part"))]);
        let request = SyncRequest { member_id: member.into(), generation, assignments, ..SyncRequest::default() };
        sync(&self.core, "g", request).await
    }
}

fn request(member: &str) -> JoinRequest {
    JoinRequest {
        member_id: member.into(),
        fresh_id: format!("c-{}", Uuid::new_v4()),
        instance: None,
        client_id: "c".into(),
        client_host: "/127.0.0.1".into(),
        session_timeout_ms: 6_000,
        rebalance_timeout_ms: 6_000,
        protocol_type: "consumer".into(),
        protocols: vec![("range".into(), Bytes::from_static(b"\0\x01\0\0\0\x01\0\x06orders"))],
        id_required: false,
        skip_assignment: false,
    }
}

fn outside(group: &str) -> CommitBy {
    CommitBy { group: group.into(), member_id: String::new(), instance: None, generation: -1, names_missing_group: true }
}

fn member(id: &str, generation: i32) -> CommitBy {
    CommitBy { member_id: id.into(), generation, ..outside("g") }
}

pub(crate) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test);
}

#[test]
fn a_member_goes_on_where_it_was_after_a_restart() {
    run(async {
        let mut broker = Broker::new().await;
        let joined = broker.join("").await;
        let id = joined.member_id.clone();
        assert_eq!(broker.sync(&id, 1).await.assignment.as_ref(), b"part");
        assert_eq!(broker.commit(member(&id, 1), 42).await, Ok(()));
        broker.restart().await;
        assert_eq!(heartbeat(&broker.core, "g", &id, None, 1), Ok(()));
        assert_eq!(broker.committed("g").await, Some(42));
        assert_eq!(broker.commit(member(&id, 1), 43).await, Ok(()));
        assert_eq!(broker.sync(&id, 1).await.assignment.as_ref(), b"part");
        assert_eq!(describe(&broker.core, "g").unwrap().state, State::Stable.name());
    });
}

#[test]
fn a_parked_join_is_answered_when_the_silent_member_is_out() {
    run(async {
        let broker = Broker::new().await;
        let first = broker.join("").await.member_id;
        broker.sync(&first, 1).await;
        let started = Instant::now();
        let second = broker.join("").await;
        assert_eq!((second.error, second.generation, second.members.len()), (None, 2, 1));
        assert!(started.elapsed() >= Duration::from_secs(5), "the session timeout of the silent one");
    });
}

#[test]
fn a_member_that_leaves_lets_the_parked_join_go_on() {
    run(async {
        let broker = Broker::new().await;
        let first = broker.join("").await.member_id;
        broker.sync(&first, 1).await;
        let core = Rc::clone(&broker.core);
        let parked = tokio::task::spawn_local(async move { join(&core, "g", request("")).await });
        tokio::time::sleep(Duration::from_millis(20)).await;
        let left = leave(&broker.core, "g", vec![LeaveTarget { member_id: first, instance: None }]).unwrap();
        assert_eq!(left[0].error, None);
        assert_eq!(parked.await.unwrap().generation, 2);
    });
}

#[test]
fn commits_from_outside_make_a_group_and_survive() {
    run(async {
        let mut broker = Broker::new().await;
        assert_eq!(broker.committed("out").await, None);
        assert_eq!(broker.commit(outside("out"), 7).await, Ok(()));
        assert_eq!(broker.commit(CommitBy { generation: 1, ..outside("none") }, 7).await, Err(ResponseError::GroupIdNotFound));
        let old = CommitBy { generation: 1, names_missing_group: false, ..outside("none") };
        assert_eq!(broker.commit(old, 7).await, Err(ResponseError::IllegalGeneration));
        broker.restart().await;
        assert_eq!(broker.committed("out").await, Some(7));
        let listed = list(&broker.core).unwrap();
        assert_eq!(listed, [Listed { group: "out".into(), protocol_type: String::new(), state: "Empty" }]);
    });
}

#[test]
fn too_much_metadata_is_refused_where_it_stands() {
    run(async {
        let broker = Broker::new().await;
        let fat = Commit { metadata: "x".repeat(4097), ..broker.offset("orders", 0, 1) };
        let results = commit(&broker.core, outside("out"), vec![fat, broker.offset("orders", 1, 2)]).await;
        assert_eq!(results, [Err(ResponseError::OffsetMetadataTooLarge), Ok(())]);
        assert_eq!(broker.committed("out").await, Some(2));
    });
}

#[test]
fn at_the_bound_of_offsets_only_new_ones_are_refused() {
    run(async {
        let broker = Broker::new().await;
        assert_eq!(broker.commit(outside("out"), 1).await, Ok(()));
        broker.core.groups.committed.set(COMMITTED_MAX - 1);
        let commits = [(1, 2), (0, 3), (1, 4), (2, 5)].map(|(partition, offset)| broker.offset("orders", partition, offset));
        let refused = Err(ResponseError::InvalidCommitOffsetSize);
        assert_eq!(commit(&broker.core, outside("out"), commits.to_vec()).await, [Ok(()), Ok(()), Ok(()), refused]);
        assert_eq!(broker.core.groups.committed.get(), COMMITTED_MAX);
        assert_eq!(broker.commit(outside("out"), 6).await, Ok(()), "a group that has one goes on");
        assert_eq!(broker.commit(outside("other"), 1).await, refused);
        assert_eq!(broker.committed("out").await, Some(6));
    });
}

#[test]
fn many_offsets_in_one_commit_take_several_batches() {
    run(async {
        let mut broker = Broker::new().await;
        let many: Vec<Commit> =
            (0..5_000).map(|at| Commit { metadata: "x".repeat(200), ..broker.offset("orders", at % 4, i64::from(at)) }).collect();
        let results = commit(&broker.core, outside("out"), many).await;
        assert!(results.iter().all(Result::is_ok));
        broker.restart().await;
        assert_eq!(broker.committed("out").await, Some(4_997));
    });
}

#[test]
fn a_deleted_group_is_gone_for_good() {
    run(async {
        let mut broker = Broker::new().await;
        let id = broker.join("").await.member_id;
        broker.sync(&id, 1).await;
        broker.commit(member(&id, 1), 3).await.unwrap();
        assert_eq!(delete_group(&broker.core, "g").await, Err(ResponseError::NonEmptyGroup));
        leave(&broker.core, "g", vec![LeaveTarget { member_id: id, instance: None }]).unwrap();
        assert_eq!(delete_group(&broker.core, "g").await, Ok(()));
        assert_eq!(delete_group(&broker.core, "g").await, Err(ResponseError::GroupIdNotFound));
        broker.restart().await;
        assert_eq!(broker.committed("g").await, None);
        assert_eq!(list(&broker.core).unwrap(), []);
    });
}

#[test]
fn offsets_of_topics_that_the_group_reads_stay() {
    run(async {
        let mut broker = Broker::new().await;
        broker.create("other").await;
        let id = broker.join("").await.member_id;
        broker.sync(&id, 1).await;
        broker.commit(member(&id, 1), 3).await.unwrap();
        let results = delete_offsets(&broker.core, "g", vec![("orders".into(), 1), ("other".into(), 0)]).await.unwrap();
        assert_eq!(results, [Err(ResponseError::GroupSubscribedToTopic), Ok(())]);
        leave(&broker.core, "g", vec![LeaveTarget { member_id: id, instance: None }]).unwrap();
        assert_eq!(delete_offsets(&broker.core, "g", vec![("orders".into(), 1)]).await.unwrap(), [Ok(())]);
        broker.restart().await;
        assert_eq!(broker.committed("g").await, None);
        assert_eq!(delete_offsets(&broker.core, "none", Vec::new()).await, Err(ResponseError::GroupIdNotFound));
    });
}

#[test]
fn offsets_go_with_their_topic_and_not_with_its_successor() {
    run(async {
        let mut broker = Broker::new().await;
        broker.commit(outside("out"), 9).await.unwrap();
        broker.delete("orders").await;
        broker.create("orders").await;
        assert_eq!(broker.committed("out").await, None, "it's about the topic that was deleted");
        broker.commit(outside("new"), 1).await.unwrap();
        topics_deleted(&broker.core, vec!["orders".into()]).await.unwrap();
        assert_eq!(broker.committed("new").await, Some(1), "it's about the new one");
        broker.restart().await;
        assert_eq!(broker.committed("new").await, Some(1));
        assert_eq!(list(&broker.core).unwrap().len(), 1, "a group without anything goes too");
    });
}

#[test]
fn a_crash_between_a_deletion_and_its_tombstones_leaves_nothing_behind() {
    run(async {
        let mut broker = Broker::new().await;
        broker.commit(outside("out"), 9).await.unwrap();
        broker.delete("orders").await;
        broker.restart().await;
        assert_eq!(list(&broker.core).unwrap(), []);
    });
}

#[test]
fn a_deletion_does_not_wait_for_groups_that_cannot_be_loaded() {
    run(async {
        let mut broker = Broker::new().await;
        broker.commit(outside("out"), 9).await.unwrap();
        broker.delete("orders").await;
        let (damaged, id, _) = place(&broker.core, "damaged").unwrap();
        let not_loaded = Shard { id, ready: false, failed: false, groups: BTreeMap::new(), appended: -1, watched: false };
        broker.core.groups.shards.borrow_mut().insert(damaged, not_loaded);
        let core = Rc::clone(&broker.core);
        let deletion = tokio::task::spawn_local(async move { topics_deleted(&core, vec!["orders".into()]).await });
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!deletion.is_finished(), "it waits for what is being loaded");
        load::failed(&broker.core, damaged);
        assert_eq!(deletion.await.unwrap(), Ok(()));
        assert_eq!(describe(&broker.core, "out").err(), Some(ResponseError::GroupIdNotFound), "the others' offsets are gone");
        assert_eq!(describe(&broker.core, "damaged").err(), Some(ResponseError::CoordinatorLoadInProgress));
    });
}

#[test]
fn a_leader_epoch_that_is_not_there_yet_is_not_told() {
    run(async {
        let broker = Broker::new().await;
        let ahead = Commit { leader_epoch: 6, ..broker.offset("orders", 1, 2) };
        assert_eq!(commit(&broker.core, outside("out"), vec![ahead, broker.offset("orders", 0, 3)]).await, [Ok(()), Ok(())]);
        let fetched = fetch(&broker.core, "out", None).await.unwrap();
        let epochs: Vec<_> = fetched[0].1.iter().map(|(at, offset)| (*at, offset.as_ref().unwrap().leader_epoch)).collect();
        assert_eq!(epochs, [(0, 5), (1, -1)]);
    });
}

#[test]
fn groups_with_members_need_a_name_and_offsets_do_not() {
    run(async {
        let broker = Broker::new().await;
        assert_eq!(join(&broker.core, "", request("")).await.error, Some(ResponseError::InvalidGroupId));
        assert_eq!(heartbeat(&broker.core, "", "m", None, 1), Err(ResponseError::InvalidGroupId));
        assert_eq!(broker.commit(outside(""), 4).await, Ok(()));
        assert_eq!(broker.committed("").await, Some(4));
    });
}

#[test]
fn above_the_bound_of_metadata_nobody_comes_in_and_members_go_on() {
    run(async {
        let broker = Broker::new().await;
        let id_required = || JoinRequest { id_required: true, ..request("") };
        let announced = join(&broker.core, "new", id_required()).await;
        assert_eq!(announced.error, Some(ResponseError::MemberIdRequired));
        let pending_bytes = broker.core.groups.metadata_bytes.get();
        assert!(pending_bytes > announced.member_id.len(), "an id that was handed out is counted");
        let member = broker.join("").await.member_id;
        broker.sync(&member, 1).await;
        let used = broker.core.groups.metadata_bytes.get();
        broker.core.groups.metadata_bytes.set(METADATA_BYTES_MAX - 10);
        let refused = Some(ResponseError::CoordinatorNotAvailable);
        assert_eq!(join(&broker.core, "new", request(&announced.member_id)).await.error, refused, "one that was announced");
        assert_eq!(join(&broker.core, "other", id_required()).await.error, refused, "one that would be");
        let fatter = JoinRequest { protocols: vec![("range".into(), Bytes::from(vec![0; 1 << 10]))], ..request(&member) };
        assert_eq!(join(&broker.core, "g", fatter).await.error, refused, "a member that brings more");
        assert_eq!(broker.join(&member).await.error, None, "a member that comes back as it was");
        broker.core.groups.metadata_bytes.set(used);
        assert_eq!(join(&broker.core, "new", request(&announced.member_id)).await.error, None);
    });
}

#[test]
fn a_walk_over_groups_tells_every_offset_however_small_its_steps() {
    run(async {
        let mut broker = Broker::new().await;
        broker.create("other").await;
        let mut expected = Vec::new();
        for (group, topics) in [("a", vec!["orders", "other"]), ("b", vec!["other"]), ("c", vec!["orders"])] {
            let offsets = topics.iter().flat_map(|topic| (0..4).map(|partition| broker.offset(topic, partition, i64::from(partition))));
            let offsets: Vec<_> = offsets.collect();
            expected.extend(offsets.iter().map(|commit| (group.to_owned(), commit.topic.clone(), commit.partition, commit.offset)));
            commit(&broker.core, outside(group), offsets).await;
        }
        expected.sort();
        for rows_max in [1, 2, 3, 4, 5, 7, 100] {
            let (mut told, mut place) = (Vec::new(), Some(Place::default()));
            while let Some(from) = place {
                let (rows, next) = groups_from(&broker.core, &from, rows_max);
                assert!(rows.iter().map(|row| 1 + row.offsets.len()).sum::<usize>() <= rows_max + 1, "a step of {rows_max}");
                for row in rows {
                    told.extend(row.offsets.into_iter().map(|(topic, partition, offset)| (row.name.clone(), topic, partition, offset)));
                }
                place = next;
            }
            told.sort();
            assert_eq!(told, expected, "in steps of {rows_max}");
        }
    });
}

#[test]
fn a_refused_join_leaves_no_group_behind() {
    run(async {
        let broker = Broker::new().await;
        assert_eq!(broker.join("stranger").await.error, Some(ResponseError::UnknownMemberId));
        let wrong = JoinRequest { protocols: Vec::new(), ..request("") };
        assert_eq!(join(&broker.core, "g", wrong).await.error, Some(ResponseError::InconsistentGroupProtocol));
        assert_eq!(list(&broker.core).unwrap(), []);
    });
}

#[test]
fn a_group_that_is_loaded_again_keeps_what_is_durable_and_answers_who_waits() {
    run(async {
        let broker = Broker::new().await;
        let id = broker.join("").await.member_id;
        broker.sync(&id, 1).await;
        let core = Rc::clone(&broker.core);
        let parked = tokio::task::spawn_local(async move { join(&core, "g", request("")).await });
        tokio::time::sleep(Duration::from_millis(20)).await;
        let (shard, ..) = place(&broker.core, "g").unwrap();
        load::again(&broker.core, shard);
        assert_eq!(parked.await.unwrap().error, Some(ResponseError::CoordinatorNotAvailable));
        assert_eq!(heartbeat(&broker.core, "g", &id, None, 1), Ok(()), "a member is kept while its group is loaded");
        assert_eq!(broker.join(&id).await.error, Some(ResponseError::CoordinatorLoadInProgress));
        broker.loaded().await;
        assert_eq!(heartbeat(&broker.core, "g", &id, None, 1), Ok(()));
        assert_eq!(describe(&broker.core, "g").unwrap().members.len(), 1);
    });
}

#[test]
fn a_group_belongs_to_the_partition_that_kafka_gives_it() {
    // `("..".hashCode() & 0x7fffffff) % 50`, as Java says; outside the basic plane it counts two units.
    let table = [("", 0), ("a", 47), ("ab", 5), ("fulfillment", 30), ("console-consumer-12345", 6), ("polygenelubricants", 0)];
    for (group, partition) in table.into_iter().chain([("gr\u{fc}ppe", 36), ("\u{1F600}", 49)]) {
        assert_eq!(partition_of(group, 50), partition, "{group}");
    }
}
