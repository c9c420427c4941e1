//! The settings that a start keeps in the data directory, in `thalweg.settings`, for the tool that works on it while the
//! broker is stopped: what would be old enough to go by Kafka's defaults may be what this broker was told to keep.
//!
//! It is a config file like any other. Topic settings, and broker settings that were changed while running, are in the catalog.

use super::{Given, file, keys};
use crate::settings::Settings;
use anyhow::{Context, bail};
use engine::log::LogConfig;
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};

/// The file's name, in the data directory.
pub const FILE: &str = "thalweg.settings";
const HEADER: &str = "# Written by thalweg at each start: the settings that its data depends on. `compact` reads them. Not to be edited.\n";
/// Of our own keys, those that say how the data is kept.
const OWN: [&str; 4] = ["allow_buffered", "journal_dir", "journal_size", "validate"];

/// What is known of a data directory's settings.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The engine's bounds and directories.
    pub log: LogConfig,
    /// What stands behind the settings of topics.
    pub settings: Settings,
    /// Files may be opened without O_DIRECT.
    pub allow_buffered: bool,
    /// What the operator should know about the configuration.
    pub warnings: Vec<String>,
}

/// The lines of the file.
pub(super) fn text(own: &BTreeMap<String, String>, kafka: &BTreeMap<String, String>) -> String {
    let own = own.iter().filter(|(key, _)| OWN.contains(&key.as_str()));
    let elsewhere = ["log.dir", "log.dirs", "listeners", "advertised.listeners"];
    let kafka = kafka.iter().filter(|(name, _)| !elsewhere.iter().chain(keys::WITHOUT_EFFECT).any(|other| other == name));
    let line = |(key, value): (&String, &String)| format!("{} = {}\n", quoted(key), quoted(value));
    HEADER.to_owned() + &own.chain(kafka).map(line).collect::<String>()
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// Keeps `text` in the data directory, durably.
///
/// # Errors
/// What was kept before is wrong now, and can be neither replaced nor removed.
pub fn keep(data_dir: &Path, text: &str) -> anyhow::Result<()> {
    let path = data_dir.join(FILE);
    if std::fs::read_to_string(&path).is_ok_and(|kept| kept == text) {
        return Ok(());
    }
    let Err(error) = replace(data_dir, &path, text) else { return Ok(()) };
    // A full disk is no reason not to start, but settings that are not true any more may cost data.
    match std::fs::remove_file(&path).and_then(|()| File::open(data_dir)?.sync_all()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("{} is not true any more and can't be removed: remove it", path.display()))
        }
        _ => {
            tracing::warn!("{} can't be written ({error}): compact needs --config until the next start", path.display());
            Ok(())
        }
    }
}

fn replace(data_dir: &Path, path: &Path, text: &str) -> io::Result<()> {
    let beside = path.with_extension("settings.tmp");
    let mut file = File::create(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    File::open(data_dir)?.sync_all()
}

/// The settings of a data directory: those of `config`, a config file, if there is one, else those that its broker has kept;
/// `None` if there are neither. What is kept of the journal also holds beside a config file that doesn't say it.
///
/// # Errors
/// A file can't be read, or a value in it is wrong.
pub fn read(data_dir: &Path, config: Option<&Path>, journal_dir: Option<&Path>) -> anyhow::Result<Option<Kept>> {
    let path = data_dir.join(FILE);
    let kept = if path.is_file() { Some(file::read(&path)?) } else { None };
    let mut given = Given { own: BTreeMap::new(), kafka: BTreeMap::new(), warnings: Vec::new() };
    match (config, kept) {
        (None, None) => return Ok(None),
        (None, Some(kept)) => given.take_file(kept)?,
        (Some(config), kept) => {
            let of_journal = kept.unwrap_or_default().into_iter().filter(|(key, _)| OWN.contains(&key.as_str()));
            given.take_file(of_journal.collect())?;
            let values = file::read(config)?;
            let named = values.get("data_dir").or_else(|| values.get("log.dirs"));
            if let Some(named) = named.filter(|named| !is_same(Path::new(named), data_dir)) {
                given.warnings.push(format!("{} is for {named}, and is taken for {}", config.display(), data_dir.display()));
            }
            given.take_file(values)?;
        }
    }
    given.own.insert("data_dir".into(), text_of(data_dir)?);
    if let Some(journal_dir) = journal_dir {
        given.own.insert("journal_dir".into(), text_of(journal_dir)?);
    }
    given.check_values()?;
    let log = given.log()?;
    let settings = given.settings(&log)?;
    Ok(Some(Kept { allow_buffered: given.boolean("allow_buffered")?, log, settings, warnings: given.warnings }))
}

fn is_same(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    real(one) == real(other)
}

fn text_of(path: &Path) -> anyhow::Result<String> {
    match path.to_str() {
        Some(text) => Ok(text.to_owned()),
        None => bail!("the path {} is not UTF-8", path.display()),
    }
}

/// A path in the file must mean the same wherever the tool is started.
pub(super) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn what_a_start_keeps_is_read_as_it_was_given() {
        let directory = tempfile::tempdir().expect("a directory");
        assert!(read(directory.path(), None, None).expect("reads").is_none());
        let own = map(&[("journal_dir", "/fast/\"journal\""), ("journal_size", "16MiB"), ("listen", "localhost:1")]);
        let kafka = map(&[("log.retention.hours", "72"), ("log.cleanup.policy", "compact,delete"), ("listeners", "PLAINTEXT://:9092")]);
        keep(directory.path(), &text(&own, &kafka)).expect("keeps");
        let kept = read(directory.path(), None, None).expect("reads").expect("was kept");
        assert_eq!((kept.log.journal_dir.as_path(), kept.log.journal_bytes), (Path::new("/fast/\"journal\""), 16 << 20));
        assert_eq!(kept.log.data_dir, directory.path());
        let properties = &kept.settings.properties;
        assert_eq!(properties.get("log.retention.hours").map(String::as_str), Some("72"));
        assert_eq!(properties.get("log.cleanup.policy").map(String::as_str), Some("compact,delete"));
        assert!(kept.warnings.is_empty(), "{:?}", kept.warnings);
    }

    #[test]
    fn a_config_file_speaks_for_retention_and_what_was_kept_for_the_journal() {
        let directory = tempfile::tempdir().expect("a directory");
        keep(directory.path(), &text(&map(&[("journal_size", "16MiB")]), &map(&[("log.retention.hours", "1")]))).expect("keeps");
        let config = directory.path().join("thalweg.toml");
        std::fs::write(&config, "log.retention.minutes = 5\ndata_dir = \"/elsewhere\"\n").expect("writes");
        let kept = read(directory.path(), Some(&config), None).expect("reads").expect("is there");
        assert_eq!(kept.log.journal_bytes, 16 << 20);
        assert_eq!(kept.settings.properties.get("log.retention.hours"), None);
        assert_eq!(kept.settings.properties.get("log.retention.minutes").map(String::as_str), Some("5"));
        assert!(kept.warnings.len() == 1 && kept.warnings[0].contains("/elsewhere"), "{:?}", kept.warnings);
    }
}
