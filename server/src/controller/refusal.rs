//! Why an admin request is refused: Kafka's error and its words.

use kafka_protocol::{ResponseError, protocol::StrBytes};

/// A Kafka error with the message that Kafka gives with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code:?}: {message}")]
pub struct Refusal {
    /// The error.
    pub code: ResponseError,
    /// What tools show.
    pub message: String,
}

impl Refusal {
    /// A refusal.
    pub fn new(code: ResponseError, message: impl Into<String>) -> Refusal {
        Refusal { code, message: message.into() }
    }

    /// The topic is not there, in Kafka's words.
    #[must_use]
    pub fn unknown_topic() -> Refusal {
        Refusal::new(ResponseError::UnknownTopicOrPartition, "This server does not host this topic-partition.")
    }

    /// There is no topic with this id, in Kafka's words.
    #[must_use]
    pub fn unknown_topic_id() -> Refusal {
        Refusal::new(ResponseError::UnknownTopicId, "This server does not host this topic ID.")
    }

    /// The time that the client gave is over. What was decided goes on.
    #[must_use]
    pub fn timed_out() -> Refusal {
        Refusal::new(ResponseError::RequestTimedOut, "The request timed out; what it asked for may still happen.")
    }

    /// The broker is stopping.
    #[must_use]
    pub fn stopping() -> Refusal {
        Refusal::new(ResponseError::BrokerNotAvailable, "The broker is stopping.")
    }

    /// The error's number and message, as responses carry them.
    #[must_use]
    pub fn parts(self) -> (i16, Option<StrBytes>) {
        (self.code.code(), Some(StrBytes::from_string(self.message)))
    }
}
