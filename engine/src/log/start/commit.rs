//! Steps 5 to 7: heads of the new start, the superblock that commits them, and what is cut and removed afterwards.

use super::{
    super::{LogConfig, LogError},
    recover::{Cut, Outcome, disk_error},
};
use crate::{
    bugs::{self, Bug},
    compaction::{SCRATCH, discard},
    disk::{Disk, Open, is_full},
    journal::{
        FRAME_ALIGNMENT, HEAD_SHARE, JournalError, JournalPosition, Line, Superblock, Which, file_bytes_needed, file_path, head_bytes,
        leaves_room, prepare_file, write_first_head,
    },
    kafka::CLEAN_SHUTDOWN,
    partition::{
        Recovered,
        directory::{self, Directory, log_path},
        head::recovered_items,
    },
    segment::{parse_directory_name, remove_segment},
};
use futures_util::stream::{self, StreamExt};
use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
};

/// Partitions that are cut at the same time.
pub(super) const PARTITIONS_AT_ONCE: usize = 32;

/// Step 5: writes the heads of all cores, each into the file that was not recovered from. `current` names those that
/// were. Returns where each journal goes on.
pub(super) async fn write_heads<D: Disk>(
    disk: &D,
    config: &LogConfig,
    current: &[Which],
    start: (u64, u64),
    cores: &[Vec<Outcome>],
) -> Result<Vec<JournalPosition>, LogError> {
    let mut heads = Vec::new();
    for (core, outcomes) in cores.iter().enumerate() {
        let lines: Vec<Line> = outcomes.iter().map(|outcome| outcome.recovered.line).collect();
        let mut carried = Vec::new();
        outcomes.iter().for_each(|outcome| recovered_items(&outcome.recovered, &mut carried));
        let head = head_bytes(&lines, &carried);
        let mut file_bytes =
            (config.journal_bytes / 2 / FRAME_ALIGNMENT * FRAME_ALIGNMENT).max(file_bytes_needed(lines.len())).max(HEAD_SHARE * head);
        if file_bytes > config.journal_bytes / 2 {
            let bytes = 2 * file_bytes;
            tracing::info!("the journal of core {core} is made {bytes} bytes long: its {} partitions need that", lines.len());
        }
        let which = current.get(core).map_or(Which::A, |which| which.other());
        let [path, other] = [which, which.other()].map(|which| file_path(&config.journal_dir, core, which));
        let prepared = prepare_file(disk, &path, file_bytes).await;
        if core >= current.len() {
            prepared?;
            prepare_file(disk, &other, file_bytes).await?;
        } else if let Err(error) = prepared {
            // A full disk is no reason not to start: the files that are there go on, if the head leaves room in them.
            file_bytes = bytes_there(disk, &path).await?.min(bytes_there(disk, &other).await?);
            if !has_no_space(&error) || !leaves_room(head, file_bytes) {
                return Err(error.into());
            }
            tracing::warn!("no space for a larger {}: its {file_bytes} bytes must do", path.display());
        }
        let (start, salt) = start;
        let position = JournalPosition { start, salt, core, current: which, generation: 1, next_sequence: 1, offset: 0, file_bytes };
        heads.push((position, lines, carried));
    }
    disk.sync_dir(&config.journal_dir).await.map_err(disk_error(&config.journal_dir))?;
    let mut positions = Vec::new();
    for (position, lines, carried) in heads {
        positions.push(write_first_head(disk, &config.journal_dir, position, &lines, &carried).await?);
    }
    Ok(positions)
}

fn has_no_space(error: &JournalError) -> bool {
    matches!(error, JournalError::Failed { source, .. } if is_full(source))
}

/// The size of a journal file in whole frames, in bytes; 0 if it is not there.
async fn bytes_there<D: Disk>(disk: &D, path: &Path) -> Result<u64, LogError> {
    let size = match disk.open(path, Open::Existing).await {
        Ok(file) => disk.size(&file).await,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    };
    size.map(|bytes| bytes / FRAME_ALIGNMENT * FRAME_ALIGNMENT).map_err(disk_error(path))
}

