//! A file's bytes by position. The file may be growing.

use super::ahead::{Ahead, Chunk};
use anyhow::{Context, Result};
use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// What is read at once, in bytes, if no more is asked for.
const WINDOW_BYTES: usize = 1 << 20;

/// A file's bytes, by position. Its size is taken once: what is written behind it later is not looked at.
#[derive(Debug)]
pub struct BytesAt {
    file: File,
    path: PathBuf,
    size: u64,
    window: Vec<u8>,
    window_at: u64,
    ahead: Option<(Ahead, Chunk, u64)>,
    /// Behind the last byte that is not zero, once somebody has asked: finding it anew for each of many damages takes hours.
    content_end: Option<u64>,
}

impl BytesAt {
    /// Opens a file, to be read here and there.
    ///
    /// # Errors
    /// The file system's, with the path.
    pub fn open(path: &Path) -> Result<BytesAt> {
        let file = File::open(path).with_context(|| format!("can't open {}", path.display()))?;
        let size = file.metadata().with_context(|| format!("can't look at {}", path.display()))?.len();
        Ok(BytesAt { file, path: path.to_owned(), size, window: Vec::new(), window_at: 0, ahead: None, content_end: None })
    }

    /// Opens a file, to be read from `position` on to its end, fast and past the page cache.
    ///
    /// # Errors
    /// The file system's, with the path.
    pub fn open_ahead(path: &Path, position: u64) -> Result<BytesAt> {
        let mut file = BytesAt::open(path)?;
        let from = Ahead::floor(position);
        file.ahead = Some((Ahead::start(path, from, file.size), Chunk::default(), from));
        Ok(file)
    }

    /// Its size in bytes when it was opened.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The bytes from `position` on: at least `length`, or all up to the end.
    ///
    /// # Errors
    /// The file system's, with the path.
    pub fn at(&mut self, position: u64, length: usize) -> Result<&[u8]> {
        let left = self.size.saturating_sub(position);
        let wanted = (length as u64).min(left) as usize;
        if self.is_next(position, wanted)? {
            let (_, chunk, chunk_at) = self.ahead.as_ref().context("read ahead")?;
            return Ok(&chunk.bytes()[(position - chunk_at) as usize..]);
        }
        let skip = position.checked_sub(self.window_at).filter(|skip| skip + wanted as u64 <= self.window.len() as u64);
        let skip = match skip {
            Some(skip) => skip as usize,
            None => {
                self.fill(position, (wanted.max(WINDOW_BYTES) as u64).min(left) as usize)?;
                0
            }
        };
        Ok(&self.window[skip..])
    }

    /// True if what is read ahead holds these bytes, or now does. A position before it, or far behind it, it does not hold.
    fn is_next(&mut self, position: u64, wanted: usize) -> Result<bool> {
        let Some((ahead, chunk, chunk_at)) = &mut self.ahead else { return Ok(false) };
        if position < *chunk_at {
            return Ok(false);
        }
        loop {
            let held = *chunk_at + chunk.bytes().len() as u64;
            if position + wanted as u64 <= held {
                return Ok(true);
            }
            let rest_at = position.min(held);
            let next = ahead.next().with_context(|| format!("can't read {} at {held}", self.path.display()))?;
            let Some(next) = next else { return Ok(false) };
            *chunk = next.after(&chunk.bytes()[(rest_at - *chunk_at) as usize..]);
            *chunk_at = rest_at;
        }
    }

    fn fill(&mut self, position: u64, length: usize) -> Result<()> {
        self.window.resize(length, 0);
        self.window_at = position;
        let mut read = 0;
        while read < length {
            match self.file.read_at(&mut self.window[read..], position + read as u64) {
                Ok(0) => break,
                Ok(bytes) => read += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).with_context(|| format!("can't read {} at {position}", self.path.display())),
            }
        }
        // It was cut since it was opened: a roll does that.
        if read < length {
            self.window.truncate(read);
            self.size = position + read as u64;
        }
        Ok(())
    }

    /// The first position at or after `from` behind which everything is zero.
    ///
    /// # Errors
    /// The file system's, with the path.
    pub fn zeros_from(&mut self, from: u64) -> Result<u64> {
        let end = match self.content_end {
            Some(end) => end,
            None => *self.content_end.insert(self.find_content_end()?),
        };
        Ok(end.max(from))
    }

    /// Behind the last byte that is not zero, from the end on backwards: what is read ahead stays as it is.
    fn find_content_end(&self) -> Result<u64> {
        let mut window = vec![0; WINDOW_BYTES];
        let mut end = self.size;
        while end > 0 {
            let length = end.min(WINDOW_BYTES as u64) as usize;
            let begin = end - length as u64;
            // Behind a cut there is nothing: as good as zeros.
            window.fill(0);
            let mut read = 0;
            while read < length {
                match self.file.read_at(&mut window[read..length], begin + read as u64) {
                    Ok(0) => break,
                    Ok(bytes) => read += bytes,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error).with_context(|| format!("can't read {} at {begin}", self.path.display())),
                }
            }
            if let Some(last) = window[..length].iter().rposition(|byte| *byte != 0) {
                return Ok(begin + last as u64 + 1);
            }
            end = begin;
        }
        Ok(0)
    }
}
