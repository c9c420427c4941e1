//! One thing that is wrong.

use super::Refusal;
use crate::dump::{
    Outcome,
    show::{Line, Printer, Value},
};
use anyhow::Result;
use serde_json::json;
use std::path::{Path, PathBuf};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Nothing is wrong: worth knowing.
    Note,
    /// The end of a log is not whole.
    Torn,
    /// Damage.
    Corrupt,
}

impl Level {
    pub(crate) fn outcome(self) -> Outcome {
        match self {
            Level::Note => Outcome::Clean,
            Level::Torn => Outcome::TornTail,
            Level::Corrupt => Outcome::Corrupt,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Level::Note => "note",
            Level::Torn => "torn",
            Level::Corrupt => "corrupt",
        }
    }
}

/// What repair does about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fix {
    /// Takes bytes out of the log, up to its end if `to` is none. What `is_framed` is one batch by its header, and whoever goes by
    /// headers passes it.
    Remove { from: u64, to: Option<u64>, is_framed: bool },
    /// Sets what no CRC covers in the header of a batch.
    Header { position: u64, base_offset: i64, leader_epoch: i32 },
    /// Builds the indexes of the segment again.
    Indexes,
    /// Puts the file aside: the broker makes it anew, or can do without.
    Aside,
    /// Writes the leader epochs that the batches have.
    Epochs,
}

/// One thing that is wrong, where it is, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) level: Level,
    pub(crate) file: PathBuf,
    /// Where in the file.
    pub(crate) position: Option<u64>,
    /// At which offset of the log.
    pub(crate) offset: Option<i64>,
    pub(crate) what: String,
    pub(crate) action: String,
    pub(crate) fix: Option<Fix>,
    /// Why repair doesn't do that.
    pub(crate) refusal: Option<Refusal>,
}

impl Finding {
    pub(crate) fn new(level: Level, file: &Path, what: impl Into<String>) -> Finding {
        let (position, offset, action, fix) = (None, None, String::new(), None);
        Finding { level, file: file.to_owned(), position, offset, what: what.into(), action, fix, refusal: None }
    }

    pub(crate) fn at(mut self, position: u64) -> Finding {
        self.position = Some(position);
        self
    }

    pub(crate) fn offset(mut self, offset: i64) -> Finding {
        self.offset = Some(offset);
        self
    }

    pub(crate) fn action(mut self, action: impl Into<String>) -> Finding {
        self.action = action.into();
        self
    }

    pub(crate) fn fix(mut self, fix: Fix) -> Finding {
        self.fix = Some(fix);
        self
    }

    /// True if repair does something about it.
    pub(crate) fn is_repairable(&self) -> bool {
        self.fix.is_some() && self.refusal.is_none()
    }

    /// The same thing, found again.
    pub(crate) fn is_same(&self, other: &Finding) -> bool {
        (&self.file, self.position, &self.what) == (&other.file, other.position, &other.what)
    }

    pub(crate) fn print(&self, out: &mut Printer<'_>) -> Result<()> {
        out.at(&self.file);
        if out.is_json() {
            let mut line = Line::new("finding").text("level", self.level.name());
            line = line.with("position", Value::Hidden(json!(self.position))).with("offset", Value::Hidden(json!(self.offset)));
            line = line.text("what", self.what.clone()).text("action", self.action.clone());
            return out.line(&line.bool("repairable", self.is_repairable()));
        }
        let mut place = self.file.display().to_string();
        if let Some(position) = self.position {
            place.push_str(&format!(" position {position}"));
        }
        if let Some(offset) = self.offset {
            place.push_str(&format!(" offset {offset}"));
        }
        out.painted(self.level.outcome(), &format!("{}: {place}: {}", self.level.name(), self.what))?;
        if self.action.is_empty() { Ok(()) } else { out.heading(&format!("    {}", self.action)) }
    }
}
