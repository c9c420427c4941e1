//! What a partition has in the journal only: a broker serves it from memory, and the next start would find it there.
//!
//! ```text
//! follow   which frames of a journal count, while it is being written      overlay  the bytes of one segment that they hold
//! owners   whose these are                                                end      where the batches end then
//! ```
//! [`open`] opens a log as a start would see it (`engine/src/log/start/image.rs`): the segment's file, what the journal's current
//! head and frames hold of it laid over, up to where whole batches end in that. If no broker is writing, what the journal vouches for
//! belongs to it also where it is damaged.
//!
//! **No stale byte is laid over a newer one.** Only frames of the start that the superblock names count, of the file that is current,
//! and these are of the active segment, whose bytes never change once they are written: a segment is only replaced or removed once
//! a later head is current. So the segment's file is opened between two looks at the journal that find the same head. Frames are
//! checked whole when their bytes are shown; where one is gone, both are read anew.

mod end;
mod follow;
mod overlay;
mod owners;

pub(crate) use follow::superblock;
pub(crate) use overlay::Overlay;

use super::{
    Request,
    inputs::Home,
    read::{BytesAt, Seen, beside_a_broker},
};
use anyhow::Result;
use end::end;
use engine::{
    ids::PartitionId,
    journal::{Line, superblock_path},
    log::catalog_spec,
};
use follow::{Journal, Journaled, Origin, Piece, TRIES_MAX};
use owners::Owners;
use server::{config::kept, journal_owner};
use std::{
    cell::RefCell,
    collections::HashMap,
    path::{Path, PathBuf},
    rc::Rc,
};

/// The journals of a run, by directory: each is read once, and then only what was written since.
#[derive(Debug, Default)]
pub(crate) struct Journals {
    known: RefCell<HashMap<PathBuf, Rc<RefCell<Journal>>>>,
    owners: RefCell<HashMap<PathBuf, Owners>>,
}

impl Journals {
    fn of(&self, directory: &Path) -> Rc<RefCell<Journal>> {
        let mut known = self.known.borrow_mut();
        Rc::clone(known.entry(directory.to_owned()).or_insert_with(|| Rc::new(RefCell::new(Journal::new(directory)))))
    }

    /// True if a directory is that of the partition whose mark it has, as the catalog of its data directory says.
    fn is_owner(&self, mark: PartitionId, partition: &Path, home: &Home, request: &Request) -> Result<bool> {
        if mark == PartitionId::CATALOG {
            return Ok(std::path::absolute(partition).is_ok_and(|path| path.ends_with(catalog_spec().directory)));
        }
        let is_known = self.owners.borrow().get(&home.data_dir).is_some_and(|owners| owners.know(mark));
        if !is_known {
            let journal = self.of(&journal_dir(&home.data_dir, request));
            let log_start = look(&journal, PartitionId::CATALOG, |_, journaled| journaled.log_start)?.unwrap_or(0);
            let owners = Owners::read(&home.data_dir, log_start, request, self)?;
            self.owners.borrow_mut().insert(home.data_dir.clone(), owners);
        }
        self.owners.borrow().get(&home.data_dir).map_or(Ok(false), |owners| owners.is_of(mark, partition))
    }

    /// True if a partition that was not stopped cleanly is a copy whose journal is not here. A start can do nothing for it.
    pub(crate) fn is_copy(&self, partition: &Path, home: &Home, request: &Request) -> bool {
        let Some(mark) = home.mark.filter(|_| home.holder.is_none()) else { return false };
        let directory = journal_dir(&home.data_dir, request);
        journal_owner::check(&home.data_dir, &directory).is_err()
            || !superblock_path(&directory).is_file()
            || matches!(self.is_owner(mark, partition, home, request), Ok(false))
    }

    /// What the journal says of a partition's active segment: its line, if there is one.
    pub(crate) fn line(&self, home: &Home, request: &Request, partition: PartitionId) -> Option<Line> {
        let directory = journal_dir(&home.data_dir, request);
        journal_owner::check(&home.data_dir, &directory).ok()?;
        let journal = self.of(&directory);
        look(&journal, partition, |_, journaled| journaled.line).ok()??
    }
}

/// The journal's directory of a data directory: where its broker's last start had it.
pub(crate) fn journal_dir(data_dir: &Path, request: &Request) -> PathBuf {
    let kept = || Some(kept::read(data_dir, None, None).ok()??.log.journal_dir);
    request.journal_dir.clone().or_else(kept).unwrap_or_else(|| data_dir.join("journal"))
}

/// True if the journal says that the last stop was clean: then it holds no bytes of any segment.
pub(crate) fn is_clean(home: &Home, request: &Request) -> bool {
    let directory = journal_dir(&home.data_dir, request);
    journal_owner::check(&home.data_dir, &directory).is_ok() && superblock(&directory).is_ok_and(|(_, block)| block.clean)
}

/// A log that was opened.
pub(crate) struct Opened {
    pub(crate) file: BytesAt,
    /// Why nothing is known of what is in the journal only, although there may be something.
    pub(crate) unknown: Option<String>,
    pub(crate) end: LogEnd,
}

/// What is known of a log's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogEnd {
    /// As it is known without a journal, or of one that is being written.
    Plain,
    /// Thalweg was killed, and its journal is laid over the segment: all of it was acked, or would be kept by a start.
    Final,
    /// Thalweg wrote it, and its journal is not here.
    Elsewhere,
}

