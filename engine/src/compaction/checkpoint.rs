//! How far a log is compacted: `thalweg.compacted` in its directory, so that it goes when the partition goes, and each core
//! writes its own. A start goes on from there. It may be missing or too low: then more is cleaned again than need be.

use crate::{
    disk::{Disk, write_whole},
    partition::directory::read_text,
};
use std::{io, path::Path};

/// The file's name.
const FILE: &str = "thalweg.compacted";

/// The first offset that was not compacted yet; `None` if none was.
///
/// # Errors
/// The disk's.
pub async fn read_first_dirty<D: Disk>(disk: &D, directory: &Path) -> io::Result<Option<i64>> {
    let text = read_text(disk, &directory.join(FILE)).await?.unwrap_or_default();
    let mut lines = text.lines();
    if lines.next() != Some("version: 0") {
        return Ok(None);
    }
    Ok(lines.next().and_then(|line| line.strip_prefix("first dirty: ")?.parse().ok()))
}

/// Notes it, durably.
///
/// # Errors
/// The disk's.
pub async fn write_first_dirty<D: Disk>(disk: &D, directory: &Path, offset: i64) -> io::Result<()> {
    write_whole(disk, &directory.join(FILE), format!("version: 0\nfirst dirty: {offset}\n").as_bytes()).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        disk::sim::{Executor, SimDisk},
        segment::PartitionFiles,
    };

    #[test]
    fn it_is_read_again_and_no_start_takes_it_for_a_leftover() {
        let directory = Path::new("/table-0");
        let disk = SimDisk::new(1, &[directory]);
        Executor::new(&disk, 1).block_on(async move {
            assert_eq!(read_first_dirty(&disk, directory).await.expect("reads"), None);
            write_first_dirty(&disk, directory, 4_711).await.expect("writes");
            assert_eq!(read_first_dirty(&disk, directory).await.expect("reads"), Some(4_711));
            let files = PartitionFiles::list(&disk, directory).await.expect("lists");
            assert!(files.set_aside.is_empty() && files.orphans.is_empty());
        });
    }
}
