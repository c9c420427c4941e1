//! A partition that was not used since the start stays closed until something is due of it: one look at its directory says
//! when that is at the earliest.

use super::super::core::Core;
use crate::{
    disk::Disk,
    partition::{Recovered, open::OpenError},
    retention::earlier,
    segment::{PartitionFiles, first_timestamp},
};

/// When the partition has to be opened at the earliest, in ms; `None` if it can stay closed.
///
/// # Errors
/// The disk's.
pub(super) async fn deadline<D: Disk>(core: &Core<D>, recovered: &Recovered, now_ms: i64) -> Result<Option<i64>, OpenError> {
    let (line, config) = (&recovered.line, &recovered.spec.config);
    if line.segment_base == 0 && line.flushed == 0 {
        return Ok(None);
    }
    let directory = core.config.data_dir.join(&recovered.spec.directory);
    let failed = |error| (directory.clone(), error);
    let files = PartitionFiles::list(&core.disk, &directory).await.map_err(failed)?;
    let sealed = files.segments.partition_point(|segment| segment.base_offset < line.segment_base);
    let next_base = files.segments.get(1).map_or(line.segment_base, |next| next.base_offset);
    if !files.set_aside.is_empty() {
        return Ok(Some(now_ms));
    }
    let is_dead = sealed > 0 && next_base <= line.log_start;
    if is_dead || (config.compacted && sealed > 0) {
        return Ok(Some(now_ms));
    }
    if config.retention.is_none() && !config.compacted {
        return Ok(None);
    }
    let mut next = None;
    if line.flushed > 0 {
        let began = first_timestamp(&core.disk, &directory, line.segment_base).await.map_err(failed)?;
        next = began.map(|began| began.saturating_add(config.roll_ms()));
    }
    let (Some(retention), Some(oldest)) = (config.retention, files.segments.first()) else { return Ok(next) };
    if let Some(bytes) = retention.bytes.filter(|_| sealed > 0) {
        let others: u64 = files.segments[1..sealed].iter().map(|segment| segment.log_bytes).sum();
        if others + u64::from(line.flushed) >= bytes {
            return Ok(Some(now_ms));
        }
    }
    if let Some(ms) = retention.ms {
        // No record is older than the first one, but for those that a producer dated back; and none goes later than this.
        let first = first_timestamp(&core.disk, &directory, oldest.base_offset).await.map_err(failed)?;
        let ends = |since: Option<i64>| since.map(|since| since.saturating_add(ms));
        next = earlier(next, earlier(ends(first), ends(oldest.changed_ms)));
    }
    Ok(next)
}
