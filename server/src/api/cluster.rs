//! DescribeCluster: the cores as nodes.

use super::{RequestContext, metadata::CLUSTER_OPERATIONS};
use crate::core::Core;
use kafka_protocol::{
    ResponseError,
    messages::{BrokerId, DescribeClusterRequest, DescribeClusterResponse, describe_cluster_response::DescribeClusterBroker},
    protocol::StrBytes,
};
use std::rc::Rc;

/// Kafka's number of brokers as endpoints; controllers, which clients can't reach here, have 2.
const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

/// Answers with every core.
pub async fn describe(core: &Rc<Core>, _context: &RequestContext, request: DescribeClusterRequest) -> DescribeClusterResponse {
    let refuse = |code: ResponseError, message: &'static str| {
        DescribeClusterResponse::default()
            .with_error_code(code.code())
            .with_error_message(Some(StrBytes::from_static_str(message)))
            .with_endpoint_type(request.endpoint_type)
    };
    match request.endpoint_type {
        BROKERS => {}
        CONTROLLERS => {
            let message = "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER";
            return refuse(ResponseError::MismatchedEndpointType, message);
        }
        _ => return refuse(ResponseError::UnsupportedEndpointType, "Unsupported endpoint type"),
    }
    let brokers = core.settings.nodes.iter().enumerate().map(|(node, reached)| {
        DescribeClusterBroker::default()
            .with_broker_id(BrokerId(node as i32))
            .with_host(StrBytes::from_string(reached.host.clone()))
            .with_port(i32::from(reached.port))
            .with_rack(None)
    });
    let operations = if request.include_cluster_authorized_operations { CLUSTER_OPERATIONS } else { i32::MIN };
    DescribeClusterResponse::default()
        .with_error_message(None)
        .with_endpoint_type(BROKERS)
        .with_cluster_id(StrBytes::from_string(core.catalog.borrow().cluster_id()))
        .with_controller_id(BrokerId(0))
        .with_brokers(brokers.collect())
        .with_cluster_authorized_operations(operations)
}
