//! Writing the journal of one core: frames into the current file, and the switch to the other.

use super::{
    FRAME_CONTENT_MAX, FRAME_HEADER_BYTES, HEAD_SHARE, Item, JournalError, Line, Which, file_path,
    frame::{FrameHeader, encode_items},
    head::Head,
    leaves_room,
};
use crate::{
    bugs::{self, Bug},
    disk::{BLOCK, CHUNK_BYTES, Chunk, Disk, Open, is_full},
    measure::Lane,
};
use std::{
    io,
    path::{Path, PathBuf},
    rc::Rc,
};

/// Where a core's journal goes on: plain data, from the start to the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalPosition {
    /// The start number of the superblock.
    pub start: u64,
    /// The salt of the superblock.
    pub salt: u64,
    /// Whose journal.
    pub core: usize,
    /// The current file.
    pub current: Which,
    /// The generation of its head.
    pub generation: u64,
    /// The sequence of the next frame.
    pub next_sequence: u64,
    /// Where the next frame begins in the current file, in bytes.
    pub offset: u64,
    /// The size of the current file, in bytes; at a start that of the other one, too.
    pub file_bytes: u64,
}

impl JournalPosition {
    fn header(&self) -> FrameHeader {
        FrameHeader {
            start: self.start,
            salt: self.salt,
            core: self.core as u32,
            generation: self.generation,
            sequence: self.next_sequence,
            length: 0,
            head: (0, 0),
        }
    }
}

/// The journal of one core. One frame is in flight at a time. After an error nothing more may be written or acked: the
/// process says so and ends.
pub struct JournalWriter<D: Disk> {
    disk: D,
    position: JournalPosition,
    journal_dir: PathBuf,
    current: D::File,
    other: D::File,
    /// The size of the other file, in bytes.
    other_bytes: u64,
    measured: Rc<Lane>,
}

impl<D: Disk> JournalWriter<D> {
    /// Opens both files where the start left them.
    ///
    /// # Errors
    /// The disk's.
    pub async fn open(disk: D, journal_dir: &Path, position: JournalPosition) -> Result<Self, JournalError> {
        let current = open_existing(&disk, &file_path(journal_dir, position.core, position.current)).await?;
        let other = open_existing(&disk, &file_path(journal_dir, position.core, position.current.other())).await?;
        let (journal_dir, other_bytes) = (journal_dir.to_path_buf(), position.file_bytes);
        Ok(JournalWriter { disk, position, journal_dir, current, other, other_bytes, measured: Rc::default() })
    }

    /// What it has written since it was opened.
    #[must_use]
    pub fn measured(&self) -> Rc<Lane> {
        Rc::clone(&self.measured)
    }

    /// What the next frame may hold, in bytes of [`Item::encoded_len`] together; 0 if the current file is full. At most
    /// [`FRAME_CONTENT_MAX`].
    #[must_use]
    pub fn room(&self) -> usize {
        let left = self.position.file_bytes.saturating_sub(self.position.offset);
        usize::try_from(left).unwrap_or(usize::MAX).saturating_sub(FRAME_HEADER_BYTES).min(FRAME_CONTENT_MAX)
    }

