//! Which error codes an answer names: one table, a line per answer.

#![deny(clippy::disallowed_types)]

use kafka_protocol::messages;

/// An answer whose errors are counted.
pub trait Answered {
    /// Calls `found` with each code of it, 0 (no error) included.
    fn error_codes(&self, found: impl FnMut(i16));
}

/// `a.b.error_code`: that of every `b` of every `a`.
macro_rules! each {
    ($of:expr, $found:ident, error_code) => {
        $found($of.error_code)
    };
    ($of:expr, $found:ident, $list:ident $($rest:ident)+) => {
        for inner in &$of.$list {
            each!(inner, $found, $($rest)+);
        }
    };
}

macro_rules! answers {
    ($($answer:ident: $($($step:ident).+),+;)*) => {
        $(impl Answered for messages::$answer {
            fn error_codes(&self, mut found: impl FnMut(i16)) {
                $(each!(self, found, $($step)+);)+
            }
        })*
    };
}

// Produce and fetch count where they fail: their answers are made by hand, or on the hot path.
answers! {
    ListOffsetsResponse: topics.partitions.error_code;
    MetadataResponse: topics.error_code, topics.partitions.error_code;
    OffsetCommitResponse: topics.partitions.error_code;
    OffsetFetchResponse: error_code, topics.partitions.error_code, groups.error_code, groups.topics.partitions.error_code;
    FindCoordinatorResponse: error_code, coordinators.error_code;
    JoinGroupResponse: error_code;
    HeartbeatResponse: error_code;
    LeaveGroupResponse: error_code, members.error_code;
    SyncGroupResponse: error_code;
    DescribeGroupsResponse: groups.error_code;
    ListGroupsResponse: error_code;
    ApiVersionsResponse: error_code;
    CreateTopicsResponse: topics.error_code;
    DeleteTopicsResponse: responses.error_code;
    DeleteRecordsResponse: topics.partitions.error_code;
    InitProducerIdResponse: error_code;
    OffsetForLeaderEpochResponse: topics.partitions.error_code;
    DescribeConfigsResponse: results.error_code;
    AlterConfigsResponse: responses.error_code;
    DescribeLogDirsResponse: error_code, results.error_code;
    CreatePartitionsResponse: results.error_code;
    DeleteGroupsResponse: results.error_code;
    IncrementalAlterConfigsResponse: responses.error_code;
    OffsetDeleteResponse: error_code, topics.partitions.error_code;
    DescribeClusterResponse: error_code;
}
