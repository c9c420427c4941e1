//! InitProducerId: ids for idempotent producers. Transactional ids come with the transaction coordinator.

use super::RequestContext;
use crate::{controller::producer_ids, core::Core};
use kafka_protocol::{
    ResponseError,
    messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId},
};
use std::rc::Rc;

const NONE: i64 = -1;

/// Answers with an id that no producer has had, at epoch 0.
pub async fn init(core: &Rc<Core>, _context: &RequestContext, request: InitProducerIdRequest) -> InitProducerIdResponse {
    match decide(core, &request).await {
        Ok(id) => InitProducerIdResponse::default().with_producer_id(ProducerId(id)).with_producer_epoch(0),
        Err(code) => {
            InitProducerIdResponse::default().with_error_code(code.code()).with_producer_id(ProducerId(NONE)).with_producer_epoch(-1)
        }
    }
}

async fn decide(core: &Rc<Core>, request: &InitProducerIdRequest) -> Result<i64, ResponseError> {
    match &request.transactional_id {
        Some(id) if id.0.is_empty() => return Err(ResponseError::InvalidRequest),
        Some(id) => {
            tracing::info!("transactional id {:?} was refused: transactions are not supported yet", id.0.as_str());
            return Err(ResponseError::UnsupportedVersion);
        }
        None => {}
    }
    // An id without its epoch, or the reverse, is a mistake of the client, as in Kafka.
    if (request.producer_id.0 == NONE) != (request.producer_epoch == -1) {
        return Err(ResponseError::InvalidRequest);
    }
    producer_ids::next(core).await.map_err(|refusal| refusal.code)
}
