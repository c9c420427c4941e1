//! From a request's bytes to its answer: one table, where each API is one line.
//!
//! Adding an API: write `api/<family>.rs` with
//! `pub async fn handle(core: &Rc<Core>, context: &RequestContext, request: XRequest) -> XResponse`, and add its line to
//! [`APIS`], and its schema to `walk/schema`. A request reaches its handler only after the walk has checked every count
//! and length in it. Requests of one connection run one after another, as in Kafka; a handler may wait as long as it wants.

#![deny(clippy::disallowed_types)]

mod api_versions;
mod cluster;
mod configs;
mod delete_records;
mod encoding;
mod fetch;
mod fetch_response;
mod groups;
pub mod keep;
mod list_offsets;
mod locate;
mod log_dirs;
mod metadata;
mod offset_for_leader_epoch;
mod produce;
mod produce_one;
mod producer_id;
mod reply;
mod topics;

pub use locate::TopicKey;
pub use produce_one::{OneAppend, append as append_one};
pub use reply::{Part, Refused, Reply};

use crate::{asker::Asker, core::Core, signal::Signal, walk};
use bytes::{Buf, Bytes, BytesMut};
use engine::disk::Slice;
use futures_util::future::LocalBoxFuture;
use kafka_protocol::{
    ResponseError,
    messages::{ApiKey, FetchRequest, ProduceRequest},
    protocol::{Decodable, Encodable, HeaderVersion, StrBytes},
};
use std::{net::SocketAddr, rc::Rc};

/// The largest answer in bytes, but for the batches of a fetch, which have bounds of their own: as large as a request may be
/// (`socket.request.max.bytes`). A small request may name much more than that.
pub const ANSWER_BYTES_MAX: usize = 100 << 20;

/// What a handler knows of a request beside its body.
#[derive(Clone, Debug)]
pub struct RequestContext {
    /// Which API.
    pub api: ApiKey,
    /// Its version, within the advertised range.
    pub version: i16,
    /// What the client wants back with the answer.
    pub correlation_id: i32,
    /// The client's name for itself.
    pub client_id: Option<StrBytes>,
    /// Where it comes from.
    pub peer: SocketAddr,
    /// Raised when the client has gone: whoever waits for something for long may give up.
    pub gone: Signal,
    /// The one batch of a large produce, in whose place the body has an empty one.
    pub batch: Option<Slice>,
}

/// What an answer has of its request.
#[derive(Clone, Copy, Debug)]
struct Asked {
    api: ApiKey,
    version: i16,
    correlation_id: i32,
}

/// A request, its length cut off.
#[derive(Debug)]
pub struct Request {
    /// All of it, but for the batch.
    pub bytes: Bytes,
    /// The one batch of a large produce, received apart.
    pub batch: Option<Slice>,
}

impl RequestContext {
    fn asked(&self) -> Asked {
        Asked { api: self.api, version: self.version, correlation_id: self.correlation_id }
    }

    /// The client's name for itself, empty if it gave none.
    #[must_use]
    pub fn client(&self) -> &str {
        self.client_id.as_ref().map_or("", |id| id.as_str())
    }

    /// Who asks, for a line in the log of what the request changes.
    #[must_use]
    pub fn asker(&self) -> Asker {
        Asker::new(self.peer, self.client())
    }
}

type Run = fn(Rc<Core>, RequestContext, Bytes) -> LocalBoxFuture<'static, Result<Reply, Refused>>;

/// One API that is served.
pub struct Api {
    /// Its key.
    pub key: ApiKey,
    /// The lowest version that is advertised.
    pub advertised_min: i16,
    /// The lowest version that is served.
    pub min: i16,
    /// The highest version that is served.
    pub max: i16,
    run: Run,
    parse: fn(&RequestContext, &mut Bytes) -> Result<(), Refused>,
}

