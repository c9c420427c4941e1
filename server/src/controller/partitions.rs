//! Making and removing partitions on the cores that own them.

use super::{Refusal, on_all};
use crate::{core::Core, errors};
use engine::partition::{PartitionId, PartitionSpec};
use futures_util::{StreamExt, stream};
use kafka_protocol::ResponseError;
use std::{collections::BTreeMap, rc::Rc};

/// Partitions of a core that are made or removed at once: enough to keep the disk busy with their small files.
const AT_ONCE_MAX: usize = 64;

/// Makes partitions, each on its core; the ones that could not be made, with why.
pub(super) async fn make(core: &Rc<Core>, specs: Vec<PartitionSpec>) -> Result<BTreeMap<PartitionId, Refusal>, Refusal> {
    let failed = on_all(core, move |core| {
        let mine: Vec<_> = specs.iter().filter(|spec| spec.core == core.index).cloned().collect();
        async move {
            let core = &core;
            let make = |spec: PartitionSpec| async move {
                let id = spec.id;
                let error = core.log.create(spec).await.err()?;
                tracing::warn!("partition {} could not be made: {error}", id.0);
                Some((id, Refusal::new(errors::of_log(&error), error.to_string())))
            };
            stream::iter(mine).map(make).buffer_unordered(AT_ONCE_MAX).filter_map(async |failed| failed).collect::<Vec<_>>().await
        }
    })
    .await?;
    Ok(failed.into_iter().flatten().collect())
}

/// Removes partitions, each on the core that is given with it.
///
/// # Errors
/// KAFKA_STORAGE_ERROR with the first reason; it may be repeated.
pub(super) async fn remove(core: &Rc<Core>, partitions: Vec<(usize, PartitionId)>) -> Result<(), Refusal> {
    let failed = on_all(core, move |core| {
        let mine: Vec<_> = partitions.iter().filter(|(owner, _)| *owner == core.index).map(|(_, id)| *id).collect();
        async move {
            let core = &core;
            let remove = |id| async move {
                let deleted = core.log.delete(id).await;
                core.tallies.forget(id);
                deleted.err().map(|error| error.to_string())
            };
            stream::iter(mine).map(remove).buffer_unordered(AT_ONCE_MAX).filter_map(async |failed| failed).collect::<Vec<_>>().await
        }
    })
    .await?;
    match failed.into_iter().flatten().next() {
        Some(why) => Err(Refusal::new(ResponseError::KafkaStorageError, why)),
        None => Ok(()),
    }
}