    /// The size of the current file, in bytes: at a start what the shares of a core (an eighth, a quarter) are counted from.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.position.file_bytes
    }

    /// Where it stands now.
    #[must_use]
    pub fn position(&self) -> &JournalPosition {
        &self.position
    }

    /// Writes one frame and flushes it: when this returns `Ok`, `items` are durable, in order, behind all earlier ones.
    /// They must fit [`JournalWriter::room`].
    ///
    /// # Errors
    /// [`JournalError::Failed`]: fatal.
    pub async fn frame(&mut self, items: &[Item]) -> Result<(), JournalError> {
        let frame = encode_items(self.position.header(), items);
        let length = frame.len() as u64;
        assert!(self.position.offset + length <= self.position.file_bytes, "a frame must fit the room of its file");
        let began_us = self.disk.now_us();
        self.disk.write(&self.current, self.position.offset, vec![frame]).await.map_err(|source| self.failed(source))?;
        let written_us = self.disk.now_us();
        if !bugs::on(Bug::AckBeforeFlush) {
            self.disk.flush(&self.current).await.map_err(|source| self.failed(source))?;
        }
        self.measured.durable(length, written_us - began_us, self.disk.now_us() - written_us);
        self.disk.relied_on(&self.current, self.position.offset, length);
        self.position.next_sequence += 1;
        self.position.offset += length;
        Ok(())
    }

    /// Writes the head of the next generation into the other file and flushes it: when this returns `Ok`, that file is
    /// current, and the older one is dead, whole. `items` is everything that the older file is still needed for; large
    /// ones are split over frames. A file of which the head would take more than half is made larger first.
    ///
    /// # Errors
    /// [`JournalError::Failed`] or [`JournalError::HeadTooLarge`]: fatal.
    pub async fn switch(&mut self, lines: &[Line], items: &[Item]) -> Result<(), JournalError> {
        let reduced;
        let mut items = items;
        if bugs::on(Bug::HeadIncomplete) {
            let carried = |(at, item): &(usize, &Item)| !matches!(item, Item::Bytes { .. }) || at % 2 == 0;
            reduced = items.iter().enumerate().filter(carried).map(|(_, item)| item.clone()).collect::<Vec<_>>();
            items = &reduced;
        }
        if bugs::on(Bug::OlderFileOverwritten) {
            let zeros = Chunk::padded(&[]);
            self.disk.write(&self.current, 0, vec![zeros]).await.map_err(|source| self.failed(source))?;
            self.disk.flush(&self.current).await.map_err(|source| self.failed(source))?;
        }
        let mut next = self.position;
        next.current = self.position.current.other();
        next.generation += 1;
        let path = file_path(&self.journal_dir, next.core, next.current);
        let head = Head::new(lines, items);
        self.grow_other(&path, head.bytes).await?;
        next.file_bytes = self.other_bytes;
        let (sequence, offset) = head.write(&self.disk, &self.other, &path, next.file_bytes, next.header()).await?;
        next.next_sequence = sequence;
        next.offset = offset;
        self.other_bytes = self.position.file_bytes;
        self.position = next;
        std::mem::swap(&mut self.current, &mut self.other);
        self.measured.switched();
        Ok(())
    }

    /// Makes the other file, which nobody needs, so large that a head leaves room for frames in it: producers come while the
    /// broker runs, and a head has all that a partition has seen since its active segment began.
    async fn grow_other(&mut self, path: &Path, head: u64) -> Result<(), JournalError> {
        if head <= self.other_bytes / 2 {
            return Ok(());
        }
        let wanted = HEAD_SHARE * head;
        let failed = |source| JournalError::Failed { path: path.to_path_buf(), source };
        match self.disk.allocate(&self.other, wanted).await {
            Ok(()) => {}
            Err(error) if is_full(&error) && leaves_room(head, self.other_bytes) => return Ok(()),
            Err(error) => return Err(failed(error)),
        }
        tracing::info!("{} is made {wanted} bytes long: a head takes {head} bytes", path.display());
        write_zeros(&self.disk, &self.other, self.other_bytes, wanted).await.map_err(failed)?;
        self.disk.sync(&self.other).await.map_err(failed)?;
        self.other_bytes = wanted;
        Ok(())
    }

    fn failed(&self, source: io::Error) -> JournalError {
        JournalError::Failed { path: file_path(&self.journal_dir, self.position.core, self.position.current), source }
    }
}

/// Writes the head of a new start, durably, into the file that `position` names as current (it must exist and be
/// `position.file_bytes` long). Returns the position behind it.
///
/// # Errors
/// [`JournalError::Failed`] or [`JournalError::HeadTooLarge`].
pub async fn write_first_head<D: Disk>(
    disk: &D,
    journal_dir: &Path,
    position: JournalPosition,
    lines: &[Line],
    items: &[Item],
) -> Result<JournalPosition, JournalError> {
    let path = file_path(journal_dir, position.core, position.current);
    let file = open_existing(disk, &path).await?;
    let (next_sequence, offset) = Head::new(lines, items).write(disk, &file, &path, position.file_bytes, position.header()).await?;
    Ok(JournalPosition { next_sequence, offset, ..position })
}

/// Makes sure that a journal file exists and is `bytes` long, filled with zeros once. What it held is lost if its size
/// was another. Its name is durable after the directory was flushed.
///
/// # Errors
/// [`JournalError::Failed`].
pub async fn prepare_file<D: Disk>(disk: &D, path: &Path, bytes: u64) -> Result<(), JournalError> {
    assert!(bytes > 0 && bytes.is_multiple_of(BLOCK), "a journal file is whole blocks, not {bytes} bytes");
    let work = async {
        match disk.open(path, Open::Existing).await {
            Ok(file) if disk.size(&file).await? == bytes => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        // Beside it first: a file of the right size is one whose blocks were all written once.
        let beside = path.with_extension("new");
        let file = disk.open(&beside, Open::Create).await?;
        disk.truncate(&file, 0).await?;
        disk.allocate(&file, bytes).await?;
        write_zeros(disk, &file, 0, bytes).await?;
        disk.sync(&file).await?;
        disk.rename(&beside, path).await
    };
    let result = work.await;
    if result.is_err() {
        // Best effort: what was begun must not keep the space that others need.
        let _ = disk.remove(&path.with_extension("new")).await;
    }
    result.map_err(|source| JournalError::Failed { path: path.to_path_buf(), source })
}

/// Writes zeros: a flush of blocks that were written once has no metadata to write.
async fn write_zeros<D: Disk>(disk: &D, file: &D::File, mut position: u64, end: u64) -> io::Result<()> {
    let zeros = Chunk::padded(&vec![0; (CHUNK_BYTES as u64).min(end - position) as usize]);
    while position < end {
        let length = (end - position).min(zeros.len() as u64);
        disk.write(file, position, vec![zeros.sub(0, length as usize)]).await?;
        position += length;
    }
    Ok(())
}

async fn open_existing<D: Disk>(disk: &D, path: &Path) -> Result<D::File, JournalError> {
    disk.open(path, Open::Existing).await.map_err(|source| JournalError::Failed { path: path.to_path_buf(), source })
}
