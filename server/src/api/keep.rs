//! A request of Thalweg's own, which Kafka doesn't have: `compact --broker` asks for retention and compaction now, and how
//! far they have come. `docs/protocol.md` has its fields. It is not among the APIs that are advertised.

use super::{Refused, Reply};
use crate::{
    controller::now_ms,
    core::Core,
    groups::records::cut,
    walk::{self, Field, array, fixed, fixeds, string},
};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use engine::partition::PartitionId;
use kafka_protocol::ResponseError;
use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

/// Its key: far above Kafka's, which number from 0.
pub const KEY: i16 = 31_001;
/// The only version.
pub const VERSION: i16 = 0;
/// Only say how far it has come.
const LOOK: i8 = 0;
/// Do what is due, now.
const NOW: i8 = 1;

/// Its body, as the walk checks it.
static FIELDS: &[Field] = &[fixed("action", 1), array("topics", &[string("name"), fixeds("partitions", 4)])];

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
struct Ask {
    action: i8,
    /// Topics with their partitions, all of them if there are none; `None` for all topics.
    topics: Option<BTreeMap<String, BTreeSet<i32>>>,
}

/// Reads the body, which the walk has checked before. Returns how many bytes the walk took of it.
fn decode(body: &mut Bytes) -> Result<(Ask, usize), Refused> {
    let malformed = |why: String| Refused::Malformed(format!("key {KEY}: {why}"));
    let walked = walk::fields(FIELDS, body).map_err(|why| malformed(why.to_string()))?;
    let action = body.get_i8();
    if action != LOOK && action != NOW {
        return Err(malformed(format!("there is no action {action}")));
    }
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
    if ask.action == NOW {
        mine.values().for_each(|id| core.log.keep_soon(*id));
    }
    let mut out = BytesMut::new();
    out.put_i32(0);
    out.put_i32(correlation_id);
    out.put_i32(core.index as i32);
    out.put_i32(core.settings.nodes.len() as i32);
    for node in &core.settings.nodes {
        put_string(&mut out, &node.host);
        out.put_i32(i32::from(node.port));
    }
    let missing = missing(core, &ask);
    out.put_i32((mine.len() + missing.len()) as i32);
    for (topic, partition) in missing {
        put_string(&mut out, &topic);
        out.put_i32(partition);
        out.put_i16(ResponseError::UnknownTopicOrPartition.code());
        put_state(&mut out, core, None);
    }
    for ((topic, partition), id) in &mine {
        put_string(&mut out, topic);
        out.put_i32(*partition);
        out.put_i16(0);
        put_state(&mut out, core, Some(*id));
    }
    let length = i32::try_from(out.len() - 4).map_err(|_| Refused::Malformed(format!("its answer would have {} bytes", out.len())))?;
    out[..4].copy_from_slice(&length.to_be_bytes());
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
fn missing(core: &Core, ask: &Ask) -> Vec<(String, i32)> {
    let catalog = core.catalog.borrow();
    let mut missing = Vec::new();
    for (name, partitions) in ask.topics.iter().flatten() {
        match catalog.topic(name) {
            None => missing.push((name.clone(), -1)),
            Some(topic) => {
                let is_there = |index: &i32| usize::try_from(*index).is_ok_and(|index| index < topic.partitions.len());
                missing.extend(partitions.iter().filter(|index| !is_there(index)).map(|index| (name.clone(), *index)));
            }
        }
    }
    missing
}

/// How far a partition has come; zeros for one that isn't there.
fn put_state(out: &mut BytesMut, core: &Core, id: Option<PartitionId>) {
    let tally = id.map(|id| core.tallies.of(id)).unwrap_or_default();
    let (read, to_read) = id.map_or((0, 0), |id| core.tallies.progress(id));
    out.put_i8(i8::from(id.is_some_and(|id| core.log.is_keeping(id, now_ms()))));
    out.put_i64(id.and_then(|id| core.log.next_keeping(id)).unwrap_or(-1));
    out.put_i64(id.and_then(|id| core.log.size(id)).map_or(0, |bytes| bytes as i64));
    let numbers = [tally.segments, tally.by[0], tally.by[1], tally.by[2], tally.rounds, tally.compacted.0, tally.compacted.1];
    numbers.into_iter().chain([tally.records, read, to_read, tally.failures]).for_each(|number| out.put_i64(number));
    match tally.last_failure {
        None => out.put_i16(-1),
        Some(what) => put_string(out, &what),
    }
}

/// A string, cut to what its length can say.
fn put_string(out: &mut BytesMut, text: &str) {
    let text = cut(text, i16::MAX as usize);
    out.put_i16(text.len() as i16);
    out.put_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(action: i8, topics: &[(&str, &[i32])]) -> Vec<u8> {
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
        let bytes = body(NOW, &[("orders", &[0, 2]), ("all", &[])]);
        let length = bytes.len();
        let (ask, walked) = decode(&mut Bytes::from(bytes.clone())).expect("is a request");
        let topics = BTreeMap::from([("orders".to_owned(), BTreeSet::from([0, 2])), ("all".to_owned(), BTreeSet::new())]);
        assert_eq!((ask, walked), (Ask { action: NOW, topics: Some(topics) }, length));
        assert_eq!(parse(Bytes::from(bytes)).expect("is a request"), (length, length));
        let everything = [&[LOOK as u8][..], &(-1i32).to_be_bytes()].concat();
        assert_eq!(decode(&mut Bytes::from(everything)).expect("is a request").0, Ask { action: LOOK, topics: None });
    }

    #[test]
    fn what_is_no_such_request_is_refused_before_anything_is_made_of_it() {
        let whole = body(NOW, &[("orders", &[0, 2])]);
        assert!((0..whole.len()).all(|length| parse(Bytes::copy_from_slice(&whole[..length])).is_err()), "it is cut off");
        let many = [&[NOW as u8][..], &i32::MAX.to_be_bytes(), &[0; 100]].concat();
        assert!(parse(Bytes::from(many)).is_err());
        assert!(parse(Bytes::from(body(7, &[]))).is_err());
        assert!(parse(Bytes::from([&[NOW as u8][..], &(-2i32).to_be_bytes()].concat())).is_err());
    }
}
