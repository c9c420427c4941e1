//! Which names a topic may have (Kafka: `org.apache.kafka.common.internals.Topic`).

use super::Refusal;
use crate::catalog::Catalog;
use kafka_protocol::ResponseError;

/// The longest name, in characters.
pub const NAME_CHARS_MAX: usize = 249;

/// Checks a name by itself.
///
/// # Errors
/// INVALID_TOPIC_EXCEPTION, in Kafka's words.
pub fn validate(name: &str) -> Result<(), Refusal> {
    let refuse = |why: String| Err(Refusal::new(ResponseError::InvalidTopicException, format!("Topic name is invalid: {why}")));
    let allowed = |character: char| character.is_ascii_alphanumeric() || matches!(character, '.' | '_' | '-');
    match name {
        "" => refuse("the empty string is not allowed".into()),
        "." | ".." => refuse(format!("'{name}' is not allowed")),
        _ if name.chars().count() > NAME_CHARS_MAX => {
            refuse(format!("the length of '{name}' is longer than the max allowed length {NAME_CHARS_MAX}"))
        }
        _ if !name.chars().all(allowed) => {
            refuse(format!("'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"))
        }
        _ => Ok(()),
    }
}

/// A topic whose metrics would have the same name, since `.` and `_` are one there.
#[must_use]
pub fn collision<'a>(catalog: &'a Catalog, name: &str) -> Option<&'a str> {
    let unified = |name: &str| name.replace('.', "_");
    if !name.contains(['.', '_']) {
        return None;
    }
    let wanted = unified(name);
    catalog
        .topics()
        .map(|topic| topic.name.as_str())
        .find(|other| *other != name && other.len() == wanted.len() && unified(other) == wanted)
}
