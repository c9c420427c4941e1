//! The report, for people and as JSON: [`docs/compact.md`](../../../../docs/compact.md) has the schema.

use super::{
    Request, Run,
    report::{ByItself, Removed, Report},
};
use anyhow::Result;
use engine::retention::Why;
use serde_json::{Value, json};
use server::config::size;
use std::io::Write;

/// Shows what was done, or would be.
pub(crate) fn show(request: &Request, run: &Run, reports: &[Report], out: &mut dyn Write) -> Result<()> {
    match request.json {
        true => as_json(run, reports, out),
        false => as_text(request, run, reports, out),
    }
}

fn as_text(request: &Request, run: &Run, reports: &[Report], out: &mut dyn Write) -> Result<()> {
    if run.dry_run {
        let what_if: Vec<String> = request.set.iter().map(|(name, value)| format!(", {name}={value}")).collect();
        writeln!(out, "DRY RUN as of {}{}: nothing is changed", time(run.now_ms), what_if.concat())?;
    }
    let mut quiet = 0;
    for report in reports {
        if report.has_changed() || !report.failures.is_empty() || request.all {
            partition(report, run, out)?;
        } else {
            quiet += 1;
        }
    }
    let (before, freed, changed) = totals(reports);
    let went = if run.dry_run { "would go" } else { "are gone" };
    writeln!(out, "{} of {before} bytes {went}, of {changed} of {} partitions", signed(freed), reports.len())?;
    if run.read_bytes > 0 {
        let seconds = (run.compaction_ms as f64 / 1_000.0).max(0.001);
        let (bytes, speed) = (size::show(run.read_bytes), size::show((run.read_bytes as f64 / seconds) as u64));
        writeln!(out, "compaction has read {bytes} in {seconds:.2} s, {speed}/s")?;
    }
    if quiet > 0 {
        writeln!(out, "nothing is due of {quiet} partitions (--all shows them)")?;
    }
    if run.dry_run && !run.what_if && changed > 0 {
        writeln!(out, "To do exactly this, within the hour: {}", command(request, run))?;
    }
    Ok(())
}

/// The command that does what a dry run has said.
fn command(request: &Request, run: &Run) -> String {
    let mut words = vec!["compact".to_owned(), request.data_dir.display().to_string()];
    words.extend(request.topics.iter().flat_map(|topic| ["--topic".to_owned(), topic.clone()]));
    words.extend(request.partitions.iter().flat_map(|partition| ["--partition".to_owned(), partition.to_string()]));
    words.extend(request.configs.iter().flat_map(|path| ["--configs".to_owned(), path.display().to_string()]));
    for (name, path) in [("--config", &request.config), ("--journal-dir", &request.journal_dir)] {
        words.extend(path.iter().flat_map(|path| [name.to_owned(), path.display().to_string()]));
    }
    words.extend(["--as-of".to_owned(), run.now_ms.to_string()]);
    words.join(" ")
}

fn partition(report: &Report, run: &Run, out: &mut dyn Write) -> Result<()> {
    let (before, after) = (report.before, report.after);
    let chosen = &report.chosen;
    writeln!(
        out,
        "{}  cleanup.policy={}  {} -> {} bytes  {} -> {} segments  {} bytes go",
        chosen.directory(),
        chosen.policy,
        before.bytes,
        after.bytes,
        before.segments,
        after.segments,
        signed(report.freed())
    )?;
    for why in [Why::Age, Why::Size, Why::LogStart] {
        let removed: Vec<&Removed> = report.removed.iter().filter(|removed| removed.why == why).collect();
        let (Some(first), Some(last)) = (removed.first(), removed.last()) else { continue };
        let bytes: u64 = removed.iter().map(|removed| removed.bytes).sum();
        let bases = match removed.len() {
            1 => format!("the segment at {}", first.base_offset),
            count => format!("{count} segments at {} to {}", first.base_offset, last.base_offset),
        };
        let by_itself = match (first.by_itself(chosen, run.now_ms), last.by_itself(chosen, run.now_ms)) {
            (first, last) if first == last => by_itself(first),
            (first, last) => format!("{} (the last one {})", by_itself(first), by_itself(last)),
        };
        writeln!(out, "  {:<18} {bytes} bytes: {bases}; by itself {by_itself}", why.to_string())?;
    }
    let compaction = &report.compaction;
    if compaction.rounds > 0 || compaction.segments.0 > 0 {
        let (bytes, segments) = (compaction.bytes, compaction.segments);
        // Only a round that has come to its end makes the log clean.
        let clean_to = if compaction.rounds > 0 { format!("; clean below {}", compaction.clean_to) } else { String::new() };
        writeln!(
            out,
            "  {:<18} {} bytes: {} segments of {} bytes become {} of {}{clean_to}",
            "compaction",
            signed(bytes.0 as i64 - bytes.1 as i64),
            segments.0,
            bytes.0,
            segments.1,
            bytes.1
        )?;
        let gone = &compaction.gone;
        let counts = [
            (gone.superseded, "superseded"),
            (gone.tombstones, "tombstones"),
            (gone.keyless, "without a key"),
            (gone.aborted, "of aborted transactions"),
            (gone.markers, "markers"),
        ];
        let counts: Vec<String> = counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
        if !counts.is_empty() {
            writeln!(out, "  {:<18} {}", "records that go", counts.join(", "))?;
        }
    }
    if report.freed_beside() != 0 {
        writeln!(out, "  {:<18} {} bytes: indexes", "beside", signed(report.freed_beside()))?;
    }
    if report.reserved > 0 {
        writeln!(out, "  {:<18} {} bytes, which the killed broker's active segment had; not counted", "in reserve", report.reserved)?;
    }
    if let Some(freed) = report.freed_anyway {
        writeln!(out, "  {:<18} {freed} bytes go at the next start, with the settings in force", "by itself")?;
    }
    if report.rolled > 0 {
        writeln!(out, "  {:<18} a new segment, because of its age", "active segment")?;
    }
    if let Some(next_ms) = report.next_ms {
        writeln!(out, "  {:<18} {}", "due next", time(next_ms))?;
    }
    for failure in &report.failures {
        writeln!(out, "  {:<18} {failure}", "FAILED")?;
    }
    Ok(())
}

