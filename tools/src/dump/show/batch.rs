//! Batches and records of a `.log`.

use super::{
    Form, Line, Look, Printer, Shown, Value,
    text::{Hex, cut, text},
};
use crate::dump::{
    Outcome, Request,
    decode::{Decoded, Decoding},
    journal::{Journals, LogEnd, Opened, open},
    read::{Batch, BytesAt, Doubt, End, Seen, Tail, start, walk},
    verify::is_in_motion,
};
use anyhow::Result;
use engine::batch::{ControlRecord, DECOMPRESSED_BYTES_MAX, Header, Record, RecordError, Records, payload, sequence_after};
use serde_json::{Value as Json, json};
use std::path::Path;

pub(super) fn print(path: &Path, base_offset: i64, request: &Request, journals: &Journals, out: &mut Printer<'_>) -> Result<Outcome> {
    let mut from = start(path, base_offset, &request.select)?;
    let decoding = Decoding::of(request.decoder, path);
    out.heading(&format!("Log starting offset: {base_offset}"))?;
    let mut worst = Outcome::Clean;
    let mut left = request.select.batches_max.unwrap_or(u64::MAX);
    if left == 0 {
        return Ok(worst);
    }
    let mut doubt = Doubt::of(path);
    let mut place = Place::default();
    loop {
        let mut again = false;
        let Opened { mut file, unknown, end: log_end } = open(path, base_offset, None, request, journals)?;
        place.begins(file.journal().map(|(journal, _)| journal), unknown, out)?;
        let end = walk(&mut file, from, base_offset, |seen| {
            let position = seen.position();
            if seen.is_bad() {
                (again, from) = (doubt.again(position), position);
                if again {
                    return Ok(false);
                }
            }
            let bad = log_end.is_damage(&seen, || is_in_motion(path, base_offset, position, request, journals));
            worst = worst.max(if bad { Outcome::Corrupt } else { Outcome::Clean });
            match seen {
                Seen::Batch(batch) if request.select.is_past(batch.header.base_offset()) => return Ok(false),
                Seen::Batch(batch) if bad || batch.wrong.is_none() => {
                    let shown = of_batch(&batch, request, decoding, &mut place, out)?;
                    left -= u64::from(shown);
                    if shown && !bad {
                        *out.last_offset() = Some(batch.header.last_offset());
                    }
                }
                Seen::Damage { from, to, stop } if bad => {
                    out.damage(Some(from), &format!("Found {} invalid bytes: position {from}: {stop}", to - from))?;
                }
                _ => out.note(Some(position), &format!("What is at position {position} is not written yet, or is in the journal"))?,
            }
            Ok(left > 0)
        })?;
        match end {
            _ if again => {}
            Some(end) => {
                let moves = log_end == LogEnd::Elsewhere || is_in_motion(path, base_offset, end.position, request, journals);
                return Ok(worst.max(of_end(&file, &end, moves, out)?));
            }
            None => return Ok(worst),
        }
    }
}

/// Where the batches that are shown come from: it is told where that changes.
#[derive(Default)]
struct Place {
    journal: Option<String>,
    unknown: Option<String>,
    in_journal: bool,
}

impl Place {
    fn begins(&mut self, journal: Option<&Path>, unknown: Option<String>, out: &mut Printer<'_>) -> Result<()> {
        self.journal = journal.map(|path| path.display().to_string());
        if let Some(why) = unknown.as_ref().filter(|_| self.unknown.is_none()) {
            out.note(None, &format!("What is in the journal only is not shown: {why}"))?;
        }
        self.unknown = unknown;
        Ok(())
    }

    fn at(&mut self, batch: &Batch<'_>, out: &mut Printer<'_>) -> Result<()> {
        if batch.in_journal == self.in_journal {
            return Ok(());
        }
        self.in_journal = batch.in_journal;
        match &self.journal {
            Some(journal) if self.in_journal => out.heading(&format!("-- in the journal, {journal}, and not in the segment yet: --")),
            _ => out.heading("-- in the segment: --"),
        }
    }
}

