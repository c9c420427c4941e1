//! Gives lines the form that is asked for.

use super::{Format, Line, Look, Value};
use crate::dump::Outcome;
use anyhow::Result;
use serde_json::{Map, Value as Json, json};
use std::{collections::HashMap, io::Write, path::Path};

/// The names of fields.
const DIM: &str = "\x1b[2m";
/// Offsets and positions: what one looks for.
const CYAN: &str = "\x1b[36m";
/// Keys and values.
const GREEN: &str = "\x1b[32m";
/// What is set, and what is remarkable.
const YELLOW: &str = "\x1b[33m";
/// What is wrong.
const RED: &str = "\x1b[1;31m";
const BOLD: &str = "\x1b[1m";
const PLAIN: &str = "\x1b[0m";

/// Writes lines to a sink.
pub(crate) struct Printer<'a> {
    look: &'a Look,
    out: &'a mut dyn Write,
    file: String,
    batches: u64,
    last_offset: Option<i64>,
    /// How wide each column has been so far, by kind of line and name.
    widths: HashMap<(&'static str, &'static str), usize>,
}

impl<'a> Printer<'a> {
    pub(crate) fn new(look: &'a Look, out: &'a mut dyn Write) -> Printer<'a> {
        Printer { look, out, file: String::new(), batches: 0, last_offset: None, widths: HashMap::new() }
    }

    pub(crate) fn look(&self) -> &'a Look {
        self.look
    }

    pub(crate) fn is_json(&self) -> bool {
        self.look.format == Format::Json
    }

    /// Batches printed so far.
    pub(crate) fn batches(&self) -> u64 {
        self.batches
    }

    /// The last offset of the log that is printed, up to which all that is wanted of it was.
    pub(crate) fn last_offset(&mut self) -> &mut Option<i64> {
        &mut self.last_offset
    }

    /// What follows is of this file.
    pub(crate) fn file(&mut self, path: &Path) -> Result<()> {
        self.file = path.display().to_string();
        match self.look.format {
            Format::Json => Ok(()),
            Format::Kafka => Ok(writeln!(self.out, "Dumping {}", self.file)?),
            Format::Aligned => {
                let (on, off) = self.paint(BOLD);
                Ok(writeln!(self.out, "{on}Dumping {}{off}", self.file)?)
            }
        }
    }

    /// What follows is of this path, without a heading.
    pub(crate) fn at(&mut self, path: &Path) {
        self.file = path.display().to_string();
    }

    /// Text that has no fields: a remark about the file. JSON has it as `{"type":"note"}`.
    pub(crate) fn note(&mut self, position: Option<u64>, text: &str) -> Result<()> {
        match self.look.format {
            Format::Json => self.object(json!({"type": "note", "position": position, "text": text})),
            Format::Kafka => Ok(writeln!(self.out, "{text}")?),
            Format::Aligned => {
                let (on, off) = self.paint(YELLOW);
                Ok(writeln!(self.out, "{on}{text}{off}")?)
            }
        }
    }

    /// As [`Printer::note`], of something that is wrong: `{"type":"damage"}`.
    pub(crate) fn damage(&mut self, position: Option<u64>, text: &str) -> Result<()> {
        match self.look.format {
            Format::Json => self.object(json!({"type": "damage", "position": position, "text": text})),
            Format::Kafka => Ok(writeln!(self.out, "{text}")?),
            Format::Aligned => {
                let (on, off) = self.paint(RED);
                Ok(writeln!(self.out, "{on}{text}{off}")?)
            }
        }
    }

    /// As [`Printer::heading`], painted as good, doubtful or bad.
    pub(crate) fn painted(&mut self, outcome: Outcome, text: &str) -> Result<()> {
        let colour = match outcome {
            Outcome::Clean => GREEN,
            Outcome::TornTail => YELLOW,
            Outcome::Corrupt => RED,
        };
        let (on, off) = self.paint(colour);
        if self.is_json() { Ok(()) } else { Ok(writeln!(self.out, "{on}{text}{off}")?) }
    }

    /// Text that is for people only, and says nothing that is not in other objects.
    pub(crate) fn heading(&mut self, text: &str) -> Result<()> {
        if self.is_json() { Ok(()) } else { Ok(writeln!(self.out, "{text}")?) }
    }

    /// One thing.
    pub(crate) fn line(&mut self, line: &Line) -> Result<()> {
        self.batches += u64::from(line.kind == "batch");
        match self.look.format {
            Format::Json => self.object(object_of(line)),
            Format::Kafka => self.kafka(line),
            Format::Aligned => self.aligned(line),
        }
    }

    /// A JSON object as it is; its file is added.
    pub(crate) fn object(&mut self, mut object: Json) -> Result<()> {
        if let Json::Object(fields) = &mut object {
            fields.insert("file".to_owned(), json!(self.file));
        }
        serde_json::to_writer(&mut *self.out, &object)?;
        Ok(writeln!(self.out)?)
    }

    fn kafka(&mut self, line: &Line) -> Result<()> {
        write!(self.out, "{}", line.prefix)?;
        let mut blocks = Vec::new();
        for (at, (name, value)) in line.fields.iter().filter(|(_, value)| is_shown(value)).enumerate() {
            if let Value::Block { text, .. } = value {
                blocks.push(text);
            }
            let (name, text) = named(name, value);
            write!(self.out, "{}{name}: {text}", if at > 0 { " " } else { "" })?;
        }
        writeln!(self.out)?;
        self.blocks(&blocks)
    }

    fn aligned(&mut self, line: &Line) -> Result<()> {
        write!(self.out, "{}", line.prefix)?;
        let mut blocks = Vec::new();
        let shown: Vec<_> = line.fields.iter().filter(|(_, value)| is_shown(value)).collect();
        for (at, (key, value)) in shown.iter().enumerate() {
            let (name, text) = named(key, value);
            if let Value::Block { text, .. } = value {
                blocks.push(text);
            }
            let chars = text.chars().count();
            let width = self.widths.entry((line.kind, key)).or_default();
            *width = (*width).max(chars);
            let padding = if at + 1 == shown.len() || is_long(value) { 0 } else { *width - chars };
            let (dim, off) = self.paint(DIM);
            let (on, _) = self.paint(colour(key, value));
            write!(self.out, "{dim}{name}:{off} {on}{text}{off}{:padding$}{}", "", if at + 1 == shown.len() { "" } else { "  " })?;
        }
        writeln!(self.out)?;
        self.blocks(&blocks)
    }

    fn blocks(&mut self, blocks: &[&String]) -> Result<()> {
        for text in blocks.iter().flat_map(|block| block.lines()) {
            writeln!(self.out, "|     {text}")?;
        }
        Ok(())
    }

    fn paint(&self, colour: &'static str) -> (&'static str, &'static str) {
        if self.look.colour && !colour.is_empty() { (colour, PLAIN) } else { ("", "") }
    }
}

