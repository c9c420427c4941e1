//! A request of Thalweg's own, which Kafka doesn't have: `compact --broker` asks for retention and compaction now, and how
//! far they have come. `docs/protocol.md` has its fields. It is not among the APIs that are advertised.

mod state;

pub use state::{State, take_string};

use super::{ANSWER_BYTES_MAX, Refused, Reply};
use crate::{
    catalog::Catalog,
    controller::now_ms,
    core::Core,
    settings::Node,
    walk::{self, Field, array, fixed, fixeds, string},
};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use engine::partition::PartitionId;
use kafka_protocol::ResponseError;
use state::{put_string, string_bytes};
use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

/// Its key: far above Kafka's, which number from 0.
pub const KEY: i16 = 31_001;
/// The only version.
pub const VERSION: i16 = 0;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Only say how far it has come.
    Look = 0,
    /// Do what is due, now.
    Now = 1,
}

/// Its body, as the walk checks it.
pub static FIELDS: &[Field] = &[fixed("action", 1), array("topics", &[string("name"), fixeds("partitions", 4)])];

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
struct Ask {
    action: Action,
    /// Topics with their partitions, all of them if there are none; `None` for all topics.
    topics: Option<BTreeMap<String, BTreeSet<i32>>>,
}

/// Reads the body, which the walk has checked before. Returns how many bytes the walk took of it.
fn decode(body: &mut Bytes) -> Result<(Ask, usize), Refused> {
    let malformed = |why: String| Refused::Malformed(format!("key {KEY}: {why}"));
    let walked = walk::fields(FIELDS, body).map_err(|why| malformed(why.to_string()))?;
    let number = body.get_i8();
    let action = [Action::Look, Action::Now].into_iter().find(|action| *action as i8 == number);
    let action = action.ok_or_else(|| malformed(format!("there is no action {number}")))?;
    let count = body.get_i32();
    let mut topics = BTreeMap::<String, BTreeSet<i32>>::new();
    for _ in 0..count {
        let length = body.get_i16();
        let name = usize::try_from(length).ok().map(|length| body.split_to(length)).unwrap_or_default();
        let name = String::from_utf8(name.to_vec()).map_err(|_| malformed("a topic's name is not UTF-8".into()))?;
        let partitions = body.get_i32();
        topics.entry(name).or_default().extend((0..partitions).map(|_| body.get_i32()));
    }
    Ok((Ask { action, topics: (count >= 0).then_some(topics) }, walked))
}

/// Decodes a body without carrying it out: how many bytes the walk and the decoder have taken.
///
/// # Errors
/// [`Refused`].
pub fn parse(mut body: Bytes) -> Result<(usize, usize), Refused> {
    let whole = body.len();
    let (_, walked) = decode(&mut body)?;
    Ok((walked, whole - body.len()))
}

/// Answers for the partitions of this core. The others are asked in the same way: the answer says where they listen.
///
/// # Errors
/// [`Refused`].
pub async fn handle(core: &Rc<Core>, correlation_id: i32, mut body: Bytes) -> Result<Reply, Refused> {
    let (ask, _) = decode(&mut body)?;
    let mine = mine(core, &ask);
    if ask.action == Action::Now {
        mine.values().for_each(|id| core.log.keep_soon(*id));
    }
    let states: Vec<State> = mine.values().map(|id| state(core, *id)).collect();
    let mine: Vec<Row<'_>> = mine.keys().zip(&states).map(|((topic, partition), state)| (topic.as_str(), *partition, state)).collect();
    let catalog = core.catalog.borrow();
    answer(correlation_id, core.index, &core.settings.nodes, &missing(&catalog, &ask), &mine)
}

/// A partition with its topic, and how far it has come.
type Row<'a> = (&'a str, i32, &'a State);