/// A line of the table for a handler that takes and returns `kafka_protocol` messages.
macro_rules! api {
    ($key:ident $min:literal..=$max:literal, $request:ident => $handler:path) => {
        Api {
            key: ApiKey::$key,
            advertised_min: $min,
            min: $min,
            max: $max,
            run: |core, context, body| {
                Box::pin(async move {
                    let request: kafka_protocol::messages::$request = decode(&context, body)?;
                    let response = $handler(&core, &context, request).await;
                    core.counters.errors_of(ApiKey::$key, &response);
                    encode(&context, &response)
                })
            },
            parse: parsed::<kafka_protocol::messages::$request>,
        }
    };
}

/// Every API, by key. The ranges are those of `docs/protocol.md`.
pub static APIS: &[Api] = &[
    // Versions 0 to 2 are advertised and refused: librdkafka before 2.11 switches compression off without 0 (KAFKA-18659).
    Api {
        key: ApiKey::Produce,
        advertised_min: 0,
        min: 3,
        max: 13,
        run: |core, context, body| Box::pin(produce::handle(core, context, body)),
        parse: parsed::<ProduceRequest>,
    },
    Api {
        key: ApiKey::Fetch,
        advertised_min: 4,
        min: 4,
        max: 18,
        run: |core, context, body| Box::pin(fetch::handle(core, context, body)),
        parse: parsed::<FetchRequest>,
    },
    api!(ListOffsets 1..=10, ListOffsetsRequest => list_offsets::handle),
    api!(Metadata 0..=13, MetadataRequest => metadata::handle),
    api!(OffsetCommit 2..=9, OffsetCommitRequest => groups::offset_commit),
    api!(OffsetFetch 1..=9, OffsetFetchRequest => groups::offset_fetch),
    api!(FindCoordinator 0..=6, FindCoordinatorRequest => groups::find_coordinator),
    api!(JoinGroup 0..=9, JoinGroupRequest => groups::join_group),
    api!(Heartbeat 0..=4, HeartbeatRequest => groups::heartbeat),
    api!(LeaveGroup 0..=5, LeaveGroupRequest => groups::leave_group),
    api!(SyncGroup 0..=5, SyncGroupRequest => groups::sync_group),
    api!(DescribeGroups 0..=6, DescribeGroupsRequest => groups::describe_groups),
    api!(ListGroups 0..=5, ListGroupsRequest => groups::list_groups),
    api!(ApiVersions 0..=4, ApiVersionsRequest => api_versions::handle),
    api!(CreateTopics 2..=7, CreateTopicsRequest => topics::create),
    api!(DeleteTopics 1..=6, DeleteTopicsRequest => topics::delete),
    api!(DeleteRecords 0..=2, DeleteRecordsRequest => delete_records::handle),
    api!(InitProducerId 0..=5, InitProducerIdRequest => producer_id::init),
    api!(OffsetForLeaderEpoch 2..=4, OffsetForLeaderEpochRequest => offset_for_leader_epoch::handle),
    api!(DescribeConfigs 1..=4, DescribeConfigsRequest => configs::describe),
    api!(AlterConfigs 0..=2, AlterConfigsRequest => configs::alter),
    api!(DescribeLogDirs 1..=4, DescribeLogDirsRequest => log_dirs::describe),
    api!(CreatePartitions 0..=3, CreatePartitionsRequest => topics::create_partitions),
    api!(DeleteGroups 0..=2, DeleteGroupsRequest => groups::delete_groups),
    api!(IncrementalAlterConfigs 0..=1, IncrementalAlterConfigsRequest => configs::alter_incrementally),
    api!(OffsetDelete 0..=0, OffsetDeleteRequest => groups::offset_delete),
    api!(DescribeCluster 0..=2, DescribeClusterRequest => cluster::describe),
];

/// The line of an API.
#[must_use]
pub fn find(key: i16) -> Option<&'static Api> {
    APIS.iter().find(|api| api.key as i16 == key)
}

