//! Whose a journal is that lies outside its data directory. A copy of a data directory has the settings of the one that it was
//! copied from, and with these its journal: a start of the copy would take that over, and what only it holds of the other
//! directory's records would be lost.
//!
//! So a start says in the journal's directory which data directory it is of, by path, since all else of a copy is the same; and
//! where that journal is itself, since this file is copied with it: in a copy of the journal it says nothing.

use anyhow::{Result, bail};
use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// The file's name, in the journal's directory.
pub const FILE: &str = "thalweg.owner";
/// The name of a journal's directory that lies where it does by default, in its data directory.
const DEFAULT: &str = "journal";

/// The data directory that a journal is of.
struct Owner {
    data_dir: PathBuf,
    /// Of a directory that was renamed it is the same.
    inode: u64,
    /// The file says so.
    is_told: bool,
}

impl Owner {
    /// The owner of a journal, if anything says whose it is.
    fn of(journal_dir: &Path) -> Option<Owner> {
        let text = fs::read_to_string(journal_dir.join(FILE)).unwrap_or_default();
        let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        if value("journal").is_some_and(|journal| Path::new(journal) == journal_dir) {
            return Some(Owner { data_dir: value("data")?.into(), inode: value("inode")?.parse().ok()?, is_told: true });
        }
        let data_dir = journal_dir.parent().filter(|_| journal_dir.ends_with(DEFAULT))?;
        data_dir.join(crate::lock::FILE).is_file().then(|| Owner { data_dir: data_dir.to_owned(), inode: 0, is_told: false })
    }

    /// True if it is this one, also if it was renamed since.
    fn is(&self, data_dir: &Path) -> bool {
        match fs::canonicalize(&self.data_dir) {
            Ok(found) => found == data_dir,
            Err(_) => fs::metadata(data_dir).is_ok_and(|found| found.ino() == self.inode),
        }
    }
}

/// Whether a data directory may use a journal. One that is in it is its own.
///
/// # Errors
/// It is another data directory's. The error says what to do.
pub fn check(data_dir: &Path, journal_dir: &Path) -> Result<()> {
    // One that is not there is nobody's.
    let (Ok(data), Ok(journal)) = (fs::canonicalize(data_dir), fs::canonicalize(journal_dir)) else { return Ok(()) };
    if journal.starts_with(&data) {
        return Ok(());
    }
    let Some(owner) = Owner::of(&journal).filter(|owner| !owner.is(&data)) else { return Ok(()) };
    let (of, file) = (owner.data_dir.display(), journal.join(FILE));
    let instead = match owner.is_told {
        true => format!("; or, if {} has taken the place of {of}, remove {}", data.display(), file.display()),
        false => String::new(),
    };
    bail!(
        "{} is the journal of {of}, and not of {}, which may be a copy of that: used by both, it would lose what it holds of the other. \
         Copy the journal as well, while no broker uses it, and name the copy with --journal-dir{instead}",
        journal.display(),
        data.display()
    )
}

/// As [`check`], and says in the journal's directory whose it is. The caller holds the data directory's lock.
///
/// # Errors
/// As [`check`].
pub fn claim(data_dir: &Path, journal_dir: &Path) -> Result<()> {
    check(data_dir, journal_dir)?;
    let (Ok(data), Ok(journal)) = (fs::canonicalize(data_dir), fs::canonicalize(journal_dir)) else { return Ok(()) };
    if journal == data.join(DEFAULT) {
        return Ok(());
    }
    // It guards against a mistake: a full disk is no reason not to start.
    if let Err(error) = say(&data, &journal) {
        tracing::warn!("{} can't be written ({error}): see that no copy of {} is started", journal.join(FILE).display(), data.display());
    }
    Ok(())
}

fn say(data: &Path, journal: &Path) -> io::Result<()> {
    let inode = fs::metadata(data)?.ino();
    let text = format!("version: 0\njournal: {}\ndata: {}\ninode: {inode}\n", journal.display(), data.display());
    let path = journal.join(FILE);
    if fs::read_to_string(&path).is_ok_and(|said| said == text) {
        return Ok(());
    }
    let beside = path.with_extension("tmp");
    fs::write(&beside, text)?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A root with these directories in it.
    fn directories(names: &[&str]) -> (tempfile::TempDir, impl Fn(&str) -> PathBuf) {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().to_owned();
        names.iter().for_each(|name| fs::create_dir_all(path.join(name)).expect("created"));
        (root, move |name: &str| path.join(name))
    }

    fn refused(data_dir: &Path, journal_dir: &Path) -> Option<String> {
        let said = check(data_dir, journal_dir).err().map(|error| error.to_string());
        assert_eq!(claim(data_dir, journal_dir).err().map(|error| error.to_string()), said);
        said
    }

    #[test]
    fn a_copy_is_kept_from_the_journal_of_what_it_was_copied_from_until_somebody_says_that_it_takes_its_place() {
        let (_root, path) = directories(&["data", "copy", "fast"]);
        let [data, copy, fast] = ["data", "copy", "fast"].map(path);
        assert!(check(&copy, &fast).is_ok(), "it is nobody's yet");
        claim(&data, &fast).expect("it is nobody's yet");
        assert_eq!((refused(&data, &fast), refused(&data.join("../data"), &fast)), (None, None));
        let said = refused(&copy, &fast).expect("it is another's");
        assert!(said.contains("--journal-dir; or, if ") && said.contains(&format!("remove {}", fast.join(FILE).display())), "{said}");
        fs::remove_dir(&data).expect("removed");
        assert!(refused(&copy, &fast).is_some(), "what is gone may be a disk that is not mounted");
        fs::remove_file(fast.join(FILE)).expect("removed");
        assert_eq!(refused(&copy, &fast), None);
    }

    #[test]
    fn a_directory_that_was_renamed_and_a_journal_that_was_copied_are_ones_own() {
        let (_root, path) = directories(&["data", "copy", "fast", "copied"]);
        let [data, copy, fast, copied] = ["data", "copy", "fast", "copied"].map(&path);
        claim(&data, &fast).expect("it is nobody's yet");
        fs::copy(fast.join(FILE), copied.join(FILE)).expect("copied");
        assert_eq!(refused(&copy, &copied), None);
        let renamed = path("renamed");
        fs::rename(&data, &renamed).expect("renamed");
        assert_eq!(refused(&renamed, &fast), None);
        assert!(refused(&copy, &fast).is_some_and(|said| said.contains("renamed")), "it was said anew");
    }

    #[test]
    fn a_journal_within_another_data_directory_is_of_that_without_being_told() {
        let (_root, path) = directories(&["data/journal", "copy", "plain/journal"]);
        fs::write(path("data/.lock"), "").expect("written");
        let said = refused(&path("copy"), &path("data/journal")).expect("it is another's");
        assert!(!said.contains("; or, if"), "{said}");
        assert_eq!((refused(&path("data"), &path("data/journal")), refused(&path("copy"), &path("plain/journal"))), (None, None));
        assert!(!path("data/journal").join(FILE).exists() && path("plain/journal").join(FILE).exists());
    }
}
