//! Fetch: what partitions hold from an offset on; if that is too little, waits for more without polling.

use super::{
    Refused, Reply, RequestContext, decode,
    fetch_response::{self, Answer, Topic},
    locate::{Leader, Location, TopicKey, check_epoch},
};
use crate::{core::Core, errors};
use bytes::Bytes;
use engine::{
    disk::UringDisk,
    log::{Offsets, Piece, ReadPlan},
    partition::PartitionId,
};
use kafka_protocol::{
    ResponseError,
    messages::{FetchRequest, fetch_request::FetchPartition},
};
use std::{rc::Rc, sync::LazyLock, time::Duration};
use tokio::time::Instant;

/// The longest that a fetch waits, in ms, whatever it asks for: a parked fetch holds memory.
pub const WAIT_MS_MAX: i32 = 300_000;
/// Fetches that wait ten times as long as this and more are answered together, on a grid of this width in ms, and not a moment later
/// than they ask for: with many idle consumers a core wakes up less often.
const WAIT_GRID_MS: u64 = 20;
/// The version from which on topics come by id.
const TOPIC_IDS_SINCE: i16 = 13;

/// One partition of a request.
struct Wanted<'r> {
    topic: usize,
    request: &'r FetchPartition,
    location: Location,
}

/// What one round of reads gave.
struct Round {
    answers: Vec<Answer>,
    bytes: usize,
    /// It is not to wait for more: a partition failed, or was read from its history. A read ends with its file, although
    /// there is more behind it; Kafka too answers at once from an older segment.
    at_once: bool,
}

/// Answers when there is enough, or an error, or time is up.
pub async fn handle(core: Rc<Core>, context: RequestContext, body: Bytes) -> Result<Reply, Refused> {
    let request: FetchRequest = decode(&context, body)?;
    if let Err(error) = session(&context, &request) {
        core.counters.failed(context.api, error.code());
        return fetch_response::assemble(&core, &context, error.code(), Vec::new());
    }
    let wanted: Vec<Wanted<'_>> = request
        .topics
        .iter()
        .enumerate()
        .flat_map(|(topic, requested)| requested.partitions.iter().map(move |partition| (topic, partition)))
        .map(|(topic, partition)| {
            let requested = &request.topics[topic];
            let key = if context.version >= TOPIC_IDS_SINCE { TopicKey::Id(requested.topic_id) } else { TopicKey::Name(&requested.topic) };
            Wanted { topic, request: partition, location: core.locate(key, partition.partition) }
        })
        .collect();
    let ids: Vec<PartitionId> = wanted.iter().filter_map(|wanted| wanted.location.here().ok()).collect();
    // What a partition has against being opened, its read will say again.
    let _ = core.log.ready(&ids).await;
    let deadline = deadline(Instant::now(), u64::from(request.max_wait_ms.clamp(0, WAIT_MS_MAX) as u32));
    let turn = core.fetches.get();
    core.fetches.set(turn.wrapping_add(1));
    let answers = loop {
        // Before the read: what comes between the read and the wait must not be missed.
        let changed = core.log.changed(&ids);
        let round = read_all(&core, &context, &request, &wanted, turn).await;
        let enough = round.at_once || wanted.is_empty() || round.bytes as u64 >= u64::from(request.min_bytes.max(0) as u32);
        if enough || Instant::now() >= deadline || core.stopping.is_raised() || context.gone.is_raised() {
            break round.answers;
        }
        // Held through the wait, its memory could not be given back.
        drop(round);
        let _parked = core.counters.parked_fetch();
        tokio::select! {
            () = changed => {}
            () = tokio::time::sleep_until(deadline) => {}
            () = core.stopping.raised() => {}
            () = context.gone.raised() => {}
        }
    };
    let mut topics: Vec<Topic> =
        request.topics.iter().map(|topic| Topic { name: topic.topic.clone(), id: topic.topic_id, answers: Vec::new() }).collect();
    for (wanted, answer) in wanted.iter().zip(answers) {
        if let Location::Here(id) = wanted.location {
            core.log.count_fetched(id, answer.bytes() as u64);
        }
        topics[wanted.topic].answers.push(answer);
    }
    fetch_response::assemble(&core, &context, 0, topics)
}

/// When a fetch that came at `now` is answered at last.
fn deadline(now: Instant, wait_ms: u64) -> Instant {
    static GRID: LazyLock<Instant> = LazyLock::new(Instant::now);
    let deadline = now + Duration::from_millis(wait_ms);
    let beyond = deadline.saturating_duration_since(*GRID).as_nanos() % Duration::from_millis(WAIT_GRID_MS).as_nanos();
    if wait_ms < 10 * WAIT_GRID_MS { deadline } else { deadline - Duration::from_nanos(beyond as u64) }
}