fn is_shown(value: &Value) -> bool {
    !matches!(value, Value::Hidden(_))
}

fn is_long(value: &Value) -> bool {
    matches!(value, Value::Own { .. } | Value::Block { .. } | Value::List(_))
}

/// Kafka's name of a field, and its value as text.
fn named(name: &'static str, value: &Value) -> (&'static str, String) {
    let text = match value {
        Value::Int(number) => number.to_string(),
        Value::Count(number) => number.to_string(),
        Value::Bool(yes) => yes.to_string(),
        Value::Text(text) | Value::Spoken(text) | Value::Own { text, .. } => text.clone(),
        Value::OptionalLong(Some(number)) => format!("OptionalLong[{number}]"),
        Value::OptionalLong(None) => "OptionalLong.empty".to_owned(),
        Value::Time { log_append, ms } => return (time_name(*log_append), ms.to_string()),
        Value::List(names) => format!("[{}]", names.join(",")),
        Value::Block { .. } | Value::Hidden(_) => String::new(),
    };
    (name, text)
}

fn time_name(log_append: bool) -> &'static str {
    if log_append { "LogAppendTime" } else { "CreateTime" }
}

fn object_of(line: &Line) -> Json {
    let mut fields = Map::new();
    fields.insert("type".to_owned(), json!(line.kind));
    for (name, value) in &line.fields {
        let value = match value {
            Value::Int(number) => json!(number),
            Value::Count(number) => json!(number),
            Value::Bool(yes) => json!(yes),
            Value::Text(text) => json!(text),
            Value::OptionalLong(number) => json!(number),
            Value::Time { log_append, ms } => {
                fields.insert("timestampType".to_owned(), json!(time_name(*log_append)));
                json!(ms)
            }
            Value::List(names) => json!(names),
            Value::Spoken(_) => continue,
            Value::Own { json, .. } | Value::Block { json, .. } | Value::Hidden(json) => json.clone(),
        };
        fields.insert((*name).to_owned(), value);
    }
    Json::Object(fields)
}

fn colour(name: &str, value: &Value) -> &'static str {
    match (name, value) {
        ("isvalid", Value::Bool(false)) => RED,
        (_, Value::Bool(true)) if name != "isvalid" => YELLOW,
        ("baseOffset" | "lastOffset" | "offset" | "position", _) => CYAN,
        ("key" | "payload", _) => GREEN,
        _ => "",
    }
}
