//! The group APIs: FindCoordinator, membership, committed offsets, and what operators ask of groups.

mod admin;
mod find;
mod members;
mod offsets;

pub use admin::{delete_groups, describe_groups, list_groups};
pub use find::find_coordinator;
pub use members::{heartbeat, join_group, leave_group, sync_group};
pub use offsets::{offset_commit, offset_delete, offset_fetch};

use kafka_protocol::{ResponseError, protocol::StrBytes};

/// Kafka's number for an outcome.
fn code_of<T>(outcome: &Result<T, ResponseError>) -> i16 {
    outcome.as_ref().err().map_or(0, ResponseError::code)
}

/// Text that is kept longer than its request: a copy, so that the request's buffer can go.
fn kept(text: &StrBytes) -> String {
    text.as_str().to_owned()
}

fn kept_option(text: &Option<StrBytes>) -> Option<String> {
    text.as_ref().map(kept)
}

fn text(text: impl Into<String>) -> StrBytes {
    StrBytes::from_string(text.into())
}