impl LogEnd {
    /// True of what is seen if it is damage; `moves` says whether it may as well be on its way.
    pub(crate) fn is_damage(self, seen: &Seen<'_>, moves: impl FnOnce() -> bool) -> bool {
        seen.is_bad()
            && match self {
                LogEnd::Plain => !moves(),
                LogEnd::Final => true,
                LogEnd::Elsewhere => seen.is_followed(),
            }
    }
}

/// Opens the log of a segment as its broker would serve it: to be read here and there, or, with `ahead`, from a position on to its
/// end.
pub(crate) fn open(log: &Path, base_offset: i64, ahead: Option<u64>, request: &Request, journals: &Journals) -> Result<Opened> {
    let partition = log.parent().unwrap_or(log);
    let home = Home::of(partition);
    let is_live = home.holder.is_some();
    beside_a_broker(is_live);
    let plain = |unknown, end| {
        let file = ahead.map_or_else(|| BytesAt::open(log), |from| BytesAt::open_ahead(log, from))?;
        Ok(Opened { file, unknown, end })
    };
    let directory = journal_dir(&home.data_dir, request);
    let Some(mark) = home.mark else { return plain(None, LogEnd::Plain) };
    if !is_live && (home.clean || is_clean(&home, request)) {
        return plain(None, LogEnd::Plain);
    }
    let unread = |error: anyhow::Error| plain(Some(format!("{error:#}")), if is_live { LogEnd::Plain } else { LogEnd::Elsewhere });
    if let Err(error) = journal_owner::check(&home.data_dir, &directory) {
        return unread(error);
    }
    match journals.is_owner(mark, partition, &home, request) {
        Ok(true) => {}
        Ok(false) => return plain(None, LogEnd::Elsewhere),
        Err(error) => return unread(error),
    }
    let journal = journals.of(&directory);
    for _ in 0..TRIES_MAX {
        let before = match look(&journal, mark, |origin, _| origin.clone()) {
            Ok(Some(before)) => before,
            Ok(None) => return plain(None, LogEnd::Plain),
            Err(error) => return unread(error),
        };
        let raw = BytesAt::open(log)?;
        match look(&journal, mark, |origin, journaled| (origin.clone(), Part::of(journaled, base_offset, raw.size()))) {
            Ok(Some((origin, part))) if origin == before => {
                let Some(part) = part else { return plain(None, LogEnd::Plain) };
                let overlay = Overlay::new(Rc::clone(&journal), (mark, base_offset), origin, part.pieces)?;
                let size = part.bytes_max.max(overlay.end());
                let mut file = raw.laid(overlay, size)?;
                // While a broker writes, what looks like damage may be on its way.
                let vouched = if is_live { 0 } else { part.vouched };
                let end = end(&mut file, part.scan_from, base_offset, vouched)?;
                file.end_at(end, ahead);
                return Ok(Opened { file, unknown: None, end: if is_live { LogEnd::Plain } else { LogEnd::Final } });
            }
            // The journal has begun its other file: the segment that was opened may be one that has taken this one's place.
            _ => {}
        }
    }
    plain(Some("it is written faster than it can be read".to_owned()), LogEnd::Plain)
}

/// What the journal now says of a partition, and where; `None` if it says nothing.
fn look<T>(journal: &RefCell<Journal>, partition: PartitionId, see: impl FnOnce(&Origin, &Journaled) -> T) -> Result<Option<T>> {
    let mut journal = journal.borrow_mut();
    journal.refresh()?;
    Ok(journal.partition(partition).map(|(origin, journaled)| see(origin, journaled)))
}

fn pieces_of(journaled: &Journaled, base_offset: i64) -> Vec<Piece> {
    journaled.pieces.iter().copied().filter(|piece| piece.segment_base == base_offset).collect()
}

/// What a start would take of an active segment.
struct Part {
    /// Of its file at most so many bytes.
    bytes_max: u64,
    /// The batches before are whole and flushed.
    scan_from: u64,
    /// Up to here there are batches, if nobody is writing.
    vouched: u64,
    pieces: Vec<Piece>,
}

impl Part {
    /// `None` of a segment that is sealed: all of it is in its file.
    fn of(journaled: &Journaled, base_offset: i64, file_bytes: u64) -> Option<Part> {
        let line = journaled.line.filter(|line| line.segment_base == base_offset);
        let active = journaled.pieces.iter().map(|piece| piece.segment_base).chain(journaled.line.map(|line| line.segment_base)).max();
        let bytes_max = match (active?.cmp(&base_offset), line) {
            (std::cmp::Ordering::Greater, _) => return None,
            // No frame names it yet: nothing in it counts.
            (std::cmp::Ordering::Less, _) => 0,
            // Every write to the segment leaves a piece, if an empty one: without any, nothing was acked since the head.
            (_, Some(line)) if journaled.pieces.is_empty() => file_bytes.min(u64::from(line.flushed)),
            _ => file_bytes,
        };
        let scan_from = line.map_or(0, |line| u64::from(line.batch_start));
        Some(Part { bytes_max, scan_from, vouched: journaled.vouched(base_offset), pieces: pieces_of(journaled, base_offset) })
    }
}
