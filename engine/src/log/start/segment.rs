//! A segment under recovery: its image, its index, and what the journal says of it.

use super::{
    super::LogError,
    image::{Image, Scanned},
    producers::Producers,
    recover::disk_error,
};
use crate::{
    batch::{Header, Scanner, Stop},
    disk::Disk,
    segment::OffsetIndex,
};
use std::{io, path::PathBuf};

/// A segment under recovery.
pub(super) struct Segment<'a, D: Disk> {
    pub(super) base: i64,
    /// The offset that begins the next segment.
    pub(super) limit: i64,
    /// Its `.log`.
    pub(super) log: PathBuf,
    pub(super) image: Image<'a, D>,
    pub(super) index: OffsetIndex,
    /// A batch begins here, so all before it are whole.
    pub(super) batch_start: u64,
    /// Below this every block was flushed.
    pub(super) flushed: u64,
    /// Up to here the headers are enough.
    pub(super) covered: u64,
    /// Up to here all bytes are those of acked batches.
    pub(super) vouched: u64,
}

impl<D: Disk> Segment<'_, D> {
    /// Where the headers before `position` end: at the batch that it lies in, or before if one of them is damaged.
    pub(super) async fn whole_before(&mut self, position: u64) -> Result<Scanner, LogError> {
        let found = batch_at(&mut self.image, &mut self.index, position).await;
        Ok(found.map_err(disk_error(&self.log))?.0)
    }

    /// Walks the headers of what is covered. Returns where they end, why there is no batch there if that is damage, and where each
    /// begins.
    pub(super) async fn walk(
        &mut self,
        from: &mut Beginning,
        producers: &mut Producers,
    ) -> Result<(Scanner, Option<Stop>, Vec<u32>), LogError> {
        let mut starts = Vec::new();
        let each = |header: &Header, batch: &[u8]| producers.push(header, batch);
        let walked = self.image.walk(from.at, self.covered, self.limit, &mut starts, each).await;
        let (mut next, stop) = walked.map_err(disk_error(&self.log))?;
        if stop.is_none() || self.limit == i64::MAX {
            return Ok((next, stop, starts));
        }
        // What a full disk made the broker drop is vouched for still, and cut off when the segment was sealed.
        if starts.is_empty() {
            next = from.before(self).await?;
        }
        Ok((next, stop.filter(|_| next.next_offset != self.limit), starts))
    }

    /// True if the log doesn't end where a scan did.
    pub(super) async fn is_damaged(&mut self, scan: &Scanned) -> Result<bool, LogError> {
        if self.limit < i64::MAX {
            // No frame names a segment before the one in front of it is whole, and flushed.
            return Ok(scan.end.next_offset != self.limit);
        }
        self.image.is_damaged(scan.end, scan.stop, self.vouched).await.map_err(disk_error(&self.log))
    }
}

/// Where a scan begins.
pub(super) struct Beginning {
    at: Scanner,
    before: Option<Scanner>,
}

impl Beginning {
    pub(super) fn new(at: Scanner) -> Beginning {
        Beginning { at, before: None }
    }

    /// Where the batches before it end: here, unless one of them is damaged. Only they say which offset comes next. They are walked
    /// once.
    pub(super) async fn before<D: Disk>(&mut self, segment: &mut Segment<'_, D>) -> Result<Scanner, LogError> {
        if self.at.position == 0 {
            return Ok(self.at);
        }
        let before = match self.before {
            Some(before) => before,
            None => segment.whole_before(self.at.position).await?,
        };
        self.before = Some(before);
        Ok(before)
    }
}

/// The batch that `position` lies in, from the headers before it; or where these end, and why, if one of them is damaged.
pub(super) async fn batch_at<D: Disk>(
    image: &mut Image<'_, D>,
    index: &mut OffsetIndex,
    position: u64,
) -> io::Result<(Scanner, Option<Stop>)> {
    let (found, stop, is_there) = image.locate(index, position).await?;
    if is_there || index.entries().is_empty() {
        return Ok((found, stop));
    }
    // The index may be what is damaged.
    *index = OffsetIndex::new(index.base_offset());
    let (found, stop, _) = image.locate(index, position).await?;
    Ok((found, stop))
}
