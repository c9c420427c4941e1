//! Producer ids: never given out twice, in blocks from one durable counter.

use super::{Refusal, decided, snapshot_if_large, write};
use crate::{catalog::Change, core::Core};
use kafka_protocol::ResponseError;
use std::{ops::Range, rc::Rc};

/// Ids of a block, as in Kafka.
pub const BLOCK: i64 = 1_000;

/// What a core may give out: ids that are durably its own.
#[derive(Debug)]
pub struct Lease(Range<i64>);

impl Default for Lease {
    fn default() -> Self {
        Lease(0..0)
    }
}

impl Lease {
    fn take(&mut self) -> Option<i64> {
        self.0.next()
    }
}

/// An id that no producer has had, of this core's block, or of a new one.
///
/// # Errors
/// KAFKA_STORAGE_ERROR, REQUEST_TIMED_OUT, or that the broker is stopping.
pub async fn next(core: &Rc<Core>) -> Result<i64, Refusal> {
    if let Some(id) = core.controller.lease.borrow_mut().take() {
        return Ok(id);
    }
    let _leasing = core.controller.leasing.acquire().await.expect("never closed");
    if let Some(id) = core.controller.lease.borrow_mut().take() {
        return Ok(id);
    }
    let block = decided(core, super::TIMEOUT_MS, |core| async move { block(&core).await }).await??;
    let mut lease = Lease(block);
    let id = lease.take().ok_or_else(|| Refusal::new(ResponseError::UnknownServerError, "An empty block of producer ids."))?;
    *core.controller.lease.borrow_mut() = lease;
    Ok(id)
}

/// A block of ids, durable before this returns. Core 0. Only core 0's copy of the catalog counts them.
async fn block(core: &Rc<Core>) -> Result<Range<i64>, Refusal> {
    let _turn = core.controller.turn.acquire().await.expect("never closed");
    let first = core.catalog.borrow().next_producer_id();
    let end =
        first.checked_add(BLOCK).ok_or_else(|| Refusal::new(ResponseError::UnknownServerError, "All producer ids have been used."))?;
    let change = Change::ProducerIds { next: end };
    write(core, std::slice::from_ref(&change)).await?;
    super::apply_here(core, &[change]);
    snapshot_if_large(core).await;
    Ok(first..end)
}
