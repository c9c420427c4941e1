//! Clients that speak something else than Kafka's protocol, known by their first bytes: read as the length of a request these
//! are a number that helps nobody.

/// What seems to be at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stranger {
    /// A record of a TLS handshake.
    #[error("a TLS client on a plaintext listener: there is no TLS here, connect with security.protocol=PLAINTEXT")]
    Tls,
    /// The beginning of an HTTP request.
    #[error("an HTTP client on a listener for Kafka's protocol: /metrics and /health are served on the address of --metrics")]
    Http,
    /// The beginning of SSH's version.
    #[error("an SSH client on a listener for Kafka's protocol")]
    Ssh,
}

/// Who sends these where the length of a request is due, if that is known.
#[must_use]
pub fn of(first: [u8; 4]) -> Option<Stranger> {
    match &first {
        [0x16, 0x03, ..] => Some(Stranger::Tls),
        b"GET " | b"HEAD" | b"POST" | b"PUT " | b"DELE" | b"OPTI" | b"PATC" | b"CONN" | b"TRAC" | b"PRI " => Some(Stranger::Http),
        b"SSH-" => Some(Stranger::Ssh),
        _ => None,
    }
}