/// Sessions (KIP-227) are declined: a full fetch is answered with session 0, and so clients go on sending full ones.
fn session(context: &RequestContext, request: &FetchRequest) -> Result<(), ResponseError> {
    const FULL: std::ops::RangeInclusive<i32> = -1..=0;
    if context.version < 7 || FULL.contains(&request.session_epoch) {
        return Ok(());
    }
    Err(if request.session_id == 0 { ResponseError::InvalidFetchSessionEpoch } else { ResponseError::FetchSessionIdNotFound })
}

/// Reads every partition once, within the limits. Each fetch begins at another partition, so that one that fills the
/// limits starves no other.
async fn read_all(core: &Rc<Core>, context: &RequestContext, request: &FetchRequest, wanted: &[Wanted<'_>], turn: usize) -> Round {
    let mut answers: Vec<Option<Answer>> = wanted.iter().map(|_| None).collect();
    let mut left = usize::try_from(request.max_bytes).unwrap_or(0).min(core.connections.fetch_bytes_max(core.settings.fetch_bytes_max));
    let mut round = Round { answers: Vec::new(), bytes: 0, at_once: false };
    let committed = request.isolation_level == 1;
    for step in 0..wanted.len() {
        let index = (turn % wanted.len() + step) % wanted.len();
        let partition = &wanted[index];
        let most = usize::try_from(partition.request.partition_max_bytes).unwrap_or(0).min(left);
        let answer = match read(core, partition, most, round.bytes == 0, committed).await {
            Ok((offsets, plan)) => {
                left = left.saturating_sub(plan.bytes);
                round.bytes += plan.bytes;
                round.at_once |= plan.pieces.iter().any(|piece| matches!(piece, Piece::File { .. }));
                Answer::of_plan(partition.request.partition, offsets, plan, committed)
            }
            Err(refused) => {
                round.at_once = true;
                core.counters.failed(context.api, refused.error.code());
                let leader = refused.leader.filter(|_| context.version >= fetch_response::LEADERS_SINCE);
                Answer::of_error(partition.request.partition, refused.error, refused.offsets, leader)
            }
        };
        answers[index] = Some(answer);
    }
    round.answers = answers.into_iter().flatten().collect();
    round
}

struct Unread {
    error: ResponseError,
    offsets: Option<Offsets>,
    leader: Option<Leader>,
}

impl From<ResponseError> for Unread {
    fn from(error: ResponseError) -> Unread {
        Unread { error, offsets: None, leader: None }
    }
}

async fn read(
    core: &Rc<Core>,
    wanted: &Wanted<'_>,
    bytes_max: usize,
    at_least_one: bool,
    committed: bool,
) -> Result<(Offsets, ReadPlan<UringDisk>), Unread> {
    let id = match wanted.location {
        Location::Here(id) => id,
        Location::Elsewhere(leader) => {
            return Err(Unread { leader: Some(leader), ..ResponseError::NotLeaderOrFollower.into() });
        }
        Location::Nowhere(error) => return Err(error.into()),
    };
    // Deleted since the request came: the client's next metadata says so.
    let offsets = core.log.offsets(id).ok_or(ResponseError::UnknownTopicOrPartition)?;
    check_epoch(wanted.request.current_leader_epoch, offsets.leader_epoch)?;
    match core.log.read(id, wanted.request.fetch_offset, bytes_max, at_least_one, committed).await {
        // The offsets after the read: none of the batches lies above the high watermark that the answer names.
        Ok(plan) => Ok((core.log.offsets(id).unwrap_or(offsets), plan)),
        Err(error) => {
            tracing::debug!(partition = id.0, offset = wanted.request.fetch_offset, "fetch: {error}");
            core.read_failed(id, &error);
            Err(Unread { error: errors::of_read(&error), offsets: Some(offsets), leader: None })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_waits_end_together_and_none_later_than_asked() {
        let now = Instant::now() + Duration::from_secs(1);
        let after = |us| now + Duration::from_micros(us);
        let ends: std::collections::BTreeSet<_> = (0..100).map(|at| deadline(after(at * 1_000), 500)).collect();
        assert!((5..=6).contains(&ends.len()), "100 ms are five steps of the grid: {ends:?}");
        for at in 0..100 {
            let (end, asked) = (deadline(after(at * 777), 500), after(at * 777) + Duration::from_millis(500));
            assert!(end <= asked && asked - end < Duration::from_millis(WAIT_GRID_MS));
        }
        assert_eq!(deadline(now, 5), now + Duration::from_millis(5));
    }
}
