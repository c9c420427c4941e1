//! A loss that is accepted: where it cuts a segment, and that what it cuts off is kept beside before.

use super::{
    super::LogError,
    image::{Image, Scanned},
    keep::keep,
    recover::{Recovery, disk_error},
    segment::Segment,
    told::Told,
};
use crate::{
    batch::{HEADER_BYTES, Scanner, Step, Stop},
    disk::{BLOCK, Disk},
    partition::{
        PartitionSpec,
        directory::{self, Directory, log_path},
    },
    segment::OffsetIndex,
};
use std::{io, path::Path};

impl<D: Disk> Recovery<'_, D> {
    /// Steps back from the damage to what neither this opening nor a later start refuses again, and says what is lost, if anything is.
    /// Where something is cut off, the batches before it have their CRC, as far as the index leads near them. And the headers lead there
    /// from the entries that the new line will vouch for: others may have led this start around damage.
    pub(super) async fn step_back(
        &self,
        segment: &mut Segment<'_, D>,
        scan: &mut Scanned,
        mut lost: Option<String>,
    ) -> Result<Option<String>, LogError> {
        let mut is_cut = lost.is_some();
        loop {
            if is_cut {
                let end = whole_end(&mut segment.image, &segment.index, scan.end.position).await;
                scan.end = end.map_err(disk_error(&segment.log))?;
                scan.starts.retain(|start| u64::from(*start) < scan.end.position);
                scan.is_last_checked = true;
            }
            let end = scan.end.position;
            // Not above the flushed end of the new line.
            let flushed = segment.image.differs_from().min(end / BLOCK * BLOCK);
            let batch_start = segment.whole_before(flushed).await?.position;
            segment.index.truncate(batch_start);
            let reached = segment.whole_before(end).await?;
            if reached.position == end {
                return Ok(lost);
            }
            let what = || format!("no batch at byte {}, where the journal says that batches reach to {end}", reached.position);
            lost.get_or_insert_with(what);
            (scan.end, is_cut) = (reached, true);
        }
    }

    /// What lies behind `end` in a segment and was acked, or may have been, is kept beside before the commit cuts it off.
    pub(super) async fn give_up(
        &self,
        image: &mut Image<'_, D>,
        log: &Path,
        what: &str,
        end: Scanner,
        vouched: u64,
    ) -> Result<(), LogError> {
        let Scanner { position, next_offset, .. } = end;
        let range = position..image.acked_end(vouched).max(position);
        if range.is_empty() {
            tracing::warn!("{}: {what}. Offsets from {next_offset} on are gone, and nothing is there to be kept", log.display());
            return Ok(());
        }
        let whole = match image.offsets(end, range.end).await.map_err(disk_error(log))? {
            Some((first, last)) => format!("whole batches with offsets {first} to {last} among them"),
            None => "no whole batch among them".to_owned(),
        };
        let kept = keep(self.disk, image, log, range.clone()).await?;
        tracing::warn!(
            "{}: {what}. Offsets from {next_offset} on are cut off; {} bytes, from byte {} to {}, {whole}, are kept in {}",
            log.display(),
            range.end - range.start,
            range.start,
            range.end,
            kept.display()
        );
        Ok(())
    }

    /// The same for whole segments, those without a file too.
    pub(super) async fn give_up_segments(&self, directory: &Path, bases: &[i64], told: &Told<'_>) -> Result<(), LogError> {
        for &base in bases {
            let log = log_path(directory, base);
            let (mut image, from, what) = match self.image(&log, base, told).await? {
                Some(image) => (image, 0, "what comes before it is not whole"),
                None => {
                    let entries = told.entries(base);
                    let from = entries.iter().map(|entry| entry.position).min().unwrap_or(0);
                    (Image::of_journal(self.disk, self.first(base), entries), from, "it is missing")
                }
            };
            let start = Scanner::new(u64::from(from), base, i32::MIN);
            self.give_up(&mut image, &log, what, start, told.vouched(base)).await?;
        }
        Ok(())
    }

    /// The same for a partition without a directory of its own. One that says to be another topic's stays, under another name: it may
    /// be that file which is damaged.
    pub(super) async fn give_up_directory(&self, spec: &PartitionSpec, found: Option<Directory>, told: &Told<'_>) -> Result<(), LogError> {
        let data_dir = &self.config.data_dir;
        let path = data_dir.join(&spec.directory);
        if let Some(found) = found.filter(|found| found.topic_id.is_some() || found.has_data()) {
            let stray = directory::set_aside(self.disk, data_dir, &spec.directory, &found).await.map_err(disk_error(&path))?;
            tracing::warn!("{} does not say that it is this topic's; it is kept as {}", path.display(), stray.display());
        }
        if told.journaled.entries.iter().all(|entry| entry.bytes.is_empty()) {
            return Ok(());
        }
        self.disk.create_dir(&path).await.map_err(disk_error(&path))?;
        self.disk.sync_dir(data_dir).await.map_err(disk_error(data_dir))?;
        self.give_up_segments(&path, &told.segments(), told).await
    }
}

/// Where the batches at or below `end` are whole, by their CRC, from what the index knows on; from further below if the one there
/// isn't. No CRC covers an offset: the last one does not count if it leaves a gap and what follows has a lower offset than it.
async fn whole_end<D: Disk>(image: &mut Image<'_, D>, index: &OffsetIndex, end: u64) -> io::Result<Scanner> {
    let mut from = end;
    loop {
        from = index.boundary(from.saturating_sub(1), i64::MAX);
        let mut scanner = image.scanner(from);
        let mut before_gap = None;
        let mut wanted = 0;
        while scanner.position < end {
            let window = image.view(scanner.position, wanted).await?;
            let before = scanner;
            match scanner.step(window, end - before.position) {
                Step::Batch(header) => before_gap = (header.base_offset() > before.next_offset).then_some(before),
                Step::Need(bytes) => wanted = bytes,
                Step::Stop(_) => break,
            }
        }
        if let Some(before) = before_gap
            && let Step::Stop(Stop::Offset { .. }) = header_at(image, scanner).await?
        {
            scanner = before;
        }
        // What comes at an entry's batch only those before it say.
        if scanner.position > from || from == 0 {
            return Ok(scanner);
        }
    }
}

/// What a scan's next header is.
async fn header_at<D: Disk>(image: &mut Image<'_, D>, mut scanner: Scanner) -> io::Result<Step> {
    let left = image.left(scanner.position);
    let window = image.view(scanner.position, HEADER_BYTES).await?;
    Ok(scanner.step_header(window, left))
}
