//! A disk laid over another: everything that is written, renamed or removed is kept beside, in one temporary file without a
//! name, and the disk below is only read. Whatever runs on it behaves as on the disk below, to the byte, and changes
//! nothing: that is what a dry run is.
//!
//! Memory holds the names and the extents that have changed, not the bytes: a file written from front to back is one extent.
//! What a removed file had written is given back to the temporary file's filesystem at once.

mod content;
#[cfg(test)]
mod tests;

use super::{Chunk, DirEntry, Disk, Open, Slice};
use content::Content;
pub use content::Spill;
use std::{
    cell::RefCell,
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    rc::Rc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

type Shared = Rc<RefCell<Content>>;

/// What the overlay knows of a path. Of all others the disk below is asked.
#[derive(Clone)]
enum Name {
    /// It was removed.
    Gone,
    /// A directory that the disk below does not have.
    Directory,
    /// A file that was opened, or made.
    File(Shared),
}

/// See the module.
#[derive(Clone)]
pub struct Overlay<D: Disk> {
    below: D,
    spill: Rc<Spill>,
    names: Rc<RefCell<BTreeMap<PathBuf, Name>>>,
}

/// A file of an [`Overlay`].
#[derive(Clone)]
pub struct OverlayFile<F> {
    content: Shared,
    below: Option<F>,
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{} is not there", path.display()))
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

impl<D: Disk> Overlay<D> {
    /// Nothing is changed yet. What will be written goes into a file without a name in `directory`.
    ///
    /// # Errors
    /// That file can't be made.
    pub fn new(below: D, directory: &Path) -> io::Result<Overlay<D>> {
        Ok(Overlay { below, spill: Rc::new(Spill::new(directory)?), names: Rc::default() })
    }

    /// Bytes that were written so far, and of these the ones that are still kept.
    #[must_use]
    pub fn kept_bytes(&self) -> (u64, u64) {
        self.spill.kept_bytes()
    }

    fn known(&self, path: &Path) -> Option<Name> {
        self.names.borrow().get(path).cloned()
    }

    /// True if the disk below has nothing to say of what lies in or at `path`: it, or a directory above it, was removed or
    /// made here.
    fn is_hidden(&self, path: &Path) -> bool {
        let names = self.names.borrow();
        path.ancestors().any(|path| matches!(names.get(path), Some(Name::Gone | Name::Directory)))
    }

    /// The content of a file that is there.
    async fn content(&self, path: &Path) -> io::Result<Shared> {
        match self.known(path) {
            Some(Name::File(content)) => return Ok(content),
            Some(Name::Gone | Name::Directory) => return Err(not_found(path)),
            None if self.is_hidden(path) => return Err(not_found(path)),
            None => {}
        }
        let file = self.below.open(path, Open::Existing).await?;
        let bytes = self.below.size(&file).await?;
        // Somebody may have opened it meanwhile.
        let mut names = self.names.borrow_mut();
        let new = || Name::File(Rc::new(RefCell::new(Content::below(&self.spill, path, bytes))));
        match names.entry(path.to_path_buf()).or_insert_with(new) {
            Name::File(content) => Ok(Rc::clone(content)),
            _ => Err(not_found(path)),
        }
    }

    /// Reads what is there of `length` bytes at `position`. `fetch` reads the file below.
    async fn compose(
        content: &Shared,
        position: u64,
        length: usize,
        fetch: impl AsyncFnOnce(u64, usize) -> io::Result<Vec<u8>>,
    ) -> io::Result<Vec<u8>> {
        let (length, from_below) = {
            let content = content.borrow();
            let length = content.bytes().saturating_sub(position).min(length as u64);
            (length as usize, content.bytes_below().saturating_sub(position).min(length) as usize)
        };
        let mut bytes = Vec::new();
        if from_below > 0 && !content.borrow().covers(position, from_below as u64) {
            bytes = fetch(position, from_below).await?;
            bytes.truncate(from_below);
        }
        bytes.resize(length, 0);
        content.borrow().lay_over(position, &mut bytes)?;
        Ok(bytes)
    }
}

impl<D: Disk> Disk for Overlay<D> {
    type File = OverlayFile<D::File>;
    type Reader = OverlayFile<D::Reader>;

    async fn open(&self, path: &Path, how: Open) -> io::Result<Self::File> {
        let content = match self.content(path).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound && how == Open::Create => {
                let parent = path.parent().unwrap_or(Path::new("/"));
                self.list(parent).await?;
                let content = Rc::new(RefCell::new(Content::new(&self.spill)));
                self.names.borrow_mut().insert(path.to_path_buf(), Name::File(Rc::clone(&content)));
                content
            }
            content => content?,
        };
        let origin = content.borrow().origin();
        let below = match origin {
            Some(origin) => Some(self.below.open(&origin, Open::Existing).await?),
            None => None,
        };
        Ok(OverlayFile { content, below })
    }

    async fn open_reader(&self, path: &Path) -> io::Result<Self::Reader> {
        let content = self.content(path).await?;
        let origin = content.borrow().origin();
        let below = match origin {
            Some(origin) => Some(self.below.open_reader(&origin).await?),
            None => None,
        };
        Ok(OverlayFile { content, below })
    }

    async fn allocate(&self, file: &Self::File, bytes: u64) -> io::Result<()> {
        let mut content = file.content.borrow_mut();
        if content.bytes() < bytes {
            content.resize(bytes, now_ms());
        }
        Ok(())
    }

    async fn write(&self, file: &Self::File, position: u64, slices: Vec<Slice>) -> io::Result<()> {
        let mut position = position;
        for slice in slices {
            file.content.borrow_mut().write(position, &slice, now_ms())?;
            position += slice.len() as u64;
        }
        Ok(())
    }

    async fn flush(&self, _: &Self::File) -> io::Result<()> {
        Ok(())
    }

    async fn sync(&self, _: &Self::File) -> io::Result<()> {
        Ok(())
    }

    async fn read(&self, file: &Self::File, position: u64, len: usize) -> io::Result<Slice> {
        let fetch = async |position, length: usize| {
            let below = file.below.as_ref().ok_or_else(|| io::Error::other("a file below is open"))?;
            // Whole blocks, as a direct read wants them.
            Ok(self.below.read(below, position, length.next_multiple_of(super::BLOCK as usize)).await?.to_vec())
        };
        let bytes = Self::compose(&file.content, position, len, fetch).await?;
        Ok(Chunk::padded(&bytes).sub(0, bytes.len()))
    }

    async fn read_buffered(&self, reader: &Self::Reader, position: u64, len: usize) -> io::Result<Vec<u8>> {
        let fetch = async |position, length| {
            let below = reader.below.as_ref().ok_or_else(|| io::Error::other("a file below is open"))?;
            self.below.read_buffered(below, position, length).await
        };
        Self::compose(&reader.content, position, len, fetch).await
    }

    async fn size(&self, file: &Self::File) -> io::Result<u64> {
        Ok(file.content.borrow().bytes())
    }

    async fn truncate(&self, file: &Self::File, bytes: u64) -> io::Result<()> {
        file.content.borrow_mut().resize(bytes, now_ms());
        Ok(())
    }

    /// Of files only: the engine renames a directory when a topic is made, and a dry run makes none.
    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let content = self.content(from).await?;
        content.borrow_mut().touch(now_ms());
        let mut names = self.names.borrow_mut();
        names.insert(from.to_path_buf(), Name::Gone);
        names.insert(to.to_path_buf(), Name::File(content));
        Ok(())
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        self.content(path).await?;
        self.names.borrow_mut().insert(path.to_path_buf(), Name::Gone);
        Ok(())
    }

    async fn create_dir(&self, path: &Path) -> io::Result<()> {
        match self.list(path).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.names.borrow_mut().insert(path.to_path_buf(), Name::Directory);
                Ok(())
            }
            listed => listed.map(drop),
        }
    }

    async fn remove_dir(&self, path: &Path) -> io::Result<()> {
        if !self.list(path).await?.is_empty() {
            return Err(io::Error::new(io::ErrorKind::DirectoryNotEmpty, format!("{} is not empty", path.display())));
        }
        self.names.borrow_mut().insert(path.to_path_buf(), Name::Gone);
        Ok(())
    }

    async fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        if matches!(self.known(path), Some(Name::Gone)) {
            return Err(not_found(path));
        }
        let below = if self.is_hidden(path) {
            match self.known(path) {
                Some(Name::Directory) => Vec::new(),
                _ => return Err(not_found(path)),
            }
        } else {
            self.below.list(path).await?
        };
        let mut entries: BTreeMap<String, DirEntry> = below.into_iter().map(|entry| (entry.name.clone(), entry)).collect();
        let names = self.names.borrow();
        for (known, what) in names.range(path.to_path_buf()..).take_while(|(known, _)| known.starts_with(path)) {
            let Some(name) = known.file_name().and_then(|name| name.to_str()).filter(|_| known.parent() == Some(path)) else { continue };
            let name = name.to_owned();
            match what {
                Name::Gone => drop(entries.remove(&name)),
                Name::Directory => drop(entries.insert(name.clone(), DirEntry { name, is_dir: true, bytes: 0, changed_ms: None })),
                Name::File(content) => {
                    let content = content.borrow();
                    let before = entries.get(&name).and_then(|entry| entry.changed_ms);
                    let changed_ms = content.changed_ms().or(before);
                    entries.insert(name.clone(), DirEntry { name, is_dir: false, bytes: content.bytes(), changed_ms });
                }
            }
        }
        Ok(entries.into_values().collect())
    }

    async fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn now_us(&self) -> u64 {
        self.below.now_us()
    }

    async fn sleep(&self, time: Duration) {
        self.below.sleep(time).await;
    }
}
