//! The sealed segments that are open: a bounded number, the least recently used is closed first.

use super::sealed::{Sealed, SegmentError, store_indexes};
use crate::{disk::Disk, ids::PartitionId};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
    rc::Rc,
};

/// Which segment: a partition and a base offset.
type Key = (PartitionId, i64);

/// The open sealed segments of one core. A segment that is handed out stays open for as long as it is held, closed here
/// or not.
pub struct OpenSegments<D: Disk> {
    segments_max: usize,
    inner: RefCell<Inner<D>>,
}

struct Inner<D: Disk> {
    /// Segments that stay open whatever happens: their files are being replaced.
    pinned: BTreeMap<Key, Rc<Sealed<D>>>,
    open: BTreeMap<Key, (Rc<Sealed<D>>, u64)>,
    by_use: BTreeMap<u64, Key>,
    uses: u64,
    /// How often segments were closed since their files were replaced or removed: what was opened before may be gone.
    closings: u64,
    /// Segments whose rebuilt indexes are being written.
    storing: BTreeSet<Key>,
    /// Segments whose rebuilt indexes were being written when their reader went away: the last write may still be under way.
    given_up: BTreeSet<Key>,
}

impl<D: Disk> Inner<D> {
    fn touch(&mut self, key: Key) -> Option<Rc<Sealed<D>>> {
        if let Some(sealed) = self.pinned.get(&key) {
            return Some(Rc::clone(sealed));
        }
        let (sealed, used) = self.open.get_mut(&key)?;
        self.by_use.remove(used);
        self.uses += 1;
        *used = self.uses;
        self.by_use.insert(self.uses, key);
        Some(Rc::clone(sealed))
    }

    fn insert(&mut self, key: Key, sealed: Rc<Sealed<D>>) {
        self.remove(key);
        self.uses += 1;
        self.open.insert(key, (sealed, self.uses));
        self.by_use.insert(self.uses, key);
    }

    fn remove(&mut self, key: Key) {
        if let Some((_, used)) = self.open.remove(&key) {
            self.by_use.remove(&used);
        }
    }
}

/// A reader writes indexes that it has rebuilt.
struct Storing<'a, D: Disk> {
    inner: &'a RefCell<Inner<D>>,
    key: Key,
    has_ended: bool,
}

impl<D: Disk> Drop for Storing<'_, D> {
    fn drop(&mut self) {
        let mut inner = self.inner.borrow_mut();
        inner.storing.remove(&self.key);
        if !self.has_ended {
            inner.given_up.insert(self.key);
        }
    }
}

impl<D: Disk> OpenSegments<D> {
    /// None open; at most `segments_max` (one at least) will be.
    #[must_use]
    pub fn new(segments_max: usize) -> OpenSegments<D> {
        let inner = Inner {
            pinned: BTreeMap::new(),
            open: BTreeMap::new(),
            by_use: BTreeMap::new(),
            uses: 0,
            closings: 0,
            storing: BTreeSet::new(),
            given_up: BTreeSet::new(),
        };
        OpenSegments { segments_max: segments_max.max(1), inner: RefCell::new(inner) }
    }

    /// The segment, opened if it isn't. Indexes that had to be rebuilt are written; if that fails (a full disk), the
    /// next opening rebuilds them again.
    ///
    /// # Errors
    /// Those of [`Sealed::open`].
    pub async fn get(&self, disk: &D, directory: &Path, partition: PartitionId, base_offset: i64) -> Result<Rc<Sealed<D>>, SegmentError> {
        let key = (partition, base_offset);
        loop {
            let closings = {
                let mut inner = self.inner.borrow_mut();
                if let Some(sealed) = inner.touch(key) {
                    return Ok(sealed);
                }
                inner.closings
            };
            let sealed = Rc::new(Sealed::open(disk, directory, base_offset).await?);
            if let Some(mut storing) = self.stores(key, &sealed, closings) {
                tracing::info!(log = %sealed.path().display(), "its indexes were missing or wrong and are rebuilt");
                if let Err(error) = store_indexes(disk, directory, &sealed.indexes).await {
                    tracing::warn!(log = %sealed.path().display(), %error, "its rebuilt indexes could not be written");
                }
                storing.has_ended = true;
            }
            let mut inner = self.inner.borrow_mut();
            // Its file may have been replaced while it was opened: readers would be given what was there before.
            if inner.closings != closings {
                continue;
            }
            inner.insert(key, Rc::clone(&sealed));
            while inner.open.len() > self.segments_max {
                let (_, oldest) = inner.by_use.pop_first().expect("one use per open segment");
                inner.open.remove(&oldest);
            }
            return Ok(sealed);
        }
    }

    /// Begins to write the indexes of a segment, if they were rebuilt. Readers that come at the same time rebuild them each for
    /// itself, but one writes: they would write the same file, and the slower one would cut what the quicker one has just given
    /// its name.
    fn stores(&self, key: Key, sealed: &Sealed<D>, closings: u64) -> Option<Storing<'_, D>> {
        let mut inner = self.inner.borrow_mut();
        let is_first = sealed.rebuilt && inner.closings == closings && !inner.given_up.contains(&key) && inner.storing.insert(key);
        is_first.then(|| Storing { inner: &self.inner, key, has_ended: false })
    }

    /// Holds segments open, as they are now: until they are [`OpenSegments::unpin`]ned readers get these, whatever becomes of
    /// their files.
    ///
    /// # Errors
    /// Those of [`Sealed::open`], or a reader is writing the indexes of one, by its name: then none is held.
    pub async fn pin(&self, disk: &D, directory: &Path, partition: PartitionId, bases: &[i64]) -> Result<(), SegmentError> {
        let mut held = Vec::with_capacity(bases.len());
        for base in bases {
            held.push(((partition, *base), self.get(disk, directory, partition, *base).await?));
        }
        let mut inner = self.inner.borrow_mut();
        if let Some((_, sealed)) = held.iter().find(|(key, _)| inner.storing.contains(key)) {
            let source = io::Error::new(io::ErrorKind::ResourceBusy, "its indexes are being written");
            return Err(SegmentError::Disk { path: sealed.path().to_path_buf(), source });
        }
        inner.pinned.extend(held);
        Ok(())
    }

    /// Lets go of segments that were pinned: they are closed, and the next reader opens what is there then.
    pub fn unpin(&self, partition: PartitionId, bases: &[i64]) {
        let mut inner = self.inner.borrow_mut();
        inner.closings += 1;
        for base in bases {
            inner.pinned.remove(&(partition, *base));
            inner.remove((partition, *base));
        }
    }

    /// Closes a segment: its file is going to be removed.
    pub fn remove(&self, partition: PartitionId, base_offset: i64) {
        let mut inner = self.inner.borrow_mut();
        inner.closings += 1;
        inner.remove((partition, base_offset));
    }

    /// Closes all segments of a partition.
    pub fn remove_partition(&self, partition: PartitionId) {
        let mut inner = self.inner.borrow_mut();
        inner.closings += 1;
        let keys: Vec<Key> = inner.open.range((partition, i64::MIN)..=(partition, i64::MAX)).map(|(key, _)| *key).collect();
        keys.into_iter().for_each(|key| inner.remove(key));
        inner.pinned.retain(|key, _| key.0 != partition);
    }

    /// How many are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.borrow().open.len()
    }

    /// True if none is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
