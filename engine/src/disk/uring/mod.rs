//! The disk of the broker: io_uring and O_DIRECT.

mod explain;
mod removal;
mod ring;
#[cfg(test)]
mod tests;

use super::{BLOCK, Chunk, DirEntry, Disk, Open, Slice};
use io_uring::{opcode, types::Fd, types::FsyncFlags};
use removal::Nameless;
use ring::{Keep, Ring};
use std::{
    ffi::CString,
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, RawFd},
        unix::{ffi::OsStrExt, fs::MetadataExt},
    },
    path::Path,
    rc::Rc,
    time::{Duration, Instant},
};
use tokio::sync::Semaphore;

/// Vectors of one write: the kernel's IOV_MAX.
const VECTORS_MAX: usize = 1024;

/// Read-aheads in flight at most: each occupies a kernel worker.
const WILL_NEED_MAX: usize = 4;

/// The disk of one thread: a ring of its own, its completions announced through an eventfd. [`UringDisk::run`] must be
/// spawned on the same thread, or nothing completes.
#[derive(Clone)]
pub struct UringDisk {
    ring: Rc<Ring>,
    read_aheads: Rc<Semaphore>,
    nameless: Rc<Nameless>,
    began: Instant,
}

/// A buffered read-only descriptor.
#[derive(Clone, Debug)]
pub struct BufferedFile(Rc<File>);

impl AsFd for BufferedFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl BufferedFile {
    /// The descriptor, for sendfile and residency checks.
    #[must_use]
    pub fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl UringDisk {
    /// A ring on this thread. `lock` (the locked file of the data directory) is registered in the ring, so that the lock
    /// is held until the last I/O of the ring has ended. `buffered` opens files without O_DIRECT.
    ///
    /// # Errors
    /// The kernel's, with what to do.
    pub fn new(lock: RawFd, buffered: bool) -> io::Result<UringDisk> {
        explain::check_kernel()?;
        let ring = Ring::new(lock, buffered).map_err(explain::no_ring)?;
        Ok(UringDisk {
            ring: Rc::new(ring),
            read_aheads: Rc::new(Semaphore::new(WILL_NEED_MAX)),
            nameless: Rc::default(),
            began: Instant::now(),
        })
    }

    /// Submits what is queued, once per turn of the scheduler, and completes what has finished. It never returns. Spawn
    /// it once, on the thread of the disk.
    pub async fn run(&self) {
        self.ring.run().await;
    }

    /// Has the kernel begin to read a range ahead (FADVISE WILLNEED on the ring); when this returns, its pages wait for the
    /// disk, and a read of the last one completes with it. A hint. It waits while `WILL_NEED_MAX` others are in flight.
    pub async fn will_need(&self, reader: &BufferedFile, position: u64, len: usize) {
        let _turn = self.read_aheads.acquire().await;
        let entry = opcode::Fadvise::new(Fd(reader.as_raw_fd()), len as libc::off_t, libc::POSIX_FADV_WILLNEED).offset(position).build();
        // What it says is of no interest: a read will say the same.
        let _ = self.on_file(&reader.0, entry).await;
    }

    /// Operations that are queued or in the kernel.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.ring.in_flight()
    }

    async fn on_file(&self, file: &Rc<File>, entry: io_uring::squeue::Entry) -> io::Result<()> {
        self.ring.start(entry, Keep { file: Some(Rc::clone(file)), ..Keep::default() }).await.0.map(drop)
    }

    async fn open_with(&self, path: &Path, flags: i32) -> io::Result<Rc<File>> {
        let name = c_path(path)?;
        let entry = opcode::OpenAt::new(Fd(libc::AT_FDCWD), name.as_ptr()).flags(flags | libc::O_CLOEXEC).mode(0o644).build();
        let (result, _) = self.ring.start(entry, Keep { paths: vec![name], opens: true, ..Keep::default() }).await;
        let fd = result.map_err(|error| explain::no_open(path, error, flags & libc::O_DIRECT != 0))?;
        // SAFETY: the kernel has just made this descriptor for us alone.
        Ok(Rc::new(unsafe { File::from_raw_fd(fd as RawFd) }))
    }