fn by_itself(when: ByItself) -> String {
    match when {
        ByItself::NextStart(None) => "at the next start".into(),
        ByItself::NextStart(Some(since_ms)) => format!("at the next start: due since {}", time(since_ms)),
        ByItself::At(at_ms) => format!("on {}", time(at_ms)),
        ByItself::Never => "never, with the settings in force".into(),
    }
}

/// Bytes before, bytes freed, and partitions that have changed.
fn totals(reports: &[Report]) -> (u64, i64, usize) {
    let before = reports.iter().map(|report| report.before.bytes).sum();
    (before, reports.iter().map(Report::freed).sum(), reports.iter().filter(|report| report.has_changed()).count())
}

/// Fewer bytes are less than none where something was added.
fn signed(bytes: i64) -> String {
    bytes.to_string()
}

fn as_json(run: &Run, reports: &[Report], out: &mut dyn Write) -> Result<()> {
    for report in reports {
        for removed in &report.removed {
            line(out, &segment(removed, report, run))?;
        }
        line(out, &json_partition(report, run))?;
    }
    let (before, freed, changed) = totals(reports);
    let failed = reports.iter().filter(|report| !report.failures.is_empty()).count();
    line(
        out,
        &json!({
            "type": "summary", "dryRun": run.dry_run, "whatIf": run.what_if, "asOfMs": run.now_ms, "partitions": reports.len(),
            "changed": changed, "failed": failed, "bytesBefore": before, "bytesFreed": freed, "bytesRead": run.read_bytes, "compactionMs": run.compaction_ms, "tookMs": run.took_ms,
        }),
    )
}

pub(super) fn line(out: &mut dyn Write, value: &Value) -> Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    Ok(writeln!(out)?)
}

fn segment(removed: &Removed, report: &Report, run: &Run) -> Value {
    let (by_itself, at_ms) = match removed.by_itself(&report.chosen, run.now_ms) {
        ByItself::NextStart(since_ms) => ("next start", since_ms),
        ByItself::At(at_ms) => ("later", Some(at_ms)),
        ByItself::Never => ("never", None),
    };
    json!({
        "type": "segment", "topic": report.chosen.topic, "partition": report.chosen.partition, "baseOffset": removed.base_offset,
        "bytes": removed.bytes, "why": removed.why.to_string(), "newestTimestamp": removed.newest_ms(), "byItself": by_itself,
        "byItselfMs": at_ms,
    })
}

fn json_partition(report: &Report, run: &Run) -> Value {
    let of = |why: Why| -> u64 { report.removed.iter().filter(|removed| removed.why == why).map(|removed| removed.bytes).sum() };
    let (compaction, gone) = (&report.compaction, &report.compaction.gone);
    json!({
        "type": "partition", "topic": report.chosen.topic, "partition": report.chosen.partition, "policy": report.chosen.policy,
        "dryRun": run.dry_run, "bytesBefore": report.before.bytes, "bytesAfter": report.after.bytes, "bytesFreed": report.freed(),
        "bytesFreedAnyway": report.freed_anyway, "bytesReserved": report.reserved,
        "segmentsBefore": report.before.segments, "segmentsAfter": report.after.segments,
        "freed": {
            "retention.ms": of(Why::Age), "retention.bytes": of(Why::Size), "log start": of(Why::LogStart),
            "compaction": compaction.bytes.0 as i64 - compaction.bytes.1 as i64, "beside": report.freed_beside(),
        },
        "compaction": {
            "rounds": compaction.rounds, "segmentsBefore": compaction.segments.0, "segmentsAfter": compaction.segments.1,
            "superseded": gone.superseded, "tombstones": gone.tombstones, "keyless": gone.keyless, "aborted": gone.aborted,
            "markers": gone.markers, "cleanTo": (compaction.rounds > 0).then_some(compaction.clean_to),
        },
        "rolled": report.rolled, "logStart": report.log_start, "nextMs": report.next_ms, "failures": report.failures,
    })
}

/// A time in ms since 1970, for people: UTC, to the second.
pub(super) fn time(at_ms: i64) -> String {
    let seconds = at_ms.div_euclid(1_000);
    let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Years that begin in March, in eras of 400: the leap day is the last one of its year.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, year) = if month < 10 { (month + 3, 400 * era + year_of_era) } else { (month - 9, 400 * era + year_of_era + 1) };
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC", of_day / 3_600, of_day / 60 % 60, of_day % 60)
}

#[cfg(test)]
mod tests {
    use super::time;

    #[test]
    fn times_are_shown_as_the_calendar_has_them() {
        let cases = [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_400_000, "2000-02-29 00:00:00 UTC"),
            (1_709_251_199_999, "2024-02-29 23:59:59 UTC"),
            (1_735_689_600_000, "2025-01-01 00:00:00 UTC"),
            (4_107_542_400_000, "2100-03-01 00:00:00 UTC"),
            (-1, "1969-12-31 23:59:59 UTC"),
        ];
        for (at_ms, expected) in cases {
            assert_eq!(time(at_ms), expected);
        }
    }
}
