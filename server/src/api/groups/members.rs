//! JoinGroup, SyncGroup, Heartbeat, LeaveGroup.

use super::{code_of, kept, kept_option, text};
use crate::{
    api::RequestContext,
    core::Core,
    groups::{
        classic::{JoinAnswer, JoinRequest, LeaveTarget, SyncAnswer, SyncRequest},
        coordinator,
        records::cut,
    },
    walk::STRING_BYTES_MAX,
};
use bytes::Bytes;
use kafka_protocol::{
    ResponseError,
    messages::{
        HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse, SyncGroupRequest,
        SyncGroupResponse, join_group_response::JoinGroupResponseMember, leave_group_response::MemberResponse,
    },
};
use std::{net::IpAddr, rc::Rc};
use uuid::Uuid;

/// From here on a dynamic member must join with an id of ours (KIP-394).
const ID_REQUIRED_SINCE: i16 = 4;
/// From here on "no protocol" may be null in the answer.
const NULL_PROTOCOL_SINCE: i16 = 7;
/// From here on a static leader may be told to keep its assignment (KIP-814).
const SKIP_ASSIGNMENT_SINCE: i16 = 9;
/// From here on several members leave at once (KIP-345).
const LEAVE_BATCHED_SINCE: i16 = 3;
/// What a member's id has of its client's name, in bytes: with the UUID behind it, it still is a string of the protocol.
const ID_STEM_BYTES_MAX: usize = STRING_BYTES_MAX - 1 - 36;

/// JoinGroup, version 0 to 9. It waits for the group.
pub async fn join_group(core: &Rc<Core>, context: &RequestContext, request: JoinGroupRequest) -> JoinGroupResponse {
    let instance = kept_option(&request.group_instance_id);
    let stem = instance.as_deref().unwrap_or(context.client());
    let stem = cut(stem, ID_STEM_BYTES_MAX);
    let rebalance_timeout_ms = if context.version == 0 { request.session_timeout_ms } else { request.rebalance_timeout_ms };
    let join = JoinRequest {
        member_id: kept(&request.member_id),
        fresh_id: format!("{stem}-{}", Uuid::new_v4()),
        client_id: context.client().to_owned(),
        client_host: host(context.peer.ip()),
        session_timeout_ms: request.session_timeout_ms,
        rebalance_timeout_ms,
        protocol_type: kept(&request.protocol_type),
        protocols: request.protocols.iter().map(|protocol| (kept(&protocol.name), Bytes::copy_from_slice(&protocol.metadata))).collect(),
        id_required: context.version >= ID_REQUIRED_SINCE,
        skip_assignment: context.version >= SKIP_ASSIGNMENT_SINCE,
        instance,
    };
    let group = kept(&request.group_id.0);
    drop(request);
    let member_id = join.member_id.clone();
    let answer = unless_over(core, context, coordinator::join(core, &group, join)).await;
    join_response(context.version, answer.unwrap_or_else(|error| JoinAnswer::refused(error, member_id)))
}

/// Waits for an answer of the group, unless the client goes or the broker stops: then nobody needs it.
async fn unless_over<T>(core: &Rc<Core>, context: &RequestContext, answer: impl Future<Output = T>) -> Result<T, ResponseError> {
    tokio::select! {
        biased;
        answer = answer => Ok(answer),
        () = context.gone.raised() => Err(ResponseError::CoordinatorNotAvailable),
        () = core.stopping.raised() => Err(ResponseError::CoordinatorNotAvailable),
    }
}

/// Where a client comes from, as Kafka shows it.
fn host(address: IpAddr) -> String {
    format!("/{}", address.to_canonical())
}

fn join_response(version: i16, answer: JoinAnswer) -> JoinGroupResponse {
    let no_protocol = || (version < NULL_PROTOCOL_SINCE).then(Default::default);
    let members = answer.members.into_iter().map(|member| {
        JoinGroupResponseMember::default()
            .with_member_id(text(member.id))
            .with_group_instance_id(member.instance.map(text))
            .with_metadata(member.metadata)
    });
    JoinGroupResponse::default()
        .with_error_code(answer.error.map_or(0, |error| error.code()))
        .with_generation_id(answer.generation)
        .with_protocol_type(answer.protocol_type.map(text))
        .with_protocol_name(answer.protocol.map(text).or_else(no_protocol))
        .with_leader(text(answer.leader))
        .with_skip_assignment(answer.skip_assignment && version >= SKIP_ASSIGNMENT_SINCE)
        .with_member_id(text(answer.member_id))
        .with_members(members.collect())
}