/// Step 7: cuts, removes and resizes what the commit has made stale. It may be repeated. With `mark`, the catalog has
/// durably taken over what this start took over: from now on those directories are ours.
pub(super) async fn clean_up<D: Disk>(
    disk: &D,
    config: &LogConfig,
    positions: &mut [JournalPosition],
    old: usize,
    cores: &[Vec<Outcome>],
    mark: bool,
) -> Result<(), LogError> {
    let all = || cores.iter().flatten();
    for spec in all().filter(|outcome| mark && outcome.taken_over).map(|outcome| &outcome.recovered.spec) {
        let path = config.data_dir.join(&spec.directory);
        directory::mark(disk, &path, spec.id).await.map_err(disk_error(path))?;
    }
    let mut cuts = stream::iter(all().map(|outcome| tidy(disk, config, outcome))).buffer_unordered(PARTITIONS_AT_ONCE);
    while let Some(done) = cuts.next().await {
        done?;
    }
    remove_scratch(disk, config).await?;
    remove_unknown(disk, config, all().map(|outcome| &outcome.recovered)).await?;
    for position in positions.iter_mut().take(old) {
        let other = file_path(&config.journal_dir, position.core, position.current.other());
        match prepare_file(disk, &other, position.file_bytes).await {
            // Then both are used as far as the shorter one reaches: an earlier start may have made one larger.
            Err(error) if has_no_space(&error) => {
                let bytes = bytes_there(disk, &other).await?.min(position.file_bytes);
                if !leaves_room(position.offset, bytes) {
                    return Err(error.into());
                }
                position.file_bytes = bytes;
            }
            prepared => prepared?,
        }
    }
    let gone = |name: &str| {
        let core = name.strip_prefix("core-").and_then(|rest| rest.split_once('.'));
        core.is_some_and(|(core, which)| which == "new" || core.parse::<usize>().is_ok_and(|core| core >= positions.len()))
    };
    let entries = disk.list(&config.journal_dir).await.map_err(disk_error(&config.journal_dir))?;
    for entry in entries.into_iter().filter(|entry| gone(&entry.name)) {
        let path = config.journal_dir.join(entry.name);
        disk.remove(&path).await.map_err(disk_error(&path))?;
    }
    disk.sync_dir(&config.journal_dir).await.map_err(disk_error(&config.journal_dir))?;
    let mark = config.data_dir.join(CLEAN_SHUTDOWN);
    match disk.remove(&mark).await {
        Ok(()) => disk.sync_dir(&config.data_dir).await.map_err(disk_error(&config.data_dir)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(LogError::Disk { path: mark, source }),
    }
}

/// Cuts a partition's last segment and removes those behind it.
async fn tidy<D: Disk>(disk: &D, config: &LogConfig, outcome: &Outcome) -> Result<(), LogError> {
    if bugs::on(Bug::NoTruncationNoEpoch) {
        return Ok(());
    }
    let directory = config.data_dir.join(&outcome.recovered.spec.directory);
    for base in &outcome.leftovers {
        remove_segment(disk, &directory, *base).await.map_err(disk_error(&directory))?;
    }
    if !outcome.leftovers.is_empty() {
        disk.sync_dir(&directory).await.map_err(disk_error(&directory))?;
    }
    let Some(Cut { path, floor, bytes }) = &outcome.cut else { return Ok(()) };
    let work = async {
        let file = disk.open(path, Open::Existing).await?;
        if disk.size(&file).await? > *floor {
            disk.truncate(&file, *floor).await?;
        }
        match disk.allocate(&file, *bytes).await {
            // A full disk is no reason not to start: appends are refused until there is space.
            Err(error) if is_full(&error) => tracing::warn!("no space for {}: {error}", path.display()),
            other => other?,
        }
        disk.sync(&file).await
    };
    work.await.map_err(disk_error(path))
}

/// Removes what cleanings had not finished.
async fn remove_scratch<D: Disk>(disk: &D, config: &LogConfig) -> Result<(), LogError> {
    let path = config.data_dir.join(SCRATCH);
    let entries = match disk.list(&path).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(disk_error(&path))?,
    };
    for entry in entries {
        discard(disk, &path.join(entry.name)).await.map_err(disk_error(&path))?;
    }
    disk.remove_dir(&path).await.map_err(disk_error(&path))
}

