//! The answer to a fetch, assembled by hand: its own bytes, then memory and ranges of files between them.

use super::{
    Part, Refused, Reply, RequestContext,
    encoding::{self, varint},
    locate::Leader,
};
use crate::core::Core;
use bytes::{BufMut, Bytes, BytesMut};
use engine::{
    disk::UringDisk,
    log::{AbortedTransaction, Offsets, Piece, ReadPlan},
};
use kafka_protocol::{
    ResponseError,
    messages::{ApiKey, TopicName},
};
use uuid::Uuid;

/// The version from which on lengths are varints and structures end in tagged fields.
const FLEXIBLE: i16 = 12;
/// The version from which on topics come by id.
const TOPIC_IDS: i16 = 13;
/// The version from which on NOT_LEADER_OR_FOLLOWER names the leader (KIP-951).
pub const LEADERS_SINCE: i16 = 16;
const TAG_CURRENT_LEADER: u32 = 1;
const TAG_NODE_ENDPOINTS: u32 = 0;
const NO_REPLICA: i32 = -1;

/// A topic of the answer.
pub struct Topic {
    /// Its name, as the request gave it.
    pub name: TopicName,
    /// Its id, as the request gave it.
    pub id: Uuid,
    /// Its partitions, in the request's order.
    pub answers: Vec<Answer>,
}

/// A partition of the answer.
pub struct Answer {
    partition: i32,
    error: i16,
    high_watermark: i64,
    last_stable: i64,
    log_start: i64,
    aborted: Option<Vec<AbortedTransaction>>,
    leader: Option<Leader>,
    pieces: Vec<Piece<UringDisk>>,
    bytes: usize,
}

impl Answer {
    /// What was read.
    #[must_use]
    pub fn of_plan(partition: i32, offsets: Offsets, plan: ReadPlan<UringDisk>, committed: bool) -> Answer {
        Answer {
            partition,
            error: 0,
            high_watermark: offsets.high_watermark,
            last_stable: offsets.last_stable,
            log_start: offsets.log_start,
            aborted: committed.then_some(plan.aborted),
            leader: None,
            pieces: plan.pieces,
            bytes: plan.bytes,
        }
    }

    /// Bytes of its batches.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Why nothing was read. OFFSET_OUT_OF_RANGE still says which offsets there are.
    #[must_use]
    pub fn of_error(partition: i32, error: ResponseError, offsets: Option<Offsets>, leader: Option<Leader>) -> Answer {
        Answer {
            partition,
            error: error.code(),
            high_watermark: offsets.map_or(-1, |offsets| offsets.high_watermark),
            last_stable: offsets.map_or(-1, |offsets| offsets.last_stable),
            log_start: offsets.map_or(-1, |offsets| offsets.log_start),
            aborted: None,
            leader,
            pieces: Vec::new(),
            bytes: 0,
        }
    }
}

/// The answer with its length and header in front.
///
/// # Errors
/// [`Refused::TooLarge`].
pub fn assemble(core: &Core, context: &RequestContext, error: i16, topics: Vec<Topic>) -> Result<Reply, Refused> {
    let mut out = Assembly { version: context.version, own: BytesMut::with_capacity(256), parts: Vec::new(), bytes: 0 };
    out.own.put_i32(0);
    out.own.put_i32(context.correlation_id);
    if out.version >= FLEXIBLE {
        out.own.put_u8(0);
    }
    out.own.put_i32(0);
    if out.version >= 7 {
        out.own.put_i16(error);
        out.own.put_i32(0);
    }
    let mut leaders: Vec<usize> = Vec::new();
    out.count(topics.len());
    for topic in topics {
        if out.version >= TOPIC_IDS {
            out.own.put_slice(topic.id.as_bytes());
        } else {
            out.string(&topic.name.0);
        }
        out.count(topic.answers.len());
        for answer in topic.answers {
            leaders.extend(answer.leader.map(|leader| leader.node));
            out.partition(answer);
        }
        out.no_tags();
    }
    leaders.sort_unstable();
    leaders.dedup();
    out.endpoints(core, &leaders);
    out.finish()
}