    async fn write_vectors(&self, file: &Rc<File>, position: u64, slices: Vec<Slice>) -> io::Result<()> {
        let wanted: usize = slices.iter().map(|slice| slice.len()).sum();
        let vectors: Vec<libc::iovec> =
            slices.iter().map(|slice| libc::iovec { iov_base: slice.as_ptr().cast_mut().cast(), iov_len: slice.len() }).collect();
        let entry = opcode::Writev::new(Fd(file.as_raw_fd()), vectors.as_ptr(), vectors.len() as u32).offset(position).build();
        let keep = Keep { file: Some(Rc::clone(file)), slices, vectors, ..Keep::default() };
        let written = self.ring.start(entry, keep).await.0? as usize;
        if written != wanted {
            return Err(io::Error::new(io::ErrorKind::WriteZero, format!("the kernel wrote {written} of {wanted} bytes at {position}")));
        }
        Ok(())
    }
}

fn list(path: &Path) -> io::Result<Vec<DirEntry>> {
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        // An entry that vanishes meanwhile was never there.
        let Ok(metadata) = entry.metadata() else { continue };
        // A name that isn't UTF-8 is none of ours.
        let Ok(name) = entry.file_name().into_string() else { continue };
        entries.push(DirEntry {
            name,
            is_dir: metadata.is_dir(),
            bytes: if metadata.is_dir() { 0 } else { metadata.len() },
            changed_ms: Some(metadata.ctime().saturating_mul(1_000).saturating_add(metadata.ctime_nsec() / 1_000_000)),
        });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

fn c_path(path: &Path) -> io::Result<CString> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

impl Disk for UringDisk {
    type File = Rc<File>;
    type Reader = BufferedFile;

    async fn open(&self, path: &Path, how: Open) -> io::Result<Self::File> {
        let direct = if self.ring.buffered { 0 } else { libc::O_DIRECT };
        let create = if how == Open::Create { libc::O_CREAT } else { 0 };
        self.open_with(path, libc::O_RDWR | direct | create).await
    }

    async fn open_reader(&self, path: &Path) -> io::Result<Self::Reader> {
        Ok(BufferedFile(self.open_with(path, libc::O_RDONLY).await?))
    }

    async fn allocate(&self, file: &Self::File, bytes: u64) -> io::Result<()> {
        assert!(bytes.is_multiple_of(BLOCK), "space is allocated in blocks, not {bytes} bytes");
        let before = self.size(file).await?;
        if before < bytes {
            // Size first: a write that grows a file would go to a kernel worker.
            self.truncate(file, bytes).await?;
        }
        let entry = opcode::Fallocate::new(Fd(file.as_raw_fd()), bytes).build();
        match self.on_file(file, entry).await {
            // A filesystem that can't promise space is used without the promise.
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(()),
            Err(error) => {
                if before < bytes {
                    // Space that was not got must not look as if it were there.
                    self.truncate(file, before).await?;
                }
                Err(error)
            }
            Ok(()) => Ok(()),
        }
    }

    async fn write(&self, file: &Self::File, mut position: u64, mut slices: Vec<Slice>) -> io::Result<()> {
        assert!(position.is_multiple_of(BLOCK), "a direct write begins on a block, not at {position}");
        for slice in &slices {
            assert!((slice.len() as u64).is_multiple_of(BLOCK), "a direct write is whole blocks, not {} bytes", slice.len());
            assert!((slice.as_ptr() as u64).is_multiple_of(BLOCK), "a direct write's memory begins on a block");
        }
        while slices.len() > VECTORS_MAX {
            let rest = slices.split_off(VECTORS_MAX);
            let first = std::mem::replace(&mut slices, rest);
            let length: usize = first.iter().map(|slice| slice.len()).sum();
            self.write_vectors(file, position, first).await?;
            position += length as u64;
        }
        self.write_vectors(file, position, slices).await
    }

    async fn flush(&self, file: &Self::File) -> io::Result<()> {
        self.on_file(file, opcode::Fsync::new(Fd(file.as_raw_fd())).flags(FsyncFlags::DATASYNC).build()).await
    }

    async fn sync(&self, file: &Self::File) -> io::Result<()> {
        self.on_file(file, opcode::Fsync::new(Fd(file.as_raw_fd())).build()).await
    }

    async fn read(&self, file: &Self::File, position: u64, len: usize) -> io::Result<Slice> {
        assert!(position.is_multiple_of(BLOCK) && (len as u64).is_multiple_of(BLOCK), "a direct read is whole blocks");
        let chunk = Chunk::new(len.max(BLOCK as usize));
        let mut filled = 0;
        while filled < len {
            // SAFETY: within the allocation.
            let memory = unsafe { chunk.as_ptr().add(filled) };
            let entry = opcode::Read::new(Fd(file.as_raw_fd()), memory, (len - filled) as u32).offset(position + filled as u64).build();
            let keep = Keep { file: Some(Rc::clone(file)), chunk: Some(Rc::clone(&chunk)), ..Keep::default() };
            let read = self.ring.start(entry, keep).await.0? as usize;
            filled += read;
            // The end of the file: nothing, or a part of a block, behind which a direct read can't go on.
            if read == 0 || !(filled as u64).is_multiple_of(BLOCK) {
                break;
            }
        }
        // SAFETY: every read has completed, and they have written these bytes, one behind the other.
        unsafe { chunk.set_filled(filled) };
        Ok(chunk.slice(0, filled))
    }

    async fn read_buffered(&self, reader: &Self::Reader, position: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        let mut filled = 0;
        while filled < len {
            let memory = bytes[filled..].as_mut_ptr();
            let entry = opcode::Read::new(Fd(reader.as_raw_fd()), memory, (len - filled) as u32).offset(position + filled as u64).build();
            let (result, keep) = self.ring.start(entry, Keep { file: Some(Rc::clone(&reader.0)), bytes, ..Keep::default() }).await;
            bytes = keep.bytes;
            let read = result? as usize;
            if read == 0 {
                break;
            }
            filled += read;
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    async fn size(&self, file: &Self::File) -> io::Result<u64> {
        // A statx on the ring goes to a kernel worker; fstat answers from memory.
        Ok(file.metadata()?.len())
    }

    async fn truncate(&self, file: &Self::File, bytes: u64) -> io::Result<()> {
        if !self.ring.has_ftruncate {
            return file.set_len(bytes);
        }
        self.on_file(file, opcode::Ftruncate::new(Fd(file.as_raw_fd()), bytes).build()).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let replaced = self.about_to_go(to).await;
        let (old, new) = (c_path(from)?, c_path(to)?);
        let entry = opcode::RenameAt::new(Fd(libc::AT_FDCWD), old.as_ptr(), Fd(libc::AT_FDCWD), new.as_ptr()).build();
        self.ring.start(entry, Keep { paths: vec![old, new], ..Keep::default() }).await.0?;
        self.nameless.add(to, replaced);
        Ok(())
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        let removed = self.about_to_go(path).await;
        self.unlink(path, 0).await?;
        self.nameless.add(path, removed);
        Ok(())
    }

    async fn create_dir(&self, path: &Path) -> io::Result<()> {
        let name = c_path(path)?;
        let entry = opcode::MkDirAt::new(Fd(libc::AT_FDCWD), name.as_ptr()).mode(0o755).build();
        match self.ring.start(entry, Keep { paths: vec![name], ..Keep::default() }).await.0 {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            result => result.map(drop),
        }
    }

    async fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.unlink(path, libc::AT_REMOVEDIR).await?;
        drop(self.nameless.take(path));
        Ok(())
    }

    async fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        // There is no such operation on a ring, and a cold directory waits for the disk at each of its files: it is listed on
        // another thread, at starts, first uses and deletions only.
        let path = path.to_owned();
        tokio::task::spawn_blocking(move || list(&path)).await.map_err(io::Error::other)?
    }

    async fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let directory = self.open_with(path, libc::O_RDONLY | libc::O_DIRECTORY).await?;
        let gone = self.nameless.take(path);
        self.sync(&directory).await?;
        gone.into_iter().for_each(removal::free);
        Ok(())
    }

    fn now_us(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }

    async fn sleep(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}

impl UringDisk {
    /// A segment's log that is about to lose its name: nothing else of that size does while a broker runs.
    async fn about_to_go(&self, path: &Path) -> Option<File> {
        if path.extension().is_none_or(|extension| extension != "log") {
            return None;
        }
        let file = self.open_with(path, libc::O_RDWR | libc::O_NOFOLLOW).await.ok()?;
        let is_large = file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() >= removal::LARGE_BYTES);
        Rc::into_inner(file).filter(|_| is_large)
    }

    async fn unlink(&self, path: &Path, flags: i32) -> io::Result<()> {
        let name = c_path(path)?;
        let entry = opcode::UnlinkAt::new(Fd(libc::AT_FDCWD), name.as_ptr()).flags(flags).build();
        self.ring.start(entry, Keep { paths: vec![name], ..Keep::default() }).await.0.map(drop)
    }
}

impl std::fmt::Debug for UringDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "UringDisk({} in flight)", self.in_flight())
    }
}
