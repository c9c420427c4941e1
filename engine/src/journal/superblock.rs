//! The superblock: two 4 KiB slots, written alternately, each with a checksum. It is the only commit point of a start, which writes both,
//! one after the other.

use super::{JournalError, superblock_path};
use crate::{
    bugs::{self, Bug},
    disk::{BLOCK, Chunk, Disk, Open},
};
use std::{io, path::Path};
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    byteorder::little_endian::{I32, U32, U64},
};

/// The format of journal and superblock that this build writes, and the newest that it reads.
pub const FORMAT_VERSION: u32 = 1;

const MAGIC: [u8; 8] = *b"THALWEG\0";
/// The first byte that the checksum covers.
const CHECKED_FROM: usize = 12;

/// What the last start committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Rises with each write; its lowest bit names the slot.
    pub sequence: u64,
    /// Rises with each start.
    pub start: u64,
    /// The random salt of that start: only files and frames of this start and salt exist.
    pub salt: u64,
    /// How many cores have a journal.
    pub journals: u32,
    /// No leader epoch at or below this may be given again.
    pub epoch_floor: i32,
    /// The last stop was clean.
    pub clean: bool,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Raw {
    magic: [u8; 8],
    checksum: U32,
    version: U32,
    sequence: U64,
    start: U64,
    salt: U64,
    journals: U32,
    epoch_floor: I32,
    clean: u8,
    zero: [u8; 7],
}

impl Superblock {
    fn to_slot(self) -> Vec<u8> {
        let raw = Raw {
            magic: MAGIC,
            checksum: 0.into(),
            version: FORMAT_VERSION.into(),
            sequence: self.sequence.into(),
            start: self.start.into(),
            salt: self.salt.into(),
            journals: self.journals.into(),
            epoch_floor: self.epoch_floor.into(),
            clean: u8::from(self.clean),
            zero: [0; 7],
        };
        let mut slot = vec![0; BLOCK as usize];
        slot[..size_of::<Raw>()].copy_from_slice(raw.as_bytes());
        let checksum = crc32c::crc32c(&slot[CHECKED_FROM..]);
        slot[8..CHECKED_FROM].copy_from_slice(&checksum.to_le_bytes());
        slot
    }

    /// The newest slot of the file's `bytes` that is valid, and the format version that it says.
    #[must_use]
    pub fn newest(bytes: &[u8]) -> Option<(u32, Superblock)> {
        newest_of(bytes.chunks(BLOCK as usize).filter_map(Superblock::of_slot))
    }

    /// A slot's format version and content; `None` if it is not valid.
    #[must_use]
    pub fn of_slot(slot: &[u8]) -> Option<(u32, Superblock)> {
        let (raw, _) = Raw::ref_from_prefix(slot).ok()?;
        if slot.len() != BLOCK as usize || raw.magic != MAGIC || raw.checksum.get() != crc32c::crc32c(&slot[CHECKED_FROM..]) {
            return None;
        }
        let found = Superblock {
            sequence: raw.sequence.get(),
            start: raw.start.get(),
            salt: raw.salt.get(),
            journals: raw.journals.get(),
            epoch_floor: raw.epoch_floor.get(),
            clean: raw.clean != 0,
        };
        Some((raw.version.get(), found))
    }

    /// Reads the newest valid slot, after a flush: what is read is durable. `None` if there is no file or no valid slot. One that can't
    /// be read counts as one that is not valid if the other one is: both name the same start.
    ///
    /// # Errors
    /// [`JournalError::NewerFormat`], or the disk's.
    pub async fn read<D: Disk>(disk: &D, journal_dir: &Path) -> Result<Option<Superblock>, JournalError> {
        let path = superblock_path(journal_dir);
        let failed = |source| JournalError::Failed { path: path.clone(), source };
        let file = match disk.open(&path, Open::Existing).await {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        disk.flush(&file).await.map_err(failed)?;
        let (mut valid, mut unread, mut damaged) = (Vec::new(), None, None);
        for slot in 0..2 {
            match disk.read(&file, slot * BLOCK, BLOCK as usize).await {
                Ok(bytes) => match Superblock::of_slot(&bytes) {
                    Some(found) => valid.push(found),
                    None => damaged = bytes.iter().any(|byte| *byte != 0).then_some(slot).or(damaged),
                },
                Err(error) => unread = Some((slot, error)),
            }
        }
        match (newest_of(valid.into_iter()), unread) {
            (Some((version, _)), _) if version > FORMAT_VERSION => {
                Err(JournalError::NewerFormat { path: path.clone(), found: version, known: FORMAT_VERSION })
            }
            (None, Some((_, error))) => Err(failed(error)),
            (newest, unread) => {
                if let Some((slot, error)) = unread {
                    tracing::warn!("slot {slot} of {} can't be read ({error}): the other one counts. Check the disk", path.display());
                }
                if let Some(slot) = damaged.filter(|_| newest.is_some()) {
                    tracing::warn!(
                        "slot {slot} of {} is torn or damaged: the other one counts, and this one is written anew",
                        path.display()
                    );
                }
                Ok(newest.map(|(_, found)| found))
            }
        }
    }

    /// Writes it into the slot that its sequence names, durably. The other slot stays as it is.
    ///
    /// # Errors
    /// The disk's: whether it was written is then unknown until the next read.
    pub async fn write<D: Disk>(&self, disk: &D, journal_dir: &Path) -> Result<(), JournalError> {
        let path = superblock_path(journal_dir);
        let work = async {
            let file = match disk.open(&path, Open::Existing).await {
                Ok(file) if disk.size(&file).await? == 2 * BLOCK => file,
                Ok(file) => Self::extend(disk, journal_dir, file).await?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let file = disk.open(&path, Open::Create).await?;
                    Self::extend(disk, journal_dir, file).await?
                }
                Err(error) => return Err(error),
            };
            disk.write(&file, self.sequence % 2 * BLOCK, vec![Chunk::padded(&self.to_slot())]).await?;
            disk.flush(&file).await
        };
        work.await.map_err(|source| JournalError::Failed { path: path.clone(), source })
    }

    /// Commits a start: writes it into the slot that its sequence names, and then, with the next sequence, into the other one, both
    /// durably. From then on no slot names an earlier start: whichever rots, the other one takes nothing back that is acked since.
    /// Cut off between the two it is committed.
    ///
    /// # Errors
    /// The disk's: whether it was committed is then unknown until the next read.
    pub async fn commit<D: Disk>(&self, disk: &D, journal_dir: &Path) -> Result<(), JournalError> {
        self.write(disk, journal_dir).await?;
        if bugs::on(Bug::OneSlot) {
            return Ok(());
        }
        Superblock { sequence: self.sequence + 1, ..*self }.write(disk, journal_dir).await
    }

    async fn extend<D: Disk>(disk: &D, journal_dir: &Path, file: D::File) -> io::Result<D::File> {
        disk.allocate(&file, 2 * BLOCK).await?;
        disk.sync(&file).await?;
        disk.sync_dir(journal_dir).await?;
        Ok(file)
    }
}

/// The newest of these slots, with its format version.
fn newest_of(slots: impl Iterator<Item = (u32, Superblock)>) -> Option<(u32, Superblock)> {
    slots.max_by_key(|(_, found)| found.sequence)
}