/// What is said of the end; an end that `moves`, or may be in the journal, is no damage.
fn of_end(file: &BytesAt, end: &End, moves: bool, out: &mut Printer<'_>) -> Result<Outcome> {
    let position = end.position;
    let allocated = |rest: u64| format!("{rest} bytes from position {position} on are allocated and not written");
    if let Some((_, file_bytes)) = file.journal() {
        if position < end.size {
            out.damage(
                Some(position),
                &format!("The journal says that batches reach to position {}; there is none at {position}", end.size),
            )?;
            return Ok(Outcome::Corrupt);
        }
        if file_bytes > position {
            out.note(Some(position), &allocated(file_bytes - position))?;
        }
        return Ok(Outcome::Clean);
    }
    let rest = end.size - position;
    match end.tail {
        Tail::Whole => {}
        Tail::Allocated => out.note(Some(position), &allocated(rest))?,
        Tail::Unfinished => {
            let text = "is not whole here yet: its end is in the journal, is being written, or was cut off";
            out.note(Some(position), &format!("The batch at position {position} {text}"))?;
        }
        Tail::Garbage(stop) => {
            let text = format!("Found {rest} invalid bytes at the end of {}: position {position}: {stop}", file.path().display());
            if moves {
                out.note(Some(position), &format!("{text}: not written yet, or in the journal"))?;
            } else {
                out.damage(Some(position), &text)?;
                return Ok(Outcome::TornTail);
            }
        }
    }
    Ok(Outcome::Clean)
}

/// Prints a batch that is wanted; whether it was.
fn of_batch(batch: &Batch<'_>, request: &Request, decoding: Decoding, place: &mut Place, out: &mut Printer<'_>) -> Result<bool> {
    let select = &request.select;
    if !select.batch(&batch.header) {
        return Ok(false);
    }
    if !request.records && !select.needs_records() {
        place.at(batch, out)?;
        return out.line(&batch_line(batch)).map(|()| true);
    }
    let payload = payload(&batch.header, batch.bytes, DECOMPRESSED_BYTES_MAX);
    let mut printed = !select.needs_records();
    if printed {
        place.at(batch, out)?;
        out.line(&batch_line(batch))?;
    }
    let payload = match &payload {
        Ok(payload) => payload,
        Err(error) => {
            let said = format!("| {error}");
            match error {
                RecordError::TooLarge { .. } => out.note(Some(batch.position), &said)?,
                _ => out.damage(Some(batch.position), &said)?,
            }
            return Ok(printed);
        }
    };
    for record in Records::new(&batch.header, payload) {
        match record {
            Ok(record) if select.record(&batch.header, &record) => {
                if !printed {
                    place.at(batch, out)?;
                    out.line(&batch_line(batch))?;
                }
                printed = true;
                if request.records {
                    out.line(&record_line(&batch.header, &record, out.look(), decoding))?;
                }
            }
            Ok(_) => {}
            Err(error) => out.damage(Some(batch.position), &format!("| {error}"))?,
        }
    }
    Ok(printed)
}

fn batch_line(batch: &Batch<'_>) -> Line {
    let header = &batch.header;
    let codec = header.codec().map_or_else(|id| format!("unknown ({id})"), |codec| codec.name().to_owned());
    Line::new("batch")
        .int("baseOffset", header.base_offset())
        .int("lastOffset", header.last_offset())
        .int("count", header.record_count())
        .int("baseSequence", header.base_sequence())
        .int("lastSequence", header.last_sequence())
        .int("producerId", header.producer_id())
        .int("producerEpoch", header.producer_epoch())
        .int("partitionLeaderEpoch", header.leader_epoch())
        .bool("isTransactional", header.is_transactional())
        .bool("isControl", header.is_control())
        .with("deleteHorizonMs", Value::OptionalLong(header.delete_horizon()))
        .count("position", batch.position)
        .with("maxTimestamp", Value::Time { log_append: header.is_log_append_time(), ms: header.max_timestamp() })
        .count("size", header.size() as u64)
        .int("magic", header.magic())
        .text("compresscodec", codec)
        .int("crc", header.crc())
        .bool("isvalid", batch.wrong.is_none())
        .with("inJournal", Value::Hidden(json!(batch.in_journal)))
}

