//! Putting right what `verify` found, on the data of a stopped broker. Nothing is lost: what is removed or changed is kept
//! in files beside, named after the file and ending in `.removed…`, which no broker reads.

mod indexes;
mod log;

use super::{
    Mode, Outcome, Request,
    inputs::{Home, Known},
    journal::Journals,
    progress::Progress,
    show::Printer,
    verify::{self, Finding, Fix, Part, Refusal, Totals},
};
use anyhow::{Context, Result, bail};
use engine::segment::{EpochStart, FileKind, encode_epochs, file_name, removed_paths};
use server::lock::Lock;
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufRead, Write},
    ops::Range,
    path::{Path, PathBuf},
};

/// Verifies what is at `path`, shows what is to be done, asks, does it, and verifies again.
pub(crate) fn run(path: &Path, request: &Request, yes: bool, journals: &Journals, out: &mut dyn Write) -> Result<Outcome> {
    let quiet = Request { progress: request.progress, mode: Mode::Verify, ..request.clone() };
    for part in verify::parts(path)? {
        let Part::Partition { directory, only } = part else { continue };
        partition(&directory, only, &quiet, yes, journals, out)?;
    }
    verify::print(path, &quiet, journals, out)
}

fn partition(directory: &Path, only: Option<i64>, request: &Request, yes: bool, journals: &Journals, out: &mut dyn Write) -> Result<()> {
    let home = Home::of(directory);
    let _lock = Lock::exclusive(&home.data_dir, "stop it first")?;
    let _other = home.other_dir.as_deref().map(|other| Lock::exclusive(other, "stop it first")).transpose()?;
    let (mut totals, progress, mut is_told, mut before) = (Totals::default(), Progress::new(false, 0), false, Vec::new());
    // One repair may bring something else to light: batches behind one whose length was wrong, say.
    for _ in 0..ROUNDS_MAX {
        let found = verify::verify_partition(directory, only, request, journals, &progress, &mut totals)?;
        let is_refused = |refusal| found.iter().any(|finding| finding.refusal == Some(refusal));
        if is_refused(Refusal::Unclean) {
            bail!(
                "{} was not stopped cleanly, and nothing was repaired: a part of its data is in the journal only. Start the broker once, which \
                 puts right what a crash leaves, stop it, and repair what is then still wrong. --verify says what works where a start refuses a \
                 partition",
                home.data_dir.display()
            );
        }
        let mut printer = Printer::new(&request.look, out);
        if is_refused(Refusal::Active) && !std::mem::replace(&mut is_told, true) {
            printer.at(directory);
            let what = "the active segment is left as it is: Thalweg's journal counts on its length";
            printer.note(None, &format!("{}: {what}", directory.display()))?;
        }
        let fixable: Vec<Finding> = found.into_iter().filter(Finding::is_repairable).collect();
        // What a repair has not changed, the next one does not either.
        if fixable.is_empty() || fixable == before {
            return Ok(());
        }
        fixable.iter().try_for_each(|finding| finding.print(&mut printer))?;
        out.flush()?;
        if !(yes || asked(directory)?) {
            Printer::new(&request.look, out).note(None, &format!("{}: nothing was changed", directory.display()))?;
            return Ok(());
        }
        let mut kept = apply(directory, &fixable)?;
        kept.sort_unstable();
        let mut printer = Printer::new(&request.look, out);
        kept.iter().try_for_each(|path| printer.note(None, &format!("kept beside: {}", path.display())))?;
        before = fixable;
    }
    Ok(())
}

/// How often what a repair brought to light is repaired.
const ROUNDS_MAX: usize = 8;

fn asked(directory: &Path) -> Result<bool> {
    eprint!("Repair {}? What is removed is kept beside. [y/N] ", directory.display());
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Returns the files that keep what was taken out, changed or replaced.
fn apply(directory: &Path, findings: &[Finding]) -> Result<Vec<PathBuf>> {
    let mut kept = Vec::new();
    let mut logs: BTreeMap<i64, Vec<&Fix>> = BTreeMap::new();
    for finding in findings {
        match (&finding.fix, Known::of(&finding.file)) {
            (Some(Fix::Aside), _) => kept.push(aside(&finding.file)?),
            (Some(Fix::Epochs), _) => kept.extend(epochs(directory)?),
            (Some(fix), Some(Known::Segment(base_offset, _))) => logs.entry(base_offset).or_default().push(fix),
            _ => {}
        }
    }
    for (base_offset, fixes) in logs {
        let path = directory.join(file_name(base_offset, FileKind::Log));
        kept.extend(log::apply(&path, &fixes)?);
        kept.extend(indexes::rebuild(directory, base_offset)?);
    }
    sync_directory(directory)?;
    Ok(kept)
}

/// Renames a file so that no broker reads it, and no other is replaced. Returns its new name.
fn aside(path: &Path) -> Result<PathBuf> {
    let to = place_beside(path, None);
    fs::rename(path, &to).with_context(|| format!("can't rename {} to {}", path.display(), to.display()))?;
    Ok(to)
}

/// A place for what is taken out of a file, one that is free.
fn place_beside(path: &Path, range: Option<Range<u64>>) -> PathBuf {
    removed_paths(path, range).find(|path| !path.exists()).expect("numbers don't end")
}

/// Replaces a file's content durably. What it was is kept beside: where, if it was there.
fn replace(path: &Path, content: &[u8]) -> Result<Option<PathBuf>> {
    let kept = path.exists().then(|| aside(path)).transpose()?;
    let tmp = path.with_extension("tmp");
    let write = || {
        let mut file = File::create(&tmp)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&tmp, path)
    };
    write().with_context(|| format!("can't write {}", path.display()))?;
    Ok(kept)
}

/// Writes the leader epochs that the batches have. Returns where the earlier ones are kept, if there were any.
fn epochs(directory: &Path) -> Result<Option<PathBuf>> {
    let mut found: Vec<EpochStart> = Vec::new();
    for base_offset in super::inputs::Listing::of(directory)?.segments() {
        log::headers(&directory.join(file_name(base_offset, FileKind::Log)), base_offset, |_, header, _| {
            if found.last().is_none_or(|last| last.epoch < header.leader_epoch()) {
                found.push(EpochStart { epoch: header.leader_epoch(), start_offset: header.base_offset() });
            }
        })?;
    }
    replace(&directory.join(engine::segment::LEADER_EPOCH_CHECKPOINT), encode_epochs(&found).as_bytes())
}

fn sync_directory(directory: &Path) -> Result<()> {
    File::open(directory).and_then(|directory| directory.sync_all()).with_context(|| format!("can't flush {}", directory.display()))
}
