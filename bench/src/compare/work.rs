//! The directory that a comparison writes into and empties: one of its own name with a mark in it, locked, so that it removes
//! nothing but what a comparison wrote.

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{FlockOperation, flock};
use std::{
    fs::{self, File},
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

/// Its name below the directory that was asked for.
const NAME: &str = "thalweg-comparison";
/// The file that says whose it is. The lock is on it.
const MARK: &str = "made-by-thalweg-bench";

/// The directory, locked. What the brokers and the limits wrote is removed when it is dropped; their log stays.
pub struct Work {
    path: PathBuf,
    _mark: File,
}

impl Work {
    /// Makes the directory below `parent`, or takes the one of an earlier comparison and removes what that one left.
    ///
    /// # Errors
    /// Something of that name is there that no comparison made, or another comparison uses it.
    pub fn take(parent: &Path) -> Result<Work> {
        let path = parent.join(NAME);
        let mark = path.join(MARK);
        let said = || format!("{}", path.display());
        match fs::create_dir(&path) {
            Ok(()) => drop(File::create(&mark).with_context(said)?),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let is_directory = fs::symlink_metadata(&path).with_context(said)?.is_dir();
                ensure!(
                    is_directory && mark.is_file(),
                    "{} was not made by `compare` (there is no file {MARK} in it): move it away, or use another --work",
                    path.display()
                );
            }
            Err(error) => return Err(error).with_context(said),
        }
        let file = File::options().write(true).open(&mark).with_context(said)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            bail!("another comparison uses {}: wait for it, or use another --work", path.display());
        }
        let work = Work { path, _mark: file };
        work.clear()?;
        Ok(work)
    }

    /// Where it is: the disk that is measured.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The brokers' data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    /// What the broker that ran last printed.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.path.join("broker.log")
    }

    /// Removes data and files of limits.
    ///
    /// # Errors
    /// The file system's: what is there still would be in the way of fresh data.
    pub fn clear(&self) -> Result<()> {
        for entry in fs::read_dir(&self.path).with_context(|| format!("{}", self.path.display()))? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_name() == MARK || path == self.log() {
                continue;
            }
            let removed = if entry.file_type()?.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.or_else(gone).with_context(|| format!("can't remove {}", path.display()))?;
        }
        Ok(())
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if let Err(error) = self.clear() {
            eprintln!("{error:#}");
        }
    }
}

fn gone(error: io::Error) -> io::Result<()> {
    if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_no_comparison_made_is_refused_and_left_as_it_is() {
        let parent = tempfile::tempdir().unwrap();
        let theirs = parent.path().join(NAME).join("data");
        fs::create_dir_all(&theirs).unwrap();
        fs::write(theirs.join("precious"), "x").unwrap();
        let said = Work::take(parent.path()).err().map(|error| format!("{error:#}")).unwrap_or_default();
        assert!(said.contains("was not made by `compare`"), "{said}");
        assert!(theirs.join("precious").is_file());
    }

    #[test]
    fn what_lies_beside_it_is_not_touched_and_what_a_comparison_left_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        fs::create_dir(parent.path().join("data")).unwrap();
        fs::write(parent.path().join("limits.dat"), "x").unwrap();
        let work = Work::take(parent.path()).unwrap();
        fs::create_dir_all(work.data().join("topic-0")).unwrap();
        fs::write(work.path().join("limits.dat"), "x").unwrap();
        fs::write(work.log(), "said").unwrap();
        let (data, log) = (work.data(), work.log());
        drop(work);
        assert!(!data.exists() && log.is_file());
        // As one that was killed leaves it.
        fs::create_dir_all(&data).unwrap();
        let again = Work::take(parent.path()).unwrap();
        assert!(!again.data().exists());
        assert!(parent.path().join("data").is_dir() && parent.path().join("limits.dat").is_file());
    }

    #[test]
    fn two_comparisons_dont_share_one() {
        let parent = tempfile::tempdir().unwrap();
        let first = Work::take(parent.path()).unwrap();
        fs::create_dir(first.data()).unwrap();
        let said = Work::take(parent.path()).err().map(|error| format!("{error:#}")).unwrap_or_default();
        assert!(said.contains("another comparison uses"), "{said}");
        assert!(first.data().is_dir());
    }
}
