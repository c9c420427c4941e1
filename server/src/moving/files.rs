//! Small durable steps on directories and files, each with an error that says what to do.

use super::failed;
use anyhow::Result;
use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

/// The names in a directory that are text.
pub(super) fn names(path: &Path) -> Result<Vec<String>> {
    let list = || {
        let mut names: Vec<String> = Vec::new();
        for entry in fs::read_dir(path)? {
            names.extend(entry?.file_name().into_string());
        }
        names.sort_unstable();
        io::Result::Ok(names)
    };
    list().map_err(|error| failed("read", path, error))
}

/// Writes a file whole and flushes it. Its directory is still to be flushed.
pub(super) fn write(path: &Path, content: &[u8]) -> Result<()> {
    let write = || {
        let mut file = File::create(path)?;
        file.write_all(content)?;
        file.sync_all()
    };
    write().map_err(|error| failed("write", path, error))
}

/// Flushes a directory: what was made, renamed or removed in it stays so.
pub(super) fn sync_dir(path: &Path) -> Result<()> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(|error| failed("flush", path, error))
}

/// Removes a directory with all that is in it, if it is there.
pub(super) fn remove_all(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path, error)),
        _ => Ok(()),
    }
}

/// The text of a file, if it is there.
pub(super) fn text(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path, error)),
    }
}
