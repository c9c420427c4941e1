use super::*;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Message as _};

/// A request of `key` and `version` with one element in every array, and the places of its counts.
pub(crate) fn sample(message: &Message, version: i16) -> (Vec<u8>, Vec<(usize, &'static str)>) {
    let mut out = Builder { bytes: Vec::new(), counts: Vec::new(), flexible: version >= message.flexible, version };
    out.structure(message.fields);
    (out.bytes, out.counts)
}

struct Builder {
    bytes: Vec<u8>,
    counts: Vec<(usize, &'static str)>,
    flexible: bool,
    version: i16,
}

impl Builder {
    fn structure(&mut self, fields: &'static [Field]) {
        let version = self.version;
        for field in fields.iter().filter(|field| field.tag.is_none() && field.is_in(version)) {
            match field.kind {
                Kind::Fixed(bytes) => self.bytes.extend(vec![0; bytes]),
                Kind::String if self.flexible => self.bytes.extend([2, b'x']),
                Kind::String => self.bytes.extend([0, 1, b'x']),
                Kind::Bytes if self.flexible => self.bytes.extend([2, b'x']),
                Kind::Bytes => self.bytes.extend([0, 0, 0, 1, b'x']),
                Kind::Structure(fields) => self.structure(fields),
                Kind::Array(_) | Kind::Strings | Kind::Fixeds(_) => {
                    self.counts.push((self.bytes.len(), field.name));
                    self.bytes.extend(if self.flexible { vec![2] } else { vec![0, 0, 0, 1] });
                    match field.kind {
                        Kind::Array(fields) => self.structure(fields),
                        Kind::Fixeds(bytes) => self.bytes.extend(vec![0; bytes]),
                        _ if self.flexible => self.bytes.extend([2, b'x']),
                        _ => self.bytes.extend([0, 1, b'x']),
                    }
                }
            }
        }
        if self.flexible {
            self.bytes.push(0);
        }
    }
}

macro_rules! decoders {
    ($($request:ident),*) => {
        /// How many bytes the decoder takes, and the versions that it knows, by API.
        fn decoder(key: ApiKey) -> (fn(&[u8], i16) -> Option<usize>, i16, i16) {
            match key {
                $(ApiKey::$request => paste_decoder!($request),)*
                _ => panic!("no decoder for {key:?}"),
            }
        }
    };
}
macro_rules! request_of {
    (Produce) => {
        ProduceRequest
    };
    (Fetch) => {
        FetchRequest
    };
    (ListOffsets) => {
        ListOffsetsRequest
    };
    (Metadata) => {
        MetadataRequest
    };
    (OffsetCommit) => {
        OffsetCommitRequest
    };
    (OffsetFetch) => {
        OffsetFetchRequest
    };
    (FindCoordinator) => {
        FindCoordinatorRequest
    };
    (JoinGroup) => {
        JoinGroupRequest
    };
    (Heartbeat) => {
        HeartbeatRequest
    };
    (LeaveGroup) => {
        LeaveGroupRequest
    };
    (SyncGroup) => {
        SyncGroupRequest
    };
    (DescribeGroups) => {
        DescribeGroupsRequest
    };
    (ListGroups) => {
        ListGroupsRequest
    };
    (ApiVersions) => {
        ApiVersionsRequest
    };
    (CreateTopics) => {
        CreateTopicsRequest
    };
    (DeleteTopics) => {
        DeleteTopicsRequest
    };
    (DeleteRecords) => {
        DeleteRecordsRequest
    };
    (InitProducerId) => {
        InitProducerIdRequest
    };
    (OffsetForLeaderEpoch) => {
        OffsetForLeaderEpochRequest
    };
    (DescribeConfigs) => {
        DescribeConfigsRequest
    };
    (AlterConfigs) => {
        AlterConfigsRequest
    };
    (DescribeLogDirs) => {
        DescribeLogDirsRequest
    };
    (CreatePartitions) => {
        CreatePartitionsRequest
    };
    (DeleteGroups) => {
        DeleteGroupsRequest
    };
    (IncrementalAlterConfigs) => {
        IncrementalAlterConfigsRequest
    };
    (OffsetDelete) => {
        OffsetDeleteRequest
    };
    (DescribeCluster) => {
        DescribeClusterRequest
    };
}
macro_rules! paste_decoder {
    ($request:ident) => {{
        fn decode(mut bytes: &[u8], version: i16) -> Option<usize> {
            let before = bytes.len();
            <request_of!($request)>::decode(&mut bytes, version).ok().map(|_| before - bytes.len())
        }
        let versions = <request_of!($request)>::VERSIONS;
        (decode as fn(&[u8], i16) -> Option<usize>, versions.min, versions.max)
    }};
}
decoders!(
    Produce,
    Fetch,
    ListOffsets,
    Metadata,
    OffsetCommit,
    OffsetFetch,
    FindCoordinator,
    JoinGroup,
    Heartbeat,
    LeaveGroup,
    SyncGroup,
    DescribeGroups,
    ListGroups,
    ApiVersions,
    CreateTopics,
    DeleteTopics,
    DeleteRecords,
    InitProducerId,
    OffsetForLeaderEpoch,
    DescribeConfigs,
    AlterConfigs,
    DescribeLogDirs,
    CreatePartitions,
    DeleteGroups,
    IncrementalAlterConfigs,
    OffsetDelete,
    DescribeCluster
);

#[test]
fn walk_and_decoder_take_the_same_bytes_of_every_request_in_every_version() {
    for message in REQUESTS {
        let (decode, min, max) = decoder(message.key);
        for version in min..=max {
            let (bytes, _) = sample(message, version);
            let key = message.key as i16;
            assert_eq!(body(key, version, &bytes), Ok(bytes.len()), "{:?} v{version}", message.key);
            assert_eq!(decode(&bytes, version), Some(bytes.len()), "{:?} v{version} {bytes:?}", message.key);
            for cut in 0..bytes.len() {
                assert!(body(key, version, &bytes[..cut]).is_err(), "{:?} v{version} cut at {cut}", message.key);
            }
        }
    }
}

#[test]
fn huge_counts_are_refused_in_every_array_of_every_request() {
    for message in REQUESTS {
        let (_, min, max) = decoder(message.key);
        for version in min..=max {
            let (bytes, counts) = sample(message, version);
            for (place, name) in counts {
                let flexible = version >= message.flexible;
                for count in [i32::MAX, 1_000_001, bytes.len() as i32 + 1, i32::MIN] {
                    let mut hostile = bytes[..place].to_vec();
                    if flexible {
                        let mut value = count as u32;
                        while value >= 0x80 {
                            hostile.push(value as u8 | 0x80);
                            value >>= 7;
                        }
                        hostile.push(value as u8);
                    } else {
                        hostile.extend(count.to_be_bytes());
                    }
                    hostile.extend(&bytes[place + if flexible { 1 } else { 4 }..]);
                    assert!(body(message.key as i16, version, &hostile).is_err(), "{:?} v{version} {name} {count}", message.key);
                }
            }
        }
    }
}

#[test]
fn a_string_is_as_long_as_it_may_be_and_no_longer() {
    // The group's name comes first in an OffsetCommit, from version 8 on with a length that has no bound of its own.
    let group = |bytes: usize| {
        let mut request = Vec::new();
        let length = bytes as u32 + 1;
        request.extend([length as u8 | 0x80, (length >> 7) as u8 | 0x80, (length >> 14) as u8]);
        request.extend(vec![b'g'; bytes]);
        // Generation, member id, no instance id, no topics, no tags.
        request.extend([0, 0, 0, 0, 1, 0, 1, 0]);
        request
    };
    let walked = |bytes: usize| body(ApiKey::OffsetCommit as i16, 8, &group(bytes));
    assert_eq!(walked(STRING_BYTES_MAX), Ok(group(STRING_BYTES_MAX).len()));
    assert_eq!(walked(STRING_BYTES_MAX + 1), Err(Malformed::Length { field: "group_id" }));
    assert_eq!(walked(40_000), Err(Malformed::Length { field: "group_id" }));
}

#[test]
fn stray_bytes_behind_a_request_are_tolerated() {
    let message = schema(ApiKey::Metadata as i16).unwrap();
    let (mut bytes, _) = sample(message, 13);
    let length = bytes.len();
    bytes.extend([1, 2, 3]);
    assert_eq!(body(ApiKey::Metadata as i16, 13, &bytes), Ok(length));
}

proptest::proptest! {
    /// What the walk lets through never makes the decoder allocate more than the request justifies, nor panic.
    #[test]
    fn random_bytes_neither_panic_nor_diverge(which in 0..REQUESTS.len(), shift in 0i16..20, bytes in proptest::collection::vec(0u8..6, 0..200)) {
        let message = &REQUESTS[which];
        let (decode, min, max) = decoder(message.key);
        let version = min + shift % (max - min + 1);
        if let Ok(length) = body(message.key as i16, version, &bytes)
            && let Some(taken) = decode(&bytes, version)
        {
            assert_eq!(taken, length);
        }
    }
}
