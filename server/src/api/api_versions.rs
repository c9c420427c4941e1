//! ApiVersions: what is served.

use super::{APIS, Reply, RequestContext};
use crate::core::Core;
use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::{
    ResponseError,
    messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse, api_versions_response::ApiVersion},
};
use std::rc::Rc;

/// Lists every API with its versions. No features: what clients switch on by them (transactions of KIP-890) isn't built.
pub async fn handle(_core: &Rc<Core>, context: &RequestContext, request: ApiVersionsRequest) -> ApiVersionsResponse {
    let names = [&request.client_software_name, &request.client_software_version];
    if context.version >= 3 && !names.iter().all(|name| is_software_name(name)) {
        return ApiVersionsResponse::default().with_error_code(ResponseError::InvalidRequest.code());
    }
    ApiVersionsResponse::default().with_api_keys(
        APIS.iter()
            .map(|api| ApiVersion::default().with_api_key(api.key as i16).with_min_version(api.advertised_min).with_max_version(api.max))
            .collect(),
    )
}

/// KIP-511: letters, digits, dots and dashes, beginning and ending with a letter or a digit.
fn is_software_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    ends(bytes.first()) && ends(bytes.last()) && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'))
}

/// The answer to a version that we don't know, in the layout of version 0 whatever was asked: the client repeats its
/// question with the version that this names. (In any other layout Java clients read a throttle time of 20 minutes.)
pub fn too_new(correlation_id: i32) -> Reply {
    let own = super::find(ApiKey::ApiVersions as i16).expect("it is in the table");
    let mut out = BytesMut::with_capacity(20);
    out.put_i32(16);
    out.put_i32(correlation_id);
    out.put_i16(ResponseError::UnsupportedVersion.code());
    out.put_i32(1);
    out.put_i16(own.key as i16);
    out.put_i16(own.advertised_min);
    out.put_i16(own.max);
    Reply::Whole(Bytes::from(out))
}
