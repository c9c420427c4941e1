//! Whose a journal is that lies outside its data directory. A copy of a data directory has the settings of the one that it was
//! copied from, and with these its journal: a start of the copy would take that over, and what only it holds of the other
//! directory's records would be lost.
//!
//! So a start says in the journal's directory which data directory it is of, by path, since all else of a copy is the same; and
//! where that journal is itself, since this file is copied with it: in a copy of the journal it says nothing.

use anyhow::{Result, bail};
use engine::log::catalog_spec;
use std::{
    fs::{self, File},
    io::{self, Write},
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
    /// The file says so.
    is_told: bool,
}

impl Owner {
    /// The owner of a journal, if anything says whose it is.
    fn of(journal_dir: &Path) -> Option<Owner> {
        let text = fs::read_to_string(journal_dir.join(FILE)).unwrap_or_default();
        let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        if value("journal").is_some_and(|journal| Path::new(journal) == journal_dir) {
            return Some(Owner { data_dir: value("data")?.into(), is_told: true });
        }
        let data_dir = journal_dir.parent().filter(|_| journal_dir.ends_with(DEFAULT))?;
        Some(Owner { data_dir: data_dir.to_owned(), is_told: false })
    }

    /// True if a data directory is there, and it is another one than this: one that was moved, or is mounted elsewhere as well, is
    /// the same.
    fn is_another_than(&self, data_dir: &Path) -> bool {
        let identity = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino()));
        let is_data_dir = self.data_dir.join(catalog_spec().directory).is_dir();
        is_data_dir && matches!((identity(&self.data_dir), identity(data_dir)), (Ok(owner), Ok(ours)) if owner != ours)
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
    let Some(owner) = Owner::of(&journal).filter(|owner| owner.is_another_than(&data)) else { return Ok(()) };
    let (of, file) = (owner.data_dir.display(), journal.join(FILE));
    let instead = match owner.is_told {
        true => format!("; or, if {} has taken the place of {of}, which is used no more, remove {}", data.display(), file.display()),
        false => String::new(),
    };
    bail!(
        "{} is the journal of {of}, and not of {}, which may be a copy of that: used by both, it would lose what it holds of the other. \
         Copy the journal as well, while no broker uses it, and name the copy with --journal-dir{instead}",
        journal.display(),
        data.display()
    )
}

/// Says in the journal's directory whose it is: after a start that [`check`] has allowed.
pub fn claim(data_dir: &Path, journal_dir: &Path) {
    let (Ok(data), Ok(journal)) = (fs::canonicalize(data_dir), fs::canonicalize(journal_dir)) else { return };
    if journal == data.join(DEFAULT) {
        return;
    }
    // It guards against a mistake: a full disk is no reason not to start.
    if let Err(error) = say(&data, &journal) {
        tracing::warn!("{} can't be written ({error}): see that no copy of {} is started", journal.join(FILE).display(), data.display());
    }
}

fn say(data: &Path, journal: &Path) -> io::Result<()> {
    let text = format!("version: 0\njournal: {}\ndata: {}\n", journal.display(), data.display());
    let path = journal.join(FILE);
    if fs::read_to_string(&path).is_ok_and(|said| said == text) {
        return Ok(());
    }
    let beside = path.with_extension("tmp");
    let mut file = File::create(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    File::open(journal)?.sync_all()
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
        if said.is_none() {
            claim(data_dir, journal_dir);
        }
        said
    }

    #[test]
    fn a_copy_is_kept_from_the_journal_of_what_it_was_copied_from_until_somebody_says_that_it_takes_its_place() {
        let (_root, path) = directories(&["data/__catalog-0", "copy", "fast"]);
        let [data, copy, fast] = ["data", "copy", "fast"].map(path);
        assert!(check(&copy, &fast).is_ok(), "it is nobody's yet");
        claim(&data, &fast);
        assert_eq!((refused(&data, &fast), refused(&data.join("../data"), &fast)), (None, None));
        let said = refused(&copy, &fast).expect("it is another's");
        assert!(said.contains("--journal-dir; or, if ") && said.contains(&format!("remove {}", fast.join(FILE).display())), "{said}");
        fs::remove_file(fast.join(FILE)).expect("removed");
        assert_eq!(refused(&copy, &fast), None);
        assert!(refused(&data, &fast).is_none(), "the copy is no data directory yet");
        fs::create_dir(copy.join("__catalog-0")).expect("created");
        assert_eq!(refused(&data, &fast), None, "it was said anew");
        assert!(refused(&copy, &fast).is_some());
    }

    #[test]
    fn a_directory_that_was_renamed_and_a_journal_that_was_copied_are_ones_own() {
        let (_root, path) = directories(&["data/__catalog-0", "copy", "fast", "copied"]);
        let [data, copy, fast, copied] = ["data", "copy", "fast", "copied"].map(&path);
        claim(&data, &fast);
        fs::copy(fast.join(FILE), copied.join(FILE)).expect("copied");
        assert_eq!(refused(&copy, &copied), None);
        let renamed = path("renamed");
        fs::rename(&data, &renamed).expect("renamed");
        let alias = path("alias");
        std::os::unix::fs::symlink(&renamed, &alias).expect("linked");
        assert_eq!((refused(&renamed, &fast), refused(&alias, &fast)), (None, None));
        assert!(refused(&copy, &fast).is_some_and(|said| said.contains("renamed")), "it was said anew");
    }

    #[test]
    fn a_journal_within_another_data_directory_is_of_that_without_being_told() {
        let (_root, path) = directories(&["data/journal", "data/__catalog-0", "copy", "plain/journal"]);
        let said = refused(&path("copy"), &path("data/journal")).expect("it is another's");
        assert!(!said.contains("; or, if"), "{said}");
        assert_eq!((refused(&path("data"), &path("data/journal")), refused(&path("copy"), &path("plain/journal"))), (None, None));
        assert!(!path("data/journal").join(FILE).exists() && path("plain/journal").join(FILE).exists());
    }
}
