//! What output may look like, and a reader that has seen enough of it.

use anyhow::Result;
use std::io;

/// Nobody wants colours: <https://no-color.org>.
pub(crate) fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// What came of writing, where it is no error that the reader of a pipe has gone.
pub(crate) fn unless_closed(written: Result<()>) -> Result<()> {
    match written {
        Err(error) if is_broken_pipe(&error) => Ok(()),
        other => other,
    }
}

/// True if the reader of a pipe has gone.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let direct = error.downcast_ref::<io::Error>().map(io::Error::kind);
    let of_json = error.downcast_ref::<serde_json::Error>().and_then(serde_json::Error::io_error_kind);
    direct.or(of_json) == Some(io::ErrorKind::BrokenPipe)
}