/// Removes directories that Thalweg made for partitions that the catalog no longer has: deletions that a crash cut short.
async fn remove_unknown<'a, D: Disk>(disk: &D, config: &LogConfig, known: impl Iterator<Item = &'a Recovered>) -> Result<(), LogError> {
    for (name, found) in unknown(disk, config, known).await? {
        let path = config.data_dir.join(&name);
        if found.mark.is_some() {
            directory::remove(disk, &config.data_dir, &name).await.map_err(disk_error(&path))?;
        } else if found.topic_id.is_none() && found.files.segments.is_empty() {
            // The mark went, the directory itself did not: a removal that was cut short at its very end. One that is not
            // empty stays.
            let _ = disk.remove_dir(&path).await;
        }
    }
    Ok(())
}

/// Sets aside what [`remove_unknown`] would remove, if it holds data: where a loss is accepted, it may be the catalog that has lost
/// something.
pub(super) async fn set_aside_unknown<'a, D: Disk>(
    disk: &D,
    config: &LogConfig,
    known: impl Iterator<Item = &'a Recovered>,
) -> Result<(), LogError> {
    for (name, found) in unknown(disk, config, known).await?.into_iter().filter(|(_, found)| found.mark.is_some() && found.has_data()) {
        let path = config.data_dir.join(&name);
        let stray = directory::set_aside(disk, &config.data_dir, &name, &found).await.map_err(disk_error(&path))?;
        tracing::warn!(
            "{} is not in the catalog; since a loss is accepted it is kept as {}. Remove it if its topic was deleted",
            path.display(),
            stray.display()
        );
    }
    Ok(())
}

/// Directories of partitions that are not `known`.
pub(super) async fn unknown<'a, D: Disk>(
    disk: &D,
    config: &LogConfig,
    known: impl Iterator<Item = &'a Recovered>,
) -> Result<Vec<(PathBuf, Directory)>, LogError> {
    let known: BTreeSet<&PathBuf> = known.map(|recovered| &recovered.spec.directory).collect();
    let entries = disk.list(&config.data_dir).await.map_err(disk_error(&config.data_dir))?;
    let mut unknown = Vec::new();
    for entry in entries.into_iter().filter(|entry| entry.is_dir && parse_directory_name(&entry.name).is_some()) {
        let name = PathBuf::from(&entry.name);
        if known.contains(&name) {
            continue;
        }
        let path = config.data_dir.join(&name);
        if let Some(found) = directory::read(disk, &path).await.map_err(disk_error(&path))? {
            unknown.push((name, found));
        }
    }
    Ok(unknown)
}

/// Step 6: the superblock that commits a start.
pub(super) fn next_superblock(old: Option<Superblock>, salt: u64, journals: usize, epoch: i32) -> Superblock {
    let renewed = (old.map_or(0, |old| old.start) + 1, salt);
    let (start, salt) = old.filter(|_| bugs::on(Bug::SaltNotRenewed)).map_or(renewed, |old| (old.start, old.salt));
    Superblock { sequence: old.map_or(0, |old| old.sequence) + 1, start, salt, journals: journals as u32, epoch_floor: epoch, clean: false }
}

/// The path of a partition's active segment.
pub(super) fn active_path(config: &LogConfig, recovered: &Recovered) -> PathBuf {
    log_path(&config.data_dir.join(&recovered.spec.directory), recovered.line.segment_base)
}
