//! DescribeGroups, ListGroups, DeleteGroups.

use super::{code_of, text};
use crate::{
    api::RequestContext,
    core::Core,
    groups::{
        classic::{Description, MemberDescription},
        coordinator,
    },
};
use kafka_protocol::{
    ResponseError,
    messages::{
        DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse, GroupId, ListGroupsRequest,
        ListGroupsResponse,
        delete_groups_response::DeletableGroupResult,
        describe_groups_response::{DescribedGroup, DescribedGroupMember},
        list_groups_response::ListedGroup,
    },
    protocol::StrBytes,
};
use std::{collections::BTreeSet, rc::Rc};

/// From here on an unknown group is GROUP_ID_NOT_FOUND; before, it's a dead one.
const MISSING_GROUP_NAMED_SINCE: i16 = 6;

/// From here on allowed operations can be asked for.
const OPERATIONS_SINCE: i16 = 3;

/// What everybody may do with a group as long as there are no ACLs, as Kafka's bits: READ, DELETE, DESCRIBE,
/// DESCRIBE_CONFIGS, ALTER_CONFIGS.
const OPERATIONS: i32 = 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11;

/// The type of all groups here (KIP-848 has others).
const GROUP_TYPE: &str = "classic";

/// DescribeGroups, version 0 to 6.
pub async fn describe_groups(core: &Rc<Core>, context: &RequestContext, request: DescribeGroupsRequest) -> DescribeGroupsResponse {
    // Each group once: its name costs a few bytes, its members' metadata up to a MiB.
    let mut seen = BTreeSet::new();
    let distinct = request.groups.into_iter().filter(|group| seen.insert(group.clone()));
    let groups = distinct.map(|group| {
        let described = coordinator::describe(core, group.0.as_str());
        let mut answer = described_group(context.version, group, described);
        if request.include_authorized_operations && context.version >= OPERATIONS_SINCE && answer.error_code == 0 {
            answer.authorized_operations = OPERATIONS;
        }
        answer
    });
    DescribeGroupsResponse::default().with_groups(groups.collect())
}

fn described_group(version: i16, group: GroupId, described: Result<Description, ResponseError>) -> DescribedGroup {
    let name = group.0.as_str().to_owned();
    let answer = DescribedGroup::default().with_group_id(group);
    match described {
        Ok(description) => answer
            .with_group_state(text(description.state))
            .with_protocol_type(text(description.protocol_type))
            .with_protocol_data(text(description.protocol))
            .with_members(description.members.into_iter().map(|member| described_member(version, member)).collect()),
        Err(ResponseError::GroupIdNotFound) => {
            let answer = answer.with_group_state(text("Dead"));
            if version < MISSING_GROUP_NAMED_SINCE {
                return answer;
            }
            answer.with_error_code(ResponseError::GroupIdNotFound.code()).with_error_message(Some(text(format!("Group {name} not found."))))
        }
        Err(error) => answer.with_error_code(error.code()),
    }
}

fn described_member(version: i16, member: MemberDescription) -> DescribedGroupMember {
    let instance = member.instance.filter(|_| version >= 4);
    DescribedGroupMember::default()
        .with_member_id(text(member.id))
        .with_group_instance_id(instance.map(text))
        .with_client_id(text(member.client_id))
        .with_client_host(text(member.client_host))
        .with_member_metadata(member.metadata)
        .with_member_assignment(member.assignment)
}

/// ListGroups, version 0 to 5: the groups of this core. Clients ask every core.
pub async fn list_groups(core: &Rc<Core>, _: &RequestContext, request: ListGroupsRequest) -> ListGroupsResponse {
    let listed = match coordinator::list(core) {
        Ok(listed) => listed,
        Err(error) => return ListGroupsResponse::default().with_error_code(error.code()),
    };
    // A set: a filter may have a million words, and a core 200,000 groups.
    let words = |filter: &[StrBytes]| filter.iter().map(|word| word.to_ascii_lowercase()).collect::<BTreeSet<String>>();
    let (states, types) = (words(&request.states_filter), words(&request.types_filter));
    let passes = |filter: &BTreeSet<String>, value: &str| filter.is_empty() || filter.contains(&value.to_ascii_lowercase());
    let groups = listed.into_iter().filter(|listed| passes(&states, listed.state) && passes(&types, GROUP_TYPE)).map(|listed| {
        ListedGroup::default()
            .with_group_id(GroupId(text(listed.group)))
            .with_protocol_type(text(listed.protocol_type))
            .with_group_state(text(listed.state))
            .with_group_type(text(GROUP_TYPE))
    });
    ListGroupsResponse::default().with_groups(groups.collect())
}

/// DeleteGroups, version 0 to 2: durable when it's answered.
pub async fn delete_groups(core: &Rc<Core>, context: &RequestContext, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let mut results = Vec::with_capacity(request.groups_names.len());
    for group in request.groups_names {
        let deleted = coordinator::delete_group(core, group.0.as_str()).await;
        if deleted.is_ok() {
            context.asker().has_deleted_group(group.0.as_str());
        }
        results.push(DeletableGroupResult::default().with_group_id(group).with_error_code(code_of(&deleted)));
    }
    DeleteGroupsResponse::default().with_results(results)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::protocol::Encodable;

    #[test]
    fn an_unknown_group_is_dead_or_not_found_by_version() {
        for version in 0..=6 {
            let answer = described_group(version, GroupId(text("g")), Err(ResponseError::GroupIdNotFound));
            assert_eq!(answer.group_state.as_str(), "Dead");
            assert_eq!(answer.error_code, if version < 6 { 0 } else { 69 });
            DescribeGroupsResponse::default().with_groups(vec![answer]).encode(&mut bytes::BytesMut::new(), version).unwrap();
        }
    }
}
