//! What the filesystem under a directory can promise, best effort, for the screen of a start.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

/// Facts about a directory's filesystem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filesystem {
    /// Its name as in `/proc/self/mountinfo`: `ext4`, `xfs`.
    pub name: String,
    /// Files can be opened with O_DIRECT.
    pub direct: bool,
    /// It journals (or copies on write) its metadata, so that names and sizes survive a power cut. `None` if unknown.
    pub journaled: Option<bool>,
}

/// Looks at the filesystem of an existing, writable directory. Makes and removes a small file in it.
#[must_use]
pub fn filesystem(directory: &Path) -> Filesystem {
    let (name, source) = mount(directory).unwrap_or_else(|| ("unknown".into(), String::new()));
    let journaled = match name.as_str() {
        "xfs" | "btrfs" | "zfs" | "ext3" | "jfs" | "reiserfs" | "f2fs" | "bcachefs" => Some(true),
        "ext4" => ext4_journals(directory, &source),
        "ext2" | "vfat" | "exfat" | "tmpfs" | "ramfs" => Some(false),
        _ => None,
    };
    Filesystem { name, direct: has_direct(directory), journaled }
}

fn has_direct(directory: &Path) -> bool {
    let path = directory.join(".o_direct-probe");
    let opened = OpenOptions::new().write(true).create(true).truncate(true).custom_flags(libc::O_DIRECT).open(&path);
    let _ = fs::remove_file(&path);
    opened.is_ok()
}

/// The type and source of the mount that holds a directory.
fn mount(directory: &Path) -> Option<(String, String)> {
    let device = fs::metadata(directory).ok()?.dev();
    let (major, minor) = (libc::major(device), libc::minor(device));
    let table = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let found =
        |line: &str| parse_mount(line).filter(|mount| mount.0 == format!("{major}:{minor}")).map(|mount| (mount.2, mount.1, mount.3));
    let absolute = fs::canonicalize(directory).ok()?;
    if let Some((kind, _, source)) = table.lines().find_map(found) {
        return Some((kind, source));
    }
    // btrfs gives each subvolume a device number of its own: then the longest mount point above the directory counts.
    let (_, kind, source) = table
        .lines()
        .filter_map(parse_mount)
        .filter(|(_, point, _, _)| absolute.starts_with(point))
        .map(|(_, point, kind, source)| (point.len(), kind, source))
        .max_by_key(|(length, _, _)| *length)?;
    Some((kind, source))
}

/// Device number, mount point, type and source of one line of `mountinfo`.
fn parse_mount(line: &str) -> Option<(String, String, String, String)> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ').skip(2);
    let (device, point) = (left.next()?, left.nth(1)?);
    let mut right = right.split(' ');
    Some((device.into(), point.into(), right.next()?.into(), right.next()?.into()))
}

/// A mounted ext4 with a journal has a `jbd2` directory of its device in /proc.
fn ext4_journals(directory: &Path, source: &str) -> Option<bool> {
    if !Path::new("/proc/fs/ext4").is_dir() {
        return None;
    }
    let device = device_name(directory).or_else(|| Some(source.strip_prefix("/dev/")?.replace('/', "!")))?;
    if !Path::new("/proc/fs/ext4").join(&device).exists() {
        return None;
    }
    let prefix = format!("{device}-");
    let journals =
        fs::read_dir("/proc/fs/jbd2").into_iter().flatten().flatten().any(|entry| entry.file_name().to_string_lossy().starts_with(&prefix));
    Some(journals)
}

/// The kernel's name of the block device under a directory, from /sys.
fn device_name(directory: &Path) -> Option<String> {
    let device = fs::metadata(directory).ok()?.dev();
    let link = fs::read_link(format!("/sys/dev/block/{}:{}", libc::major(device), libc::minor(device))).ok()?;
    Some(link.file_name()?.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo_is_understood() {
        let line = "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue";
        let expected = ("98:0".to_string(), "/mnt2".to_string(), "ext3".to_string(), "/dev/root".to_string());
        assert_eq!(parse_mount(line), Some(expected));
    }

    #[test]
    fn the_filesystem_of_the_build_directory_is_known() {
        let facts = filesystem(Path::new(env!("CARGO_MANIFEST_DIR")));
        assert_ne!(facts.name, "unknown", "{facts:?}");
        assert!(!Path::new(env!("CARGO_MANIFEST_DIR")).join(".o_direct-probe").exists());
    }

    #[test]
    fn memory_does_not_survive_a_power_cut() {
        let shared = Path::new("/dev/shm");
        if mount(shared).is_some_and(|(kind, _)| kind == "tmpfs") {
            assert_eq!(filesystem(shared).journaled, Some(false));
        }
    }
}