fn record_line(header: &Header, record: &Record<'_>, look: &Look, decoding: Decoding) -> Line {
    let size = |bytes: Option<&[u8]>| bytes.map_or(-1, |bytes| bytes.len() as i64);
    let sequence = if header.base_sequence() < 0 { -1 } else { sequence_after(header.base_sequence(), record.offset_delta) };
    let keys = record.headers.iter().map(|(key, _)| Shown(cut(key, look.bytes_max).0).to_string()).collect();
    let mut line = Line::prefixed("record", "| ")
        .int("offset", record.offset(header))
        .with("timestamp", Value::Time { log_append: header.is_log_append_time(), ms: record.timestamp(header) })
        .int("keySize", size(record.key))
        .int("valueSize", size(record.value))
        .int("sequence", sequence)
        .with("headerKeys", Value::List(keys));
    if look.headers {
        line = line.with("headers", header_values(record, look));
    }
    match ControlRecord::of(record).filter(|_| header.is_control()) {
        Some(ControlRecord::Abort { coordinator_epoch }) => line.text("endTxnMarker", "ABORT").int("coordinatorEpoch", coordinator_epoch),
        Some(ControlRecord::Commit { coordinator_epoch }) => line.text("endTxnMarker", "COMMIT").int("coordinatorEpoch", coordinator_epoch),
        Some(ControlRecord::Other(kind)) => line.int("controlType", kind),
        None => match decoding.decode(record) {
            Some(Decoded { key, value }) => {
                let own = |json: Json| Value::Own { text: json.to_string(), json };
                let value = value.map_or_else(|| Value::Own { text: "<DELETE>".to_owned(), json: Json::Null }, own);
                line.with("key", own(key)).with("payload", value)
            }
            None => part(
                part(line, "key", "keyFormat", record.key, look.keys, look),
                "payload",
                "payloadFormat",
                record.value,
                look.values,
                look,
            ),
        },
    }
}

/// A key or a value, and for JSON in which form it is.
fn part(line: Line, name: &'static str, format: &'static str, bytes: Option<&[u8]>, form: Form, look: &Look) -> Line {
    let Some(bytes) = bytes else { return line.with(name, Value::Hidden(Json::Null)) };
    if form == Form::Json
        && let Ok(json) = serde_json::from_slice::<Json>(bytes)
    {
        let pretty = serde_json::to_string_pretty(&json).unwrap_or_default();
        return line.with(name, Value::Block { text: pretty, json }).with(format, Value::Hidden(json!("json")));
    }
    let (shown, is_cut) = cut(bytes, look.bytes_max);
    let as_text = text(shown).filter(|_| form != Form::Hex);
    let json = as_text.map_or_else(|| json!(Hex(shown).to_string()), |text| json!(text));
    let mut spoken = if as_text.is_some() { Shown(shown).to_string() } else { Hex(shown).to_string() };
    if is_cut {
        spoken.push('…');
    }
    let line = line.with(name, Value::Own { text: spoken, json });
    line.with(format, Value::Hidden(json!(if as_text.is_some() { "text" } else { "hex" })))
}

/// All headers, in order; a key may come more than once.
fn header_values(record: &Record<'_>, look: &Look) -> Value {
    let shown = |bytes: &[u8]| Shown(cut(bytes, look.bytes_max).0).to_string();
    let pairs: Vec<(String, Option<String>)> = record.headers.iter().map(|(key, value)| (shown(key), value.map(shown))).collect();
    let spoken = |(key, value): &(String, Option<String>)| format!("{key}={}", value.as_deref().unwrap_or("null"));
    Value::Own {
        text: format!("[{}]", pairs.iter().map(spoken).collect::<Vec<_>>().join(",")),
        json: pairs.iter().map(|(key, value)| json!({"key": key, "value": value})).collect(),
    }
}