/// The answer of a core: it has memory only if it is within [`ANSWER_BYTES_MAX`].
fn answer(correlation_id: i32, core: usize, nodes: &[Node], missing: &[(&str, i32)], mine: &[Row<'_>]) -> Result<Reply, Refused> {
    let nothing = State::default();
    let unknown = ResponseError::UnknownTopicOrPartition.code();
    let missing = missing.iter().map(|(topic, partition)| (unknown, (*topic, *partition, &nothing)));
    let rows = missing.chain(mine.iter().map(|row| (0, *row)));
    let bytes_of_row = |(_, (topic, _, state)): (i16, Row<'_>)| string_bytes(topic) + 4 + 2 + state.size();
    let bytes_of_nodes: usize = nodes.iter().map(|node| string_bytes(&node.host) + 4).sum();
    let bytes = 5 * 4 + bytes_of_nodes + rows.clone().map(bytes_of_row).sum::<usize>();
    if bytes > ANSWER_BYTES_MAX {
        return Err(Refused::TooLarge { api: format!("key {KEY}"), bytes });
    }
    let mut out = BytesMut::with_capacity(bytes);
    out.put_i32((bytes - 4) as i32);
    out.put_i32(correlation_id);
    out.put_i32(core as i32);
    out.put_i32(nodes.len() as i32);
    for node in nodes {
        put_string(&mut out, &node.host);
        out.put_i32(i32::from(node.port));
    }
    out.put_i32(rows.clone().count() as i32);
    for (error, (topic, partition, state)) in rows {
        put_string(&mut out, topic);
        out.put_i32(partition);
        out.put_i16(error);
        state.put(&mut out);
    }
    debug_assert_eq!(out.len(), bytes);
    Ok(Reply::Whole(out.freeze()))
}

/// The partitions of this core that are asked for.
fn mine(core: &Core, ask: &Ask) -> BTreeMap<(String, i32), PartitionId> {
    let catalog = core.catalog.borrow();
    let mut mine = BTreeMap::new();
    for topic in catalog.topics() {
        let wanted = match &ask.topics {
            None => None,
            Some(topics) => match topics.get(&topic.name) {
                None => continue,
                Some(partitions) => Some(partitions).filter(|partitions| !partitions.is_empty()),
            },
        };
        for (index, partition) in (0i32..).zip(&topic.partitions) {
            if partition.core == core.index && wanted.is_none_or(|wanted| wanted.contains(&index)) {
                mine.insert((topic.name.clone(), index), partition.id);
            }
        }
    }
    mine
}

/// What is asked for and does not exist; of a topic, its partition is -1.
fn missing<'a>(catalog: &Catalog, ask: &'a Ask) -> Vec<(&'a str, i32)> {
    let mut missing = Vec::new();
    for (name, partitions) in ask.topics.iter().flatten() {
        match catalog.topic(name) {
            None => missing.push((name.as_str(), -1)),
            Some(topic) => {
                let is_there = |index: &i32| usize::try_from(*index).is_ok_and(|index| index < topic.partitions.len());
                missing.extend(partitions.iter().filter(|index| !is_there(index)).map(|index| (name.as_str(), *index)));
            }
        }
    }
    missing
}

/// How far a partition has come.
fn state(core: &Core, id: PartitionId) -> State {
    let tally = core.tallies.of(id);
    State {
        is_busy: core.log.is_keeping(id, now_ms()),
        next_ms: core.log.next_keeping(id),
        bytes: core.log.size(id).map_or(0, |bytes| bytes as i64),
        segments: tally.segments,
        by: tally.by,
        rounds: tally.rounds,
        compacted: tally.compacted,
        records: tally.records,
        progress: core.tallies.progress(id),
        failures: tally.failures,
        last_failure: tally.last_failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(action: Action, topics: &[(&str, &[i32])]) -> Vec<u8> {
        let mut body = vec![action as u8];
        body.extend((topics.len() as i32).to_be_bytes());
        for (name, partitions) in topics {
            body.extend((name.len() as i16).to_be_bytes());
            body.extend(name.as_bytes());
            body.extend((partitions.len() as i32).to_be_bytes());
            partitions.iter().for_each(|partition| body.extend(partition.to_be_bytes()));
        }
        body
    }

    #[test]
    fn what_is_asked_is_read_and_the_walk_takes_the_same_bytes() {
        let bytes = body(Action::Now, &[("orders", &[0, 2]), ("all", &[])]);
        let length = bytes.len();
        let (ask, walked) = decode(&mut Bytes::from(bytes.clone())).expect("is a request");
        let topics = BTreeMap::from([("orders".to_owned(), BTreeSet::from([0, 2])), ("all".to_owned(), BTreeSet::new())]);
        assert_eq!((ask, walked), (Ask { action: Action::Now, topics: Some(topics) }, length));
        assert_eq!(parse(Bytes::from(bytes)).expect("is a request"), (length, length));
        let everything = [&[Action::Look as u8][..], &(-1i32).to_be_bytes()].concat();
        assert_eq!(decode(&mut Bytes::from(everything)).expect("is a request").0, Ask { action: Action::Look, topics: None });
    }

    #[test]
    fn what_is_no_such_request_is_refused_before_anything_is_made_of_it() {
        let whole = body(Action::Now, &[("orders", &[0, 2])]);
        assert!((0..whole.len()).all(|length| parse(Bytes::copy_from_slice(&whole[..length])).is_err()), "it is cut off");
        let many = [&[Action::Now as u8][..], &i32::MAX.to_be_bytes(), &[0; 100]].concat();
        assert!(parse(Bytes::from(many)).is_err());
        assert!(parse(Bytes::from(vec![7u8, 0, 0, 0, 0])).is_err());
        assert!(parse(Bytes::from([&[Action::Now as u8][..], &(-2i32).to_be_bytes()].concat())).is_err());
    }

    #[test]
    fn an_answer_beyond_the_bound_is_refused_before_it_has_memory() {
        let nodes = [Node { host: "host".into(), port: 9092 }];
        let (name, state) = ("n".repeat(30_000), State { last_failure: Some("disk".into()), ..State::default() });
        let answered = |missing: usize| {
            let missing: Vec<(&str, i32)> = (0..missing as i32).map(|partition| (name.as_str(), partition)).collect();
            answer(7, 0, &nodes, &missing, &[("orders", 3, &state)])
        };
        let reply = answered(2).expect("within the bound");
        let Reply::Whole(bytes) = &reply else { panic!("it is whole") };
        assert_eq!(bytes[..4], (bytes.len() as i32 - 4).to_be_bytes());
        assert!(bytes.len() > 60_000);
        assert!(matches!(answered(1_000_000), Err(Refused::TooLarge { bytes, .. }) if bytes > 30_000_000_000));
    }
}
