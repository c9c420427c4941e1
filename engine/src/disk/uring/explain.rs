//! What an operator is told when the kernel refuses: the likely cause, and the fix.

use std::{fs, io, path::Path};

/// The oldest kernel with everything that the storage ring needs (Debian 12).
const KERNEL_MIN: (u32, u32) = (6, 1);

/// Fails with a message if the running kernel is too old.
pub(super) fn check_kernel() -> io::Result<()> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    match parse_release(&release) {
        Some(version) if version < KERNEL_MIN => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!(
                "the kernel is {release}, and the storage ring needs {}.{} or newer (Debian 12, Ubuntu 24.04, RHEL 10): upgrade the kernel",
                KERNEL_MIN.0, KERNEL_MIN.1
            ),
        )),
        _ => Ok(()),
    }
}

fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Why a ring could not be made.
pub(super) fn no_ring(error: io::Error) -> io::Error {
    let sysctl = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    let advice = match (error.raw_os_error(), sysctl.trim()) {
        (Some(libc::EPERM | libc::EACCES), "1" | "2") => {
            format!("io_uring is disabled by sysctl kernel.io_uring_disabled={}: allow it with `sysctl -w kernel.io_uring_disabled=0`, and in /etc/sysctl.d for the next boot", sysctl.trim())
        }
        (Some(libc::EPERM | libc::EACCES), _) => "io_uring is forbidden here, most likely by a container's seccomp profile: with Docker or Podman, start with a profile that allows io_uring_setup, io_uring_enter and io_uring_register (or `--security-opt seccomp=unconfined`)".into(),
        (Some(libc::ENOSYS), _) => "this kernel is built without io_uring, or a sandbox (gVisor) hides it: run on a Linux kernel of 6.1 or newer with CONFIG_IO_URING".into(),
        (Some(libc::EINVAL), _) => "this kernel does not know SINGLE_ISSUER and DEFER_TASKRUN: upgrade to 6.1 or newer".into(),
        (Some(libc::ENOMEM), _) => "memory for the ring was refused: raise the memlock limit (`ulimit -l`, LimitMEMLOCK= in the unit)".into(),
        (Some(libc::EMFILE | libc::ENFILE), _) => "the limit of open files is reached: raise it (`ulimit -n`, LimitNOFILE= in the unit)".into(),
        _ => "the storage ring could not be made".into(),
    };
    io::Error::new(error.kind(), format!("io_uring: {error}; {advice}"))
}

/// What opening a file for direct I/O ran into.
pub(super) fn no_open(path: &Path, error: io::Error, direct: bool) -> io::Error {
    if direct && error.raw_os_error() == Some(libc::EINVAL) {
        return io::Error::new(
            io::ErrorKind::Unsupported,
            format!(
                "{}: the filesystem does not support O_DIRECT; put the data on XFS or ext4, or start with --allow-buffered if durability and latency don't matter",
                path.display()
            ),
        );
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_of_distributions_are_understood() {
        assert_eq!(parse_release("6.1.0-18-amd64"), Some((6, 1)));
        assert_eq!(parse_release("6.18.44"), Some((6, 18)));
        assert_eq!(parse_release("5.15"), Some((5, 15)));
        assert_eq!(parse_release("weird"), None);
    }

    #[test]
    fn a_forbidden_ring_names_the_cause_and_the_fix() {
        let text = no_ring(io::Error::from_raw_os_error(libc::EPERM)).to_string();
        assert!(text.contains("io_uring_disabled") || text.contains("seccomp"), "{text}");
        let text = no_open(Path::new("x"), io::Error::from_raw_os_error(libc::EINVAL), true).to_string();
        assert!(text.contains("O_DIRECT") && text.contains("--allow-buffered"), "{text}");
    }
}
