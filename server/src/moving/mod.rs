//! Moving data between Kafka and Thalweg, offline: `thalweg export` and `thalweg import`.
//!
//! Both read a stopped broker's directory, whose lock they hold meanwhile and of which they change nothing, and copy partitions
//! batch by batch: every CRC is checked, indexes are made anew. [`export`] lays partitions out so that a Kafka can take them
//! over, with the commands that do it there. [`import`] copies a Kafka's partitions beside the data directory's own, and one
//! start of the engine commits all of them, with their configs: before it nothing is to be seen of them, so a run that is cut
//! off is repeated from its beginning.
//!
//! * `copy`, `walk`: one partition. * `groups`: offsets from `__consumer_offsets`. * `select`: which topics. * `files`, `space`: what
//!   every long copy needs.

mod copy;
pub mod export;
mod files;
mod groups;
pub mod import;
mod select;
mod space;
mod walk;

use crate::{
    config::{Cli, Config},
    lock::Lock,
};
use std::{io, path::Path};

/// The broker's settings. What the operator should know of them is told, as by its start.
fn settings(cli: &Cli) -> anyhow::Result<Config> {
    crate::start::init_log(Some("warn"))?;
    let config = Config::resolve(cli)?;
    config.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    Ok(config)
}

/// The lock of a source, of which nothing is changed.
fn lock(source: &Path) -> anyhow::Result<Lock> {
    Lock::shared(source, "stop it first (SIGTERM), so that all of its data is in that directory")
}

/// What the failure of an operation on a file means, and what to do.
fn failed(what: &str, path: &Path, error: io::Error) -> anyhow::Error {
    let remedy = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            ": the disk is full. Make room and run this again; it begins anew, and nothing of the source was changed"
        }
        io::ErrorKind::PermissionDenied => ": run this as the user of that broker",
        io::ErrorKind::ReadOnlyFilesystem => ": it is mounted read-only",
        _ => "",
    };
    anyhow::anyhow!("can't {what} {} ({error}){remedy}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_with_what_to_do() {
        let said = failed("write", Path::new("/mnt/out/0.log"), io::Error::from_raw_os_error(libc::ENOSPC)).to_string();
        assert!(said.contains("/mnt/out/0.log") && said.contains("the disk is full. Make room and run this again"), "{said}");
        let said = space::check(Path::new("/no/such/place"), u64::MAX).unwrap_err().to_string();
        assert!(said.contains("Nothing was written"), "{said}");
    }
}