/// SyncGroup, version 0 to 5. It waits for the leader.
pub async fn sync_group(core: &Rc<Core>, context: &RequestContext, request: SyncGroupRequest) -> SyncGroupResponse {
    let sync = SyncRequest {
        member_id: kept(&request.member_id),
        instance: kept_option(&request.group_instance_id),
        generation: request.generation_id,
        protocol_type: kept_option(&request.protocol_type),
        protocol: kept_option(&request.protocol_name),
        assignments: request
            .assignments
            .iter()
            .map(|assignment| (kept(&assignment.member_id), Bytes::copy_from_slice(&assignment.assignment)))
            .collect(),
    };
    let group = kept(&request.group_id.0);
    drop(request);
    let answer = unless_over(core, context, coordinator::sync(core, &group, sync)).await.unwrap_or_else(SyncAnswer::refused);
    SyncGroupResponse::default()
        .with_error_code(answer.error.map_or(0, |error| error.code()))
        .with_protocol_type(answer.protocol_type.map(text))
        .with_protocol_name(answer.protocol.map(text))
        .with_assignment(answer.assignment)
}

/// Heartbeat, version 0 to 4.
pub async fn heartbeat(core: &Rc<Core>, _: &RequestContext, request: HeartbeatRequest) -> HeartbeatResponse {
    let instance = request.group_instance_id.as_ref().map(|id| id.as_str());
    let heard = coordinator::heartbeat(core, request.group_id.0.as_str(), request.member_id.as_str(), instance, request.generation_id);
    HeartbeatResponse::default().with_error_code(code_of(&heard))
}

/// LeaveGroup, version 0 to 5.
pub async fn leave_group(core: &Rc<Core>, context: &RequestContext, request: LeaveGroupRequest) -> LeaveGroupResponse {
    let batched = context.version >= LEAVE_BATCHED_SINCE;
    let targets = if batched {
        let target = |member: &kafka_protocol::messages::leave_group_request::MemberIdentity| LeaveTarget {
            member_id: kept(&member.member_id),
            instance: kept_option(&member.group_instance_id),
        };
        request.members.iter().map(target).collect()
    } else {
        vec![LeaveTarget { member_id: kept(&request.member_id), instance: None }]
    };
    let left = match coordinator::leave(core, request.group_id.0.as_str(), targets) {
        Ok(left) => left,
        Err(error) => return LeaveGroupResponse::default().with_error_code(error.code()),
    };
    let number = |error: Option<ResponseError>| error.map_or(0, |error| error.code());
    if !batched {
        return LeaveGroupResponse::default().with_error_code(left.first().map_or(0, |leave| number(leave.error)));
    }
    let members = left.into_iter().map(|leave| {
        MemberResponse::default()
            .with_member_id(text(leave.target.member_id))
            .with_group_instance_id(leave.target.instance.map(text))
            .with_error_code(number(leave.error))
    });
    LeaveGroupResponse::default().with_members(members.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::protocol::Encodable;

    #[test]
    fn every_version_can_tell_every_answer() {
        let refused = JoinAnswer::refused(ResponseError::UnknownMemberId, "m".into());
        let member = crate::groups::classic::Joined { id: "m".into(), instance: Some("i".into()), metadata: Bytes::new() };
        let joined = JoinAnswer {
            error: None,
            generation: 1,
            protocol_type: Some("consumer".into()),
            protocol: Some("range".into()),
            leader: "m".into(),
            skip_assignment: true,
            member_id: "m".into(),
            members: vec![member],
        };
        for version in 0..=9 {
            for answer in [&refused, &joined] {
                let response = join_response(version, answer.clone());
                response.encode(&mut bytes::BytesMut::new(), version).unwrap();
                assert!(version >= 7 || response.protocol_name.is_some(), "null is not allowed before version 7");
            }
        }
    }

    #[test]
    fn a_client_is_shown_as_kafka_shows_it() {
        assert_eq!(host("127.0.0.1".parse().unwrap()), "/127.0.0.1");
        assert_eq!(host("::ffff:10.0.0.7".parse().unwrap()), "/10.0.0.7");
    }
}