/// Carries out one request.
///
/// # Errors
/// [`Refused`]: the connection is to be closed, as Kafka does it.
pub async fn handle(core: &Rc<Core>, request: Request, peer: SocketAddr, gone: &Signal) -> Result<Reply, Refused> {
    let (api, mut context, body) = match header(request.bytes, peer, gone)? {
        Header::Served { api, context, body } => (api, context, body),
        Header::Keep { correlation_id, body } => return keep::handle(core, correlation_id, body).await,
        Header::NewerApiVersions { correlation_id } => {
            core.counters.failed(ApiKey::ApiVersions, ResponseError::UnsupportedVersion.code());
            return Ok(api_versions::too_new(correlation_id));
        }
    };
    context.batch = request.batch;
    tracing::trace!(%peer, client = context.client(), api = ?api.key, version = context.version, "request");
    (api.run)(Rc::clone(core), context, body).await
}

/// Walks and decodes a request without carrying it out. Returns how many bytes of its body the walk and the decoder have
/// each taken, which must be the same; `None` for an ApiVersions request of an unknown version, which has no body.
///
/// # Errors
/// [`Refused`], as [`handle`] would.
pub fn parse(request: Bytes, peer: SocketAddr) -> Result<Option<(usize, usize)>, Refused> {
    let (api, context, mut body) = match header(request, peer, &Signal::default())? {
        Header::Served { api, context, body } => (api, context, body),
        Header::Keep { body, .. } => return keep::parse(body).map(Some),
        Header::NewerApiVersions { .. } => return Ok(None),
    };
    let whole = body.len();
    let walked = walk::body(context.api as i16, context.version, &body).map_err(|why| Refused::Walk {
        api: api.key,
        version: context.version,
        why,
    })?;
    (api.parse)(&context, &mut body)?;
    Ok(Some((walked, whole - body.len())))
}

fn parsed<Q: Decodable>(context: &RequestContext, body: &mut Bytes) -> Result<(), Refused> {
    Q::decode(body, context.version).map(drop).map_err(|error| Refused::Malformed(error.to_string()))
}

