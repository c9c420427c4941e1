//! FindCoordinator: which core coordinates a group. Any core can tell.

use super::text;
use crate::{api::RequestContext, core::Core, groups::coordinator::coordinator_of};
use kafka_protocol::{
    ResponseError,
    messages::{BrokerId, FindCoordinatorRequest, FindCoordinatorResponse, find_coordinator_response::Coordinator},
    protocol::StrBytes,
};
use std::rc::Rc;

/// The key is a group's name. 2 would be a share group's.
const KEY_TYPE_GROUP: i8 = 0;
/// The key is a transactional id.
const KEY_TYPE_TRANSACTION: i8 = 1;

/// Version 4 and up ask for several keys at once (KIP-699).
const BATCHED_SINCE: i16 = 4;

/// FindCoordinator, version 0 to 6.
pub async fn find_coordinator(core: &Rc<Core>, context: &RequestContext, request: FindCoordinatorRequest) -> FindCoordinatorResponse {
    let is_batched = context.version >= BATCHED_SINCE;
    if request.key_type == KEY_TYPE_TRANSACTION {
        // Once for all of its keys: there may be a million.
        let first = if is_batched { request.coordinator_keys.first() } else { Some(&request.key) };
        let client = context.client();
        tracing::warn!(client, "a client wants transactions ({:?}): they are not supported yet", first.map_or("", |key| key.as_str()));
    }
    if is_batched {
        let coordinators = request.coordinator_keys.into_iter().map(|key| find(core, request.key_type, key)).collect();
        return FindCoordinatorResponse::default().with_coordinators(coordinators);
    }
    let found = find(core, request.key_type, request.key);
    // What Kafka calls "no error" here.
    let message = if found.error_code == 0 { Some(text("NONE")) } else { found.error_message };
    FindCoordinatorResponse::default()
        .with_error_code(found.error_code)
        .with_error_message(message)
        .with_node_id(found.node_id)
        .with_host(found.host)
        .with_port(found.port)
}

fn find(core: &Core, key_type: i8, key: StrBytes) -> Coordinator {
    let not_found = |error: ResponseError, message: StrBytes| {
        Coordinator::default()
            .with_key(key.clone())
            .with_node_id(BrokerId(-1))
            .with_port(-1)
            .with_error_code(error.code())
            .with_error_message(Some(message))
    };
    match key_type {
        KEY_TYPE_GROUP => {}
        // Not what Kafka means by it, but what every client takes as final: after INVALID_REQUEST librdkafka asks for ever.
        KEY_TYPE_TRANSACTION => {
            let why = StrBytes::from_static_str("Transactions are not supported yet: leave transactional.id unset.");
            return not_found(ResponseError::TransactionalIdAuthorizationFailed, why);
        }
        2 => return not_found(ResponseError::InvalidRequest, StrBytes::from_static_str("Share groups are not supported.")),
        other => return not_found(ResponseError::InvalidRequest, text(format!("Key type {other} is unknown."))),
    }
    match coordinator_of(core, key.as_str()) {
        Ok(owner) => match core.settings.nodes.get(owner) {
            Some(node) => Coordinator::default()
                .with_key(key.clone())
                .with_node_id(BrokerId(owner as i32))
                .with_host(text(node.host.clone()))
                .with_port(i32::from(node.port))
                .with_error_message(Some(StrBytes::default())),
            None => not_found(ResponseError::CoordinatorNotAvailable, StrBytes::from_static_str("The coordinator's core is not there.")),
        },
        Err(error) => not_found(error, StrBytes::from_static_str("The topic of the groups is not there yet.")),
    }
}
