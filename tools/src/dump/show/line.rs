//! One line of output, before it has a form.

use serde_json::Value as Json;

/// One thing that was found, with its fields by Kafka's names and in Kafka's order.
#[derive(Debug, Default)]
pub(crate) struct Line {
    /// What it is: `type` in JSON.
    pub(crate) kind: &'static str,
    /// What Kafka's line begins with.
    pub(crate) prefix: &'static str,
    /// Its fields.
    pub(crate) fields: Vec<(&'static str, Value)>,
}

/// A field's value.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// A number.
    Int(i64),
    /// A number of bytes or the like.
    Count(u64),
    /// Yes or no.
    Bool(bool),
    /// Text on one line.
    Text(String),
    /// A number that may be missing, as Java prints it.
    OptionalLong(Option<i64>),
    /// A timestamp in ms: Kafka names it after its type.
    Time { log_append: bool, ms: i64 },
    /// Names in brackets.
    List(Vec<String>),
    /// Something that JSON has in its own form; the text is Kafka's, on one line.
    Own { text: String, json: Json },
    /// Something that takes several lines behind this one.
    Block { text: String, json: Json },
    /// For JSON alone.
    Hidden(Json),
    /// For all but JSON.
    Spoken(String),
}

impl Line {
    pub(crate) fn new(kind: &'static str) -> Line {
        Line { kind, ..Line::default() }
    }

    pub(crate) fn prefixed(kind: &'static str, prefix: &'static str) -> Line {
        Line { kind, prefix, fields: Vec::new() }
    }

    pub(crate) fn int(mut self, name: &'static str, value: impl Into<i64>) -> Line {
        self.fields.push((name, Value::Int(value.into())));
        self
    }

    pub(crate) fn count(mut self, name: &'static str, value: u64) -> Line {
        self.fields.push((name, Value::Count(value)));
        self
    }

    pub(crate) fn bool(mut self, name: &'static str, value: bool) -> Line {
        self.fields.push((name, Value::Bool(value)));
        self
    }

    pub(crate) fn text(mut self, name: &'static str, value: impl Into<String>) -> Line {
        self.fields.push((name, Value::Text(value.into())));
        self
    }

    pub(crate) fn with(mut self, name: &'static str, value: Value) -> Line {
        self.fields.push((name, value));
        self
    }
}
