//! A file's bytes by position. The file may be growing, and a part of it may be in a journal still.

use super::{
    ahead::Ahead,
    direct::{Chunk, Direct},
};
use crate::dump::journal::Overlay;
use anyhow::{Context, Result, bail};
use std::{
    fs::File,
    io,
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// What is read at once, in bytes, if no more is asked for.
const WINDOW_BYTES: usize = 1 << 20;
/// How often bytes are read anew because the journal was begun anew meanwhile.
const TRIES_MAX: usize = 20;

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
    laid: Option<Laid>,
}

/// What makes a file the image of a segment: the journal's bytes, and where they end.
#[derive(Debug)]
struct Laid {
    overlay: Overlay,
    file: Direct,
    /// The size of the file itself.
    file_bytes: u64,
}

impl BytesAt {
    /// Opens a file, to be read here and there.
    ///
    /// # Errors
    /// The file system's, with the path.
    pub fn open(path: &Path) -> Result<BytesAt> {
        let file = File::open(path).with_context(|| format!("can't open {}", path.display()))?;
        let size = file.metadata().with_context(|| format!("can't look at {}", path.display()))?.len();
        let path = path.to_owned();
        Ok(BytesAt { file, path, size, window: Vec::new(), window_at: 0, ahead: None, content_end: None, laid: None })
    }

    /// Opens a file, to be read from `position` on to its end, past the page cache, and fast where no broker runs.
    ///
    /// # Errors
    /// The file system's, with the path.
    pub fn open_ahead(path: &Path, position: u64) -> Result<BytesAt> {
        let mut file = BytesAt::open(path)?;
        let from = Direct::floor(position);
        file.ahead = Some((Ahead::start(path, from, file.size), Chunk::default(), from));
        Ok(file)
    }

    /// Its first `size` bytes with what a journal has of them laid over: the image of a segment.
    pub(crate) fn laid(self, overlay: Overlay, size: u64) -> Result<BytesAt> {
        let file = Direct::open(&self.path).with_context(|| format!("can't open {}", self.path.display()))?.following();
        let laid = Laid { overlay, file, file_bytes: self.size };
        Ok(BytesAt { size, laid: Some(laid), ..self })
    }

    /// What is behind `end` does not count. With `ahead` it is read from there on, fast, as far as the journal has nothing of it.
    pub(crate) fn end_at(&mut self, end: u64, ahead: Option<u64>) {
        (self.size, self.content_end) = (end, Some(end));
        if let (Some(from), Some(laid)) = (ahead.map(Direct::floor), &self.laid) {
            let until = Direct::floor(laid.overlay.begin().min(end).min(laid.file_bytes));
            self.ahead = (from < until).then(|| (Ahead::start(&self.path, from, until), Chunk::default(), from));
        }
    }

    /// Of the image of a segment: the journal, and how long the segment's file is, in bytes.
    pub(crate) fn journal(&self) -> Option<(&Path, u64)> {
        self.laid.as_ref().map(|laid| (laid.overlay.path(), laid.file_bytes))
    }

    /// True if bytes of this range, which was the last that was asked for, come from the journal.
    pub(crate) fn is_in_journal(&self, range: &Range<u64>) -> bool {
        self.laid.as_ref().is_some_and(|laid| laid.overlay.holds(range))
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
                (position - self.window_at) as usize
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
            let next = next.after(&chunk.bytes()[(rest_at - *chunk_at) as usize..]);
            ahead.give_back(std::mem::replace(chunk, next));
            *chunk_at = rest_at;
        }
    }

    fn fill(&mut self, position: u64, length: usize) -> Result<()> {
        if let Some(laid) = &mut self.laid {
            self.window_at = Direct::floor(position);
            let length = (position - self.window_at) as usize + length;
            self.window =
                laid.window(self.window_at, length).with_context(|| format!("can't read {} at {position}", self.path.display()))?;
            return Ok(());
        }
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

impl Laid {
    /// The image's bytes from `position` on, the beginning of a block. What the file does not reach is the journal's.
    fn window(&mut self, position: u64, length: usize) -> Result<Vec<u8>> {
        for _ in 0..TRIES_MAX {
            let mut window = self.file.read(position, length, 0)?.bytes().to_vec();
            window.resize(length, 0);
            if self.overlay.lay(position, &mut window)? {
                return Ok(window);
            }
        }
        bail!("{} is written faster than it can be read", self.overlay.path().display())
    }
}