struct Assembly {
    version: i16,
    own: BytesMut,
    parts: Vec<Part>,
    bytes: usize,
}

impl Assembly {
    fn partition(&mut self, answer: Answer) {
        self.own.put_i32(answer.partition);
        self.own.put_i16(answer.error);
        self.own.put_i64(answer.high_watermark);
        self.own.put_i64(answer.last_stable);
        if self.version >= 5 {
            self.own.put_i64(answer.log_start);
        }
        match answer.aborted {
            None if self.version >= FLEXIBLE => self.own.put_u8(0),
            None => self.own.put_i32(-1),
            Some(aborted) => {
                self.count(aborted.len());
                for transaction in aborted {
                    self.own.put_i64(transaction.producer_id);
                    self.own.put_i64(transaction.first_offset);
                    self.no_tags();
                }
            }
        }
        if self.version >= 11 {
            self.own.put_i32(NO_REPLICA);
        }
        // No records are empty records, not null: some clients read null as a mistake.
        self.count(answer.bytes);
        self.records(answer.pieces, answer.bytes);
        match answer.leader {
            Some(leader) if self.version >= FLEXIBLE => {
                varint(&mut self.own, 1);
                varint(&mut self.own, TAG_CURRENT_LEADER);
                varint(&mut self.own, 9);
                self.own.put_i32(leader.node as i32);
                self.own.put_i32(leader.epoch);
                self.own.put_u8(0);
            }
            _ => self.no_tags(),
        }
    }

    fn records(&mut self, pieces: Vec<Piece<UringDisk>>, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.flush();
        let before = self.bytes;
        for piece in pieces {
            let part = match piece {
                Piece::Memory(slice) => Part::Memory(slice),
                Piece::File { reader, position, len } => Part::File { reader, position, len },
            };
            self.bytes += part.len();
            self.parts.push(part);
        }
        assert_eq!(self.bytes - before, bytes, "a plan's pieces are as long as it says");
    }

    /// Where the leaders that were named are reached: an answer that names none has no such field.
    fn endpoints(&mut self, core: &Core, leaders: &[usize]) {
        if self.version < LEADERS_SINCE || leaders.is_empty() {
            return self.no_tags();
        }
        let mut content = BytesMut::new();
        varint(&mut content, leaders.len() as u32 + 1);
        for node in leaders {
            let reached = &core.settings.nodes[*node];
            content.put_i32(*node as i32);
            varint(&mut content, reached.host.len() as u32 + 1);
            content.put_slice(reached.host.as_bytes());
            content.put_i32(i32::from(reached.port));
            content.put_u8(0);
            content.put_u8(0);
        }
        varint(&mut self.own, 1);
        varint(&mut self.own, TAG_NODE_ENDPOINTS);
        varint(&mut self.own, content.len() as u32);
        self.own.put_slice(&content);
    }

    fn count(&mut self, count: usize) {
        encoding::count(&mut self.own, self.version >= FLEXIBLE, count);
    }

    fn string(&mut self, text: &str) {
        encoding::string(&mut self.own, self.version >= FLEXIBLE, text);
    }

    fn no_tags(&mut self) {
        if self.version >= FLEXIBLE {
            self.own.put_u8(0);
        }
    }

    /// What was written so far becomes a part.
    fn flush(&mut self) {
        let own = self.own.split();
        if !own.is_empty() {
            self.bytes += own.len();
            self.parts.push(Part::Bytes(own.freeze()));
        }
    }

    fn finish(mut self) -> Result<Reply, Refused> {
        self.flush();
        let length = i32::try_from(self.bytes - 4).map_err(|_| Refused::too_large(ApiKey::Fetch, self.bytes))?;
        if let Some(Part::Bytes(first)) = self.parts.first_mut() {
            let mut with_length = BytesMut::from(std::mem::take(first));
            with_length[..4].copy_from_slice(&length.to_be_bytes());
            *first = Bytes::from(with_length);
        }
        Ok(Reply::Parts(self.parts))
    }
}