enum Header {
    Served { api: &'static Api, context: RequestContext, body: Bytes },
    Keep { correlation_id: i32, body: Bytes },
    NewerApiVersions { correlation_id: i32 },
}

/// Reads the header and checks the body's counts and lengths.
fn header(mut request: Bytes, peer: SocketAddr, gone: &Signal) -> Result<Header, Refused> {
    if request.len() < 8 {
        return Err(short());
    }
    let (key, version, correlation_id) = (request.get_i16(), request.get_i16(), request.get_i32());
    if key == keep::KEY && version == keep::VERSION {
        client_id(&mut request)?;
        return Ok(Header::Keep { correlation_id, body: request });
    }
    let api = find(key).ok_or(Refused::Unsupported { key, version })?;
    if !(api.min..=api.max).contains(&version) {
        if api.key == ApiKey::ApiVersions && version > api.max {
            return Ok(Header::NewerApiVersions { correlation_id });
        }
        return Err(Refused::Unsupported { key, version });
    }
    let client_id = client_id(&mut request)?;
    let malformed = |why| Refused::Walk { api: api.key, version, why };
    if walk::schema(key).is_some_and(|message| version >= message.flexible) {
        let tags = walk::header_tags(&request).map_err(malformed)?;
        request.advance(tags);
    }
    walk::body(key, version, &request).map_err(malformed)?;
    let context = RequestContext { api: api.key, version, correlation_id, client_id, peer, gone: gone.clone(), batch: None };
    Ok(Header::Served { api, context, body: request })
}

fn short() -> Refused {
    Refused::Malformed("it ends within its header".into())
}

/// The client's name for itself, in a header.
fn client_id(request: &mut Bytes) -> Result<Option<StrBytes>, Refused> {
    if request.len() < 2 {
        return Err(short());
    }
    match request.get_i16() {
        -1 => Ok(None),
        length => {
            let length = usize::try_from(length).ok().filter(|length| *length <= request.len()).ok_or_else(short)?;
            let id = StrBytes::from_utf8(request.split_to(length));
            id.map(Some).map_err(|_| Refused::Malformed("the client id is not UTF-8".into()))
        }
    }
}

/// Decodes a body that the walk has checked. Bytes behind it are tolerated, as in Kafka.
fn decode<Q: Decodable>(context: &RequestContext, mut body: Bytes) -> Result<Q, Refused> {
    Q::decode(&mut body, context.version).map_err(|error| Refused::Malformed(error.to_string()))
}

/// A whole answer: length, header, body. Nothing is allocated for one that is beyond [`ANSWER_BYTES_MAX`].
fn encode<R: Encodable + HeaderVersion>(context: &RequestContext, response: &R) -> Result<Reply, Refused> {
    encode_to(context.asked(), response)
}

fn encode_to<R: Encodable + HeaderVersion>(asked: Asked, response: &R) -> Result<Reply, Refused> {
    let Asked { api, version, correlation_id } = asked;
    let broken = |error: anyhow::Error| Refused::Encode { api, version, why: error.to_string() };
    let flexible = R::header_version(version) >= 1;
    let bytes = response.compute_size(version).map_err(broken)? + 9;
    if bytes > ANSWER_BYTES_MAX {
        return Err(Refused::too_large(api, bytes));
    }
    let mut out = BytesMut::with_capacity(bytes);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&correlation_id.to_be_bytes());
    if flexible {
        out.extend_from_slice(&[0]);
    }
    response.encode(&mut out, version).map_err(broken)?;
    let length = (out.len() - 4) as i32;
    out[..4].copy_from_slice(&length.to_be_bytes());
    Ok(Reply::Whole(out.freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::{
        DescribeGroupsResponse,
        describe_groups_response::{DescribedGroup, DescribedGroupMember},
    };

    #[test]
    fn the_table_of_the_documents_is_the_one_that_is_served() {
        let document = include_str!("../../../docs/protocol.md");
        let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
        let documented: Vec<_> = document
            .lines()
            .map(cells)
            .filter(|cells| cells.len() > 4 && cells[1].parse::<i16>().is_ok())
            .map(|cells| (cells[1].clone(), cells[2].clone(), cells[3].clone()))
            .collect();
        let served = |api: &Api| ((api.key as i16).to_string(), format!("{:?}", api.key), format!("{}-{}", api.advertised_min, api.max));
        assert_eq!(documented, APIS.iter().map(served).collect::<Vec<_>>());
    }

    #[test]
    fn an_answer_beyond_the_bound_is_refused_before_it_has_memory() {
        let context = |api| RequestContext {
            api,
            version: 5,
            correlation_id: 1,
            client_id: None,
            peer: "127.0.0.1:1".parse().unwrap(),
            gone: Signal::default(),
            batch: None,
        };
        // So many members that share 256 KiB: 26 GB.
        let metadata = Bytes::from(vec![0; 256 << 10]);
        let answer = |members: usize| {
            let member = DescribedGroupMember::default().with_member_metadata(metadata.clone());
            DescribeGroupsResponse::default().with_groups(vec![DescribedGroup::default().with_members(vec![member; members])])
        };
        let refused = encode(&context(ApiKey::DescribeGroups), &answer(100_000));
        assert!(matches!(refused, Err(Refused::TooLarge { bytes, .. }) if bytes > 26_000_000_000));
        let served = encode(&context(ApiKey::DescribeGroups), &answer(3)).map(|reply| reply.len());
        assert!(served.is_ok_and(|bytes| bytes > 3 * (256 << 10)));
    }

    #[test]
    fn every_api_that_is_served_has_a_schema() {
        assert!(APIS.iter().all(|api| walk::schema(api.key as i16).is_some()));
    }
}
